"""What `lorafit diff` prints."""

from collections.abc import Iterator, Sequence
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table

from lorafit.cli.render.tables import open_console, print_fitting
from lorafit.experiments.diff.gates import describe_value
from lorafit.experiments.diff.records import DiffRecord
from lorafit.system.text import clean_text
from lorafit.tasks.base import Metric, Task
from lorafit.tasks.evaluation import Verdict, describe_changed_rows, judge
from lorafit.tasks.format import write_estimate
from lorafit.tasks.records import SliceComparison

_VERDICTS: Final[dict[Verdict, str]] = {
    "better": "B is better than A",
    "worse": "B is worse than A",
    "inconclusive": "Neither is shown to be better",
}
_MOST_SLICES: Final = 15
_MOST_LABELS: Final = 20
"""Of more labels, those with the most rows are shown."""

_LONGEST_NAME: Final = 40
_ROOM_FOR_NAMES: Final = 12
"""Characters a line that names get at least."""


def show_diff(record: DiffRecord, console: Console | None = None) -> None:
    """Print what changes from A to B, where, and which gates hold.

    Args:
        record: What was measured.
        console: Where to; None for standard output.
    """
    console, task = console or open_console(), record.build_task()
    level = f"{100 * record.confidence_level:g} % interval"
    console.print(
        f"Measured on {record.rows:,} rows of {record.source} ({level} in brackets)", style="italic", soft_wrap=True
    )
    for name, side in (("A", record.a), ("B", record.b)):
        form = f", exported in {side.exported} for {side.engine}" if side.exported else ""
        console.print(f"{name}  {side.run} ({side.method} on {side.base_model}{form})", soft_wrap=True)
    print_fitting(console, lambda separator: _build_table(record, task, separator))
    labels = len(record.a.scores.per_class)
    if (left := labels - _MOST_LABELS) > 0:
        console.print(f"Of {labels:,} labels the {_MOST_LABELS} with the most rows are shown, {left:,} are not.")
    for line in _describe(record, task):
        console.print(line)
    if record.slices:
        _print_slices(console, record, task)
    for note in record.notes:
        console.print(f"note: {note}", soft_wrap=True)
    for result in record.gates:
        state, style = ("holds", "green") if result.holds else ("BROKEN", "red")
        console.print(f"gate {result.gate}: {state}, {describe_value(result, record)}", style=style, soft_wrap=True)
    if record.gates and all(result.holds for result in record.gates):
        console.print("All gates hold.")


def _build_table(record: DiffRecord, task: Task, separator: str) -> Table:
    table = _open_table("", ("A", "B", "B minus A"))
    for cells in (*_list_metrics(record, task, separator), *_list_labels(record, separator), *_list_costs(record)):
        table.add_row(*cells)
    return table


def _open_table(first: str, others: Sequence[str]) -> Table:
    """Return a table that cuts no number, and breaks names only where there is no room for them."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(first, overflow="fold", min_width=_ROOM_FOR_NAMES)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _list_metrics(record: DiffRecord, task: Task, separator: str) -> Iterator[tuple[str, ...]]:
    sides = (record.a, record.b)
    for metrics, measured, differences in (
        (task.metrics, [side.scores.metrics for side in sides], record.comparison.differences),
        (task.diff_metrics, [side.metrics for side in sides], record.diff_metrics),
    ):
        for name, metric in metrics.items():
            if not any(name in values for values in measured):
                continue  # what only two models together have is a sentence
            cells = (
                "" if name not in values else metric.write(values[name], separator=separator) for values in measured
            )
            difference = differences.get(name)
            yield (
                metric.title,
                *cells,
                "" if difference is None else metric.write_difference(difference, separator=separator),
            )
            if any(name in side.asked for side in sides):
                yield "asked for", *(_write_asked(side.asked.get(name), metric) for side in sides), ""


def _write_asked(asked: float | None, metric: Metric) -> str:
    return "" if asked is None else metric.write_value(asked)


def _list_labels(record: DiffRecord, separator: str) -> Iterator[tuple[str, ...]]:
    """Yield the F1 of labels over all rows, where labels that are given too often show, too; most rows first."""
    pairs = zip(record.a.scores.per_class, record.b.scores.per_class, strict=True)
    for one, other in sorted(pairs, key=lambda pair: -pair[0].support)[:_MOST_LABELS]:
        cells = (write_estimate("percent", scores.f1, separator=separator) for scores in (one, other))
        yield f"F1 {clean_text(one.label, most=_LONGEST_NAME)}", *cells, ""


def _list_costs(record: DiffRecord) -> Iterator[tuple[str, ...]]:
    sides = (record.a, record.b)
    speeds = ("" if side.texts_per_second is None else f"{side.texts_per_second:,.0f}" for side in sides)
    yield "texts/s", *speeds, "" if record.slowdown is None else f"{record.slowdown:.2f} x the time"
    sizes = [side.parameters.adapter + side.parameters.head for side in sides]
    yield "trained", *(f"{size:,}" for size in sizes), f"{sizes[1] - sizes[0]:+,}"


def _describe(record: DiffRecord, task: Task) -> Iterator[str]:
    verdict = _VERDICTS[judge(task, record.comparison, record.confidence_level)]
    yield f"{verdict}: {describe_changed_rows(task, record.comparison)}."
    for name, metric in task.diff_metrics.items():
        measured = record.diff_metrics.get(name)
        if measured is not None and name not in record.a.metrics:
            yield f"{metric.title.capitalize()}: {metric.write(measured)} ({metric.meaning})."


def _print_slices(console: Console, record: DiffRecord, task: Task) -> None:
    print_fitting(console, lambda separator: _build_slices(record, task, separator))
    if any(_has_changed(change, record) for change in record.slices):
        console.print(f"* changed: {task.wording.test}, adjusted for the number of slices (Holm)")
    left = len(record.slices) - _MOST_SLICES
    if left > 0:
        console.print(f"{left:,} more slices, whose p-values are not lower, are in --json.")


def _build_slices(record: DiffRecord, task: Task, separator: str) -> Table:
    titles = ("rows", "A", "B", "B minus A", "fixed", "broken", "p adjusted")
    metric = task.primary_metric
    table = _open_table(metric.title, _stack(titles, separator))
    for change in _choose_slices(record.slices):
        paired = change.comparison
        cells = (
            f"{change.rows:,}",
            *(metric.write_value(values[task.primary]) for values in (change.before, change.after)),
            metric.write_difference(paired.differences[task.primary], separator=separator),
            f"{paired.rows_fixed:,}",
            f"{paired.rows_broken:,}",
            f"{change.adjusted_p_value:.2g}{' *' if _has_changed(change, record) else ''}",
        )
        table.add_row(clean_text(f"{change.column} {change.value}"), *_stack(cells, separator))
    return table


def _has_changed(change: SliceComparison, record: DiffRecord) -> bool:
    return change.adjusted_p_value < 1 - record.confidence_level


def _stack(cells: Sequence[str], separator: str) -> Sequence[str]:
    """Put B below A, and broken rows below fixed ones, where intervals stand below their values."""
    if separator == " ":
        return cells
    rows, first, second, change, fixed, broken, chance = cells
    return rows, f"{first}\n{second}", change, f"{fixed}\n{broken}", chance


def _choose_slices(changes: Sequence[SliceComparison]) -> Sequence[SliceComparison]:
    """Return all slices where there are few, else those with the lowest p-values."""
    if len(changes) <= _MOST_SLICES:
        return changes
    clearest = sorted(range(len(changes)), key=lambda place: changes[place].comparison.p_value)
    return [changes[place] for place in sorted(clearest[:_MOST_SLICES])]
