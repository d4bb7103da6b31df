"""Read tables of columns from files of any kind, whole or part by part.

What a file is and how it is written is decided first (`reading/`); settings that are given decide instead. Messages
name files, rows, lines and columns. They never hold a text.
"""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path

from lorafit.config import FormatConfig
from lorafit.data.reading.class_folders import stream_class_folders
from lorafit.data.reading.columnar import ArrowColumn, stream_columnar
from lorafit.data.reading.delimited import stream_delimited
from lorafit.data.reading.dialects import DELIMITERS, find_dialect
from lorafit.data.reading.encodings import find_encoding
from lorafit.data.reading.json_rows import stream_json
from lorafit.data.reading.lines import stream_lines
from lorafit.data.reading.opening import COMPRESSIONS, KINDS, TEXT_SUFFIXES, locate_file
from lorafit.data.reading.parts import Limit, Part
from lorafit.data.reading.spreadsheets import stream_sheet
from lorafit.data.reading.stamps import Stamp
from lorafit.errors import DataError
from lorafit.system import limits
from lorafit.system.files import is_folder
from lorafit.system.text import show_value

__all__ = [
    "DELIMITERS",
    "READABLE_SUFFIXES",
    "Table",
    "check_columns",
    "find_kind",
    "read_table",
    "select",
    "stream_table",
]

READABLE_SUFFIXES = (*KINDS, *COMPRESSIONS)
"""Files that `read_table` takes."""

_READERS = {
    **dict.fromkeys(DELIMITERS, stream_delimited),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), stream_json),
    **dict.fromkeys((".txt", ".label"), stream_lines),
    **dict.fromkeys((".parquet", ".feather", ".arrow"), stream_columnar),
    ".xlsx": stream_sheet,
}
"""By suffix, a packed file's without its compression."""

_HINT_OF_PAIRS = "Texts come in pairs: give --text-column twice, for the first text of each pair and the second."
_MOST_ROWS = 4096
_MOST_CHARACTERS = 1 << 24


@dataclass(frozen=True)
class Table:
    """Columns of equal length.

    Attributes:
        columns: Values of each column by its name; fields of csv, tsv and txt files are text. Part by part, those of
            parquet and Arrow files are `ArrowColumn`s, which keep their types.
        origin: The file's name, for messages.
        faults: What is wrong with rows that could not be read, by their place in the table, counted from 0; their
            cells are None.
        notes: What was found in the file that a user should know: encoding, delimiter, rows that swallowed others.
    """

    columns: Mapping[str, Sequence[object]]
    origin: str
    faults: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))


def read_table(path: Path, form: FormatConfig | None = None, *, wanted: Mapping[str, str] | None = None) -> Table:
    """Read a table.

    Args:
        path: A file whose suffix is one of `READABLE_SUFFIXES`, or a folder that has a folder of .txt files for each
            class. A txt file has one text a line, in the column "text". Objects of a jsonl file may lack keys: their
            value is None.
        form: How text files are written; None to find it.
        wanted: The columns to keep, as `check_columns` takes them; None for all.

    Returns:
        The table, rows in file order. Blank lines of csv, tsv and jsonl files are no rows.

    Raises:
        DataError: The file is missing, of another kind, damaged, has no rows, lacks a column that is wanted, or was
            changed while it was read.
        MissingExtraError: It is of a kind for which a package is not installed.
    """
    columns: dict[str, list[object]] = {}
    faults: dict[int, str] = {}
    notes: list[str] = []
    names: dict[str, None] = {}
    rows = 0
    for part in stream_table(path, form):
        faults |= {rows + place: fault for place, fault in part.faults.items()}
        notes += part.notes
        names |= dict.fromkeys(part.columns)
        for name, values in part.columns.items():
            if wanted is None or name in wanted:
                column = columns.setdefault(name, [])
                column.extend(repeat(None, rows - len(column)))
                column.extend(values)
        rows += len(part)
    if not rows:
        raise DataError(f"{path} has no rows{' below its header' if path.suffix.lower() in DELIMITERS else ''}.")
    try:
        check_columns(names, wanted or {}, str(path))
    except DataError as error:
        raise DataError(" ".join((str(error), *notes))) from error  # such as how its header was read
    for column in columns.values():
        column.extend(repeat(None, rows - len(column)))
    return Table(columns, path.name, faults, tuple(notes))


def stream_table(
    path: Path,
    form: FormatConfig | None = None,
    *,
    most_rows: int = _MOST_ROWS,
    most_characters: int = _MOST_CHARACTERS,
) -> Iterator[Table]:
    """Read a table part by part, so that it need not fit into memory.

    Args:
        path: A file as `read_table` takes it.
        form: How text files are written; None to find it.
        most_rows: Rows of a part at most.
        most_characters: Characters after which a part ends.

    Yields:
        The parts in file order, none of them empty, each with the notes that are new. A part of a jsonl file has the
        columns that its own rows have.

    Raises:
        DataError: As `read_table` does, when the fault is reached, or the file was changed meanwhile; a file without
            rows yields nothing.
        MissingExtraError: It is of a kind for which a package is not installed.
    """
    stamp = Stamp.take(path)
    notes: list[str] = []
    held: Part | None = None
    names: set[str] = set()
    for part in _stream_parts(path, form or FormatConfig(), Limit(most_rows, most_characters), notes):
        names.update(part.columns)
        limits.COLUMNS.check(len(names), f"{path} has {len(names):,} columns", DataError)
        _blank_long_texts(part)
        if held is not None:
            yield Table(held.columns, path.name, held.faults, tuple(notes))
            notes.clear()
        held = part
    stamp.check()
    if held is not None:  # what is known at the end of the file is told with its last part
        yield Table(held.columns, path.name, held.faults, tuple(notes))


def select(values: Sequence[object], rows: Sequence[int | None]) -> Sequence[object]:
    """Return the values of a column at some places, with their types; None stands for an empty one."""
    if isinstance(values, ArrowColumn):
        return values.select(rows)
    return [None if row is None else values[row] for row in rows]


def find_kind(path: Path) -> str:
    """Return the kind of a file that is there.

    Args:
        path: A file as `read_table` takes it.

    Returns:
        Its suffix, a packed file's as it is unpacked; of a folder "".

    Raises:
        DataError: There is none, or one that cannot be read.
    """
    return "" if is_folder(path) else locate_file(path).suffix


def check_columns(names: Iterable[str], wanted: Mapping[str, str], origin: str) -> None:
    """Make sure that columns are there.

    Args:
        names: The columns there are.
        wanted: Column name to the flag that chooses it ("--text-column").
        origin: Where the columns are, for the message.

    Raises:
        DataError: A column is missing; the message lists those there, and says which differs in case or blanks alone.
    """
    present = list(names)
    for name, flag in wanted.items():
        if name not in present:
            same = [other for other in present if other.startswith(f"{name} (column ")]
            several = f"{origin} has several columns '{name}', told apart by their place"
            fault = several if same else f"{origin} has no column '{name}'"
            plain = name.strip().casefold()
            near = next((other for other in present if other.strip().casefold() == plain), None)
            pair = [other for other in wanted if flag == wanted[other] == "--text-column"]
            hint = f"Choose one of them with {flag}." if len(pair) < 2 else _HINT_OF_PAIRS
            if near is not None:
                meant = [near if other == name else other for other in pair or [name]]
                words = shlex.join(word for other in meant for word in (flag, other))
                hint = f"Upper and lower case and blanks count. Did you mean {words}?"
            raise DataError(f"{fault}. Its columns: {show_value(present)}. {hint}")


def _stream_parts(path: Path, form: FormatConfig, limit: Limit, notes: list[str]) -> Iterator[Part]:
    if is_folder(path):
        yield from stream_class_folders(path, form, limit, notes)
        return
    file = locate_file(path)
    told: tuple[str, ...] = ()
    if file.suffix in TEXT_SUFFIXES:
        form, told = find_encoding(file, form)
    if file.suffix in DELIMITERS:
        form, found = find_dialect(file, form)
        told += found
    if told:
        notes.append(f"{path.name}: read {', '.join(told)}.")
    yield from _READERS[file.suffix](file, form, limit, notes)


def _blank_long_texts(part: Part) -> None:
    """Let rows with a text that is longer than is allowed be bad ones, without their cells."""
    most = limits.TEXT.value
    long = {
        place
        for values in part.columns.values()
        if _measure_longest(values) > most
        for place, value in enumerate(values)
        if isinstance(value, str) and len(value) > most
    }
    if long:
        fault = f"a text of more than {most:,} characters ({limits.TEXT.variable}=NUMBER allows more)"
        part.faults |= {place: fault for place in sorted(long) if place not in part.faults}
        rows = [None if place in long else place for place in range(len(next(iter(part.columns.values()))))]
        part.columns = {name: _select(values, rows) for name, values in part.columns.items()}


def _select(values: Sequence[object], rows: Sequence[int | None]) -> Sequence[object]:
    """Return the values of some rows; None stands for an empty one."""
    if isinstance(values, ArrowColumn):
        return values.select(rows)
    return [None if row is None else values[row] for row in rows]


def _measure_longest(values: Sequence[object]) -> int:
    """Return the length of the longest text."""
    if isinstance(values, ArrowColumn):
        return values.measure_longest()
    try:
        return max(map(len, values), default=0)  # type: ignore[arg-type]  # nearly always all are texts
    except TypeError:
        return max((len(value) for value in values if isinstance(value, str)), default=0)
