"""`lorafit predict`: classify texts."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from lorafit.cli.options import DropBadRows, Quiet, TargetAccuracy, TextColumn
from lorafit.terminal.progress import open_progress


def predict(
    run: Annotated[Path, typer.Argument(help="The run folder.")],
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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output file if it is there.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Write one JSON object a text.")] = False,
    quiet: Quiet = False,
) -> None:
    """Classify texts, a file, or standard input."""
    from lorafit.batch_prediction import check_output, predict_table, read_texts
    from lorafit.batch_prediction import drop_bad_rows as drop_unusable
    from lorafit.predictor import load
    from lorafit.terminal.render import show_predictions

    if output is not None:
        check_output(output, overwrite=overwrite)
    column = text_column or "text"
    table = read_texts(texts or [], file, sys.stdin, text_column=column)
    if drop_bad_rows:
        table, dropped = drop_unusable(table, text_column=column)
        if dropped and not quiet:
            sys.stderr.write(f"{dropped:,} rows without a text are left out\n")
    predictor = load(run, raw=raw, target_accuracy=target_accuracy)
    with open_progress(quiet=quiet or len(table) == 1) as progress:
        predicted = predict_table(predictor, table, text_column=column, progress=progress)
    if output is None:
        show_predictions(predicted, json=json)
        return
    predicted.write(output)
    if not quiet:
        sys.stderr.write(f"{len(table):,} predictions written to {output}\n")
