"""Archives of SavedModels, unpacked within limits, and only below the folder meant for them."""

import errno
import gzip
import io
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from keras_transfer.backbones.hub.files import GRAPH, DamagedModule

# Weights hardly shrink when they are packed, and the largest modules for images have a few GB.
_LEAST_LIMIT = 256 * 2**20
_MOST_TIMES = 20
_MOST_BYTES = 16 * 2**30
_MOST_MEMBERS = 10_000
_DEEPEST = 32
_LONGEST_HEADER = 2**20

_BLOCK = tarfile.BLOCKSIZE
_BAD_NAME = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL)


class UnsafeArchive(ValueError):
    """An archive that would write outside its folder, or far more than a module holds."""


def unpack(stream: BinaryIO, folder: Path, source: str) -> None:
    """Unpacks a `.tar` or `.tar.gz` into a folder, which is removed if that fails.

    The archive is read once, from its begin to its end, so that a checksum at its end is checked.
    Python's tarfile only reads single headers here: it allocates, or computes for minutes, what a
    header of a few bytes asks for.

    Args:
        stream: The archive.
        folder: Where its files go. It must not exist. If the archive's top is one folder only, the
            content of that.
        source: What the archive is called in messages.

    Raises:
        DamagedModule: If it is no archive, ends too early, or holds no files.
        UnsafeArchive: If a member is a link, a device or lies outside, or the archive unfolds to
            more than a module holds.
        OSError: If the folder cannot be written to.
    """
    unpacked = folder.with_name(f"{folder.name}.unpacking")
    shutil.rmtree(unpacked, ignore_errors=True)  # of an interrupted process
    try:
        _write_members(_Content(stream), unpacked)
        _top(unpacked).rename(folder)
    except _Unsafe as error:
        raise UnsafeArchive(
            f"Refused to unpack {source}: {error}. Nothing of it was kept; do not trust where it "
            "came from."
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile, tarfile.HeaderError) as error:
        raise DamagedModule(
            f"{source} is no complete archive ({error}). Expected a .tar.gz of a SavedModel "
            "folder: fetch it again."
        ) from error
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


class _Unsafe(Exception):
    """Raised with the reason why an archive is not unpacked."""


class _Counted(io.RawIOBase):
    """A stream, and how many bytes of it were read."""

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


class _Content:
    """The content of an archive, unfolded up to a limit that grows with the archive's size."""

    def __init__(self, stream: BinaryIO) -> None:
        self._packed = _Counted(stream)
        buffered = io.BufferedReader(self._packed)
        is_gzip = buffered.peek(2)[:2] == b"\x1f\x8b"
        self._content: Any = gzip.GzipFile(fileobj=buffered) if is_gzip else buffered
        self._count = 0

    def read(self, size: int, *, or_none: bool = False) -> bytes:
        """Reads `size` bytes; at the end none, if `or_none` allows that.

        Raises:
            EOFError: If there are fewer.
        """
        content = self._read(size)
        if len(content) < size and (content or not or_none):
            raise EOFError("it ends too early")
        return content

    def read_to_end(self) -> None:
        while self._read(2**20):
            pass

    def _read(self, size: int) -> bytes:
        content: bytes = self._content.read(size)
        self._count += len(content)
        limit = min(_LEAST_LIMIT + _MOST_TIMES * self._packed.count, _MOST_BYTES)
        if self._count > limit:
            raise _Unsafe(f"it unfolds to more than {limit:,} bytes, as no module does")
        return content


def _write_members(content: _Content, folder: Path) -> None:
    folder.mkdir()
    count = 0
    for count, (member, name) in enumerate(_members(content), 1):
        if count > _MOST_MEMBERS:
            raise _Unsafe(f"it has more than {_MOST_MEMBERS:,} members")
        path = _place(name, member, folder)
        try:
            if member.isdir():
                path.mkdir(parents=True, exist_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                _write(content, member.size, path)
        except OSError as error:
            if error.errno not in _BAD_NAME:
                raise
            raise _Unsafe(
                f"its member {name!r:.200} cannot be written ({error.strerror})"
            ) from error
    if not count:
        raise EOFError("it holds no files")


def _members(content: _Content) -> Iterator[tuple[tarfile.TarInfo, str]]:
    """Yields the headers of files and folders with their names, and then skips their padding."""
    long_name = None
    # Some archives end without the empty block that marks their end.
    while any(block := content.read(_BLOCK, or_none=True)):
        member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if member.size < 0:
            raise tarfile.HeaderError("a size is negative")
        if member.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            long_name = dict(_records(_header(content, member))).get(b"path", long_name)
        elif member.type == tarfile.GNUTYPE_LONGNAME:
            long_name = _header(content, member).split(b"\0")[0]
        elif member.type in (tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE):
            _header(content, member)
        else:
            name = long_name.decode("utf-8", "surrogateescape") if long_name else member.name
            long_name = None
            yield member, name
        if not member.isdir():
            content.read(-member.size % _BLOCK)
    content.read_to_end()


def _header(content: _Content, member: tarfile.TarInfo) -> bytes:
    """Reads a header that belongs to the next member."""
    if member.size > _LONGEST_HEADER:
        raise _Unsafe(f"it has a header of {member.size:,} bytes")
    return content.read(member.size)


def _records(header: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields keys and values of a pax header, such as `20 path=module/a.pb` and a line's end."""
    start = 0
    while start < len(header):
        space = header.find(b" ", start, start + 20)
        digits = header[start : max(space, start)]
        stop = start + int(digits) if digits.isdigit() else 0
        if not space < stop <= len(header) or header[stop - 1 : stop] != b"\n":
            raise tarfile.HeaderError("a pax header is damaged")
        key, _, value = header[space + 1 : stop - 1].partition(b"=")
        if key == b"size" or key.startswith(b"GNU.sparse"):
            raise _Unsafe("a member is sparse, or has its size elsewhere than in its header")
        yield key, value
        start = stop


def _place(name: str, member: tarfile.TarInfo, folder: Path) -> Path:
    """Returns where a member goes.

    Raises:
        _Unsafe: If it is no plain file or folder below the archive's top.
    """
    pure = PurePosixPath(name)
    path = folder.joinpath(*pure.parts)
    if not path.is_relative_to(folder) or ".." in pure.parts or "\\" in name or "\0" in name:
        raise _Unsafe(f"its member {name!r:.200} lies outside of it")
    if member.type == tarfile.GNUTYPE_SPARSE:
        raise _Unsafe(f"its member {name!r:.200} is sparse")
    if not (member.isfile() or member.isdir()):
        raise _Unsafe(f"its member {name!r:.200} is a link or a device")
    if len(pure.parts) > _DEEPEST:
        raise _Unsafe(f"its member {name!r:.200} lies {len(pure.parts)} folders deep")
    return path


def _write(content: _Content, size: int, path: Path) -> None:
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise OSError(
            errno.ENOSPC,
            f"It takes {size:,} bytes, and {path.parent.parent} has {free:,} free. Make room, or "
            "set TFHUB_CACHE_DIR to another disk",
        )
    with path.open("wb") as file:
        for start in range(0, size, 2**20):
            file.write(content.read(min(2**20, size - start)))


def _top(folder: Path) -> Path:
    entries = list(folder.iterdir())
    only = entries[0] if len(entries) == 1 else folder
    return folder if (folder / GRAPH).exists() or not only.is_dir() else only
