"""What `lorafit drift` prints."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from lorafit.cli.render.tables import open_console
from lorafit.system.text import clean_text, format_count

if TYPE_CHECKING:
    from lorafit.experiments.drift import DriftRecord

_LONGEST = 40


def show_drift(record: "DriftRecord") -> None:
    """Print the verdict, what it means for coverage, and what changed."""
    console, test = open_console(), record.test
    looked = f"{test.rows:,} of {record.texts:,}" if test.rows < record.texts else f"{test.rows:,}"
    console.print(
        f"{format_count(record.texts, 'new text')} ({looked} looked at) against {test.calibration_rows:,} calibration "
        f"rows; {100 * test.false_alarms:g} % false alarms",
        style="italic",
        soft_wrap=True,
    )
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for title in ("calibration rows", "new texts", "p"):
        table.add_column(title, justify="right")
    for cells in _list_changes(record):
        table.add_row(*cells)
    console.print(table)
    if record.ungrouped:
        console.print(
            f"The run's rows were cut by groups of {clean_text(str(record.group_column), most=_LONGEST)}, a column "
            "that the new texts lack: where they come in groups, too, drift is said more often than it should be.",
            style="yellow",
            soft_wrap=True,
        )
    verdict = "Drift is shown" if test.is_refuted else "No drift is shown"
    console.print(f"{verdict} (p = {test.p_value:.3g}).", style="red" if test.is_refuted else "green", soft_wrap=True)
    if test.is_refuted:
        console.print(_describe_coverage(record), soft_wrap=True)


def _list_changes(record: "DriftRecord") -> Iterator[tuple[str, str, str, str]]:
    """Yield the rows of the table."""
    yield "typicality at most 0.05", "5.0 %", f"{100 * record.atypical:.1f} %", ""
    for number in record.numbers:
        yield f"{number.name} (median)", f"{number.before:.4g}", f"{number.after:.4g}", f"{number.p_value:.3g}"
    for kind, shares in (("predicted", record.labels), ("word", record.words)):
        for one in shares:
            name = f"{kind} {clean_text(one.name, most=_LONGEST)}"
            yield name, f"{100 * one.before:.1f} %", f"{100 * one.after:.1f} %", f"{one.p_value:.3g}"


def _describe_coverage(record: "DriftRecord") -> str:
    """Say how far what was calibrated can be believed."""
    highest = record.highest_coverage
    if highest is None or record.coverage is None:
        return "What was calibrated on the calibration rows is not guaranteed for these texts."
    asked = f"{100 * record.coverage:g} %"
    if highest == record.coverage:
        return f"The coverage of {asked} is not guaranteed for these texts; by how much it is off cannot be told."
    return f"The coverage of {asked} is not guaranteed for these texts: no more than {100 * highest:.1f} % is."
