"""What `lorafit train` prints of a finished run: metrics, sample predictions, cost and next steps."""

import shlex
from collections.abc import Iterator
from textwrap import wrap
from typing import TYPE_CHECKING

from rich.table import Table

from lorafit.cli.render.metrics import print_metrics
from lorafit.cli.render.predictions import build_sample_table
from lorafit.cli.render.tables import open_console
from lorafit.reports.verdict import describe_blend, describe_embedding
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import RunRecord
from lorafit.system.text import format_duration
from lorafit.tasks.evaluation import LENGTH_COLUMN

if TYPE_CHECKING:
    from lorafit.training.pipeline import Run


def show_run(run: "Run", *, quiet: bool) -> None:
    """Print what a run achieved, what it cost and what to do next; with `quiet` only the run folder."""
    console, task = open_console(), run.record.build_task()
    if quiet:
        console.print(str(run.path), soft_wrap=True)
        return
    with_slices = any(one.column != LENGTH_COLUMN for one in run.metrics.slices)
    print_metrics(console, task, run.metrics, with_slices=with_slices, balancing=run.record.balancing)
    for sentence in (describe_blend(task, run.record.blend), describe_embedding(run.record.embedding)):
        for line in wrap(sentence, console.width):
            console.print(line, soft_wrap=True)
    console.print()
    console.print("Test rows drawn at random, with their predictions", style="italic")
    console.print(build_sample_table(task, run.samples))
    table = Table.grid(padding=(0, 1))
    table.add_column(width=11)
    for name, text in _describe_cost(run.record):
        table.add_row(name, text)
    console.print(table)
    console.print()
    for line in _list_next_steps(run):
        console.print(line, soft_wrap=True)


def _describe_cost(record: RunRecord) -> Iterator[tuple[str, str]]:
    parameters, training = record.parameters, record.training
    trained = parameters.adapter + parameters.head
    yield (
        "trained",
        f"{trained:,} of {parameters.total:,} parameters ({parameters.trainable_share:.2%}): "
        f"adapter {parameters.adapter:,} ({parameters.adapter / parameters.total:.2%}), "
        f"head {parameters.head:,} ({parameters.head / parameters.total:.2%})",
    )
    if record.choice is not None:
        yield "method", record.choice.describe()
    if training is not None:
        yield "training", f"{training.describe_steps()}; kept: {training.describe_checkpoint()}"
        threads = record.hardware.threads
        yield (
            "speed",
            f"{training.tokens_per_second:,.0f} tokens/s in {record.hardware.precision} on "
            f"{threads} thread{'' if threads == 1 else 's'}, padding {training.padding_share:.1%}"
            f"{training.describe_processes()}",
        )
    stages = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in record.seconds.items())
    memory, forecast = record.peak_memory_bytes / 1e9, record.forecast
    foreseen = "" if forecast is None else f" (forecast {sum(forecast.seconds.values()):.0f} s)"
    yield "time", f"{sum(record.seconds.values()):.0f} s{foreseen}: {stages}; peak memory {memory:.1f} GB"
    if forecast is not None and forecast.given_up:
        budget = format_duration(forecast.budget_seconds or 0)
        yield "given up", f"{', '.join(forecast.given_up)}, to fit the budget of {budget}"


def _list_next_steps(run: "Run") -> Iterator[str]:
    path, report = shlex.quote(str(run.path)), RunLayout(run.path).report
    yield f"run folder  {run.path}"
    yield f"report      {report}" if report.is_file() else f"report      none yet; to write it: lorafit report {path}"
    example = '"What a lovely surprise." "I knew it."' if run.record.pair else '"What a lovely surprise."'
    yield f"next        lorafit predict {path} {example}"
    yield f"            lorafit predict {path} --file reviews.csv --output predictions.csv"
    yield f"            lorafit evaluate {path}"
