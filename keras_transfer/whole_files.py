"""Files that are written whole or not at all: pictures, reports, and histories as tables."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from keras_transfer.figure_style import figure_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE_SUFFIXES = (".png", ".svg", ".pdf")


def figure_path(path: str | Path) -> Path:
    """Checks that a figure can be saved under a path, and makes its folder.

    Raises:
        ValueError: If the suffix is not one of `FIGURE_SUFFIXES`.
        OSError: If the path is a folder, or lies under a file.
    """
    path = check_suffix(path)
    check_no_folder(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(
            f"path={str(path)!r} cannot be written: {str(path.parent)!r} is, or lies under, a "
            "file. Expected a folder; choose another path."
        ) from error
    return path


def check_no_folder(path: Path) -> None:
    """Checks that a file can have a path, as far as no folder is there.

    Raises:
        OSError: If the path is a folder.
    """
    if path.is_dir():
        raise IsADirectoryError(
            f"path={str(path)!r} is a folder. Expected the name of a file; remove the folder or "
            "choose another name."
        )


def check_suffix(path: str | Path) -> Path:
    """Checks that the end of a path names a format of pictures.

    Raises:
        ValueError: If it is not one of `FIGURE_SUFFIXES`.
    """
    path = Path(path)
    if path.suffix.lower() not in FIGURE_SUFFIXES:
        raise ValueError(
            f"path={str(path)!r} ends with {path.suffix!r}. Expected one of "
            f"{', '.join(FIGURE_SUFFIXES)}, which says the picture's format."
        )
    return path


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Lets a file be written under another name beside it, and puts it in place when complete.

    If the block fails, the old content stays, and nothing else is left.

    Example:
        >>> with written_whole(Path("history.csv")) as temporary:
        ...     temporary.write_text("epoch,loss")
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.filename == str(temporary):  # which nobody has heard of
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """Lets a folder be filled under another name beside it, and puts it in place when complete.

    If the block fails, the old folder stays, and nothing else is left.

    Example:
        >>> with folder_written_whole(Path("serving/1")) as temporary:
        ...     (temporary / "labels.txt").write_text("cat")
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    old = temporary.with_name(f"{temporary.name}.old")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if path.exists():
            path.rename(old)
        try:
            temporary.rename(path)
        except BaseException:
            if old.exists():
                old.rename(path)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def no_empty_folder(path: Path) -> Iterator[None]:
    """Removes a folder again, if the block made it, failed and left it empty; parents likewise.

    Example:
        >>> with no_empty_folder(Path("runs/report")):
        ...     check_folder("runs/report", ["report.html"])
        ...     raise ValueError("nothing to report")
    """
    made = [one for one in (path, *path.parents) if not one.exists()]
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # none was made, or it holds what somebody else wrote
            for one in made:
                one.rmdir()
        raise


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Saves a figure whole or not at all, and makes its folder if needed.

    Args:
        figure: The figure.
        path: Where it goes, ending with `.png`, `.svg` or `.pdf`.

    Raises:
        ValueError: If the suffix is none of these.
        OSError: If the file cannot be written there.
    """
    path = figure_path(path)
    with figure_style(), written_whole(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lower().removeprefix("."))
    return path


def check_folder(folder: str | os.PathLike[str], names: Iterable[str]) -> Path:
    """Makes a folder and sees to it that files can be written there, before time is spent on them.

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
    """Writes files into a folder; none is put in place before all are complete, the first last.

    Raises:
        OSError: If one cannot be written; all old files then stay.
    """
    with contextlib.ExitStack() as stack:
        for name, content in files.items():
            stack.enter_context(written_whole(folder / name)).write_bytes(content)
    return tuple(folder / name for name in files)
