"""Read the first sheet of an .xlsx file."""

import datetime
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain, islice
from typing import Final

from lorafit.config import FormatConfig
from lorafit.data.reading.dialects import describe_numbers, looks_like_data
from lorafit.data.reading.opening import StoredFile, check_archive
from lorafit.data.reading.parts import Limit, Part, cut, measure_texts, name_columns
from lorafit.errors import DataError
from lorafit.system.extras import require

_SAMPLE: Final = 2000
"""Rows by which a header is told from data."""


def stream_sheet(file: StoredFile, form: FormatConfig, limit: Limit, notes: list[str]) -> Iterator[Part]:
    """Read the first sheet of a spreadsheet.

    Args:
        file: The file.
        form: Whether it begins with names of columns.
        limit: How large a part may be.
        notes: Takes what a user should know: that there are other sheets, or no header.

    Yields:
        The parts. Numbers stay numbers, dates become text, empty rows are no rows.

    Raises:
        DataError: The file is damaged, of another kind, or begins with a title.
        MissingExtraError: openpyxl is not installed.
    """
    openpyxl = require("openpyxl", extra="tables", purpose="reading .xlsx files")
    check_archive(file.path)
    try:
        with _ignore_warnings():
            book = openpyxl.load_workbook(file.path, read_only=True, data_only=True)
        with closing(book):
            sheets = book.worksheets
            if not sheets:
                raise DataError(f"{file.path} has no sheet with cells.")
            if len(sheets) > 1:
                others = [sheet.title for sheet in sheets[1:]]
                notes.append(
                    f"{file.path.name}: the first sheet was read, {sheets[0].title!r}; the others are "
                    f"{', '.join(map(repr, others[:10]))}. To read one of those, save it as a csv file."
                )
            sheets[0].reset_dimensions()  # what a file says of its own size is often wrong
            yield from _stream_rows(file, _read_rows(sheets[0].iter_rows(values_only=True)), form, limit, notes)
    except (
        zipfile.BadZipFile,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        IndexError,
        OSError,
        SyntaxError,
    ) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file.path} is not a readable .xlsx file: it is damaged, or of another kind.") from error


def _stream_rows(
    file: StoredFile, rows: Iterator[list[object]], form: FormatConfig, limit: Limit, notes: list[str]
) -> Iterator[Part]:
    sample = list(islice(rows, _SAMPLE))
    if not sample:
        return
    first = sample[0]
    while first[-1] is None:
        first.pop()
    width = len(first)
    _check_no_title(file, sample)
    header = form.header
    if header is None and not (header := not looks_like_data([_write_row(row, width) for row in sample])):
        notes.append(f"{file.path.name}: read {describe_numbers(width)}.")
    written = _write_row(first, width) if header else [str(number) for number in range(1, width + 1)]
    names = name_columns(written, str(file.path))
    for part in cut(chain(sample[1:] if header else sample, rows), measure_texts, limit.narrow(width)):
        faults = {
            place: f"{len(row)} fields instead of {width}" for place, row in enumerate(part) if _is_wider(row, width)
        }
        even = [
            [None] * width if place in faults else [*row, *[None] * width][:width] for place, row in enumerate(part)
        ]
        yield Part({name: list(column) for name, column in zip(names, zip(*even, strict=True), strict=True)}, faults)


def _check_no_title(file: StoredFile, rows: Sequence[Sequence[object]]) -> None:
    """Refuse a sheet whose first row is one cell while most of the others are wider."""
    first, *others = rows
    wider = sum(_is_wider(row, len(first)) for row in others)
    if sum(cell is not None for cell in first) == 1 and wider > len(others) / 2:
        raise DataError(
            f"{file.path}: its first row has 1 cell, most rows below have more, so it looks like a title. Delete what "
            "stands above the row with the names of the columns."
        )


def _write_row(row: Sequence[object], width: int) -> list[str]:
    return ["" if cell is None else str(cell) for cell in [*row, *[None] * width][:width]]


def _read_rows(rows: Iterator[Sequence[object]]) -> Iterator[list[object]]:
    while True:
        with _ignore_warnings():
            some = list(islice(rows, 1024))
        if not some:
            return
        for row in some:
            if any(cell is not None for cell in row):
                yield [_read_cell(cell) for cell in row]


@contextmanager
def _ignore_warnings() -> Iterator[None]:
    """Ignore what openpyxl says of styles, validations and the like, which nobody asked for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _is_wider(row: Sequence[object], width: int) -> bool:
    return any(cell is not None for cell in row[width:])


def _read_cell(cell: object) -> object:
    if isinstance(cell, float) and cell.is_integer():
        return int(cell)
    return cell.isoformat() if isinstance(cell, datetime.date | datetime.time) else cell
