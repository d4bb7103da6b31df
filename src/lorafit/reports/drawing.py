"""How plots are drawn: in one style, as SVG that follows the colours of its page, or as files."""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorafit.system.atomic import write_atomic
from lorafit.system.extras import missing_modules, require
from lorafit.system.text import clean_text

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation


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

_LABEL_PLACES = [
    (across, up)
    for distance in (0, 12, 24, 36)
    for up in ((distance,) if distance == 0 else (distance, -distance))
    for across in (7, -7)
]
"""Where a label may stand beside its point, in points: the first that is free is taken."""


@dataclass(frozen=True)
class Plot:
    """A figure and what it shows, for those who see it and for those who do not.

    Attributes:
        name: One word, also the name of its files.
        title: Its heading.
        caption: What to look for, in a sentence or two.
        label: What it shows, in words.
        figure: The figure.
        titles: Column titles of its table.
        rows: Cells of the table as plain text; none where another table of the page holds the data.
    """

    name: str
    title: str
    caption: str
    label: str
    figure: "Figure"
    titles: tuple[str, ...] = ()
    rows: Sequence[Sequence[str]] = ()


def can_draw() -> bool:
    """Return whether matplotlib is installed, without importing it."""
    return not missing_modules("report")


def require_matplotlib() -> None:
    """Make sure that plots can be drawn.

    Raises:
        MissingExtraError: matplotlib is not installed; the message gives the pip line.
    """
    require("matplotlib", extra="report", purpose="Writing a report")


@contextmanager
def drawn() -> Iterator[None]:
    """Draw in one style inside the block, without warnings about characters that matplotlib's own font lacks."""
    import matplotlib as mpl

    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from (current )?font", category=UserWarning)
        yield


def new_figure(height: float, *, rows: int = 1, columns: int = 1) -> "tuple[Figure, list[Axes]]":
    """Make a figure as wide as a phone.

    Args:
        height: In inches.
        rows: Panels one below the other.
        columns: Panels side by side.

    Returns:
        The figure and its panels, row by row.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def add_legend(axes: "Axes") -> None:
    """Put the legend of a figure's only panel above it, where it covers nothing."""
    handles, labels = axes.get_legend_handles_labels()
    axes.figure.legend(handles, labels, loc="outside upper left", ncols=2)


def label_points(axes: "Axes", points: Sequence[tuple[float, float, str]]) -> None:
    """Write names beside points where they cover the least of other names, points and the edge.

    Args:
        axes: A panel on which everything else is drawn already.
        points: Coordinates and name of each; the first have the first choice.
    """
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

    figure: Figure = axes.get_figure(root=True)  # type: ignore[assignment]
    figure.draw_without_rendering()  # lays the panel out
    frame, pixel = axes.get_window_extent(), figure.dpi / 72
    centres = [axes.transData.transform((x, y)) for x, y, _ in points]
    taken = [Bbox.from_bounds(x - 4 * pixel, y - 4 * pixel, 8 * pixel, 8 * pixel) for x, y in centres]
    for x, y, name in points:
        label = axes.annotate(name, (x, y), (0, 0), textcoords="offset points", va="center", fontsize=9.5)
        label.set_in_layout(False)
        costs = []
        for across, up in _LABEL_PLACES:
            _place(label, across, up)
            box = label.get_window_extent()
            inside = Bbox.intersection(box, frame)
            outside = box.width * box.height - (inside.width * inside.height if inside else 0)
            hidden = [Bbox.intersection(box, other) for other in taken]
            costs.append(10 * outside + sum(one.width * one.height for one in hidden if one is not None))
        _place(label, *_LABEL_PLACES[costs.index(min(costs))])
        taken.append(label.get_window_extent())


def show_percent(axis: "Axis") -> None:
    """Write the ticks of an axis of proportions in per cent."""
    axis.set_major_formatter(lambda share, _: f"{round(100 * share, 6):g} %")


def shorten(name: str, most: int = 24) -> str:
    """Make a foreign name fit for a plot: a long one loses its middle. The table has all of it."""
    line = clean_text(name) or "(no name)"
    tail = (most - 1) // 3
    return line if len(line) <= most else f"{line[: most - 1 - tail]}…{line[-tail:]}"


def render_inline(plot: Plot) -> "Markup":
    """Render a plot as an element of a page.

    Args:
        plot: The plot, with a name that no other plot of the page has.

    Returns:
        An `svg` element without scripts, styles of its own or references out of it; its ids begin with the name.
    """
    from markupsafe import Markup

    name = plot.name
    svg = _draw(plot.figure, "svg").decode("utf-8")
    svg = re.sub(
        r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL
    )
    used = {target for tag in re.findall(r"<[^>]*>", svg) for target in re.findall(r'(?:href="|url\()#([\w.-]+)', tag)}
    svg = re.sub(r"<[^>]*>", lambda match: _adapt(match[0], name, used), svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    head = f'<svg {box[0] if box else ""} role="img" aria-label="{escape(clean_text(plot.label))}">'
    svg = re.sub(r"\s*\n\s*", "\n", head + svg[svg.index(">") + 1 :]).replace("<defs>\n</defs>\n", "").strip()
    return Markup(svg)  # noqa: S704 - matplotlib escapes the texts in it


def save_files(plot: Plot, folder: Path) -> None:
    """Write a plot as SVG and as PNG, on white, under its name.

    Args:
        plot: The plot.
        folder: Where to; it is created if it is missing.
    """
    for form in ("svg", "png"):
        write_atomic(folder / f"{plot.name}.{form}", _draw(plot.figure, form, transparent=False))


def _draw(figure: "Figure", form: str, *, transparent: bool = True) -> bytes:
    buffer = io.BytesIO()
    dots, metadata = (72, {"Date": None}) if form == "svg" else (_DOTS_PER_INCH, {})
    with drawn():
        figure.savefig(buffer, format=form, transparent=transparent, dpi=dots, metadata=metadata)
    return buffer.getvalue()


def _place(label: "Annotation", across: float, up: float) -> None:
    label.set_position((across, up))
    label.set_horizontalalignment("left" if across > 0 else "right")


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
