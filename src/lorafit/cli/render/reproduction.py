"""What `lorafit reproduce` prints."""

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from lorafit.cli.render.tables import open_console
from lorafit.tasks.base import Wording
from lorafit.tasks.registry import get_task

if TYPE_CHECKING:
    from lorafit.experiments.reproduce import ReproductionRecord


def show_reproduction(record: "ReproductionRecord") -> None:
    """Print what agrees, and what else differs."""
    console, task = open_console(), get_task(record.task)
    console.print(f"Measured on the same {record.rows:,} test rows: rows and base model are unchanged", style="italic")
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for name in ("then", "now", "difference", "tolerance", ""):
        table.add_column(name, justify="right")
    for metric in record.metrics:
        table.add_row(
            task.metrics[metric.name].title,
            f"{metric.then:.6g}",
            f"{metric.now:.6g}",
            f"{metric.now - metric.then:+.6g}",
            f"{metric.tolerance:.4g}",
            "agrees" if metric.agrees else "DIFFERS",
        )
    console.print(table)
    console.print(_describe_predictions(record, task.wording))
    for change in record.changes:
        console.print(f"changed since: {change.name} {change.then} -> {change.now}", soft_wrap=True)
    console.print(f"run folder  {record.repetition}", soft_wrap=True)
    if record.agrees:
        console.print("Reproduced.", style="green")


def _describe_predictions(record: "ReproductionRecord", words: Wording) -> str:
    """Say how far the predictions of the test rows are the same."""
    if record.identical:
        return f"Every {words.value} is the same to the last digit."
    largest = f"Largest difference of a {words.value}: {record.largest_difference:.2g}"
    if record.rows_changed is None:
        return f"{largest}."
    return f"{largest}; {record.rows_changed:,} of {record.rows:,} rows get {words.changed}."
