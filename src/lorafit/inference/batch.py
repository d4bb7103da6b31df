"""Predict a table of texts part by part and keep its columns: a file may be larger than memory.

While a job with a file runs, the folder `.OUTPUT.parts` beside the output holds its finished parts, each a table by
itself, and `job.json`, which says how far they go. When all are there, they become the output and the folder goes; a
job that was stopped goes on after them.
"""

import shutil
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, cast

from lorafit.data.checks import describe_rows, describe_text_fault
from lorafit.data.tables import DELIMITERS, Table, check_columns, stream_table
from lorafit.data.writing import WRITABLE_SUFFIXES, check_types, join_tables, write_table
from lorafit.errors import DataError, JobInterruptedError, RunError, UserInputError
from lorafit.inference.predictor import Predictor
from lorafit.system.atomic import compute_digest, describe_obstacle
from lorafit.system.extras import require
from lorafit.system.progress import Progress, Silent
from lorafit.system.records import FileRecord
from lorafit.tasks.base import Prediction

_PART_ROWS = 4096
_PART_CHARACTERS = 1 << 24
"""A part ends after so many rows or characters, so that memory does not grow with the file."""


@dataclass(frozen=True)
class BatchJob:
    """Texts to predict, checked; make one with `open_file` or `open_table`.

    Attributes:
        file: Where they are; None where they are at hand.
        text_column: The column of the texts.
        types: Types of the values of each column, columns in order.
        rows: Rows there are.
        usable: Those of them that can be predicted; the others are left out.
        digest: Tells the file from others; empty where there is none, since nothing is kept to go on with.
        stream: Yields the rows part by part.
    """

    file: Path | None
    text_column: str
    types: dict[str, set[type]]
    rows: int
    usable: int
    digest: str
    stream: Callable[[], Iterator[Table]]

    def parts(self, *, after: int = 0) -> Iterator[tuple[int, Table]]:
        """Yield the parts with all columns and without unusable rows.

        Args:
            after: Rows of the source to pass over.

        Yields:
            How many rows of the source lie up to the end of the part, and the part, which may have no rows.
        """
        end = 0
        for table in self.stream():
            first, end = max(after - end, 0), end + len(table)
            if end > after:
                missing: list[object] = [None] * len(table)
                columns = {name: table.columns.get(name, missing)[first:] for name in self.types}
                texts = columns[self.text_column]
                good = [row for row, text in enumerate(texts) if describe_text_fault(text) is None]
                if len(good) < len(texts):
                    columns = {name: [values[row] for row in good] for name, values in columns.items()}
                yield end, Table(columns, table.origin)


@dataclass(frozen=True)
class PredictedTable:
    """A table with its predictions.

    Attributes:
        table: The rows as they were read.
        text_column: The column of the texts.
        predictions: One a row, in the same order.
    """

    table: Table
    text_column: str
    predictions: tuple[Prediction, ...]

    def columns(self) -> dict[str, Sequence[object]]:
        """Return the original columns, then those of the predictions, for example `label`, `score` and probabilities.

        A new column whose name is taken gets `predicted_` before it.
        """
        columns: dict[str, Sequence[object]] = dict(self.table.columns)
        predicted = [prediction.columns() for prediction in self.predictions]
        for name in predicted[0]:
            free = name
            while free in columns:
                free = f"predicted_{free}"
            columns[free] = [row[name] for row in predicted]
        return columns


def read_texts(words: Sequence[str], stream: TextIO, *, text_column: str) -> Table:
    """Read texts from the command line or from standard input.

    Args:
        words: Texts given directly.
        stream: Read line by line where no words were given.
        text_column: Name of the table's only column.

    Returns:
        The table.

    Raises:
        UserInputError: There is nothing at all, or the stream is not UTF-8.
    """
    if words:
        return Table({text_column: list(words)}, "the command line")
    if stream.isatty():
        raise UserInputError('Nothing to predict. Give texts ("I loved it"), --file reviews.csv, or pipe lines in.')
    try:
        lines: list[object] = [line.rstrip("\n") for line in stream]
    except UnicodeDecodeError:
        raise UserInputError(
            "Standard input is not UTF-8. Convert it, for instance with: iconv -f latin1 -t utf-8"
        ) from None
    if not lines:
        raise UserInputError("Nothing to predict: standard input is empty.")
    return Table({text_column: lines}, "standard input")


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


def open_file(
    file: Path, *, text_column: str = "text", drop_bad_rows: bool = False, progress: Progress | None = None
) -> BatchJob:
    """Read a file once, part by part, before any work: what are its columns, and is every text one?

    Args:
        file: A table as `read_table` takes it; it need not fit into memory.
        text_column: The column of the texts. A txt file has this one alone.
        drop_bad_rows: Leave out rows whose text is empty or no text, instead of refusing the file.
        progress: Told how many rows are read.

    Returns:
        The job.

    Raises:
        UserInputError: Some texts cannot be predicted and are not to be left out, or all of them.
        DataError: The file cannot be read, has no rows, or has no such column.
    """

    def stream() -> Iterator[Table]:
        for table in stream_table(file, most_rows=_PART_ROWS, most_characters=_PART_CHARACTERS):
            named = {text_column: table.columns["text"]} if file.suffix.lower() == ".txt" else table.columns
            yield Table(named, table.origin)

    progress = progress or Silent()
    progress.start("checking the texts", unit="row")
    checked = _check(stream(), file.name, text_column, drop_bad_rows=drop_bad_rows, progress=progress)
    job = BatchJob(file, text_column, *checked, compute_digest(file), stream)
    progress.finish()
    return job


def open_table(table: Table, *, text_column: str = "text", drop_bad_rows: bool = False) -> BatchJob:
    """Check texts that are at hand.

    Args:
        table: The texts, with other columns or without.
        text_column: The column of the texts.
        drop_bad_rows: Leave out rows whose text is empty or no text, instead of refusing them.

    Returns:
        The job.

    Raises:
        UserInputError: Some texts cannot be predicted and are not to be left out, or all of them.
        DataError: There is no such column.
    """
    checked = _check(iter([table]), table.origin, text_column, drop_bad_rows=drop_bad_rows, progress=Silent())
    return BatchJob(None, text_column, *checked, "", lambda: iter([table]))


def stream_predictions(
    job: BatchJob, predictor: Predictor, *, progress: Progress | None = None
) -> Iterator[PredictedTable]:
    """Predict texts part by part.

    Args:
        job: The texts.
        predictor: From `lorafit.load`.
        progress: Told how many texts are done.

    Yields:
        The parts with their predictions, rows in their order.
    """
    progress = progress or Silent()
    progress.start("predicting", total=job.usable, unit="text")
    for _, predicted in _predict_parts(job, predictor, progress):
        if predicted is not None:
            yield predicted
    progress.finish()


def run_job(
    job: BatchJob,
    predictor: Predictor,
    output: Path,
    *,
    csv_safe: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> int:
    """Predict texts and write the table with its predictions, rows in their order.

    Args:
        job: The texts.
        predictor: From `lorafit.load`.
        output: Where to: csv, tsv, jsonl or parquet. What stands there is replaced when all is done.
        csv_safe: Whether cells of a csv or tsv output that a spreadsheet would take for a formula get a `'` before
            them.
        resume: Go on after the last finished part of a job that was stopped; begin where there is none.
        overwrite: Throw the parts of a job that was stopped away.
        progress: Told how many texts are done.

    Returns:
        The number of rows in the output.

    Raises:
        UserInputError: The output cannot be written; finished parts of a file are kept.
        RunError: A job with this output was stopped and neither `resume` nor `overwrite` is given, it was another, or
            another process is at work on it.
        JobInterruptedError: Ctrl-C; finished parts of a file are kept.
    """
    if output.suffix.lower() == ".parquet":
        check_types(job.types)
    settings = {
        "the model": predictor.fingerprint,
        "the texts": job.digest,
        "the text column": job.text_column,
        "--drop-bad-rows": str(job.usable < job.rows),
        "--csv-safe": str(csv_safe),
    }
    parts, progress = _Parts(output, settings), progress or Silent()
    try:
        parts.open(resume=resume, overwrite=overwrite)
        if parts.record.rows:
            progress.say(f"going on after {parts.record.rows:,} rows that are done")
        progress.start("predicting", total=job.usable - parts.record.rows, unit="text")
        for source_rows, predicted in _predict_parts(job, predictor, progress, after=parts.record.source_rows):
            parts.add(predicted, source_rows, csv_safe=csv_safe)
        progress.finish()
        return parts.join()
    except RunError:
        raise
    except KeyboardInterrupt:
        raise JobInterruptedError(f"Interrupted. {parts.keep(job)}") from None
    except UserInputError as error:
        raise UserInputError(f"{error} {parts.keep(job)}") from error
    except OSError as error:
        raise UserInputError(f"{output} cannot be written: {error.strerror or error}. {parts.keep(job)}") from error


def _predict_parts(
    job: BatchJob, predictor: Predictor, progress: Progress, *, after: int = 0
) -> Iterator[tuple[int, PredictedTable | None]]:
    """Predict the parts of a job as `BatchJob.parts` yields them; None stands for a part without rows."""
    done = 0

    def count(more: int) -> None:
        progress.update(done + more)

    for source_rows, table in job.parts(after=after):
        if not len(table):
            yield source_rows, None
            continue
        texts = cast("Sequence[str]", table.columns[job.text_column])  # parts have no other rows
        predictions = predictor.predict(texts, on_progress=count)
        done += len(table)
        yield source_rows, PredictedTable(table, job.text_column, tuple(predictions))


class _JobRecord(FileRecord):
    """`job.json`.

    Attributes:
        settings: What must be the same for the job to go on.
        source_rows: Rows of the source that are done, those left out among them.
        rows: Rows in the parts.
        parts: Number of parts.
    """

    settings: dict[str, str]
    source_rows: int = 0
    rows: int = 0
    parts: int = 0


class _Parts:
    """The finished parts of a job, in a `folder` beside the `output` that they will become; `record` says how far."""

    def __init__(self, output: Path, settings: dict[str, str]) -> None:
        self.output = output
        self.folder = output.with_name(f".{output.name}.parts")
        self.record = _JobRecord(settings=settings)
        self._path = self.folder / "job.json"

    def open(self, *, resume: bool, overwrite: bool) -> None:
        """Begin, or go on after what is there."""
        found = _JobRecord.read(self._path) if self._path.is_file() else None
        if found is not None and found.rows and not (overwrite and not resume):
            if not resume:
                raise RunError(
                    f"There are {found.rows:,} finished rows of a job with this output in {self.folder}: it was "
                    "stopped, or is at work. Go on after them with --resume, or start over with --overwrite."
                )
            if other := [name for name, value in self.record.settings.items() if found.settings.get(name) != value]:
                raise RunError(
                    f"{self.folder} holds parts of a job that had other values for: {', '.join(other)}. Give the same "
                    "again to go on with it, or start over with --overwrite and without --resume."
                )
            self.record = found
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.record.write(self._path)

    def add(self, predicted: PredictedTable | None, source_rows: int, *, csv_safe: bool) -> None:
        """Write a part; None only counts the rows of the source."""
        self._make_sure_to_be_alone()
        before, rows = self.record, 0
        if predicted is not None:
            rows = len(predicted.predictions)
            write_table(self._name_part(before.parts), predicted.columns(), header=before.parts == 0, csv_safe=csv_safe)
        self.record = _JobRecord(
            settings=before.settings,
            source_rows=source_rows,
            rows=before.rows + rows,
            parts=before.parts + (predicted is not None),
        )
        self.record.write(self._path)

    def join(self) -> int:
        """Make them the output, and return its rows."""
        self._make_sure_to_be_alone()
        join_tables([self._name_part(number) for number in range(self.record.parts)], self.output, self.folder)
        self._path.unlink()
        shutil.rmtree(self.folder, ignore_errors=True)
        return self.record.rows

    def keep(self, job: BatchJob) -> str:
        """Say what is kept of a job that stops here, and remove what cannot be gone on with."""
        if job.file is None or not self.record.rows:
            shutil.rmtree(self.folder, ignore_errors=True)
            return "Nothing is kept."
        return (
            f"{self.record.rows:,} rows are done and kept in {self.folder}: go on with the same command and --resume."
        )

    def _make_sure_to_be_alone(self) -> None:
        if not self._path.is_file() or _JobRecord.read(self._path) != self.record:
            raise RunError(f"Another process is at work in {self.folder}; this one stops.")

    def _name_part(self, number: int) -> Path:
        return self.folder / f"{number:06d}{self.output.suffix}"


def _check(
    tables: Iterator[Table], origin: str, text_column: str, *, drop_bad_rows: bool, progress: Progress
) -> tuple[dict[str, set[type]], int, int]:
    """Return the types of each column's values, the number of rows, and how many of these can be predicted."""
    types: dict[str, set[type]] = {}
    faults: dict[str, array[int]] = {}
    rows = 0
    for table in tables:
        for name, values in table.columns.items():
            types.setdefault(name, set()).update(map(type, values))
        texts = table.columns.get(text_column, [None] * len(table))
        for row, text in enumerate(texts, start=rows + 1):
            if (fault := describe_text_fault(text)) is not None:
                faults.setdefault(fault, array("q")).append(row)
        rows += len(table)
        progress.update(rows)
    if not rows:
        raise DataError(f"{origin} has no rows.")
    check_columns(types, {text_column: "--text-column"}, origin)
    bad = sum(map(len, faults.values()))
    listed = "; ".join(f"{fault} ({describe_rows(found)})" for fault, found in faults.items())
    if bad == rows:
        raise UserInputError(f"{origin}: none of its {rows} texts can be predicted: {listed}.")
    if bad and not drop_bad_rows:
        raise UserInputError(
            f"{origin}: {bad} of {rows} texts cannot be predicted: {listed}. "
            "`lorafit predict --drop-bad-rows` leaves them out."
        )
    return types, rows, rows - bad
