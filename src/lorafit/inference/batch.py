"""Predict a table of texts part by part and keep its columns: a file may be larger than memory.

While a job with a file runs, the folder `.OUTPUT.parts` beside the output holds its finished parts, each a table by
itself, and `job.json`, which says how far they go. When all are there, they become the output and the folder goes; a
job that was stopped goes on after them. Rows that were left out stand in `OUTPUT.left_out.csv`, by number and reason.
"""

import io
import json
import shutil
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO, cast

import numpy as np

from lorafit.config import FormatConfig
from lorafit.data.checks import describe_rows, describe_text_fault
from lorafit.data.reading.encodings import decode, is_decodable, judge_encoding, name_encoding
from lorafit.data.tables import DELIMITERS, Table, check_columns, find_kind, stream_table
from lorafit.data.writing import WRITABLE_SUFFIXES, check_types, join_tables, write_table
from lorafit.errors import DataError, JobInterruptedError, RunError, UserInputError
from lorafit.inference.predictor import Predictor
from lorafit.system.atomic import compute_digest, describe_obstacle
from lorafit.system.extras import require
from lorafit.system.paths import expand_home
from lorafit.system.progress import Progress, Silent
from lorafit.system.records import FileRecord
from lorafit.system.text import Text, format_count
from lorafit.tasks.base import Prediction

BadRows = Literal["stop", "drop", "keep"]
"""What becomes of rows that cannot be predicted: an error, which lists them; nothing; or a row without a prediction."""

TEXT_COLUMNS = ("text", "text_pair")
"""Columns of a text, or of both texts of a pair, that have no other names."""

_PART_ROWS = 4096
_PART_CHARACTERS = 1 << 24
"""A part ends after so many rows or characters, so that memory does not grow with the file."""

_MOST_KINDS = 20
"""Kinds of fault that a message lists."""


@dataclass(frozen=True)
class BatchJob:
    """Texts to predict, checked; make one with `open_file` or `open_table`.

    Attributes:
        text_columns: The column of the texts, or those of both texts of a pair.
        bad_rows: What becomes of rows that cannot be predicted.
        types: Types of the values of each column, columns in order.
        rows: Rows there are.
        faults: What is wrong with rows that cannot be predicted, each with their numbers, counted from 1.
        identity: Tells the file, and how it is read, from others, by what differs; nothing is kept to go on with where
            it is empty.
        stream: Yields the rows part by part.
    """

    text_columns: tuple[str, ...]
    bad_rows: BadRows
    types: dict[str, set[type]]
    rows: int
    faults: Mapping[str, Sequence[int]]
    identity: dict[str, str]
    stream: Callable[[], Iterator[Table]]

    @property
    def usable(self) -> int:
        """Rows that can be predicted."""
        return self.rows - sum(map(len, self.faults.values()))

    def describe_faults(self) -> str:
        """Say how many rows cannot be predicted, and what is wrong with which."""
        return f"{self.rows - self.usable:,} of {format_count(self.rows, 'row')}: {_list_faults(self.faults)}"

    def list_faults(self) -> dict[str, list[object]]:
        """Return the rows that cannot be predicted as the columns `row` and `reason`, in their order."""
        listed = sorted((row, fault) for fault, rows in self.faults.items() for row in rows)
        return {"row": [row for row, _ in listed], "reason": [fault for _, fault in listed]}

    def parts(self, *, after: int = 0) -> Iterator[tuple[int, Table]]:
        """Yield the parts with all columns. Unusable rows are left out, or kept with what is wrong in `Table.faults`.

        Args:
            after: Rows of the source to pass over.

        Yields:
            How many rows of the source lie up to the end of the part, and the part, which may have no rows.
        """
        end = 0
        for table in self.stream():
            first, end = max(after - end, 0), end + len(table)
            if end > after:
                faults = _find_faults(table, self.text_columns)
                is_kept = self.bad_rows == "keep"
                rows = [row for row in range(first, len(table)) if is_kept or row not in faults]
                missing: list[object] = [None] * len(table)
                whole = {name: table.columns.get(name, missing) for name in self.types}
                columns = {name: [values[row] for row in rows] for name, values in whole.items()}
                kept = {place: faults[row] for place, row in enumerate(rows) if row in faults}
                yield end, Table(columns, table.origin, kept)


@dataclass(frozen=True)
class PredictedTable:
    """A table with its predictions.

    Attributes:
        table: The rows as they were read.
        text_columns: The column of the texts, or those of both texts of a pair.
        predictions: One a row, in the same order; None for those of `table.faults`.
        example: Any prediction of the model, where rows without one are kept: it tells what such a row lacks.
    """

    table: Table
    text_columns: tuple[str, ...]
    predictions: tuple[Prediction | None, ...]
    example: Prediction | None = None

    @property
    def texts(self) -> list[object]:
        """What stands in the column of the texts; of pairs, tuples."""
        return _read_column(self.table, self.text_columns)

    def columns(self) -> dict[str, Sequence[object]]:
        """Return the original columns, then those of the predictions, for example `label`, `score` and probabilities.

        Where rows without a prediction are kept, these are empty there, and `fault` says why. A new column whose name
        is taken gets `predicted_` before it.
        """
        columns: dict[str, Sequence[object]] = dict(self.table.columns)
        example = self.example or next(one for one in self.predictions if one is not None)
        predicted = [{} if one is None else one.columns() for one in self.predictions]
        new: dict[str, Sequence[object]] = {name: [row.get(name) for row in predicted] for name in example.columns()}
        if self.example is not None:
            new["fault"] = [self.table.faults.get(row) for row in range(len(self.table))]
        for name, values in new.items():
            free = name
            while free in columns:
                free = f"predicted_{free}"
            columns[free] = values
        return columns


def read_texts(
    words: Sequence[str], stream: TextIO, *, text_columns: Sequence[str] = ("text",), form: FormatConfig | None = None
) -> Table:
    """Read texts from the command line or from standard input.

    Args:
        words: Texts given directly; of pairs, both texts of one.
        stream: Read line by line where no words were given; both texts of a pair have a tab between them.
        text_columns: Names of the table's columns: one, or two for pairs.
        form: The encoding of the stream, None to find it, and what becomes of bytes that are not in it.

    Returns:
        The table.

    Raises:
        UserInputError: There is nothing at all, or words that are not one pair.
        DataError: The stream is in no encoding that is known.
    """
    if words:
        if len(text_columns) == 1:
            return Table({text_columns[0]: list(words)}, "the command line")
        if len(words) != len(text_columns):
            raise UserInputError(
                f"The model takes pairs of texts: give both texts of one pair, got {format_count(len(words), 'text')}. "
                "Several pairs come from a file (--file), or from standard input, one a line with a tab between both "
                "texts."
            )
        return Table({name: [word] for name, word in zip(text_columns, words, strict=True)}, "the command line")
    if stream.isatty():
        raise UserInputError('Nothing to predict. Give texts ("I loved it"), --file reviews.csv, or pipe lines in.')
    form = form or FormatConfig()
    told: tuple[str, ...] = ()
    if isinstance(stream, io.TextIOWrapper):
        content, origin = stream.buffer.read(), Path("standard input")
        form, told = judge_encoding(io.BytesIO(content), origin, form)
        stream = io.StringIO(decode(content, origin, form), newline=None)
    lines: list[object] = [line.rstrip("\n") for line in stream]
    if not lines:
        raise UserInputError("Nothing to predict: standard input is empty.")
    fault = f"bytes that are not {name_encoding(form)}"
    faults = {row: fault for row, line in enumerate(lines) if not is_decodable(str(line))}
    columns = _name_lines([None if row in faults else line for row, line in enumerate(lines)], text_columns)
    notes = (f"standard input: read {', '.join(told)}.",) if told else ()
    return Table(columns, "standard input", faults, notes)


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
    file: Path,
    *,
    text_columns: Sequence[str] | None = None,
    trained_columns: Sequence[str] = ("text",),
    bad_rows: BadRows = "stop",
    form: FormatConfig | None = None,
    progress: Progress | None = None,
) -> BatchJob:
    """Read a file once, part by part, before any work: what are its columns, and is every text one?

    Args:
        file: A table as `read_table` takes it; it need not fit into memory.
        text_columns: The column of the texts, or those of both texts of a pair. A txt file has one text a line, or a
            pair with a tab between both.
        trained_columns: Those to take where none are named: the ones the model was trained on, as far as the file has
            them, else "text".
        bad_rows: What becomes of rows that cannot be read, or whose text is empty or no text: `stop` refuses the file
            with a list of them, `drop` leaves them out, `keep` gives them a row without a prediction.
        form: How text files are written; None to find it.
        progress: Told how many rows are read.

    Returns:
        The job.

    Raises:
        UserInputError: Some rows cannot be predicted and the file is to be refused, or all of them are to be left out.
        DataError: The file cannot be read, has no rows, or has no such column.
    """
    file, names = expand_home(file), tuple(text_columns or trained_columns)
    progress, limits = progress or Silent(), {"most_rows": _PART_ROWS, "most_characters": _PART_CHARACTERS}
    found = next((set(table.columns) for table in stream_table(file, form, **limits)), set())
    has_lines = find_kind(file) == ".txt" and found == {"text"}
    if text_columns is None and (has_lines or not set(names) <= found):
        names = TEXT_COLUMNS[: len(names)]

    def stream() -> Iterator[Table]:
        for table in stream_table(file, form, **limits):
            columns = _name_lines(table.columns["text"], names) if has_lines else table.columns
            yield Table(columns, table.origin, table.faults, table.notes)

    progress.start("checking the texts", unit="row")
    job = _check(stream, file.name, names, bad_rows, progress, file=file, form=form)
    progress.finish()
    return job


def open_table(table: Table, *, text_columns: Sequence[str] = ("text",), bad_rows: BadRows = "stop") -> BatchJob:
    """Check texts that are at hand.

    Args:
        table: The texts, with other columns or without.
        text_columns: The column of the texts, or those of both texts of a pair.
        bad_rows: What becomes of rows whose text is empty or no text, as in `open_file`.

    Returns:
        The job.

    Raises:
        UserInputError: Some rows cannot be predicted and are to be refused, or all of them are to be left out.
        DataError: There is no such column.
    """
    return _check(lambda: iter([table]), table.origin, tuple(text_columns), bad_rows, Silent())


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

    Rows that are left out are listed in a file beside the output, `name_left_out(output)`.

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
        **job.identity,
        "--text-column": json.dumps(job.text_columns),
        "--bad-rows": "keep" if job.bad_rows == "keep" else "drop",  # what is not refused has none, or drops them
        "--csv-safe": str(csv_safe),
    }
    parts, progress, left_out = _Parts(output, settings), progress or Silent(), name_left_out(output)
    if left_out.exists() and not overwrite and not resume:
        raise UserInputError(f"{left_out} already exists. Choose another --output, or replace both with --overwrite.")
    try:
        parts.open(resume=resume, overwrite=overwrite)
        if parts.record.rows:
            progress.say(f"going on after {format_count(parts.record.rows, 'row')} that are done")
        progress.start("predicting", total=job.usable - parts.record.predicted, unit="text")
        for source_rows, predicted in _predict_parts(job, predictor, progress, after=parts.record.source_rows):
            parts.add(predicted, source_rows, csv_safe=csv_safe)
        progress.finish()
        left_out.unlink(missing_ok=True)
        if job.bad_rows == "drop" and job.usable < job.rows:
            write_table(left_out, job.list_faults())
        return parts.join()
    except RunError:
        raise
    except KeyboardInterrupt:
        raise JobInterruptedError(f"Interrupted. {parts.keep(job)}") from None
    except UserInputError as error:
        raise UserInputError(f"{error} {parts.keep(job)}") from error
    except OSError as error:
        raise UserInputError(f"{output} cannot be written: {error.strerror or error}. {parts.keep(job)}") from error


def name_left_out(output: Path) -> Path:
    """Return the name of the file that lists the rows left out, beside the output."""
    return output.with_name(f"{output.name}.left_out.csv")


def _predict_parts(
    job: BatchJob, predictor: Predictor, progress: Progress, *, after: int = 0
) -> Iterator[tuple[int, PredictedTable | None]]:
    """Predict the parts of a job as `BatchJob.parts` yields them; None stands for a part without rows."""
    done, example = 0, None
    if job.bad_rows == "keep":
        example = predictor.task.predict(np.zeros(len(predictor.task.label_names)), predictor.calibration)

    def count(more: int) -> None:
        progress.update(done + more)

    for source_rows, table in job.parts(after=after):
        if not len(table):
            yield source_rows, None
            continue
        texts = _read_column(table, job.text_columns)
        usable = cast("list[Text]", [text for row, text in enumerate(texts) if row not in table.faults])
        predicted = iter(predictor.predict(usable, on_progress=count) if usable else [])
        done += len(usable)
        predictions = tuple(None if row in table.faults else next(predicted) for row in range(len(table)))
        yield source_rows, PredictedTable(table, job.text_columns, predictions, example)


class _JobRecord(FileRecord):
    """`job.json`.

    Attributes:
        settings: What must be the same for the job to go on.
        source_rows: Rows of the source that are done, those left out among them.
        rows: Rows in the parts.
        predicted: Those of them that have a prediction.
        parts: Number of parts.
    """

    settings: dict[str, str]
    source_rows: int = 0
    rows: int = 0
    predicted: int = 0
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
                    f"There are {format_count(found.rows, 'finished row')} of a job with this output in "
                    f"{self.folder}: it was "
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
            predicted=before.predicted + (0 if predicted is None else rows - len(predicted.table.faults)),
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
        if not job.identity or not self.record.rows:
            shutil.rmtree(self.folder, ignore_errors=True)
            return "Nothing is kept."
        return (
            f"Finished and kept in {self.folder}: {format_count(self.record.rows, 'row')}. Go on with the same "
            "command and --resume."
        )

    def _make_sure_to_be_alone(self) -> None:
        if not self._path.is_file() or _JobRecord.read(self._path) != self.record:
            raise RunError(f"Another process is at work in {self.folder}; this one stops.")

    def _name_part(self, number: int) -> Path:
        return self.folder / f"{number:06d}{self.output.suffix}"


def _check(
    stream: Callable[[], Iterator[Table]],
    origin: str,
    text_columns: tuple[str, ...],
    bad_rows: BadRows,
    progress: Progress,
    *,
    file: Path | None = None,
    form: FormatConfig | None = None,
) -> BatchJob:
    """Read all rows once and find those that cannot be predicted."""
    types: dict[str, set[type]] = {}
    faults: dict[str, array[int]] = {}
    notes: set[str] = set()
    rows = 0
    for table in stream():
        for note in table.notes:
            if note not in notes:
                progress.say(note)
        notes.update(table.notes)
        found = _find_faults(table, text_columns)
        for name, values in table.columns.items():
            kept = values if bad_rows == "keep" else (value for row, value in enumerate(values) if row not in found)
            types.setdefault(name, set()).update(map(type, kept))
        for row, fault in found.items():
            faults.setdefault(fault, array("q")).append(rows + row + 1)
        rows += len(table)
        progress.update(rows)
    if not rows:
        raise DataError(f"{origin} has no rows.")
    check_columns(types, dict.fromkeys(text_columns, "--text-column"), origin)
    identity = {}
    if file is not None and file.is_file():
        identity = {"the texts": compute_digest(file), "the format": (form or FormatConfig()).model_dump_json()}
    job = BatchJob(text_columns, bad_rows, types, rows, faults, identity, stream)
    _refuse_faults(job, origin)
    return job


def _refuse_faults(job: BatchJob, origin: str) -> None:
    if job.usable == job.rows or job.bad_rows == "keep":
        return
    if not job.usable:
        raise UserInputError(
            f"{origin}: none of its {format_count(job.rows, 'row')} can be predicted: {_list_faults(job.faults)}. "
            "Are the text column (--text-column) and the encoding (--encoding) the right ones?"
        )
    if job.bad_rows == "stop":
        raise UserInputError(
            f"{origin}: cannot predict {job.describe_faults()}. Leave these rows out with --bad-rows drop, or keep "
            "them, without a prediction, with --bad-rows keep."
        )


def _find_faults(table: Table, text_columns: tuple[str, ...]) -> dict[int, str]:
    """Return what is wrong with rows that cannot be predicted, by their place in the table."""
    texts = _read_column(table, text_columns)
    found = ((row, table.faults.get(row) or describe_text_fault(text)) for row, text in enumerate(texts))
    return {row: fault for row, fault in found if fault is not None}


def _read_column(table: Table, text_columns: tuple[str, ...]) -> list[object]:
    """Return the texts, or the pairs of texts; None where a part lacks the column."""
    missing: list[object] = [None] * len(table)
    values = [table.columns.get(name, missing) for name in text_columns]
    return values[0] if len(values) == 1 else list(zip(*values, strict=True))


def _name_lines(lines: list[object], text_columns: Sequence[str]) -> dict[str, list[object]]:
    """Return lines as columns: one, or two where each line is a pair with a tab between both texts."""
    if len(text_columns) == 1:
        return {text_columns[0]: lines}
    pairs = [line.partition("\t") if isinstance(line, str) else (None, "", None) for line in lines]
    halves = [[first for first, _, _ in pairs], [second if tab else None for _, tab, second in pairs]]
    return dict(zip(text_columns, cast("list[list[object]]", halves), strict=True))


def _list_faults(faults: Mapping[str, Sequence[int]]) -> str:
    """Return what is wrong with which rows, the most frequent first; of many kinds the first twenty."""
    kinds = sorted(faults.items(), key=lambda kind: (-len(kind[1]), kind[1][0]))
    listed = "; ".join(f"{fault} ({describe_rows(rows)})" for fault, rows in kinds[:_MOST_KINDS])
    more = len(kinds) - _MOST_KINDS
    return listed if more <= 0 else f"{listed}; and {format_count(more, 'other kind')}"
