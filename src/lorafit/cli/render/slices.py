"""What is printed of results by length of the text and by column."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby

from rich import box
from rich.console import Console
from rich.table import Table

from lorafit.evidence import AnySlice
from lorafit.system.text import clean_text

__all__ = ["print_slices"]

_SHOWN_VALUES = 12
"""A column with more values than this has the weakest of them shown."""

_ROOM_FOR_NAMES = 30
"""Signs a line that names, numbers of rows and gaps get; where figures leave less, their intervals stand below them."""


def print_slices(
    console: Console,
    slices: Sequence[AnySlice],
    title: str,
    *,
    cells: Mapping[str, Callable[[AnySlice, str], str]],
    strength: Callable[[AnySlice], float],
) -> None:
    """Print a line a slice; of a column with many values the weakest.

    Args:
        console: Where to.
        slices: The slices, those of a column one after the other.
        title: What is printed.
        cells: What writes the figures of a slice, with what stands between value and interval, by the columns' titles.
        strength: What orders the values where some are left out; less is weaker.
    """
    console.print()
    console.print(title, style="italic")
    shown = list(_choose(console, slices, strength))
    widths = (max((len(cell(one, " ")) for one in shown), default=0) for cell in cells.values())
    separator = " " if sum(widths) <= console.width - _ROOM_FOR_NAMES else "\n"
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("", overflow="fold")
    for name in ("rows", *cells):
        table.add_column(name, justify="right", no_wrap=True)
    for one in shown:
        figures = (cell(one, separator) for cell in cells.values())
        table.add_row(clean_text(f"{one.column} {one.value}"), f"{one.rows:,}", *figures)
    console.print(table)


def _choose(console: Console, slices: Sequence[AnySlice], strength: Callable[[AnySlice], float]) -> Iterator[AnySlice]:
    """Yield what is shown, and say what is not."""
    for column, group in groupby(slices, key=lambda one: one.column):
        values = list(group)
        if (left := len(values) - _SHOWN_VALUES) > 0:
            values = sorted(values, key=strength)[:_SHOWN_VALUES]
            console.print(f"Of {clean_text(column)} the {_SHOWN_VALUES} weakest values are shown, {left} are not.")
        yield from values
