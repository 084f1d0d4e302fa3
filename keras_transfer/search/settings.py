"""Settings: what a search is asked for, by its command line or from Python."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_type_hints

from keras_transfer.search.hyperband import hyperband_needs
from keras_transfer.search.space.space import Space

# These must be the same for a search to be resumed; the others decide only how much of it is run.
_DECISIVE = (
    "tuner",
    "epochs",
    "image_size",
    "batch_size",
    "flips",
    "metric",
    "balance",
    "folds",
    "seed",
)


# Of a search that is asked for neither minutes nor a number of trials.
MINUTES = 15.0
MANY = 500  # trials, of which only a few fit into the time
AUTO = "auto"  # in place of a backbone's name: those on this machine are compared


@dataclass(frozen=True)
class Settings:
    """What a search is asked for.

    Attributes:
        output: The folder of the search.
        directory: The folder of images; `None` for the demo data.
        space: The hyperparameters.
        backbones: Names, folders or addresses of backbones; or `AUTO` alone.
        weights: `"imagenet"`, `"none"` for random ones, or the path of a file.
        tuner: KerasTuner's oracle.
        trials: How many trials at most.
        minutes: Minutes until the command has to end; `None` for no limit.
        epochs: Epochs of a trial at most.
        metric: The metric of the validation images that ranks trials.
        image_size: Height and width of the images in pixels.
        batch_size: Images in a batch.
        flips: The kind of `Flips`, or `"none"`.
        balance: Whether all classes count the same in the loss.
        folds: Number of folds; `None` for one validation split.
        early_stopping: Whether trials end that do not get better.
        average: How many of the best trials are averaged at most.
        average_views: Whether the model predicts the mean over the views of `flips`.
        final_fit: Whether the best trials are trained again on training and validation images.
            `None` to train the best one again, too, and add it to the average, where that fits
            into the time.
        seed: 0 or larger.
        cache: A folder for activations that other searches share.
        tensorboard: A folder for a log of the trials for TensorBoard.
        workers: Trials at a time; above 1 in processes of Ray (extra `cluster`).
        cluster: The address of a Ray cluster that runs, or `"auto"`; `None` for this machine.
        gpus_per_trial: GPUs for each trial, where Ray runs them.
        most_growth: Bytes that the process may grow by until a new one takes its place; `None` for
            any number.

    Raises:
        ValueError: If settings do not fit each other.
    """

    output: Path
    directory: Path | None = None
    space: Space = field(default_factory=Space)
    backbones: tuple[str, ...] = ("efficientnet_lite0",)
    weights: str = "imagenet"
    tuner: Literal["bayesian", "hyperband", "random", "grid"] = "bayesian"
    trials: int = 12
    minutes: float | None = None
    epochs: int = 30
    metric: Literal["loss", "accuracy", "auc", "f1"] = "loss"
    image_size: int = 224
    batch_size: int = 32
    flips: Literal["none", "mirror", "flips", "dihedral"] = "none"
    balance: bool = False
    folds: int | None = None
    early_stopping: bool = True
    average: int = 5
    average_views: bool = True
    final_fit: bool | None = None
    seed: int = 0
    cache: Path | None = None
    tensorboard: Path | None = None
    workers: int = 1
    cluster: str | None = None
    gpus_per_trial: float = 0
    most_growth: int | None = None

    def __post_init__(self) -> None:
        for name in ("trials", "epochs", "image_size", "batch_size", "average", "workers"):
            _check_from(name, getattr(self, name), 1)
        _check_from("seed", self.seed, 0)
        if self.folds is not None:
            _check_from("folds", self.folds, 2)
        for name in ("tuner", "metric", "flips"):
            choices = get_args(get_type_hints(type(self))[name])
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"--{name} {getattr(self, name)!r}. Expected one of {', '.join(choices)}."
                )
        if self.gpus_per_trial and not self.is_parallel:
            raise ValueError("--gpus-per-trial needs --workers or --cluster.")
        names = self.backbones
        if len(set(names)) < len(names) or not all(names):
            raise ValueError(
                f"--backbone {','.join(names)!r}. Expected names, each once, with commas."
            )
        if AUTO in names and len(names) > 1:
            raise ValueError(
                f"--backbone {','.join(names)!r}. Expected 'auto' alone, or names without it."
            )
        if names != (AUTO,):
            self.space.backbones(names)
        self.space.check_epochs(self.epochs)
        if self.tuner == "hyperband" and self.trials < (needed := hyperband_needs(self.epochs)):
            raise ValueError(
                f"--tuner hyperband at {self.epochs} epochs needs {needed} trials until one has "
                f"trained to the end. Received: --trials {self.trials}. Give more, or fewer epochs."
            )

    @property
    def is_parallel(self) -> bool:
        """Whether trials run in processes of Ray."""
        return self.workers > 1 or self.cluster is not None

    def with_absolute_paths(self) -> Self:
        """Returns the settings for a process that runs in another folder."""

        def absolute(text: str) -> str:
            return str(Path(text).resolve()) if Path(text).exists() else text

        return replace(
            self,
            output=self.output.resolve(),
            cache=self.cache and self.cache.resolve(),
            weights=absolute(self.weights),
            backbones=tuple(map(absolute, self.backbones)),
        )

    def decisive(self) -> Mapping[str, Any]:
        """Returns the settings that must be the same for a search to be resumed."""
        return {
            "space": self.space.to_dict(),
            **{name: getattr(self, name) for name in _DECISIVE},
            "no_early_stopping": not self.early_stopping,
        }

    def to_dict(self) -> dict[str, Any]:
        """Returns what was asked for, with paths as they were given."""
        left_out = ("backbones", "most_growth", "early_stopping")
        names = [one.name for one in fields(self) if one.name not in left_out]
        return {
            **{name: getattr(self, name) for name in names},
            "space": self.space.to_dict(),
            "backbone": list(self.backbones),
            "no_early_stopping": not self.early_stopping,
        }


def _check_from(name: str, value: int, least: int) -> None:
    if not isinstance(value, int) or value < least:
        option = name.replace("_", "-")
        raise ValueError(f"--{option} {value!r}. Expected a whole number from {least} on.")
