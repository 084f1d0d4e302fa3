"""The frame of a report's page: its head, its look on screens and paper, its contents."""

from __future__ import annotations

from collections.abc import Mapping

from keras_transfer.page_parts import escaped

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
