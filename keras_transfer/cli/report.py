"""keras-transfer report: what a trained model makes of a folder of images, as a page."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from keras_transfer.cli.common import exit_status, number_from
from keras_transfer.images.discovery import SPLITS

_PROGRAM = "keras-transfer report"


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes a report.

    Returns:
        The exit code: 0; 2 for input that the user can put right; 130 if interrupted.
    """
    args = _parse(arguments)
    return exit_status(_PROGRAM, lambda: _report(args))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Write report.html: accuracy, confusions, curves, and the worst mistakes.",
        epilog="Exit status: 0 done, 2 for what can be put right.",
    )
    add = parser.add_argument
    add("model", type=Path, help="a .keras file, such as best.keras of a search")
    add("directory", type=Path, help="class folders of images, or train/, valid/ and test/ of them")
    add("--split", choices=SPLITS, default="test", help="of the images (default: test)")
    add("--output", type=Path, default=Path("report"), metavar="FOLDER", help="default: report")
    add("--image-size", type=number_from(1, 4096), metavar="PIXELS", help="default: the model's")
    add("--batch-size", type=number_from(1), default=32, metavar="IMAGES", help="default: 32")
    add("--seed", type=number_from(0, 2**20), default=0, help="of the split (default: 0)")
    trust = "load a model that holds a TF-Hub module, which runs code of whoever made it"
    add("--trust-model", action="store_true", help=trust)
    return parser.parse_args(arguments)


def _report(args: argparse.Namespace) -> int:
    if not args.model.is_file():
        raise ValueError(f"{str(args.model)!r} is no file. Expected a model, such as best.keras.")
    if not args.directory.is_dir():
        raise ValueError(f"{str(args.directory)!r} is no folder. Expected one of class folders.")
    import keras

    from keras_transfer.data.read_folder import image_folder
    from keras_transfer.evaluation.report import report

    model = keras.saving.load_model(args.model, safe_mode=not args.trust_model)
    data = image_folder(
        args.directory,
        image_size=_image_size(args, model),
        batch_size=args.batch_size,
        seed=args.seed,
    )
    split = getattr(data, args.split)
    if split is None:
        raise ValueError(f"{str(args.directory)!r} has no images for {args.split!r}.")
    accuracy = report(model, split, args.output).numbers.accuracy.value
    images = f"{len(split.labels)} {args.split} images"
    print(f"Accuracy {accuracy:.1%} on {images}; see {args.output / 'report.html'}")
    return 0


def _image_size(args: argparse.Namespace, model: object) -> tuple[int, int]:
    if args.image_size is not None:
        return args.image_size, args.image_size
    # A TransferModel knows the images that it was built for, other models their input.
    shape = getattr(model, "image_shape", None) or getattr(model, "input_shape", (None,))[1:]
    if not isinstance(shape, tuple) or len(shape) != 3 or None in shape[:2]:
        raise ValueError(
            f"The model takes images of shape {shape}, which says no height and width. Give one by "
            "--image-size."
        )
    return shape[0], shape[1]
