"""What `lorafit reproduce` prints."""

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from lorafit.cli.render.render import open_console
from lorafit.task_figures import FIGURES, name_figure

if TYPE_CHECKING:
    from lorafit.experiments.reproduce import ReproductionRecord

__all__ = ["show_reproduction"]


def show_reproduction(record: "ReproductionRecord") -> None:
    """Print what agrees, and what else differs."""
    console = open_console()
    console.print(f"Measured on the same {record.rows:,} test rows: rows and base model are unchanged", style="italic")
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for name in ("then", "now", "difference", "may be", ""):
        table.add_column(name, justify="right")
    for figure in record.figures:
        form = ".6g" if figure.name in FIGURES and FIGURES[figure.name].has_unit else ".5f"
        table.add_row(
            name_figure(figure.name),
            f"{figure.then:{form}}",
            f"{figure.now:{form}}",
            f"{figure.now - figure.then:+{form}}",
            f"{figure.tolerance:.4g}",
            "agrees" if figure.agrees else "DIFFERS",
        )
    console.print(table)
    console.print(_describe_answers(record))
    for change in record.changes:
        console.print(f"changed since: {change.name} {change.then} -> {change.now}", soft_wrap=True)
    console.print(f"run folder  {record.repetition}", soft_wrap=True)
    if record.agrees:
        console.print("Reproduced.", style="green")


def _describe_answers(record: "ReproductionRecord") -> str:
    """Say how far what is said of each row is the same."""
    what = "predicted number" if record.task == "regression" else "test probability"
    if record.identical:
        return f"Every {what} is the same to the last digit."
    said = f"Largest difference of a {what}: {record.largest_difference:.2g}"
    if record.rows_changed is None:
        return f"{said}."
    changed = "other labels" if record.task == "multi_label" else "another label"
    return f"{said}; {record.rows_changed:,} of {record.rows:,} rows get {changed}."
