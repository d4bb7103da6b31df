"""The figure that methods are compared by."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error

from lorafit.config import EvaluationConfig
from lorafit.data.rows import Split
from lorafit.experiments.compare.scores import measure_errors, measure_score
from lorafit.labels import Task

CONFIG = EvaluationConfig(bootstrap_samples=200)
ROWS = 120


def build_rows(task: Task, rng: np.random.Generator) -> tuple[Split, list[np.ndarray]]:
    """Rows, and what two models say of them: the second is the better."""
    ids, texts = np.arange(ROWS), ("a text",) * ROWS
    noise = [rng.normal(scale=scale, size=(ROWS, 3)) for scale in (2.0, 0.7)]
    if task == "regression":
        numbers = rng.normal(50, 10, ROWS)
        return Split(ids, texts, numbers), [numbers[:, np.newaxis] + values[:, :1] for values in noise]
    if task == "multi_label":
        marks = (rng.random((ROWS, 3)) < 0.4).astype(np.int64)
        return Split(ids, texts, marks), [1 / (1 + np.exp(-(2 * marks - 1 + values))) for values in noise]
    labels = rng.integers(3, size=ROWS)
    scores = [np.exp(np.eye(3)[labels] + values) for values in noise]
    return Split(ids, texts, labels), [values / values.sum(axis=1, keepdims=True) for values in scores]


def measure_plainly(rows: Split, values: np.ndarray, task: Task) -> float:
    if task == "regression":
        return mean_absolute_error(rows.labels, values[:, 0])
    if task == "multi_label":
        return f1_score(rows.labels, values >= 0.5, average="micro")
    return accuracy_score(rows.labels, values.argmax(axis=1))


@pytest.mark.parametrize("task", ["single_label", "multi_label", "regression"])
def test_figure_is_scikit_learns_and_its_interval_holds_what_resampled_rows_give(task: Task) -> None:
    rng = np.random.default_rng(0)
    rows, (worse, better) = build_rows(task, rng)
    both = measure_score(rows, [worse, better], task, CONFIG)
    plain = [measure_plainly(rows, values, task) for values in (worse, better)]
    assert both.by_model == pytest.approx(plain)
    assert both.value == pytest.approx(np.mean(plain))
    drawn = []
    for _ in range(200):
        chosen = rng.integers(ROWS, size=ROWS)
        part = Split(rows.ids, rows.texts, rows.labels[chosen])
        drawn.append(np.mean([measure_plainly(part, values[chosen], task) for values in (worse, better)]))
    assert np.std(both.resampled) == pytest.approx(np.std(drawn), rel=0.3)
    estimate = both.estimate(0.95)
    assert (estimate.low, estimate.high) == pytest.approx(np.quantile(both.resampled, [0.025, 0.975]).tolist())


@pytest.mark.parametrize("task", ["single_label", "multi_label", "regression"])
def test_difference_is_of_the_same_resampled_rows(task: Task) -> None:
    rows, (worse, better) = build_rows(task, np.random.default_rng(1))
    first, second = (measure_score(rows, [values], task, CONFIG) for values in (worse, better))
    difference = (second - first).estimate(0.95)
    assert difference.value == pytest.approx(second.value - first.value)
    assert difference.low > 0 if task != "regression" else difference.high < 0
    nothing = (first - measure_score(rows, [worse], task, CONFIG)).estimate(0.95)
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)


def test_errors_are_counted_row_by_row() -> None:
    ids, texts = np.arange(2), ("a", "b")
    single = Split(ids, texts, np.array([0, 1]))
    assert measure_errors(single, np.array([[0.9, 0.1], [0.8, 0.2]]), "single_label").tolist() == [0, 1]
    several = Split(ids, texts, np.array([[1, 0], [1, 1]]))
    assert measure_errors(several, np.array([[0.9, 0.1], [0.2, 0.2]]), "multi_label").tolist() == [0, 2]
    numbers = Split(ids, texts, np.array([1.0, 2.0]))
    assert measure_errors(numbers, np.array([[1.5], [0.0]]), "regression").tolist() == [0.5, 2]
