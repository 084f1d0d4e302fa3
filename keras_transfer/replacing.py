"""Exports replace earlier exports, never files that no export wrote."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from os.path import lexists
from pathlib import Path

from keras_transfer.export_facts import SUFFIXES, ExportFacts, digest_of, facts_path, labels_path
from keras_transfer.whole_files import folder_written_whole, recover


def check_folder_replaceable(folder: Path) -> None:
    """Checks that a folder holds nothing but an earlier export, if there is one.

    Raises:
        FileExistsError: If another file is there, or one was changed after the export.
        NotADirectoryError: If it is a file.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise NotADirectoryError(
            f"{str(folder)!r} is a file. A SavedModel is a folder: choose another name."
        )
    found = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    _check(found, facts_path(folder, "tf_saved_model"), folder, folder / "assets" / "labels.txt")


def check_files_replaceable(export: Path, format: str, files: Iterable[Path]) -> None:
    """Checks that files of an export do not exist, or belong to an earlier one of this name.

    Raises:
        FileExistsError: If one is of something else, or was changed after the export.
    """
    found = [path for path in files if lexists(path)]
    _check(found, facts_path(export, format), export.parent, labels_path(export, format))


@contextlib.contextmanager
def files_written_together(export: Path, format: str) -> Iterator[Path]:
    """Yields a folder for the files of an export, and moves them into place when complete.

    One rename, that of the folder, decides: after it the files in the folder are the export, and
    `recover_export` moves those that a killed process did not.

    Raises:
        FileExistsError: If a file would replace one that no export wrote.
    """
    pending = _pending(export)
    with folder_written_whole(pending) as folder:
        yield folder
        _check_pending(export, format, folder)
    _put_in_place(export, format, pending)


def recover_export(export: Path) -> None:
    """Completes or undoes an export that was interrupted while its files were moved into place.

    Raises:
        FileExistsError: If a file would replace one that no export wrote.
        OSError: If files cannot be renamed.
    """
    formats = {suffix: format for format, suffix in SUFFIXES.items()}
    format, pending = formats.get(export.suffix), _pending(export)
    if format is None:
        recover(export.resolve())
        return
    recover(pending)
    if pending.is_dir():
        _check_pending(export, format, pending)
        _put_in_place(export, format, pending)


def _pending(export: Path) -> Path:
    return export.with_name(f".{export.name}.pending")


def _check_pending(export: Path, format: str, folder: Path) -> None:
    check_files_replaceable(export, format, [export.parent / one.name for one in folder.iterdir()])


def _put_in_place(export: Path, format: str, pending: Path) -> None:
    last = facts_path(export, format).name  # of the earlier export, they tell which files are its
    for file in sorted(pending.iterdir(), key=lambda file: file.name == last):
        file.replace(export.parent / file.name)
    pending.rmdir()


def _check(found: Iterable[Path], facts: Path, root: Path, labels: Path) -> None:
    digests = _digests(facts)
    for path in sorted(found):
        if digests is not None and path in (facts, labels):
            continue
        digest = (digests or {}).get(path.relative_to(root).as_posix())
        if digest is None or not path.is_file() or digest_of(path) != digest:
            what = "was not written by an earlier export"
            if digest is not None:
                what = "was changed since it was exported"
            raise FileExistsError(
                f"{str(path)!r} {what}, and would be lost. Expected a new name, an empty folder, "
                "or an earlier export, complete, to replace. Choose another name, or move that "
                "away."
            )


def _digests(facts: Path) -> Mapping[str, str] | None:
    """What an earlier export wrote; `None` if there is none."""
    try:
        return ExportFacts.parse(facts).digests
    except (OSError, ValueError):  # not ours, so nothing is known of what is there
        return None
