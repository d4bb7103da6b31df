"""`lorafit evaluate`: measure a trained run."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from lorafit.cli.options import DropBadRows, LabelColumn, Quiet, SliceColumns, TargetAccuracy, TextColumn
from lorafit.cli.render.progress import open_progress


def evaluate(
    run: Annotated[Path, typer.Argument(help="The run folder.")],
    data: Annotated[
        str | None, typer.Argument(help="Labelled data; default: the test rows of the run's own data.")
    ] = None,
    *,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    slices: SliceColumns = None,
    drop_bad_rows: DropBadRows = False,
    target_accuracy: TargetAccuracy = None,
    json: Annotated[bool, typer.Option("--json", help="Write the metrics record instead of a table.")] = False,
    quiet: Quiet = False,
) -> None:
    """Measure a run on labelled data."""
    from lorafit.cli.render.render import show_metrics
    from lorafit.training.evaluation import evaluate as evaluate_run

    flags = {
        "data.text_column": text_column,
        "data.label_column": label_column,
        "data.slice_columns": slices or None,
        "data.drop_bad_rows": drop_bad_rows or None,
        "evaluation.target_accuracy": target_accuracy,
    }
    with open_progress(quiet=quiet) as progress:
        metrics = evaluate_run(run, data, flags=flags, progress=progress)
    if json:
        sys.stdout.write(metrics.model_dump_json(indent=2) + "\n")
    else:
        show_metrics(metrics)
