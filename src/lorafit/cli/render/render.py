"""What the commands print: tables for people, JSON for programs."""

import shlex
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from lorafit.cheap_baselines import CHEAP_BASELINES
from lorafit.cli.render.confidence import describe_confidence
from lorafit.cli.render.predictions import build_sample_table
from lorafit.cli.render.slices import print_slices
from lorafit.cli.render.tables import open_console, print_fitting
from lorafit.cli.render.tasks import VERDICTS, print_task_metrics
from lorafit.data.rows import LENGTH_COLUMN
from lorafit.evidence import Estimate, MetricsRecord, ModelScores, PairedComparison, SliceScores
from lorafit.reports.verdict import judge
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import RunRecord
from lorafit.system.text import format_duration
from lorafit.task_evidence import TaskMetricsRecord
from lorafit.task_figures import describe_chance

if TYPE_CHECKING:
    from lorafit.training.pipeline import Run

__all__ = ["open_console", "show_metrics", "show_run"]

_FEW_ROWS = 100


def show_run(run: "Run", *, quiet: bool) -> None:
    """Print what a run achieved, what it cost and what to do next; with `quiet` only the run folder."""
    console = open_console()
    if quiet:
        console.print(str(run.path), soft_wrap=True)
        return
    _print_evidence(console, run.metrics, with_slices=any(one.column != LENGTH_COLUMN for one in run.metrics.slices))
    console.print()
    console.print("Test rows drawn at random, with what the model says of them", style="italic")
    console.print(build_sample_table(run.record.build_task(), run.samples))
    console.print(_cost_table(run.record))
    console.print()
    for line in _next_steps(run):
        console.print(line, soft_wrap=True)


def show_metrics(metrics: MetricsRecord | TaskMetricsRecord) -> None:
    """Print the scores of an evaluation, those of each slice too."""
    _print_evidence(open_console(), metrics, with_slices=bool(metrics.slices))


def _print_evidence(console: Console, metrics: MetricsRecord | TaskMetricsRecord, *, with_slices: bool) -> None:
    if isinstance(metrics, TaskMetricsRecord):
        print_task_metrics(console, metrics, with_slices=with_slices)
        return
    _print_metrics(console, metrics)
    if with_slices:
        _print_slices(console, metrics)


def _print_metrics(console: Console, metrics: MetricsRecord) -> None:
    level = f"{100 * metrics.confidence_level:g} % interval"
    title = f"Measured on {metrics.rows:,} rows of {metrics.split} ({level} in brackets)"
    console.print(title, style="italic")  # not the table's own title, which would be wrapped to the table's width
    print_fitting(console, lambda separator: _metrics_table(metrics, separator=separator))
    for line in _verdict(metrics):
        console.print(line)
    if metrics.rows < _FEW_ROWS:
        console.print(f"{metrics.rows} rows are few: all of this is uncertain, and the intervals may be too narrow.")
    if metrics.confidence is not None:
        for line in describe_confidence(metrics.confidence):
            console.print(line)


def _metrics_table(metrics: MetricsRecord, *, separator: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    if metrics.baseline is not None:
        table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    if metrics.comparison is not None:
        table.add_column("difference", justify="right")
    for cells in _metric_rows(metrics, separator):
        table.add_row(*cells)
    return table


def _metric_rows(metrics: MetricsRecord, separator: str) -> Iterator[list[str]]:
    models = [_named_estimates(scores) for scores in (metrics.baseline, metrics.finetuned) if scores is not None]
    paired = metrics.comparison
    for name in models[-1]:
        percent = name not in {"log loss", "MCC"}
        cells = [name, *(_interval(model[name], separator, percent=percent) for model in models)]
        if paired is not None:
            changes = {"accuracy": paired.accuracy_difference, "log loss": paired.log_loss_difference}
            change = changes.get(name)
            cells.append("" if change is None else _interval(change, separator, percent=percent, sign=True))
        yield cells


def _named_estimates(scores: ModelScores) -> dict[str, Estimate]:
    estimates = {
        "accuracy": scores.accuracy,
        "F1 (macro)": scores.macro_f1,
        "log loss": scores.log_loss,
        "MCC": scores.mcc,
    }
    for one in scores.per_class:
        estimates[f"precision {one.label}"] = one.precision
        estimates[f"recall {one.label}"] = one.recall
    return estimates


def _interval(estimate: Estimate, separator: str, *, percent: bool, sign: bool = False) -> str:
    form = ("+" if sign else "") + (".1f" if percent else ".3f")
    value, low, high = ((100 if percent else 1) * number for number in (estimate.value, estimate.low, estimate.high))
    return f"{value:{form}}{' %' if percent else ''}{separator}[{low:{form}}, {high:{form}}]"


def _print_slices(console: Console, metrics: MetricsRecord) -> None:
    cells: dict[str, Callable[[SliceScores, str], str]] = {
        "accuracy": lambda one, separator: _interval(one.accuracy, separator, percent=True)
    }
    if any(one.difference is not None for one in metrics.slices):
        cells["difference"] = lambda one, separator: (
            "" if one.difference is None else _interval(one.difference, separator, percent=True, sign=True)
        )
    print_slices(
        console,
        metrics.slices,
        "Accuracy by length of the text and by column",
        cells=cells,
        strength=lambda one: one.accuracy.value,
    )


def _verdict(metrics: MetricsRecord) -> Iterator[str]:
    if metrics.comparison is not None:
        yield _judge(metrics.comparison, "before", metrics)
    for name, cheap in metrics.cheap_baselines.items():
        accuracy = _interval(cheap.scores.accuracy, " ", percent=True)
        yield f"{_judge(cheap.comparison, CHEAP_BASELINES.get(name, name), metrics)} Its accuracy: {accuracy}."


def _judge(paired: PairedComparison, other: str, metrics: MetricsRecord) -> str:
    """Say in a sentence whether the fine-tuned model is better than another."""
    verdict = VERDICTS[judge(paired, metrics.confidence_level)]
    return (
        f"{verdict} {other}: {paired.rows_gained:,} rows put right, {paired.rows_lost:,} made wrong "
        f"(exact McNemar test, {describe_chance(paired.mcnemar_p_value)})."
    )


def _cost_table(record: RunRecord) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(width=11)
    for name, text in _cost(record):
        table.add_row(name, text)
    return table


def _cost(record: RunRecord) -> Iterator[tuple[str, str]]:
    parameters, training = record.parameters, record.training
    trained = parameters.adapter + parameters.head
    yield (
        "trained",
        f"{trained:,} of {parameters.total:,} parameters ({parameters.trainable_share:.2%}): "
        f"adapter {parameters.adapter:,} ({parameters.adapter / parameters.total:.2%}), "
        f"head {parameters.head:,} ({parameters.head / parameters.total:.2%})",
    )
    if training is not None:
        stopped = ", stopped early" if training.stopped_early else ""
        yield (
            "training",
            f"{training.epochs:.1f} epochs, {training.steps:,} steps{stopped}; best after step "
            f"{training.best_step:,} (validation loss {training.best_validation_loss:.3f})",
        )
        threads = record.hardware.threads
        yield (
            "speed",
            f"{training.tokens_per_second:,.0f} tokens/s in {record.hardware.precision} on "
            f"{threads} thread{'' if threads == 1 else 's'}, padding {training.padding_share:.1%}",
        )
    stages = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in record.seconds.items())
    memory, forecast = record.peak_memory_bytes / 1e9, record.forecast
    foreseen = "" if forecast is None else f" (forecast {sum(forecast.seconds.values()):.0f} s)"
    yield "time", f"{sum(record.seconds.values()):.0f} s{foreseen}: {stages}; peak memory {memory:.1f} GB"
    if forecast is not None and forecast.given_up:
        yield "given up", f"{', '.join(forecast.given_up)}, to fit {format_duration(forecast.budget_seconds or 0)}"


def _next_steps(run: "Run") -> Iterator[str]:
    path = shlex.quote(str(run.path))
    yield f"run folder  {run.path}"
    report = RunLayout(run.path).report
    if report.is_file():
        yield f"report      {report}"
    yield f'next        lorafit predict {path} "What a lovely surprise."'
    yield f"            lorafit predict {path} --file reviews.csv --output predictions.csv"
    yield f"            lorafit evaluate {path}"
