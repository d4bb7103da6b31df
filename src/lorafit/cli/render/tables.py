"""The console, and tables that fit it."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table

from lorafit.system.text import disarm

_WIDTH_WITHOUT_TERMINAL = 110


class SafeConsole(Console):
    """A console that disarms all it prints, whoever made it: colours and moves are its own alone.

    What is printed with `soft_wrap` is one line.
    """

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(stderr=stderr, width=width, highlight=False, markup=False)

    def print(self, *objects: Any, soft_wrap: bool | None = None, **how: Any) -> None:
        """Print as rich does."""
        if soft_wrap:
            objects = tuple(one.replace("\n", " ") if isinstance(one, str) else one for one in objects)
        super().print(*objects, soft_wrap=soft_wrap, **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield what is written, disarmed."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(disarm(segment.text), segment.style)


def open_console() -> Console:
    """Return a console of the terminal's width, or of a fixed one where there is no terminal."""
    return SafeConsole(width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL)


def has_room(console: Console, table: Table) -> bool:
    """Return whether a table fits without breaking or cutting a cell."""
    return console.measure(table, options=console.options.update(max_width=1000)).maximum <= console.width


def print_fitting(console: Console, build: Callable[[str], Table]) -> None:
    """Print a table in its wide form, or in its narrow one where there is no room for that.

    Args:
        console: Where to.
        build: Builds it from what stands between a value and its interval: a space, or a line break.
    """
    table = build(" ")
    console.print(table if has_room(console, table) else build("\n"))


def fit_columns(console: Console, columns: Mapping[str, Sequence[str]], *, expendable: Sequence[str]) -> Table:
    """Build a table with as many of its columns as there is room for; its caption names those that are left out.

    Args:
        console: Where it will be printed.
        columns: The cells of each column by its title, equally many. Those of the first are flush left and may wrap.
        expendable: Titles of columns that may be left out, in that order.

    Returns:
        The table.
    """
    first, kept, left_out = next(iter(columns)), dict(columns), list[str]()
    words = {first: [max(cell.split(), key=len, default="") for cell in columns[first]]}
    for name in expendable:
        if has_room(console, _draw(kept | words)):
            break
        del kept[name]
        left_out.append(" ".join(name.split()))
    table = _draw(kept)
    if left_out:
        table.caption, table.caption_justify = f"no room for: {', '.join(left_out)}", "left"
    return table


def _draw(columns: Mapping[str, Sequence[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for place, title in enumerate(columns):
        table.add_column(title, justify="right" if place else "left", no_wrap=place > 0)
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*cells)
    return table
