"""The classes of images, by an export alone.

    keras-transfer predict serving/1 photos/ "more/*.jpg" --csv predictions.csv

Images are read as in training. One that cannot be read is a row with its error. The exit status is
0 when all images were classified, 1 when some could not be read, and 2 when nothing could be done.
"""

import argparse
import glob
import os
import stat
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from keras_transfer.images.decoding import decode_image, reason
from keras_transfer.images.discovery import LeftOut, walk_images
from keras_transfer.images.system_files import kind_of
from keras_transfer.serving.runtime import Served, open_export
from keras_transfer.utils.atomic_files import write_rows
from keras_transfer.utils.console import escape_all, in_line
from keras_transfer.utils.processors import processors
from keras_transfer.utils.progress import progress

_GLOB = set("*?[")


@dataclass(frozen=True, eq=False)
class Prediction:
    """What came of one image.

    Attributes:
        path: Its file.
        label: The class with the highest score; empty if the image could not be read.
        scores: Of all classes, `(classes,)`, 0..1; `None` if it could not be read.
        error: Why it could not be read; empty if it could.
    """

    path: Path
    label: str = ""
    scores: np.ndarray | None = None
    error: str = ""

    @property
    def score(self) -> float | None:
        """The highest score."""
        return None if self.scores is None else float(self.scores.max())


def predict(served: Served, paths: Sequence[Path], batch_size: int = 32) -> Iterator[Prediction]:
    """Classifies image files in the order given, a batch at a time.

    Args:
        served: An open export.
        paths: JPEG, PNG, BMP, GIF or WebP files.
        batch_size: How many are in memory and classified at a time. Defaults to 32.

    Raises:
        ValueError: If the export takes images that are neither RGB nor grey.

    Example:
        >>> for one in predict(open_export("serving/1"), [Path("cat.jpg")]):
        ...     print(one.path, one.label, one.score)
        cat.jpg cat 0.97
    """
    size, names = served.facts.image_size, served.facts.class_names
    channels = served.facts.channels
    if channels not in (1, 3):
        raise ValueError(
            f"The export takes images of {channels} channels. Expected 3 (RGB) or 1 (grey), which "
            "is what files hold. Call the export with arrays, by "
            "keras_transfer.serving.runtime.open_export."
        )
    with ThreadPoolExecutor(processors()) as pool:
        for start in range(0, len(paths), batch_size):
            some = paths[start : start + batch_size]
            read = list(pool.map(lambda path: _read(path, size, channels), some))
            images = [image for image in read if isinstance(image, np.ndarray)]
            scores = iter(served.scores(np.stack(images)) if images else ())
            for path, image in zip(some, read, strict=True):
                if isinstance(image, str):
                    yield Prediction(path, error=image)
                else:
                    of_one = next(scores)
                    yield Prediction(path, names[int(of_one.argmax())], of_one)


def _read(path: Path, size: tuple[int, int], channels: int) -> np.ndarray | str:
    """The pixels of a file, or why there are none."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            return "not a regular file"
        rgb = decode_image(path, size)
        return rgb if channels == 3 else _grey(rgb)
    except MemoryError:  # says nothing about the file
        raise
    except Exception as error:  # Pillow raises a dozen kinds on damaged files
        return reason(error)


def _grey(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(rgb).convert("L"))[..., None]


def find(given: Sequence[str]) -> tuple[list[Path], LeftOut]:
    """Finds the images that files, folders and globs stand for, each once, in order.

    Returns:
        The images, and what else lies in the folders.

    Raises:
        ValueError: If one stands for nothing.
    """
    paths: dict[Path, None] = {}
    left_out = LeftOut()
    for one in given:
        path = Path(one).expanduser()
        if path.is_dir():
            found, others = _in_folder(path)
            left_out.add(others)
        elif path.exists() or path.is_symlink():
            found = [path]
        elif _GLOB & set(one):
            found, others = _matching(path)
            left_out.add(others)
        else:
            raise ValueError(f"{one!r} does not exist (looked for {str(path.absolute())!r}).")
        paths.update(dict.fromkeys(found))
    return list(paths), left_out


def _in_folder(folder: Path) -> tuple[list[Path], LeftOut]:
    images, others = walk_images(folder)
    if not images:
        raise ValueError(
            f"The folder {str(folder)!r} holds no images at any depth ({others or 'no files'}). "
            "Expected files that end in .jpg, .png, .webp, .bmp or .gif."
        )
    return sorted(images), others


def _matching(pattern: Path) -> tuple[list[Path], LeftOut]:
    found: list[Path] = []
    left_out = LeftOut()
    literal = next(n for n, part in enumerate(pattern.parts) if _GLOB & set(part))
    matches = glob.glob(str(pattern), recursive=True)  # noqa: PTH207  # may be absolute
    for match in map(Path, sorted(matches)):
        system = next(filter(None, map(kind_of, match.parts[literal:])), None)
        if system is not None:
            left_out.system[system] += 1
        elif match.is_dir():
            images, others = walk_images(match)
            left_out.add(others)
            found += sorted(images)
        else:
            found.append(match)
    if not found:
        raise ValueError(
            f"No file matches {str(pattern)!r} (looked from {str(Path.cwd())!r}"
            f"{f'; {left_out}' if left_out else ''})."
        )
    return found, left_out


def write_csv(predictions: Sequence[Prediction], names: Sequence[str], path: Path) -> None:
    """Writes predictions as a table, whole or not at all.

    Args:
        predictions: The rows: file, label, score and error.
        names: Classes of which each has a column of scores, `score/<class>`; may be empty.
        path: The file.
    """
    rows: list[list[object]] = [
        ["file", "label", "score", "error", *(f"score/{name}" for name in names)]
    ]
    for one in predictions:
        scores = [""] * len(names) if one.scores is None else one.scores[: len(names)]
        score = "" if one.score is None else one.score
        rows.append([one.path, one.label, score, one.error, *scores])
    write_rows(path, rows)


def show(predictions: Sequence[Prediction], names: Sequence[str]) -> None:
    """Prints predictions as a table; `names` as for `write_csv`."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Where nobody looks, as in a pipe, each image is one line, however long.
    console = Console(width=None if sys.stdout.isatty() else 10_000)
    table = Table("file", "label", box=None, pad_edge=False)
    for header in ("score", *names):
        table.add_column(Text(header), justify="right")
    for one in predictions:
        scores = () if one.scores is None else (one.score, *one.scores[: len(names)])
        what = Text(in_line(one.error), "red") if one.error else Text(one.label)
        table.add_row(
            Text(in_line(_printable(one.path))), what, *(f"{score:.4f}" for score in scores)
        )
    console.print(table)


def _printable(path: Path) -> str:
    """File names are bytes on Linux, and need not be text."""
    return os.fsencode(path).decode(errors="replace")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="keras-transfer predict",
        description="Classify images by an export of a TransferModel.",
        epilog="Exit status: 0 all images classified, 1 some could not be read, 2 nothing done.",
    )
    parser.add_argument("export", help="a SavedModel's folder, or a .tflite, .onnx or .xml file")
    parser.add_argument("images", nargs="+", help="files, folders (searched at any depth) or globs")
    parser.add_argument("--csv", type=Path, metavar="PATH", help="write a table there, too")
    parser.add_argument("--all", action="store_true", help="the scores of all classes")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="default 32")
    args = parser.parse_args(argv)
    if args.batch_size < 1:
        parser.error(f"--batch-size is {args.batch_size}. Expected 1 or more.")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command, and returns its exit status."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    escape_all()
    args = _arguments(argv)
    try:
        return _run(args)
    except (OSError, ValueError, ImportError) as error:
        print(f"keras-transfer predict: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; nothing was written.", file=sys.stderr)
        return 130


def _run(args: argparse.Namespace) -> int:
    paths, left_out = find(args.images)
    if args.csv is not None:
        _check_csv(args.csv)
    print(f"Loading {args.export} to classify {len(paths)} images.", file=sys.stderr, flush=True)
    served = open_export(args.export)
    names = served.facts.class_names if args.all else ()
    predictions = []
    with (
        warnings.catch_warnings(),
        progress("Classifying", len(paths), show=True) as bar,
    ):
        # About damaged EXIF data, without a file name, and about bombs, which are refused.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        for one in predict(served, paths, args.batch_size):
            predictions.append(one)
            bar.update(len(predictions))
    show(predictions, names)
    if args.csv is not None:
        write_csv(predictions, names, args.csv)
    if left_out:
        print(in_line(str(left_out)), file=sys.stderr)
    failed = sum(bool(one.error) for one in predictions)
    if failed:
        print(f"{failed} of {len(predictions)} images could not be read.", file=sys.stderr)
    return 1 if failed else 0


def _check_csv(path: Path) -> None:
    if path.is_dir():
        raise ValueError(f"--csv {str(path)!r} is a folder. Expected the name of a file.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(
            f"--csv {str(path)!r} cannot be written: {str(path.parent)!r} is, or lies under, a "
            "file. Choose another path."
        ) from None
