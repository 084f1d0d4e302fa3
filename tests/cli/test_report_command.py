"""keras-transfer report: a saved model and a folder of images become a page."""

import numpy as np
import pytest
from conftest import SIZE, tiny_backbone
from PIL import Image

from keras_transfer import TransferModel
from keras_transfer.cli.main import main


@pytest.fixture
def photos(tmp_path):
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(10):
            pixels = generator.integers(0, 256, (SIZE, SIZE, 3)).astype("uint8")
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


@pytest.mark.slow
def test_a_report_is_written_at_the_size_that_the_model_was_built_for(photos, tmp_path, capsys):
    model = TransferModel(tiny_backbone(), ["cat", "dog"])
    model.build((None, SIZE, SIZE, 3))
    model.save(tmp_path / "model.keras")
    output = tmp_path / "report"
    assert (
        main(["report", str(tmp_path / "model.keras"), str(photos), "--output", str(output)]) == 0
    )
    assert "accuracy" in (output / "report.html").read_text()
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("Accuracy ")
    assert line.endswith(f"% on 4 test images; see {output / 'report.html'}")


@pytest.mark.slow
def test_a_model_for_images_of_any_size_needs_one(photos, tmp_path, capsys):
    model = TransferModel(tiny_backbone(), ["cat", "dog"])
    model.build((None, None, None, 3))
    model.save(tmp_path / "model.keras")
    assert main(["report", str(tmp_path / "model.keras"), str(photos)]) == 2
    assert "Give one by --image-size" in capsys.readouterr().err
