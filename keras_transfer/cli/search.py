"""keras-transfer search: searches heads, learning rates and fine-tuning of an image classifier.

    keras-transfer search                         # the demo data, the embedded backbone
    keras-transfer search photos/ --backbone vgg16 --trials 20 --output runs/photos

Every trial trains on activations that the frozen part of the backbone gave once. Trial 0 is a
logistic regression on the frozen features, which the search has to do better than. The test split
is used once, for the winner. The output folder then holds report.html, leaderboard.csv, search.png,
history.png, best.keras, export/1 (a SavedModel that takes raw 0..255 pixels) and summary.json.

The same command with the same --output goes on with a search that was interrupted.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path

from keras_transfer.cli.common import (
    ended_by_signals,
    exit_status,
    image_directory,
    minutes_from,
    number_from,
    only_json,
)
from keras_transfer.search.engine.renewal import (
    MOST_GROWTH,
    GrownError,
    began,
    begin_again,
    process_began,
)
from keras_transfer.search.settings import MANY, MINUTES, Settings
from keras_transfer.search.space.space import Space
from keras_transfer.search.state.lock import LOCK
from keras_transfer.search.state.search_file import FILE
from keras_transfer.utils.optional_imports import require
from keras_transfer.utils.output_folder import output_folder

_PROGRAM = "keras-transfer search"
_SHORT = 6.0  # minutes
_METRICS = ("loss", "accuracy", "auc", "f1")


def main(arguments: Sequence[str] | None = None, *, is_process: bool = False) -> int:
    """Runs a search.

    Args:
        arguments: Of the command line; those of this process unless given.
        is_process: Whether this process is there for the command alone. Then a new process may take
            its place when its memory has grown, and `--minutes` count from its start.

    Returns:
        The exit code: 0; 1 if no trial succeeded; 2 for input that the user can put right; 5 if
        the disk is full; 130 if interrupted before the first trial ended.
    """
    start = began(process_began() if is_process else time.monotonic())
    args = _parse(arguments)
    # Windows has no way to put one process in the place of another.
    most_growth = MOST_GROWTH if is_process and os.name == "posix" else None
    try:
        with ended_by_signals():
            return exit_status(
                _PROGRAM, lambda: _main(args, most_growth, start), lambda: _make_room(args)
            )
    except GrownError as reason:
        print(f"{_PROGRAM}: {reason}", file=sys.stderr)
        begin_again(start, args.output)


def _make_room(args: argparse.Namespace) -> str:
    """Returns what the user can do when a disk is full."""
    if args.output is None or not args.output.exists():
        return "Make room, and give the same command again."
    return (
        f"What has ended is kept in {args.output}. Make room, and the same command with --output "
        f"{args.output} goes on."
    )


def _main(args: argparse.Namespace, most_growth: int | None, began: float) -> int:
    space = _space(args)
    if args.show_space:
        print(space)
        return 0
    settings = _settings(args, space, most_growth)
    if not args.json:
        return _search(args, settings, began)
    with only_json() as say:
        code = _search(args, settings, began)
        if code == 0:
            say((args.output / "summary.json").read_text(encoding="utf-8"))
    return code


def _settings(args: argparse.Namespace, space: Space, most_growth: int | None) -> Settings:
    """Returns the settings, checked before anything is written or Keras is loaded."""
    given = vars(args)
    names = {one.name for one in fields(Settings)} & given.keys() - {"space", "output"}
    return Settings(
        args.output or Path(),
        space=space,
        backbones=tuple(name.strip() for name in args.backbone.split(",")),
        early_stopping=not args.no_early_stopping,
        most_growth=most_growth,
        **{name: given[name] for name in names},
    )


def _search(args: argparse.Namespace, settings: Settings, began: float) -> int:
    directory = image_directory(args.directory)
    args.output = output_folder(args.output, directory.resolve().name, (FILE, LOCK))
    resolved = args.directory and args.directory.resolve()
    settings = replace(settings, output=args.output, directory=resolved)
    if settings.is_parallel:
        require("ray", extra="cluster", purpose="--workers or --cluster")
        # Or this process would take all memory of the GPUs.
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    print(f"Searching on {directory}, results go to {args.output}. Loading Keras.", flush=True)
    try:
        from keras_transfer.search.search import Search
    except ModuleNotFoundError as error:
        raise ImportError(f'{error}. Install what is missing: pip install -e ".[demo]"') from error
    return Search.of(settings, directory).exit_code(began)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "directory", nargs="?", type=Path, help="class folders of images; the demo data if left out"
    )
    _add_model(parser.add_argument_group("what is searched").add_argument)
    _add_search(parser.add_argument_group("how it is searched").add_argument)
    _add_results(parser.add_argument_group("what comes of it").add_argument)
    args = parser.parse_args(arguments)
    if args.trials is None:
        args.minutes = MINUTES if args.minutes is None else args.minutes
        args.trials = MANY
    if args.flips is None:  # a solar cell is as good upside down; a letter is not
        # All four views take time, of which a short search has none.
        is_short = args.minutes is not None and args.minutes < _SHORT
        args.flips = "none" if args.directory else "mirror" if is_short else "flips"
    return args


def _add_model(add: Callable[..., object]) -> None:
    add(
        "--backbone",
        default="efficientnet_lite0",
        metavar="NAMES",
        help="names of keras.applications, folders or addresses of modules; several with commas; "
        "'auto' for the best that is on this machine (default: efficientnet_lite0)",
    )
    add("--weights", default="imagenet", help="'imagenet', 'none' or a file (default: imagenet)")
    add(
        "--space",
        type=Path,
        metavar="FILE",
        help="a YAML file of hyperparameters, as --show-space prints",
    )
    add("--show-space", action="store_true", help="print the space as such a file, and stop")
    add(
        "--unfreeze",
        type=number_from(0),
        metavar="N",
        help="fine-tune N top blocks at most, in place of what the space says; 0 for none",
    )
    add("--epochs", type=number_from(1), default=30, metavar="N", help="of a trial (default: 30)")
    add(
        "--image-size",
        type=number_from(16, 2048),
        default=224,
        metavar="PIXELS",
        help="default: 224",
    )
    add("--batch-size", type=number_from(1), default=32, metavar="IMAGES", help="default: 32")
    flips = (
        "views of an image that mean the same (default: none; for the demo data flips, or mirror "
        "in a short search)"
    )
    add("--flips", choices=("none", "mirror", "flips", "dihedral"), help=flips)
    add("--balance", action="store_true", help="let all classes count the same in the loss")


def _add_search(add: Callable[..., object]) -> None:
    add("--trials", type=number_from(1), metavar="N", help="as many, however long that takes")
    add(
        "--minutes",
        type=minutes_from(1),
        metavar="M",
        help="finish within M minutes, all included; what no longer fits is left out, and told "
        f"(default: {MINUTES:g}, unless --trials is given)",
    )
    add("--tuner", choices=("bayesian", "hyperband", "random", "grid"), default="bayesian")
    add("--metric", choices=_METRICS, default="loss", help="of validation (default: loss)")
    add("--folds", type=number_from(2, 100), metavar="K", help="train each trial on K folds")
    add("--no-early-stopping", action="store_true", help="train every trial to its last epoch")
    add("--seed", type=number_from(0, 2**20), default=0, metavar="N", help="default: 0")
    add(
        "--workers",
        type=number_from(1, 256),
        default=1,
        metavar="N",
        help="trials at a time, in processes of Ray (default: 1)",
    )
    cluster = "run trials on this Ray cluster; `auto` for the one that this machine belongs to"
    add("--cluster", metavar="ADDRESS", help=cluster)
    add(
        "--gpus-per-trial",
        type=number_from(0, 64),
        default=0.0,
        metavar="N",
        help="GPUs that a trial has for itself, with --workers or --cluster (default: 0)",
    )
    add(
        "--cache",
        type=Path,
        metavar="FOLDER",
        help="keep activations there, for other searches, too (default: in the output folder, "
        "until the search is over)",
    )


def _add_results(add: Callable[..., object]) -> None:
    average = "the best trials to average in best.keras, 1 for the winner alone (default: 5)"
    add("--average", type=number_from(1), default=5, metavar="N", help=average)
    views = "let best.keras give the mean over the views of --flips (default: yes)"
    add("--average-views", action=argparse.BooleanOptionalAction, default=True, help=views)
    final = (
        "train the best ones again, on training and validation images together (default: with "
        "--minutes add the best one so trained to the average, if that fits)"
    )
    add("--final-fit", action=argparse.BooleanOptionalAction, default=None, help=final)
    add("--tensorboard", type=Path, metavar="FOLDER", help="write the trials for TensorBoard there")
    add("--json", action="store_true", help="print summary.json alone; all else goes to stderr")
    add("--output", type=Path, metavar="FOLDER", help="default: a new one, runs/<data>-<time>")


def _space(args: argparse.Namespace) -> Space:
    space = Space() if args.space is None else Space.read(args.space)
    if args.unfreeze is not None:
        space = replace(space, unfreeze=list(range(args.unfreeze + 1)) if args.unfreeze else 0)
    return space
