"""Rows that training can use: texts that are texts, labels that are classes. Bad rows are named, never guessed at."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorafit.data.label_values import LabelValue, read_label
from lorafit.data.rows import RawRows, Split
from lorafit.errors import DataError
from lorafit.labels import LabelSet, Task

__all__ = [
    "CheckedRows",
    "build_labels",
    "check_rows",
    "count_labels",
    "describe_rows",
    "describe_text_fault",
    "encode_labels",
    "encode_rows",
    "name_labels",
]

MANY_LABELS = 100
"""More labels than this, on more than half as many rows, are taken for a wrong column."""


@dataclass(frozen=True)
class CheckedRows:
    """Rows that can be used, in input order.

    Attributes:
        origin: Where they come from, for messages.
        ids: Shape (n,), int64: the row's number, counted from 1.
        texts: n texts, none of them empty.
        labels: By task: n label names, none of them empty; n tuples of label names; or n numbers.
        notes: What was left out.
        columns: n values of each slice column by its name, "" where there is none.
    """

    origin: str
    ids: NDArray[np.int64]
    texts: tuple[str, ...]
    labels: tuple[LabelValue, ...]
    notes: tuple[str, ...] = ()
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def check_rows(raw: RawRows, *, drop_bad_rows: bool, task: Task = "single_label", separator: str = ",") -> CheckedRows:
    """Check every row.

    A text must be a string with more than white space in it. What a label may be depends on the task (`read_label`).

    Args:
        raw: The rows as read.
        drop_bad_rows: Leave unusable rows out, with a note, instead of stopping.
        task: What a text gets.
        separator: What stands between several labels in one cell.

    Returns:
        The usable rows.

    Raises:
        DataError: There are unusable rows that are not to be dropped, none is usable, or a label is of another task.
    """
    ids = raw.ids if raw.ids is not None else range(1, len(raw.texts) + 1)
    faults: dict[str, list[int]] = defaultdict(list)
    kept: list[tuple[int, str, LabelValue]] = []
    places: list[int] = []
    for place, (row, text, value) in enumerate(zip(ids, raw.texts, raw.labels, strict=True)):
        label = read_label(value, f"{raw.origin}: row {row}", task, separator=separator)
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


def encode_rows(rows: CheckedRows, labels: LabelSet) -> Split:
    """Turn labels into what `Split.labels` holds: class ids, marks or numbers.

    Args:
        rows: Checked rows.
        labels: The classes of the training rows.

    Returns:
        The rows as a split.

    Raises:
        DataError: A label is not among `labels`; the message gives the rows by their ids.
    """
    if labels.task != "regression":
        _check_known(rows, labels)
    return Split(rows.ids, rows.texts, encode_labels(rows.labels, labels), rows.columns)


def encode_labels(values: Sequence[LabelValue], labels: LabelSet) -> NDArray[Any]:
    """Turn labels into what `Split.labels` holds: class ids, marks or numbers.

    Args:
        values: By task: n label names; n tuples of label names; or n numbers.
        labels: The task and its classes.

    Returns:
        By task: shape (n,), int64; shape (n, classes), int64, 0 or 1; or shape (n,), float64.

    Raises:
        KeyError: A name is not among `labels`.
    """
    if labels.task == "regression":
        return np.asarray(values, dtype=np.float64)
    label2id, marks = labels.label2id, np.zeros((len(values), len(labels)), dtype=np.int64)
    for place, value in enumerate(values):
        marks[place, [label2id[name] for name in _list_names(value)]] = 1
    return marks if labels.task == "multi_label" else marks.argmax(axis=1)


def name_labels(values: NDArray[Any], labels: LabelSet) -> tuple[LabelValue, ...]:
    """Turn what `Split.labels` holds back into labels, as `encode_labels` takes them."""
    if labels.task == "regression":
        return tuple(values.tolist())
    if labels.task == "multi_label":
        return tuple(tuple(labels.names[index] for index in np.flatnonzero(row)) for row in values)
    return tuple(labels.names[index] for index in values)


def count_labels(values: NDArray[Any], labels: LabelSet) -> dict[str, int]:
    """Count how many rows have each label.

    Args:
        values: What `Split.labels` holds.
        labels: The task and its classes.

    Returns:
        The number of rows by label, in label order; nothing of a regression.
    """
    if labels.task == "regression":
        return {}
    counts = values.sum(axis=0) if labels.task == "multi_label" else np.bincount(values, minlength=len(labels))
    return dict(zip(labels.names, counts.tolist(), strict=True))


def build_labels(rows: CheckedRows, task: Task = "single_label") -> LabelSet:
    """Build the label set of training rows.

    Args:
        rows: Checked training rows.
        task: What a text gets.

    Returns:
        Their labels: numbers in numeric order, anything else in alphabetical order; of a regression, `value`.

    Raises:
        DataError: All rows have one label, or there are so many labels that the column must be the wrong one.
    """
    if len(set(rows.labels)) == 1:
        raise DataError(
            f"{rows.origin}: all {len(rows.labels)} rows have the same label, '{str(rows.labels[0])[:40]}'. A model "
            "needs rows of at least two. Is the label column the right one (--label-column)?"
        )
    if task == "regression":
        return LabelSet(("value",), task)
    distinct = set().union(*map(_list_names, rows.labels))
    if len(distinct) > MANY_LABELS and 2 * len(distinct) > len(rows.labels):
        raise DataError(
            f"{rows.origin}: {len(rows.labels)} rows have {len(distinct)} different labels, nearly one a row. The "
            "label column is probably the wrong one (--label-column)."
        )
    return LabelSet(LabelSet.from_values(distinct).names, task)


def _list_names(label: LabelValue) -> set[str]:
    return set(label) if isinstance(label, tuple) else {str(label)}


def _check_known(rows: CheckedRows, labels: LabelSet) -> None:
    known, named = set(labels.names), [_list_names(label) for label in rows.labels]
    unknown = [int(row) for row, names in zip(rows.ids, named, strict=True) if not names <= known]
    if unknown:
        strange = sorted(set().union(*named) - known)
        raise DataError(
            f"{rows.origin} has labels that training did not have: {[name[:40] for name in strange[:10]]} "
            f"({describe_rows(unknown)}). Allowed: {list(labels.names)}."
        )


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
    if value is None or (isinstance(value, float) and math.isnan(value)):
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
