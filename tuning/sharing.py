"""What it saves that all epochs of all trials share what the frozen part computes."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sharing:
    """What computing the activations of the frozen part cost.

    Attributes:
        seconds_per_image: As measured while they were computed, or when they were kept.
        images: How many an epoch goes through, those of validation included.
        seconds: What computing them took in this run; 0 where all were kept already.
    """

    seconds_per_image: float
    images: int
    seconds: float

    def saved(self, epochs: int) -> float:
        """Returns the seconds saved: `seconds_per_image * images * epochs - seconds`.

        That is what the frozen part would have cost in each epoch, less what it did cost. It is
        less than 0 until as many epochs have run as pay for it.

        Args:
            epochs: Of all trials and folds together.

        Example:
            >>> Sharing(0.02, 2000, 50.0).saved(300)
            11950.0
        """
        return self.seconds_per_image * self.images * epochs - self.seconds


def seconds_left(
    seconds: Sequence[float], left: int, *, workers: int = 1, until_deadline: float | None = None
) -> float | None:
    """Returns how long a search goes on: the median of its trials, times those that are left.

    Args:
        seconds: Of each trial that has ended.
        left: Trials that have not.
        workers: How many run at a time. Default 1.
        until_deadline: Seconds until no trial goes on; None, the default, without a deadline.

    Returns:
        Seconds; None while there is nothing to judge by.

    Example:
        >>> seconds_left([10.0, 12.0, 50.0], left=6, workers=2)
        36.0
    """
    limit = None if until_deadline is None else max(0.0, until_deadline)
    if not left:
        return 0.0
    if not seconds:
        return limit
    expected = statistics.median(seconds) * left / workers
    return expected if limit is None else min(expected, limit)


def seconds_text(seconds: float) -> str:
    """A length of time as people say it.

    Example:
        >>> seconds_text(42.4), seconds_text(400), seconds_text(8000)
        ('42 s', '6 min 40 s', '2 h 13 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes < 10 and rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
