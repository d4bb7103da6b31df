"""`lorafit predict`: apply a model to texts."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lorafit.cli.options import (
    Blended,
    Quiet,
    TargetAccuracy,
    TextOptions,
    accepts_altered,
    takes_base,
    takes_threads,
)
from lorafit.cli.render.progress import open_progress
from lorafit.system.text import disarm, format_count

if TYPE_CHECKING:
    from lorafit.inference.jobs import BatchJob
    from lorafit.inference.remote import RemotePredictor
    from lorafit.system.progress import Progress

_FEW = 64
"""Texts at most that a run's kept graph answers: loading torch takes longer than they do; more are quicker by torch."""


@takes_base
@takes_threads
@accepts_altered
def predict(
    run: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A run folder, an exported model, hub:owner/name, or the address of a server: http://HOST:PORT.",
        ),
    ],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; default: standard input.")] = None,
    *,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", "-f", help="Texts in a csv, tsv, jsonl, xlsx, parquet or txt file; - is standard input."
        ),
    ] = None,
    rows: TextOptions,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="csv, tsv, jsonl or parquet file to write, with all columns."),
    ] = None,
    target_accuracy: TargetAccuracy = None,
    reject_atypical: Annotated[
        float | None,
        typer.Option(
            "--reject-atypical",
            metavar="SHARE",
            help="Mark texts unlike the training rows, and at most this share of those like them.",
        ),
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Uncalibrated confidence.")] = False,
    runtime: Annotated[
        Literal["auto", "torch"],
        typer.Option("--runtime", help="What runs a run: torch, or by auto its kept graph for a few texts."),
    ] = "auto",
    blend: Blended = True,
    adapter: Annotated[
        str | None, typer.Option("--adapter", metavar="NAME", help="Of a server: the model that is to answer.")
    ] = None,
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
    """Predict texts, a file of any size, or standard input.

    Standard input has a text a line, or is a table: csv, tsv or json, known by how it begins.

    A model trained on pairs takes the two texts of one pair, two columns of a file (--text-column twice, or those it
    was trained on), or lines with a tab between both texts.
    """
    from lorafit.cli.render.predictions import show_predictions
    from lorafit.errors import UserInputError
    from lorafit.inference import batch
    from lorafit.inference.jobs import TEXT_COLUMNS
    from lorafit.inference.loading import load
    from lorafit.runs.hub import locate_run

    if texts and file is not None:
        raise UserInputError("Give texts or --file, not both.")
    file = None if file == Path("-") else file
    if resume and (file is None or output is None):
        raise UserInputError("--resume needs the --file and --output of the job it resumes.")
    if csv_safe and output is None:
        raise UserInputError("--csv-safe is for csv and tsv files: name one with --output.")
    if output is not None:
        batch.check_output(output, overwrite=overwrite, csv_safe=csv_safe)
    remote = _find_server(
        run, adapter, raw=raw, target_accuracy=target_accuracy, reject_atypical=reject_atypical, blend=blend
    )
    folder = Path(run) if remote else locate_run(run)
    if remote is None:
        columns = _find_trained_columns(folder, named=not texts)
    else:
        columns = TEXT_COLUMNS if remote.pair else TEXT_COLUMNS[:1]
    with (
        open_progress(quiet=quiet or (file is None and len(texts or []) == 1)) as progress,
        _open_job(columns, texts or [], file, rows, progress) as job,
    ):
        predictor = remote or load(
            folder,
            raw=raw,
            target_accuracy=target_accuracy,
            reject_atypical=reject_atypical,
            verify=verify,
            blend=blend,
            runtime=runtime if runtime == "torch" or (output is None and job.rows <= _FEW) else None,
        )
        if output is None:
            for part in batch.stream_predictions(job, predictor, progress=progress):
                show_predictions(predictor.task, part, json=json)
            return
        written = batch.run_job(
            job, predictor, output, csv_safe=csv_safe, resume=resume, overwrite=overwrite, progress=progress
        )
    if not quiet:
        bad = job.rows - job.usable
        kept = job.bad_rows == "keep"
        sys.stderr.write(f"{format_count(written, 'row' if kept else 'prediction')} written to {disarm(str(output))}\n")
        if bad:
            where = "without a prediction" if kept else f"left out: {batch.name_left_out(output)}"
            sys.stderr.write(f"{format_count(bad, 'row')} {disarm(where)}\n")


@contextmanager
def _open_job(
    trained: tuple[str, ...] | None, texts: list[str], file: Path | None, rows: TextOptions, progress: "Progress"
) -> "Iterator[BatchJob]":
    """Read and check what is to be predicted, and say what is wrong with rows that are left out or kept."""
    from lorafit.config import load_config
    from lorafit.errors import UserInputError
    from lorafit.inference.jobs import TEXT_COLUMNS, open_file, open_table
    from lorafit.inference.typed_texts import read_words, save_stream

    data = load_config(flags=rows.collect({})).data
    given = tuple(rows.text_columns or ())
    if given and trained and len(given) != len(trained):
        takes = "single texts: give --text-column once" if len(trained) == 1 else "pairs: give --text-column twice"
        raise UserInputError(f"The model takes {takes}.")
    trained = trained or TEXT_COLUMNS[:1]
    reading = partial(
        open_file,
        text_columns=given or None,
        trained_columns=trained,
        bad_rows=data.bad_rows,
        form=data.format,
        progress=progress,
    )
    with ExitStack() as stack:
        if texts:
            columns = given or TEXT_COLUMNS[: len(trained)]
            job = open_table(read_words(texts, text_columns=columns), text_columns=columns, bad_rows=data.bad_rows)
        elif file is not None:
            job = reading(file)
        else:
            saved = stack.enter_context(save_stream(sys.stdin, given or trained, data.format))
            if saved.suffix != ".txt":
                progress.say(f"standard input: read as {saved.suffix[1:]}, as it begins like such a table.")
            job = replace(reading(saved, origin="standard input"), source=None)
        if job.usable < job.rows:
            progress.say(f"{'without a prediction' if job.bad_rows == 'keep' else 'left out'}: {job.describe_faults()}")
        yield job


def _find_server(model: str, adapter: str | None, **choices: object) -> "RemotePredictor | None":
    """Return the model of a server; None where it is a folder."""
    from lorafit.errors import UserInputError

    if not model.startswith(("http://", "https://")):
        if adapter is not None:
            raise UserInputError("--adapter names a model of a server: give its address, http://HOST:PORT.")
        return None
    usual = {"raw": False, "target_accuracy": None, "reject_atypical": None, "blend": True, "verify": True}
    if changed := [name for name, value in choices.items() if value != usual[name]]:
        option = {"blend": "no-blend", "verify": "no-verify"}.get(changed[0], changed[0].replace("_", "-"))
        raise UserInputError(f"--{option} is for folders: a server's models are as it serves them.")
    from lorafit.inference.remote import KEY_VARIABLE, RemotePredictor  # which brings http and ssl

    return RemotePredictor(model, adapter, key=os.environ.get(KEY_VARIABLE))


def _find_trained_columns(folder: Path, *, named: bool) -> tuple[str, ...] | None:
    """Return the columns that held the texts of a run, two of pairs; None of no model.

    Of an export, and where they need not be `named` as they were, those of words on the command line.
    """
    from lorafit.inference.export.records import ExportLayout, ExportRecord
    from lorafit.inference.jobs import TEXT_COLUMNS
    from lorafit.runs.folder import RunLayout

    run, export = RunLayout(folder), ExportLayout(folder)
    if export.record.is_file():
        return TEXT_COLUMNS if ExportRecord.read(export.record).pair else TEXT_COLUMNS[:1]
    if not (run.record.is_file() and run.config.is_file()):
        return None
    from lorafit.runs.evidence import read_settings
    from lorafit.runs.records import RunRecord

    record = RunRecord.read(run.record)
    if not named:
        return TEXT_COLUMNS if record.pair else TEXT_COLUMNS[:1]
    data = read_settings(run, record).data
    return (data.text_column,) if data.text_pair_column is None else (data.text_column, data.text_pair_column)
