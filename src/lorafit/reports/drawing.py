"""How figures are drawn: one style, as SVG inside a page that follows its colours, or as files."""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorafit.reports.html import clean_text
from lorafit.system.atomic import write_atomic
from lorafit.system.extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

__all__ = [
    "AFTER",
    "BEFORE",
    "INK",
    "THIRD",
    "Plot",
    "add_legend",
    "drawn",
    "new_figure",
    "render_inline",
    "require_matplotlib",
    "save_files",
    "shorten",
    "show_percent",
]

INK, LINE, AFTER, BEFORE, THIRD = "#1c2430", "#c9ced6", "#2563eb", "#5f6673", "#b45309"
"""Colours of a figure on white: text and axes, grid, the model after training, the one before, and a third thing."""

_IN_PAGE = {
    INK: "currentColor",
    LINE: "var(--line)",
    AFTER: "var(--mark)",
    BEFORE: "var(--other)",
    THIRD: "var(--third)",
}
"""What stands for them in a page, which is light or dark."""

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lorafit",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.8,
}

_WIDTH = 4.8
"""Inches: at 72 dots each, as wide as a phone shows it, so that letters keep their size there."""

_DOTS_PER_INCH = 200


@dataclass(frozen=True)
class Plot:
    """A figure with what it shows, for those who see it and for those who do not.

    Attributes:
        name: A word, also the files' name.
        title: Its heading.
        caption: What to look for, in a sentence or two.
        label: What it shows, in words.
        figure: The figure.
        titles: Titles of the columns of its table.
        rows: The cells as plain text.
    """

    name: str
    title: str
    caption: str
    label: str
    figure: "Figure"
    titles: tuple[str, ...]
    rows: Sequence[Sequence[str]]


def require_matplotlib() -> None:
    """Make sure that figures can be drawn.

    Raises:
        MissingExtraError: matplotlib is not installed; the message gives the pip line.
    """
    require("matplotlib", extra="report", purpose="Writing a report")


@contextmanager
def drawn() -> Iterator[None]:
    """Draw in the house's style inside the block; signs that matplotlib's own font lacks are no reason to warn."""
    import matplotlib as mpl

    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from (current )?font", category=UserWarning)
        yield


def new_figure(height: float, *, rows: int = 1, columns: int = 1) -> "tuple[Figure, list[Axes]]":
    """Make a figure.

    Args:
        height: In inches; the width is that of a phone.
        rows: Panels one below the other.
        columns: Panels side by side.

    Returns:
        The figure and its panels, row by row.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def add_legend(axes: "Axes") -> None:
    """Name the lines of the only panel of a figure, above it, where nothing is drawn over them."""
    handles, labels = axes.get_legend_handles_labels()
    axes.figure.legend(handles, labels, loc="outside upper left", ncols=2)


def show_percent(axis: "Axis") -> None:
    """Write the ticks of an axis of shares in per cent."""
    axis.set_major_formatter(lambda share, _: f"{round(100 * share, 6):g} %")


def shorten(name: str, most: int = 24) -> str:
    """Make a name from outside fit for a figure: a long one loses its middle. In the table it stands whole."""
    line = clean_text(name) or "(no name)"
    tail = (most - 1) // 3
    return line if len(line) <= most else f"{line[: most - 1 - tail]}…{line[-tail:]}"


def render_inline(plot: Plot) -> str:
    """Render a figure as an element of a page.

    Args:
        plot: The figure, with a name that no other figure of the page has.

    Returns:
        An `svg` element without scripts, styles of its own or references out of it; its ids begin with the name.
    """
    name = plot.name
    svg = _draw(plot.figure, "svg").decode("utf-8")
    svg = re.sub(
        r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL
    )
    used = {target for tag in re.findall(r"<[^>]*>", svg) for target in re.findall(r'(?:href="|url\()#([\w.-]+)', tag)}
    svg = re.sub(r"<[^>]*>", lambda match: _adapt(match[0], name, used), svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    head = f'<svg {box[0] if box else ""} role="img" aria-label="{escape(clean_text(plot.label))}">'
    return re.sub(r"\s*\n\s*", "\n", head + svg[svg.index(">") + 1 :]).replace("<defs>\n</defs>\n", "").strip()


def save_files(plot: Plot, folder: Path) -> None:
    """Write a figure as SVG and as PNG, on white, under its name.

    Args:
        plot: The figure.
        folder: Where to; it is made if it is missing.
    """
    for form in ("svg", "png"):
        write_atomic(folder / f"{plot.name}.{form}", _draw(plot.figure, form, transparent=False))


def _draw(figure: "Figure", form: str, *, transparent: bool = True) -> bytes:
    buffer = io.BytesIO()
    dots, metadata = (72, {"Date": None}) if form == "svg" else (_DOTS_PER_INCH, {})
    figure.savefig(buffer, format=form, transparent=transparent, dpi=dots, metadata=metadata)
    return buffer.getvalue()


def _adapt(tag: str, name: str, used: set[str]) -> str:
    """Make a tag one of the page's: its colours and font, ids of its own, numbers of two digits after the point."""
    tag = re.sub(r"\s*\n\s*", " ", tag)
    tag = re.sub(r' id="([^"]*)"', lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "", tag)
    tag = re.sub(r'xlink:href="#', f'href="#{name}-', tag).replace("url(#", f"url(#{name}-")
    tag = re.sub(r" font-family: [^;\"]*;", "", tag)
    tag = re.sub(r"(\.\d\d)\d+", r"\1", tag)
    for colour, variable in _IN_PAGE.items():
        tag = tag.replace(colour, variable)
    return tag
