"""Pages for people: one HTML file each that needs no network, light and dark."""

from collections.abc import Iterable, Iterator, Sequence
from html import escape

__all__ = ["render_document", "render_table"]

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --mark: #2563eb; --other: #6b7280; }
@media (prefers-color-scheme: dark) { :root { --mark: #93b4ff; --other: #a8b0bd; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .3rem .5rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
svg { width: 100%; min-width: 34rem; max-width: 56rem; height: auto; font-size: 13px; fill: currentColor; }
.axis { stroke: var(--line); } .pareto { fill: var(--mark); } .plain { fill: var(--other); }
.bar { stroke: var(--other); stroke-width: 1.5; } .front { fill: none; stroke: var(--mark); stroke-dasharray: 4 4; }
@media print { body { margin: 0; } }
"""


def render_document(title: str, body: Iterable[str]) -> str:
    """Put a page together.

    Args:
        title: Of the page, also its heading.
        body: HTML below the heading, with all that comes from outside escaped.

    Returns:
        The file's text.
    """
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        *body,
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def render_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Render a table that scrolls sideways where the page is narrow.

    Args:
        titles: Of the columns.
        rows: Cells as plain text; they are escaped here.

    Yields:
        HTML.
    """
    heads = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    yield f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>'
    for row in rows:
        yield f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
    yield "</tbody></table></div>"
