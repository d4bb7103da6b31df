"""Read tables of columns from files: csv, tsv, jsonl, parquet and plain text, whole or part by part.

Messages name files, rows, lines and columns. They never hold a text.
"""

import codecs
import csv
import difflib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TextIO, TypeVar

from lorafit.config import FormatConfig
from lorafit.errors import DataError
from lorafit.system.extras import require

_Row = TypeVar("_Row")


READABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".txt")
"""Files that `read_table` takes."""

DELIMITERS = {".csv": ",", ".tsv": "\t"}
"""By suffix."""

LARGEST_FIELD = 2**31 - 1
"""The csv module refuses fields of more than 131,072 characters unless told otherwise; this fits a C long anywhere."""

_BLOCK = 1 << 20
_PARQUET_ROWS = 1024


@dataclass(frozen=True)
class Table:
    """Columns of equal length.

    Attributes:
        columns: Values of each column by its name; fields of csv, tsv and txt files are text.
        origin: The file's name, for messages.
        faults: What is wrong with rows that could not be read, by their place in the table, counted from 0; their
            cells are None.
        notes: What was found in the file that a user should know: encoding, delimiter, rows that swallowed others.
    """

    columns: dict[str, list[object]]
    origin: str
    faults: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))


def read_table(path: Path, form: FormatConfig | None = None) -> Table:
    """Read a table.

    Args:
        path: A file whose suffix is one of `READABLE_SUFFIXES`. Text files are UTF-8, with or without a byte order
            mark. A txt file has one text a line, in the column "text". Lines of a jsonl file may lack keys: their
            value is None.
        form: How text files are written; None to find it.

    Returns:
        The table, rows in file order. Blank lines of csv, tsv and jsonl files are no rows.

    Raises:
        DataError: The file is missing, a folder, of another kind, not UTF-8, damaged, or has no rows.
        MissingExtraError: It is a parquet file and pyarrow is not installed.
    """
    for table in stream_table(path, form):
        return table
    raise DataError(f"{path} has no rows{' below its header' if path.suffix.lower() in DELIMITERS else ''}.")


def stream_table(
    path: Path, form: FormatConfig | None = None, *, most_rows: int | None = None, most_characters: int | None = None
) -> Iterator[Table]:
    """Read a table part by part, so that it need not fit into memory.

    Args:
        path: A file as `read_table` takes it.
        form: How text files are written; None to find it.
        most_rows: Rows of a part at most; None for no limit.
        most_characters: Characters after which a part ends; None for no limit.

    Yields:
        The parts in file order, none of them empty. A part of a jsonl file has the columns that its own rows have.

    Raises:
        DataError: As `read_table` does, when the fault is reached; a file without rows yields nothing.
        MissingExtraError: It is a parquet file and pyarrow is not installed.
    """
    suffix = path.suffix.lower()
    _check_readable(path, suffix)
    limit = _Limit(most_rows or sys.maxsize, most_characters or sys.maxsize)
    if suffix == ".parquet":
        parts = _stream_parquet(path, limit)
    elif suffix in DELIMITERS:
        parts = _stream_delimited(path, DELIMITERS[suffix], limit)
    elif suffix == ".txt":
        parts = _stream_lines(path, limit)
    else:
        parts = _stream_jsonl(path, limit)
    for columns in parts:
        yield Table(columns, path.name)


def check_columns(names: Iterable[str], wanted: Mapping[str, str], origin: str) -> None:
    """Make sure that columns are there.

    Args:
        names: The columns there are.
        wanted: Column name to the flag that chooses it ("--text-column").
        origin: Where the columns are, for the message.

    Raises:
        DataError: A column is missing; the message lists those there.
    """
    present = list(names)
    for name, flag in wanted.items():
        if name not in present:
            raise DataError(f"{origin} has no column '{name}'. Its columns: {present}. Choose one of them with {flag}.")


def _check_readable(path: Path, suffix: str) -> None:
    if path.is_dir():
        raise DataError(f"{path} is a folder; a file is needed ({', '.join(READABLE_SUFFIXES)}).")
    if suffix not in READABLE_SUFFIXES:
        raise DataError(
            f"{path} cannot be read: its suffix is '{path.suffix}'. Allowed: {', '.join(READABLE_SUFFIXES)}."
        )
    if not path.exists():
        siblings = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, siblings, n=1)
        raise DataError(f"There is no file {path}.{f' Did you mean {path.with_name(near[0])}?' if near else ''}")


class _Limit(NamedTuple):
    rows: int
    characters: int


def _cut(rows: Iterable[_Row], measure: Callable[[_Row], int], limit: _Limit) -> Iterator[list[_Row]]:
    """Gather rows until there are so many, or so long ones, as a part may have."""
    part: list[_Row] = []
    characters = 0
    for row in rows:
        part.append(row)
        characters += measure(row)
        if len(part) >= limit.rows or characters >= limit.characters:
            yield part
            part, characters = [], 0
    if part:
        yield part


@contextmanager
def _open_text(path: Path, newline: str) -> Iterator[TextIO]:
    try:
        with path.open(encoding="utf-8-sig", newline=newline) as file:
            yield file
    except UnicodeDecodeError:
        raise DataError(_describe_encoding(path)) from None  # the decoder's error holds the file's content
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def _describe_encoding(path: Path) -> str:
    """Say where a file first is not UTF-8."""
    position, start = _find_fault(path)
    with path.open("rb") as file:
        line = 1 + sum(file.read(min(_BLOCK, position - place)).count(b"\n") for place in range(0, position, _BLOCK))
    encoding = "utf-16" if start in {b"\xff\xfe", b"\xfe\xff"} else "latin1"
    return (
        f"{path} is not UTF-8: it first goes wrong at byte {position + 1}, in line {line}. Convert it, for "
        f"instance with: iconv -f {encoding} -t utf-8 {path.name} > {path.stem}.utf8{path.suffix}"
    )


def _find_fault(path: Path) -> tuple[int, bytes]:
    """Return the place of the first byte that is not UTF-8, and the file's first two bytes."""
    decoder, done, start = codecs.getincrementaldecoder("utf-8")(), 0, b""
    with path.open("rb") as file:
        while True:
            block = file.read(_BLOCK)
            start = start or block[:2]
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                return done + len(block) - len(error.object) + error.start, start
            if not block:
                return done, start
            done += len(block)


def _stream_delimited(path: Path, delimiter: str, limit: _Limit) -> Iterator[dict[str, list[object]]]:
    csv.field_size_limit(LARGEST_FIELD)  # of the whole process; only ever raised, so readers cannot disturb each other
    with _open_text(path, newline="") as file:
        rows = _parse_rows(path, file, delimiter)
        header = next(rows, None)
        if header is None:
            raise DataError(f"{path} is empty.")
        for part in _cut(rows, lambda fields: sum(map(len, fields)), limit):
            columns = zip(*part, strict=True)
            yield {name: list(column) for name, column in zip(header, columns, strict=True)}


def _parse_rows(path: Path, file: TextIO, delimiter: str) -> Iterator[list[str]]:
    """Yield the header and then every row."""
    header, number = None, 1
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    try:
        for fields in reader:
            if not fields:
                continue
            if header is None:
                header = _check_header(path, fields)
            elif len(fields) == len(header):
                number += 1
            else:
                raise DataError(
                    f"{path}: row {number} (it ends in line {reader.line_num}) has {len(fields)} fields, the "
                    f"header has {len(header)}. A text with the delimiter or a line break in it must stand in quotes."
                )
            yield fields
    except csv.Error as error:
        raise DataError(
            f"{path}: row {number} (line {reader.line_num}) is not well-formed: {error}. A text with a quote in "
            'it must stand in quotes, with that quote doubled: "She said ""fine"".".'
        ) from error


def _check_header(path: Path, names: Sequence[str]) -> list[str]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path} has columns of the same name: {twice}. Rename or remove one of each.")
    return list(names)


def _stream_lines(path: Path, limit: _Limit) -> Iterator[dict[str, list[object]]]:
    with _open_text(path, newline="\n") as file:
        lines = (line[:-2] if line.endswith("\r\n") else line.removesuffix("\n") for line in file)
        for part in _cut(_drop_if_blank(lines), len, limit):
            yield {"text": list(part)}


def _drop_if_blank(lines: Iterable[str]) -> Iterator[str]:
    """Yield all lines, or none where all are blank."""
    held: list[str] = []
    texts = iter(lines)
    for line in texts:
        held.append(line)
        if line.strip():
            yield from held
            yield from texts


def _stream_jsonl(path: Path, limit: _Limit) -> Iterator[dict[str, list[object]]]:
    known: list[str] = []
    with _open_text(path, newline="\n") as file:  # universal line ends would not cut at U+2028 either, but at "\r"
        lines = ((number, line.removesuffix("\n")) for number, line in enumerate(file, start=1) if line.strip())
        for part in _cut(lines, lambda numbered: len(numbered[1]), limit):
            rows = [_parse_object(path, number, line) for number, line in part]
            names = list(dict.fromkeys(name for row in rows for name in row))
            known = names or known
            if not known:
                raise DataError(f"{path} has {len(rows)} rows without any key.")
            yield {name: [row.get(name) for row in rows] for name in known}


def _parse_object(path: Path, number: int, line: str) -> dict[str, object]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        whole = ' A whole JSON list is not jsonl: write one object a line, as in {"text": "…", "label": "…"}.'
        raise DataError(
            f"{path}: line {number} is not valid JSON: {error.msg} at column {error.colno}."
            f"{whole if line.lstrip().startswith('[') else ''}"
        ) from None  # the parser's error holds the line
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: line {number} cannot be read as JSON: a number too long or too many levels."
        ) from error
    if not isinstance(value, dict):
        raise DataError(
            f"{path}: line {number} is a JSON {type(value).__name__}, an object is needed, as in "
            '{"text": "…", "label": "…"}.'
        )
    return value


def _stream_parquet(path: Path, limit: _Limit) -> Iterator[dict[str, list[object]]]:
    pyarrow = require("pyarrow", extra="train", purpose="reading parquet files")
    parquet = require("pyarrow.parquet", extra="train", purpose="reading parquet files")
    try:
        # read_table() would add columns for folders named key=value; with a buffer of its own the file stays in memory
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=_BLOCK) as file:
            names = _check_header(path, file.schema_arrow.names)
            batches = file.iter_batches(batch_size=min(limit.rows, _PARQUET_ROWS))
            rows = (row for batch in batches for row in zip(*(c.to_pylist() for c in batch.columns), strict=True))
            for part in _cut(rows, _measure_texts, limit):
                yield {name: list(column) for name, column in zip(names, zip(*part, strict=True), strict=True)}
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable parquet file: it is damaged, or of another kind.") from error


def _measure_texts(row: Sequence[object]) -> int:
    return sum(len(value) for value in row if isinstance(value, str))
