"""Label cells as data sources have them, read as class names, lists of names, or numbers."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lorafit.errors import DataError

Label = str | tuple[str, ...] | float
"""The label of a row: a class name, several of them, or a number."""


@dataclass(frozen=True)
class LabelReading:
    """How label cells are read.

    Attributes:
        separator: What stands between several labels in one cell; None to find it.
        names: Names of the places of a list of 0 and 1, where they are known.
        missing: What stands in a cell without a label.
        merge_spellings: Whether names that differ in upper and lower case alone are one label.
        known: The labels of the model that the rows are for, or none; a name that is spelled in another way is theirs.
    """

    separator: str | None = None
    names: tuple[str, ...] = ()
    missing: str | None = None
    merge_spellings: bool = False
    known: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelColumn:
    """The labels of n cells.

    Attributes:
        labels: One a cell; None where it has none, or none that can be read.
        faults: What is wrong with a cell that cannot be read, by its place, counted from 0.
        notes: What a user should know of the column: how it was read, what was merged.
        doubts: Why these are probably not the labels that are meant; each says what to type instead.
    """

    labels: tuple[Label | None, ...]
    faults: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


_LARGEST_NUMBER: Final = 1e30
"""Larger ones would leave the range of fp32, in which the model computes, when they are squared or scaled."""

_MANY_LABELS: Final = 100
"""More labels than this, on more than half as many rows, are taken for a wrong column."""

_FEWEST_IN_STRATUM: Final = 10


def is_missing(cell: object) -> bool:
    """Tell whether a cell holds nothing: None or a float NaN."""
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def read_name(cell: object, where: str, *, allowed: str) -> str | None:
    """Read one class name.

    Args:
        cell: Text (white space around it is dropped), a whole number (1.0 counts as 1), or a bool ("true", "false").
        where: The row, for messages.
        allowed: What the task allows, for messages.

    Returns:
        The name, or None for blank text.

    Raises:
        DataError: A fraction, or a value of another type.
    """
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, str):
        return cell.strip() or None
    if isinstance(cell, float):
        if not cell.is_integer():
            raise DataError(
                f"{where} has the label {cell}. Fractions look like a regression: say so with --task regression, "
                "choose a column of classes (--label-column), or turn the numbers into class names."
            )
        cell = int(cell)
    if isinstance(cell, int):
        return str(cell)
    raise refuse(cell, where, allowed=allowed)


def read_names(cell: object, where: str, *, separator: str, allowed: str) -> tuple[str, ...]:
    """Read any number of class names.

    Args:
        cell: A list of what `read_name` takes, text in the form of a JSON list, text with separators, or one name.
        where: The row, for messages.
        separator: What stands between several names in one cell.
        allowed: What the task allows, for messages.

    Returns:
        The different names, sorted.

    Raises:
        DataError: As `read_name`, of any of them.
    """
    if isinstance(cell, str):
        text = cell.strip()
        parts: Iterable[object] = _read_json_list(text) if text.startswith("[") else text.split(separator)
    elif isinstance(cell, list | tuple):
        parts = cell
    else:
        parts = [cell]
    names = (read_name(part, where, allowed=allowed) for part in parts if not is_missing(part))
    return tuple(sorted({name for name in names if name is not None}))


def read_number(cell: object, where: str, *, allowed: str) -> float | None:
    """Read a number, which may be written as text.

    Args:
        cell: The number.
        where: The row, for messages.
        allowed: What the task allows, for messages.

    Returns:
        The number, or None for blank text or `nan`.

    Raises:
        DataError: It is no number, not finite, or beyond 1e30.
    """
    if isinstance(cell, str):
        text = cell.strip()
        if not text or text.lower() == "nan":
            return None
        try:
            cell = float(text if "_" not in text else "_")  # Python's own would read 1_000 as 1000
        except ValueError:
            raise DataError(
                f"{where} has a label that is no number. A regression needs numbers: choose their column "
                "(--label-column), or leave --task regression out to train a classifier."
            ) from None
    if isinstance(cell, bool) or not isinstance(cell, int | float | Decimal):
        raise refuse(cell, where, allowed=allowed)
    if not -_LARGEST_NUMBER <= cell <= _LARGEST_NUMBER:
        raise DataError(f"{where} has a number that is not finite or beyond {_LARGEST_NUMBER:.0e}.")
    return float(cell)


def refuse(cell: object, where: str, *, allowed: str) -> DataError:
    """Return the error about a cell of a type that is no label."""
    return DataError(
        f"{where} has a label of type {type(cell).__name__}. Allowed: {allowed}. Is the label column the right one "
        "(--label-column)?"
    )


def sort_names(names: Iterable[str]) -> tuple[str, ...]:
    """Sort different class names: whole numbers by value, anything else alphabetically."""
    distinct = sorted(set(names))
    if all(re.fullmatch(r"-?\d+", name) for name in distinct):
        distinct.sort(key=int)
    return tuple(distinct)


def check_label_names(names: Sequence[str]) -> None:
    """Check the class names of a classifier.

    Args:
        names: At least two, all different, none empty.

    Raises:
        DataError: They are not.
    """
    if len(names) < 2:
        raise DataError(
            f"A classifier needs at least two different labels, got {len(names)}: {list(names)}. "
            "Check that the right label column was chosen (--label-column)."
        )
    if any(not name for name in names):
        raise DataError(f"Label names must not be empty, got {list(names)}.")
    if len(set(names)) != len(names):
        raise DataError(f"Label names must differ, got {list(names)}.")


def check_not_constant(labels: Sequence[Label], origin: str) -> None:
    """Check that rows to train on do not all have the same label.

    Args:
        labels: At least one.
        origin: Where the rows come from, for messages.

    Raises:
        DataError: They do.
    """
    if len(set(labels)) == 1:
        raise DataError(
            f"{origin}: all {len(labels)} rows have the same label, '{str(labels[0])[:40]}'. A model needs rows of at "
            "least two. Is the label column the right one (--label-column)?"
        )


def check_not_unique(names: Iterable[str], rows: int, origin: str) -> None:
    """Check that a label column does not hold nearly as many labels as rows.

    Args:
        names: The different labels.
        rows: Number of rows.
        origin: Where the rows come from, for messages.

    Raises:
        DataError: It does.
    """
    distinct = len(set(names))
    if distinct > _MANY_LABELS and 2 * distinct > rows:
        raise DataError(
            f"{origin}: {rows} rows have {distinct} different labels, nearly one a row. The label column is probably "
            "the wrong one (--label-column)."
        )


def join_small_strata(strata: NDArray[np.int64]) -> NDArray[np.int64]:
    """Put rows of strata that have fewer than 10 rows into the largest one; shape (n,)."""
    names, inverse, counts = np.unique(strata, return_inverse=True, return_counts=True)
    return np.where(counts[inverse] < _FEWEST_IN_STRATUM, names[counts.argmax()], strata).astype(np.int64)


def _read_json_list(text: str) -> list[object]:
    """Return the items of a list written as text; what is none is a label that begins with a bracket."""
    try:
        items = json.loads(text)
    except ValueError:
        return [text]
    return items if isinstance(items, list) else [text]
