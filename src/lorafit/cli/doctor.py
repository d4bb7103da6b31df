"""`lorafit doctor`: whether this machine is ready."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from lorafit.training.doctor import Diagnosis


def doctor(
    *,
    json: Annotated[bool, typer.Option("--json", help="Write one JSON object instead of tables.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Do not check whether the Hub answers.")] = False,
) -> None:
    """Check whether this machine has what training needs.

    Exits with 0 if everything that `lorafit demo` needs is there, else with 3 and what to do.
    """
    from lorafit.errors import EnvironmentUnfitError
    from lorafit.training.doctor import diagnose

    diagnosis = diagnose(ask_network=not offline)
    if json:
        sys.stdout.write(diagnosis.model_dump_json(indent=2) + "\n")
    else:
        _render(diagnosis)
    if not diagnosis.ready:
        raise typer.Exit(EnvironmentUnfitError.exit_code)


def _render(diagnosis: "Diagnosis") -> None:
    from lorafit.cli.render.tables import SafeConsole

    console = SafeConsole()
    for table in (_machine_table(diagnosis), _package_table(diagnosis), _asset_table(diagnosis)):
        console.print(table)
    for line in _verdict(diagnosis):
        console.print(line, soft_wrap=True)


def _machine_table(diagnosis: "Diagnosis") -> "Table":
    processor, precision = diagnosis.processor, diagnosis.precision
    has = [name for name, there in processor.features.items() if there]
    lacks = [name for name, there in processor.features.items() if not there]
    table = _table("Machine", "", "")
    table.add_row("lorafit", diagnosis.lorafit or "not installed as a package")
    table.add_row("Python", f"{diagnosis.python} on {diagnosis.system}")
    table.add_row("CPU", processor.name)
    table.add_row("CPU features", (", ".join(has) or "none of note") + (f" (not {', '.join(lacks)})" if lacks else ""))
    table.add_row("cores, threads", f"{processor.cores}, {processor.threads or 'unknown without torch'}")
    waiting = processor.waiting or "as the library beneath torch does"
    table.add_row("idle threads", f"{waiting} (for a Python program of your own, set it before it starts)")
    table.add_row("memory", _gigabytes(diagnosis.memory_bytes))
    table.add_row("precision", f"{precision.name}: {precision.reason}" if precision else "unknown without torch")
    return table


def _package_table(diagnosis: "Diagnosis") -> "Table":
    table = _table("Packages", "package", "installed", "needed", "for")
    for package in diagnosis.packages:
        installed = package.installed if package.fits else f"[red]{package.installed or 'missing'}[/]"
        table.add_row(package.name, installed, package.wanted, f"extra {package.extra}" if package.extra else "core")
    return table


def _asset_table(diagnosis: "Diagnosis") -> "Table":
    from rich.markup import escape

    table = _table("Models and data", "", "")
    for carrier in diagnosis.carriers:
        state = "[green]ok[/]" if carrier.state == "ok" else f"[red]{carrier.state}[/]"
        table.add_row(carrier.asset, f"{state}, {escape(carrier.detail)}")
    hub, data, cache = diagnosis.hub, diagnosis.data, diagnosis.cache
    table.add_row("Hub", escape(f"{hub.state}: {hub.endpoint} ({hub.detail})"))
    table.add_row("LORAFIT_DATA", escape(f"{data.path}: {data.state}" if data.path else data.state))
    table.add_row("cache", escape(f"{cache.path}: {cache.state}, {_gigabytes(cache.free_bytes or 0)} free"))
    return table


def _verdict(diagnosis: "Diagnosis") -> "list[Text]":
    from rich.text import Text

    if diagnosis.ready:
        return [Text("Everything that `lorafit demo` needs is there.", style="green")]
    lines = [Text("`lorafit demo` cannot run yet:", style="red")]
    return lines + [Text(f"  {problem.what}\n    {problem.remedy}") for problem in diagnosis.problems]


def _table(title: str, *columns: str) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_header=any(columns))
    for index, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=index == 0)
    return table


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count else "unknown"
