import csv
import html
import re
import shutil
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_network
from hub_modules import save_reusable
from PIL import Image
from small_lite import small_lite
from test_plots import all_text, assert_readable
from test_report_page import Document, words
from white_charts import leave_figures_white, white

from keras_transfer import FeatureCache, FrozenBackbone, image_folder, report
from keras_transfer.backbones import efficientnet_lite
from keras_transfer.cli import compare
from keras_transfer.comparison import recipes, results
from keras_transfer.comparison.page import write_comparison_page
from keras_transfer.comparison.picture import compared_picture
from keras_transfer.comparison.results import Score
from keras_transfer.utils.confidence_intervals import wilson

QUICK = ("--epochs", "2", "--image-size", "32", "--seeds", "1")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Noise of another colour for each of two classes."""
    folder, generator = tmp_path_factory.mktemp("data") / "photos", np.random.default_rng(0)
    for label, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for i in range(20):
            pixels = generator.integers(0, 100, (40, 40, 3))
            pixels[..., label] += 100
            Image.fromarray(pixels.astype("uint8")).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    return save_reusable(tmp_path_factory.mktemp("hub") / "module")


@pytest.fixture
def offline(monkeypatch):
    """Lets no name be looked up on a network."""

    def get_file(*args, **kwargs):
        raise ValueError("URL fetch failure on somewhere: no network")

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    for module in ("vgg16", "resnet"):
        source = __import__(f"keras.src.applications.{module}", fromlist=["file_utils"])
        monkeypatch.setattr(source.file_utils, "get_file", get_file)


def table(output):
    with (output / "compare.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
@pytest.mark.usefixtures("offline")
def test_feature_extraction_is_compared_with_fine_tuning(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(efficientnet_lite, "EfficientNetLite0", small_lite)
    output = tmp_path / "run"
    assert compare.main([str(photos), "--output", str(output), *QUICK]) == 0
    rows = table(output)
    expected = [
        "a. head on features extracted once",
        "b. same head on the frozen backbone",
        "c. after b, block7 and top unfrozen",
    ]
    ran = sorted((row["recipe"], row["seed"]) for row in rows)
    assert ran == sorted((recipe, seed) for recipe in expected for seed in "0")
    counts = {row["recipe"]: int(row["trainable"]) for row in rows}
    assert counts[expected[0]] == counts[expected[1]] < counts[expected[2]]
    assert all(0 <= float(row["test_accuracy"]) <= 1 for row in rows)
    assert (output / "compare.png").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert "In the place of vgg16, efficientnet_lite0: " in out
    assert "95 % interval" in out
    assert re.search(
        r"^c\. after.* \(begins at epoch 3 with b's weights of epoch \d\): weights of", out, re.M
    )


@pytest.mark.slow
def test_the_wrong_pixel_range_is_that_of_the_originals(monkeypatch):
    args = compare._parse(["--backbone", "mobilenet", "--weights", "none"])
    make, wrong = compare._backbones(args, compare.PRESETS["cats-dogs"])
    assert compare._range_of(make()) == (-1, 1)
    assert compare._range_of(wrong()) == (0, 1)

    def module(source, *, preprocessing="unit", **kwargs):  # as TF-Hub's
        return FrozenBackbone(source, preprocessing=preprocessing, **kwargs)

    monkeypatch.setattr("keras_transfer.backbones.frozen_backbone.FrozenBackbone", module)
    make, wrong = compare._backbones(args, compare.PRESETS["hub-resnet"])
    assert compare._range_of(make()) == (0, 1)
    assert compare._range_of(wrong()) == (0, 255)


def small(photos, module, output, *more):
    """The arguments of a quick comparison of heads on a module."""
    named = ["--preset", "hub-resnet", "--backbone", str(module), "--output", str(output)]
    return [str(photos), *named, "--epochs", "1", "--image-size", "32", "--seeds", "1", *more]


@pytest.mark.slow
def test_a_module_is_compared_with_the_right_and_the_wrong_pixel_range(
    photos, module, tmp_path, capsys, monkeypatch
):
    leave_figures_white(monkeypatch)
    output = tmp_path / "run"
    assert compare.main(small(photos, module, output, "--show-pixel-range")) == 0
    right = ["Dense(6) alone", "Dense(6) with Dropout(0.3) and EarlyStopping"]
    wrong = [f"{recipe}, wrong pixel range" for recipe in right]
    assert [row["recipe"] for row in table(output)] == right + wrong
    out = capsys.readouterr().out
    assert len(re.findall(r"wrong pixel range test accuracy \d+\.\d% became .*\(95 % in", out)) == 2
    assert "wrong pixel range" not in out.partition("Report of the best")[2]
    assert "How good" in (output / "compare.html").read_text()
    assert (output / "report" / "report.html").exists()


@pytest.mark.slow
def test_an_interrupted_comparison_reports_what_it_has(photos, module, tmp_path, monkeypatch):
    leave_figures_white(monkeypatch)

    def interrupted(bench):
        raise KeyboardInterrupt

    monkeypatch.setattr(recipes, "cured", interrupted)
    assert compare.main(small(photos, module, tmp_path / "run")) == 130
    assert [row["recipe"] for row in table(tmp_path / "run")] == ["Dense(6) alone"]
    assert (tmp_path / "run" / "report" / "report.html").exists()
    monkeypatch.setattr(recipes, "overfitting", interrupted)
    assert compare.main(small(photos, module, tmp_path / "again")) == 130
    assert not (tmp_path / "again").exists()


@pytest.mark.slow
def test_a_crash_loses_one_training_at_most(photos, module, tmp_path, monkeypatch):
    def crashed(bench):
        raise MemoryError("no memory")

    monkeypatch.setattr(recipes, "cured", crashed)
    with pytest.raises(MemoryError, match="no memory"):
        compare.main(small(photos, module, tmp_path / "run"))
    assert [row["recipe"] for row in table(tmp_path / "run")] == ["Dense(6) alone"]


@pytest.mark.slow
def test_the_seeds_of_a_recipe_share_what_was_extracted_once(photos, module):
    data, cache = image_folder(photos, image_size=32), FeatureCache(verbose=False)
    settings = recipes.Settings(epochs=1)
    for seed in (0, 1):
        bench = recipes.Bench(data, lambda: FrozenBackbone(module), settings, seed, cache)
        (outcome,) = recipes.features_once(bench)
        assert outcome.seed == seed
        assert len(cache) == 2  # the training and the validation images


@pytest.mark.slow
def test_the_same_seed_sees_the_same_order_whatever_was_run_before(photos):
    data, cache = image_folder(photos, image_size=24, batch_size=8), FeatureCache(verbose=False)
    settings = recipes.Settings(hidden=4, rate=1e-2, epochs=1)

    def losses(recipe, preprocessing="tf", seed=1):
        def make():
            return FrozenBackbone(tiny_network(), preprocessing=preprocessing, pooling="flatten")

        bench = recipes.Bench(data, make, settings, seed, cache)
        return next(recipe(bench)).plotter.history["val_loss"]

    of_b = losses(recipes.end_to_end)
    np.testing.assert_allclose(losses(recipes.features_once), of_b, rtol=1e-5)
    assert losses(recipes.end_to_end) == of_b
    assert losses(recipes.end_to_end, seed=2) != of_b
    losses(recipes.features_once, "unit")
    assert len(cache) == 4  # the training and the validation images, with each pixel range


def test_what_the_wrong_pixel_range_costs_is_said_with_its_interval():
    def cost(right, wrong):
        pairs = {"a": right, f"a{results.WRONG}": wrong}
        (sentence,) = results.costs(
            {name: [SimpleNamespace(test=Score(n, of)) for n, of in some]
             for name, some in pairs.items()}
        )  # fmt: skip
        return sentence

    assert cost([(3, 12)], [(5, 12)]) == (
        "a: with the wrong pixel range test accuracy 25.0% became 41.7%, -16.7 points (95 % "
        "interval -47.6 to 19.3, on 12 images): no difference beyond chance."
    )
    lost = cost([(90, 100), (92, 100)], [(50, 100)] * 2)
    assert lost.endswith(
        "41.0 points (95 % interval 29.0 to 51.5, on 100 images): more than chance explains."
    )
    assert cost([(50, 100)], [(91, 100)]).endswith("more than chance explains.")


def test_the_interval_is_that_of_the_exact_mean_over_the_seeds():
    scores = [Score(13, 18), Score(12, 18)]
    mean = wilson(12.5, 18)
    assert results._interval(scores) == f"{mean.low:.1%} to {mean.high:.1%}"
    assert results._interval([Score(10, 12), Score(11, 12)]) != results._interval([Score(10, 12)])
    assert results._interval([]) == ""


@pytest.fixture
def bench(photos):
    data = image_folder(photos, image_size=24, batch_size=8)

    def make():
        return FrozenBackbone(tiny_network(), preprocessing="tf", pooling="flatten")

    return recipes.Bench(data, make, recipes.Settings(hidden=4, rate=0.3, epochs=2), 0, None)


def weights_by_epoch(monkeypatch):
    """What the models of the recipes had for weights at the end of each epoch."""
    seen = {}

    class Noted(recipes.HistoryPlotter):
        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, logs)
            seen[epoch] = self.model.get_weights()

    monkeypatch.setattr(recipes, "HistoryPlotter", Noted)
    return seen


@pytest.mark.parametrize("recipe", ["end_to_end", "overfitting", "cured"])
@pytest.mark.slow
def test_the_weights_that_are_scored_are_those_of_the_epoch_that_is_told(
    recipe, bench, monkeypatch
):
    seen = weights_by_epoch(monkeypatch)
    for outcome in getattr(recipes, recipe)(bench):
        for one, other in zip(outcome.model.get_weights(), seen[outcome.scored], strict=True):
            np.testing.assert_array_equal(one, other)
        losses = outcome.plotter.history["val_loss"]
        assert outcome.val_loss == losses[outcome.plotter.epochs.index(outcome.scored)]
        if recipe == "overfitting":
            assert outcome.weights == "weights of epoch 2, the last of 2"
        elif recipe == "end_to_end":
            assert outcome.val_loss == min(losses)
    if recipe == "end_to_end":
        assert outcome.about.startswith("begins at epoch 3 with b's weights of epoch ")
        assert outcome.weights.endswith(", the best of 2 by val_loss")


def test_a_run_that_was_ended_early_says_so():
    stop = keras.callbacks.EarlyStopping("val_loss", restore_best_weights=True)
    run = recipes._Run(9, stop)
    run.plotter.epochs, stop.best_epoch, stop.stopped_epoch = list(range(6)), 2, 5
    assert run.kept == 2
    assert run.choice == "restored when EarlyStopping ended it at epoch 6"


FALLS = [0.9, 0.7, 0.6, 0.5, 0.45, 0.4, 0.36, 0.33, 0.31, 0.29, 0.27, 0.25]
RISES = [0.9, 0.75, 0.65, 0.6, 0.62, 0.66, 0.7, 0.75, 0.8, 0.86, 0.92, 0.99]


def outcome(recipe, scored, valid, *, hits=90, seed=0, choice="", about=""):
    """An outcome with some validation losses."""
    logs = {"loss": FALLS[: len(valid)], "val_loss": valid, "accuracy": FALLS[: len(valid)]}
    plotter = SimpleNamespace(history=logs, epochs=list(range(len(valid))))
    scores = (Score(45, 50), Score(hits, 100))
    return recipes.RecipeResult(recipe, seed, *scores, 1.0, 1, plotter, scored, choice, about, None)


def test_overfitting_is_told_and_whether_the_weights_that_are_scored_have_it():
    late, kept = outcome("alone", 11, RISES), outcome("cured", 3, RISES[:9])
    assert late.verdict == "overfitting since epoch 5"
    assert kept.verdict == "overfitting since epoch 5, after these weights"
    said = results.overfitting({"alone": [late, late], "cured": [kept]})
    assert said == (
        "Overfitting was seen in 3 of 3 trainings; the weights that were scored are of an "
        "overfitted epoch in alone (2 of 2)."
    )
    assert results.overfitting({"cured": [kept]}).endswith("are of epochs before it.")
    falls = outcome("alone", 11, FALLS)
    wrong = {f"alone{results.WRONG}": [late]}
    assert results.overfitting({"alone": [falls], **wrong}) == (
        "No overfitting was seen in this run, in none of 1 trainings."
    )


def test_whether_chance_explains_how_far_recipes_are_apart_is_said():
    near = {"a": [outcome("a", 3, RISES)], "b": [outcome("b", 3, RISES, hits=93)]}
    assert results.gap(near) == (
        "Between the highest and the lowest test accuracy of the recipes lie 3.0 points (95 % "
        "interval -5.1 to 11.2, on 100 images): no difference beyond chance."
    )
    far = {**near, "b": [outcome("b", 3, RISES, hits=30)]}
    assert results.gap(far).endswith("on 100 images): more than chance explains.")
    assert results.gap({"a": near["a"], f"a{results.WRONG}": far["b"]}) == ""


def pictured():
    """The recipes of cats and dogs, with both pixel ranges, of two seeds."""
    more = {
        "about": "begins at epoch 13 with b's weights of epoch 4",
        "choice": "the best of 12 by val_loss",
    }
    names = ("a. head on features extracted once", "c. after b, block7 and top unfrozen")
    return {
        f"{name}{suffix}": [
            outcome(name, 3, [v * times for v in RISES], seed=seed, hits=90 + seed, **more)
            for seed in (0, 1)
        ]
        for suffix, times in (("", 1.0), (results.WRONG, 100.0))
        for name in names
    }


def test_the_picture_rings_the_weights_that_were_scored():
    figure = compared_picture(pictured(), "two: efficientnet_lite0 at 64 px")
    assert_readable(figure)
    texts = all_text(figure)
    name = "a. head on features extracted once: test 90.5% ± 0.5% (83.2% to 94.8%)"
    assert f"{name}  ○ 0.6000 at epoch 4" in texts
    assert "epoch whose weights were kept" in texts


def test_the_page_opens_with_the_answer_and_names_are_text(tmp_path, monkeypatch):
    evil = "c. <img src=x onerror=alert(1)>"
    by_recipe = {**pictured(), evil: [outcome(evil, 3, RISES, hits=30)]}
    leave_figures_white(monkeypatch)
    (tmp_path / "compare.png").write_bytes(white("compare", None, "").png)
    images = tf.data.Dataset.from_tensor_slices((np.eye(4, 3)[:, None, None], [0, 1, 2, 0]))
    model = keras.Sequential(
        [keras.Input((1, 1, 3)), keras.layers.Flatten(), keras.layers.Softmax()]
    )
    seen = report(model, images.batch(4), tmp_path / "report")
    best = by_recipe["a. head on features extracted once"][0]
    text = write_comparison_page(tmp_path, by_recipe, best, seen, evil).read_text()
    Document(text)
    assert "<img src=x" not in text
    answer = words(text[: text.index("<nav")])
    order = ["How good test 90.5%", "How sure A real difference", "What it cost 9 s", "Mistakes"]
    places = [answer.index(part) for part in (*order, "What to do next Take a. head")]
    assert places == sorted(places)
    assert f'<a href="report/{seen.path.name}">' in text
    text = write_comparison_page(tmp_path, pictured(), best, seen, "two").read_text()
    assert "How sure Not told apart" in words(text)
    assert "Take the cheapest" in words(text)
    assert "± half of their range" in words(text)
    assert (
        "a. head on features extracted once (begins at epoch 13 with b's weights of epoch 4): "
        "weights of epoch 4, the best of 12 by val_loss (overfitting since epoch 5, after these"
    ) in html.unescape(words(text))


def test_the_best_model_is_as_it_was_when_it_was_scored():
    class Model:
        def __init__(self, value):
            self.value = value

        def get_weights(self):
            return [self.value]

        def set_weights(self, weights):
            (self.value,) = weights

    def outcome(recipe, accuracy, loss, model):
        plotter = SimpleNamespace(history={"val_loss": [0.01, loss]}, epochs=[0, 1])
        valid = SimpleNamespace(accuracy=accuracy)
        return recipes.RecipeResult(recipe, 0, valid, None, 1.0, 1, plotter, 1, "", "", model)

    ran, first, second = compare._Ran(), Model(1), Model(2)
    ran.add(outcome("b", 0.9, 0.3, first))
    first.value = 7  # trained further
    ran.add(outcome("c", 0.8, 0.1, first))
    ran.add(outcome("a, wrong pixel range", 0.99, 0.1, second))
    assert (ran.best.recipe, ran.best_model().value) == ("b", 1)
    assert [one.model for one in ran.outcomes] == [None] * 3
    ran.add(outcome("d", 0.9, 0.2, second))  # as often right, with a lower loss
    assert ran.best_model() is second
    ran.add(outcome("e", 0.9, float("nan"), first))
    assert ran.best.recipe == "d"


@pytest.mark.slow
def test_what_the_user_can_put_right_is_said_in_a_line(photos, module, tmp_path, capsys):
    output = tmp_path / "run"

    def refused(arguments):
        assert compare.main(arguments) == 2
        assert not output.exists()
        return capsys.readouterr().err

    (tmp_path / "one" / "cat").mkdir(parents=True)
    shutil.copy(photos / "cat" / "0.png", tmp_path / "one" / "cat")
    assert "holds 1 class folders ('cat')" in refused(small(tmp_path / "one", module, output))
    assert "is no folder" in refused(small(tmp_path / "nowhere", module, output))
    assert "is there already" in refused(small(photos, module, tmp_path / "one"))
    tiny = ["--backbone", "vgg16", "--weights", "none", "--image-size", "16"]
    assert "--image-size 16 does not fit backbone vgg16: " in refused(
        small(photos, module, output, *tiny)
    )


def test_a_backbone_that_was_asked_for_is_not_replaced(photos, tmp_path, offline, capsys):
    arguments = [str(photos), "--backbone", "vgg16", "--output", str(tmp_path / "run")]
    assert compare.main(arguments) == 2
    assert "could not be downloaded" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_more_blocks_than_there_are_are_refused(photos, tmp_path, capsys):
    arguments = ["--backbone", "vgg16", "--weights", "none", "--unfreeze", "40"]
    assert compare.main([str(photos), "--output", str(tmp_path / "run"), *arguments]) == 2
    assert "matches 40" in capsys.readouterr().err
