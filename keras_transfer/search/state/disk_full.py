"""Tells whether an error means that a disk is full, whichever library raised it."""

import errno
import os
from collections.abc import Iterator

# No space, a quota that is used up, and a file that is longer than the process may write.
_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_disk_full(error: BaseException) -> bool:
    """Returns whether an error, or one that led to it, says that a disk is full.

    TensorFlow and HDF5 raise errors of their own, whose text contains that of the system.

    Example:
        >>> is_disk_full(OSError(28, "No space left on device"))
        True
    """
    return any(
        getattr(one, "errno", None) in _CODES
        or any(os.strerror(code) in str(one) for code in _CODES)
        for one in _chain(error)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
