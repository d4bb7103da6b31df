"""Texts to predict: read once before any work, to find what cannot be predicted, then again part by part.

Both readings see the same bytes, or the job ends with an error.
"""

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from lorafit.config import FormatConfig
from lorafit.data.checks import describe_rows, describe_text_fault
from lorafit.data.column_types import ValueTypes
from lorafit.data.reading.encodings import has_mark
from lorafit.data.reading.stamps import Stamp, describe_change
from lorafit.data.tables import Table, check_columns, find_kind, select, stream_table
from lorafit.errors import DataError, UserInputError
from lorafit.system.atomic import compute_digest
from lorafit.system.paths import expand_home
from lorafit.system.progress import Progress, Silent
from lorafit.system.text import format_count

BadRows = Literal["stop", "drop", "keep"]
"""What becomes of rows that cannot be predicted: an error, which lists them; nothing; or a row without a prediction."""

TEXT_COLUMNS = ("text", "text_pair")
"""Columns of a text, or of both texts of a pair, that have no other names."""

_PART_ROWS = 4096
_PART_CHARACTERS = 1 << 24
"""A part ends after so many rows or characters, so that memory does not grow with the file."""

_MOST_KINDS = 20
"""Kinds of fault that a message lists."""


class Source:
    """A file or folder that is read several times.

    `identity` tells the content of a file, and how it is read, from others, by what differs; it is empty of a folder.
    """

    def __init__(self, path: Path, form: FormatConfig) -> None:
        self._stamp = Stamp.take(path)
        self._is_file = path.is_file()
        self.identity: dict[str, str] = {}
        if self._is_file:
            self.identity = {"the texts": compute_digest(path), "the format": form.model_dump_json()}

    def glance(self) -> None:
        """Make sure, between two parts, that a file was not changed since the first reading began.

        Raises:
            DataError: Its size or time is another.
        """
        if self._is_file:
            self._stamp.check()

    def check(self) -> None:
        """Make sure, at the end of a reading, that nothing was changed since the first one began.

        Raises:
            DataError: Size, time or content of a file is another, or files of a folder are.
        """
        self._stamp.check()
        if self._is_file and compute_digest(self._stamp.path) != self.identity["the texts"]:
            raise describe_change(self._stamp.path)


@dataclass(frozen=True)
class BatchJob:
    """Texts to predict, checked; make one with `open_file` or `open_table`.

    Attributes:
        text_columns: The column of the texts, or those of both texts of a pair.
        bad_rows: What becomes of rows that cannot be predicted.
        types: What was seen of the values of each column, columns in order.
        rows: Rows there are.
        faults: What is wrong with rows that cannot be predicted, each with their numbers, counted from 1.
        stream: Yields the rows part by part.
        source: What they are read from; None where they are at hand, and nothing is kept to go on with.
        mark: Whether the file begins with a byte order mark.
    """

    text_columns: tuple[str, ...]
    bad_rows: BadRows
    types: dict[str, ValueTypes]
    rows: int
    faults: Mapping[str, Sequence[int]]
    stream: Callable[[], Iterator[Table]]
    source: Source | None = None
    mark: bool = False

    @property
    def usable(self) -> int:
        """Rows that can be predicted."""
        return self.rows - sum(map(len, self.faults.values()))

    @property
    def kept(self) -> int:
        """Rows that there are when all is done."""
        return self.usable if self.bad_rows == "drop" else self.rows

    def describe_faults(self) -> str:
        """Say how many rows cannot be predicted, and what is wrong with which."""
        return f"{self.rows - self.usable:,} of {format_count(self.rows, 'row')}: {_list_faults(self.faults)}"

    def list_faults(self) -> dict[str, list[object]]:
        """Return the rows that cannot be predicted as the columns `row` and `reason`, in their order."""
        listed = sorted((row, fault) for fault, rows in self.faults.items() for row in rows)
        return {"row": [row for row, _ in listed], "reason": [fault for _, fault in listed]}

    def parts(self, ranges: Sequence[range] | None = None) -> Iterator[tuple[range, Table]]:
        """Yield the parts with all columns. Unusable rows are left out, or kept with what is wrong in `Table.faults`.

        Args:
            ranges: Rows of the source to yield, counted from 0, in ascending order; None for all.

        Yields:
            The rows of the source that the part is made of, and the part, which may have no rows.

        Raises:
            DataError: The source was changed since it was checked.
        """
        wanted = [range(self.rows)] if ranges is None else list(ranges)
        end = 0
        for table in self.stream() if wanted else ():
            start, end = end, end + len(table)
            for span in wanted:
                rows = range(max(start, span.start), min(end, span.stop))
                if rows:
                    part = self._take(table, range(rows.start - start, rows.stop - start))
                    if self.source is not None:
                        self.source.glance()
                    yield rows, part
            if end >= wanted[-1].stop:
                break
        if wanted and end < wanted[-1].stop and self.source is not None:
            self.source.check()
        if wanted and end < wanted[-1].stop:
            raise DataError(f"There are fewer rows than the {self.rows:,} that were found before.")

    def _take(self, table: Table, rows: range) -> Table:
        """Return rows of a part of the source, with all columns of the whole."""
        faults = find_faults(table, self.text_columns)
        kept = [row for row in rows if self.bad_rows == "keep" or row not in faults]
        missing: list[object] = [None] * len(table)
        columns = {name: select(table.columns.get(name, missing), kept) for name in self.types}
        return Table(columns, table.origin, {place: faults[row] for place, row in enumerate(kept) if row in faults})


def open_file(
    file: Path,
    *,
    text_columns: Sequence[str] | None = None,
    trained_columns: Sequence[str] = ("text",),
    bad_rows: BadRows = "stop",
    form: FormatConfig | None = None,
    origin: str | None = None,
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
        origin: What it is called in messages; None for its name.
        progress: Told how many rows are read.

    Returns:
        The job.

    Raises:
        UserInputError: Some rows cannot be predicted and the file is to be refused, or all of them are to be left out.
        DataError: The file cannot be read, has no rows, or has no such column.
    """
    file, names, form = expand_home(file), tuple(text_columns or trained_columns), form or FormatConfig()
    progress, limits = progress or Silent(), {"most_rows": _PART_ROWS, "most_characters": _PART_CHARACTERS}
    source = Source(file, form)
    found = next((set(table.columns) for table in stream_table(file, form, **limits)), set())
    has_lines = find_kind(file) == ".txt" and found == {"text"}
    if text_columns is None and (has_lines or not set(names) <= found):
        names = TEXT_COLUMNS[: len(names)]

    def stream() -> Iterator[Table]:
        for table in stream_table(file, form, **limits):
            columns = name_lines(table.columns["text"], names) if has_lines else table.columns
            yield Table(columns, table.origin, table.faults, table.notes)

    progress.start("checking the texts", unit="row")
    job = _check(stream, origin or file.name, names, bad_rows, progress, source=source, mark=has_mark(file))
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


def find_faults(table: Table, text_columns: tuple[str, ...]) -> dict[int, str]:
    """Return what is wrong with rows that cannot be predicted, by their place in the table."""
    texts = read_column(table, text_columns)
    found = ((row, table.faults.get(row) or describe_text_fault(text)) for row, text in enumerate(texts))
    return {row: fault for row, fault in found if fault is not None}


def read_column(table: Table, text_columns: tuple[str, ...]) -> list[object]:
    """Return the texts, or the pairs of texts; None where a part lacks the column."""
    missing: list[object] = [None] * len(table)
    values = [table.columns.get(name, missing) for name in text_columns]
    return list(values[0]) if len(values) == 1 else list(zip(*values, strict=True))


def name_lines(lines: Sequence[object], text_columns: Sequence[str]) -> dict[str, list[object]]:
    """Return lines as columns: one, or two where each line is a pair with a tab between both texts."""
    if len(text_columns) == 1:
        return {text_columns[0]: list(lines)}
    pairs = [line.partition("\t") if isinstance(line, str) else (None, "", None) for line in lines]
    halves = [[first for first, _, _ in pairs], [second if tab else None for _, tab, second in pairs]]
    return dict(zip(text_columns, cast("list[list[object]]", halves), strict=True))


def _check(
    stream: Callable[[], Iterator[Table]],
    origin: str,
    text_columns: tuple[str, ...],
    bad_rows: BadRows,
    progress: Progress,
    *,
    source: Source | None = None,
    mark: bool = False,
) -> BatchJob:
    """Read all rows once and find those that cannot be predicted."""
    types: dict[str, ValueTypes] = {}
    faults: dict[str, array[int]] = {}
    notes: set[str] = set()
    rows = 0
    for table in stream():
        for note in table.notes:
            if note not in notes:
                progress.say(note)
        notes.update(table.notes)
        found = find_faults(table, text_columns)
        kept = [row for row in range(len(table)) if bad_rows == "keep" or row not in found]
        for name, values in table.columns.items():
            types.setdefault(name, ValueTypes()).see(select(values, kept))
        for row, fault in found.items():
            faults.setdefault(fault, array("q")).append(rows + row + 1)
        rows += len(table)
        progress.update(rows)
    if source is not None:
        source.check()
    if not rows:
        raise DataError(f"{origin} has no rows.")
    check_columns(types, dict.fromkeys(text_columns, "--text-column"), origin)
    job = BatchJob(text_columns, bad_rows, types, rows, faults, stream, source, mark)
    _refuse_faults(job, origin)
    return job


def _refuse_faults(job: BatchJob, origin: str) -> None:
    if job.usable == job.rows or job.bad_rows == "keep":
        return
    if not job.usable:
        question = " Are the text column (--text-column) and the encoding (--encoding) the right ones?"
        raise UserInputError(
            f"{origin}: none of its {format_count(job.rows, 'row')} can be predicted: {_list_faults(job.faults)}."
            f"{question if job.source is not None else ''}"
        )
    if job.bad_rows == "stop":
        raise UserInputError(
            f"{origin}: cannot predict {job.describe_faults()}. Leave these rows out with --bad-rows drop, or keep "
            "them, without a prediction, with --bad-rows keep."
        )


def _list_faults(faults: Mapping[str, Sequence[int]]) -> str:
    """Return what is wrong with which rows, the most frequent first; of many kinds the first twenty."""
    kinds = sorted(faults.items(), key=lambda kind: (-len(kind[1]), kind[1][0]))
    listed = "; ".join(f"{fault} ({describe_rows(rows)})" for fault, rows in kinds[:_MOST_KINDS])
    more = len(kinds) - _MOST_KINDS
    return listed if more <= 0 else f"{listed}; and {format_count(more, 'other kind')}"
