"""Write tables of columns to files, whole or part by part: csv, tsv, jsonl and parquet.

Messages name files and columns. They never hold a text.
"""

import csv
import io
import json
import shutil
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from lorafit.data.tables import DELIMITERS
from lorafit.errors import UserInputError
from lorafit.system.atomic import replace_file, write_atomic
from lorafit.system.extras import require

WRITABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
"""Files that `write_table` makes."""

_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")
_UNFIT = (
    "Column '{}' does not fit into a parquet file: its values are of different types or not valid Unicode. Choose an "
    "output file that ends in .jsonl."
)


def write_table(
    path: Path, columns: Mapping[str, Sequence[object]], *, header: bool = True, csv_safe: bool = False
) -> None:
    """Write a table atomically.

    Args:
        path: Where to write; its suffix, one of `WRITABLE_SUFFIXES`, decides the kind. What stands there is replaced.
        columns: Values of each column by its name; all columns have the same length.
        header: Whether csv and tsv files begin with the names of the columns.
        csv_safe: Whether cells of csv and tsv files that a spreadsheet would take for a formula get a `'` before them.

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
        content = _render_delimited(values, DELIMITERS[suffix], header=header, csv_safe=csv_safe)
    else:
        content = _render_jsonl(values)
    try:
        write_atomic(path, content)
    except OSError as error:
        raise UserInputError(f"{path} cannot be written: {error.strerror}.") from error


def check_types(types: Mapping[str, Set[type]]) -> None:
    """Make sure, before any work is done, that the values of every column fit into a parquet file.

    Args:
        types: Types of each column's values, by its name.

    Raises:
        UserInputError: A column has values of different types.
    """
    for name, found in types.items():
        kinds = {float if kind is int else kind for kind in found} - {type(None)}
        if len(kinds) > 1:
            raise UserInputError(_UNFIT.format(name))


def join_tables(parts: Sequence[Path], path: Path, staging: Path) -> None:
    """Put the parts of a table together, atomically and without reading them whole.

    Args:
        parts: Files that `write_table` made, of one kind, with the same columns and a header in the first alone.
        path: Where to; its suffix is theirs. What stands there is replaced.
        staging: A folder on the same disk, where the whole is written before it gets its name.

    Raises:
        UserInputError: A column has values of different types in two parts of a parquet file, or the place cannot be
            written to.
    """
    with replace_file(path, staging=staging) as whole:
        if path.suffix.lower() == ".parquet":
            _join_parquet(parts, whole)
            return
        with whole.open("wb") as target:
            for part in parts:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, target)


def _join_parquet(parts: Sequence[Path], path: Path) -> None:
    pyarrow = require("pyarrow", extra="train", purpose="writing parquet files")
    parquet = require("pyarrow.parquet", extra="train", purpose="writing parquet files")
    schemas = [parquet.read_schema(part) for part in parts]
    try:
        schema = pyarrow.unify_schemas(schemas, promote_options="permissive")
        with parquet.ParquetWriter(path, schema) as writer:
            for part in parts:
                writer.write_table(parquet.read_table(part, partitioning=None).cast(schema))
    except pyarrow.ArrowException:
        kinds = {name: {str(schema.field(name).type) for schema in schemas} for name in schemas[0].names}
        unfit = next((name for name, found in kinds.items() if len(found) > 1), schemas[0].names[0])
        raise UserInputError(_UNFIT.format(unfit)) from None  # pyarrow's error may hold a value


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
            raise UserInputError(_UNFIT.format(name)) from None  # pyarrow's has a value
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table(arrays), buffer)
    return buffer.getvalue()


def _render_delimited(columns: Mapping[str, list[Any]], delimiter: str, *, header: bool, csv_safe: bool) -> bytes:
    as_field = _as_safe_field if csv_safe else _as_field
    rows = [list(columns)] if header else []
    fields = [[as_field(value) for value in row] for row in (*rows, *zip(*columns.values(), strict=True))]
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


def _as_safe_field(value: object) -> object:
    """Keep a spreadsheet from running a text as a formula (OWASP, "CSV Injection"); numbers stay."""
    field = _as_field(value)
    if isinstance(field, str) and field.startswith(_FORMULA_SIGNS):
        try:
            float(field)
        except ValueError:
            return f"'{field}"
    return field


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
