import numpy as np
import pytest

from lorafit.data.rows import Split
from lorafit.errors import ExportDriftError
from lorafit.inference.export.parity import check_parity, measure_parity
from lorafit.inference.export.records import ParityRecord, Precision
from lorafit.tasks.base import Array, Task
from lorafit.tasks.registry import build_task

RNG = np.random.default_rng(0)


def draw(task: Task, rows: int = 400) -> tuple[Split, Array]:
    """Rows, and the logits of a model that is mostly right."""
    noise = RNG.normal(size=(rows, len(task.output_names)))
    if task.name == "regression":
        y = 2000 + 10 * RNG.normal(size=rows)
        logits = y[:, np.newaxis] + noise
    elif task.name == "multi_label":
        logits = 3 * noise
        y = (logits + RNG.normal(size=logits.shape) > 0).astype(np.int64)
    else:
        logits = 3 * np.sort(noise)[:, ::-1] if task.name == "ordinal" else 3 * noise
        y = np.where(RNG.random(rows) < 0.9, task.main_output(task.activate(logits)), 0)
    return Split(np.arange(rows), ("a",) * rows, y), logits


def measure(task: Task, precision: Precision, rows: Split, before: Array, after: Array) -> ParityRecord:
    return measure_parity(task, precision, (before[:5], after[:5]), rows, (before, after))


def test_the_same_logits_are_no_drift(task: Task) -> None:
    rows, logits = draw(task)
    parity = measure(task, "fp32", rows, logits, logits)
    check_parity(parity, task, "fp32")
    assert (parity.rows, parity.largest_difference) == (400, 0)
    assert (parity.agreement is None) is (task.same_prediction(logits, logits) is None)
    assert parity.agreement is None or parity.agreement.value == 1
    assert list(parity.differences) == [*task.parity_metrics, *(["ece"] if "ece" in task.diff_metrics else [])]
    assert all(difference.value == 0 for difference in parity.differences.values())
    assert ParityRecord.model_validate_json(parity.model_dump_json()).rows == 400


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_logits_that_differ_by_more_than_their_size_allows_are_refused(task: Task, precision: Precision) -> None:
    rows, logits = draw(task)
    allowed = measure(task, precision, rows, logits, logits).allowed_difference
    size = np.abs(logits - logits.mean()).max() if task.name == "regression" else np.abs(logits).max()
    assert allowed == pytest.approx(size * {"fp32": 1e-3, "int8": 0.25}[precision], rel=0.02)
    for difference, is_refused in ((0.99 * allowed, False), (1.01 * allowed, True)):
        other = logits.copy()
        other[7, 0] += difference
        parity = measure(task, precision, rows, logits, other)
        assert parity.largest_difference == pytest.approx(difference)
        if is_refused:
            with pytest.raises(ExportDriftError, match=r"a logit differs by .*, allowed are .*Nothing was written"):
                check_parity(parity, task, precision)
        else:
            check_parity(parity, task, precision)


def test_without_rows_the_golden_sentences_alone_are_compared(task: Task) -> None:
    _, logits = draw(task)
    parity = measure_parity(task, "fp32", (logits, logits + 1e-9))
    assert (parity.rows, parity.agreement, parity.differences) == (0, None, {})
    check_parity(parity, task, "fp32")
    with pytest.raises(ExportDriftError, match="a logit differs by nan"):
        check_parity(measure_parity(task, "fp32", (logits, np.full_like(logits, np.nan))), task, "fp32")


@pytest.mark.parametrize("name", ["single_label", "ordinal"])
def test_other_predictions_and_lost_accuracy_are_refused(name: str) -> None:
    task = build_task(name, ("1", "2", "3"))
    rows, logits = draw(task)
    parity = measure(task, "int8", rows, logits, -logits)
    with pytest.raises(
        ExportDriftError,
        match=r"\d% of the predictions agree, 98% must; accuracy \(points\): -\d+\.\d \[.*\], at most 1\.0 may be lost "
        r".*Export without --int8",
    ):
        check_parity(parity, task, "int8")


def test_small_logits_may_differ_as_if_they_were_1() -> None:
    task = build_task("single_label", ("neg", "pos"))
    logits = np.full((3, 2), 0.01)
    assert measure_parity(task, "fp32", (logits, logits)).allowed_difference == pytest.approx(1e-3)


def test_an_export_that_gives_the_mean_alone_is_refused() -> None:
    """Numbers far from 0 are held against how far they lie apart."""
    task = build_task("regression", ("value",))
    rows, numbers = draw(task)
    parity = measure(task, "int8", rows, numbers, np.full_like(numbers, 2000.0))
    with pytest.raises(ExportDriftError, match=r"a logit differs by .*; R²: -0\.9\d\d \[.*\], at most 0\.010 may be"):
        check_parity(parity, task, "int8")


def test_an_export_that_gives_no_label_is_refused() -> None:
    """Of many labels, those that no text gets do not count as agreement."""
    task = build_task("multi_label", tuple(map(str, range(200))))
    marks = np.eye(200, dtype=np.int64)[np.arange(400) % 200]
    rows, logits = Split(np.arange(400), ("a",) * 400, marks), 0.1 * (2 * marks - 1.0)
    with pytest.raises(ExportDriftError, match=r"F1 \(micro\) \(points\): -100\.0"):
        check_parity(measure(task, "int8", rows, logits, np.full((400, 200), -0.1)), task, "int8")


def test_one_of_many_labels_may_change() -> None:
    task = build_task("multi_label", tuple(map(str, range(50))))
    marks = RNG.integers(0, 2, size=(400, 50))
    rows, logits = Split(np.arange(400), ("a",) * 400, marks), 0.1 * (2 * marks - 1.0)
    other = logits.copy()
    other[:20, 0] *= -1
    parity = measure(task, "int8", rows, logits, other)
    assert parity.agreement is not None
    assert parity.agreement.value == 0.95
    check_parity(parity, task, "int8")
