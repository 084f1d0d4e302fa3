"""Figures as files: PNG, SVG or PDF, written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from keras_transfer.plotting.style import figure_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
from keras_transfer.utils.atomic_files import check_no_folder, written_whole

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
