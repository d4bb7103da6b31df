"""What `lorafit diff` prints."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from lorafit.html_page import write_percent, write_points
from lorafit.terminal.render import open_console

if TYPE_CHECKING:
    from lorafit.difference.records import DiffRecord, DiffSide, GateResult, SliceChange
    from lorafit.evidence import Estimate

__all__ = ["show_diff"]

_MOST_SLICES = 15


def show_diff(record: "DiffRecord") -> None:
    """Print what changes from A to B, where, and which gates hold."""
    console = open_console()
    level = f"{100 * record.confidence_level:g} % interval"
    console.print(
        f"Measured on {record.rows:,} rows of {record.source} ({level} in brackets)", style="italic", soft_wrap=True
    )
    for name, side in (("A", record.a), ("B", record.b)):
        form = f", exported in {side.exported}" if side.exported else ""
        console.print(f"{name}  {side.run} ({side.method} on {side.base_model}{form})", soft_wrap=True)
    console.print(_scores_table(record))
    for line in _sentences(record):
        console.print(line)
    console.print(_slices_table(record))
    _print_slice_notes(console, record)
    for note in record.notes:
        console.print(f"note: {note}", soft_wrap=True)
    _print_gates(console, record.gates)


def _scores_table(record: "DiffRecord") -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for name in ("A", "B", "B minus A"):
        table.add_column(name, justify="right")
    a, b, paired = record.a.scores, record.b.scores, record.comparison
    table.add_row("accuracy", *map(write_percent, (a.accuracy, b.accuracy)), write_points(paired.accuracy_difference))
    table.add_row("F1 (macro)", *map(write_percent, (a.macro_f1, b.macro_f1)), write_points(record.macro_f1_difference))
    table.add_row("MCC", *map(_write, (a.mcc, b.mcc)), _write(record.mcc_difference, sign=True))
    table.add_row("log loss", *map(_write, (a.log_loss, b.log_loss)), _write(paired.log_loss_difference, sign=True))
    table.add_row("ECE", *map(_write, (record.a.ece, record.b.ece)), f"{record.ece_difference:+.3f}")
    slowdown = "" if record.slowdown is None else f"{record.slowdown:.2f} x the time"
    table.add_row("texts/s", *map(_write_speed, (record.a, record.b)), slowdown)
    sizes = [side.parameters.adapter + side.parameters.head for side in (record.a, record.b)]
    table.add_row("trained", *(f"{size:,}" for size in sizes), f"{sizes[1] - sizes[0]:+,}")
    return table


def _sentences(record: "DiffRecord") -> Iterator[str]:
    paired = record.comparison
    significant = paired.mcnemar_p_value < 1 - record.confidence_level
    if significant and paired.accuracy_difference.low > 0:
        verdict = "B is better than A"
    elif significant and paired.accuracy_difference.high < 0:
        verdict = "B is worse than A"
    else:
        verdict = "Neither is shown to be better"
    yield (
        f"{verdict}: {paired.rows_gained:,} rows put right by B, {paired.rows_lost:,} made wrong "
        f"(exact McNemar test, {_write_chance(paired.mcnemar_p_value)})."
    )
    yield f"Of all rows, B makes wrong {write_percent(record.negative_flips)} (negative flips)"
    yield f"and gives another label to {write_percent(record.churn)} (churn)."


def _slices_table(record: "DiffRecord") -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("", overflow="fold")
    for name in ("rows", "A", "B", "B minus A", "put right", "made wrong", "p adjusted"):
        table.add_column(name, justify="right", no_wrap=True)
    for change in _choose_slices(record.slices):
        first, second = (f"{100 * share:.1f} %" for share in change.accuracy)
        paired = change.comparison
        mark = " *" if change.adjusted_p_value < 1 - record.confidence_level else ""
        table.add_row(
            _printable(f"{change.column} {change.value}"),
            f"{change.rows:,}",
            first,
            second,
            write_points(paired.accuracy_difference),
            f"{paired.rows_gained:,}",
            f"{paired.rows_lost:,}",
            f"{change.adjusted_p_value:.2g}{mark}",
        )
    return table


def _choose_slices(changes: "list[SliceChange]") -> "list[SliceChange]":
    """Return all slices where there are few, else those that speak most clearly of a change."""
    if len(changes) <= _MOST_SLICES:
        return changes
    clearest = sorted(range(len(changes)), key=lambda place: changes[place].comparison.mcnemar_p_value)
    return [changes[place] for place in sorted(clearest[:_MOST_SLICES])]


def _print_slice_notes(console: Console, record: "DiffRecord") -> None:
    if any(change.adjusted_p_value < 1 - record.confidence_level for change in record.slices):
        console.print("* changed: McNemar's p-value, raised for the number of slices (Holm)")
    left = len(record.slices) - _MOST_SLICES
    if left > 0:
        console.print(f"{left:,} more slices, whose p-values are not lower, are in --json.")


def _print_gates(console: Console, gates: "list[GateResult]") -> None:
    from lorafit.difference.gates import describe_value

    for result in gates:
        state = "holds" if result.holds else "BROKEN"
        console.print(
            f"gate {result.gate}: {state}, {describe_value(result)}",
            style="green" if result.holds else "red",
            soft_wrap=True,
        )
    if gates and all(result.holds for result in gates):
        console.print("All gates hold.")


def _write(estimate: "Estimate", *, sign: bool = False) -> str:
    form = "+.3f" if sign else ".3f"
    return f"{estimate.value:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"


def _write_speed(side: "DiffSide") -> str:
    return "" if side.texts_per_second is None else f"{side.texts_per_second:,.0f}"


def _write_chance(p_value: float) -> str:
    return f"p = {p_value:.2g}" if p_value >= 1e-6 else "p < 0.000001"


def _printable(text: str) -> str:
    """Show control characters, which could steer the terminal, as a replacement sign."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
