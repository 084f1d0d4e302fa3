"""Composition: what best.keras is made of. All that is said of it, wherever, is said from this."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Composition:
    """What the model of a search has become, noted when it was made.

    Attributes:
        trials: The numbers of the trials in it, the best first.
        trained_again: On how many images, training and validation together, they were trained
            again after the search; `None` without `--final-fit`.
        too_bad: The numbers of those that would be in it but for their scores.
        unlike: And of those that one model could not hold with the best.
        lost: And of those whose weights are damaged or missing.

    Example:
        >>> made_of = Composition((3, 5), lost=(1,))
        >>> print(made_of, *made_of.left_out(), sep="; ")
        the average of trials 3, 5; Not in best.keras (weights damaged or missing): trial 1.
    """

    trials: tuple[int, ...]
    trained_again: int | None = None
    too_bad: tuple[int, ...] = ()
    unlike: tuple[int, ...] = ()
    lost: tuple[int, ...] = ()

    def __str__(self) -> str:
        told = _names(self.trials)
        if len(self.trials) > 1:
            told = f"the average of {told}"
        again = self.trained_again
        return f"{told}, trained again on {again:,} images" if again else told

    @property
    def within(self) -> str:
        """The same for the middle of a sentence, where an insertion ends with a comma."""
        return f"{self}," if self.trained_again else str(self)

    @property
    def lost_text(self) -> str:
        """Says which trials are lost."""
        return f"{_names(self.lost)}, of which the weights are lost"

    def left_out(self) -> Iterator[str]:
        """Says in a sentence for each reason which trials are not in the model."""
        for numbers, why in (
            (self.too_bad, "validation scores too far behind"),
            (self.unlike, "one model cannot hold them with the best"),
            (self.lost, "weights damaged or missing"),
        ):
            if numbers:
                yield f"Not in best.keras ({why}): {_names(numbers)}."


def _names(trials: Sequence[int]) -> str:
    return f"trial{'s' if len(trials) > 1 else ''} {', '.join(map(str, trials))}"
