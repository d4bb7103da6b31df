"""Rows that training can use: texts that are texts, labels that are classes. Bad rows are named, never guessed at."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lorafit.data.rows import RawRows, Split
from lorafit.errors import DataError
from lorafit.labels import LabelSet

__all__ = ["CheckedRows", "build_labels", "check_rows", "describe_rows", "describe_text_fault", "encode_rows"]

MANY_LABELS = 100
"""More labels than this, on more than half as many rows, are taken for a wrong column."""


@dataclass(frozen=True)
class CheckedRows:
    """Rows that can be used, in input order.

    Attributes:
        origin: Where they come from, for messages.
        ids: Shape (n,), int64: the row's number, counted from 1.
        texts: n texts, none of them empty.
        labels: n label names, none of them empty.
        notes: What was left out.
        columns: n values of each slice column by its name, "" where there is none.
    """

    origin: str
    ids: NDArray[np.int64]
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    notes: tuple[str, ...] = ()
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def check_rows(raw: RawRows, *, drop_bad_rows: bool) -> CheckedRows:
    """Check every row.

    A text must be a string with more than white space in it. A label must be a string (white space around it is
    dropped), a whole number (1.0 counts as 1) or a bool ("true", "false").

    Args:
        raw: The rows as read.
        drop_bad_rows: Leave unusable rows out, with a note, instead of stopping.

    Returns:
        The usable rows.

    Raises:
        DataError: There are unusable rows and they are not to be dropped, none is usable, or labels are fractions.
    """
    ids = raw.ids if raw.ids is not None else range(1, len(raw.texts) + 1)
    faults: dict[str, list[int]] = defaultdict(list)
    kept: list[tuple[int, str, str]] = []
    places: list[int] = []
    for place, (row, text, value) in enumerate(zip(ids, raw.texts, raw.labels, strict=True)):
        label = _read_label(value, row, raw.origin)
        fault = describe_text_fault(text) or ("an empty label" if label is None else None)
        if fault is None:
            kept.append((row, str(text), str(label)))
            places.append(place)
        else:
            faults[fault].append(row)
    notes = _report_faults(raw.origin, faults, usable=len(kept), drop_bad_rows=drop_bad_rows)
    rows, texts, labels = zip(*kept, strict=True)
    columns = {name: tuple(_read_value(values[place]) for place in places) for name, values in raw.columns.items()}
    return CheckedRows(raw.origin, np.asarray(rows, dtype=np.int64), texts, labels, notes, columns)


def encode_rows(rows: CheckedRows, labels: LabelSet) -> Split:
    """Turn label names into class ids.

    Args:
        rows: Checked rows.
        labels: The classes of the training rows.

    Returns:
        The rows as a split.

    Raises:
        DataError: A label is not among `labels`; the message gives the rows by their ids.
    """
    label2id = labels.label2id
    unknown = [int(row) for row, label in zip(rows.ids, rows.labels, strict=True) if label not in label2id]
    if unknown:
        strange = sorted(set(rows.labels) - label2id.keys())
        raise DataError(
            f"{rows.origin} has labels that training did not have: {[name[:40] for name in strange[:10]]} "
            f"({describe_rows(unknown)}). Allowed: {list(labels.names)}."
        )
    ids = np.asarray([label2id[label] for label in rows.labels], dtype=np.int64)
    return Split(rows.ids, rows.texts, ids, rows.columns)


def build_labels(rows: CheckedRows) -> LabelSet:
    """Build the label set of training rows.

    Args:
        rows: Checked training rows.

    Returns:
        Their labels: numbers in numeric order, anything else in alphabetical order.

    Raises:
        DataError: All rows have one label, or there are so many labels that the column must be the wrong one.
    """
    distinct = set(rows.labels)
    if len(distinct) == 1:
        raise DataError(
            f"{rows.origin}: all {len(rows.labels)} rows have the same label, '{rows.labels[0][:40]}'. A classifier "
            "needs rows of at least two. Is the label column the right one (--label-column)?"
        )
    if len(distinct) > MANY_LABELS and 2 * len(distinct) > len(rows.labels):
        raise DataError(
            f"{rows.origin}: {len(rows.labels)} rows have {len(distinct)} different labels, nearly one a row. The "
            "label column is probably the wrong one (--label-column)."
        )
    return LabelSet.from_values(distinct)


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


def _read_label(value: object, row: int, origin: str) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if not value.is_integer():
            raise DataError(
                f"{origin}: row {row} has the label {value}. Fractions look like a regression task; lorafit trains "
                "classifiers. Choose a column of classes (--label-column), or turn the numbers into class names."
            )
        value = int(value)
    if isinstance(value, int):
        return str(value)
    if value is None:
        return None
    raise DataError(
        f"{origin}: row {row} has a label of type {type(value).__name__}. Allowed: text, whole numbers, true and "
        "false, one label a row. Is the label column the right one (--label-column)?"
    )


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
