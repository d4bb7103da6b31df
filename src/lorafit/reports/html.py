"""Pages for people: one HTML file each that needs no network, light and dark, on a phone and in print."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Final

from lorafit.evidence import Estimate
from lorafit.reports.drawing import render_inline
from lorafit.system.extras import require
from lorafit.system.text import clean_text, format_duration

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

__all__ = [
    "FILTERS",
    "render_details",
    "render_document",
    "render_facts",
    "render_marked",
    "render_page",
    "render_table",
    "write_number",
    "write_percent",
    "write_points",
]


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
"""Filters of the templates by their names there. How numbers are written is added here."""


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


# What follows serves the parts of the report that are not templates yet.


def render_document(title: str, body: Iterable[str]) -> str:
    """Render a page around HTML in which all that comes from outside is escaped."""
    from markupsafe import Markup

    return render_page("page.html", title=title, body=Markup("\n".join(body)))  # noqa: S704


def render_table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, label: str = "Table") -> Iterator[str]:
    """Render the macro `table`."""
    yield _macro("table")(titles, rows, label)


def render_facts(facts: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Render the macro `facts`."""
    yield _macro("facts")(facts)


def render_details(summary: str, body: Iterable[str]) -> Iterator[str]:
    """Render the macro `details` around HTML in which all that comes from outside is escaped."""
    from markupsafe import Markup

    yield _macro("details")(summary, caller=lambda: Markup("\n".join(body)))  # noqa: S704


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


def _macro(name: str) -> Callable[..., str]:
    macro: Callable[..., str] = getattr(_environment().get_template("macros.html").module, name)
    return macro
