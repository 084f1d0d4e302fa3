"""What the README shows, runs."""

import re
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import tiny_backbone
from hub_modules import save_plain, save_reusable
from PIL import Image
from small_lite import small_lite

import keras_transfer
from keras_transfer import FrozenBackbone, efficientnet_lite, frozen_backbone, hub_source

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"### ([^\n]+)\n(?:(?!###).)*?```python\n(.*?)```", README, flags=re.S)
TEN_LINES = re.search(r"## Ten lines\n```python\n(.*?)```", README, flags=re.S)[1]


@pytest.fixture
def _workplace(tmp_path, monkeypatch):
    """A folder with photos/, and backbones without a download."""
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(10):
            pixels = generator.integers(0, 256, (40, 40, 3)).astype("uint8")
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.jpg")
    monkeypatch.chdir(tmp_path)
    searched = keras_transfer.TransferModel(tiny_backbone(), ["cat", "dog"])
    searched.build((None, 150, 150, 3))
    (tmp_path / "runs" / "photos").mkdir(parents=True)
    searched.save(tmp_path / "runs" / "photos" / "best.keras")
    save_plain(tmp_path / "module", outputs=2)
    published, folder_of = save_reusable(tmp_path / "published"), hub_source.folder_of
    monkeypatch.setattr(
        hub_source, "folder_of", lambda h: published if hub_source.is_remote(h) else folder_of(h)
    )
    load = frozen_backbone.backbones.load

    def offline(source, *, weights="imagenet", input_shape=None):
        weights = weights if source == "efficientnet_lite0" else None
        return load(source, weights=weights, input_shape=input_shape)

    monkeypatch.setattr(frozen_backbone.backbones, "load", offline)


def names() -> dict[str, object]:
    """What a snippet may take for granted: the data of a user, histories of two runs."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 150, 150, 3)).astype("uint8")
    batches = tf.data.Dataset.from_tensor_slices((pixels, [0, 1, 0, 1])).batch(2)
    curve = {"loss": [0.5, 0.4], "val_loss": [0.6, 0.5]}
    return {
        "images": pixels,
        "train": batches,
        "valid": batches,
        "history_a": curve,
        "history_b": SimpleNamespace(history=curve, epoch=[0, 1]).history,
        "keras": keras,
    }


@pytest.mark.slow
@pytest.mark.usefixtures("_workplace")
def test_the_ten_lines_do_what_they_say(tmp_path):
    exec(TEN_LINES, {})
    assert (tmp_path / "history.png").exists()
    assert (tmp_path / "serving" / "1" / "saved_model.pb").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("_workplace")
@pytest.mark.parametrize(("title", "code"), SNIPPETS, ids=[title for title, _ in SNIPPETS])
def test_each_recipe_runs(title, code, monkeypatch):
    monkeypatch.setattr(efficientnet_lite, "EfficientNetLite0", small_lite)
    # A recipe shows as many epochs as are useful; here two phases of one are enough.
    exec(re.sub(r"epochs=\d+", "epochs=2", code).replace("{20:", "{1:"), names())


def test_what_recipes_run_on_has_blocks_of_the_embedded_backbone():
    small = FrozenBackbone(small_lite(), preprocessing="lite")
    embedded = [block.name for block in FrozenBackbone(weights=None).blocks]
    assert [block.name for block in small.blocks] == ["stem", "block7", "top"]
    assert {block.name for block in small.blocks} < set(embedded)


def test_every_snippet_is_found():
    assert len(SNIPPETS) + 1 == README.count("```python")


def test_there_are_two_commands_and_ci_runs_the_second():
    assert 'pip install -e ".[demo]" && python tuning/search.py\n' in README
    assert 'pip install -e ".[test]" && pytest\n' in README
    assert "README.md" in (ROOT / ".ci" / "run").read_text()


def test_pictures_are_where_the_readme_shows_them():
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (ROOT / picture).exists(), picture


def test_the_readme_names_every_public_class_and_function():
    public = [
        n for n in dir(keras_transfer) if n[0] != "_" and callable(getattr(keras_transfer, n))
    ]
    assert not [name for name in public if name not in README]
