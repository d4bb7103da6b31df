import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lorafit.errors import RunError
from lorafit.models.tokenization import read_tokenizer
from lorafit.runs.golden import GOLDEN_TEXTS, GOLDEN_TOLERANCE, GoldenRecord, choose_golden_texts, verify_golden
from lorafit.tasks.base import Task
from lorafit.tasks.registry import build_task

LOGITS = [[0.5, -0.25], [-3.0, 2.0]]
TASK = build_task("single_label", ("neg", "pos"))


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    path = tmp_path / "golden.json"
    GoldenRecord(texts=["one", "two"], logits=LOGITS).write(path)
    return path


def answer(logits: object) -> Callable[[list[str]], NDArray[np.floating]]:
    def compute(texts: list[str]) -> NDArray[np.floating]:
        assert texts == ["one", "two"]
        return np.array(logits, dtype=np.float64)

    return compute


def test_equal_logits_pass(golden: Path) -> None:
    assert verify_golden(golden, answer(LOGITS), TASK, runtime="torch") == 0.0


def test_tolerance_is_relative_to_the_largest_logit(golden: Path) -> None:
    allowed = 3.0 * GOLDEN_TOLERANCE["torch"]
    near, far = np.array(LOGITS), np.array(LOGITS)
    near[0, 0] += 0.99 * allowed
    far[0, 0] -= 1.01 * allowed
    assert verify_golden(golden, answer(near), TASK, runtime="torch") == pytest.approx(0.99 * allowed)
    with pytest.raises(RunError, match="run by torch does not give its golden logits"):
        verify_golden(golden, answer(far), TASK, runtime="torch")


def test_small_logits_are_compared_absolutely(tmp_path: Path) -> None:
    path = tmp_path / "golden.json"
    GoldenRecord(texts=["one", "two"], logits=[[0.0, 0.0], [0.0, 0.0]]).write(path)
    allowed = 0.1 * GOLDEN_TOLERANCE["torch"]
    assert verify_golden(path, answer([[0.9 * allowed, 0], [0, 0]]), TASK, runtime="torch") > 0
    with pytest.raises(RunError, match="does not give its golden logits"):
        verify_golden(path, answer([[1.1 * allowed, 0], [0, 0]]), TASK, runtime="torch")


@pytest.mark.parametrize(
    ("task", "scale"),
    [(build_task("regression", ("value",)), 0.5), (build_task("ordinal", ("1", "2")), 100.5)],
    ids=["numbers lie 0.5 from their mean", "a logit has its own size"],
)
def test_one_output_is_compared_as_its_task_says(tmp_path: Path, task: Task, scale: float) -> None:
    path, allowed = tmp_path / "golden.json", scale * GOLDEN_TOLERANCE["torch"]
    GoldenRecord(texts=["one", "two"], logits=[[99.5], [100.5]]).write(path)
    assert verify_golden(path, answer([[99.5 + 0.9 * allowed], [100.5]]), task, runtime="torch") > 0
    with pytest.raises(RunError, match="does not give its golden logits"):
        verify_golden(path, answer([[99.5 + 1.1 * allowed], [100.5]]), task, runtime="torch")


@pytest.mark.parametrize(
    "logits",
    [[[float("nan"), -0.25], [-3.0, 2.0]], [[float("inf"), -0.25], [-3.0, 2.0]], [[0.5], [-3.0]], [[0.5, -0.25]]],
    ids=["nan", "inf", "fewer classes", "fewer rows"],
)
def test_logits_that_cannot_be_compared_do_not_pass(golden: Path, logits: list[list[float]]) -> None:
    with pytest.raises(RunError, match="does not give its golden logits"):
        verify_golden(golden, answer(logits), TASK, runtime="torch")


def test_golden_that_is_not_a_number_does_not_pass(tmp_path: Path) -> None:
    path = tmp_path / "golden.json"
    GoldenRecord(texts=["one", "two"], logits=[[float("nan"), 0.0], [0.0, 0.0]]).write(path)
    with pytest.raises(RunError, match="does not give its golden logits"):
        verify_golden(path, answer([[float("nan"), 0.0], [0.0, 0.0]]), TASK, runtime="torch")


def test_record_reads_back_exactly(golden: Path) -> None:
    record = GoldenRecord.read(golden)
    assert (record.texts, record.logits) == (["one", "two"], LOGITS)


def test_damaged_record_is_refused(golden: Path) -> None:
    golden.write_text(json.dumps({"texts": ["one"]}))
    with pytest.raises(RunError, match=r"golden\.json is damaged"):
        verify_golden(golden, answer(LOGITS), TASK, runtime="torch")


@pytest.mark.parametrize(
    ("max_length", "fitting"), [(128, list(GOLDEN_TEXTS)), (6, ["Not bad!"]), (3, list(GOLDEN_TEXTS))]
)
def test_sentences_that_would_be_cut_are_left_out(tiny_distilbert: Path, max_length: int, fitting: list[str]) -> None:
    assert choose_golden_texts(read_tokenizer(tiny_distilbert), max_length) == fitting


def test_sentences_are_distinct_and_short() -> None:
    assert len(set(GOLDEN_TEXTS)) == len(GOLDEN_TEXTS) >= 5
    assert all(0 < len(text.split()) <= 20 for text in GOLDEN_TEXTS)
