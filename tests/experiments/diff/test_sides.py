from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lorafit.data.tables import read_table
from lorafit.data.writing import write_table
from lorafit.errors import RunError
from lorafit.experiments.diff.sides import RunSide, open_side, read_side_calibration, read_test_predictions
from lorafit.tasks.registry import build_task

WriteRun = Callable[..., Path]
SignRun = Callable[[Path], None]
TRUTH = ["neg", "pos", "pos"]


def rewrite(side: RunSide, changes: dict[str, list[object] | None]) -> None:
    """Change columns of a run's predictions, or leave them out."""
    path = side.layout.predictions("test", "after")
    columns = {**read_table(path).columns, **changes}
    write_table(path, {name: values for name, values in columns.items() if values is not None})


def test_predictions_come_back_as_they_were(models: SimpleNamespace, write_values: WriteRun) -> None:
    side = open_side(write_values("run", models.task, models.y, models.after))
    predictions = read_test_predictions(side, models.task)
    np.testing.assert_array_equal(predictions.ids, np.arange(1, 201))
    np.testing.assert_array_equal(predictions.y, models.y)
    np.testing.assert_array_equal(predictions.values, models.after)


def test_predictions_come_in_the_order_of_labels_asked_for(write_guesses: WriteRun) -> None:
    side = open_side(write_guesses("run", TRUTH, ["neg", "neg", "pos"], confidence=0.8))
    turned = read_test_predictions(side, build_task("single_label", ("pos", "neg")))
    np.testing.assert_array_equal(turned.y, [1, 0, 0])
    np.testing.assert_allclose(turned.values, [[0.2, 0.8], [0.2, 0.8], [0.8, 0.2]])


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_runs_that_did_not_end_are_refused(write_guesses: WriteRun, status: str) -> None:
    with pytest.raises(RunError, match=f"its status is '{status}'.*lorafit train --resume"):
        open_side(write_guesses("run", TRUTH, TRUTH, status=status))


def test_folders_that_are_no_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run\.json is missing"):
        open_side(tmp_path)


def test_missing_predictions_are_named_with_what_to_do(write_guesses: WriteRun) -> None:
    side = open_side(write_guesses("run", TRUTH, TRUTH))
    side.layout.predictions("test", "after").unlink()
    with pytest.raises(RunError, match=r"test\.after\.parquet is missing.*lorafit diff A B DATA"):
        read_test_predictions(side, side.task)


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        ("single_label", {"true_label": ["neg", "neg", "pos"]}),
        ("single_label", {"true_label": ["neg", "pos", "meh"]}),
        ("single_label", {"probability_neg": [0.9, 0.9, 1.9]}),
        ("single_label", {"probability_neg": [0.9, 0.9, float("nan")]}),
        ("single_label", {"probability_neg": ["a", "b", "c"]}),
        ("single_label", {"probability_neg": [0.9, 0.9, None]}),
        ("single_label", {"row_id": ["a", "b", "c"]}),
        ("single_label", {"row_id": None}),
        ("single_label", {"probability_pos": None}),
        ("multi_label", {"true_labels": [["bad"], ["bad"], []]}),
        ("multi_label", {"true_labels": [["new"], ["bad", "long"], []]}),
        ("multi_label", {"true_labels": ["bad", "long", "odd"]}),
        ("multi_label", {"probability_bad": [0.9, 0.9, 1.9]}),
        ("multi_label", {"probability_bad": [0.9, 0.9, float("nan")]}),
        ("multi_label", {"probability_bad": None}),
        ("multi_label", {"true_labels": None}),
        ("regression", {"value": [1.0, 2.0, float("inf")]}),
        ("regression", {"value": [1.0, 2.0, None]}),
        ("regression", {"value": [1.0, 2.0, 1e200]}),
        ("regression", {"true_value": [1.0, 2.0, float("nan")]}),
        ("regression", {"true_value": ["one", "two", "three"]}),
        ("regression", {"true_value": None}),
        ("regression", {"row_id": None}),
        ("ordinal", {"true_label": ["1", "1", "2"]}),
        ("ordinal", {"true_label": ["1", "2", "9"]}),
        ("ordinal", {"probability_1": [0.9, 0.9, 0.9]}),
    ],
    ids=str,
)
def test_altered_predictions_are_refused(
    write_values: WriteRun, sign_run: SignRun, task: str, changes: dict[str, list[object] | None]
) -> None:
    built, y, values = {
        "single_label": (("neg", "pos"), np.array([0, 1, 1]), np.eye(2)[[0, 1, 1]]),
        "multi_label": (("bad", "long"), np.array([[1, 0], [1, 1], [0, 0]]), np.full((3, 2), 0.4)),
        "regression": (("value",), np.array([1.0, 2, 3]), np.array([[1.5], [2], [3]])),
        "ordinal": (("1", "2", "3"), np.array([0, 1, 2]), np.eye(3)),
    }[task]
    side = open_side(write_values("run", build_task(task, built), y, values))
    rewrite(side, {})
    sign_run(side.root)
    side = open_side(side.root)
    np.testing.assert_array_equal(read_test_predictions(side, side.task).y, y)
    rewrite(side, changes)
    with pytest.raises(RunError, match=r"test\.after\.parquet was altered after the run wrote it"):
        read_test_predictions(side, side.task)
    sign_run(side.root)
    side = open_side(side.root)
    with pytest.raises(RunError, match="does not fit the run's record"):
        read_test_predictions(side, side.task)


def test_predictions_that_lack_rows_or_are_no_table_are_refused(
    models: SimpleNamespace, write_values: WriteRun, sign_run: SignRun
) -> None:
    side = open_side(write_values("run", models.task, models.y, models.after))
    path = side.layout.predictions("test", "after")
    write_table(path, {name: values[1:] for name, values in read_table(path).columns.items()})
    sign_run(side.root)
    side = open_side(side.root)
    with pytest.raises(RunError, match="does not fit the run's record"):
        read_test_predictions(side, side.task)
    path.write_bytes(b"PAR1")
    sign_run(side.root)
    side = open_side(side.root)
    with pytest.raises(RunError, match="does not fit the run's record"):
        read_test_predictions(side, side.task)


@pytest.mark.parametrize("task", ["single_label", "regression"])
def test_an_altered_calibration_is_refused(write_run: WriteRun, task: str) -> None:
    side = open_side(write_run(task, flags={"evaluation.coverage": 0.9}))
    calibration = read_side_calibration(side)
    assert calibration is not None
    assert calibration.asked["coverage"] == 0.9
    side.calibration.write_text(side.calibration.read_text().replace("0.9", "0.8"))
    with pytest.raises(RunError, match=r"calibration\.json was altered"):
        read_side_calibration(side)
    side.calibration.unlink()
    with pytest.raises(RunError, match=r"calibration\.json is missing"):
        read_side_calibration(side)


def test_a_run_without_a_calibration_has_none(models: SimpleNamespace, write_values: WriteRun) -> None:
    assert read_side_calibration(open_side(write_values("run", models.task, models.y, models.after))) is None
