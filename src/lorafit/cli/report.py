"""`lorafit report`: the report of a run, written anew."""

from pathlib import Path
from typing import Annotated

import typer

from lorafit.cli.options import Quiet, accepts_altered
from lorafit.cli.render.progress import open_progress
from lorafit.system.text import disarm


@accepts_altered
def report(
    run: Annotated[Path, typer.Argument(help="The run folder.")],
    *,
    no_texts: Annotated[bool, typer.Option("--no-texts", help="Leave all texts of the data out.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="HTML file; default: report.html in the run folder.")
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write the figures there, too, as PNG and SVG files.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write the report of a run: one HTML file."""
    from lorafit.reports.page import write_report

    with open_progress(quiet=quiet) as progress:
        path = write_report(run, texts=not no_texts, output=output, plots=plots, progress=progress)
    typer.echo(disarm(str(path)))
