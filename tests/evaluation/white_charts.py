"""Reports without their figures, which take most of the time, where no test looks at them."""

import io
from types import SimpleNamespace

from PIL import Image

from keras_transfer.evaluation import report_files
from keras_transfer.evaluation.page import Chart
from keras_transfer.search.report import charts


def white(name: str, figure: object, words: str) -> Chart:
    Image.new("RGB", (1, 1), "white").save(file := io.BytesIO(), "PNG")
    return Chart(f"{name}.png", file.getvalue(), words)


def leave_figures_white(monkeypatch) -> None:
    """Draws no figure of a report or of a search; which there are stays as it is."""
    figures = report_files.figures
    names = ("class", "confusion", "calibration", "score", "pictures")
    undrawn = {f"{name}_figure": lambda *_, **__: None for name in names}
    undrawn["calibration_sentence"] = figures.calibration_sentence
    monkeypatch.setattr(report_files, "figures", SimpleNamespace(**undrawn))
    monkeypatch.setattr(report_files, "png_chart", white)
    for name in ("search", "parallel", "importance", "compare"):
        monkeypatch.setattr(charts, f"{name}_figure", lambda *_, **__: None)
    monkeypatch.setattr(charts, "png_chart", white)
