"""What `lorafit compare` prints."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from lorafit.cheap_baselines import cheap_baselines_for
from lorafit.comparison.page import judge_cheap_baselines
from lorafit.comparison.records import ComparisonRecord, MethodRow
from lorafit.durations import format_duration
from lorafit.task_figures import name_figure, write_difference, write_figure, write_figure_value
from lorafit.terminal.render import open_console

if TYPE_CHECKING:
    from lorafit.comparison.compare import Comparison

__all__ = ["show_comparison"]


def show_comparison(comparison: "Comparison", *, quiet: bool) -> None:
    """Print the table, what it means and where the runs lie; with `quiet` only the folder."""
    console = open_console()
    if quiet:
        console.print(str(comparison.path), soft_wrap=True)
        return
    record = comparison.record
    level = f"{100 * record.confidence_level:g} % interval"
    console.print(f"Measured on {record.rows['test']:,} test rows ({level} in brackets)", style="italic")
    console.print(_table(record))
    _print_notes(console, record)
    console.print(f"page        {comparison.path / 'comparison.html'}", soft_wrap=True)
    if record.best is not None:
        cell = next(row for row in record.methods if row.method == record.best)
        run = comparison.path / "cells" / f"{record.best}-seed{cell.seeds[0]}"
        console.print(f'next        lorafit predict {run} "What a lovely surprise."', soft_wrap=True)


def _table(record: ComparisonRecord) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("method")
    for name in (
        name_figure(record.figure),
        "against the best",
        "trained",
        "on disk",
        "training",
        "an epoch",
        "memory",
        "texts/s",
    ):
        table.add_column(name, justify="right")
    for row in record.methods:
        table.add_row(*_cells(row, record))
    for cheap in record.cheap_baselines:
        difference = "" if cheap.difference is None else write_difference(record.figure, cheap.difference)
        title = cheap_baselines_for(record.task).get(cheap.name, cheap.name)
        table.add_row(
            title, write_figure(record.figure, cheap.score), difference, "", "", format_duration(cheap.seconds)
        )
    return table


def _cells(row: MethodRow, record: ComparisonRecord) -> Iterator[str]:
    yield row.method + (" *" if row.method == record.best else "")
    spread = ""
    if len(row.seeds) > 1:
        ends = (write_figure_value(record.figure, end(row.score_by_seed)) for end in (min, max))
        spread = f"\n{' to '.join(ends)}"
    yield write_figure(record.figure, row.score) + spread
    yield "" if row.difference is None else write_difference(record.figure, row.difference)
    yield f"{row.parameters.adapter + row.parameters.head:,}"
    yield f"{row.bytes_on_disk / 1e6:.1f} MB"
    yield format_duration(row.training_seconds)
    yield format_duration(row.epoch_seconds)
    yield f"{row.peak_memory_bytes / 1e9:.1f} GB"
    yield f"{row.texts_per_second:,.0f}"


def _print_notes(console: Console, record: ComparisonRecord) -> None:
    if record.best is not None:
        console.print(f"* lowest validation loss; test rows choose nothing. {judge_cheap_baselines(record)}")
    for cell in record.failed:
        console.print(f"failed: {cell.method}, seed {cell.seed}: {cell.error}", soft_wrap=True)
