"""What `lorafit export` prints."""

import shlex
from collections.abc import Iterator

from rich import box
from rich.table import Table

from lorafit.cli.render.tables import open_console
from lorafit.inference.export.export import Export
from lorafit.inference.export.records import ExportLayout
from lorafit.tasks.base import Metric

_AGREEMENT = Metric("same predictions", "share of the rows that get the same prediction", form="percent")


def show_export(exported: Export, *, quiet: bool) -> None:
    """Print how the exported model compares with the original and what to do with it; with `quiet` its folder alone."""
    console = open_console()
    if quiet:
        console.print(str(exported.path), soft_wrap=True)
        return
    rows = exported.record.parity.rows
    table = Table(box=box.SIMPLE_HEAD)
    compared = f"on {rows:,} validation rows" if rows else "on the golden sentences alone"
    table.add_column(f"against the original in fp32, {compared}")
    table.add_column("", justify="right")
    for cells in _list_rows(exported):
        table.add_row(*cells)
    console.print(table)
    console.print(f'lorafit predict {shlex.quote(str(exported.path))} "…"', soft_wrap=True)


def _list_rows(exported: Export) -> Iterator[tuple[str, str]]:
    parity, task = exported.record.parity, exported.record.build_task()
    metrics = {**task.diff_metrics, **task.metrics}
    yield "largest difference of a logit", f"{parity.largest_difference:.2g} (allowed: {parity.allowed_difference:.2g})"
    if parity.agreement is not None:
        yield _AGREEMENT.title, _AGREEMENT.write(parity.agreement)
    for name, difference in parity.differences.items():
        yield metrics[name].difference_title, metrics[name].write_difference(difference)
    record = exported.record
    size = ExportLayout(exported.path).weights(record.precision, record.engine).stat().st_size
    yield "file", f"{size / 1e6:.1f} MB, {record.precision}, for {record.engine}"
    if record.speed is not None:
        yield "texts a second", f"{record.speed.texts_per_second:.0f}"
