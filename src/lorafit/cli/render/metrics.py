"""The metrics of a model before and after training, as `lorafit train` and `lorafit evaluate` print them."""

import math
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table

from lorafit.cli.render.tables import print_fitting
from lorafit.reports.verdict import (
    describe_balancing,
    describe_exchangeability,
    describe_unpredicted,
    describe_verdict,
)
from lorafit.system.text import clean_text
from lorafit.tasks.base import Task
from lorafit.tasks.evaluation import describe_changed_rows, describe_few
from lorafit.tasks.format import write_estimate
from lorafit.tasks.records import ClassScores, Estimate, MetricsRecord, SliceScores

_SHOWN_LABELS: Final = 20
"""Of more labels, those with the most rows are shown."""

_SHOWN_VALUES: Final = 12
"""Of a column with more values, the weakest are shown."""

_LONGEST_NAME: Final = 40

_ROOM_FOR_NAMES: Final = 30
"""Characters a line for the names, sizes and gaps of slices; where metrics leave less, intervals stand below them."""


def print_metrics(
    console: Console, task: Task, metrics: MetricsRecord, *, with_slices: bool, balancing: Sequence[str]
) -> None:
    """Print metrics before and after training, the verdict, and how far calibrated predictions hold.

    Args:
        console: Where to.
        task: The task.
        metrics: Its metrics.
        with_slices: Whether to print those of slices, too.
        balancing: The settings by which some training rows counted more.
    """
    rows = f"{metrics.rows:,} row{'' if metrics.rows == 1 else 's'}"
    level = f"{100 * metrics.confidence_level:g} % intervals in brackets"
    # Not the table's own title, which would be wrapped to the table's width.
    console.print(f"Measured on {rows} of {clean_text(metrics.split)} ({level})", style="italic")
    print_fitting(console, lambda separator: _build_table(task, metrics, separator))
    labels = len(metrics.after.per_class)
    if (left := labels - _SHOWN_LABELS) > 0:
        console.print(f"Of {labels:,} labels the {_SHOWN_LABELS} with the most rows are shown, {left:,} are not.")
    for sentence in _describe(task, metrics, balancing):
        for line in _wrap(clean_text(sentence), console.width).splitlines():
            console.print(line, soft_wrap=True)
    if (few := describe_few(metrics.rows, metrics.groups)) is not None:
        console.print(f"{few}: the intervals are wide.")
    if with_slices and metrics.slices:
        _print_slices(console, task, metrics.slices)


def _build_table(task: Task, metrics: MetricsRecord, separator: str) -> Table:
    models = {"before": metrics.before, "after": metrics.after}
    measured = {name: scores for name, scores in models.items() if scores is not None}
    differences = None if metrics.comparison is None else metrics.comparison.differences
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("", overflow="fold")
    for name in (*measured, *([] if differences is None else ["difference"])):
        table.add_column(name, justify="right", no_wrap=True)
    for name, metric in task.metrics.items():
        cells = [metric.write(scores.metrics[name], separator=separator) for scores in measured.values()]
        if differences is not None:
            cells.append(metric.write_difference(differences[name], separator=separator))
        table.add_row(metric.title, *cells)
    for place in _choose_labels(metrics.after.per_class):
        found = [scores.per_class[place] for scores in measured.values()]
        label = clean_text(found[-1].label, most=_LONGEST_NAME)
        for title, part in _PARTS.items():
            table.add_row(
                f"{title} {label}", *(write_estimate("percent", part(one), separator=separator) for one in found)
            )
    return table


_PARTS: Final[dict[str, Callable[[ClassScores], Estimate]]] = {
    "precision": lambda scores: scores.precision,
    "recall": lambda scores: scores.recall,
}
"""What is shown of each label."""


def _choose_labels(per_class: Sequence[ClassScores]) -> Sequence[int]:
    places = range(len(per_class))
    if len(per_class) <= _SHOWN_LABELS:
        return places
    return sorted(places, key=lambda place: -per_class[place].support)[:_SHOWN_LABELS]


def _describe(task: Task, metrics: MetricsRecord, balancing: Sequence[str]) -> Iterator[str]:
    """Yield the verdict, what was not learned, what both rest on, and how far calibrated predictions hold."""
    if metrics.comparison is not None or metrics.baselines:
        yield describe_verdict(task, metrics)
    yield from filter(None, [describe_unpredicted(task, metrics, balancing)])
    if metrics.comparison is not None:
        yield f"Compared with before: {describe_changed_rows(task, metrics.comparison)}."
    for name, baseline in metrics.baselines.items():
        written = task.primary_metric.write(baseline.scores.metrics[task.primary])
        title = f"{task.title_model(name)} ({task.primary_metric.title} {written})"
        yield f"Compared with {title}: {describe_changed_rows(task, baseline.comparison)}."
    if metrics.calibration is not None:
        yield from task.describe_calibration(metrics.calibration)
    yield from filter(None, [describe_exchangeability(metrics), describe_balancing(balancing)])


def _wrap(sentence: str, width: int) -> str:
    """Break a sentence into lines without tearing an interval apart."""
    whole = re.sub(r"\[[^]]*]", lambda interval: interval[0].replace(" ", "\0"), sentence)
    return textwrap.fill(whole, width, break_long_words=False, break_on_hyphens=False).replace("\0", " ")


def _print_slices(console: Console, task: Task, slices: Sequence[SliceScores]) -> None:
    """Print a line a slice; of a column with many values the weakest."""
    console.print()
    title = task.primary_metric.title
    console.print(f"{title[0].upper()}{title[1:]} by length of the text and by column", style="italic")
    shown = list(_choose_slices(console, task, slices))
    lines = [_write_slice(task, one, " ") for one in shown]
    widths = (max(map(len, cells)) for cells in zip(*lines, strict=True))
    separator = " " if sum(widths) <= console.width - _ROOM_FOR_NAMES else "\n"
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("", overflow="fold")
    for name in ("rows", title, "difference")[: 1 + len(lines[0])]:
        table.add_column(name, justify="right", no_wrap=True)
    for one in shown:
        table.add_row(clean_text(f"{one.column} {one.value}"), f"{one.rows:,}", *_write_slice(task, one, separator))
    console.print(table)


def _write_slice(task: Task, one: SliceScores, separator: str) -> list[str]:
    cells = [task.primary_metric.write(one.metrics[task.primary], separator=separator)]
    if one.differences:
        cells.append(task.primary_metric.write_difference(one.differences[task.primary], separator=separator))
    return cells


def _choose_slices(console: Console, task: Task, slices: Sequence[SliceScores]) -> Iterator[SliceScores]:
    """Yield what is shown, and say what is not."""
    for column, group in groupby(slices, key=lambda one: one.column):
        values = list(group)
        if (left := len(values) - _SHOWN_VALUES) > 0:
            values = sorted(values, key=lambda one: _measure_strength(task, one))[:_SHOWN_VALUES]
            console.print(f"Of {clean_text(column)} the {_SHOWN_VALUES} weakest values are shown, {left} are not.")
        yield from values


def _measure_strength(task: Task, one: SliceScores) -> float:
    """Return what orders slices, the weakest first, and last where the primary metric is undefined."""
    value = one.metrics[task.primary].value
    if math.isnan(value):
        return math.inf
    return value if task.primary_metric.higher_is_better else -value
