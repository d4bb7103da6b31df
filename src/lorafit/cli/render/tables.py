"""Tables that fit the terminal."""

from collections.abc import Callable

from rich.console import Console
from rich.table import Table

__all__ = ["has_room", "print_fitting"]


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
