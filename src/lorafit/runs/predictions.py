"""Tables of predictions: what a model gives each row of a split, in input order, beside its true label."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorafit.data.rows import Split
from lorafit.data.tables import read_table
from lorafit.data.writing import write_table
from lorafit.tasks.base import Array, Task


def write_predictions(path: Path, rows: Split, task: Task, values: Array) -> None:
    """Write the predictions of n rows as parquet.

    Args:
        path: Where to.
        rows: The rows.
        task: The task.
        values: Shape (n, labels).
    """
    columns: dict[str, list[Any]] = {"row_id": rows.ids.tolist(), task.truth_column: list(task.decode(rows.y))}
    columns |= task.prediction_columns(values)
    columns |= dict(zip(task.value_columns(), values.T.tolist(), strict=True))
    write_table(path, columns)


def read_predictions(path: Path, rows: Split, task: Task) -> Array | None:
    """Read the values written for exactly these rows.

    Args:
        path: Where from.
        rows: The n rows they should belong to.
        task: The task.

    Returns:
        Shape (n, labels), or None if there is no such file or it is of other rows.
    """
    if not path.is_file():
        return None
    columns = read_table(path).columns
    names = task.value_columns()
    if columns.get("row_id") != rows.ids.tolist() or not all(name in columns for name in names):
        return None
    return np.array([columns[name] for name in names], dtype=np.float64).T


def parse_predictions(
    columns: Mapping[str, Sequence[Any]], task: Task
) -> tuple[NDArray[np.int64], NDArray[Any], Array]:
    """Turn the columns of a table of predictions back into arrays.

    Args:
        columns: As `write_predictions` makes them, of n rows.
        task: The task, its labels in the order wanted.

    Returns:
        Row ids, shape (n,); `y`; and the values, shape (n, labels).

    Raises:
        KeyError: A column or the name of a label is missing.
        TypeError: A value is of another kind than its column holds.
        ValueError: The same.
        OverflowError: A row id is too large.
    """
    ids = np.array([int(str(row)) for row in columns["row_id"]], dtype=np.int64)
    values = np.array([columns[name] for name in task.value_columns()], dtype=np.float64).T
    return ids, task.encode(list(columns[task.truth_column])), values
