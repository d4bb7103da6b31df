"""What `lorafit reproduce` prints."""

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from lorafit.terminal.render import open_console

if TYPE_CHECKING:
    from lorafit.reproduction import ReproductionRecord

__all__ = ["show_reproduction"]

_NAMES = {"accuracy": "accuracy", "log_loss": "log loss"}


def show_reproduction(record: "ReproductionRecord") -> None:
    """Print what agrees, and what else differs."""
    console = open_console()
    console.print(f"Measured on the same {record.rows:,} test rows: rows and base model are unchanged", style="italic")
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for name in ("then", "now", "difference", "may be", ""):
        table.add_column(name, justify="right")
    for figure in record.figures:
        table.add_row(
            _NAMES[figure.name],
            f"{figure.then:.5f}",
            f"{figure.now:.5f}",
            f"{figure.now - figure.then:+.5f}",
            f"{figure.tolerance:g}",
            "agrees" if figure.agrees else "DIFFERS",
        )
    console.print(table)
    if record.identical:
        console.print("Every test probability is the same to the last digit.")
    else:
        console.print(
            f"Largest difference of a test probability: {record.largest_difference:.2g}; "
            f"{record.rows_changed:,} of {record.rows:,} rows get another label."
        )
    for change in record.changes:
        console.print(f"changed since: {change.name} {change.then} -> {change.now}", soft_wrap=True)
    console.print(f"run folder  {record.repetition}", soft_wrap=True)
    if record.agrees:
        console.print("Reproduced.", style="green")
