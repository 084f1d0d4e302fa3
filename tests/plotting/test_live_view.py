import sys
import types

import matplotlib
import numpy as np
import pytest

from keras_transfer.plotting import history_figure, live_view
from keras_transfer.plotting.live_view import NotebookView, WindowView
from keras_transfer.training.history_plotter import HistoryPlotter


def train(plotter, epochs=3):
    plotter.on_train_begin()
    for epoch in range(epochs):
        plotter._next_drawing = 0  # no pause between drawings
        plotter.on_epoch_end(epoch, {"loss": 1.0 / (epoch + 1)})
    plotter.on_train_end()


@pytest.fixture
def notebook(monkeypatch):
    """What IPython's kernel offers, as far as it is used; collects what is displayed."""
    shown = []

    class Handle:
        def update(self, picture):
            shown.append(("updated", picture))

    def display(picture, display_id=None):
        shown.append(("displayed", picture))
        return Handle()

    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    ipython.version_info = (9, 0)  # for matplotlib
    ipython.display = types.ModuleType("IPython.display")
    ipython.display.display = display
    ipython.display.Image = lambda data, format: data
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
    return shown


def test_in_a_notebook_there_is_one_display_updated_in_place(notebook):
    train(HistoryPlotter())
    assert [what for what, _ in notebook] == ["displayed", "updated", "updated"]
    pictures = [picture for _, picture in notebook]
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert len(set(pictures)) == 3


def test_a_terminal_of_ipython_is_no_notebook(notebook, monkeypatch):
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: types.SimpleNamespace())
    monkeypatch.setattr(matplotlib, "get_backend", lambda: "agg")
    assert live_view.live_view("auto") is None


def test_elsewhere_nothing_is_shown_and_to_insist_is_an_error():
    assert live_view.live_view("auto") is None
    assert live_view.live_view(False) is None
    with pytest.raises(
        RuntimeError, match=r"no backend that opens windows here\. Run it on a desk"
    ):
        HistoryPlotter(live=True).on_train_begin()
    with pytest.raises(ValueError, match=r"live='yes'\. Expected 'auto', True or False"):
        HistoryPlotter(live="yes")


def test_live_false_shows_nothing_in_a_notebook(notebook):
    train(HistoryPlotter(live=False))
    assert notebook == []


@pytest.mark.slow
def test_a_window_is_one_figure_that_shows_the_last_drawing(monkeypatch):
    import matplotlib.pyplot as plt

    # Agg has all that a window has, but for the window.
    monkeypatch.setattr(matplotlib.figure.Figure, "show", lambda self: None)
    view = WindowView()
    for epochs in (1, 2, 3):
        logs = {"loss": [0.5] * epochs, "accuracy": [0.5] * epochs}
        figure = history_figure(logs if epochs > 1 else {"loss": [0.5]}, range(epochs))
        view.show(figure)
        (number,) = plt.get_fignums()
        window = plt.figure(number)
        assert np.array_equal(window.images[0].get_array(), np.array(figure.canvas.buffer_rgba()))
        assert window.get_size_inches().tolist() == figure.get_size_inches().tolist()
    plt.close("all")
    view.show(figure)  # nobody wants it any more
    assert plt.get_fignums() == []


def test_a_desktop_is_told_by_the_backend(monkeypatch):
    monkeypatch.setattr(matplotlib, "get_backend", lambda: "TkAgg")
    assert isinstance(live_view.live_view("auto"), WindowView)


def test_a_notebook_comes_before_a_window(notebook, monkeypatch):
    monkeypatch.setattr(matplotlib, "get_backend", lambda: "TkAgg")
    assert isinstance(live_view.live_view(True), NotebookView)
