"""Read the first sheet of an .xlsx file."""

import datetime
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice

from lorafit.config import FormatConfig
from lorafit.data.reading.opening import StoredFile, check_archive
from lorafit.data.reading.parts import Limit, Part, cut, measure_texts, name_columns
from lorafit.errors import DataError
from lorafit.system.extras import require


def stream_sheet(file: StoredFile, form: FormatConfig, limit: Limit, notes: list[str]) -> Iterator[Part]:
    """Read the first sheet of a spreadsheet.

    Args:
        file: The file.
        form: Whether it begins with names of columns.
        limit: How large a part may be.
        notes: Takes what a user should know: that there are other sheets.

    Yields:
        The parts. Numbers stay numbers, dates become text, empty rows are no rows.

    Raises:
        DataError: The file is damaged, or of another kind.
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
            yield from _stream_rows(_read_rows(sheets[0].iter_rows(values_only=True)), form, limit)
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


def _stream_rows(rows: Iterator[list[object]], form: FormatConfig, limit: Limit) -> Iterator[Part]:
    first = next(rows, None)
    if first is None:
        return
    while first and first[-1] is None:
        first.pop()
    width = len(first)
    names = [str(number) for number in range(1, width + 1)]
    if form.header is not False:
        names = name_columns(["" if cell is None else str(cell) for cell in first])
    else:
        yield Part({name: [cell] for name, cell in zip(names, first, strict=True)})
    for part in cut(rows, measure_texts, limit):
        faults = {
            place: f"{len(row)} fields instead of {width}" for place, row in enumerate(part) if _is_wider(row, width)
        }
        even = [
            [None] * width if place in faults else [*row, *[None] * width][:width] for place, row in enumerate(part)
        ]
        yield Part({name: list(column) for name, column in zip(names, zip(*even, strict=True), strict=True)}, faults)


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
