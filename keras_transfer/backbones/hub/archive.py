"""Archives of SavedModels, unpacked within limits, and only below the folder meant for them."""

import errno
import gzip
import io
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from keras_transfer.backbones.hub.files import DamagedModule

# Weights hardly shrink when they are packed, and the largest modules for images have a few GB.
_LEAST_LIMIT = 256 * 2**20
_MOST_TIMES = 20
_MOST_BYTES = 16 * 2**30
_MOST_MEMBERS = 10_000
_DEEPEST = 32
_LONGEST_HEADER = 2**16  # tarfile reads contents in smaller parts, and headers as a whole


class UnsafeArchive(ValueError):
    """An archive that would write outside its folder, or far more than a module holds."""


def unpack(stream: BinaryIO, folder: Path, source: str) -> None:
    """Unpacks a `.tar` or `.tar.gz` into an existing folder.

    The archive is read to its end, so that a checksum there is checked.

    Args:
        stream: The archive.
        folder: Where its files go.
        source: The name of the archive in messages.

    Raises:
        DamagedModule: If it is no archive, ends too early, holds no files, or cannot be written.
        UnsafeArchive: If a member is a link, a device or lies outside, or the archive unfolds to
            more than a module holds.
        OSError: If the disk is full.
    """
    count = 0
    try:
        content: Any = _Content(stream)
        with tarfile.TarFile(fileobj=content) as archive:
            archive.extraction_filter = lambda member, path: member  # `_check` is stricter
            for count, member in enumerate(archive, 1):
                _check(member, count)
                archive.extract(member, folder, set_attrs=False)
        content.seek(_MOST_BYTES)
        if not count:
            raise EOFError("it holds no files")
    except UnsafeArchive as error:
        raise UnsafeArchive(
            f"Refused to unpack {source}: {error}. Nothing of it was kept; do not trust where it "
            "came from."
        ) from error
    except (OSError, EOFError, RecursionError, ValueError, tarfile.TarError, zlib.error) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise
        reason = getattr(error, "strerror", None) or error  # without the name of a temporary folder
        raise DamagedModule(
            f"{source} cannot be unpacked ({reason}). Expected a .tar.gz of a SavedModel folder: "
            "fetch it again."
        ) from error


class _Content:
    """The content of an archive, as a file that is read forward, up to a limit."""

    def __init__(self, stream: BinaryIO) -> None:
        self._packed = _Counted(stream)
        buffered = io.BufferedReader(self._packed)
        is_gzip = buffered.peek(2)[:2] == b"\x1f\x8b"
        self._content: Any = gzip.GzipFile(fileobj=buffered) if is_gzip else buffered
        self._position = 0

    def read(self, size: int) -> bytes:
        if size > _LONGEST_HEADER:
            raise UnsafeArchive(f"it has a header of {size:,} bytes")
        content: bytes = self._content.read(size)
        self._position += len(content)
        limit = min(_LEAST_LIMIT + _MOST_TIMES * self._packed.count, _MOST_BYTES)
        if self._position > limit:
            raise UnsafeArchive(f"it unfolds to more than {limit:,} bytes, as no module does")
        return content

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        if position < self._position:
            raise tarfile.ReadError("a size is negative")
        while self._position < position:
            if not self.read(min(position - self._position, _LONGEST_HEADER)):
                break


class _Counted(io.RawIOBase):
    """A stream that counts the bytes that are read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._stream.read(len(buffer))
        buffer[: len(content)] = content
        self.count += len(content)
        return len(content)


def _check(member: tarfile.TarInfo, number: int) -> None:
    """Checks that a member is a plain file or folder below the archive's top."""
    name = PurePosixPath(member.name)
    what = None
    if number > _MOST_MEMBERS:
        raise UnsafeArchive(f"it has more than {_MOST_MEMBERS:,} members")
    if name.is_absolute() or ".." in name.parts or "\\" in member.name:
        what = "lies outside of it"
    elif member.issparse() or not (member.isfile() or member.isdir()):
        what = "is a link, a device or sparse"
    elif len(name.parts) > _DEEPEST:
        what = f"lies {len(name.parts)} folders deep"
    if what is not None:
        raise UnsafeArchive(f"its member {member.name!r:.200} {what}")
