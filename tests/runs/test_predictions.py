from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lorafit.data.rows import Split
from lorafit.data.tables import read_table
from lorafit.runs.predictions import parse_predictions, read_predictions, write_predictions
from lorafit.tasks.base import Array, Task
from lorafit.tasks.registry import build_task

Case = tuple[Task, NDArray[Any], Array, dict[str, list[object]]]

CASES: dict[str, Case] = {
    "single_label": (
        build_task("single_label", ("neg", "pos")),
        np.array([0, 1, 1]),
        np.array([[0.9, 0.1], [0.2, 0.8], [0.75, 0.25]]),
        {"true_label": ["neg", "pos", "pos"], "label": ["neg", "pos", "neg"], "probability_neg": [0.9, 0.2, 0.75]},
    ),
    "multi_label": (
        build_task("multi_label", ("long", "odd")),
        np.array([[1, 0], [0, 0], [1, 1]]),
        np.array([[0.9, 0.1], [0.2, 0.8], [0.75, 0.5]]),
        {"true_labels": [["long"], [], ["long", "odd"]], "probability_odd": [0.1, 0.8, 0.5]},
    ),
    "regression": (
        build_task("regression", ("value",)),
        np.array([2.5, -1.0, 0.0]),
        np.array([[2.0], [-0.5], [0.25]]),
        {"true_value": [2.5, -1.0, 0.0], "value": [2.0, -0.5, 0.25]},
    ),
    "ordinal": (
        build_task("ordinal", ("1", "2", "3")),
        np.array([0, 2, 1]),
        np.array([[0.9, 0.1, 0.0], [0.1, 0.2, 0.7], [0.3, 0.4, 0.3]]),
        {"true_label": ["1", "3", "2"], "label": ["1", "3", "2"], "probability_2": [0.1, 0.2, 0.4]},
    ),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    """Each task in turn: labels of three rows, values, and some of what stands in their table."""
    return CASES[request.param]


def build_rows(y: NDArray[Any]) -> Split:
    return Split(ids=np.array([7, 3, 12]), texts=("c", "a", "b"), y=y)


def test_predictions_are_read_back_for_the_rows_they_were_written_for(case: Case, tmp_path: Path) -> None:
    task, y, values, expected = case
    path = tmp_path / "predictions.parquet"
    write_predictions(path, build_rows(y), task, values)
    np.testing.assert_array_equal(read_predictions(path, build_rows(y), task), values)
    columns = read_table(path).columns
    assert list(columns)[:2] == ["row_id", task.truth_column]
    assert list(columns)[-len(task.value_columns()) :] == task.value_columns()
    assert columns["row_id"] == [7, 3, 12]
    assert {name: columns[name] for name in expected} == expected
    ids, labels, again = parse_predictions(columns, task)
    assert (ids.tolist(), labels.tolist()) == ([7, 3, 12], y.tolist())
    np.testing.assert_array_equal(again, values)


def test_predictions_of_other_rows_or_labels_are_not_taken(case: Case, tmp_path: Path) -> None:
    task, y, values, _ = case
    path, rows = tmp_path / "predictions.parquet", build_rows(y)
    assert read_predictions(path, rows, task) is None
    write_predictions(path, rows, task, values)
    assert read_predictions(path, rows.select(np.array([1, 0, 2])), task) is None
    assert read_predictions(path, rows.select(np.array([0, 1])), task) is None
    assert read_predictions(path, rows, build_task("single_label", ("neg", "other"))) is None
