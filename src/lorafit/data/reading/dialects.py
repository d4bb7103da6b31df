"""How a csv or tsv file is written: delimiter, quoting, escape, and whether it begins with names of columns.

Python's sniffer looks at characters; here every interpretation is tried on many lines, and the one in which all rows
have as many fields as the first is taken.
"""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Literal, Protocol

from lorafit.config import FormatConfig
from lorafit.data.reading.encodings import open_text
from lorafit.data.reading.opening import StoredFile
from lorafit.errors import DataError
from lorafit.system import limits

DELIMITERS: Final = {".csv": ",", ".tsv": "\t"}
"""By suffix."""

FALSE_HEADER: Final = re.compile(r"\ufeff?\"?sep=(.)\"?\s*", re.DOTALL)
"""A first line by which Excel is told the delimiter."""

_CANDIDATES: Final = (",", "\t", ";", "|")
_SAMPLE: Final = 1 << 20
_MOST_SCANNED: Final = 1 << 26
_LINE_END: Final = re.compile(r"\r\n|\r|\n")
_MARGIN: Final = 0.05
"""Shares of rows that fit must differ by more than this for another delimiter than the suffix's."""

_Quoting = Literal["standard", "none"]

COLUMN_NAMES: Final = frozenset({
    "text", "texts", "sentence", "sentence1", "sentence2", "review", "review_text", "reviewtext", "comment",
    "comment_text", "content", "body", "message", "tweet", "title", "description", "headline", "document",
    "question", "question1", "question2", "premise", "hypothesis", "summary", "utterance", "input", "abstract",
    "label", "labels", "class", "category", "categories", "target", "sentiment", "score", "stars", "rating",
    "polarity", "intent", "topic", "toxic", "emotion", "y", "id", "idx", "index", "qid", "row", "row_id", "date",
    "timestamp", "author", "user", "name", "source", "language", "lang", "split",
})  # fmt: skip
"""Names that columns of texts and labels often have."""


@dataclass(frozen=True)
class _Trial:
    """What one interpretation makes of the sample.

    Attributes:
        delimiter: The delimiter.
        quoting: Whether fields may stand in quotes.
        escape: The escape character, or None.
        width: Fields of the first row.
        share: Share of the rows that have as many and are well-formed.
        bad: Rows that have not.
        swallowed: Lines that became part of a field, though they look like rows.
        rows: The rows that were read.
    """

    delimiter: str
    quoting: _Quoting
    escape: str | None
    width: int
    share: float
    bad: int
    swallowed: int
    rows: Sequence[Sequence[str]]


def find_dialect(file: StoredFile, form: FormatConfig) -> tuple[FormatConfig, tuple[str, ...]]:
    """Decide how a csv or tsv file is written.

    Args:
        file: The file.
        form: Its encoding, and what else is known.

    Returns:
        `form` with all that a reader must know, and what is to be told of it: nothing of what the suffix promises.

    Raises:
        DataError: The file is empty or cannot be read, or a setting that was given makes no sense.
    """
    _check_characters(form)
    csv.field_size_limit(max(csv.field_size_limit(), limits.TEXT.value))  # of the process; only ever raised
    usual = DELIMITERS[file.suffix]
    lines, is_whole = _take_sample(file, form)
    if lines and (match := FALSE_HEADER.fullmatch(lines[0])) is not None:
        usual, lines = match[1] if form.delimiter is None else usual, lines[1:]
    if not any(line.strip("\r\n") for line in lines):
        raise DataError(f"{file.path} is empty.")
    best, rival = _choose(lines, form, usual, is_whole=is_whole)
    told = []
    if form.delimiter is None and (rival or best.delimiter != DELIMITERS[file.suffix]):
        told.append(f"with delimiter {best.delimiter!r}{f' ({rival!r} fits as well: --delimiter)' if rival else ''}")
    if best.quoting == "none" and form.quoting is None:
        told.append("with quotes as plain characters (if fields stand in quotes: --quoting standard)")
    if best.escape is not None and form.escape is None:
        told.append(f"with {best.escape} as the escape character")
    header = form.header if form.header is not None else not looks_like_data(best.rows)
    if not header and form.header is None:
        told.append(describe_numbers(best.width))
    known = {"delimiter": best.delimiter, "quoting": best.quoting, "escape": best.escape, "header": header}
    return form.model_copy(update=known), tuple(told)


class CsvReader(Protocol):
    """Python's csv reader."""

    @property
    def line_num(self) -> int:
        """The line in which the last row ended, counted from 1."""

    def __iter__(self) -> Iterator[list[str]]: ...

    def __next__(self) -> list[str]: ...


def make_reader(lines: Iterable[str], form: FormatConfig) -> CsvReader:
    """Return Python's csv reader over lines, set up by a complete form."""
    return csv.reader(
        lines,
        delimiter=form.delimiter or ",",
        quoting=csv.QUOTE_NONE if form.quoting == "none" else csv.QUOTE_MINIMAL,
        escapechar=form.escape,
        strict=True,
    )


def count_rows_inside(field: str, delimiter: str, width: int) -> int:
    """Count the lines inside a field that look like rows of their own; the first and the last are parts of lines."""
    inner = _LINE_END.split(field)[1:-1]
    return sum(line.count(delimiter) == width - 1 for line in inner) if width > 1 else 0


def looks_like_data(rows: Sequence[Sequence[str]]) -> bool:
    """Tell whether the first row is one like the others, not the names of the columns."""
    first = rows[0] if rows else ()
    others = [row for row in islice(rows, 1, 2000) if len(row) == len(first)]
    if len(others) < 2 or any(name.strip().lower() in COLUMN_NAMES for name in first):
        return False
    votes = [
        _vote(name.strip(), [row[column].strip() for row in others])
        for column, name in enumerate(first)
        if any(row[column].strip() for row in others)
    ]
    return "name" not in votes and "value" in votes


def describe_numbers(width: int) -> str:
    """Say that so many columns are called by their numbers, and what to do if that is wrong."""
    shown = ", ".join(map(str, range(1, min(width, 3) + 1))) + (", …" if width > 3 else "")
    return f"without a header: columns are called {shown} (if the first row has their names: --header)"


def _check_characters(form: FormatConfig) -> None:
    for flag, character in (("--delimiter", form.delimiter), ("--escape", form.escape)):
        if character is not None and character in '"\r\n\0':
            raise DataError(f"{flag} must not be a quote, a line break or NUL, got {character!r}.")
    if form.delimiter is not None and form.delimiter == form.escape:
        raise DataError(f"--delimiter and --escape must differ, got {form.delimiter!r} for both.")


def _take_sample(file: StoredFile, form: FormatConfig) -> tuple[list[str], bool]:
    """Return the first lines, and as many from the first quote on where those have none; and whether that is all."""
    with open_text(file, form, newline="") as text:
        start = text.read(_SAMPLE)
        lines = _split(start.removeprefix("\ufeff"))
        if len(start) < _SAMPLE:
            return lines, True
        scanned = len(start)
        block = start
        while '"' not in block and block and scanned < _MOST_SCANNED:
            block = text.read(_SAMPLE)
            scanned += len(block)
            if '"' in block:
                later = _split(block + text.read(_SAMPLE))
                first = next(place for place, line in enumerate(later) if '"' in line)
                return [*lines[:-1], *later[max(first, 1) : -1]], False
        return lines[:-1] or lines, False


def _split(text: str) -> list[str]:
    """Split at the ends of lines that csv knows, and keep them; `str.splitlines` knows more."""
    ends = [match.end() for match in _LINE_END.finditer(text)]
    starts = [0, *ends]
    lines = [text[start:end] for start, end in zip(starts, ends, strict=False)]
    return [*lines, text[starts[-1] :]] if starts[-1] < len(text) else lines


def _choose(lines: Sequence[str], form: FormatConfig, usual: str, *, is_whole: bool) -> tuple[_Trial, str | None]:
    """Return the interpretation that fits best, and a delimiter that fits as well."""
    delimiters = [form.delimiter or usual]
    if form.delimiter is None:
        first = next((line for line in lines if line.strip()), "")
        delimiters += [one for one in _CANDIDATES if one in first and one != usual]
    trials = {d: _choose_quoting(lines, form, d, is_whole=is_whole) for d in delimiters}
    best = trials[delimiters[0]]
    if len(trials) == 1:
        return best, None
    fitting = [trial for trial in trials.values() if trial.width > 1]
    if not fitting:
        return best, None
    top = max(fitting, key=lambda trial: trial.share)
    if best.width < 2 or top.share > best.share + _MARGIN:
        best = top
    near = (one for one in fitting if one is not best and one.quoting == best.quoting)
    rival = next((one for one in near if one.share >= max(best.share - _MARGIN, 0.9)), None)
    return best, None if rival is None or len(best.rows) < 2 else rival.delimiter


def _choose_quoting(lines: Sequence[str], form: FormatConfig, delimiter: str, *, is_whole: bool) -> _Trial:
    both: tuple[_Quoting, ...] = ("standard", "none")
    quotings = (form.quoting,) if form.quoting is not None else both
    first, *others = (_try(lines, delimiter, q, form.escape, is_whole=is_whole) for q in quotings)
    if first.quoting == "standard" and form.escape is None and (first.bad or first.swallowed):
        escaped = _try(lines, delimiter, "standard", "\\", is_whole=is_whole)
        if any('\\"' in line for line in lines) and escaped.bad + escaped.swallowed < first.bad + first.swallowed:
            first = escaped
    for plain in others:
        if _is_plain(first, plain, delimiter):
            return plain
    return first


def _is_plain(standard: _Trial, plain: _Trial, delimiter: str) -> bool:
    """Tell whether quotes are plain characters: taken so, rows fit that do not fit otherwise."""
    if plain.width < 2 and standard.width > 1:
        return False
    opened = [field for row in plain.rows for field in row if field.startswith('"')]
    enclosed = sum(len(field) > 1 and field.endswith('"') for field in opened)
    if opened and 4 * enclosed > 3 * len(opened) and len(opened) > 2:
        return False  # fields do stand in quotes, some of them wrongly
    if standard.swallowed and plain.bad <= standard.bad:
        return delimiter == "\t" or standard.swallowed > 2
    return plain.bad < standard.bad


def _try(lines: Sequence[str], delimiter: str, quoting: _Quoting, escape: str | None, *, is_whole: bool) -> _Trial:
    form = FormatConfig(delimiter=delimiter, quoting=quoting, escape=escape)
    reader = make_reader(iter(lines), form)
    rows: list[list[str]] = []
    bad = swallowed = width = 0
    while True:
        before = reader.line_num
        try:
            row = next(reader, None)
        except csv.Error:
            end = reader.line_num
            is_cut = end == len(lines) and not is_whole
            swallowed += _count_rows(lines[before + 1 : end], delimiter, width)
            bad += not is_cut
            continue
        if row is None:
            break
        if not row or (len(row) == 1 and width > 1 and not row[0].strip()):
            continue
        width = width or len(row)
        if reader.line_num - before > 1:
            swallowed += _count_rows(lines[before + 1 : reader.line_num - 1], delimiter, width)
        rows.append(row)
    uneven = sum(len(row) != width for row in rows)
    bad += uneven
    return _Trial(
        delimiter, quoting, escape, width, (len(rows) - uneven) / max(len(rows) + bad - uneven, 1), bad, swallowed, rows
    )


def _count_rows(lines: Sequence[str], delimiter: str, width: int) -> int:
    return sum(line.count(delimiter) == width - 1 for line in lines) if width > 1 else 0


def _vote(name: str, values: Sequence[str]) -> Literal["name", "value", "neither"]:
    """Say whether what stands first in a column is its name or one of its values."""
    if _share_numbers(values) > 0.9:
        return "value" if _is_number(name) else "name" if name else "neither"
    distinct = set(values)
    if len(values) >= 10 and len(distinct) <= max(2, len(values) // 5):
        return "value" if values.count(name) > 1 else "name"
    short = sorted(map(len, values))[len(values) // 20]
    return "value" if short >= 20 and len(name) >= short // 2 and len(name.split()) > 3 else "neither"


def _share_numbers(values: Sequence[str]) -> float:
    filled = [value for value in values if value]
    return sum(map(_is_number, filled)) / max(len(filled), 1)


def _is_number(value: str) -> bool:
    return re.fullmatch(r"[-+]?\d+(?:[.,]\d+)?(?:[eE][-+]?\d+)?", value) is not None
