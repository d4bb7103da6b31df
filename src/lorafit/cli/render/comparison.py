"""What `lorafit compare` prints."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from lorafit.cli.render.tables import fit_columns, open_console
from lorafit.experiments.compare.page import judge_baselines, write_difference
from lorafit.experiments.compare.records import ComparisonRecord, MethodRow
from lorafit.system.text import format_duration
from lorafit.tasks.base import Metric

if TYPE_CHECKING:
    from lorafit.experiments.compare.compare import Comparison


def show_comparison(comparison: "Comparison", *, quiet: bool) -> None:
    """Print the table, what it means and where the runs are; with `quiet` only the folder."""
    console = open_console()
    if quiet:
        console.print(str(comparison.path), soft_wrap=True)
        return
    record = comparison.record
    level = f"{100 * record.confidence_level:g} % interval"
    console.print(f"Measured on {record.rows['test']:,} test rows ({level} in brackets)", style="italic")
    console.print(build_table(console, record))
    if record.best is not None:
        console.print(f"* lowest validation loss; test rows choose nothing. {judge_baselines(record)}")
    for cell in record.failed:
        console.print(f"failed      {cell.method}, seed {cell.seed}: {cell.error}", soft_wrap=True)
    console.print(f"page        {comparison.path / 'comparison.html'}", soft_wrap=True)
    if record.best is not None:
        best = next(row for row in record.methods if row.method == record.best)
        run = comparison.path / "cells" / f"{record.best}-seed{best.seeds[0]}"
        console.print(f'next        lorafit predict {run} "What a lovely surprise."', soft_wrap=True)


def build_table(console: Console, record: ComparisonRecord) -> Table:
    """Build the table of methods and baselines with as many columns as the console has room for."""
    metric, rows, baselines = record.metric, record.methods, record.baselines
    both, empty = [*rows, *baselines], [""] * len(baselines)
    better = "" if metric.higher_is_better else "\n(lower is better)"
    columns = {
        "method": [
            *(f"{row.method}*" if row.method == record.best else row.method for row in rows),
            *map(record.title_of, baselines),
        ],
        f"{metric.title}{better}": [
            *(metric.write(row.score, separator="\n") + _write_spread(metric, row) for row in rows),
            *(metric.write(row.score, separator="\n") for row in baselines),
        ],
        f"{metric.difference_title}\nagainst the best": [write_difference(metric, row, separator="\n") for row in both],
        "trained": [*(f"{row.parameters.adapter + row.parameters.head:,}" for row in rows), *empty],
        "on disk": [*(f"{row.bytes_on_disk / 1e6:.1f} MB" for row in rows), *empty],
        "training": [
            *(format_duration(row.training_seconds) for row in rows),
            *(format_duration(row.seconds) for row in baselines),
        ],
        "an epoch": [*(format_duration(row.epoch_seconds) for row in rows), *empty],
        "memory": [*(f"{row.peak_memory_bytes / 1e9:.1f} GB" for row in rows), *empty],
        "texts/s": [*(f"{row.texts_per_second:,.0f}" for row in rows), *empty],
    }
    return fit_columns(console, columns, expendable=["memory", "an epoch", "on disk", "trained"])


def _write_spread(metric: Metric, row: MethodRow) -> str:
    """Write the lowest and the highest score of several seeds."""
    if len(row.seeds) == 1:
        return ""
    least, most = (metric.write_value(end(row.score_by_seed)) for end in (min, max))
    return f"\n{least} to {most}"
