"""Tables of columns in files: csv, tsv, jsonl, parquet and plain text, for training data and for predictions.

Messages name files, rows, lines and columns. They never hold a text.
"""

import csv
import difflib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorafit.atomic import write_atomic
from lorafit.errors import DataError, UserInputError
from lorafit.extras import require

__all__ = ["READABLE_SUFFIXES", "WRITABLE_SUFFIXES", "Table", "check_columns", "read_table", "write_table"]

READABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".txt")
"""Files that `read_table` takes."""

WRITABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
"""Files that `write_table` makes."""

DELIMITERS = {".csv": ",", ".tsv": "\t"}

LARGEST_FIELD = 2**31 - 1
"""The csv module refuses fields of more than 131,072 characters unless told otherwise; this fits a C long anywhere."""


@dataclass(frozen=True)
class Table:
    """Columns of equal length, at least one row.

    Attributes:
        columns: Values of each column by its name; fields of csv, tsv and txt files are text.
        origin: The file's name, for messages.
    """

    columns: dict[str, list[object]]
    origin: str

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))


def read_table(path: Path) -> Table:
    """Read a table.

    Args:
        path: A file whose suffix is one of `READABLE_SUFFIXES`. Text files are UTF-8, with or without a byte order
            mark. A txt file has one text a line, in the column "text". Lines of a jsonl file may lack keys: their
            value is None.

    Returns:
        The table, rows in file order. Blank lines of csv, tsv and jsonl files are no rows.

    Raises:
        DataError: The file is missing, a folder, of another kind, not UTF-8, damaged, or has no rows.
        MissingExtraError: It is a parquet file and pyarrow is not installed.
    """
    suffix = path.suffix.lower()
    _check_readable(path, suffix)
    if suffix == ".parquet":
        columns = _read_parquet(path)
    elif suffix in DELIMITERS:
        columns = _read_delimited(path, DELIMITERS[suffix])
    elif suffix == ".txt":
        columns = _read_lines(path)
    else:
        columns = _read_jsonl(path)
    table = Table(columns, path.name)
    if len(table) == 0:
        raise DataError(f"{path} has no rows{' below its header' if suffix in DELIMITERS else ''}.")
    return table


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


def write_table(path: Path, columns: Mapping[str, Sequence[object]]) -> None:
    """Write a table atomically.

    Args:
        path: Where to write; its suffix, one of `WRITABLE_SUFFIXES`, decides the kind. What stands there is replaced.
        columns: Values of each column by its name; all columns have the same length.

    Raises:
        UserInputError: The suffix is another one, a column's values do not fit into a parquet file, or the place
            cannot be written to.
        ValueError: The columns differ in length.
        MissingExtraError: A parquet file is wanted and pyarrow is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in WRITABLE_SUFFIXES:
        raise UserInputError(
            f"{path.name} cannot be written: its suffix is '{path.suffix}'. Allowed: {', '.join(WRITABLE_SUFFIXES)}."
        )
    values = {name: _as_list(column) for name, column in columns.items()}
    if len({len(column) for column in values.values()}) > 1:
        raise ValueError(f"columns differ in length: { {name: len(column) for name, column in values.items()} }")
    if suffix == ".parquet":
        content = _render_parquet(values)
    elif suffix in DELIMITERS:
        content = _render_delimited(values, DELIMITERS[suffix])
    else:
        content = _render_jsonl(values)
    try:
        write_atomic(path, content)
    except OSError as error:
        raise UserInputError(f"{path} cannot be written: {error.strerror}.") from error


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


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def _read_text(path: Path) -> str:
    content = _read_bytes(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        position = error.start + (3 if content.startswith(b"\xef\xbb\xbf") else 0)
        line = content.count(b"\n", 0, position) + 1
        encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "latin1"
        raise DataError(
            f"{path} is not UTF-8: it first goes wrong at byte {position + 1}, in line {line}. Convert it, for "
            f"instance with: iconv -f {encoding} -t utf-8 {path.name} > {path.stem}.utf8{path.suffix}"
        ) from None  # the decoder's error holds the file's content


def _read_delimited(path: Path, delimiter: str) -> dict[str, list[object]]:
    csv.field_size_limit(LARGEST_FIELD)  # of the whole process; only ever raised, so readers cannot disturb each other
    reader = csv.reader(io.StringIO(_read_text(path), newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    rows: list[list[str]] = []
    try:
        for fields in reader:
            if not fields:
                continue
            if not header:
                header = _check_header(path, fields)
            elif len(fields) == len(header):
                rows.append(fields)
            else:
                raise DataError(
                    f"{path}: row {len(rows) + 1} (it ends in line {reader.line_num}) has {len(fields)} fields, the "
                    f"header has {len(header)}. A text with the delimiter or a line break in it must stand in quotes."
                )
    except csv.Error as error:
        raise DataError(
            f"{path}: row {len(rows) + 1} (line {reader.line_num}) is not well-formed: {error}. A text with a quote in "
            'it must stand in quotes, with that quote doubled: "She said ""fine"".".'
        ) from error
    if not header:
        raise DataError(f"{path} is empty.")
    columns = zip(*rows, strict=True) if rows else ([] for _ in header)
    return {name: list(column) for name, column in zip(header, columns, strict=True)}


def _check_header(path: Path, names: Sequence[str]) -> list[str]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path} has columns of the same name: {twice}. Rename or remove one of each.")
    return list(names)


def _read_lines(path: Path) -> dict[str, list[object]]:
    text = _read_text(path).replace("\r\n", "\n").removesuffix("\n")
    return {"text": list(text.split("\n")) if text.strip() else []}


def _read_jsonl(path: Path) -> dict[str, list[object]]:
    rows: list[dict[str, object]] = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):  # splitlines() would cut at U+2028, too
        if line.strip():
            rows.append(_parse_object(path, number, line))
    names = list(dict.fromkeys(name for row in rows for name in row))
    if rows and not names:
        raise DataError(f"{path} has {len(rows)} rows without any key.")
    return {name: [row.get(name) for row in rows] for name in names}


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


def _read_parquet(path: Path) -> dict[str, list[object]]:
    pyarrow = require("pyarrow", extra="train", purpose="reading parquet files")
    parquet = require("pyarrow.parquet", extra="train", purpose="reading parquet files")
    try:
        with parquet.ParquetFile(path) as file:  # read_table() would add columns for folders named key=value
            names = _check_header(path, file.schema_arrow.names)
            columns = file.read().columns
            return {name: column.to_pylist() for name, column in zip(names, columns, strict=True)}
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable parquet file: it is damaged, or of another kind.") from error


def _as_list(column: Sequence[object]) -> list[Any]:
    values = column.tolist() if hasattr(column, "tolist") else column  # numpy numbers become Python's
    return list(values)


def _render_parquet(columns: Mapping[str, list[Any]]) -> bytes:
    pyarrow = require("pyarrow", extra="train", purpose="writing parquet files")
    parquet = require("pyarrow.parquet", extra="train", purpose="writing parquet files")
    arrays = {}
    for name, values in columns.items():
        try:
            arrays[name] = pyarrow.array(values)
        except (pyarrow.ArrowException, OverflowError, UnicodeEncodeError):
            raise UserInputError(
                f"Column '{name}' does not fit into a parquet file: its values are of different types or not valid "
                "Unicode. Choose an output file that ends in .jsonl."
            ) from None  # the error of pyarrow holds a value
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table(arrays), buffer)
    return buffer.getvalue()


def _render_delimited(columns: Mapping[str, list[Any]], delimiter: str) -> bytes:
    rows = ([_as_field(value) for value in row] for row in zip(*columns.values(), strict=True))
    fields: list[list[object]] = [list(columns), *rows]
    buffer = io.StringIO(newline="")
    if any("\r" in field for row in fields for field in row if isinstance(field, str)):
        # with "\n" as line end the csv module would leave a lone carriage return without quotes
        writer = csv.writer(buffer, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
    else:
        writer = csv.writer(buffer, delimiter=delimiter, lineterminator="\n")
    writer.writerows(fields)
    return _encode(buffer.getvalue())


def _as_field(value: object) -> object:
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, dict | list) else value


def _render_jsonl(columns: Mapping[str, list[Any]]) -> bytes:
    names = list(columns)
    lines = (
        json.dumps(dict(zip(names, map(_nan_to_none, row), strict=True)), ensure_ascii=False, default=str)
        for row in zip(*columns.values(), strict=True)
    )
    return _encode("".join(f"{line}\n" for line in lines))


def _nan_to_none(value: object) -> object:
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124  only NaN differs from itself


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")  # half a surrogate pair, which JSON can bring in
