"""Labels: what they are, how a column of them is to be read and what it gave, and what a task asks of them."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lorafit.errors import DataError
from lorafit.system.text import clean_text

Label = str | tuple[str, ...] | float
"""The label of a row: a class name, several of them, or a number."""


@dataclass(frozen=True)
class LabelReading:
    """How label cells are read.

    Attributes:
        separator: What stands between several labels in one cell; None to find it.
        names: Names of the places of a list of 0 and 1, where they are known.
        missing: What stands in a cell without a label, beside nothing at all; a number stands for its other spellings.
        merge_spellings: Whether names that differ in upper and lower case alone are one label.
        known: The labels of the model that the rows are for, or none; a name that is spelled in another way is theirs.
        decimal: The decimal sign of written numbers, "," or "."; None to find it.
    """

    separator: str | None = None
    names: tuple[str, ...] = ()
    missing: str | None = None
    merge_spellings: bool = False
    known: tuple[str, ...] = ()
    decimal: str | None = None


@dataclass(frozen=True)
class LabelColumn:
    """The labels of n cells.

    Attributes:
        labels: One a cell; None where it has none, or none that can be read.
        faults: What is wrong with a cell that cannot be read, by its place, counted from 0. It does not hold the cell:
            cells with the same fault have the same text.
        notes: What a user should know of the column: how it was read, what was merged.
        doubts: Why these are probably not the labels that are meant; each says what to type instead.
        unmerged: The note on names that differ in upper and lower case alone, which stay apart; none where none do.
        separator: What stands between several labels in a cell, given or found; None where nothing does.
        decimal: The decimal sign of written numbers, given or found; None where any would do.
    """

    labels: tuple[Label | None, ...]
    faults: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    unmerged: tuple[str, ...] = ()
    separator: str | None = None
    decimal: str | None = None


_MANY_LABELS: Final = 100
_INTEGER: Final = re.compile(r"0|-?[1-9]\d{0,17}", re.ASCII)
"""More labels than this, on more than half as many rows, are taken for a wrong column."""

_FEWEST_IN_STRATUM: Final = 10

_NUMBER: Final = re.compile(r"[+-]?\d+(?:\.\d*)?")


@lru_cache(maxsize=16)
def are_integers(names: tuple[str, ...]) -> bool:
    """Tell whether all labels of a model are whole numbers, so that tables have them as such."""
    return all(_INTEGER.fullmatch(name) for name in names)


def is_missing(cell: object) -> bool:
    """Tell whether a cell holds nothing: None or a float NaN."""
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def shorten_label(name: str) -> str:
    """Return a label as lists show it: safe to print, 40 characters at most."""
    return clean_text(name, most=40)


def quote_label(name: str) -> str:
    """Return a label as messages show it: shortened, in quotes."""
    return f"'{shorten_label(name)}'"


def list_labels(names: Sequence[str], *, most: int = 10) -> str:
    """Return labels as messages list them: the first `most`, then how many more there are."""
    more = [f"… {len(names) - most:,} more"] if len(names) > most else []
    return ", ".join([*map(quote_label, names[:most]), *more])


def sort_names(names: Iterable[str]) -> tuple[str, ...]:
    """Sort different class names: whole numbers by value, anything else alphabetically."""
    distinct = sorted(set(names))
    if all(re.fullmatch(r"-?\d{1,100}", name) for name in distinct):
        distinct.sort(key=int)
    return tuple(distinct)


def name_labels(labels: Iterable[Label]) -> list[str]:
    """Return the different class names of labels in order of their first place; numbers have none."""
    names: dict[str, None] = {}
    for label in labels:
        if not isinstance(label, float):
            names |= dict.fromkeys((label,) if isinstance(label, str) else label)
    return list(names)


def check_label_names(names: Sequence[str]) -> None:
    """Check the class names of a classifier.

    Args:
        names: At least two, all different, none empty.

    Raises:
        DataError: They are not.
    """
    if len(names) < 2:
        raise DataError(
            f"A classifier needs at least two different labels, got {len(names)}{': ' if names else ''}"
            f"{list_labels(names)}. Check that the right label column was chosen (--label-column)."
        )
    if any(not name for name in names):
        raise DataError(f"Label names must not be empty, got {list_labels(names)}.")
    if len(set(names)) != len(names):
        raise DataError(f"Label names must differ, got {list_labels(names)}.")


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
            f"{origin}: all {len(labels):,} rows have the same label, {quote_label(_write(labels[0]))}. A model needs "
            "rows of at least two. Is the label column the right one (--label-column)?"
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
    distinct = set(names)
    if len(distinct) > _MANY_LABELS and 2 * len(distinct) > rows:
        numbers = all(_NUMBER.fullmatch(name) for name in distinct)
        raise DataError(
            f"{origin}: {rows:,} rows have {len(distinct):,} different labels, nearly one a row. The label column is "
            "probably the wrong one (--label-column)."
            f"{' If these numbers are what is to be predicted: --task regression.' if numbers else ''}"
        )


def join_small_strata(strata: NDArray[np.int64]) -> NDArray[np.int64]:
    """Put rows of strata that have fewer than 10 rows into the largest one; shape (n,)."""
    names, inverse, counts = np.unique(strata, return_inverse=True, return_counts=True)
    return np.where(counts[inverse] < _FEWEST_IN_STRATUM, names[counts.argmax()], strata).astype(np.int64)


def _write(label: Label) -> str:
    return ", ".join(label) or "(none)" if isinstance(label, tuple) else str(label)
