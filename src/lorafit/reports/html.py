"""Pages for people: one HTML file each that needs no network, light and dark, on a phone and in print."""

import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from lorafit.evidence import Estimate

__all__ = [
    "clean_text",
    "render_details",
    "render_document",
    "render_facts",
    "render_marked",
    "render_table",
    "write_number",
    "write_percent",
    "write_points",
]

_STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --ink: #1c2430; --quiet: #566070; --soft: #f3f5f8; --line: #8886;
  --mark: #2563eb; --other: #5f6673; --third: #b45309; --good: #15803d; --bad: #b91c1c; }
@media screen and (prefers-color-scheme: dark) { :root { --page: #14171c; --ink: #e6e9ee; --quiet: #a9b2bf;
  --soft: #1e232b; --mark: #93b4ff; --other: #a8b0bd; --third: #f0b35e; --good: #7bd39a; --bad: #ff9c94; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem;
  background: var(--page); color: var(--ink); overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.25; } h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
a { color: var(--mark); } p, ul, ol { max-width: 46rem; }
.wide { overflow-x: auto; } :focus-visible { outline: 2px solid var(--mark); outline-offset: 2px; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .3rem .5rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; } tbody th { font-weight: inherit; white-space: normal;
  min-width: 6rem; overflow-wrap: normal; }
svg { width: 100%; min-width: 34rem; max-width: 56rem; height: auto; font-size: 13px; fill: currentColor; }
.axis { stroke: var(--line); } .pareto { fill: var(--mark); } .plain { fill: var(--other); }
.bar { stroke: var(--other); stroke-width: 1.5; } .front { fill: none; stroke: var(--mark); stroke-dasharray: 4 4; }
.lead { font-size: 1.2rem; line-height: 1.45; } .quiet { color: var(--quiet); font-size: .9rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 0 2rem; }
.grid > * { min-width: 0; }
figure { margin: 1rem 0; min-width: 0; } figcaption { color: var(--quiet); font-size: .9rem; max-width: 34rem; }
figure svg { display: block; min-width: 0; max-width: 34rem; } figure svg * { stroke-linejoin: round; }
.facts { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: .3rem 1.2rem; font-size: .9rem;
  max-width: 46rem; }
.facts dt { color: var(--quiet); } .facts dd { margin: 0; min-width: 0; }
summary { cursor: pointer; color: var(--quiet); font-size: .9rem; }
pre { background: var(--soft); padding: .6rem .8rem; overflow-x: auto; font-size: 14px; border-radius: 4px; }
.texts { padding-left: 1.5rem; } .texts li { margin: .8rem 0; } .texts p { margin: .2rem 0; }
.texts .text { background: var(--soft); border-left: 3px solid var(--line); padding: .3rem .6rem; }
mark { background: none; color: inherit; border-bottom: 2px solid var(--mark); }
mark.against { border-bottom: 2px dashed var(--third); }
.answer { display: inline-block; margin-right: 1.2rem; font-size: .9rem; }
.right { color: var(--good); } .wrong { color: var(--bad); }
nav ul { padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .9rem; }
@media print { body { margin: 0; max-width: none; font-size: 11pt; } nav { display: none; }
  :root { color-scheme: light; } .wide { overflow: visible; } table { font-size: 8pt; white-space: normal; }
  figure, li, tr, pre { break-inside: avoid; } h2, h3 { break-after: avoid; } pre { white-space: pre-wrap; } }
"""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a browser may do for such a page: draw it. Nothing is loaded and nothing is run."""

_KEPT_SIGNS = frozenset("\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}")
"""Signs that print nothing of their own but belong to words of some scripts and to emoji."""


def render_document(title: str, body: Iterable[str]) -> str:
    """Put a page together.

    Args:
        title: Of the page, also its heading.
        body: HTML below the heading, with all that comes from outside escaped.

    Returns:
        The file's text.
    """
    name = escape(clean_text(title))
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<link rel="icon" href="data:,">',
        f"<title>{name}</title><style>{_STYLE}</style></head><body><main>",
        f"<h1>{name}</h1>",
        *body,
        "</main></body></html>",
    ]
    return "\n".join(parts) + "\n"


def render_table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, label: str = "Table") -> Iterator[str]:
    """Render a table that scrolls sideways where the page is narrow.

    Args:
        titles: Of the columns.
        rows: Cells as plain text, the row's heading first; they are escaped here.
        label: What the table holds, for those who cannot see it.

    Yields:
        HTML.
    """
    heads = "".join(f'<th scope="col">{escape(clean_text(title))}</th>' if title else "<td></td>" for title in titles)
    yield f'<div class="wide" tabindex="0" role="region" aria-label="{escape(clean_text(label))}">'
    yield f"<table><thead><tr>{heads}</tr></thead><tbody>"
    for heading, *cells in rows:
        rest = "".join(f"<td>{escape(clean_text(cell))}</td>" for cell in cells)
        yield f'<tr><th scope="row">{escape(clean_text(heading))}</th>{rest}</tr>'
    yield "</tbody></table></div>"


def render_facts(facts: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Render names with what is to be said of each.

    Args:
        facts: Names and descriptions as plain text; they are escaped here.

    Yields:
        HTML.
    """
    yield '<dl class="facts">'
    for name, text in facts:
        yield f"<dt>{escape(clean_text(name))}</dt><dd>{escape(clean_text(text))}</dd>"
    yield "</dl>"


def render_details(summary: str, body: Iterable[str]) -> Iterator[str]:
    """Render something that is shown when it is asked for.

    Args:
        summary: What it is, as plain text.
        body: HTML, with all that comes from outside escaped.

    Yields:
        HTML.
    """
    yield f"<details><summary>{escape(clean_text(summary))}</summary>"
    yield from body
    yield "</details>"


def render_marked(text: str, marks: Iterable[tuple[int, int, str]], *, most: int) -> str:
    """Render a text in which some parts are marked.

    Args:
        text: Any text.
        marks: First character, character after the last, and CSS class of each part, in the order of the text.
        most: Characters after which it is cut, with an ellipsis.

    Returns:
        HTML of one line, made fit for a page as `clean_text` does it, and escaped.
    """
    pieces, place = [], 0
    for start, end, kind in marks:
        pieces += [(text[place:start], ""), (text[start:end], kind)]
        place = end
    html, room = "", most
    for piece, kind in [*pieces, (text[place:], "")]:
        line = _replace_signs(re.sub(r"\s+", " ", piece))
        whole = len(line) <= room
        shown = line if whole else line[: max(room - 1, 0)].rstrip() + "…"
        html += f'<mark class="{kind}">{escape(shown)}</mark>' if kind and shown else escape(shown)
        if not whole:
            break
        room -= len(line)
    return html.strip()


def clean_text(text: str, *, most: int | None = None) -> str:
    """Make a text fit for a page, before it is escaped.

    Args:
        text: Any text.
        most: Characters after which it is cut, an ellipsis being the last; None for all of it.

    Returns:
        One line: white space folded, and signs that a page cannot hold or that would steer it (control characters,
        changes of direction, halves of surrogate pairs) shown as a replacement sign.
    """
    line = _replace_signs(re.sub(r"\s+", " ", text).strip())
    return line if most is None or len(line) <= most else line[: most - 1].rstrip() + "…"


def write_percent(estimate: Estimate) -> str:
    """Write a share with its interval in per cent."""
    return f"{100 * estimate.value:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def write_points(estimate: Estimate) -> str:
    """Write a difference of shares with its interval in points."""
    return f"{100 * estimate.value:+.1f} [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"


def write_number(estimate: Estimate, *, sign: bool = False) -> str:
    """Write a value with its interval, to three digits after the point."""
    form = "+.3f" if sign else ".3f"
    return f"{estimate.value:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"


def _replace_signs(line: str) -> str:
    return "".join(sign if sign.isprintable() or sign in _KEPT_SIGNS else "\N{REPLACEMENT CHARACTER}" for sign in line)
