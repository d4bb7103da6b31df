"""One cell of a label column, whatever notation its tool wrote it in: a name, a list of names, or marks by name."""

import ast
import io
import json
import math
import re
import tokenize
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import numpy as np

from lorafit.errors import DataError
from lorafit.tasks.labels import Label, LabelColumn

Cell = str | list[str] | dict[str, str] | None
"""A name; names; what stands for each name of a dict, "" for nothing; or None for nothing at all. Numbers are text."""

LARGEST_NUMBER: Final = 1e30
"""Larger ones would leave the range of fp32, in which the model computes, when they are squared or scaled."""

NOT_FINITE: Final = f"a number that is not finite or beyond {LARGEST_NUMBER:.0e}"

_LONGEST_NOTATION: Final = 100_000
"""Characters of text that is tried as a list or dict."""

_ENDS: Final = {"[": "]", "{": "}", "(": ")"}

_CONTAINERS: Final = frozenset({list, dict, tuple, set, frozenset})

_NOTHING: Final = frozenset({"NAType", "NaTType"})
"""Types of pandas' missing values, which are no numbers."""

_WRAPPERS: Final = ("annotations", "result", "value")
"""Keys that annotation tools put around `choices`."""

_NUMBERS: Final = re.compile(r"[\s\d.+-]+")
"""What stands between the brackets of an array that NumPy wrote."""


@dataclass(frozen=True)
class DistinctCells:
    """A column by its different cells, of which there are far fewer than cells.

    Attributes:
        cells: The different ones, in order of their first place.
        counts: How often each is there.
        places: Index of each cell of the column in `cells`.
    """

    cells: list[object]
    counts: list[int]
    places: list[int]

    def spread(
        self,
        labels: Sequence[Label | None],
        faults: Mapping[int, str],
        notes: Sequence[str],
        doubts: Sequence[str] = (),
    ) -> LabelColumn:
        """Return the column whose different cells have these labels and faults (by their index)."""
        bad = {place: faults[index] for place, index in enumerate(self.places) if index in faults} if faults else {}
        return LabelColumn(tuple([labels[index] for index in self.places]), bad, tuple(notes), tuple(doubts))


def find_distinct(cells: Sequence[object]) -> DistinctCells:
    """Find the different cells of a column; 1, 1.0, True and "1" differ."""
    indices: dict[object, int] = {}
    distinct: list[object] = []
    places: list[int] = []
    for cell in cells:
        key = cell if type(cell) is str else _identify(cell)
        index = indices.get(key)
        if index is None:
            index = indices[key] = len(distinct)
            distinct.append(cell)
        places.append(index)
    return DistinctCells(distinct, np.bincount(places, minlength=len(distinct)).tolist(), places)


def read_cell(cell: object) -> Cell:
    """Read a cell.

    Args:
        cell: Text, also that of a list or dict in JSON, Python or NumPy; a number, a bool or nothing; a list of those;
            a dict of names to marks; or what an annotation tool exports, in which `choices` are the names.

    Returns:
        What stands there. White space around names is left, but for blank names, which are none.

    Raises:
        DataError: It is of another type or form; the message says which, as the object of a sentence.
    """
    if not isinstance(cell, str):
        cell = simplify(cell)
    if isinstance(cell, str):
        text = cell.strip()
        return _read_value(_parse_notation(text) if _ENDS.get(text[:1]) == text[-1:] and text else cell)
    return _read_value(cell)


def simplify(cell: object) -> object:
    """Return a cell of Python's own types: NumPy's scalars and arrays become theirs, what is missing becomes None."""
    if isinstance(cell, np.generic):
        cell = cell.item()
    elif isinstance(cell, np.ndarray):
        cell = cell.tolist()
    is_nan = cell.is_nan() if isinstance(cell, Decimal) else isinstance(cell, float) and math.isnan(cell)
    return None if is_nan or type(cell).__name__ in _NOTHING else cell


def _identify(cell: object) -> object:
    """Return what equal cells have in common; of types that are no label that is the type."""
    kind = type(cell)
    if kind in _CONTAINERS:
        try:
            return kind, repr(cell)
        except RecursionError:
            return kind, id(cell)
    if kind is int or kind is bool or (kind is float and cell == cell):  # noqa: PLR0124  NaN is not itself
        return kind, cell
    plain = simplify(cell)
    if plain is not cell:
        return _identify(plain)
    if isinstance(plain, str):
        return str.__str__(plain)
    return (kind, str(plain)) if isinstance(plain, int | float | Decimal) else (kind,)


def _read_value(value: object) -> Cell:
    if isinstance(value, dict):
        return _read_dict(value)
    if isinstance(value, list | tuple | set | frozenset):
        return _read_list(value)
    return _read_name(value)


def _read_name(value: object) -> str | None:
    if not isinstance(value, str):
        value = simplify(value)
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise DataError("a label with half a surrogate pair") from None
        return str.__str__(value) if value.strip() else None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float | Decimal):
        if not -LARGEST_NUMBER <= value <= LARGEST_NUMBER:
            raise DataError(NOT_FINITE)
        return repr(value + 0) if isinstance(value, int | float) else str(value)  # + 0: of an enum the number
    raise DataError(f"a label of type {type(value).__name__}")


def _read_list(values: Sequence[object] | set[object] | frozenset[object]) -> list[str]:
    names: list[str] = []
    for value in sorted(values, key=repr) if isinstance(values, set | frozenset) else values:
        chosen = _find_choices(value)
        if chosen is not None:
            names += chosen
        elif isinstance(value, list | tuple | set | frozenset | dict | np.ndarray):
            raise DataError("a list that holds something else than names")
        elif (name := _read_name(value)) is not None:
            names.append(name)
    return names


def _read_dict(values: Mapping[object, object]) -> Cell:
    chosen = _find_choices(values)
    if chosen is not None:
        return chosen
    if any(isinstance(value, list | tuple | set | dict | np.ndarray) for value in values.values()):
        raise DataError("a dictionary that holds something else than a mark for each label")
    marks = {(_read_name(name) or "").strip(): (_read_name(value) or "").strip() for name, value in values.items()}
    return marks or None


def _find_choices(value: object, depth: int = 6) -> list[str] | None:
    """Return the names that an annotation tool's export holds under `choices`, or None where there is no such key."""
    if depth == 0 or not isinstance(value, dict):
        return None
    chosen = value.get("choices")
    if isinstance(chosen, str):
        return [chosen] if chosen.strip() else []
    if isinstance(chosen, list | tuple):
        return _read_list(chosen)
    for key in _WRAPPERS:
        inner = value.get(key)
        parts = [_find_choices(part, depth - 1) for part in (inner if isinstance(inner, list | tuple) else [inner])]
        if any(part is not None for part in parts):
            return [name for part in parts for name in part or ()]
    return None


def _parse_notation(text: str) -> object:
    """Return the list or dict that a text writes; a text that writes none stays one."""
    if len(text) > _LONGEST_NOTATION:
        return text
    for parse in (json.loads, _parse_python):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        return value if isinstance(value, list | tuple | set | dict) else text
    return text


def _parse_python(text: str) -> object:
    """Parse Python's notation, or NumPy's, which has no commas: ['a' 'b'] would be one name in Python's."""
    inner = text[1:-1]
    if text[0] == "[" and _NUMBERS.fullmatch(inner):
        return [json.loads(part.rstrip(".")) for part in inner.split()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of backslashes that escape nothing
        value = ast.literal_eval(text)
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            tokens = tokenize.generate_tokens(io.StringIO(text).readline)
            return [ast.literal_eval(token.string) for token in tokens if token.type == tokenize.STRING]
    return value
