"""keras-transfer compare: compares feature extraction with fine-tuning on the same data.

    keras-transfer compare                       # the demo data
    keras-transfer compare photos/ --backbone vgg16
    keras-transfer compare --preset hub-resnet   # overfitting of a small head, and its cure

The recipes are those of two workflows known from books and courses. `cats-dogs`: features extracted
once and a head trained on them; the same head on the frozen backbone; then the top block unfrozen.
`hub-resnet`: a small head on a feature vector, without and with dropout and early stopping. The
output folder then holds compare.html, its picture compare.png, compare.csv with a row a training,
and report/, on the best. Ctrl-C ends it with what it has so far.
"""

import argparse
import functools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_transfer.cli.common import exit_status, image_directory, number_from
from keras_transfer.comparison.picture import compared_picture
from keras_transfer.comparison.results import (
    WRONG,
    costs,
    gap,
    overfitting,
    print_table,
    weights,
    write_table,
)
from keras_transfer.utils.output_folder import output_folder

if TYPE_CHECKING:
    from keras_transfer.backbones.frozen_backbone import FrozenBackbone
    from keras_transfer.comparison.recipes import RecipeResult, Settings
    from keras_transfer.data.image_folder import ImageFolder

_PROGRAM = "keras-transfer compare"
_DEFAULT = "efficientnet_lite0"


@dataclass(frozen=True)
class Preset:
    """One of the original workflows.

    Attributes:
        recipes: Names of functions in recipes.py.
        backbone: What it was made with.
        image_size: Pixels.
        batch_size: Images.
        settings: What differs from the defaults of `Settings`.
    """

    recipes: tuple[str, ...]
    backbone: str
    image_size: int
    batch_size: int
    settings: dict[str, Any]


PRESETS = {
    "cats-dogs": Preset(("features_once", "end_to_end"), "vgg16", 150, 32, {}),
    "hub-resnet": Preset(
        ("overfitting", "cured"),
        "https://tfhub.dev/google/imagenet/resnet_v1_152/feature_vector/5",
        128,
        64,
        {"hidden": 6, "dropout": 0.3, "rate": 1e-3, "epochs": 30, "pooling": "avg"},
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a comparison; returns 0, 2 for input that the user can put right, 130 if interrupted."""
    args = _parse(arguments)
    return exit_status(_PROGRAM, lambda: _compare(args, PRESETS[args.preset]))


def _compare(args: argparse.Namespace, preset: Preset) -> int:
    directory = image_directory(args.directory)
    output = output_folder(args.output, f"compare-{directory.resolve().name}")
    print(f"Comparing on {directory}, results go to {output}. Loading Keras.", flush=True)
    make, wrong = _backbones(args, preset)
    data = _images(args, preset, directory)
    ran = _Ran()
    status = 0
    try:
        for outcome in _run_all(args, preset, data, make, wrong):
            ran.add(outcome)
            output.mkdir(parents=True, exist_ok=True)
            write_table(ran.by_recipe, output / "compare.csv")  # a crash loses one training
    except KeyboardInterrupt:
        if ran.best is None:
            raise
        print(f"Interrupted. Trainings so far: {len(ran.outcomes)}.", file=sys.stderr)
        status = 130
    size, source = args.image_size or preset.image_size, Path(make.args[0]).name
    seeds = f"; curves of the first of {args.seeds} seeds" if args.seeds > 1 else ""
    _report(output, ran, data, f"{directory.resolve().name}: {source} at {size} px{seeds}")
    return status


class _Ran:
    """The outcomes so far, of which the best keeps its model, as it was then.

    What was trained with the wrong pixel range is never the best.
    """

    def __init__(self) -> None:
        self.outcomes: list[RecipeResult] = []
        self.best: Any = None
        self._weights: list[Any] = []

    def add(self, outcome: "RecipeResult") -> None:
        """Takes an outcome, whose model may be trained further as soon as this returns."""
        is_right = not outcome.recipe.endswith(WRONG)
        if is_right and (self.best is None or _rank(outcome) > _rank(self.best)):
            self.best, self._weights = outcome, outcome.model.get_weights()
        self.outcomes.append(replace(outcome, model=None))

    @property
    def by_recipe(self) -> dict[str, list["RecipeResult"]]:
        """The outcomes of each recipe, one a seed."""
        by_recipe: dict[str, list[RecipeResult]] = {}
        for outcome in self.outcomes:
            by_recipe.setdefault(outcome.recipe, []).append(outcome)
        return by_recipe

    def best_model(self) -> Any:
        """Returns the best model, with the weights that were scored."""
        self.best.model.set_weights(self._weights)
        return self.best.model


def _rank(outcome: "RecipeResult") -> tuple[float, float]:
    """Sorts by accuracy on the validation images, then by the lower loss."""
    loss = outcome.val_loss
    return outcome.valid.accuracy, -loss if math.isfinite(loss) else -math.inf


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "directory", nargs="?", type=Path, help="class folders of images; the demo data if left out"
    )
    add("--preset", choices=tuple(PRESETS), default="cats-dogs", help="default: cats-dogs")
    add("--backbone", help="default: the preset's where it can be had, else efficientnet_lite0")
    add("--weights", default="imagenet", help="'imagenet', 'none' or a file (default: imagenet)")
    add("--seeds", type=number_from(1, 100), default=3, metavar="N", help="how many (default: 3)")
    add("--epochs", type=number_from(1), metavar="N", help="of each phase (default: the preset's)")
    add("--image-size", type=number_from(16, 2048), metavar="PIXELS", help="default: the preset's")
    add("--batch-size", type=number_from(1), metavar="IMAGES", help="default: the preset's")
    add("--unfreeze", type=number_from(1), metavar="N", help="top blocks (default: the last stage)")
    from_images = (
        "compute the frozen part anew in each epoch; the weights are the same, within 1e-5"
    )
    add("--from-images", action="store_true", help=from_images)
    wrong = "each recipe also with the pixel range of the original notebooks, to see what it costs"
    add("--show-pixel-range", action="store_true", help=wrong)
    add("--output", type=Path, metavar="FOLDER", help="a new folder (default: runs/compare-…)")
    return parser.parse_args(arguments)


def _backbones(
    args: argparse.Namespace, preset: Preset
) -> tuple["functools.partial[FrozenBackbone]", "functools.partial[FrozenBackbone]"]:
    """Returns makers of the backbone with the right pixel range and with that of the originals."""
    from keras_transfer.backbones.frozen_backbone import FrozenBackbone
    from keras_transfer.comparison.recipes import Settings

    def maker(source: str) -> "functools.partial[FrozenBackbone]":
        weights = None if args.weights == "none" else args.weights
        pooling = Settings(**preset.settings).pooling
        return functools.partial(FrozenBackbone, source, weights=weights, pooling=pooling)

    make = maker(args.backbone or preset.backbone)
    try:
        backbone = make()
    except (OSError, ImportError) as error:
        if args.backbone:
            raise
        print(f"In the place of {preset.backbone}, {_DEFAULT}: {error}", flush=True)
        make = maker(_DEFAULT)
        backbone = make()
    size = args.image_size or preset.image_size
    try:
        backbone.compute_output_shape((None, size, size, 3))
    except Exception as error:  # of whichever layer has no pixels left
        raise ValueError(
            f"--image-size {size} does not fit backbone {make.args[0]}: {error}"
        ) from error
    # 0..1 went into VGG16, and 0..255 into a module that takes 0..1.
    wrong = "raw" if _range_of(backbone) == (0.0, 1.0) else "unit"
    return make, functools.partial(make, preprocessing=wrong)


def _range_of(backbone: "FrozenBackbone") -> tuple[float, float]:
    """Returns the values that the network gets for black and for white."""
    import keras

    black, white = (
        float(backbone.preprocessing(keras.ops.full((1, 1, 1, 3), level))[0, 0, 0, 0])
        for level in (0.0, 255.0)
    )
    return black, white


def _images(args: argparse.Namespace, preset: Preset, directory: Path) -> "ImageFolder":
    from keras_transfer.data.read_folder import image_folder

    print(f"Reading {directory}", flush=True)
    data = image_folder(
        directory,
        image_size=args.image_size or preset.image_size,
        batch_size=args.batch_size or preset.batch_size,
        seed=0,
    )
    print(data)
    if data.valid is None:
        raise ValueError("There is no validation split. Give images enough for one.")
    return data


def _run_all(
    args: argparse.Namespace,
    preset: Preset,
    data: "ImageFolder",
    make: Callable[[], "FrozenBackbone"],
    wrong: Callable[[], "FrozenBackbone"],
) -> Iterator["RecipeResult"]:
    import tensorflow as tf

    from keras_transfer.comparison import recipes
    from keras_transfer.features.feature_cache import FeatureCache

    tf.get_logger().setLevel("ERROR")  # it warns of tracing for each new model
    settings = _settings(args, preset, make())
    ways = [(make, "")] + [(wrong, WRONG)] * args.show_pixel_range
    for backbone, suffix in ways:
        for name in preset.recipes:
            cache = None if args.from_images else FeatureCache(verbose=False)
            for seed in range(args.seeds):
                bench = recipes.Bench(data, backbone, settings, seed, cache)
                for outcome in getattr(recipes, name)(bench):
                    outcome = replace(outcome, recipe=outcome.recipe + suffix)
                    print(f"{outcome.recipe}, seed {seed}: {_told(outcome)}", flush=True)
                    yield outcome


def _settings(args: argparse.Namespace, preset: Preset, backbone: "FrozenBackbone") -> "Settings":
    from keras_transfer.comparison.recipes import Settings

    settings = Settings(**preset.settings)
    names = backbone.link_names[:-1]
    # The last convolution of some networks is a block without a stage of its own.
    top = args.unfreeze or (2 if names[-1] == "top" and len(names) > 1 else 1)
    backbone.select(top)
    return replace(settings, top=top, epochs=args.epochs or settings.epochs)


def _told(outcome: "RecipeResult") -> str:
    test = f", test {outcome.test.accuracy:.1%}" if outcome.test else ""
    told = f"validation {outcome.valid.accuracy:.1%}{test}, {outcome.seconds:.0f} s"
    return f"{told}; {outcome.weights}; {outcome.verdict}"


def _report(output: Path, ran: _Ran, data: "ImageFolder", title: str) -> None:
    from keras_transfer.comparison.page import write_comparison_page
    from keras_transfer.evaluation.report import report
    from keras_transfer.plotting.figure_files import save_figure

    by_recipe = ran.by_recipe
    save_figure(compared_picture(by_recipe, title), output / "compare.png")
    print_table(by_recipe)
    print(*weights(by_recipe), sep="\n")
    print(*filter(None, (gap(by_recipe), overfitting(by_recipe))))
    print(*costs(by_recipe), sep="\n")
    split = data.valid if data.test is None else data.test
    name = f"{ran.best.recipe}, seed {ran.best.seed}"
    best = report(ran.best_model(), split, output / "report", title=f"Best on validation: {name}")
    page = write_comparison_page(output, by_recipe, ran.best, best, title)
    print(f"Comparison: {page}")
    print(f"Report of the best on validation ({name}): {best.path}")
