"""What `lorafit search` prints."""

import shlex
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from lorafit.cli.render.tables import fit_columns, open_console
from lorafit.experiments.search.page import rank_trials, write_score, write_value
from lorafit.experiments.search.records import SearchRecord
from lorafit.system.text import format_duration

if TYPE_CHECKING:
    from lorafit.experiments.search.search import Search


_MOST_ROWS = 8


def show_search(search: "Search", *, quiet: bool) -> None:
    """Print the best trials, which settings mattered and what to do next; with `quiet` only the winner's settings."""
    console, best = open_console(), search.path / "best.yaml"
    if quiet:
        console.print(str(best), soft_wrap=True)
        return
    record = search.record
    rows = f"{record.rows['validation']:,} validation rows"
    console.print(f"Measured on {rows}; the test set is not used for selection", style="italic")
    console.print(build_table(console, record))
    counts = {state: sum(row.state == state for row in record.trials) for state in ("complete", "pruned", "failed")}
    console.print(f"trials      {', '.join(f'{count:,} {state}' for state, count in counts.items() if count)}")
    if record.importances:
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in record.importances.items())
        console.print(f"mattered    {shares}", soft_wrap=True)
    for row in record.trials:
        if row.error is not None and row.same_as is None:
            console.print(f"failed      trial {row.number + 1}: {row.error.splitlines()[0]}", soft_wrap=True)
    console.print(f"page        {search.path / 'search.html'}", soft_wrap=True)
    console.print(f"next        lorafit train --config {shlex.quote(str(best))}", soft_wrap=True)


def build_table(console: Console, record: SearchRecord) -> Table:
    """Build the table of the best trials with as many columns as the console has room for.

    What is left out first is the time, the metric, and then the settings that matter least or, where that was not
    measured, the last ones.
    """
    complete = [row for row in rank_trials(record.trials) if row.state == "complete" and row.same_as is None]
    rows = complete[:_MOST_ROWS]
    titles = {name: name.partition(".")[2].replace("_", "\n") for name in record.space}
    columns = {
        "trial": [str(row.number + 1) for row in rows],
        "loss": [f"{row.loss:.4f}" for row in rows],
        record.metric.title: [write_score(record.metric, row) for row in rows],
        **{
            titles[name]: [write_value(row.values[name]) if name in row.values else "" for row in rows]
            for name in record.space
        },
        "time": ["" if row.seconds is None else format_duration(row.seconds) for row in rows],
    }
    least = sorted(record.space, key=lambda name: record.importances.get(name, 0.0))
    if not record.importances:
        least.reverse()
    return fit_columns(console, columns, expendable=["time", record.metric.title, *(titles[name] for name in least)])
