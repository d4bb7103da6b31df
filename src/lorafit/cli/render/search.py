"""What `lorafit search` prints."""

import shlex
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from lorafit.cli.render.render import open_console
from lorafit.experiments.search.page import rank_trials, write_score, write_value
from lorafit.experiments.search.records import SearchRecord
from lorafit.system.text import format_duration
from lorafit.task_figures import name_figure

if TYPE_CHECKING:
    from lorafit.experiments.search.search import Search

__all__ = ["show_search"]

_MOST_ROWS = 8


def show_search(search: "Search", *, quiet: bool) -> None:
    """Print the best trials, which settings mattered and what to do next; with `quiet` only the file of the winner."""
    console, best = open_console(), search.path / "best.yaml"
    if quiet:
        console.print(str(best), soft_wrap=True)
        return
    record = search.record
    console.print(
        f"Measured on {record.rows['validation']:,} validation rows; test rows choose nothing", style="italic"
    )
    console.print(_table(record))
    _print_notes(console, record)
    console.print(f"page        {search.path / 'search.html'}", soft_wrap=True)
    console.print(f"next        lorafit train --config {shlex.quote(str(best))}", soft_wrap=True)


def _table(record: SearchRecord) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name in (
        "trial",
        "loss",
        name_figure(record.figure),
        *(name.partition(".")[2] for name in record.space),
        "time",
    ):
        table.add_column(name, justify="right")
    complete = [row for row in rank_trials(record.trials) if row.state == "complete" and row.same_as is None]
    for row in complete[:_MOST_ROWS]:
        table.add_row(
            str(row.number + 1),
            f"{row.loss:.4f}",
            write_score(row, record.figure),
            *(write_value(row.values[name]) if name in row.values else "" for name in record.space),
            "" if row.seconds is None else format_duration(row.seconds),
        )
    return table


def _print_notes(console: Console, record: SearchRecord) -> None:
    counts = {state: sum(row.state == state for row in record.trials) for state in ("complete", "pruned", "failed")}
    console.print(f"trials      {', '.join(f'{count} {state}' for state, count in counts.items() if count)}")
    if record.importances:
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in record.importances.items())
        console.print(f"mattered    {shares}", soft_wrap=True)
    for row in record.trials:
        if row.error is not None and row.same_as is None:
            console.print(f"failed      trial {row.number + 1}: {row.error.splitlines()[0]}", soft_wrap=True)
