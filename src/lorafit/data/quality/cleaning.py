"""A cleaned copy of training rows, and a log of what was changed; nothing is changed that was not asked for."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from lorafit.data.quality.debris import remove_html, repair_encoding
from lorafit.data.quality.duplicates import group_equal, group_similar, mark_conflicts
from lorafit.data.quality.labels import group_spellings
from lorafit.data.quality.rows import Positions
from lorafit.errors import ConfigError
from lorafit.system.text import join_text

Columns = Mapping[str, Sequence[object]]

FIXES: Final[Mapping[str, str]] = {
    "encoding": "texts that were read in a wrong encoding are repaired",
    "html": "tags become blanks, and entities the signs they stand for",
    "labels": "spellings of a label become the most frequent one",
    "leaks": "rows whose text is in validation or test, too, are dropped",
    "conflicts": "all rows of a text that has contradictory labels are dropped",
    "duplicates": "of rows with the same text and label the first is kept",
    "near-duplicates": "of rows with nearly the same text and the same label the first is kept",
}
"""What can be fixed and how, in the order in which it is done."""


@dataclass
class Cleaned:
    """Rows as they are after cleaning.

    Attributes:
        columns: All columns of the rows that are kept.
        changes: A record for each change: the row's number in the original, what was done, and why.
    """

    columns: dict[str, list[object]]
    changes: list[dict[str, object]] = field(default_factory=list)

    def count(self) -> dict[str, int]:
        """Count the changes by fix."""
        return dict(Counter(str(change["fix"]) for change in self.changes))


def parse_fixes(text: str) -> list[str]:
    """Read a list of fixes.

    Args:
        text: Names of `FIXES` with commas in between.

    Returns:
        The names in the order in which they are done.

    Raises:
        ConfigError: There is none, or one that is unknown.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in FIXES]
    if unknown or not names:
        got = f"got {', '.join(map(repr, unknown))}" if unknown else "got none"
        raise ConfigError(f"--fix: {got}; allowed: {', '.join(FIXES)}, several with commas in between.")
    return [name for name in FIXES if name in names]


def clean_rows(
    columns: Columns, fixes: Sequence[str], *, texts: Sequence[str], labels: Sequence[str], held_out: Sequence[str] = ()
) -> Cleaned:
    """Clean rows: first texts and labels, then whole rows, so that what became equal is found.

    Args:
        columns: The values of each column, equally many.
        fixes: From `parse_fixes`.
        texts: The columns with texts: one, or two of pairs.
        labels: The columns with labels; spellings are merged in a single one.
        held_out: Texts of validation and test rows.

    Returns:
        The cleaned rows and what was changed.

    Raises:
        MissingExtraError: A package that a fix needs is not installed.
    """
    cleaned = Cleaned({name: list(values) for name, values in columns.items()})
    repairs: dict[str, Callable[[str], str]] = {"encoding": repair_encoding, "html": remove_html}
    others = list(held_out)
    for fix in (name for name in fixes if name in repairs):
        others = [repairs[fix](text) for text in others]
        for name in texts:
            _change_texts(cleaned, fix, name, repairs[fix])
    if "labels" in fixes and len(labels) == 1:
        _merge_spellings(cleaned, labels[0])
    drops = [fix for fix in fixes if fix in {"leaks", "conflicts", "duplicates", "near-duplicates"}]
    if drops:
        _drop_rows(cleaned, drops, texts=texts, labels=labels, held_out=others)
    cleaned.changes.sort(key=lambda change: int(str(change["row"])))
    return cleaned


def _change_texts(cleaned: Cleaned, fix: str, column: str, repair: Callable[[str], str]) -> None:
    values = cleaned.columns[column]
    for place, value in enumerate(values):
        if isinstance(value, str) and (better := repair(value)) != value and better.strip():
            values[place] = better
            cleaned.changes.append({"row": place + 1, "fix": fix, "change": "text", "column": column})


def _merge_spellings(cleaned: Cleaned, column: str) -> None:
    values = cleaned.columns[column]
    counts = Counter(value for value in values if isinstance(value, str) and value.strip())
    best = {name: max(group, key=lambda one: counts[one]) for group in group_spellings(list(counts)) for name in group}
    for place, value in enumerate(values):
        better = best.get(value) if isinstance(value, str) else None
        if better is not None and better != value:
            values[place] = better
            change = {"row": place + 1, "fix": "labels", "change": "label", "column": column}
            cleaned.changes.append({**change, "from": str(value)[:40], "to": better[:40]})


def _drop_rows(
    cleaned: Cleaned, fixes: Sequence[str], *, texts: Sequence[str], labels: Sequence[str], held_out: Sequence[str]
) -> None:
    """Drop rows; those without a text are left alone."""
    joined = [_join(values) for values in zip(*(cleaned.columns[name] for name in texts), strict=True)]
    places = [place for place, text in enumerate(joined) if text is not None]
    own = [text for text in joined if text is not None]
    numbers: dict[tuple[str, ...], int] = {}
    keys = (tuple(str(cleaned.columns[name][place]).strip() for name in labels) for place in places)
    classes = np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
    equal = group_equal(own)
    dropped: dict[int, dict[str, object]] = {}
    for fix in fixes:
        for position, kept in _choose_drops(fix, own, equal, classes, set(held_out)):
            entry: dict[str, object] = {"row": places[position] + 1, "fix": fix, "change": "dropped"}
            entry |= {} if kept is None else {"kept": places[kept] + 1}
            if kept is None or places[kept] not in dropped:
                dropped.setdefault(places[position], entry)
    cleaned.changes += dropped.values()
    for name, values in cleaned.columns.items():
        cleaned.columns[name] = [value for place, value in enumerate(values) if place not in dropped]


def _choose_drops(
    fix: str, texts: Sequence[str], equal: Positions, classes: Positions, held_out: Set[str]
) -> Iterator[tuple[int, int | None]]:
    """Yield the rows that a fix drops, each with the row that is kept in its place."""
    if fix == "leaks":
        yield from ((place, None) for place, text in enumerate(texts) if text in held_out)
    elif fix == "conflicts":
        yield from ((place, None) for place in np.flatnonzero(mark_conflicts(equal, classes)).tolist())
    else:
        groups = equal if fix == "duplicates" else group_similar(texts, equal)
        first: dict[tuple[int, int], int] = {}
        for place, group in enumerate(zip(groups.tolist(), classes.tolist(), strict=True)):
            if (kept := first.setdefault(group, place)) != place:
                yield place, kept


def _join(values: tuple[Any, ...]) -> str | None:
    if not all(isinstance(value, str) and value.strip() for value in values):
        return None
    return join_text(values[0] if len(values) == 1 else values)
