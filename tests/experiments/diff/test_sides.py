from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lorafit.data.tables import read_table
from lorafit.data.writing import write_table
from lorafit.errors import RunError
from lorafit.experiments.diff.sides import open_side, read_answers
from lorafit.labels import LabelSet
from lorafit.runs.folder import RunLayout

LABELS = LabelSet(("neg", "pos"))
TRUTH = ["neg", "pos", "pos"]


def test_answers_come_in_input_order_and_in_the_order_of_labels_asked_for(write_run: Callable[..., Path]) -> None:
    side = open_side(write_run("run", TRUTH, ["neg", "neg", "pos"], confidence=0.8))
    answers = read_answers(side, LABELS)
    assert answers.ids == (1, 2, 3)
    np.testing.assert_array_equal(answers.truth, [0, 1, 1])
    np.testing.assert_allclose(answers.values, [[0.8, 0.2], [0.8, 0.2], [0.2, 0.8]])
    turned = read_answers(side, LabelSet(("pos", "neg")))
    np.testing.assert_array_equal(turned.truth, [1, 0, 0])
    np.testing.assert_array_equal(turned.values, answers.values[:, ::-1])


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_runs_that_did_not_end_are_refused(write_run: Callable[..., Path], status: str) -> None:
    with pytest.raises(RunError, match=f"its status is '{status}'.*lorafit train --resume"):
        open_side(write_run("run", TRUTH, TRUTH, status=status))


def test_folders_that_are_no_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run\.json is missing"):
        open_side(tmp_path)


def test_missing_predictions_are_named_with_what_to_do(write_run: Callable[..., Path]) -> None:
    side = open_side(write_run("run", TRUTH, TRUTH))
    side.layout.predictions("test", "finetuned").unlink()
    with pytest.raises(RunError, match=r"test\.finetuned\.parquet is missing.*lorafit diff A B DATA"):
        read_answers(side, LABELS)


@pytest.mark.parametrize(
    "changes",
    [
        {"true_label": ["neg", "neg", "pos"]},
        {"true_label": ["neg", "pos", "meh"]},
        {"probability_neg": [0.9, 0.9, 1.9]},
        {"probability_neg": [0.9, 0.9, float("nan")]},
        {"probability_neg": ["a", "b", "c"]},
        {"probability_neg": [0.9, 0.9, None]},
        {"row_id": ["a", "b", "c"]},
        {"row_id": None},
        {"probability_pos": None},
    ],
    ids=str,
)
def test_altered_predictions_are_refused(write_run: Callable[..., Path], changes: dict[str, list[object]]) -> None:
    side = open_side(write_run("run", TRUTH, TRUTH))
    path = RunLayout(side.layout.root).predictions("test", "finetuned")
    columns = {**read_table(path).columns, **changes}
    write_table(path, {name: values for name, values in columns.items() if values is not None})
    with pytest.raises(RunError, match="does not fit the run's record"):
        read_answers(side, LABELS)


def test_predictions_that_are_no_table_or_lack_rows_are_refused(write_run: Callable[..., Path]) -> None:
    side = open_side(write_run("run", TRUTH, TRUTH))
    path = side.layout.predictions("test", "finetuned")
    columns = read_table(path).columns
    write_table(path, {name: values[1:] for name, values in columns.items()})
    with pytest.raises(RunError, match="does not fit the run's record"):
        read_answers(side, LABELS)
    path.write_bytes(b"PAR1")
    with pytest.raises(RunError, match="does not fit the run's record"):
        read_answers(side, LABELS)
