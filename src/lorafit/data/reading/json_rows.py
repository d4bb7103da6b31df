"""Read JSON: lines of objects, a list of objects, or an object that holds columns or one such list."""

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Final

from lorafit.config import FormatConfig
from lorafit.data.reading.encodings import is_decodable, name_encoding, open_text, read_lines
from lorafit.data.reading.opening import StoredFile
from lorafit.data.reading.parts import Limit, Part
from lorafit.errors import DataError
from lorafit.system import limits

_EXAMPLE: Final = '{"text": "…", "label": "…"}'
_KINDS: Final = {list: "list", str: "string", bool: "truth value", int: "number", float: "number", type(None): "null"}

_UNREADABLE: Final = f"JSON with a number of too many digits or more than {limits.DEPTH.default} levels"

_Row = tuple[dict[str, object] | str, int, int]
"""An object, or what is wrong with it; its number of characters; and its line, or its place in a document."""


def stream_json(file: StoredFile, form: FormatConfig, limit: Limit, notes: list[str]) -> Iterator[Part]:
    """Read JSON.

    Args:
        file: The file; whether it has lines or is one document, its beginning says.
        form: Its encoding.
        limit: How large a part may be.
        notes: Takes what a user should know.

    Yields:
        The parts, each with the columns that its own rows have. Values stay as they are; lines that hold no object are
        bad rows.

    Raises:
        DataError: The file cannot be read, or nothing in it is a row.
    """
    is_document = _is_document(file, form)
    rows = _parse_document(file, form, notes) if is_document else _parse_lines(file, form)
    known: list[str] = []
    for part, names in _cut(rows, limit, str(file.path)):
        good = [row if isinstance(row, dict) else {} for row, *_ in part]
        faults = {place: row for place, (row, *_) in enumerate(part) if isinstance(row, str)}
        known = names or known
        if not known and faults:
            place = min(faults)
            where = f"{'element' if is_document else 'line'} {part[place][2]}"
            raise DataError(f"{file.path}: {where} is {faults[place]}; rows are objects, as in {_EXAMPLE}.")
        if not known:
            raise DataError(f"{file.path} has {len(part)} rows without any key; rows are objects, as in {_EXAMPLE}.")
        yield Part({name: [row.get(name) for row in good] for name in known}, faults)


def _cut(rows: Iterable[_Row], limit: Limit, origin: str) -> Iterator[tuple[list[_Row], list[str]]]:
    """Gather rows as `parts.cut` does, with the names of their columns; rows without a common one make a part wide."""
    most_cells = limits.PART_CELLS.value
    part: list[_Row] = []
    names: dict[str, None] = {}
    characters = 0
    for row in rows:
        part.append(row)
        characters += row[1]
        if isinstance(row[0], dict):
            names |= dict.fromkeys(row[0])
        if len(part) >= limit.rows or characters >= limit.characters or len(part) * len(names) >= most_cells:
            limits.COLUMNS.check(len(names), f"{origin} has {len(names):,} keys", DataError)
            yield part, list(names)
            part, names, characters = [], {}, 0
    if part:
        limits.COLUMNS.check(len(names), f"{origin} has {len(names):,} keys", DataError)
        yield part, list(names)


def _is_document(file: StoredFile, form: FormatConfig) -> bool:
    """Tell one JSON document from lines: it goes on after its first line, or has no other."""
    with open_text(file, form, newline="\n") as text:
        first = " "
        while first and not first.strip("\ufeff \t\r\n"):
            first = text.readline(limits.LINE.value)
        rest = text.read(1 << 16).lstrip()
    first = first.removeprefix("\ufeff")
    is_list = first.lstrip().startswith("[")
    if isinstance(_parse(first.strip()), str):
        return is_list or (file.suffix == ".json" and not rest.startswith("{"))
    return (is_list or file.suffix == ".json") and not rest


def _parse_lines(file: StoredFile, form: FormatConfig) -> Iterator[_Row]:
    with open_text(file, form, newline="\n") as text:  # universal line ends would not cut at U+2028 either, but at "\r"
        for number, line in enumerate(read_lines(text, file.path), start=1):
            if number == 1:
                line = line.removeprefix("\ufeff")  # noqa: PLW2901 - of encodings whose codec leaves it
            if not line.strip():
                continue
            if not line.isascii() and not is_decodable(line):
                yield f"bytes that are not {name_encoding(form)}", len(line), number
            else:
                yield _parse(line.removesuffix("\n")), len(line), number


def _parse(line: str) -> dict[str, object] | str:
    """Parse a line, or say what is wrong with it."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        return f"not valid JSON ({error.msg})"
    except (ValueError, RecursionError):
        return _UNREADABLE
    if _is_deep(line, value):
        return _UNREADABLE
    return value if isinstance(value, dict) else _describe(value)


def _is_deep(text: str, value: object) -> bool:
    """Tell whether parsed JSON has more levels than are allowed; nearly always the signs in it say that it has not."""
    most = limits.DEPTH.value
    if not isinstance(value, list | dict) or text.count("[") + text.count("{") <= most:
        return False
    level: list[list[object] | dict[str, object]] = [value]
    for _ in range(most):
        inside = chain.from_iterable(outer.values() if isinstance(outer, dict) else outer for outer in level)
        level = [inner for inner in inside if isinstance(inner, list | dict)]
        if not level:
            return False
    return True


def _describe(value: object) -> str:
    return f"a JSON {_KINDS[type(value)]} instead of an object"


def _parse_document(file: StoredFile, form: FormatConfig, notes: list[str]) -> Iterator[_Row]:
    if file.path.stat().st_size > limits.FILE.value:
        path, lines = shlex.quote(str(file.path)), shlex.quote(str(file.path.with_suffix(".jsonl")))
        raise DataError(
            f"{file.path} is too large for one JSON document; {limits.FILE.allow()}. Or make it lines: jq -c '.[]' "
            f"{path} > {lines}"
        )
    with open_text(file, form, newline="\n") as stream:
        text = stream.read().removeprefix("\ufeff")
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{file.path} is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None  # the parser's error holds the document
    except (ValueError, RecursionError):
        raise DataError(f"{file.path} cannot be read as it is {_UNREADABLE}.") from None
    if _is_deep(text, document):
        raise DataError(f"{file.path} cannot be read as it is {_UNREADABLE}.")
    is_clean = is_decodable(text)
    del text
    for number, row in enumerate(_find_rows(file, document, notes), start=1):
        if not isinstance(row, dict):
            yield _describe(row), 0, number
            continue
        size = sum(len(value) for value in row.values() if isinstance(value, str))
        if is_clean or is_decodable(json.dumps(row, ensure_ascii=False)):
            yield row, size, number
        else:
            yield f"bytes that are not {name_encoding(form)}", size, number


def _find_rows(file: StoredFile, document: object, notes: list[str]) -> Sequence[object]:
    if isinstance(document, list):
        return document
    if not isinstance(document, dict):
        raise DataError(f"{file.path} holds {_describe(document)}; rows are objects, as in {_EXAMPLE}.")
    if document.keys() >= {"columns", "data"} and _are(document["columns"], str) and _are(document["data"], list):
        return [dict(zip(document["columns"], row, strict=False)) for row in document["data"]]
    lists = [name for name, value in document.items() if _are(value, dict)]
    if len(lists) > 1:
        raise DataError(
            f"{file.path} holds several lists of rows: {[name[:40] for name in lists[:10]]}. Write the one that you "
            f"mean to a file of its own: jq -c '.[\"NAME\"][]' {shlex.quote(str(file.path))} > rows.jsonl"
        )
    if lists:
        notes.append(f"{file.path.name}: its rows are the list under {lists[0][:40]!r}.")
        rows: list[object] = document[lists[0]]
        return rows
    return _turn(document)


def _turn(document: Mapping[str, object]) -> Sequence[object]:
    """Make rows of an object of columns, as pandas writes it, or of an object of rows; anything else is one row."""
    values = list(document.values())
    if values and all(isinstance(value, list) for value in values):
        columns = {name: value for name, value in document.items() if isinstance(value, list)}
        if len({len(column) for column in columns.values()}) == 1:
            return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    tables = [value for value in values if isinstance(value, dict)]
    if tables and len(tables) == len(values):
        if all(key.isdecimal() for table in tables for key in table):
            keys = dict.fromkeys(key for table in tables for key in table)
            return [{name: table.get(key) for name, table in zip(document, tables, strict=True)} for key in keys]
        return tables
    return [document]


def _are(value: object, kind: type) -> bool:
    """Tell whether a value is a list of values of one kind, at least one."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, kind) for one in value)
