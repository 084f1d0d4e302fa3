"""Space: the hyperparameters of a search, and what each is chosen from."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from keras_transfer.search.space.dimension import Choices, Dimension, Range, dimension
from keras_transfer.search.space.file import read_space
from keras_transfer.search.space.rules import RULES, SpaceError, typed, wrong
from keras_transfer.utils.atomic_files import written_whole
from keras_transfer.utils.yaml_file import unknown

if TYPE_CHECKING:
    import keras_tuner

LEVELS = "levels"
_FINE_TUNING = (
    "batch_norm",
    "fine_tuning_epochs",
    "fine_tuning_learning_rate",
    "lr_decay",
    "frozen_epochs",
)


@dataclass(frozen=True)
class Space:
    """The hyperparameters of a search, and what each is chosen from.

    Each is a `Range`, a list of values, or one value, which is fixed.

    Attributes:
        pooling: Of the backbone's feature map: `"avg"`, `"max"`; or `"levels"`, of those of all its
            blocks, none of which is unfrozen then.
        hidden: Units of each hidden layer (ReLU).
        depth: Hidden layers; 0 for a linear head.
        dropout: Rate behind each hidden layer; of a linear head, before it.
        learning_rate: Of a head on a frozen backbone (AdamW).
        weight_decay: As in AdamW: of each weight, so much times the learning rate is taken away at
            each step. Biases and what scales a normalization are left alone. Keras multiplies it
            by the learning rate, so below 1e-3 it does nothing in a search's few hundred steps.
        label_smoothing: Share of each label that is spread evenly over all classes.
        unfreeze: Blocks that are fine-tuned, from the top: a whole number, or a share of all
            blocks; 0 for none.
        batch_norm: Of these blocks, as for `FrozenBackbone`.
        fine_tuning_epochs: Epochs of a trial that fine-tunes, at most.
        fine_tuning_learning_rate: The highest rate while they train: it rises for half an epoch,
            then falls along half a cosine.
        lr_decay: The rate of each block relative to the one above it.
        frozen_epochs: Epochs before they are unfrozen: a whole number, or a share of those of the
            trial, of which one is left at least.
        backbone: Names of backbones, `None` for all that there are.

    Raises:
        SpaceError: If a value is impossible, a range is empty, or a list repeats a value.

    Example:
        >>> Space(depth=1, dropout=[0.2, 0.5], learning_rate=Range(1e-4, 1e-2, log=True))
    """

    pooling: Any = field(default=Choices(("avg", "max", LEVELS)))
    hidden: Any = field(default=Range(32, 512, log=True, step=2))
    depth: Any = field(default=Choices((0, 1)))
    dropout: Any = field(default=Range(0.0, 0.7, step=0.1))
    learning_rate: Any = field(default=Range(1e-4, 1e-2, log=True))
    weight_decay: Any = field(default=Choices((0.0, 1e-3, 1e-2, 1e-1)))
    label_smoothing: Any = field(default=Range(0.0, 0.2, step=0.05))
    unfreeze: Any = field(default=Choices((0.0, 0.2, 0.35, 0.6)))
    batch_norm: Any = field(default=Choices(("adapt",)))
    fine_tuning_epochs: Any = field(default=Choices((10,)))
    fine_tuning_learning_rate: Any = field(default=Range(3e-4, 3e-3, log=True))
    lr_decay: Any = field(default=Range(0.6, 1.0))
    frozen_epochs: Any = field(default=Choices((0,)))
    backbone: Any = None

    def __post_init__(self) -> None:
        found = []
        for name in _NAMES:
            given = getattr(self, name)
            if name == "backbone" and given is None:
                continue
            try:
                made = typed(name, dimension(given))
            except TypeError as error:
                found.append(f"`{name}`: {error}")
                continue
            found += [f"`{name}`: {text}" for text in wrong(name, made)]
            object.__setattr__(self, name, made)
        if found:
            raise SpaceError("\n".join(found))

    @classmethod
    def read(cls, path: str | PathLike[str]) -> Self:
        """Reads a space from a YAML file; what the file leaves out has its default.

        Args:
            path: A file such as `__str__` gives: a mapping of names to a value, a list of values,
                or `{min: ..., max: ..., log: true, step: ...}`.

        Raises:
            FileNotFoundError: If there is no such file.
            SpaceError: If anything in it is wrong or unclear. The message lists the errors with
                their lines.
        """
        return cls(**read_space(path))

    def write(self, path: str | PathLike[str]) -> None:
        """Writes a file that `read` makes an equal space of, whole or not at all."""
        with written_whole(Path(path)) as temporary:
            temporary.write_text(f"{self}\n", encoding="utf-8")

    def __str__(self) -> str:
        return "\n".join(f"{name}: {chosen}" for name, chosen in self._given())

    def to_dict(self) -> dict[str, Any]:
        """Returns it as JSON has it: equal for equal spaces."""
        return {name: chosen.to_plain() for name, chosen in self._given()}

    def _given(self) -> list[tuple[str, Dimension]]:
        found = [(name, getattr(self, name)) for name in _NAMES]
        return [(name, chosen) for name, chosen in found if chosen is not None]

    def backbones(self, known: Sequence[str]) -> tuple[str, ...]:
        """Returns the names of the backbones to choose from.

        Args:
            known: Those that there are.

        Raises:
            SpaceError: If the space names another.
        """
        if self.backbone is None:
            return tuple(known)
        for name in self.backbone.values:
            if name not in known:
                raise SpaceError(f"`backbone`: {unknown('backbone', name, known)}")
        return self.backbone.values

    def first_unfrozen(self, share_or_epochs: float, epochs: int) -> int:
        """Returns the epoch that fine-tuning begins with, from 0.

        Args:
            share_or_epochs: What was chosen for `frozen_epochs`.
            epochs: Epochs of a trial.
        """
        if isinstance(share_or_epochs, int):
            return share_or_epochs
        return max(1, round(share_or_epochs * epochs))

    def check_epochs(self, epochs: int) -> None:
        """Checks that fine-tuning can begin within the epochs of a trial.

        Raises:
            SpaceError: If it never would.
        """
        if self.pooling.values == (LEVELS,) and self.unfreeze.least:
            raise SpaceError(
                f"`pooling: {LEVELS}` needs frozen blocks, and `unfreeze` is {self.unfreeze}. Give "
                "`unfreeze: 0`, or another pooling as well."
            )
        epochs = min(epochs, self.fine_tuning_epochs.most)
        first = self.first_unfrozen(self.frozen_epochs.least, epochs)
        if self.unfreeze.most and first >= epochs:
            raise SpaceError(
                f"Nothing would ever be unfrozen: `frozen_epochs` is {self.frozen_epochs}, and a "
                f"trial that fine-tunes has {epochs} epochs. Give more epochs, fewer of them "
                "frozen, or `unfreeze: 0`."
            )

    def declare(
        self, hp: "keras_tuner.HyperParameters", backbones: Sequence[str]
    ) -> dict[str, Any]:
        """Declares all hyperparameters, and returns the values of this trial.

        `unfreeze` is there only where the pooling is not of all levels, and those of fine-tuning
        only where it is above 0.

        Args:
            hp: Where to declare them.
            backbones: The backbones that there are. With one there is nothing to choose.
        """
        values: dict[str, Any] = {}
        names = self.backbones(backbones)
        values["backbone"] = hp.Choice("backbone", list(names)) if len(names) > 1 else names[0]
        for name in _NAMES:
            if name not in ("backbone", "unfreeze", *_FINE_TUNING):
                values[name] = getattr(self, name).declare(hp, name, RULES[name].usual)
        one_level = [one for one in self.pooling.values if one != LEVELS]
        if len(one_level) == len(self.pooling.values):
            return {**values, **self._declare_unfreeze(hp)}
        if not (one_level and self.unfreeze.most):
            return {**values, "unfreeze": hp.Fixed("unfreeze", 0)}
        with hp.conditional_scope("pooling", one_level):
            declared = self._declare_unfreeze(hp)
        return {**values, **({"unfreeze": 0} if values["pooling"] == LEVELS else declared)}

    def recommended(self, backbones: Sequence[str]) -> list[dict[str, Any]]:
        """Returns the values to begin with: what usually does well, the deepest fine-tuning first.

        The second is the first with less smoothing and half the rate, and trains with another seed.

        Args:
            backbones: The backbones that there are.
        """
        if not isinstance(self.unfreeze, Choices):
            return [self.complete({}, backbones)]
        usual = RULES["unfreeze"].usual
        depths = sorted((d for d in self.unfreeze.values if d), reverse=True)
        if usual in depths:  # all blocks are rarely worth their time
            depths = [usual, *(d for d in depths if d != usual)]
        found = [self.complete({"unfreeze": depth}, backbones) for depth in depths]
        if found:
            rate = self.fine_tuning_learning_rate.nearest(found[0]["fine_tuning_learning_rate"] / 2)
            other = {"label_smoothing": self.label_smoothing.nearest(0.0)}
            found.insert(1, {**found[0], **other, "fine_tuning_learning_rate": rate})
        return [one for i, one in enumerate(found) if one not in found[:i]]

    def complete(self, values: dict[str, Any], backbones: Sequence[str]) -> dict[str, Any]:
        """Returns all values of a trial of which some are given; the others are usual ones.

        Args:
            values: Name to value.
            backbones: The backbones that there are.
        """
        from keras_tuner import HyperParameters

        hp = HyperParameters()
        hp.values = dict(values)
        self.declare(hp, backbones)
        declared = {one.name for one in hp.space if hp.is_active(one)}
        return {name: value for name, value in hp.values.items() if name in declared}

    def _declare_unfreeze(self, hp: "keras_tuner.HyperParameters") -> dict[str, Any]:
        values = {"unfreeze": self.unfreeze.declare(hp, "unfreeze", RULES["unfreeze"].usual)}
        if not self.unfreeze.most:
            return values
        if self.unfreeze.least:
            return {**values, **self._declare_fine_tuning(hp)}
        with hp.conditional_scope("unfreeze", self.unfreeze.above(0)):
            return {**values, **self._declare_fine_tuning(hp)}

    def _declare_fine_tuning(self, hp: "keras_tuner.HyperParameters") -> dict[str, Any]:
        return {
            name: getattr(self, name).declare(hp, name, RULES[name].usual) for name in _FINE_TUNING
        }


_NAMES = tuple(one.name for one in fields(Space))
