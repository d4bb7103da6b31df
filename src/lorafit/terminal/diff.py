"""What `lorafit diff` prints."""

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from lorafit.difference.gates import describe_value
from lorafit.difference.records import (
    ComparedModel,
    Difference,
    DiffRecord,
    GateResult,
    SliceChange,
    TaskDiffRecord,
    TaskSliceChange,
)
from lorafit.html_page import write_number, write_percent, write_points
from lorafit.labels import Task
from lorafit.task_figures import (
    LEADING,
    describe_chance,
    describe_rows,
    judge_task,
    name_figure,
    write_difference,
    write_figure,
    write_figure_value,
    write_value,
)
from lorafit.terminal.render import open_console

__all__ = ["show_diff"]

_MOST_SLICES = 15
_VERDICTS = {"better": "B is better than A", "worse": "B is worse than A", "unclear": "Neither is shown to be better"}
_COUNTS: dict[Task, tuple[str, str]] = {
    "single_label": ("put right", "made wrong"),
    "multi_label": ("fewer wrong", "more wrong"),
    "regression": ("nearer", "farther"),
}
"""What rows gained and lost are called, by task."""


def show_diff(record: DiffRecord | TaskDiffRecord, console: Console | None = None) -> None:
    """Print what changes from A to B, where, and which gates hold.

    Args:
        record: What was measured.
        console: Where to; None for standard output.
    """
    console = console or open_console()
    level = f"{100 * record.confidence_level:g} % interval"
    console.print(
        f"Measured on {record.rows:,} rows of {record.source} ({level} in brackets)", style="italic", soft_wrap=True
    )
    for name, side in (("A", record.a), ("B", record.b)):
        form = f", exported in {side.exported}" if side.exported else ""
        console.print(f"{name}  {side.run} ({side.method} on {side.base_model}{form})", soft_wrap=True)
    if isinstance(record, TaskDiffRecord):
        scores, sentences = _list_task_scores(record), _describe_task(record)
    else:
        scores, sentences = _list_scores(record), _describe(record)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for name in ("A", "B", "B minus A"):
        table.add_column(name, justify="right")
    for cells in (*scores, *_list_costs(record)):
        table.add_row(*cells)
    console.print(table)
    for line in sentences:
        console.print(line)
    if record.slices:
        _print_slices(console, record)
    for note in record.notes:
        console.print(f"note: {note}", soft_wrap=True)
    _print_gates(console, record.gates)


def _list_scores(record: DiffRecord) -> Iterator[tuple[str, ...]]:
    a, b, paired = record.a.scores, record.b.scores, record.comparison
    yield "accuracy", *map(write_percent, (a.accuracy, b.accuracy)), write_points(paired.accuracy_difference)
    yield "F1 (macro)", *map(write_percent, (a.macro_f1, b.macro_f1)), write_points(record.macro_f1_difference)
    yield "MCC", *map(write_number, (a.mcc, b.mcc)), write_number(record.mcc_difference, sign=True)
    yield "log loss", *map(write_number, (a.log_loss, b.log_loss)), write_number(paired.log_loss_difference, sign=True)
    yield "ECE", *map(write_number, (record.a.ece, record.b.ece)), f"{record.ece_difference:+.3f}"


def _list_task_scores(record: TaskDiffRecord) -> Iterator[tuple[str, ...]]:
    sides = (record.a, record.b)
    for name, difference in record.comparison.differences.items():
        said = (write_figure(name, side.scores.figures[name]) for side in sides)
        yield name_figure(name), *said, write_difference(name, difference)
    if record.task == "multi_label":
        told = ("" if side.ece is None else write_number(side.ece) for side in sides)
        yield "ECE", *told, "" if record.ece_difference is None else f"{record.ece_difference:+.3f}"
        return
    if record.a.half_width is None and record.b.half_width is None:
        return
    held = ("" if side.coverage is None else write_percent(side.coverage) for side in sides)
    change = record.coverage_difference
    yield "coverage", *held, "" if change is None else write_points(change)
    widths = ("" if side.half_width is None else f"±{write_value(side.half_width)}" for side in sides)
    wider = record.half_width_difference
    yield "intervals", *widths, "" if wider is None else write_value(wider, sign=True)


def _list_costs(record: Difference) -> Iterator[tuple[str, ...]]:
    slowdown = "" if record.slowdown is None else f"{record.slowdown:.2f} x the time"
    yield "texts/s", *map(_write_speed, (record.a, record.b)), slowdown
    sizes = [side.parameters.adapter + side.parameters.head for side in (record.a, record.b)]
    yield "trained", *(f"{size:,}" for size in sizes), f"{sizes[1] - sizes[0]:+,}"


def _describe(record: DiffRecord) -> Iterator[str]:
    paired, verdict = record.comparison, "unclear"
    if paired.mcnemar_p_value < 1 - record.confidence_level:
        is_better, is_worse = paired.accuracy_difference.low > 0, paired.accuracy_difference.high < 0
        verdict = "better" if is_better else "worse" if is_worse else "unclear"
    yield (
        f"{_VERDICTS[verdict]}: {paired.rows_gained:,} rows put right by B, {paired.rows_lost:,} made wrong "
        f"(exact McNemar test, {describe_chance(paired.mcnemar_p_value)})."
    )
    yield f"Of all rows, B makes wrong {write_percent(record.negative_flips)} (negative flips)"
    yield f"and gives another label to {write_percent(record.churn)} (churn)."


def _describe_task(record: TaskDiffRecord) -> Iterator[str]:
    paired = record.comparison
    verdict = _VERDICTS[judge_task(paired, record.task, record.confidence_level)]
    yield f"{verdict}: {describe_rows(paired, record.task)}."
    if record.negative_flips is not None and record.churn is not None:
        yield f"Of all rows, B no longer gives exactly their labels to {write_percent(record.negative_flips)}"
        yield f"(negative flips) and gives other labels to {write_percent(record.churn)} (churn)."


def _print_slices(console: Console, record: DiffRecord | TaskDiffRecord) -> None:
    leading = LEADING[record.task]
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("" if leading == "accuracy" else name_figure(leading), overflow="fold")
    for name in ("rows", "A", "B", "B minus A", *_COUNTS[record.task], "p adjusted"):
        table.add_column(name, justify="right", no_wrap=True)
    for change in _choose_slices(record.slices):
        mark = " *" if change.adjusted_p_value < 1 - record.confidence_level else ""
        table.add_row(
            _printable(f"{change.column} {change.value}"),
            f"{change.rows:,}",
            *_write_change(change, leading),
            f"{change.comparison.rows_gained:,}",
            f"{change.comparison.rows_lost:,}",
            f"{change.adjusted_p_value:.2g}{mark}",
        )
    console.print(table)
    if any(change.adjusted_p_value < 1 - record.confidence_level for change in record.slices):
        test = "McNemar's p-value" if leading == "accuracy" else "the sign test's p-value"
        console.print(f"* changed: {test}, raised for the number of slices (Holm)")
    left = len(record.slices) - _MOST_SLICES
    if left > 0:
        console.print(f"{left:,} more slices, whose p-values are not lower, are in --json.")


def _choose_slices(changes: Sequence[SliceChange | TaskSliceChange]) -> Sequence[SliceChange | TaskSliceChange]:
    """Return all slices where there are few, else those that speak most clearly of a change."""
    if len(changes) <= _MOST_SLICES:
        return changes
    clearest = sorted(range(len(changes)), key=lambda place: changes[place].p_value)
    return [changes[place] for place in sorted(clearest[:_MOST_SLICES])]


def _write_change(change: SliceChange | TaskSliceChange, leading: str) -> tuple[str, str, str]:
    """Write the leading figure of A and of B, and its difference."""
    if isinstance(change, SliceChange):
        values, difference = change.accuracy, change.comparison.accuracy_difference
    else:
        values, difference = change.leading, change.comparison.differences[leading]
    first, second = (write_figure_value(leading, value) for value in values)
    return first, second, write_difference(leading, difference)


def _print_gates(console: Console, gates: Sequence[GateResult]) -> None:
    for result in gates:
        state = "holds" if result.holds else "BROKEN"
        console.print(
            f"gate {result.gate}: {state}, {describe_value(result)}",
            style="green" if result.holds else "red",
            soft_wrap=True,
        )
    if gates and all(result.holds for result in gates):
        console.print("All gates hold.")


def _write_speed(side: ComparedModel) -> str:
    return "" if side.texts_per_second is None else f"{side.texts_per_second:,.0f}"


def _printable(text: str) -> str:
    """Show control characters, which could steer the terminal, as a replacement sign."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
