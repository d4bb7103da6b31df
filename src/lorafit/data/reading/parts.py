"""Parts of a table, as every reader yields them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

_Row = TypeVar("_Row")


class Limit(NamedTuple):
    """How large a part may be: rows at most, and characters after which it ends."""

    rows: int
    characters: int


@dataclass
class Part:
    """Columns of equal length, and what is wrong with rows that could not be read, by their place in the part."""

    columns: dict[str, list[object]]
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


def name_columns(names: Sequence[str]) -> list[str]:
    """Make names that tell columns apart: "text (column 3)" where "text" stands twice, "column 3" where none stands."""
    counts = {name: names.count(name) for name in set(names)}
    unique: list[str] = []
    for number, name in enumerate(names, start=1):
        new = name if name.strip() and counts[name] == 1 else f"{name} (column {number})" if name.strip() else ""
        new = new or f"column {number}"
        while new in unique or (new != name and new in counts):
            new += "'"
        unique.append(new)
    return unique


def measure_texts(row: Sequence[object]) -> int:
    """Return the number of characters of the texts in a row."""
    return sum(len(value) for value in row if isinstance(value, str))
