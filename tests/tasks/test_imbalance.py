"""Labels of which some are rare: weights of their losses, and the baseline that gives every text the same."""

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight

from lorafit.errors import ConfigError
from lorafit.tasks.baselines import MAJORITY
from lorafit.tasks.evaluation import compare, estimate
from lorafit.tasks.records import Resampling
from lorafit.tasks.registry import TASKS, build_task, get_task

RARE = np.array([0] * 48 + [1] * 2)


def test_weights_of_classes_are_those_of_scikit_learn() -> None:
    y = np.array([0, 0, 0, 2, 2, 1, 0, 0])
    task = build_task("single_label", "abc")
    np.testing.assert_allclose(task.loss_weights(y), compute_sample_weight("balanced", y), rtol=1e-6)
    unseen = build_task("single_label", "abcd").loss_weights(y)
    np.testing.assert_allclose(unseen, task.loss_weights(y)), "a class without rows takes no part"


def test_weights_of_scores_are_those_of_their_rows() -> None:
    weights = build_task("ordinal", "123").loss_weights(np.array([0, 0, 0, 1, 2, 2]))
    assert weights.shape == (6, 1), "all cumulative logits of a row count the same"
    np.testing.assert_allclose(weights[:, 0], compute_sample_weight("balanced", [0, 0, 0, 1, 2, 2]), rtol=1e-6)


def test_weights_of_several_labels_balance_each_by_itself() -> None:
    marks = np.array([[1, 0, 1, 0], [0, 0, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0]])
    weights = build_task("multi_label", "abcd").loss_weights(marks)
    for label in (0, 1):
        pair = compute_class_weight("balanced", classes=np.array([0, 1]), y=marks[:, label])
        np.testing.assert_allclose(weights[:, label], pair[marks[:, label]], rtol=1e-6)
    assert (weights[:, 2:] == 1).all(), "all rows have the third label, and none the fourth"


@pytest.mark.parametrize("name", [name for name in TASKS if name != "regression"])
def test_weights_are_1_on_average(name: str, build_case) -> None:  # noqa: ANN001 - a fixture of conftest
    case = build_case(name)
    weights = case.task.loss_weights(case.draw(400)[0])
    assert weights.dtype == np.float32
    assert weights.mean() == pytest.approx(1, abs=1e-5)


def test_numbers_cannot_be_balanced() -> None:
    get_task("regression").check_balancing([])
    with pytest.raises(ConfigError, match=r"training\.class_weights=balanced cannot be used with --task regression"):
        get_task("regression").check_balancing(["training.class_weights=balanced"])
    for name in ("single_label", "multi_label", "ordinal"):
        get_task(name).check_balancing(["training.class_weights=balanced", "training.loss=focal"])


def test_majority_gives_every_text_the_shares_of_the_labels() -> None:
    texts, others = ["a"] * 50, ["b", "c"]
    single = build_task("single_label", ["fraud", "ok"])
    found = single.predict_baseline(MAJORITY, texts, 1 - RARE, others)
    np.testing.assert_allclose(found, [[0.04, 0.96]] * 2)
    several = build_task("multi_label", ["a", "b"])
    marks = np.column_stack([RARE, 1 - RARE])
    np.testing.assert_allclose(several.predict_baseline(MAJORITY, texts, marks, others), [[0.04, 0.96]] * 2)
    numbers = build_task("regression", ["value"]).predict_baseline(MAJORITY, texts, np.arange(50.0) ** 2, others)
    np.testing.assert_allclose(numbers, [[np.median(np.arange(50.0) ** 2)]] * 2)


def test_majority_of_scores_answers_the_median() -> None:
    task, y = build_task("ordinal", "12345"), np.array([0, 0, 1, 2, 2, 2, 4])
    values = task.predict_baseline(MAJORITY, ["a"] * 7, y, ["b"])
    assert task.main_output(values).tolist() == [2]
    assert task.describe_constant(estimate(task, y, np.tile(values, (7, 1)), Resampling())) == "always answering '3'"


@pytest.mark.parametrize(
    ("name", "labels", "values", "words"),
    [
        ("single_label", ["fraud", "ok"], [0.04, 0.96], "always answering 'ok'"),
        ("multi_label", ["a", "b", "c"], [0.7, 0.8, 0.2], "always answering 'a' and 'b'"),
        ("multi_label", ["a", "b", "c"], [0.4, 0.2, 0.2], "never giving a label"),
        ("regression", ["value"], [3.0], "always answering the median of the training rows"),
    ],
)
def test_constant_is_described(name: str, labels: list[str], values: list[float], words: str) -> None:
    task = build_task(name, labels)
    y = np.eye(len(labels), dtype=np.int64) if name == "multi_label" else np.arange(len(labels))
    assert task.describe_constant(estimate(task, y, np.tile(values, (len(y), 1)), Resampling())) == words


@pytest.mark.parametrize("rows", [20, 500])
def test_constant_model_has_intervals_that_are_intervals(rows: int) -> None:
    task = build_task("single_label", ["fraud", "ok"])
    y = np.where(np.arange(rows) % 25 == 0, 0, 1)
    scores = estimate(task, y, np.tile([0.04, 0.96], (rows, 1)), Resampling())
    for one in (scores.metrics["accuracy"], scores.metrics["macro_f1"], scores.metrics["log_loss"]):
        assert one.low < one.value < one.high
    fraud, ok = scores.per_class
    assert (fraud.recall.value, fraud.recall.low) == (0, 0)
    assert fraud.recall.high > 0.1, "0 of 20 may well be 1 of 10"
    assert (ok.recall.value, ok.recall.high) == (1, 1)
    assert ok.recall.low < 1


@pytest.mark.parametrize("is_right", [True, False])
def test_rows_of_one_class_have_intervals_that_are_intervals(is_right: bool) -> None:
    task = build_task("single_label", ["fraud", "ok"])
    y, values = np.ones(40, dtype=np.int64), np.tile([0.1, 0.9] if is_right else [0.9, 0.1], (40, 1))
    accuracy = estimate(task, y, values, Resampling()).metrics["accuracy"]
    assert 0.05 < accuracy.high - accuracy.low < 0.2
    difference = compare(task, y, values, values, Resampling()).differences["accuracy"]
    assert difference.low < 0 < difference.high


def test_many_classes_of_one_row_have_intervals_that_are_intervals() -> None:
    classes = 77
    task, y = build_task("single_label", [f"intent {number:02}" for number in range(classes)]), np.arange(classes)
    values = np.full((classes, classes), 1 / classes)
    values[:, 0] += 1e-3
    scores = estimate(task, y, values / values.sum(axis=1, keepdims=True), Resampling())
    for name in ("accuracy", "log_loss"):
        assert scores.metrics[name].low < scores.metrics[name].value < scores.metrics[name].high
    assert scores.per_class[5].recall.high > 0.9, "a single row tells nearly nothing"
