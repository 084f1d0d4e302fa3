"""Writes files and folders completely or not at all."""

from __future__ import annotations

import contextlib
import csv
import ctypes
import io
import os
import platform
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

_OLD = ".old"
_HOST = platform.node()
_DAY = 24 * 60 * 60  # seconds

# Spreadsheets take this for the start of a formula (OWASP, "CSV injection").
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def check_no_folder(path: Path) -> None:
    """Checks that a path is no folder.

    Raises:
        OSError: If the path is a folder.
    """
    if path.is_dir():
        raise IsADirectoryError(
            f"path={str(path)!r} is a folder. Expected the name of a file; remove the folder or "
            "choose another name."
        )


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside a file, and moves it into place when complete.

    If the block fails, the old file stays and the temporary one is removed, as are those of killed
    processes. If the path is a link, the file that it points to is replaced.

    Example:
        >>> with written_whole(Path("history.csv")) as temporary:
        ...     temporary.write_text("epoch,loss")
    """
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    recover(target)
    temporary = _unfinished(target)
    try:
        yield temporary
        temporary.replace(target)
    except OSError as error:
        if error.filename == str(temporary):  # a name that the caller does not know
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """Yields a temporary folder beside a folder, and moves it into place when complete.

    If the block fails, the old folder stays and the temporary one is removed. If the process is
    killed, the path holds the old or the new folder; where the system cannot exchange two names in
    one step, it does so after `recover(path)`.

    Example:
        >>> with folder_written_whole(Path("serving/1")) as temporary:
        ...     (temporary / "labels.txt").write_text("cat")
    """
    recover(path)
    temporary = _unfinished(path)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if not path.exists():
            temporary.rename(path)
        elif not _exchange(temporary, path):
            _replace_folder(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace_folder(new: Path, path: Path) -> None:
    old = new.with_name(new.name + _OLD)
    path.rename(old)
    try:
        new.rename(path)
    except BaseException:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Exchanges two names in one step, if the system can, as Linux can on most file systems."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # another system, or an old C library
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return renameat2(here, os.fsencode(first), here, os.fsencode(second), exchange) == 0


def recover(path: Path) -> None:
    """Removes temporary files and folders of killed processes beside a path.

    A folder that was moved aside to be replaced is put back, if nothing has taken its place. Files
    of living processes of this machine stay, and those of other machines for a day.
    """
    own = re.compile(
        rf"\.{re.escape(path.name)}\.[0-9a-f]{{32}}(?:\.(\d+)-(\d+)@{re.escape(_HOST)})?(?:\..*)?"
    )
    with contextlib.suppress(OSError):  # no such folder yet, or one that cannot be changed
        for left in list(path.parent.iterdir()):
            match = own.fullmatch(left.name)
            if match is None or not _is_abandoned(left, match[1], match[2]):
                continue
            if left.name.endswith(_OLD) and not path.exists():
                left.rename(path)
            elif left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()


def _is_abandoned(left: Path, process: str | None, started: str | None) -> bool:
    if process is None or started is None:
        return time.time() - left.lstat().st_mtime > _DAY
    try:  # another process may have the number: in a container it is 1 after each start
        return abs(psutil.Process(int(process)).create_time() - int(started)) > 2
    except psutil.Error:
        return True


def _unfinished(path: Path) -> Path:
    """Returns a temporary name beside a path, with the process that writes there."""
    writer = psutil.Process()
    whose = f"{writer.pid}-{writer.create_time():.0f}@{_HOST}"
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.{whose}")


def write_rows(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Writes a CSV file completely or not at all, with no text that a spreadsheet would compute.

    Text that would begin a formula, such as the file name `=1+1.png`, gets an apostrophe before
    it, which `text_of_cell` removes. Numbers stay as they are.

    Raises:
        OSError: If it cannot be written; what was there before stays.
    """
    with (
        written_whole(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        for row in rows:
            line = io.StringIO()
            csv.writer(line).writerow(map(_cell, row))  # by "\n" alone it would not quote a "\r"
            file.write(line.getvalue().removesuffix("\r\n") + "\n")


def _cell(value: Any) -> Any:
    if not isinstance(value, str | os.PathLike) or not _FORMULA.match(text := str(value)):
        return value
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def text_of_cell(cell: str) -> str:
    """Returns a text as it was before `write_rows` wrote it."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


@contextlib.contextmanager
def no_empty_folder(path: Path) -> Iterator[None]:
    """Removes a folder and its parents again, if the block made them, failed and left them empty.

    Example:
        >>> with no_empty_folder(Path("runs/report")):
        ...     check_folder("runs/report", ["report.html"])
        ...     raise ValueError("nothing to report")
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # none was made, or another process wrote files there
            for folder in missing:
                folder.rmdir()
        raise


def check_folder(folder: str | os.PathLike[str], names: Iterable[str]) -> Path:
    """Makes a folder and checks that files can be written there.

    Raises:
        OSError: If it is, or lies under, a file, cannot be written to, or a name is a folder.
    """
    folder = Path(folder).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(
            f"folder={str(folder)!r} is, or lies under, a file. Expected a folder, or a path "
            "where none is yet; choose another."
        ) from error
    for name in names:
        if (folder / name).is_dir():
            raise IsADirectoryError(
                f"{str(folder / name)!r} is a folder, and a file is to be written there. Remove it "
                "or choose another folder."
            )
    with tempfile.TemporaryFile(dir=folder):
        return folder


def write_together(folder: Path, files: Mapping[str, bytes]) -> tuple[Path, ...]:
    """Writes files into a folder and puts them in place when all are complete, the first one last.

    Raises:
        OSError: If one cannot be written; all old files then stay.
    """
    with contextlib.ExitStack() as stack:
        for name, content in files.items():
            stack.enter_context(written_whole(folder / name)).write_bytes(content)
    return tuple(folder / name for name in files)
