"""Read csv and tsv files of a known dialect."""

import csv
from collections.abc import Iterator, Sequence
from itertools import chain

from lorafit.config import FormatConfig
from lorafit.data.reading.dialects import FALSE_HEADER, CsvReader, count_rows_inside, make_reader
from lorafit.data.reading.encodings import is_decodable, name_encoding, open_text, read_lines
from lorafit.data.reading.opening import StoredFile
from lorafit.data.reading.parts import Limit, Part, name_columns
from lorafit.errors import DataError


def stream_delimited(file: StoredFile, form: FormatConfig, limit: Limit, notes: list[str]) -> Iterator[Part]:
    """Read a csv or tsv file.

    Args:
        file: The file.
        form: How it is written, complete.
        limit: How large a part may be.
        notes: Takes what a user should know, at the latest when the last part was yielded.

    Yields:
        The parts, rows in file order. Blank lines and headers repeated inside are no rows.

    Raises:
        DataError: The file cannot be read, is empty, or has a quote that never closes.
    """
    with open_text(file, form, newline="") as text:
        lines = read_lines(text, file.path)
        first = next(lines, "").removeprefix("\ufeff")
        skipped = FALSE_HEADER.fullmatch(first) is not None
        reader = make_reader(lines if skipped else chain([first], lines), form)
        rows = _Rows(file, form, reader, lines_before=int(skipped))
        yield from rows.stream(limit)
        notes += rows.notes()


class _Rows:
    """The rows of a file, and what is noticed on the way."""

    def __init__(self, file: StoredFile, form: FormatConfig, reader: CsvReader, *, lines_before: int) -> None:
        self._file = file
        self._form = form
        self._reader = reader
        self._lines_before = lines_before
        self._header: list[str] | None = None  # where there is one
        self._names: list[str] = []
        self._required = 0
        self._repeated: list[int] = []
        self._swallowing: list[tuple[int, int, int]] = []
        self._count = 0
        self._end = 0

    def stream(self, limit: Limit) -> Iterator[Part]:
        first = self._start()
        for rows, faults, lines in self._cut(first, limit.narrow(len(self._names))):
            part = self._check(rows, faults, lines)
            if part is not None:
                yield part

    def notes(self) -> list[str]:
        name, notes = self._file.path.name, []
        if self._repeated:
            count, first = len(self._repeated), self._repeated[0]
            lines = f"line {first:,}" if count == 1 else f"{count:,} lines, the first being line {first:,},"
            notes.append(f"{name}: {lines} repeat{'s' if count == 1 else ''} the header; left out.")
        if self._swallowing:
            row, line, end = self._swallowing[0]
            more = f", and {len(self._swallowing) - 1:,} more such places" if len(self._swallowing) > 1 else ""
            notes.append(
                f"{name}: {self._count:,} rows were read from {self._line:,} lines; lines {line:,} to {end:,} became "
                f"row {row:,}, though they look like rows of their own{more}. If quotes are plain characters there: "
                "--quoting none."
            )
        return notes

    @property
    def _line(self) -> int:
        """The last line that was read, counted from 1."""
        return self._reader.line_num + self._lines_before

    def _start(self) -> list[list[str]]:
        """Read the first row, which gives columns their names; return it where it is no header."""
        try:
            first = next((fields for fields in self._reader if fields), None)
        except csv.Error as error:
            fault = self._describe(error, 1 + self._lines_before)
            raise DataError(f"{self._file.path}: its first row has {fault}. If meant so: --quoting none.") from error
        if first is None:
            raise DataError(f"{self._file.path} is empty.")
        self._end = 0 if self._form.header is False else self._reader.line_num
        if self._form.header is False:
            self._names = name_columns([str(number) for number in range(1, len(first) + 1)], str(self._file.path))
            self._required = len(first)
            return [first]
        self._header = first
        names = [name.encode(errors="replace").decode() for name in first]
        self._names = name_columns(names, str(self._file.path))
        self._required = max((number for number, name in enumerate(first, start=1) if name.strip()), default=len(first))
        return []

    def _cut(self, rows: list[list[str]], limit: Limit) -> Iterator[tuple[list[list[str]], dict[int, str], list[int]]]:
        """Yield rows as they stand, those that are not well-formed, and the line in which each ends."""
        faults: dict[int, str] = {}
        lines = [self._reader.line_num] * len(rows)
        reader, characters, is_over = self._reader, 0, False
        while not is_over:
            before = reader.line_num
            try:
                for fields in reader:
                    before = reader.line_num
                    if fields:
                        rows.append(fields)
                        lines.append(before)
                        characters += sum(map(len, fields))
                        if len(rows) >= limit.rows or characters >= limit.characters:
                            yield rows, faults, lines
                            rows, faults, lines, characters = [], {}, [], 0
                is_over = True
            except csv.Error as error:
                faults[len(rows)] = self._describe(error, before + 1 + self._lines_before)
                rows.append([])
                lines.append(reader.line_num)
            if len(rows) >= limit.rows:
                yield rows, faults, lines
                rows, faults, lines, characters = [], {}, [], 0
        if rows:
            yield rows, faults, lines

    def _describe(self, error: csv.Error, line: int) -> str:
        """Say what is wrong with a row; a quote that takes all that follows is no matter of one row."""
        swallowed = self._line - line
        if swallowed and ("unexpected end" in str(error) or "field limit" in str(error)):
            raise DataError(
                f"{self._file.path}: the quote that opens in line {line:,} does not close; {swallowed:,} more lines "
                "would become part of its text. If quotes are plain characters there: --quoting none; else close it."
            ) from error
        taken = f" ({swallowed + 1} lines)" if swallowed else ""
        return f"a quote that is not doubled inside a field in quotes, or not closed{taken}"

    def _check(self, rows: list[list[str]], faults: dict[int, str], lines: list[int]) -> Part | None:
        """Turn rows into columns."""
        have_breaks = lines[-1] - self._end > len(rows)
        self._end = lines[-1]
        is_even = not faults and set(map(len, rows)) == {len(self._names)}
        if not is_even or self._header in rows:
            rows, faults, lines = self._sort_out(rows, faults, lines)
        if not rows:
            return None
        if not is_decodable("".join(map("".join, rows))):
            fault = f"bytes that are not {name_encoding(self._form)}"
            faults |= {place: fault for place, row in enumerate(rows) if not is_decodable("".join(row))}
        if have_breaks:
            self._look_for_swallowed(rows, faults, lines)
        self._count += len(rows)
        columns = [list(column) for column in zip(*rows, strict=True)] if rows else []
        return Part(dict(zip(self._names, _blank(columns, faults), strict=True)), faults)

    def _sort_out(
        self, rows: list[list[str]], faults: dict[int, str], lines: list[int]
    ) -> tuple[list[list[str]], dict[int, str], list[int]]:
        """Leave out what is no row, and note what is a bad one."""
        width = len(self._names)
        good: list[list[str]] = []
        new: dict[int, str] = {}
        ends: list[int] = []
        for place, (row, line) in enumerate(zip(rows, lines, strict=True)):
            if place in faults:
                new[len(good)] = faults[place]
                row = [""] * width  # noqa: PLW2901 - its fields are wrong
            elif row == self._header:
                self._repeated.append(line + self._lines_before)
                continue
            elif len(row) == 1 < width and not row[0].strip():
                continue
            elif len(row) != width:
                if len(row) < self._required or any(row[width:]):
                    new[len(good)] = f"{len(row)} field{'s' if len(row) > 1 else ''} instead of {width}"
                row = [*row, *[""] * width][:width]  # noqa: PLW2901 - columns without a name may be left out
            good.append(row)
            ends.append(line)
        return good, new, ends

    def _look_for_swallowed(self, rows: Sequence[Sequence[str]], faults: dict[int, str], lines: Sequence[int]) -> None:
        delimiter, width = self._form.delimiter or ",", len(self._names)
        for place, row in enumerate(rows):
            inside = max((count_rows_inside(field, delimiter, width) for field in row if "\n" in field), default=0)
            if inside > 1 and place not in faults:
                breaks = sum(field.count("\n") for field in row)
                end = lines[place] + self._lines_before
                self._swallowing.append((self._count + place + 1, end - breaks, end))


def _blank(columns: list[list[str]], faults: dict[int, str]) -> list[list[object]]:
    """Empty the cells of rows that could not be read."""
    blank: list[list[object]] = [*columns]  # type: ignore[list-item]  # lists of texts are made into lists of anything
    for column in blank:
        for place in faults:
            column[place] = None
    return blank
