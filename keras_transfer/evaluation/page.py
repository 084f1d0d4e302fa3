"""HTML pages: jinja2 templates that escape what they are given, with pictures inside the file."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keras_transfer.plotting.style import figure_style
from keras_transfer.utils.confidence_intervals import DASH, Estimate, percent

if TYPE_CHECKING:
    import jinja2
    from matplotlib.figure import Figure

_DOTS_PER_PIXEL = 1.25  # of our figures, which have 120 dots to an inch, where CSS has 96


@dataclass(frozen=True, eq=False)
class Chart:
    """A figure as a PNG file.

    Attributes:
        name: Name of the file.
        png: Its content.
        alternative: What it shows, in words, for readers who cannot see it.
    """

    name: str
    png: bytes
    alternative: str

    @property
    def width(self) -> int:
        """Pixels of CSS, from the file's header."""
        return round(int.from_bytes(self.png[16:20], "big") / _DOTS_PER_PIXEL)

    @property
    def height(self) -> int:
        """Pixels of CSS, from the file's header."""
        return round(int.from_bytes(self.png[20:24], "big") / _DOTS_PER_PIXEL)


def png_chart(name: str, figure: Figure, alternative: str) -> Chart:
    """Draws a figure as a PNG file.

    Args:
        name: Name of the file, without its suffix.
        figure: The figure.
        alternative: What it shows, in words.
    """
    with figure_style():
        figure.savefig(file := io.BytesIO(), format="png")
    return Chart(f"{name}.png", file.getvalue(), alternative)


@dataclass(frozen=True)
class Fact:
    """One line of the answer that a page opens with.

    Attributes:
        question: Such as "How good".
        answer: A few words, set large.
        detail: One or two sentences under it.
    """

    question: str
    answer: str
    detail: str


def printable(text: str) -> str:
    """Replaces each character that a page or a file name in a table cannot show."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def interval(estimate: Estimate) -> str:
    """Formats the ends of an interval in per cent; a dash where nothing is known."""
    if not estimate.known:
        return DASH
    return f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}"


def render_page(
    template: str, *, title: str, lead: str, sections: Mapping[str, str], **values: Any
) -> str:
    """Fills in the template of a page, which is one file without scripts and without requests.

    Args:
        template: Path of the template within the package.
        title: Title of the page.
        lead: The sentence below the title.
        sections: Name to title of each section, in their order; a section that is not among them
            is left out.
        values: What else the template uses. All text is escaped.

    Returns:
        An HTML document.
    """
    page = _environment().get_template(template)
    return page.render(title=title, lead=lead, sections=sections, **values)


@functools.cache
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_transfer", "."),
        autoescape=True,
        finalize=_shown,
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(percent=percent, interval=interval, base64=_base64)
    return environment


def _shown(value: Any) -> Any:
    """Replaces what no page can hold, such as half a surrogate pair, in text that is not markup."""
    if type(value) is not str:
        return value
    return "\n".join(map(printable, value.expandtabs().splitlines())) if value else value


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
