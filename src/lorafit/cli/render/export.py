"""What `lorafit export` prints."""

import shlex
from collections.abc import Iterator

from rich import box
from rich.table import Table

from lorafit.cli.render.render import open_console
from lorafit.evidence import Estimate
from lorafit.inference.export.export import Export
from lorafit.inference.export.records import ExportLayout
from lorafit.task_figures import name_figure

__all__ = ["show_export"]


def show_export(exported: Export, *, quiet: bool) -> None:
    """Print how the exported model compares with the original and what to do with it; with `quiet` its folder alone."""
    console = open_console()
    if quiet:
        console.print(str(exported.path), soft_wrap=True)
        return
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("against the original, run by torch in fp32")
    table.add_column("", justify="right")
    for cells in _list_rows(exported):
        table.add_row(*cells)
    console.print(table)
    console.print(f'lorafit predict {shlex.quote(str(exported.path))} "…"', soft_wrap=True)


def _list_rows(exported: Export) -> Iterator[tuple[str, str]]:
    parity = exported.record.parity
    size = ExportLayout(exported.path).model(exported.record.precision).stat().st_size
    yield "largest difference of a logit", f"{parity.largest_difference:.2g} (largest logit {parity.largest_logit:.2g})"
    if parity.label_agreement is not None:
        yield f"labels that agree, of {parity.rows:,} validation rows", _percent(parity.label_agreement)
    for name, difference in parity.score_differences.items():
        yield (
            f"{name_figure(name)}, on {parity.rows:,} validation rows",
            (f"{difference.value:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"),
        )
    if parity.accuracy_difference is not None:
        yield "accuracy", f"{_percent(parity.accuracy_difference, sign='+')} points"
    if parity.ece_difference is not None:
        yield "calibration error", f"{100 * parity.ece_difference:+.2f} points"
    yield "file", f"{size / 1e6:.1f} MB, {exported.record.precision}"


def _percent(estimate: Estimate, *, sign: str = "") -> str:
    unit = "" if sign else " %"
    value, low, high = (f"{100 * part:{sign}.2f}" for part in (estimate.value, estimate.low, estimate.high))
    return f"{value}{unit} [{low}, {high}]"
