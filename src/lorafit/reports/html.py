"""Pages for people: one HTML file each that needs no network, light and dark, on a phone and in print."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

from lorafit.reports.drawing import render_inline
from lorafit.system.extras import require
from lorafit.system.text import clean_text, format_duration

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


@dataclass(frozen=True)
class Table:
    """A table for people, as plain text that is not yet made safe.

    Attributes:
        label: What it holds.
        titles: Of the columns.
        rows: Its cells; each row begins with its heading.
    """

    label: str
    titles: Sequence[str]
    rows: Sequence[Sequence[str]]


def render_page(template: str, **context: object) -> str:
    """Render a template of `templates/`.

    Whatever a template prints is made safe there and nowhere else: `clean_text` makes one line of it, then it is
    escaped. Only `Markup`, which macros and some filters return, is printed as it is; text from outside must never be
    made `Markup`.

    Args:
        template: File name. Pages extend `page.html` and import `macros.html`.
        **context: What the template names; it fails on a name that is missing.

    Returns:
        The file's text.

    Raises:
        MissingExtraError: Jinja2 is not installed; the message gives the pip line.
    """
    return _environment().get_template(template).render(context)


def render_marked(text: str, marks: Iterable[tuple[int, int, str]], *, most: int) -> "Markup":
    """Mark parts of a text.

    Args:
        text: Any text.
        marks: First character, character after the last, and CSS class of each part, in the order of the text.
        most: Length to which it is cut, with an ellipsis.

    Returns:
        HTML of one line, cleaned and escaped.
    """
    from markupsafe import Markup

    pieces, place = [], 0
    for start, end, kind in marks:
        pieces += [(text[place:start], ""), (text[start:end], kind)]
        place = end
    html, room = Markup(), most
    for piece, kind in [*pieces, (text[place:], "")]:
        line = clean_text(piece, strip=False)
        is_whole = len(line) <= room
        shown = line if is_whole else line[: max(room - 1, 0)].rstrip() + "…"
        html += Markup('<mark class="{}">{}</mark>').format(kind, shown) if kind and shown else shown
        if not is_whole:
            break
        room -= len(line)
    return html.strip()


FILTERS: Final[dict[str, Callable[..., str]]] = {
    "clean": clean_text,
    "duration": format_duration,
    "marked": render_marked,
    "svg": render_inline,
    "thousands": "{:,}".format,
}
"""Filters of the templates by their names there."""


@cache
def _environment() -> "Environment":
    require("jinja2", extra="train", purpose="Writing a page")
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("lorafit.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_clean,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )
    environment.filters |= FILTERS
    return environment


def _clean(value: object) -> object:
    """Clean what a template is about to print and escape; `Markup` is neither cleaned nor escaped."""
    return value if hasattr(value, "__html__") else clean_text(str(value), strip=False)
