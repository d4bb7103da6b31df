"""Predict a table of texts part by part and keep its columns: a file may be larger than memory.

While a job with a file runs, its finished parts stand beside the output (`JobParts`). When all are there, they become
the output; a job that was stopped goes on with what is missing. Rows that were left out stand in
`OUTPUT.left_out.csv`, by number and reason.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, cast

from lorafit.data.column_types import find_parquet_types
from lorafit.data.tables import DELIMITERS, Table
from lorafit.data.writing import WRITABLE_SUFFIXES, write_table
from lorafit.errors import DataError, EnvironmentUnfitError, JobInterruptedError, RunError, UserInputError
from lorafit.inference.frames import build_columns
from lorafit.inference.given_texts import NOTHING_LEFT, AnyText
from lorafit.inference.job_parts import JobParts
from lorafit.inference.jobs import BatchJob, read_column
from lorafit.inference.predictor import BadTexts
from lorafit.system.atomic import describe_obstacle
from lorafit.system.extras import require
from lorafit.system.faults import name_faults
from lorafit.system.locks import hold
from lorafit.system.progress import Progress, Silent
from lorafit.system.text import Text, format_count
from lorafit.tasks.base import Prediction

_ROUNDS = 3
"""How often parts are computed that do not hold when all are looked at together."""

_MOST_RANGES = 10
"""Ranges of rows that a message lists."""


class BatchModel(Protocol):
    """What predicts the texts of a job: a `Predictor`, or a `RemotePredictor`."""

    fingerprint: str

    def predict(
        self, texts: Iterable[AnyText], *, bad_rows: BadTexts, on_progress: Callable[[int], None] | None = None
    ) -> list[Prediction | None]:
        """Predict texts as `Predictor.predict` does."""

    def find_example(self) -> Prediction:
        """Return any prediction; it tells which columns predictions have."""


@dataclass(frozen=True)
class PredictedTable:
    """A table with its predictions.

    Attributes:
        table: The rows as they were read.
        text_columns: The column of the texts, or those of both texts of a pair.
        predictions: One a row, in the same order; None for those of `table.faults`.
        example: Any prediction of the model: it tells what a row without one lacks.
        keeps_faults: Whether rows without a prediction are kept.
    """

    table: Table
    text_columns: tuple[str, ...]
    predictions: tuple[Prediction | None, ...]
    example: Prediction
    keeps_faults: bool = False

    @property
    def texts(self) -> list[object]:
        """What stands in the column of the texts; of pairs, tuples."""
        return read_column(self.table, self.text_columns)

    def columns(self) -> dict[str, Sequence[object]]:
        """Return the original columns, then those of the predictions, for example `label`, `score` and probabilities.

        Where rows without a prediction are kept, these are empty there, and `fault` says why. A new column whose name
        is taken gets `predicted_` before it.
        """
        return {**self.table.columns, **self.add_to(self.table.columns)}

    def add_to(self, taken: Iterable[str]) -> dict[str, list[object]]:
        """Return the columns of the predictions alone, under names that are none of those `taken`."""
        new: dict[str, list[object]] = build_columns(self.predictions, self.example)
        if self.keeps_faults:
            new["fault"] = [self.table.faults.get(row) for row in range(len(self.table))]
        added: dict[str, list[object]] = {}
        for name, values in new.items():
            free = name
            while free in taken or free in added:
                free = f"predicted_{free}"
            added[free] = values
        return added


def check_output(path: Path, *, overwrite: bool, csv_safe: bool = False) -> None:
    """Refuse an output file that cannot or must not be written, before any work is done.

    Args:
        path: The file.
        overwrite: Whether it may be replaced.
        csv_safe: Whether its cells are to be disarmed, which csv and tsv files alone need.

    Raises:
        UserInputError: Its suffix is not a table's, or it is a folder, or there already.
        MissingExtraError: It is a parquet file and pyarrow is not installed.
    """
    if path.suffix.lower() not in WRITABLE_SUFFIXES:
        raise UserInputError(f"--output {path}: allowed suffixes are {', '.join(WRITABLE_SUFFIXES)}.")
    if path.is_dir():
        raise UserInputError(f"--output {path} is a folder; give the name of a file.")
    if path.exists() and not overwrite:
        raise UserInputError(f"{path} already exists. Choose another name, or replace it with --overwrite.")
    if (obstacle := describe_obstacle(path)) is not None:
        raise UserInputError(f"{path} cannot be written: {obstacle}.")
    if csv_safe and path.suffix.lower() not in DELIMITERS:
        raise UserInputError(f"--csv-safe is for csv and tsv files; {path.name} is another kind.")
    if path.suffix.lower() == ".parquet":
        require("pyarrow.parquet", extra="train", purpose="writing parquet files")


def stream_predictions(
    job: BatchJob, predictor: BatchModel, *, progress: Progress | None = None
) -> Iterator[PredictedTable]:
    """Predict texts part by part.

    Args:
        job: The texts.
        predictor: From `lorafit.load`, or a model of a server.
        progress: Told how many texts are done.

    Yields:
        The parts with their predictions, rows in their order.

    Raises:
        DataError: The file was changed while it was read; what was yielded by then is not of one state of it.
    """
    progress = progress or Silent()
    progress.start("predicting", total=job.usable, unit="text")
    for _, predicted in _predict_parts(job, predictor, progress):
        if len(predicted.table):
            yield predicted
    if job.source is not None:
        job.source.check()
    progress.finish()


def run_job(
    job: BatchJob,
    predictor: BatchModel,
    output: Path,
    *,
    csv_safe: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> int:
    """Predict texts and write the table with its predictions, rows in their order.

    Rows that are left out are listed in a file beside the output, `name_left_out(output)`.

    Args:
        job: The texts.
        predictor: From `lorafit.load`, or a model of a server.
        output: Where to: csv, tsv, jsonl or parquet. What stands there is replaced when all is done.
        csv_safe: Whether cells of a csv or tsv output that a spreadsheet would take for a formula get a `'` before
            them.
        resume: Go on with the finished parts of a job that was stopped; begin where there are none.
        overwrite: Throw the parts of a job that was stopped away.
        progress: Told how many texts are done.

    Returns:
        The rows of the output, counted in it.

    Raises:
        UserInputError: The output cannot be written, or the file was changed meanwhile; finished parts are kept.
        EnvironmentUnfitError: The disk is full, say; finished parts of a file are kept.
        RunError: A job with this output was stopped and neither `resume` nor `overwrite` is given, it was another,
            another process is at work on it, or something else stands where its parts are kept.
        JobInterruptedError: Ctrl-C; finished parts of a file are kept.
    """
    work = _Work(job, predictor, output, csv_safe=csv_safe, progress=progress or Silent())
    with hold(output, kind="output"):
        with name_faults("Nothing was done, and what was finished before is kept."):
            work.open(resume=resume, overwrite=overwrite)
        try:
            with name_faults():
                return work.finish()
        except RunError:
            raise
        except KeyboardInterrupt:
            kept = work.stop()
            raise JobInterruptedError(f"Interrupted. {kept}") from None
        except DataError as error:
            kept = work.stop(texts="the same texts")
            raise DataError(f"{error} {kept}") from error
        except (UserInputError, EnvironmentUnfitError) as error:
            kept = work.stop()
            raise type(error)(f"{error} {kept}") from error


def name_left_out(output: Path) -> Path:
    """Return the name of the file that lists the rows left out, beside the output."""
    return output.with_name(f"{output.name}.left_out.csv")


class _Work:
    """A job, its model and its parts."""

    def __init__(
        self, job: BatchJob, predictor: BatchModel, output: Path, *, csv_safe: bool, progress: Progress
    ) -> None:
        self._job = job
        self._predictor = predictor
        self._left_out = name_left_out(output)
        self._csv_safe = csv_safe
        self._progress = progress
        self._types = find_parquet_types(job.types) if output.suffix.lower() == ".parquet" else {}
        settings = {
            "the model": predictor.fingerprint,
            **({} if job.source is None else job.source.identity),
            "--text-column": json.dumps(job.text_columns),
            "--bad-rows": "keep" if job.bad_rows == "keep" else "drop",  # what is not refused has none, or drops them
            "--csv-safe": str(csv_safe),
        }
        self._parts = JobParts(output, settings)

    def open(self, *, resume: bool, overwrite: bool) -> None:
        """Begin, or go on with what is there."""
        self._parts.open(resume=resume, overwrite=overwrite)
        if self._left_out.exists() and not overwrite and not resume:
            self.stop()
            raise UserInputError(
                f"{self._left_out} already exists. Choose another --output, or replace both with --overwrite."
            )

    def finish(self) -> int:
        """Predict what is missing, write the output, and return its rows."""
        job, parts = self._job, self._parts
        gaps = parts.check(job.rows)
        if parts.done:
            self._progress.say(f"going on after {format_count(parts.rows, 'row')} that are done")
        for _ in range(_ROUNDS):
            if parts.damaged:
                self._progress.say(f"missing or damaged: predicting {_describe_ranges(gaps)} of the texts again")
            self._fill(gaps)
            gaps = parts.check(job.rows)
            if not gaps:
                break
        else:
            raise RunError(
                f"Parts in {parts.folder} do not stay what they were: {_describe_ranges(gaps)} of the texts."
            )
        if job.source is not None:
            job.source.check()
        self._left_out.unlink(missing_ok=True)
        if job.bad_rows == "drop" and job.usable < job.rows:
            write_table(self._left_out, job.list_faults())
        return parts.join(self._name_columns(), expected=job.kept, csv_safe=self._csv_safe, mark=job.mark)

    def stop(self, *, texts: str = "") -> str:
        """Remove the parts of a job that stops here if it cannot be gone on with, and say what is kept."""
        parts = self._parts
        if parts.is_joined:
            parts.remove()
            return f"The output is complete: {parts.output}"
        with suppress(OSError):  # whose reason is the one that is told
            can_go_on = self._job.source is not None and bool(self._job.source.identity)
            if can_go_on and (rows := parts.count_rows()):
                same = f"the same command, {texts}" if texts else "the same command"
                return (
                    f"Finished and kept in {parts.folder}: {format_count(rows, 'row')}. Go on with {same} and --resume."
                )
            parts.remove()
        return "Nothing is kept."

    def _fill(self, gaps: Sequence[range]) -> None:
        """Predict rows of the source and write them as parts."""
        parts = self._parts
        self._progress.start("predicting", total=self._job.usable - parts.predicted, unit="text")
        for rows, predicted in _predict_parts(self._job, self._predictor, self._progress, gaps):
            count = sum(one is not None for one in predicted.predictions)
            table = predicted.columns() if predicted.predictions else None
            parts.add(rows, table, predicted=count, csv_safe=self._csv_safe, types=self._types)
        self._progress.finish()

    def _name_columns(self) -> list[str]:
        """Return the names of the output's columns."""
        empty = Table(dict.fromkeys(self._job.types, ()), self._left_out.name)
        keeps_faults = self._job.bad_rows == "keep"
        return list(PredictedTable(empty, (), (), self._predictor.find_example(), keeps_faults=keeps_faults).columns())


def _predict_parts(
    job: BatchJob, predictor: BatchModel, progress: Progress, ranges: Sequence[range] | None = None
) -> Iterator[tuple[range, PredictedTable]]:
    """Predict the parts of a job as `BatchJob.parts` yields them."""
    done, example = 0, predictor.find_example()

    def count(more: int) -> None:
        progress.update(done + more)

    keeps_faults = job.bad_rows == "keep"
    for source_rows, table in job.parts(ranges):
        part = PredictedTable(table, job.text_columns, (), example, keeps_faults=keeps_faults)
        where = f"{table.origin}: among rows {source_rows.start + 1:,} to {source_rows.stop:,}"
        yield source_rows, predict_part(part, predictor, where=where, on_progress=count)
        done += len(table) - len(table.faults)


def predict_part(
    part: PredictedTable, predictor: BatchModel, *, where: str, on_progress: Callable[[int], None] | None = None
) -> PredictedTable:
    """Predict the rows of a part that has no predictions yet.

    Args:
        part: The rows; those in `table.faults` get no prediction.
        predictor: As for `run_job`.
        where: What the part is, for messages.
        on_progress: Called with the number of texts that are done.

    Returns:
        The part with its predictions.

    Raises:
        UserInputError: The tokenizer leaves nothing of a text, and rows without a prediction are not kept.
    """
    texts, faults = part.texts, part.table.faults
    usable = [row for row in range(len(texts)) if row not in faults]
    asked = cast("list[Text]", [texts[row] for row in usable])
    predicted = predictor.predict(asked, bad_rows="keep", on_progress=on_progress) if usable else []
    answers = dict(zip(usable, predicted, strict=True))
    empty = {row: NOTHING_LEFT for row, prediction in answers.items() if prediction is None}
    if empty and not part.keeps_faults:
        raise UserInputError(f"{where} is {NOTHING_LEFT}. Start over with --bad-rows keep.")
    predictions = tuple(answers.get(row) for row in range(len(texts)))
    return replace(part, table=replace(part.table, faults={**faults, **empty}), predictions=predictions)


def _describe_ranges(ranges: Sequence[range]) -> str:
    """Return ranges of rows for people, who count from 1; of many the first."""
    shown = [f"{rows.start + 1:,} to {rows.stop:,}" for rows in ranges[:_MOST_RANGES]]
    more = f" and {len(ranges) - _MOST_RANGES:,} more ranges" if len(ranges) > _MOST_RANGES else ""
    return f"rows {', '.join(shown)}{more}"
