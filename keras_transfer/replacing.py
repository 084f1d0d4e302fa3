"""What an export may replace: only what an earlier one wrote there."""

from collections.abc import Iterable, Mapping
from os.path import lexists
from pathlib import Path

from keras_transfer.export_facts import ExportFacts, digest_of, facts_path, labels_path


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
