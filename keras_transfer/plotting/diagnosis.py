"""Diagnosis: what the losses of a run say, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from keras_transfer.plotting.curves import Logs, is_finite, is_number, text_of

Kind = Literal["short", "diverged", "overfitting", "improving", "noisy", "plateau"]

_FEWEST = 5  # epochs below which nothing can be told
_ROSE = 0.05  # of the way that a loss came down, or of its minimum: to rise so is overfitting
_UNDONE = 0.5  # of that way: a loss that rose so has lost what it gained
_STILL = 0.02  # of that way: what is gained in the last third of the epochs, to be improving
_SURE = 3.0  # standard errors that make a difference, where many epochs tell how great they are
# With so many epochs it takes twice as many, since noise told by few values may be far off: for two
# means, and for a rise from the lowest, which is low by chance.
_UNKNOWN, _LOWEST = 6.0, 10.0
_ALIKE = 1.65  # standard errors by which neighbours are more alike than those of noise: one in 20
_LONG = 8  # epochs behind the minimum from which on their line counts, not their end alone
_NOISY = 0.05  # of the loss: noise that hides what matters
_STEPS = 4  # changes in a row, at least, that chance does not make: one in 120 without a trend


@dataclass(frozen=True)
class Diagnosis:
    """What the losses of a run say.

    Attributes:
        kind: `"short"` (fewer than 5 epochs, or too few to tell a fall or a rise from noise),
            `"diverged"` (a loss that is not finite and does not come back, or that rises again by
            more than half of the way that it came down, or training that ends above where it
            began), `"overfitting"`, `"improving"`, `"noisy"` (also what rises again by less) or
            `"plateau"`.
        epoch: The epoch, counted from 0, after which it overfits or before which it diverged; None
            for the other kinds.
        sentence: The same in words, with epochs counted from 1 as in the figure.
    """

    kind: Kind
    epoch: int | None
    sentence: str

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True)
class _Loss:
    """The finite values of a loss, and how far a value is off the trend."""

    epochs: np.ndarray
    values: np.ndarray

    @property
    def noise(self) -> float:
        """Standard deviation about the trend, told by third differences, which a trend has not.

        By their median, and of the later half: the first epochs are steep. But few of them may
        happen to be small, so that all of them count where these are greater.
        """
        differences = np.abs(np.diff(self.values, n=3))
        halves = differences[len(differences) // 2 :], differences
        return float(max(map(np.median, halves)) * 1.4826 / np.sqrt(20))

    def sure(self, variance: float, unknown: float = _UNKNOWN) -> float:
        """A difference that is no noise, if its variance is so many times that of the noise.

        The fewer the values, the less is known of their noise.
        """
        return float(_SURE * (1 + unknown / len(self.values)) * self.noise * np.sqrt(variance))

    @property
    def smooth(self) -> np.ndarray:
        """The trend: a mean over three or more epochs where noise is more than a trace."""
        if self.noise <= 0.02 * np.ptp(self.values):
            return self.values
        half = max(1, len(self.values) // 16)
        padded = np.pad(self.values, half, mode="edge")
        return np.convolve(padded, np.full(2 * half + 1, 1 / (2 * half + 1)), "valid")

    def mean(self, part: slice) -> float:
        return float(np.mean(self.values[part]))


def diagnose(history: Logs, epochs: Sequence[int]) -> Diagnosis:
    """Tells from the losses how a run is going.

    It overfits when the validation loss has come up from its minimum again, by more than 5 % of
    the way that it came down (or of the minimum, if that is less) and by more than noise explains,
    in at least two epochs, while the training loss falls on. It still improves when the loss gained
    more than 2 % of that way in the last third of the epochs, by more than noise explains or by
    falling in each of them (4 at least) to its best. On a plateau the later half of the epochs is
    flat; where that cannot be told either, the run is too short. The fewer epochs there are, the
    more noise explains.
    Where nothing is validated, the training loss alone is judged.

    Args:
        history: Values by name of the log, one an epoch: `"loss"`, and `"val_loss"` if there is
            one.
        epochs: The epochs, counted from 0.

    Example:
        >>> diagnose({"loss": [0.9, 0.5, 0.3]}, [0, 1, 2]).kind
        'short'
    """
    losses = {key: _loss(history, epochs, key) for key in ("loss", "val_loss") if key in history}
    for key, loss in losses.items():
        if (lost := _lost_from(history[key], epochs)) is not None:
            said = f"diverged: {key} of epoch {lost + 1} is not finite"
            return Diagnosis("diverged", lost, said)
        if len(loss.values) < _FEWEST or key != "loss":
            continue
        if _rose_above_its_start(loss) or _is_undone(loss):
            return _diverged(loss, key)
    judged = losses.get("val_loss", losses.get("loss"))
    name = "validation loss" if "val_loss" in losses else "training loss"
    if judged is None or len(judged.values) < _FEWEST:
        count = 0 if judged is None else len(judged.values)
        return Diagnosis("short", None, f"too short to say: {count} of {_FEWEST} epochs")
    if "loss" in losses and "val_loss" in losses:
        after = _overfits_after(losses["loss"], judged)
        if after is not None:
            return Diagnosis("overfitting", after, f"overfitting since epoch {after + 2}")
    if _is_undone(judged):
        return _diverged(judged, "val_loss")
    if (height := _jump(judged)) > 0:
        level = text_of(height)
        return Diagnosis("noisy", None, f"too noisy to say: {name} jumps by {level} at its end")
    if _improves(judged):
        return Diagnosis("improving", None, f"still improving: {name} falls")
    if judged.noise > _NOISY * abs(float(np.median(judged.values))):
        level = text_of(judged.noise)
        return Diagnosis("noisy", None, f"too noisy to say: {name} jumps by {level}")
    if _rises_again(judged):
        return Diagnosis("noisy", None, f"unstable: {name} rises again")
    if may := _may(judged):
        count = len(judged.values)
        return Diagnosis("short", None, f"too short to say: {name} may {may}, {count} epochs")
    return Diagnosis("plateau", None, f"plateau: {name} no longer falls")


def _loss(history: Logs, epochs: Sequence[int], key: str) -> _Loss:
    points = [(e, v) for e, v in zip(epochs, history[key], strict=True) if is_finite(v)]
    at, values = zip(*points, strict=True) if points else ((), ())
    return _Loss(np.array(at, int), np.array(values, float))


def _lost_from(values: Sequence[object], epochs: Sequence[int]) -> int | None:
    """The first epoch that is not finite, unless the loss came back to near its best after it."""
    points = [(e, v) for e, v in zip(epochs, values, strict=True) if is_number(v)]
    lost = [row for row, (_, value) in enumerate(points) if not is_finite(value)]
    if not lost:
        return None
    numbers = np.array([value for _, value in points], float)
    before, after = numbers[: lost[0]], numbers[lost[-1] + 1 :]
    if len(after) and len(before):
        best = before.min()
        is_back = after.min() <= best + _ROSE * max(before[0] - best, abs(best))
    else:
        is_back = len(after) > 0
    return None if is_back else points[lost[0]][0]


def _diverged(loss: _Loss, key: str) -> Diagnosis:
    before = int(loss.epochs[np.argmin(loss.smooth)])
    return Diagnosis("diverged", before + 1, f"diverged: {key} rises since epoch {before + 2}")


def _rose_above_its_start(loss: _Loss) -> bool:
    last = len(loss.values) // 4 + 1
    late = np.sort(loss.values[-last:])
    # The lower median: one value of the last ones is no trend.
    is_far = late[(last - 1) // 2] > loss.values[0] + loss.sure(1 + 1 / last)
    return bool(is_far and _has_trend(loss.values))


def _is_undone(loss: _Loss) -> bool:
    """Whether a loss rose again, for certain, by more than half of the way that it came down."""
    trend = loss.smooth
    lowest = int(np.argmin(trend))
    fell = float(trend[0] - trend[lowest])
    return _rises(loss, lowest, _UNDONE * max(fell, _ROSE * abs(float(trend[lowest]))))


def _jump(loss: _Loss) -> float:
    """How far the last epoch alone is above the one before, where it is no noise; else 0."""
    *_, before, last = loss.values
    height = float(last - before)
    others = np.abs(np.diff(loss.values[:-1]))
    return height if height > max(loss.sure(1), 2 * others.max()) else 0.0


def _overfits_after(training: _Loss, validation: _Loss) -> int | None:
    """The epoch of the lowest validation loss, if it is overfitting from there on."""
    trend = validation.smooth
    lowest = int(np.argmin(trend))
    low, fell = trend[lowest], trend[0] - trend[lowest]
    matters = _ROSE * min(max(fell, 0.02 * abs(low)), abs(low))
    at = int(validation.epochs[np.argmin(validation.values)])  # the best epoch of the figure
    later = training.values[training.epochs > at]
    before = training.values[training.epochs <= at]
    falls = len(later) > 0 and len(before) > 0 and later[-3:].mean() < before[-3:].mean()
    return at if falls and _rises(validation, lowest, matters) else None


def _rises_again(loss: _Loss) -> bool:
    trend = loss.smooth
    lowest = int(np.argmin(trend))
    return _rises(loss, lowest, _ROSE * max(float(trend[0] - trend[lowest]), 0.0))


def _rises(loss: _Loss, lowest: int, matters: float) -> bool:
    """Whether a loss ends above its minimum by more than matters and than noise explains.

    Two of the last three epochs do: one value is no trend.
    """
    last = min(3, len(loss.values) - 1 - lowest)
    if last < 2:
        return False
    above = loss.values[-last:] - loss.smooth[lowest]
    rise = float(above.mean())
    is_far = rise > loss.sure(1 / last + 1 / 3, _LOWEST) or _climbs(loss.values[lowest + 1 :])
    # From where it was first as low as it ends: what is behind that could be flat, but for noise.
    stretch = loss.values[np.argmax(loss.values <= loss.values[-last:].mean()) :]
    is_sure = (is_far and _has_trend(stretch)) or _rises_in_each(loss)
    return bool(is_sure and rise > matters and np.sum(above > matters) >= 2)


def _rises_in_each(loss: _Loss) -> bool:
    """Whether each epoch behind the best is worse than the one before, and they are not few.

    As in `_falls_to_its_best`: with few values, steps that differ look like noise.
    """
    steps = np.diff(loss.values[np.argmin(loss.values) :])
    return len(steps) >= max(_STEPS, len(loss.values) // 3) and bool(np.all(steps > 0))


def _has_trend(values: np.ndarray) -> bool:
    """Whether neighbours are more alike than noise round a constant makes them.

    By von Neumann's ratio of the squared steps to the squared distances from the mean, which is 2
    for noise: https://doi.org/10.1214/aoms/1177731677
    """
    count = len(values)
    if count < 3:
        return False
    off = values - values.mean()
    steps = np.diff(values)
    error = np.sqrt(4 * (count - 2) / (count**2 - 1))
    return bool(steps @ steps < (2 - _ALIKE * error) * (off @ off))


def _climbs(values: np.ndarray) -> bool:
    """Whether a straight line through some values rises for certain."""
    if len(values) < _LONG:
        return False
    x = np.arange(len(values)) - (len(values) - 1) / 2
    slope = float(x @ values / (x @ x))
    off = values - values.mean() - slope * x
    error = np.sqrt(off @ off / (len(values) - 2) / (x @ x))
    return bool(slope > 3 * error)


def _improves(loss: _Loss) -> bool:
    third = max(2, len(loss.values) // 3)
    late = loss.values[-third:]
    if _falls_to_its_best(loss):
        return True
    gained = float(late[: third // 2].mean() - late[-(third // 2) :].mean())
    way = float(loss.smooth[0] - loss.smooth.min())
    return gained > max(_STILL * way, loss.sure(2 / (third // 2)))


def _falls_to_its_best(loss: _Loss) -> bool:
    """Whether the last epoch is the best and each of the last ones fell, by more than a trace.

    With few values, steps that differ look like noise to third differences; such a row is none.
    """
    steps = max(_STEPS, len(loss.values) // 3)
    late = loss.values[-steps - 1 :]
    way = float(loss.values[0] - loss.values[-1])
    falls = bool(np.all(np.diff(late) < 0)) and loss.values[-1] == loss.values.min()
    return falls and float(late[0] - late[-1]) > _STILL * way


def _may(loss: _Loss) -> str:
    """What the later half seems to do, all of its end lying on one side of its beginning."""
    stretch = loss.values[-max(_STEPS, len(loss.values) // 2) :]
    early, late = np.array_split(stretch, 2)
    way = float(loss.values[0] - loss.values.min())
    if abs(float(early.mean() - late.mean())) <= _STILL * way:
        return ""
    return "fall" if late.max() < early.min() else "rise" if late.min() > early.max() else ""
