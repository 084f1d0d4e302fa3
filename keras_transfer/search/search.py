"""Search: a search for the best classifier of a folder of images, as `keras-transfer search`."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import keras

from keras_transfer.data.image_folder import ImageFolder
from keras_transfer.search.averaging.winner import MODEL
from keras_transfer.search.metrics import objective
from keras_transfer.search.report.leaderboard import PROBE, ranked
from keras_transfer.search.report.page import PAGE
from keras_transfer.search.session import run
from keras_transfer.search.settings import MANY, MINUTES, Settings
from keras_transfer.search.space.space import Space
from keras_transfer.search.state.files import read_json
from keras_transfer.search.state.journal import Journal
from keras_transfer.search.state.lock import LOCK
from keras_transfer.search.state.outcome import PREFIX, Outcome
from keras_transfer.search.state.search_file import FILE
from keras_transfer.search.trials import FOLDER, JOURNAL
from keras_transfer.utils.exit_codes import DONE, INTERRUPTED
from keras_transfer.utils.output_folder import output_folder


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The result of a search.

    Attributes:
        best: The trial that `model` was made of, the best one if it is an average of several; the
            probe, trial 0, if none did better.
        trials: All trials, best first, failed ones last; the probe is not among them.
        model: What `best.keras` holds: a model that takes raw 0..255 pixels.
        test: What the model gets on the test images, such as `test["accuracy"]`; `None` without
            test images.
        report: The path of report.html.
        output: The folder of the search.
    """

    best: Outcome
    trials: tuple[Outcome, ...]
    model: keras.Model
    test: Mapping[str, Any] | None
    report: Path
    output: Path


class Search:
    """Searches heads, learning rates and fine-tuning on a frozen backbone.

    The command `keras-transfer search` and this class resume each other's folders.

    Args:
        data: A folder of class folders, or an `ImageFolder`.
        space: The hyperparameters. Default: `Space()`.
        backbone: A name of `keras.applications`, a folder or address of a module, or several;
            `"auto"` for the best of those whose weights are on this machine.
        weights: `"imagenet"`, `None` for random ones, or the path of a file.
        tuner: `"bayesian"`, `"hyperband"`, `"random"` or `"grid"`.
        trials: How many trials at most. Default: as many as fit into the minutes.
        minutes: Minutes that all of it may take, with the report. Default: 15, unless `trials` is
            given; then no limit.
        epochs: Epochs of a trial at most. Default 30.
        metric: What the best trial is the best in, on validation images: `"loss"`, `"accuracy"`,
            `"auc"` or `"f1"`.
        image_size: Height and width in pixels; that of an `ImageFolder`, else 224.
        batch_size: Images in a batch; that of an `ImageFolder`, else 32.
        flips: Views of an image that mean the same: `"none"`, `"mirror"`, `"flips"`, `"dihedral"`.
        balance: Whether all classes count the same in the loss. Default `False`.
        folds: Number of folds that each trial trains on. Default: one validation split.
        early_stopping: Whether trials end that do not get better. Default `True`.
        average: How many of the best trials are averaged at most. Default 5.
        average_views: Whether the model predicts the mean over the views of `flips`.
        final_fit: Whether the best trials are trained again on training and validation images.
            Default: the best one is, beside what it is, where that fits into the time.
        workers: Trials at a time; above 1 in processes of Ray (extra `cluster`). Default 1.
        cluster: The address of a Ray cluster that runs, or `"auto"`. Default: this machine.
        gpus_per_trial: GPUs for each trial, where Ray runs them. Default 0.
        seed: 0 or larger; that of an `ImageFolder`, else 0.
        output: The folder of the search. Default: a new one, `runs/<data>-<time>`.
        cache: A folder for activations that other searches share. Default: within `output`, until
            the search is over.

    Raises:
        ValueError: If arguments do not fit each other.
        OSError: If `output` holds something else, or cannot be written.

    Example:
        >>> result = Search("photos/", Space(unfreeze=[0, 1]), minutes=15, output="runs/x").run()
        >>> result.best.score, result.test["accuracy"]
        (0.21, 0.93)
        >>> result.model.export("serving/1")
    """

    def __init__(
        self,
        data: str | os.PathLike[str] | ImageFolder,
        space: Space | None = None,
        *,
        backbone: str | Sequence[str] = "efficientnet_lite0",
        weights: str | None = "imagenet",
        tuner: Literal["bayesian", "hyperband", "random", "grid"] = "bayesian",
        trials: int | None = None,
        minutes: float | None = None,
        epochs: int = 30,
        metric: Literal["loss", "accuracy", "auc", "f1"] = "loss",
        image_size: int | None = None,
        batch_size: int | None = None,
        flips: Literal["none", "mirror", "flips", "dihedral"] = "none",
        balance: bool = False,
        folds: int | None = None,
        early_stopping: bool = True,
        average: int = 5,
        average_views: bool = True,
        final_fit: bool | None = None,
        workers: int = 1,
        cluster: str | None = None,
        gpus_per_trial: float = 0,
        seed: int | None = None,
        output: str | os.PathLike[str] | None = None,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        self.data = data if isinstance(data, ImageFolder) else Path(data)
        directory = _directory(self.data)
        given = {"image_size": image_size, "batch_size": batch_size, "seed": seed}
        known = _of_data(self.data, given)
        if isinstance(data, ImageFolder) and (workers > 1 or cluster):
            raise ValueError(
                "An ImageFolder cannot travel to other processes. With `workers` or `cluster`, "
                f"give the folder: {str(directory)!r}."
            )
        self.settings = Settings(
            output_folder(Path(output) if output else None, directory.name, (FILE, LOCK)),
            directory=directory,
            space=Space() if space is None else space,
            backbones=(backbone,) if isinstance(backbone, str) else tuple(backbone),
            weights="none" if weights is None else weights,
            tuner=tuner,
            trials=MANY if trials is None else trials,
            minutes=MINUTES if trials is None and minutes is None else minutes,
            epochs=epochs,
            metric=metric,
            flips=flips,
            balance=balance,
            folds=folds,
            early_stopping=early_stopping,
            average=average,
            average_views=average_views,
            final_fit=final_fit,
            workers=workers,
            cluster=cluster,
            gpus_per_trial=gpus_per_trial,
            cache=None if cache is None else Path(cache),
            image_size=known["image_size"],
            batch_size=known["batch_size"],
            seed=known["seed"],
        )

    @classmethod
    def of(cls, settings: Settings, data: Path | ImageFolder) -> Self:
        """Returns the search of some settings, as the command has them.

        Args:
            settings: What is asked for.
            data: The folder of images, or the images themselves.
        """
        search = cls.__new__(cls)
        search.settings, search.data = settings, data
        return search

    def run(self) -> SearchResult:
        """Runs the search, or what is left of it, and returns its result.

        Raises:
            RuntimeError: If no trial succeeded, or there was no time for one.
            KeyboardInterrupt: If it is interrupted before the first trial has ended. Afterwards the
                result is that of the trials so far.
        """
        code = self.exit_code(time.monotonic())
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        if code != DONE:
            raise RuntimeError(
                f"No trial of the search in {self.settings.output} succeeded. What it printed last "
                "says why."
            )
        return self._result()

    def exit_code(self, began: float) -> int:
        """Runs the search as the command does; returns its exit code.

        Args:
            began: When the search began, as `time.monotonic()`, which `minutes` count from.
        """
        return run(self.settings, self.data, began)

    def _result(self) -> SearchResult:
        output = self.settings.output
        summary = read_json(output / "summary.json")
        events = Journal(output / FOLDER / JOURNAL).read()
        outcomes = [Outcome.from_json(e["outcome"]) for e in events if e["event"] == "ended"]
        trials = tuple(ranked(outcomes, objective(self.settings.metric)))
        probe = Outcome.read(output / FOLDER / f"{PREFIX}{PROBE}")
        best = next(one for one in (probe, *trials) if one.trial == summary["best"]["trial"])
        # The search has just written it; the safe mode would refuse the graph of a TF-Hub module.
        model = keras.saving.load_model(output / MODEL, safe_mode=False)
        return SearchResult(best, trials, model, summary["test"], output / PAGE, output)


def _directory(data: Path | ImageFolder) -> Path:
    directory = Path(data.directory) if isinstance(data, ImageFolder) else data
    if not directory.is_dir():
        raise ValueError(
            f"{str(directory)!r} is no folder. Expected one that holds a folder of images for each "
            "class."
        )
    return directory.resolve()


def _of_data(data: Path | ImageFolder, given: Mapping[str, int | None]) -> dict[str, int]:
    """Image size, batch size and seed: those of an `ImageFolder`, or what was given."""
    known = {"image_size": 224, "batch_size": 32, "seed": 0}
    if isinstance(data, ImageFolder):
        height, width = data.image_size
        if height != width:
            raise ValueError(f"The images are {height} x {width}. Expected the same for both.")
        known = {"image_size": height, "batch_size": data.batch_size, "seed": data.seed}
        for name, value in given.items():
            if value not in (None, known[name]):
                raise ValueError(f"{name}={value} differs from {known[name]} of the ImageFolder.")
    return {name: known[name] if value is None else value for name, value in given.items()}
