"""Write tables of columns to files, whole or part by part: csv, tsv, jsonl and parquet.

Messages name files and columns. They never hold a text.
"""

import csv
import io
import json
import math
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from lorafit.data.column_types import misfit
from lorafit.data.reading.columnar import ArrowColumn
from lorafit.data.tables import DELIMITERS
from lorafit.errors import UserInputError
from lorafit.system.atomic import replace_file, write_atomic
from lorafit.system.extras import require
from lorafit.system.faults import find_fault

WRITABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
"""Files that `write_table` makes."""

BYTE_ORDER_MARK = "\ufeff"
"""Stands before a text file for programs that take it for another encoding without it."""

_SIGN = "[=+\\-@\uff1d\uff0b\uff0d\uff20]"
_DROPPED = r"[ \xa0\"'\ufeff\x00-\x08\x0b\x0c\x0e-\x1f]*"
_NUMBER = "[+-]?[0-9]+(?:\\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_FIRST = rf"(?=[\t\r\n]|{_DROPPED}{_SIGN})"
_LATER = rf"(?=[\"']*{_SIGN})"
_FORMULA = re.compile(rf"\A{_FIRST}(?!{_NUMBER}\Z)|(?<=[,;\t|\r\n]){_LATER}(?!{_NUMBER}(?:[,;\t|\r\n\"]|\Z))")
"""Where a spreadsheet takes what follows for a formula (OWASP, "CSV Injection"): at the begin of a cell, also after
what it drops, and inside of one where a cell begins for those that expect another delimiter. Numbers are none."""

_DISARMED = re.compile(rf"\A'{_FIRST}|(?<=[,;\t|\r\n])'{_LATER}")


def write_table(
    path: Path,
    columns: Mapping[str, Sequence[object]],
    *,
    header: bool = True,
    csv_safe: bool = False,
    types: Mapping[str, Any] | None = None,
) -> None:
    """Write a table atomically.

    Args:
        path: Where to write; its suffix, one of `WRITABLE_SUFFIXES`, decides the kind. What stands there is replaced.
        columns: Values of each column by its name; all columns have the same length.
        header: Whether csv and tsv files begin with the names of the columns.
        csv_safe: Whether cells of csv and tsv files that a spreadsheet would take for a formula get a `'` before them.
        types: pyarrow's types of columns of a parquet file; it finds those that are missing or None.

    Raises:
        UserInputError: The suffix is another one, a column's values do not fit into a parquet file, or the place
            cannot be written to.
        EnvironmentUnfitError: The machine lacks something, such as room on the disk.
        ValueError: The columns differ in length.
        MissingExtraError: A parquet file is wanted and pyarrow is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in WRITABLE_SUFFIXES:
        raise UserInputError(
            f"{path.name} cannot be written: its suffix is '{path.suffix}'. Allowed: {', '.join(WRITABLE_SUFFIXES)}."
        )
    if len({len(column) for column in columns.values()}) > 1:
        raise ValueError(f"columns differ in length: { {name: len(column) for name, column in columns.items()} }")
    try:
        write_atomic(path, render_table(suffix, columns, header=header, csv_safe=csv_safe, types=types))
    except OSError as error:
        is_of_place = isinstance(error, PermissionError | NotADirectoryError)
        if not is_of_place and (fault := find_fault(error)) is not None:
            raise fault from error
        raise UserInputError(f"{path} cannot be written: {error.strerror}.") from error


def render_table(
    suffix: str,
    columns: Mapping[str, Sequence[object]],
    *,
    header: bool = True,
    csv_safe: bool = False,
    types: Mapping[str, Any] | None = None,
) -> bytes:
    """Return the content of a file as `write_table` writes it to one with this suffix."""
    if suffix == ".parquet":
        return _render_parquet(columns, types or {})
    values = {name: _as_list(column) for name, column in columns.items()}
    if suffix in DELIMITERS:
        return _render_delimited(values, DELIMITERS[suffix], header=header, csv_safe=csv_safe)
    return _render_jsonl(values)


def join_tables(
    parts: Sequence[Path],
    path: Path,
    staging: Path,
    *,
    columns: Sequence[str],
    check: Callable[[int], None],
    csv_safe: bool = False,
    mark: bool = False,
) -> int:
    """Put the parts of a table together, atomically and without reading them whole.

    Args:
        parts: Files that `write_table` made, of one kind, with the same columns and no headers.
        path: Where to; its suffix is theirs. What stands there is replaced.
        staging: A folder on the same disk, where the whole is written before it gets its name.
        columns: The names of the columns.
        check: Called with the rows, counted in the file, before it gets its name; it may refuse them.
        csv_safe: As the parts were written.
        mark: Whether a csv or tsv file begins with a byte order mark.

    Returns:
        The rows that were counted.

    Raises:
        UserInputError: A column has values of different types in two parts of a parquet file.
    """
    is_delimited = path.suffix.lower() in DELIMITERS
    with replace_file(path, staging=staging) as whole:
        if path.suffix.lower() == ".parquet":
            rows = _join_parquet(parts, whole, columns)
        else:
            with whole.open("w+b") as target:
                if is_delimited:
                    header = render_table(path.suffix.lower(), dict.fromkeys(columns, ()), csv_safe=csv_safe)
                    target.write((BYTE_ORDER_MARK.encode() if mark else b"") + header)
                start = target.tell()
                for part in parts:
                    with part.open("rb") as file:
                        shutil.copyfileobj(file, target)
                target.seek(start)
                rows = _count_rows(target, quoted=is_delimited)
        check(rows)
    return rows


def arm(field: str) -> str:
    """Take off the `'` that `write_table` puts before what a spreadsheet would take for a formula."""
    return _DISARMED.sub("", field)


def _count_rows(file: BinaryIO, *, quoted: bool) -> int:
    """Count the rows of a text file from where it stands; a line break inside quotes ends none."""
    if not quoted:
        return sum(1 for _ in file)
    rows, is_inside = 0, False
    for line in file:
        is_inside ^= line.count(b'"') % 2 == 1
        rows += not is_inside
    return rows


def _join_parquet(parts: Sequence[Path], path: Path, columns: Sequence[str]) -> int:
    pyarrow = require("pyarrow", extra="train", purpose="writing parquet files")
    parquet = require("pyarrow.parquet", extra="train", purpose="writing parquet files")
    schemas = [parquet.read_schema(part) for part in parts] or [pyarrow.schema([(name, "null") for name in columns])]
    try:
        schema = pyarrow.unify_schemas(schemas, promote_options="permissive")
        with parquet.ParquetWriter(path, schema) as writer:
            for part in parts:
                writer.write_table(parquet.read_table(part, partitioning=None).cast(schema))
    except pyarrow.ArrowException:
        kinds = {name: {str(schema.field(name).type) for schema in schemas} for name in schemas[0].names}
        unfit = next((name for name, found in kinds.items() if len(found) > 1), schemas[0].names[0])
        raise misfit(unfit, "its values are of different types") from None  # pyarrow's error may hold a value
    return int(parquet.read_metadata(path).num_rows)


def _as_list(column: Sequence[object]) -> list[Any]:
    values = column.tolist() if hasattr(column, "tolist") else column  # numpy numbers become Python's
    return list(values)


def _render_parquet(columns: Mapping[str, Sequence[object]], types: Mapping[str, Any]) -> bytes:
    pyarrow = require("pyarrow", extra="train", purpose="writing parquet files")
    parquet = require("pyarrow.parquet", extra="train", purpose="writing parquet files")
    arrays = {}
    for name, column in columns.items():
        try:
            if isinstance(column, ArrowColumn):
                arrays[name] = column.array
            else:
                arrays[name] = pyarrow.array(_as_list(column), type=types.get(name))
        except (pyarrow.ArrowException, OverflowError, UnicodeEncodeError):
            reason = "its values are of different types, too large for 64 bits, or not valid Unicode"
            raise misfit(name, reason) from None  # pyarrow's has a value
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table(arrays), buffer)
    return buffer.getvalue()


def _render_delimited(columns: Mapping[str, list[Any]], delimiter: str, *, header: bool, csv_safe: bool) -> bytes:
    rows = [list(columns)] if header else []
    as_field = _as_safe_field if csv_safe else _as_field
    buffer = io.StringIO(newline="")
    plain = csv.writer(buffer, delimiter=delimiter, lineterminator="\n")
    quoting = csv.writer(buffer, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in (*rows, *zip(*columns.values(), strict=True)):
        fields = [as_field(value) for value in row]
        # with "\n" as line end the csv module would leave a lone carriage return without quotes
        has_return = any("\r" in field for field in fields if isinstance(field, str))
        (quoting if has_return else plain).writerow(fields)
    return _encode(buffer.getvalue())


def _as_field(value: object) -> object:
    return render_json(value) if isinstance(value, dict | list) else value


def _as_safe_field(value: object) -> object:
    """Keep a spreadsheet from running a text as a formula; numbers stay."""
    field = _as_field(value)
    return _FORMULA.sub("'", field) if isinstance(field, str) else field


def _render_jsonl(columns: Mapping[str, list[Any]]) -> bytes:
    names = list(columns)
    rows = zip(*columns.values(), strict=True)
    return _encode("".join(f"{render_json(dict(zip(names, row, strict=True)))}\n" for row in rows))


def render_json(value: object, *, ascii_only: bool = False) -> str:
    """Return any value as JSON in one line.

    Args:
        value: What JSON has no form for is written as text, such as a date, or as null where it is no number.
        ascii_only: Whether all other characters are escaped, for a stream of any encoding.

    Returns:
        Valid JSON.
    """
    try:
        return json.dumps(value, ensure_ascii=ascii_only, default=str, allow_nan=False)
    except ValueError:
        return json.dumps(_drop_nan(value), ensure_ascii=ascii_only, default=str, allow_nan=False)


def _drop_nan(value: Any) -> object:  # noqa: ANN401 - whatever stands in a cell
    if isinstance(value, dict):
        return {name: _drop_nan(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_drop_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")  # half a surrogate pair, which JSON can bring in
