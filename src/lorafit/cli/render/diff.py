"""What `lorafit diff` prints."""

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from lorafit.cli.render.render import open_console
from lorafit.cli.render.tables import print_fitting
from lorafit.experiments.diff.gates import describe_value
from lorafit.experiments.diff.records import (
    ComparedModel,
    Difference,
    DiffRecord,
    GateResult,
    SliceChange,
    TaskDiffRecord,
    TaskSliceChange,
)
from lorafit.reports.html import write_percent
from lorafit.reports.verdict import judge
from lorafit.system.text import clean_text
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

__all__ = ["show_diff"]

_MOST_SLICES = 15
_VERDICTS = {"better": "B is better than A", "worse": "B is worse than A", "unclear": "Neither is shown to be better"}
_MOST_LABELS = 20
"""Of more labels, those with the most rows are shown."""

_LONGEST_NAME = 40
_ROOM_FOR_NAMES = 12
"""Signs a line that names get at least."""


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
        sentences, labels = _describe_task(record), len(record.a.scores.per_class)
    else:
        sentences, labels = _describe(record), 0
    print_fitting(console, lambda separator: _build_table(record, separator))
    if (left := labels - _MOST_LABELS) > 0:
        console.print(f"Of {labels:,} labels the {_MOST_LABELS} with the most rows are shown, {left:,} are not.")
    for line in sentences:
        console.print(line)
    if record.slices:
        _print_slices(console, record)
    for note in record.notes:
        console.print(f"note: {note}", soft_wrap=True)
    _print_gates(console, record.gates)


def _open_table(first: str, others: Sequence[str]) -> Table:
    """Return a table that cuts no number, and breaks names only where there is no room for them."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(first, overflow="fold", min_width=_ROOM_FOR_NAMES)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _build_table(record: DiffRecord | TaskDiffRecord, separator: str) -> Table:
    table = _open_table("", ("A", "B", "B minus A"))
    if isinstance(record, TaskDiffRecord):
        scores = _list_task_scores(record, separator)
    else:
        scores = _list_scores(record, separator)
    for cells in (*scores, *_list_costs(record)):
        table.add_row(*cells)
    return table


def _list_scores(record: DiffRecord, separator: str) -> Iterator[tuple[str, ...]]:
    paired = record.comparison
    differences = {
        "accuracy": paired.accuracy_difference,
        "macro_f1": record.macro_f1_difference,
        "mcc": record.mcc_difference,
        "log_loss": paired.log_loss_difference,
    }
    for name, difference in differences.items():
        said = (write_figure(name, getattr(side.scores, name), separator=separator) for side in (record.a, record.b))
        title = "MCC" if name == "mcc" else name_figure(name)
        yield title, *said, write_difference(name, difference, separator=separator)
    yield _list_errors(record, separator)


def _list_errors(record: DiffRecord | TaskDiffRecord, separator: str) -> tuple[str, ...]:
    """Return the line of the expected calibration error."""
    errors = (record.a.ece, record.b.ece)
    told = ("" if error is None else write_figure("ece", error, separator=separator) for error in errors)
    return "ECE", *told, "" if record.ece_difference is None else f"{record.ece_difference:+.3f}"


def _list_task_scores(record: TaskDiffRecord, separator: str) -> Iterator[tuple[str, ...]]:
    sides = (record.a, record.b)
    for name, difference in record.comparison.differences.items():
        said = (write_figure(name, side.scores.figures[name], separator=separator) for side in sides)
        yield name_figure(name), *said, write_difference(name, difference, separator=separator)
    if record.task == "multi_label":
        yield _list_errors(record, separator)
        yield from _list_labels(record, separator)
    elif any(side.coverage is not None for side in sides):
        yield from _list_intervals(record, separator)


def _list_labels(record: TaskDiffRecord, separator: str) -> Iterator[tuple[str, ...]]:
    """Yield the F1 of labels over all texts, where labels that are given too often show, too; most rows first."""
    others = {one.label: one for one in record.b.scores.per_class}
    for one in sorted(record.a.scores.per_class, key=lambda one: -one.support)[:_MOST_LABELS]:
        told = (write_figure("micro_f1", scores.f1, separator=separator) for scores in (one, others[one.label]))
        yield f"F1 {clean_text(one.label, most=_LONGEST_NAME)}", *told, ""


def _list_intervals(record: TaskDiffRecord, separator: str) -> Iterator[tuple[str, ...]]:
    sides, share = (record.a, record.b), "accuracy"  # a share of rows, too
    held = ("" if side.coverage is None else write_figure(share, side.coverage, separator=separator) for side in sides)
    change = record.coverage_difference
    yield "coverage", *held, "" if change is None else write_difference(share, change, separator=separator)
    yield (
        "asked for",
        *("" if side.coverage_asked is None else f"{100 * side.coverage_asked:g} %" for side in sides),
        "",
    )
    widths = ("" if side.half_width is None else f"±{write_value(side.half_width)}" for side in sides)
    wider = record.half_width_difference
    yield "intervals", *widths, "" if wider is None else write_value(wider, sign=True)


def _list_costs(record: Difference) -> Iterator[tuple[str, ...]]:
    slowdown = "" if record.slowdown is None else f"{record.slowdown:.2f} x the time"
    yield "texts/s", *map(_write_speed, (record.a, record.b)), slowdown
    sizes = [side.parameters.adapter + side.parameters.head for side in (record.a, record.b)]
    yield "trained", *(f"{size:,}" for size in sizes), f"{sizes[1] - sizes[0]:+,}"


def _describe(record: DiffRecord) -> Iterator[str]:
    paired = record.comparison
    verdict = _VERDICTS[judge(paired, record.confidence_level)]
    yield (
        f"{verdict}: {paired.rows_gained:,} rows put right by B, {paired.rows_lost:,} made wrong "
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
    print_fitting(console, lambda separator: _build_slices(record, leading, separator))
    if any(change.adjusted_p_value < 1 - record.confidence_level for change in record.slices):
        test = "McNemar's p-value" if leading == "accuracy" else "the sign test's p-value"
        console.print(f"* changed: {test}, raised for the number of slices (Holm)")
    left = len(record.slices) - _MOST_SLICES
    if left > 0:
        console.print(f"{left:,} more slices, whose p-values are not lower, are in --json.")


def _build_slices(record: DiffRecord | TaskDiffRecord, leading: str, separator: str) -> Table:
    titles = ("rows", "A", "B", "B minus A", "better", "worse", "p adjusted")
    table = _open_table("" if leading == "accuracy" else name_figure(leading), _stack(titles, separator))
    for change in _choose_slices(record.slices):
        mark = " *" if change.adjusted_p_value < 1 - record.confidence_level else ""
        cells = (
            f"{change.rows:,}",
            *_write_change(change, leading, separator),
            f"{change.comparison.rows_gained:,}",
            f"{change.comparison.rows_lost:,}",
            f"{change.adjusted_p_value:.2g}{mark}",
        )
        table.add_row(clean_text(f"{change.column} {change.value}"), *_stack(cells, separator))
    return table


def _stack(cells: Sequence[str], separator: str) -> Sequence[str]:
    """Put B below A, and rows that are worse below those that are better, where intervals stand below their values."""
    if separator == " ":
        return cells
    rows, first, second, change, better, worse, chance = cells
    return rows, f"{first}\n{second}", change, f"{better}\n{worse}", chance


def _choose_slices(changes: Sequence[SliceChange | TaskSliceChange]) -> Sequence[SliceChange | TaskSliceChange]:
    """Return all slices where there are few, else those that speak most clearly of a change."""
    if len(changes) <= _MOST_SLICES:
        return changes
    clearest = sorted(range(len(changes)), key=lambda place: changes[place].p_value)
    return [changes[place] for place in sorted(clearest[:_MOST_SLICES])]


def _write_change(change: SliceChange | TaskSliceChange, leading: str, separator: str) -> tuple[str, str, str]:
    """Write the leading figure of A and of B, and its difference."""
    if isinstance(change, SliceChange):
        values, difference = change.accuracy, change.comparison.accuracy_difference
    else:
        values, difference = change.leading, change.comparison.differences[leading]
    first, second = (write_figure_value(leading, value) for value in values)
    return first, second, write_difference(leading, difference, separator=separator)


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
