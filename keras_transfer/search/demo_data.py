"""The demo data, 2,624 cells of solar modules, as a folder of images with a fixed test split."""

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

# Published accuracies on this data; split and labelling are not known to be the same as here.
# Deitsch et al., Solar Energy 185 (2019), https://doi.org/10.1016/j.solener.2019.02.067
PUBLISHED = {"SVM": 0.8244, "fine-tuned VGG19": 0.8842}


def elpv_folder(cache: Path | None = None) -> Path:
    """Writes the ELPV data as `{train,test}/{defective,functional}/*.png`, once.

    A cell is defective if its probability is 0.5 or more. A quarter, stratified by probability and
    cell type, is the test split: 656 cells, the same for every seed of a search.

    Args:
        cache: Where to write it; `$XDG_CACHE_HOME/keras_transfer` or `~/.cache/keras_transfer`
            unless given.

    Raises:
        ImportError: If the package with the data is not installed.
    """
    source = importlib.util.find_spec("elpv_dataset")
    if source is None or source.origin is None:
        raise ImportError(
            "The demo data is not installed (package 'elpv-dataset', CC BY-NC-SA 4.0). Install the "
            'extra that holds it, pip install -e ".[demo]", or name a folder of your own images: '
            "keras-transfer search photos/"
        )
    folder = (cache or _cache()) / "elpv"
    if not folder.exists():
        _write_whole(Path(source.origin).parent / "data", folder)
    return folder


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "keras_transfer"


def _write_whole(data: Path, folder: Path) -> None:
    """Copies into a temporary folder and renames it, so that half a data set is never found."""
    from sklearn.model_selection import train_test_split

    with (data / "labels.csv").open() as file:
        rows = [line.split() for line in file]
    strata = [f"{float(probability):.3f} {kind}" for _, probability, kind in rows]
    train, test = train_test_split(rows, test_size=0.25, stratify=strata, random_state=0)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        for split, members in {"train": train, "test": test}.items():
            for path, probability, _ in members:
                label = "defective" if float(probability) >= 0.5 else "functional"
                target = Path(temporary, "elpv", split, label, Path(path).name)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(data / path, target)
        try:
            Path(temporary, "elpv").rename(folder)
        except OSError:
            if not folder.exists():  # another process was faster, with the same files
                raise
