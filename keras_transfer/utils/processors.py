"""How many processors a process may use."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# Microseconds of processor time in a period, and that period: cgroup 2 and 1.
_CGROUP_2 = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_1 = (
    Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
    Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
)


def processors() -> int:
    """Returns how many processors this process may use, at least 1.

    `os.cpu_count` counts all of the machine, also where a batch system such as SLURM gives a
    process some of them only, or a container has a limit.
    """
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    return max(1, min([count, *_limits()]))


def _limits() -> Iterator[int]:
    """Limits of the container, rounded up."""
    for text in (_content(_CGROUP_2), " ".join(map(_content, _CGROUP_1))):
        with suppress(ValueError, ZeroDivisionError):  # no such file; "max"
            quota, period = map(int, text.split())
            if quota > 0:  # -1 for no limit
                yield math.ceil(quota / period)


def _content(path: Path) -> str:
    with suppress(OSError):
        return path.read_text()
    return ""
