"""`lorafit predict`: apply a model to texts."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from lorafit.cli.options import Quiet, RunOrExport, TargetAccuracy, TextOptions
from lorafit.cli.render.progress import open_progress


def predict(
    run: RunOrExport,
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; default: one a line from standard input.")] = None,
    *,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Texts in a csv, tsv, jsonl, parquet or txt file.")
    ] = None,
    rows: TextOptions,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="csv, tsv, jsonl or parquet file to write, with all columns."),
    ] = None,
    target_accuracy: TargetAccuracy = None,
    raw: Annotated[bool, typer.Option("--raw", help="Uncalibrated confidence.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output file, and what is left of a stopped job.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Resume a stopped job.")] = False,
    csv_safe: Annotated[
        bool,
        typer.Option(
            "--csv-safe", help="Put a ' before csv and tsv cells that a spreadsheet would take for a formula."
        ),
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Check the loaded model against its golden logits.")
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="Write one JSON object a text.")] = False,
    quiet: Quiet = False,
) -> None:
    """Predict texts, a file of any size, or standard input."""
    from lorafit.cli.render.predictions import show_predictions
    from lorafit.errors import UserInputError
    from lorafit.inference.batch import check_output, open_file, open_table, read_texts, run_job, stream_predictions
    from lorafit.inference.loading import load

    if texts and file is not None:
        raise UserInputError("Give texts or --file, not both.")
    if resume and (file is None or output is None):
        raise UserInputError("--resume needs the --file and --output of the job it resumes.")
    if csv_safe and output is None:
        raise UserInputError("--csv-safe is for csv and tsv files: name one with --output.")
    if output is not None:
        check_output(output, overwrite=overwrite, csv_safe=csv_safe)
    column = (rows.text_columns or ["text"])[0]
    drop_bad_rows = rows.bad_rows == "drop"
    with open_progress(quiet=quiet or (file is None and len(texts or []) == 1)) as progress:
        if file is None:
            table = read_texts(texts or [], sys.stdin, text_column=column)
            job = open_table(table, text_column=column, drop_bad_rows=drop_bad_rows)
        else:
            job = open_file(file, text_column=column, drop_bad_rows=drop_bad_rows, progress=progress)
        if job.usable < job.rows:
            progress.say(f"{job.rows - job.usable:,} rows without a text are skipped")
        predictor = load(run, raw=raw, target_accuracy=target_accuracy, verify=verify)
        if output is None:
            for part in stream_predictions(job, predictor, progress=progress):
                show_predictions(predictor.task, part, json=json)
            return
        written = run_job(
            job, predictor, output, csv_safe=csv_safe, resume=resume, overwrite=overwrite, progress=progress
        )
    if not quiet:
        sys.stderr.write(f"{written:,} predictions written to {output}\n")
