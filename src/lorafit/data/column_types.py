"""Which of Arrow's types holds all values of a column, found while they are read.

pyarrow finds a type itself, but part by part, and it turns truth values among fractions into fractions and moments
among dates into dates. Here a column whose values are of different types, however deep inside, has no type.
"""

import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from lorafit.data.reading.columnar import ArrowColumn
from lorafit.data.reading.encodings import is_decodable
from lorafit.errors import UserInputError
from lorafit.system import limits
from lorafit.system.extras import require
from lorafit.system.text import clean_text

_NAMES: Final = {
    bool: "truth values",
    int: "whole numbers",
    float: "fractions",
    str: "texts",
    list: "lists",
    dict: "objects",
    datetime.datetime: "moments",
    datetime.date: "dates",
    datetime.time: "times",
    datetime.timedelta: "durations",
}
_ARROW: Final[Mapping[type, Callable[[Any], Any]]] = {
    type(None): lambda pyarrow: pyarrow.null(),
    bool: lambda pyarrow: pyarrow.bool_(),
    float: lambda pyarrow: pyarrow.float64(),
    str: lambda pyarrow: pyarrow.string(),
}
_LARGEST_EXACT: Final = 1 << 53
"""Whole numbers up to this one are exact as fractions."""


class ValueTypes:
    """What was seen of the values of a column, or of what stands inside of them."""

    def __init__(self) -> None:
        self.kinds: set[type] = set()
        self._stored: Any = None  # the type of an `ArrowColumn`
        self._least = self._most = 0  # of whole numbers
        self._is_unicode = True
        self._items: ValueTypes | None = None
        self._fields: dict[str, ValueTypes] = {}

    def see(self, values: Sequence[object]) -> None:
        """Take further values into account."""
        if isinstance(values, ArrowColumn):
            self._stored = values.array.type
            return
        kinds = set(map(type, values))
        self.kinds |= kinds - {type(None)}
        if int in kinds:
            numbers = [value for value in values if type(value) is int]
            self._least, self._most = min(self._least, *numbers), max(self._most, *numbers)
        if str in kinds and self._is_unicode:
            self._is_unicode = is_decodable("".join(value for value in values if isinstance(value, str)))
        if list in kinds:
            self._items = self._items or ValueTypes()
            self._items.see([item for value in values if isinstance(value, list) for item in value])
        if dict in kinds:
            self._see_fields([value for value in values if isinstance(value, dict)])

    def find_type(self, path: str = "") -> Any:  # noqa: ANN401 - pyarrow is imported when it is needed
        """Return the type as pyarrow has it; None where pyarrow is to find it.

        Args:
            path: Where the values stand inside those of the column.

        Returns:
            The type.

        Raises:
            TypeError: There is none; the message says why, and never holds a value.
        """
        if self._stored is not None:
            return self._stored
        pyarrow = require("pyarrow", extra="train", purpose="writing parquet files")
        where = f" at {clean_text(path, most=100)}" if path else ""
        if not self._is_unicode:
            raise TypeError(f"some texts{where} are not valid Unicode")
        if self.kinds == {int, float} and max(self._most, -self._least) <= _LARGEST_EXACT:
            return pyarrow.float64()
        if len(self.kinds) > 1:
            names = sorted(_NAMES.get(kind, kind.__name__) for kind in self.kinds)
            raise TypeError(f"its values{where} are of different types: {', '.join(names)}")
        return self._choose_type(pyarrow, path, where)

    def _choose_type(self, pyarrow: Any, path: str, where: str) -> Any:  # noqa: ANN401 - pyarrow is imported when it is needed
        """Return the type of values of one kind."""
        kind = next(iter(self.kinds), type(None))
        if kind is list and self._items is not None:
            return pyarrow.list_(self._items.find_type(f"{path}[]"))
        if kind is dict:
            return self._choose_fields(pyarrow, path, where)
        if kind is int:
            return self._choose_integer(pyarrow, where)
        return _ARROW[kind](pyarrow) if kind in _ARROW else None

    def _see_fields(self, values: Sequence[Mapping[Any, object]]) -> None:
        columns: dict[str, list[object]] = {}
        for value in values:
            for name, field in value.items():
                columns.setdefault(name, []).append(field)
        for name, fields in columns.items():
            if len(self._fields) <= limits.COLUMNS.value:
                self._fields.setdefault(name, ValueTypes()).see(fields)

    def _choose_integer(self, pyarrow: Any, where: str) -> Any:  # noqa: ANN401 - pyarrow is imported when it is needed
        if self._least >= -(1 << 63) and self._most < 1 << 63:
            return pyarrow.int64()
        if self._least >= 0 and self._most < 1 << 64:
            return pyarrow.uint64()
        raise TypeError(f"some whole numbers{where} are too large for 64 bits")

    def _choose_fields(self, pyarrow: Any, path: str, where: str) -> Any:  # noqa: ANN401 - pyarrow is imported when it is needed
        if not self._fields:
            raise TypeError(f"its objects{where} have no keys")
        if len(self._fields) > limits.COLUMNS.value:
            raise TypeError(f"its objects{where} have more than {limits.COLUMNS.value:,} different keys")
        if not all(map(is_decodable, self._fields)):
            raise TypeError(f"some keys{where} are not valid Unicode")
        fields = ((name, types.find_type(f"{path}.{name}")) for name, types in self._fields.items())
        return pyarrow.struct([(name, pyarrow.string() if kind is None else kind) for name, kind in fields])


def find_parquet_types(columns: Mapping[str, ValueTypes]) -> dict[str, Any]:
    """Find the types in which columns are written to a parquet file, before any work is done.

    Args:
        columns: What was seen of each column, by its name.

    Returns:
        pyarrow's type of each column; None where it is found while writing.

    Raises:
        UserInputError: A column does not fit into a parquet file; the message says why.
        MissingExtraError: pyarrow is not installed.
    """
    pyarrow = require("pyarrow", extra="train", purpose="writing parquet files")
    parquet = require("pyarrow.parquet", extra="train", purpose="writing parquet files")
    found = {}
    for name, types in columns.items():
        if not is_decodable(name):
            raise misfit(name, "its name is not valid Unicode")
        try:
            found[name] = types.find_type()
            if found[name] is not None:
                schema = pyarrow.schema([("column", found[name])])
                parquet.write_table(schema.empty_table(), pyarrow.BufferOutputStream())
        except TypeError as error:
            raise misfit(name, str(error)) from None
        except pyarrow.ArrowException:
            raise misfit(name, f"parquet has no type {found[name]}") from None
    return found


def misfit(name: str, reason: str) -> UserInputError:
    """Return the error that says why a column does not fit into a parquet file."""
    return UserInputError(
        f"Column '{clean_text(name, most=100)}' does not fit into a parquet file: {reason}. Choose an output file that "
        "ends in .jsonl."
    )
