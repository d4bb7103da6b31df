"""Rows that training can use: texts that are texts, labels that are classes. Bad rows are named, never guessed at."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self, cast

import numpy as np
from numpy.typing import NDArray

from lorafit.data.rows import RawRows, Split
from lorafit.errors import DataError
from lorafit.system.text import Text, format_count, is_visible
from lorafit.tasks.base import Task
from lorafit.tasks.label_spellings import match_cases
from lorafit.tasks.labels import Label, LabelColumn, LabelReading, is_missing, quote_label

_EMPTY_LABEL: Final = "an empty label"

_MOST_KINDS: Final = 20
"""Faults that a message lists."""


@dataclass(frozen=True)
class CheckedRows:
    """Rows that can be used, in input order.

    Attributes:
        origin: Where they come from, for messages.
        ids: Shape (n,), int64: the row's number, counted from 1.
        texts: n texts or pairs of texts, none of them empty.
        labels: n labels.
        notes: What a user should know: what was found, merged and left out.
        doubts: Why the labels are probably not those that are meant.
        left_out: Number of each row that was left out, and what is wrong with it.
        columns: n values of each slice column by its name, "" where there is none.
        groups: What each row belongs to, or None.
        times: What each row is ordered by, or None.
        separator: What stands between several labels in a cell, or None.
        decimal: The decimal sign of written numbers, or None.
    """

    origin: str
    ids: NDArray[np.int64]
    texts: tuple[Text, ...]
    labels: tuple[Label, ...]
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    left_out: tuple[tuple[int, str], ...] = ()
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    groups: tuple[str, ...] | None = None
    times: tuple[str, ...] | None = None
    separator: str | None = None
    decimal: str | None = None

    def select(self, keep: Sequence[bool]) -> Self:
        """Return the rows for which `keep`, n of them, holds."""

        def pick(values: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(itertools.compress(values, keep))

        return replace(
            self,
            ids=self.ids[np.asarray(keep, dtype=bool)],
            texts=pick(self.texts),
            labels=pick(self.labels),
            columns={name: pick(values) for name, values in self.columns.items()},
            groups=None if self.groups is None else pick(self.groups),
            times=None if self.times is None else pick(self.times),
        )

    def rename(self, task: Task | type[Task], names: Mapping[str, str]) -> Self:
        """Return the rows with other names for some labels; `task` knows how labels hold names."""
        return replace(self, labels=tuple(task.rename(label, names) for label in self.labels))


def check_rows(raw: RawRows, task: type[Task], reading: LabelReading, *, drop_bad_rows: bool) -> CheckedRows:
    """Check every row.

    A text must be a string with more than white space in it; what a label may be, `Task.read_labels` says.

    Args:
        raw: The rows as read.
        task: The task.
        reading: How label cells are read.
        drop_bad_rows: Leave unusable rows out, with a note, instead of stopping.

    Returns:
        The usable rows.

    Raises:
        DataError: There are unusable rows that are not to be dropped, or none is usable; the message has all of them by
            what is wrong.
    """
    ids = raw.ids if raw.ids is not None else range(1, len(raw.texts) + 1)
    column = task.read_labels(raw.labels, reading)
    faults = find_faults(raw, column)
    left_out = tuple((ids[place], fault) for place, fault in faults.items())
    places = [place for place in range(len(raw.texts)) if place not in faults]
    explained = column.notes if _has_label_fault(left_out, column) else ()
    notes = _report_faults(raw.origin, left_out, explained, usable=len(places), drop_bad_rows=drop_bad_rows)

    def keep(values: Sequence[object] | None) -> tuple[str, ...] | None:
        return None if values is None else tuple(read_value(values[place]) for place in places)

    return CheckedRows(
        raw.origin,
        ids=np.array([ids[place] for place in places], dtype=np.int64),
        texts=tuple(cast("Text", raw.texts[place]) for place in places),
        labels=tuple(cast("Label", column.labels[place]) for place in places),
        notes=(*raw.notes, *column.notes, *column.unmerged, *notes),
        doubts=column.doubts,
        left_out=left_out,
        columns={name: keep(values) or () for name, values in raw.columns.items()},
        groups=keep(raw.groups),
        times=keep(raw.times),
        separator=column.separator,
        decimal=column.decimal,
    )


def find_faults(raw: RawRows, column: LabelColumn) -> dict[int, str]:
    """Find the rows that cannot be used.

    Args:
        raw: The rows as read.
        column: Their labels.

    Returns:
        What is wrong with each such row, by its place, counted from 0.
    """
    faults: dict[int, str] = {}
    for place, (text, label) in enumerate(zip(raw.texts, column.labels, strict=True)):
        fault = raw.faults.get(place) or describe_text_fault(text) or column.faults.get(place)
        if fault is not None or label is None:
            faults[place] = fault or _EMPTY_LABEL
    return faults


def encode_rows(rows: CheckedRows, task: Task) -> Split:
    """Turn checked rows into a split.

    Args:
        rows: The rows.
        task: The task, with the labels of the training rows.

    Returns:
        The split.

    Raises:
        DataError: A label is not among those of the task; the message gives the rows by their ids.
    """
    if unknown := describe_unknown_labels(rows, task):
        raise DataError(
            f"{rows.origin} has {unknown}. Allowed: {[name[:40] for name in task.label_names[:20]]}"
            f"{', …' if len(task.label_names) > 20 else ''}. {_advise_unknown(rows, task)}"
        )
    return Split(rows.ids, rows.texts, task.encode(rows.labels), rows.columns, rows.groups, rows.times)


def describe_unknown_labels(rows: CheckedRows, task: Task) -> str:
    """Say which rows have labels that the task does not know, or return nothing if there are none."""
    strange = [task.unknown_names(label) for label in rows.labels]
    unknown = [int(row) for row, names in zip(rows.ids, strange, strict=True) if names]
    if not unknown:
        return ""
    listed = [name[:40] for name in sorted(set().union(*strange))[:10]]
    count = f"{len(unknown)} row{'s' if len(unknown) > 1 else ''}"
    return f"{count} with labels that training did not have: {listed} ({describe_rows(unknown)})"


def _advise_unknown(rows: CheckedRows, task: Task) -> str:
    """Return what helps with labels that the task does not know."""
    unknown = set().union(*map(task.unknown_names, rows.labels))
    alike = match_cases(sorted(unknown), task.label_names)
    if not alike:
        return "Leave these rows out with --bad-rows drop."
    pairs = ", ".join(f"{quote_label(name)} and {quote_label(other)}" for name, other in list(alike.items())[:5])
    rest = " Leave rows of the others out with --bad-rows drop." if len(alike) < len(unknown) else ""
    return f"Upper and lower case alone make {pairs} differ: --merge-spellings makes them one.{rest}"


def describe_text_fault(text: object) -> str | None:
    """Say what is wrong with a text, or return None if it can be used. The answer does not hold the text."""
    if isinstance(text, tuple):
        return next((fault for part in text if (fault := describe_text_fault(part)) is not None), None)
    if is_missing(text):
        return "no text"
    if not isinstance(text, str):
        return f"a text of type {type(text).__name__}"
    if not text.strip():
        return "an empty text"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "a text with half a surrogate pair"
    return None if any(map(is_visible, text)) else "a text without a visible sign"


def describe_rows(rows: Sequence[int]) -> str:
    """Return row numbers for a message: the first ten, then how many there are."""
    shown = ", ".join(map(str, rows[:10]))
    if len(rows) > 10:
        return f"rows {shown}, …, {len(rows)} in all"
    return f"row{'s' if len(rows) > 1 else ''} {shown}"


def read_value(value: object) -> str:
    """Return a value of a column that is neither text nor label as text; what is missing or blank is ""."""
    if is_missing(value):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _has_label_fault(left_out: Iterable[tuple[int, str]], column: LabelColumn) -> bool:
    """Tell whether a row is left out for its label."""
    kinds = {_EMPTY_LABEL, *column.faults.values()}
    return any(fault in kinds for _, fault in left_out)


def _report_faults(
    origin: str, left_out: Sequence[tuple[int, str]], explained: Sequence[str], *, usable: int, drop_bad_rows: bool
) -> tuple[str, ...]:
    """Refuse rows with faults, with notes on how their labels were read, or say that they are left out."""
    if not left_out:
        return ()
    kinds: dict[str, list[int]] = {}
    for row, fault in left_out:
        kinds.setdefault(fault, []).append(row)
    count = len(left_out)
    shown = [f"{fault} ({describe_rows(rows)})" for fault, rows in itertools.islice(kinds.items(), _MOST_KINDS)]
    listed = "; ".join(shown) + (f"; and {len(kinds) - len(shown):,} other faults" if len(kinds) > len(shown) else "")
    more = "".join(f" {note}" for note in explained)
    if usable == 0:
        raise DataError(
            f"{origin}: none of its {format_count(count, 'row')} can be used: {listed}. Are the columns "
            f"(--text-column, --label-column) and the encoding (--encoding) the right ones?{more}"
        )
    if not drop_bad_rows:
        raise DataError(
            f"{origin}: {count} of {count + usable} rows cannot be used: {listed}. "
            f"Mend them, or leave them out with --bad-rows drop.{_advise(kinds)}{more}"
        )
    return (f"{origin}: left out {count} of {count + usable} rows: {listed}.",)


def _advise(kinds: Iterable[str]) -> str:
    """Return what else helps with faults of these kinds."""
    if any(kind.startswith("bytes that are not") for kind in kinds):
        return " --encoding-errors replace reads such bytes as replacement characters."
    return ""
