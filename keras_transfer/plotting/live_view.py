"""Where a figure is shown while it changes: below the cell of a notebook, or in a window."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Live = bool | Literal["auto"]


class NotebookView:
    """One output of a notebook's cell, updated in place."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, figure: Figure) -> None:
        """Shows a figure in the place of the last.

        As a picture: a figure itself is shown only where pyplot has taught the notebook to.
        """
        from IPython.display import Image, display

        with io.BytesIO() as png:
            figure.savefig(png, format="png")
            picture = Image(data=png.getvalue(), format="png")
        if self._handle is None:
            self._handle = display(picture, display_id=True)
        else:
            self._handle.update(picture)


class WindowView:
    """One window, which never waits for anybody. It closes with the process, or by hand."""

    def __init__(self) -> None:
        self._window: Any = None

    def show(self, figure: Figure) -> None:
        """Shows a figure in the place of the last; does nothing once the window was closed."""
        import matplotlib.pyplot as plt

        canvas: Any = figure.canvas
        canvas.draw()
        pixels, size = np.array(canvas.buffer_rgba()), figure.get_size_inches()
        if self._window is None:
            self._window = plt.figure("History", figsize=size, dpi=figure.dpi)
            self._image = self._window.figimage(pixels)
            self._window.show()
        elif plt.fignum_exists(self._window.number):
            self._window.set_size_inches(size)  # a panel may have come
            self._image.set_data(pixels)
            self._window.canvas.draw_idle()
        else:
            return
        self._window.canvas.flush_events()


def live_view(live: Live) -> NotebookView | WindowView | None:
    """Returns where to show figures, `None` for nowhere.

    Args:
        live: `"auto"` for a notebook's output or a desktop's window where there is one; True to
            insist on it; False for nowhere.

    Raises:
        ValueError: If it is none of these.
        RuntimeError: If it is True, and there is neither notebook nor window.
    """
    if live not in (True, False, "auto"):
        raise ValueError(f"live={live!r}. Expected 'auto', True or False.")
    if not live:
        return None
    if _in_notebook():
        return NotebookView()
    if _has_windows():
        return WindowView()
    if live == "auto":
        return None
    raise RuntimeError(
        "live=True, but there is no notebook, and matplotlib has no backend that opens windows "
        "here. Run it on a desktop (with PyQt6 or Tk installed), or give HistoryPlotter a path and "
        "live='auto'."
    )


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


def _has_windows() -> bool:
    import matplotlib
    from matplotlib.backends import BackendFilter, backend_registry

    # Looking a backend up chooses one, as the first figure of pyplot would.
    interactive = backend_registry.list_builtin(BackendFilter.INTERACTIVE)
    return matplotlib.get_backend().lower() in {name.lower() for name in interactive}
