"""Rows that training can use: texts that are texts, labels that are classes. Bad rows are named, never guessed at."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lorafit.data.rows import RawRows, Split
from lorafit.errors import DataError
from lorafit.tasks.base import Task
from lorafit.tasks.labels import Label, is_missing


@dataclass(frozen=True)
class CheckedRows:
    """Rows that can be used, in input order.

    Attributes:
        origin: Where they come from, for messages.
        ids: Shape (n,), int64: the row's number, counted from 1.
        texts: n texts, none of them empty.
        labels: n labels.
        notes: What was left out.
        columns: n values of each slice column by its name, "" where there is none.
    """

    origin: str
    ids: NDArray[np.int64]
    texts: tuple[str, ...]
    labels: tuple[Label, ...]
    notes: tuple[str, ...] = ()
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def check_rows(raw: RawRows, task: type[Task], *, drop_bad_rows: bool, separator: str = ",") -> CheckedRows:
    """Check every row.

    A text must be a string with more than white space in it; what a label may be, `Task.parse_label` says.

    Args:
        raw: The rows as read.
        task: The task.
        drop_bad_rows: Leave unusable rows out, with a note, instead of stopping.
        separator: What stands between several labels in one cell.

    Returns:
        The usable rows.

    Raises:
        DataError: There are unusable rows that are not to be dropped, none is usable, or a label is of another task.
    """
    ids = raw.ids if raw.ids is not None else range(1, len(raw.texts) + 1)
    faults: dict[str, list[int]] = defaultdict(list)
    kept: list[tuple[int, str, Label]] = []
    places: list[int] = []
    for place, (row, text, value) in enumerate(zip(ids, raw.texts, raw.labels, strict=True)):
        label = task.parse_label(value, f"{raw.origin}: row {row}", separator=separator)
        fault = describe_text_fault(text) or ("an empty label" if label is None else None)
        if fault is not None:
            faults[fault].append(row)
        elif label is not None:
            kept.append((row, str(text), label))
            places.append(place)
    notes = _report_faults(raw.origin, faults, usable=len(kept), drop_bad_rows=drop_bad_rows)
    rows, texts, labels = zip(*kept, strict=True)
    columns = {name: tuple(_read_value(values[place]) for place in places) for name, values in raw.columns.items()}
    return CheckedRows(raw.origin, np.asarray(rows, dtype=np.int64), texts, labels, notes, columns)


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
    strange = [task.unknown_names(label) for label in rows.labels]
    unknown = [int(row) for row, names in zip(rows.ids, strange, strict=True) if names]
    if unknown:
        listed = sorted(set().union(*strange))
        raise DataError(
            f"{rows.origin} has labels that training did not have: {[name[:40] for name in listed[:10]]} "
            f"({describe_rows(unknown)}). Allowed: {list(task.label_names)}."
        )
    return Split(rows.ids, rows.texts, task.encode(rows.labels), rows.columns)


def describe_text_fault(text: object) -> str | None:
    """Say what is wrong with a text, or return None if it can be used. The answer does not hold the text."""
    if text is None:
        return "no text"
    if not isinstance(text, str):
        return f"a text of type {type(text).__name__}"
    if not text.strip():
        return "an empty text"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "a text with half a surrogate pair"
    return None


def describe_rows(rows: Sequence[int]) -> str:
    """Return row numbers for a message: the first ten, then how many there are."""
    shown = ", ".join(map(str, rows[:10]))
    if len(rows) > 10:
        return f"rows {shown}, …, {len(rows)} in all"
    return f"row{'s' if len(rows) > 1 else ''} {shown}"


def _read_value(value: object) -> str:
    """Return the value of a slice column as text; what is missing or blank is ""."""
    if is_missing(value):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _report_faults(
    origin: str, faults: Mapping[str, list[int]], *, usable: int, drop_bad_rows: bool
) -> tuple[str, ...]:
    if not faults:
        return ()
    count = sum(map(len, faults.values()))
    listed = "; ".join(f"{fault} ({describe_rows(rows)})" for fault, rows in faults.items())
    if usable == 0:
        raise DataError(
            f"{origin}: none of its {count} rows can be used: {listed}. "
            "Are the columns the right ones (--text-column, --label-column)?"
        )
    if not drop_bad_rows:
        raise DataError(
            f"{origin}: {count} of {count + usable} rows cannot be used: {listed}. "
            "Mend them, or leave them out with --drop-bad-rows."
        )
    return (f"{origin}: left out {count} of {count + usable} rows: {listed}.",)
