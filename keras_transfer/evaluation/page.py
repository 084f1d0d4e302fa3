"""Parts of an HTML page: text that is escaped, tables with captions, pictures inside the file."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from keras_transfer.utils.confidence_intervals import DASH, Estimate

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
    names = [escaped(name).replace("_", "_<wbr>") for name in columns]  # where they may break
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
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


def preformatted(text: str, label: str) -> str:
    """A text of several lines as it is, such as a traceback; it can be scrolled by keyboard.

    Args:
        text: The text.
        label: What it is, for who cannot see it.
    """
    lines = "\n".join(escaped(line.expandtabs()) for line in text.splitlines())
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escaped(label)}">'
        f"<pre>{lines}</pre></div>"
    )


def bullets(texts: Sequence[object]) -> str:
    """A list of plain texts."""
    return f"<ul>{''.join(f'<li>{escaped(text)}</li>' for text in texts)}</ul>"


# Should anything in a page ever ask for more than what is in the file, no browser will fetch it.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'"

_STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --ink: #202124; --soft: #5f6368;
  --line: #dadce0; --band: #f1f3f4; --link: #00578a; }
@media (prefers-color-scheme: dark) {
  :root { --page: #16181c; --ink: #e8eaed; --soft: #b0b5bb; --line: #3c4043; --band: #22252a;
    --link: #8ec7ea; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 72rem; background: var(--page);
  color: var(--ink); font: 1rem/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .5rem; }
p { max-width: 48rem; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -100rem; }
.skip:focus { left: 1rem; top: 1rem; padding: .5rem; background: var(--page); }
.lead { font-size: 1.2rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; list-style: none; padding: 0; }
nav a { display: inline-block; padding: .2rem 0; }
.wide { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0; }
caption { text-align: left; color: var(--soft); padding-bottom: .4rem; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th:first-child { text-align: left; }
thead th { vertical-align: bottom; background: var(--band); white-space: normal; }
tbody th { font-weight: 600; white-space: normal; }
.name { display: inline-block; width: max-content; max-width: 18em; overflow-wrap: anywhere; }
figure { margin: 1rem 0; }
figcaption { color: var(--soft); max-width: 48rem; }
.chart { display: block; max-width: 100%; height: auto; background: #ffffff; border-radius: 6px; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr));
  gap: 1.2rem; list-style: none; padding: 0; }
.grid figure { margin: 0; }
.views { display: flex; gap: 4px; }
.views img { flex: 1 1 0; min-width: 0; height: auto; border-radius: 3px; object-fit: contain; }
.path { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .85rem;
  overflow-wrap: anywhere; }
pre { font: .85rem/1.45 ui-monospace, "DejaVu Sans Mono", monospace; margin: .5rem 0;
  padding: .7rem; background: var(--band); width: max-content; min-width: 100%; }
li { overflow-wrap: anywhere; }
.said { color: var(--ink); }
summary { cursor: pointer; }
@media print {
  :root { color-scheme: light; --page: #ffffff; --ink: #000000; --soft: #444444;
    --line: #bbbbbb; --band: #eeeeee; --link: #000000; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav, .skip, details:not([open]) { display: none; }
  h2, h2 + p { break-after: avoid; }
  .wide { overflow: visible; }
  .chart { min-width: 0 !important; max-height: 24cm; width: auto; object-fit: contain; }
  table { font-size: 8.5pt; }
  th, td { padding: .15rem .4rem; }
  thead { display: table-header-group; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; width: auto; font-size: 7.5pt; }
  tr, .grid figure, figure { break-inside: avoid; }
  .grid { grid-template-columns: repeat(3, minmax(0, 1fr)); gap: .4cm; }
}
"""


def page(title: str, lead: str, sections: Mapping[str, tuple[str, str]], *, style: str = "") -> str:
    """Puts a page together.

    Args:
        title: Of the page.
        lead: The sentence under it, plain text.
        sections: Name to title and HTML of each section, in their order.
        style: CSS of this page's own, after that of all pages. Default: none.

    Returns:
        A whole HTML document.
    """
    contents = "\n".join(
        f'<li><a href="#{name}">{escaped(heading)}</a></li>'
        for name, (heading, _) in sections.items()
    )
    main = "\n".join(content for _, content in sections.values())
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escaped(title)}</title>
<link rel="icon" href="data:,">
<style>{_STYLE}{style}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the report</a>
<header>
<h1>{escaped(title)}</h1>
<p class="lead">{escaped(lead)}</p>
</header>
<nav aria-label="Contents">
<ul>
{contents}
</ul>
</nav>
<main id="main">
{main}
</main>
</body>
</html>
"""
