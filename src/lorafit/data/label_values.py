"""What stands in a label column, by task."""

import json
import math
from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from lorafit.errors import DataError
from lorafit.labels import Task

__all__ = ["LabelValue", "read_label"]

LabelValue = str | tuple[str, ...] | float
"""A label of a row: a class's name, several of them, or a number."""

_LARGEST_NUMBER: Final = 1e30
"""Larger ones would leave the range of fp32, in which the model computes, when they are squared or scaled."""

_ALLOWED: Final[dict[Task, str]] = {
    "single_label": "text, whole numbers, true and false, one label a row",
    "multi_label": "lists of labels, or labels with a separator between them (data.label_separator)",
    "regression": "numbers",
}


def read_label(value: object, where: str, task: Task, *, separator: str) -> LabelValue | None:
    """Read a row's label.

    One label is text (white space around it is dropped), a whole number (1.0 counts as 1) or a bool ("true", "false").
    Several are a list of such, text of the form of a JSON list, or text with a separator between them; there may be
    none. A number may be written as text.

    Args:
        value: What stands in the column.
        where: The row, for messages.
        task: What a text gets.
        separator: What stands between several labels in one cell.

    Returns:
        The label, or None where there is none.

    Raises:
        DataError: It is not a label of the task.
    """
    if _is_missing(value):
        return None
    if task == "multi_label":
        return _read_several(value, where, separator)
    if task == "regression":
        return _read_number(value, where)
    return _read_name(value, where, task)


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _read_name(value: object, where: str, task: Task) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, float):
        if not value.is_integer():
            raise DataError(
                f"{where} has the label {value}. Fractions look like a regression: say so with --task regression, "
                "choose a column of classes (--label-column), or turn the numbers into class names."
            )
        value = int(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list) and task == "single_label":
        raise DataError(f"{where} has a list of labels. Several labels a text are trained with --task multi_label.")
    raise _refuse(value, where, task)


def _read_several(value: object, where: str, separator: str) -> tuple[str, ...]:
    if isinstance(value, str):
        text = value.strip()
        parts: Iterable[object] = _read_json_list(text) if text.startswith("[") else text.split(separator)
    elif isinstance(value, list | tuple):
        parts = value
    else:
        parts = [value]
    names = (_read_name(part, where, "multi_label") for part in parts if not _is_missing(part))
    return tuple(sorted({name for name in names if name is not None}))


def _read_json_list(text: str) -> list[object]:
    """Return the items of a list written as text; what is none is a label that begins with a bracket."""
    try:
        items = json.loads(text)
    except ValueError:
        return [text]
    return items if isinstance(items, list) else [text]


def _read_number(value: object, where: str) -> float | None:
    if isinstance(value, str):
        text = value.strip()
        if not text or text.lower() == "nan":
            return None
        try:
            value = float(text if "_" not in text else "_")  # Python's own would read 1_000 as 1000
        except ValueError:
            raise DataError(
                f"{where} has a label that is no number. A regression needs numbers: choose their column "
                "(--label-column), or leave --task regression out to train a classifier."
            ) from None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise _refuse(value, where, "regression")
    if not -_LARGEST_NUMBER <= value <= _LARGEST_NUMBER:
        raise DataError(f"{where} has a number that is not finite or beyond {_LARGEST_NUMBER:.0e}.")
    return float(value)


def _refuse(value: object, where: str, task: Task) -> DataError:
    return DataError(
        f"{where} has a label of type {type(value).__name__}. Allowed: {_ALLOWED[task]}. Is the label column the right "
        "one (--label-column)?"
    )
