"""How many trials Hyperband needs, which follows from the epochs alone."""

import math

_FACTOR = 3  # KerasTuner's default, by which the trials of a round are fewer than those before


def hyperband_needs(epochs: int) -> int:
    """Returns how many trials Hyperband runs before it has trained one to the last epoch.

    That is the size of KerasTuner's first bracket, which is computed here as there, since importing
    KerasTuner takes seconds.

    Args:
        epochs: Of a trial, 1 or more.
    """
    bracket, shortest = 0, epochs / _FACTOR
    while shortest >= 1:
        bracket, shortest = bracket + 1, shortest / _FACTOR
    last = math.ceil(1 + math.log(epochs, _FACTOR)) / (bracket + 1)
    return sum(math.ceil(last * _FACTOR**rounds) for rounds in range(bracket + 1))
