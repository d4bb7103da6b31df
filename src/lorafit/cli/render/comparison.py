"""What `lorafit compare` prints."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from lorafit.cheap_baselines import cheap_baselines_for
from lorafit.cli.render.render import open_console
from lorafit.cli.render.tables import has_room
from lorafit.experiments.compare.page import judge_cheap_baselines
from lorafit.experiments.compare.records import ComparisonRecord, MethodRow
from lorafit.system.text import format_duration
from lorafit.task_figures import FIGURES, name_figure, write_difference, write_figure, write_figure_value

if TYPE_CHECKING:
    from lorafit.experiments.compare.compare import Comparison

__all__ = ["show_comparison"]

_LEFT_OUT_FIRST = ("memory", "an epoch", "on disk", "trained")
"""Columns that a narrow terminal does without; the page has them."""


def show_comparison(comparison: "Comparison", *, quiet: bool) -> None:
    """Print the table, what it means and where the runs lie; with `quiet` only the folder."""
    console = open_console()
    if quiet:
        console.print(str(comparison.path), soft_wrap=True)
        return
    record = comparison.record
    level = f"{100 * record.confidence_level:g} % interval"
    console.print(f"Measured on {record.rows['test']:,} test rows ({level} in brackets)", style="italic")
    console.print(_build_table(console, record))
    _print_notes(console, record)
    console.print(f"page        {comparison.path / 'comparison.html'}", soft_wrap=True)
    if record.best is not None:
        cell = next(row for row in record.methods if row.method == record.best)
        run = comparison.path / "cells" / f"{record.best}-seed{cell.seeds[0]}"
        console.print(f'next        lorafit predict {run} "What a lovely surprise."', soft_wrap=True)


def _build_table(console: Console, record: ComparisonRecord) -> Table:
    """Build the table with as many columns as the console has room for."""
    columns = _list_columns(record)
    table = _draw(columns)
    for name in _LEFT_OUT_FIRST:
        if has_room(console, table):
            break
        del columns[name]
        table = _draw(columns)
    return table


def _draw(columns: Mapping[str, Sequence[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name in columns:
        table.add_column(name, justify="left" if name == "method" else "right", no_wrap=name != "method")
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*cells)
    return table


def _list_columns(record: ComparisonRecord) -> dict[str, list[str]]:
    """Return the cells of each column: of the methods, then of the cheap baselines, which have few."""
    figure, rows, cheap = record.figure, record.methods, record.cheap_baselines
    titles, empty = cheap_baselines_for(record.task), [""] * len(cheap)
    better = "" if FIGURES[figure].is_higher_better else "\n(lower is better)"
    return {
        "method": [
            *(row.method + (" *" if row.method == record.best else "") for row in rows),
            *(titles.get(row.name, row.name) for row in cheap),
        ],
        f"{name_figure(figure)}{better}": [
            *(write_figure(figure, row.score, separator="\n") + _write_spread(row, figure) for row in rows),
            *(write_figure(figure, row.score, separator="\n") for row in cheap),
        ],
        "against the best": [
            "" if difference is None else write_difference(figure, difference, separator="\n")
            for difference in (*(row.difference for row in rows), *(row.difference for row in cheap))
        ],
        "trained": [*(f"{row.parameters.adapter + row.parameters.head:,}" for row in rows), *empty],
        "on disk": [*(f"{row.bytes_on_disk / 1e6:.1f} MB" for row in rows), *empty],
        "training": [
            *(format_duration(row.training_seconds) for row in rows),
            *(format_duration(row.seconds) for row in cheap),
        ],
        "an epoch": [*(format_duration(row.epoch_seconds) for row in rows), *empty],
        "memory": [*(f"{row.peak_memory_bytes / 1e9:.1f} GB" for row in rows), *empty],
        "texts/s": [*(f"{row.texts_per_second:,.0f}" for row in rows), *empty],
    }


def _write_spread(row: MethodRow, figure: str) -> str:
    if len(row.seeds) == 1:
        return ""
    least, most = (write_figure_value(figure, end(row.score_by_seed)) for end in (min, max))
    return f"\n{least} to {most}"


def _print_notes(console: Console, record: ComparisonRecord) -> None:
    if record.best is not None:
        console.print(f"* lowest validation loss; test rows choose nothing. {judge_cheap_baselines(record)}")
    for cell in record.failed:
        console.print(f"failed: {cell.method}, seed {cell.seed}: {cell.error}", soft_wrap=True)
