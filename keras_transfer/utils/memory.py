"""How much memory a process may still take."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil


class _Cgroup(NamedTuple):
    """The files in which a version of Linux' control groups (containers, job systems) has figures.

    `reclaimable` is the line in `memory.stat` of files in the page cache, which count as used and
    make room when somebody needs it.
    """

    root: Path
    limit: str
    used: str
    reclaimable: str


_CGROUPS = (
    _Cgroup(Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    _Cgroup(
        Path("/sys/fs/cgroup/memory"),
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)
_OWN_GROUPS = Path("/proc/self/cgroup")

# A call keeps at most one part in so many of the free memory.
_SHARE = 4


def free_memory() -> int:
    """Returns the bytes that are free on this machine and in the control groups of this process."""
    free = [psutil.virtual_memory().available]
    for cgroup in _CGROUPS:
        for folder in _folders(cgroup.root):
            with suppress(OSError, ValueError):  # no such file; "max"
                limit = int((folder / cgroup.limit).read_text())
                used = int((folder / cgroup.used).read_text())
                stat = dict(map(str.split, (folder / "memory.stat").read_text().splitlines()))
                free.append(limit - used + int(stat.get(cgroup.reclaimable, 0)))
    return max(0, min(free))


def _folders(root: Path) -> Iterator[Path]:
    """The folders of the groups that this process is in, the outermost first."""
    yield root
    with suppress(OSError):
        for line in _OWN_GROUPS.read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            if kinds in ("", "memory"):
                names = Path(path).parts[1:]
                yield from (root.joinpath(*names[: n + 1]) for n in range(len(names)))


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
