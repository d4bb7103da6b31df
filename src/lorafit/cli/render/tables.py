"""The console, and tables that fit it."""

import sys
from collections.abc import Callable, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

_WIDTH_WITHOUT_TERMINAL = 110


def open_console() -> Console:
    """Return a console of the terminal's width, or of a fixed one where there is no terminal."""
    width = None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL
    return Console(highlight=False, markup=False, width=width)


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
