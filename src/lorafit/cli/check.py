"""`lorafit check`: what is wrong with data, before they are trained on."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from lorafit.cli.options import DataSources, Quiet, SliceColumns, TrainingOptions, name_sources
from lorafit.cli.render.progress import open_progress
from lorafit.errors import ConfigError


def check(
    data: DataSources = None,
    *,
    options: TrainingOptions,
    validation: Annotated[str | None, typer.Option(help="File with validation rows.")] = None,
    test: Annotated[str | None, typer.Option(help="File with test rows.")] = None,
    slices: SliceColumns = None,
    all_rows: Annotated[
        bool, typer.Option("--all-rows", help="Look at all rows for everything, not at samples for what takes long.")
    ] = False,
    fix: Annotated[
        str | None,
        typer.Option(
            "--fix",
            metavar="A,B,…",
            help="Write a cleaned copy of the training rows and a log of the changes: encoding, html, labels, leaks, "
            "near-leaks, conflicts, duplicates, near-duplicates.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The cleaned copy; default: NAME.cleaned.SUFFIX beside it.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the cleaned copy if it exists.")] = False,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page with plots, too.")] = None,
    texts: Annotated[bool, typer.Option("--texts/--no-texts", help="Whether the page shows texts.")] = True,
    json: Annotated[bool, typer.Option("--json", help="Write the record instead of a table.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="End with 1 where there are errors or warnings.")] = False,
    quiet: Quiet = False,
) -> None:
    """Check data for duplicates, leaks, contradictory labels, debris and shortcuts."""
    from lorafit.cli.render.check import show_check, show_cleaned
    from lorafit.data.quality.cleaning import clean_source, parse_fixes
    from lorafit.training.check import check as check_data
    from lorafit.training.check import enforce

    own = name_sources(data)
    own |= {name: value for name, value in {"data.validation": validation, "data.test": test}.items() if value}
    config = options.load_config({**own, "data.slice_columns": slices})
    if not data and options.config is None:
        raise ConfigError("Say what to check, for example: lorafit check reviews.csv (or lorafit check --help)")
    fixes = [] if fix is None else parse_fixes(fix)
    with open_progress(quiet=quiet or json) as progress:
        report = check_data(config, all_rows=all_rows, page=html, texts=texts, progress=progress)
    if json:
        sys.stdout.write(report.model_dump_json(indent=2) + "\n")
    else:
        show_check(report, page=html)
    if fixes:
        cleaned = clean_source(config.data, fixes, output=output, overwrite=overwrite)
        if not json:
            show_cleaned(cleaned)
    if strict:
        enforce(report)
