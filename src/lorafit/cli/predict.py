"""`lorafit predict`: apply a model to texts."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from lorafit.cli.options import DropBadRows, Quiet, TargetAccuracy, TextColumn
from lorafit.cli.render.progress import open_progress


def predict(
    run: Annotated[Path, typer.Argument(help="The run folder, or that of an exported model.")],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; default: one a line from standard input.")] = None,
    *,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Texts in a csv, tsv, jsonl, parquet or txt file.")
    ] = None,
    text_column: TextColumn = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write csv, tsv, jsonl or parquet, original columns kept.")
    ] = None,
    drop_bad_rows: DropBadRows = False,
    target_accuracy: TargetAccuracy = None,
    raw: Annotated[bool, typer.Option("--raw", help="The model's own confidence, not calibrated.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output file, and parts of a job that was stopped.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a file whose job was stopped.")] = False,
    csv_safe: Annotated[
        bool, typer.Option("--csv-safe", help="Put a ' before cells of csv and tsv that begin like a formula.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Compare the loaded model with its golden logits.")
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="Write one JSON object a text.")] = False,
    quiet: Quiet = False,
) -> None:
    """Apply a model to texts, a file of any size, or standard input."""
    from lorafit.cli.render.predictions import show_predictions
    from lorafit.errors import UserInputError
    from lorafit.inference.batch import check_output, open_file, open_table, read_texts, run_job, stream_predictions
    from lorafit.inference.loading import load

    if texts and file is not None:
        raise UserInputError("Give texts or --file, not both.")
    if resume and (file is None or output is None):
        raise UserInputError("--resume goes on with a job that had --file and --output.")
    if csv_safe and output is None:
        raise UserInputError("--csv-safe is for a csv or tsv file: name it with --output.")
    if output is not None:
        check_output(output, overwrite=overwrite, csv_safe=csv_safe)
    column = text_column or "text"
    with open_progress(quiet=quiet or (file is None and len(texts or []) == 1)) as progress:
        if file is None:
            table = read_texts(texts or [], sys.stdin, text_column=column)
            job = open_table(table, text_column=column, drop_bad_rows=drop_bad_rows)
        else:
            job = open_file(file, text_column=column, drop_bad_rows=drop_bad_rows, progress=progress)
        if job.usable < job.rows:
            progress.say(f"{job.rows - job.usable:,} rows without a text are left out")
        predictor = load(run, raw=raw, target_accuracy=target_accuracy, verify=verify)
        if output is None:
            for part in stream_predictions(job, predictor, progress=progress):
                show_predictions(predictor.task, part, json=json)
            return
        rows = run_job(job, predictor, output, csv_safe=csv_safe, resume=resume, overwrite=overwrite, progress=progress)
    if not quiet:
        sys.stderr.write(f"{rows:,} predictions written to {output}\n")
