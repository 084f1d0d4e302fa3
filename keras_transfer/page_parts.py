"""Parts of an HTML page: text that is escaped, tables with captions, pictures inside the file."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass

from keras_transfer.intervals import DASH, Estimate

_DOTS_PER_PIXEL = 1.25  # of our figures, which have 120 dots to an inch, where CSS has 96


@dataclass(frozen=True, eq=False)
class Chart:
    """A figure as a PNG file.

    Attributes:
        name: Of the file.
        png: Its content.
        alternative: What it shows, in words, for who cannot see it.
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


def printable(text: object) -> str:
    """A text with a mark for each character that no page can hold, as file names may."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(text)
    )


def escaped(text: object) -> str:
    """A text as it stands in a page, also within quotes."""
    return html.escape(printable(text), quote=True)


def interval(estimate: Estimate) -> str:
    """The ends of an interval in per cent; a dash where nothing is known."""
    if not estimate.known:
        return DASH
    return f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}"


def table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table whose first column names the rows; it can be scrolled by keyboard.

    Args:
        caption: What it holds.
        columns: The names of the columns.
        rows: As many cells in each.
    """
    head = "".join(f'<th scope="col">{escaped(name)}</th>' for name in columns)
    body = "\n".join(
        f'<tr><th scope="row"><span class="name">{escaped(first)}</span></th>'
        + "".join(f"<td>{escaped(cell)}</td>" for cell in others)
        + "</tr>"
        for first, *others in rows
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escaped(caption)}">\n<table>\n'
        f"<caption>{escaped(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def chart(one: Chart, caption: str) -> str:
    """A figure; where the window is narrow it can be scrolled by keyboard."""
    label = f'tabindex="0" role="region" aria-label="Picture {escaped(one.name)}"'
    return (
        f'<figure>\n<div class="wide" {label}>'
        f'<img src="{data_uri(one.png, "png")}" alt="{escaped(one.alternative)}" '
        f'width="{one.width}" height="{one.height}" class="chart" '
        f'style="min-width: min({one.width}px, {_least(one.width)})">'
        f"</div>\n<figcaption>{escaped(caption)}</figcaption>\n</figure>"
    )


def _least(width: int) -> str:
    """A large picture is scrolled rather than made so small that its texts cannot be read."""
    return f"{round(width * 0.75)}px" if width > 1100 else "36rem"


def data_uri(content: bytes, kind: str) -> str:
    """A picture inside the page."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def section(name: str, title: str, *parts: str) -> str:
    """A section that the contents link to."""
    inside = "\n".join(part for part in parts if part)
    heading = f'<h2 id="{name}-title">{escaped(title)}</h2>'
    return f'<section id="{name}" aria-labelledby="{name}-title">\n{heading}\n{inside}\n</section>'


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escaped(text)}</p>"
