"""Composition: the trials that best.keras is made of, for terminal, page and summary."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Composition:
    """The trials that the model of a search is made of, and the good ones that are not in it.

    Attributes:
        trials: The numbers of the trials in it, the best first; 0 is the probe.
        trained_again: The number of images, training and validation together, that they were
            trained on again after the search; `None` without `--final-fit`.
        added: The number of a trial that is in it once more, trained again on all these images.
        too_bad: The numbers of trials that are left out because of their scores.
        heads: The numbers of those that train a head alone, where fine-tuning does as well.
        lost: The numbers of trials whose weights are damaged or missing.

    Example:
        >>> made_of = Composition((3, 5), lost=(1,))
        >>> print(made_of, *made_of.left_out(), sep="; ")
        the average of trials 3, 5; Not in best.keras (weights damaged or missing): trial 1.
    """

    trials: tuple[int, ...]
    trained_again: int | None = None
    added: int | None = None
    too_bad: tuple[int, ...] = ()
    heads: tuple[int, ...] = ()
    lost: tuple[int, ...] = ()

    def __str__(self) -> str:
        text = _names(self.trials)
        if self.added is not None:
            text += f" and trial {self.added} trained again on all images"
        if len(self.trials) > 1 or self.added is not None:
            text = f"the average of {text}"
        again = self.trained_again
        return f"{text}, trained again on {again:,} images" if again else text

    @property
    def within(self) -> str:
        """The same text for the middle of a sentence, with a comma after an insertion."""
        return f"{self}," if self.trained_again else str(self)

    @property
    def lost_text(self) -> str:
        """Names the trials whose weights are lost."""
        return f"{_names(self.lost)}, whose weights are lost"

    def left_out(self) -> Iterator[str]:
        """Yields a sentence for each reason why trials are not in the model."""
        for numbers, why in (
            (self.too_bad, "validation scores too far behind"),
            (self.heads, "heads alone, and fine-tuning does as well"),
            (self.lost, "weights damaged or missing"),
        ):
            if numbers:
                yield f"Not in best.keras ({why}): {_names(numbers)}."


def _names(trials: Sequence[int]) -> str:
    numbers = [str(number) for number in trials if number]
    names = [f"trial{'s' * (len(numbers) > 1)} {', '.join(numbers)}"] if numbers else []
    return " and ".join((*["the probe"] * (0 in trials), *names))
