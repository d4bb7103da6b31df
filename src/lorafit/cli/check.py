"""`lorafit check`: what is wrong with data, before they are trained on."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorafit.cli.options import DataSources, Quiet, SliceColumns, TrainingOptions, name_sources
from lorafit.cli.render.progress import open_progress
from lorafit.errors import ConfigError

if TYPE_CHECKING:
    from lorafit.data.quality.findings import Finding


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
    folds: Annotated[
        int | None,
        typer.Option("--folds", metavar="N", help="Find wrong labels by training on all but one of N parts in turn."),
    ] = None,
    judges: Annotated[
        str | None,
        typer.Option(
            "--judges",
            metavar="A,B,…",
            help="Who judges with --folds: encoder, nb_svm, tfidf, ridge, embedding [all of the task but embedding].",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", metavar="RUN", help="Find wrong labels by a run, of rows it was not trained on."),
    ] = None,
    review: Annotated[
        Path | None,
        typer.Option(
            "--review", metavar="FILE", help="Where the labels that are probably wrong are listed [label-errors.csv]."
        ),
    ] = None,
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
    texts: Annotated[bool, typer.Option("--texts/--no-texts", help="Whether page and review file show texts.")] = True,
    json: Annotated[bool, typer.Option("--json", help="Write the record instead of a table.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="End with 1 where there are errors or warnings.")] = False,
    quiet: Quiet = False,
) -> None:
    """Check data before they are trained on."""
    from lorafit.cli.render.check import show_check, show_cleaned
    from lorafit.data.quality.cleaning import clean_source, parse_fixes
    from lorafit.training.check import check as check_data
    from lorafit.training.check import enforce
    from lorafit.training.label_errors import review_labels

    own = name_sources(data, validation=validation, test=test)
    config = options.load_config({**own, "data.slice_columns": slices})
    if not data and options.config is None:
        raise ConfigError("Say what to check, for example: lorafit check reviews.csv (or lorafit check --help)")
    fixes = [] if fix is None else parse_fixes(fix)
    if folds is None and (judges is not None or (review is not None and labels is None)):
        raise ConfigError("--review and --judges are for labels that are probably wrong: find them with --folds 5.")
    if config.data.corrections is not None and ((folds is None and labels is None) or fixes):
        raise ConfigError(
            "lorafit check takes --corrections with --folds or --labels, which judge the corrected labels, and not "
            "with --fix: everything else is about the data as they are. Leave it out (--set data.corrections=null "
            "where a file of settings gives it)."
        )
    with open_progress(quiet=quiet or json) as progress:
        found: list[Finding] = []
        if folds is not None or labels is not None:
            path = review or Path("label-errors.csv")
            models = None if judges is None else [name.strip() for name in judges.split(",")]
            found = review_labels(config, path, folds=folds, models=models, run=labels, texts=texts, progress=progress)
        report = check_data(config, all_rows=all_rows, more=found, page=html, texts=texts, progress=progress)
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
