"""How much memory a process may still take."""

from contextlib import suppress
from pathlib import Path

import psutil

# Limit of the container, and what of it is used, which the machine's own figures do not know:
# cgroup 2 and 1.
_LIMITS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)

# Of the free memory, at most this share is taken by what one call keeps.
_SHARE = 4


def free_memory() -> int:
    """Returns the bytes that are free, on this machine or in this container."""
    free = [psutil.virtual_memory().available]
    for limit, used in _LIMITS:
        with suppress(OSError, ValueError):  # no such file; "max"
            free.append(int(limit.read_text()) - int(used.read_text()))
    return max(0, min(free))


def total_memory() -> int:
    """Returns the bytes of this machine's memory, free or not."""
    return int(psutil.virtual_memory().total)


def memory_budget() -> int:
    """Returns the bytes that may be kept in RAM: a quarter of what is free."""
    return free_memory() // _SHARE


def readable(size: float) -> str:
    """Returns a number of bytes as people write it.

    Example:
        >>> readable(26_300_000)
        '26 MB'
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.{0 if size >= 10 * scale else 1}f} {unit}"
    return f"{size:.0f} bytes"
