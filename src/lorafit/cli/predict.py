"""`lorafit predict`: apply a model to texts."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lorafit.cli.options import (
    Blended,
    ClusterAddress,
    Quiet,
    TargetAccuracy,
    TextOptions,
    accepts_altered,
    check_no_cluster,
    takes_base,
    takes_threads,
)
from lorafit.cli.render.progress import open_progress
from lorafit.system.paths import expand_home
from lorafit.system.text import disarm, format_count

if TYPE_CHECKING:
    from lorafit.cluster.prediction import ClusterJob
    from lorafit.inference.jobs import BatchJob
    from lorafit.inference.predictor import Predictor
    from lorafit.inference.remote import RemotePredictor
    from lorafit.system.progress import Progress

_FEW = 64
"""Texts at most that a run's kept graph answers: loading torch takes longer than they do; more are quicker by torch."""


@dataclass(frozen=True, kw_only=True)
class PredictedOptions(TextOptions):
    """How files with texts are read, and by how many machines."""

    engine: Annotated[
        Literal["local", "ray"],
        typer.Option("--engine", help="ray: on a cluster, from many files to a folder of parquet files."),
    ] = "local"
    address: ClusterAddress = None
    cpus_per_actor: Annotated[
        int, typer.Option("--cpus-per-actor", metavar="N", min=1, help="CPUs that each actor of Ray computes with.")
    ] = 2
    id_column: Annotated[
        str | None,
        typer.Option("--id-column", help="With Ray: column of ids, each there once, by which a job is resumed."),
    ] = None

    def check(self, *, is_remote: bool) -> None:
        """Refuse what is for a cluster where there is none, and a server where there is one."""
        from lorafit.errors import UserInputError

        if self.engine != "ray":
            check_no_cluster({"--address": self.address, "--id-column": self.id_column})
        if self.engine == "ray" and is_remote:
            raise UserInputError("--engine ray takes a folder that all nodes see, not a model of a server.")

    def describe_job(self, folder: Path, files: str | None, output: str | None, *, unfit: bool) -> "ClusterJob":
        """Return the job of a cluster that these options describe, unless others are given that are unfit for one."""
        from lorafit.cluster.prediction import ClusterJob
        from lorafit.config import load_config
        from lorafit.errors import UserInputError
        from lorafit.inference.jobs import TEXT_COLUMNS

        if unfit or files is None or files == "-" or output is None:
            raise UserInputError("--engine ray takes --file with what is to be predicted and --output with a folder.")
        given = self.collect({})
        if unread := [name for name, value in given.items() if name.startswith("data.format.") and value is not None]:
            raise UserInputError(
                f"--{unread[0].rpartition('.')[2].replace('_', '-')}: Ray reads files as they usually are."
            )
        return ClusterJob(
            files,
            output,
            tuple(self.text_columns or _find_trained_columns(folder, named=True) or TEXT_COLUMNS[:1]),
            self.id_column,
            load_config(flags=given).data.bad_rows,
            self.address,
            self.cpus_per_actor,
        )


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
    named_file: Annotated[
        str | None,
        typer.Option(
            "--file", "-f", help="Texts in a csv, tsv, jsonl, xlsx, parquet or txt file; - is standard input."
        ),
    ] = None,
    rows: PredictedOptions,
    named_output: Annotated[
        str | None,
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

    choices: dict[str, Any] = {
        "raw": raw,
        "target_accuracy": target_accuracy,
        "reject_atypical": reject_atypical,
        "verify": verify,
        "blend": blend,
    }
    rows.check(is_remote=adapter is not None or run.startswith(("http://", "https://")))
    if rows.engine == "ray":
        _predict_on_cluster(
            partial(load, locate_run(run), runtime=runtime if runtime == "torch" else None, **choices),
            rows.describe_job(locate_run(run), named_file, named_output, unfit=bool(texts) or json or csv_safe),
            resume=resume,
            overwrite=overwrite,
            quiet=quiet,
        )
        return
    file = None if named_file in {None, "-"} else expand_home(Path(named_file))
    output = None if named_output is None else expand_home(Path(named_output))
    if texts and named_file is not None:
        raise UserInputError("Give texts or --file, not both.")
    if resume and (file is None or output is None):
        raise UserInputError("--resume needs the --file and --output of the job it resumes.")
    if csv_safe and output is None:
        raise UserInputError("--csv-safe is for csv and tsv files: name one with --output.")
    if output is not None:
        batch.check_output(output, overwrite=overwrite, csv_safe=csv_safe)
    remote = _find_server(run, adapter, **choices)
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
            **choices,
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
        _report(job, output, written)


def _report(job: "BatchJob", output: Path, written: int) -> None:
    """Say what was written, and what was not."""
    from lorafit.inference.batch import name_left_out

    bad = job.rows - job.usable
    kept = job.bad_rows == "keep"
    sys.stderr.write(f"{format_count(written, 'row' if kept else 'prediction')} written to {disarm(str(output))}\n")
    if bad:
        where = "without a prediction" if kept else f"left out: {name_left_out(output)}"
        sys.stderr.write(f"{format_count(bad, 'row')} {disarm(where)}\n")


def _predict_on_cluster(
    open_model: "Callable[[], Predictor]", job: "ClusterJob", *, resume: bool, overwrite: bool, quiet: bool
) -> None:
    from lorafit.cluster.prediction import run_cluster_job

    with open_progress(quiet=quiet) as progress:
        written = run_cluster_job(job, open_model(), resume=resume, overwrite=overwrite, progress=progress)
    if not quiet:
        sys.stderr.write(f"{format_count(written, 'row')} written to {disarm(job.output)}\n")


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
