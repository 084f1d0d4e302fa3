"""Limits on the sizes that a model file asks for, checked before anything is built."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from keras_transfer.utils.memory import readable, total_memory

_MOST = 1_000_000
# Numbers that are no sizes: seeds, the values of an array, and ids of shared objects.
_NO_SIZES = ("seed", "value", "shared_object_id")


def check_config(config: Mapping[str, Any]) -> None:
    """Checks that no whole number in a config is larger than units, filters or pixels can be.

    Keras builds whatever a file says, so one number in a small file could fill the memory. Configs
    of other packages' layers are not checked, since their numbers may mean anything.

    Raises:
        ValueError: If there is such a number.
    """
    left: list[tuple[str, Any]] = [("config", config)]
    while left:
        key, value = left.pop()
        if isinstance(value, int) and abs(value) > _MOST:
            raise ValueError(
                f"The config of the model asks for {key}={value:,}. Expected at most {_MOST:,}. "
                "Nothing was built; the file is damaged or was tampered with."
            )
        if isinstance(value, Mapping) and str(value.get("module") or "keras").startswith("keras"):
            left += [(str(name), part) for name, part in value.items() if name not in _NO_SIZES]
        elif isinstance(value, list | tuple):
            left += [(key, part) for part in value]


def check_memory(shapes: Iterable[Sequence[int]], what: str) -> None:
    """Checks that weights of some shapes fit into the memory of this machine.

    Raises:
        ValueError: If they do not.
    """
    size, total = 4 * sum(map(math.prod, shapes)), total_memory()
    if size > total:
        raise ValueError(
            f"{what} would have weights of {readable(size)}. This machine has a memory of "
            f"{readable(total)}. Nothing was built: take a smaller one."
        )
