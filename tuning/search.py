#!/usr/bin/env python
"""Searches head width, dropout and learning rates of a transfer-learned image classifier.

    python tuning/search.py                       # the demo data, the embedded backbone
    python tuning/search.py photos/ --backbone vgg16 --trials 20 --output runs/photos

Every trial trains on activations that the frozen part of the backbone gave once. The test split is
used once, for the winner. The output folder then holds leaderboard.csv, search.png, history.png,
best.keras, export/1 (a SavedModel that takes raw 0..255 pixels) and summary.json.
"""

import argparse
import importlib
import os
import shutil
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from command_line import image_directory, number_from, output_folder, warn_as

if TYPE_CHECKING:
    from trials import Trials

    from keras_transfer import FrozenBackbone, ImageFolder


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a search.

    Args:
        arguments: Of the command line; those of this process unless given.

    Returns:
        The exit code: 0; 1 if no trial succeeded; 2 for input that the user can put right; 130 if
        interrupted before the first trial ended.
    """
    started = time.monotonic()
    args = _parse(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.showwarning = warn_as("search.py")
    try:
        output = output_folder(args)
        directory = image_directory(args)
        _check_installed()
        _check_hyperband(args)
        backbone = _backbone(args)
        data = _images(args, directory)
    except (ValueError, ImportError, OSError) as error:
        print(f"search.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted before the first trial.", file=sys.stderr)
        return 130
    trials = _search(args, backbone, data, output)
    if not trials.outcomes:
        shutil.rmtree(output)  # with nothing in it but the tuner's notes
        return 130
    if trials.best is None:
        print(f"search.py: all trials failed: {trials.failures[-1].failure}", file=sys.stderr)
        return 1
    _report(args, data, trials, started)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="search.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "directory", nargs="?", type=Path, help="class folders of images; the demo data if left out"
    )
    add("--backbone", default="efficientnet_lite0", help="or a name of keras.applications")
    add("--weights", default="imagenet", help="'imagenet', 'none' or a file (default: imagenet)")
    add("--trials", type=number_from(1), default=12, metavar="N", help="default: 12")
    add("--tuner", choices=("bayesian", "hyperband", "random", "grid"), default="bayesian")
    add("--epochs", type=number_from(1), default=30, metavar="N", help="of a trial (default: 30)")
    add(
        "--unfreeze",
        type=number_from(0),
        default=1,
        metavar="N",
        help="top blocks to fine-tune in the second half of the epochs, 0 for none (default: 1)",
    )
    add(
        "--image-size",
        type=number_from(16, 2048),
        default=224,
        metavar="PIXELS",
        help="default: 224",
    )
    add("--batch-size", type=number_from(1), default=32, metavar="IMAGES", help="default: 32")
    flips = "views of an image that mean the same (default: none; for the demo data mirror)"
    add("--flips", choices=("none", "mirror", "flips", "dihedral"), help=flips)
    average = "the best trials to average in best.keras, 1 for the winner alone (default: 5)"
    add("--average", type=number_from(1), default=5, metavar="N", help=average)
    add("--seed", type=number_from(0, 2**20), default=0, metavar="N", help="default: 0")
    add("--output", type=Path, metavar="FOLDER", help="a new folder (default: runs/<data>-<time>)")
    args = parser.parse_args(arguments)
    if args.flips is None:  # a solar cell is as good left to right; a letter is not
        args.flips = "none" if args.directory else "mirror"
    return args


def _check_installed() -> None:
    try:
        importlib.import_module("results")  # with all that comes after the long work
    except ImportError as error:
        raise ImportError(f'{error}. Install what is missing: pip install -e ".[demo]"') from error
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")  # it warns of tracing for each new model
    # Every trial begins with a new optimizer, also where Hyperband goes on with the weights.
    warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")


def _check_hyperband(args: argparse.Namespace) -> None:
    from trials import hyperband_needs

    if args.tuner == "hyperband" and args.trials < (needed := hyperband_needs(args.epochs)):
        raise ValueError(
            f"--tuner hyperband at {args.epochs} epochs needs {needed} trials until one has "
            f"trained to the end. Received: --trials {args.trials}. Give more, or fewer epochs."
        )


def _backbone(args: argparse.Namespace) -> "FrozenBackbone":
    import keras

    from keras_transfer import FrozenBackbone

    keras.utils.set_random_seed(args.seed)  # of random weights, and of tf.data's shuffles
    weights = None if args.weights == "none" else args.weights
    backbone = FrozenBackbone(args.backbone, weights=weights)
    if args.unfreeze:
        backbone.select(args.unfreeze)
    try:
        backbone.compute_output_shape((None, args.image_size, args.image_size, 3))
    except Exception as error:
        raise ValueError(
            f"--image-size {args.image_size} does not fit backbone {args.backbone}: {error}"
        ) from error
    return backbone


def _images(args: argparse.Namespace, directory: Path) -> "ImageFolder":
    from keras_transfer import image_folder

    print(f"Reading {directory}", flush=True)
    data = image_folder(
        directory, image_size=args.image_size, batch_size=args.batch_size, seed=args.seed
    )
    print(data)
    return data


def _search(
    args: argparse.Namespace, backbone: "FrozenBackbone", data: "ImageFolder", output: Path
) -> "Trials":
    from hypermodel import TransferHyperModel
    from metrics import objective
    from space import Space
    from trials import Trials

    output.mkdir(parents=True, exist_ok=True)
    trials = Trials(
        TransferHyperModel(
            {args.backbone: backbone},
            data.class_names,
            space=Space(unfreeze=args.unfreeze),
            epochs=args.epochs,
            flips=None if args.flips == "none" else args.flips,
        ),
        args.tuner,
        objective=objective("loss"),
        count=args.trials,
        epochs=args.epochs,
        seed=args.seed,
        output=output,
    )
    try:
        trials.run(data.train, data.valid)
    except KeyboardInterrupt:
        print(f"Interrupted after {len(trials.outcomes)} trials.", file=sys.stderr)
    return trials


def _report(
    args: argparse.Namespace, data: "ImageFolder", trials: "Trials", started: float
) -> None:
    import results
    from scores import score_of

    output, best = trials.output, trials.ranked[0]
    results.print_leaderboard(trials)
    results.write_leaderboard(trials, output / "leaderboard.csv")
    results.draw_search(trials, output / "search.png")
    results.draw_history(trials, output / "history.png")
    model, members = results.average_of_best(trials, args.average)
    results.export(model, output / "export" / "1")
    score = score_of(model, data.test, data.labels["test"]) if data.test is not None else None
    seconds = time.monotonic() - started
    facts = {
        **{
            key: str(value) if isinstance(value, Path) else value
            for key, value in vars(args).items()
        },
        "classes": data.class_names,
        "images": data.counts,
        "average_of": members,
        "seconds": round(seconds, 1),
    }
    results.write_summary(output / "summary.json", trials, score, facts)
    print(f"Best: trial {best.trial}, {best} in epoch {best.epoch}.")
    model_is = f"average of trials {members}" if len(members) > 1 else f"trial {members[0]}"
    print(f"Test ({model_is}): {score}, used once." if score else "There is no test split.")
    if args.directory is None:
        from demo_data import PUBLISHED

        told = ", ".join(f"{name} {accuracy:.2%}" for name, accuracy in PUBLISHED.items())
        print(f"Published on this data, on another split: {told}.")
    print(f"{seconds / 60:.1f} minutes. Written to {output}.")


if __name__ == "__main__":
    sys.exit(main())
