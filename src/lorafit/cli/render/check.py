"""What `lorafit check` prints."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich import box
from rich.console import Console
from rich.table import Table

from lorafit.cli.render.tables import open_console
from lorafit.data.quality.findings import write_share
from lorafit.data.quality.report import CheckReport

if TYPE_CHECKING:
    from lorafit.data.quality.cleaning import CleanedFile

_STYLES: Final = {"error": "red", "warning": "yellow", "note": ""}
_MOST_ROWS: Final = 5


def show_check(report: CheckReport, *, page: Path | None = None, console: Console | None = None) -> None:
    """Print the findings, the worst first, each with its first rows and its remedy.

    Args:
        report: What was found.
        page: Where the page lies, if one was written.
        console: Where to; None for standard output.
    """
    console = console or open_console()
    rows = ", ".join(f"{count:,} {split}" for split, count in report.rows.items())
    console.print(f"{report.source}: {rows} rows", style="italic", soft_wrap=True)
    if report.findings:
        console.print(_build_table(report))
    for finding in report.findings:
        console.print(f"{finding.severity:11} {finding.message}", style=_STYLES[finding.severity], soft_wrap=True)
        if finding.rows:
            console.print(f"            rows: {finding.list_rows(_MOST_ROWS)}", soft_wrap=True)
        if finding.remedy:
            console.print(f"            {finding.remedy}", soft_wrap=True)
    for one in report.skipped:
        console.print(f"skipped     {one.what}: {' '.join(one.why.split())}", soft_wrap=True)
    console.print(f"in all      {report.summarize()}")
    if page is not None:
        console.print(f"page        {page}", soft_wrap=True)


def show_cleaned(cleaned: "CleanedFile", console: Console | None = None) -> None:
    """Print what was changed, where the copy lies, and what to do next.

    Args:
        cleaned: The copy.
        console: Where to; None for standard output.
    """
    console = console or open_console()
    changes = ", ".join(f"{name} {count:,}" for name, count in cleaned.changes.items()) or "nothing to change"
    console.print(f"fixed       {changes}: {cleaned.kept:,} of {cleaned.rows:,} training rows kept", soft_wrap=True)
    console.print(f"copy        {cleaned.path}", soft_wrap=True)
    console.print(f"changes     {cleaned.log}", soft_wrap=True)
    console.print(f"next        lorafit train {shlex.quote(str(cleaned.path))}", soft_wrap=True)


def _build_table(report: CheckReport) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for title, justify in (("finding", "left"), ("split", "left"), ("count", "right"), ("share", "right")):
        table.add_column(title, justify=justify, no_wrap=True)  # type: ignore[arg-type]  # of literals
    table.add_column("looked at", justify="right")
    for finding in report.findings:
        looked = f"{finding.scope.rows:,}" + ("" if finding.scope.seed is None else f" of {finding.scope.of:,}")
        table.add_row(
            f"{finding.severity} {finding.name}",
            finding.split or "all",
            f"{finding.count:,}",
            write_share(finding.share),
            looked,
            style=_STYLES[finding.severity],
        )
    return table
