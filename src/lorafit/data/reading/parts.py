"""Parts of a table, as every reader yields them."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from lorafit.errors import DataError
from lorafit.system import limits

_Row = TypeVar("_Row")


class Limit(NamedTuple):
    """How large a part may be: rows at most, and characters after which it ends."""

    rows: int
    characters: int

    def narrow(self, width: int) -> "Limit":
        """Return the limit for rows of so many columns: with fewer of them where they are wide."""
        return self._replace(rows=max(1, min(self.rows, limits.PART_CELLS.value // max(width, 1))))


@dataclass
class Part:
    """Columns of equal length, and what is wrong with rows that could not be read, by their place in the part."""

    columns: Mapping[str, Sequence[object]]
    faults: dict[int, str] = field(default_factory=dict)


def cut(rows: Iterable[_Row], measure: Callable[[_Row], int], limit: Limit) -> Iterator[list[_Row]]:
    """Gather rows until there are so many, or so long ones, as a part may have."""
    part: list[_Row] = []
    characters = 0
    for row in rows:
        part.append(row)
        characters += measure(row)
        if len(part) >= limit.rows or characters >= limit.characters:
            yield part
            part, characters = [], 0
    if part:
        yield part


def name_columns(names: Sequence[str], origin: str = "The table") -> list[str]:
    """Make names that tell columns apart: "text (column 3)" where "text" stands twice, "column 3" where none stands.

    Args:
        names: What stands there.
        origin: The file, for the message.

    Returns:
        As many names, all different.

    Raises:
        DataError: There are more columns than are allowed.
    """
    limits.COLUMNS.check(len(names), f"{origin} has {len(names):,} columns", DataError)
    counts = Counter(names)
    unique: dict[str, None] = {}
    for number, name in enumerate(names, start=1):
        new = name if name.strip() and counts[name] == 1 else f"{name} (column {number})" if name.strip() else ""
        new = new or f"column {number}"
        while new in unique or (new != name and new in counts):
            new += "'"
        unique[new] = None
    return list(unique)


def measure_texts(row: Sequence[object]) -> int:
    """Return the number of characters of the texts in a row."""
    return sum(len(value) for value in row if isinstance(value, str))
