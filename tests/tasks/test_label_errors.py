import numpy as np
import pytest

from lorafit.tasks.label_errors import suspect_classes, suspect_marks, suspect_numbers
from lorafit.tasks.registry import build_task


def draw_probabilities(truth: np.ndarray, classes: int, rng: np.random.Generator) -> np.ndarray:
    """A model that is right and sure of it, more or less."""
    logits = rng.normal(0, 1, size=(len(truth), classes))
    logits[np.arange(len(truth)), truth] += 8
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 4])
def test_suspect_classes_finds_what_was_changed(classes: int) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, classes, size=600)
    probabilities = draw_probabilities(truth, classes, rng)
    changed = np.zeros(600, dtype=bool)
    changed[rng.choice(600, 30, replace=False)] = True
    found = suspect_classes(np.where(changed, (truth + 1) % classes, truth), probabilities)
    assert (found & changed).sum() >= 28
    assert (found & ~changed).sum() <= 3


def test_suspect_classes_takes_classes_without_rows_and_probabilities_of_0() -> None:
    ids = np.array([0, 0, 0, 2, 2, 2, 0])
    probabilities = np.array([[1.0, 0, 0]] * 3 + [[0.0, 0, 1]] * 4)
    assert suspect_classes(ids, probabilities).tolist() == [False] * 6 + [True]


def test_suspect_marks_judges_each_label_and_passes_over_constant_ones() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, size=(400, 3))
    truth[:, 2] = 1
    probabilities = np.clip(truth * 0.8 + 0.1 + rng.normal(0, 0.03, size=truth.shape), 0, 1)
    probabilities[:15] = np.abs(truth[:15] - 0.01)  # sure of these
    given = truth.copy()
    given[:10, 0] = 1 - given[:10, 0]  # wrong or missing
    given[10:15, 1] = 1 - given[10:15, 1]
    assert np.flatnonzero(suspect_marks(given, probabilities)).tolist() == list(range(15))


def test_suspect_numbers_finds_errors_far_outside_the_spread_of_all() -> None:
    errors = np.random.default_rng(2).normal(3, 2, size=1000)  # 3: predictions are too high on the whole
    errors[:5] = [30, -30, 25, -20, 40]
    found = np.flatnonzero(suspect_numbers(errors))
    assert set(range(5)) <= set(found.tolist())
    assert len(found) <= 10


def test_suspect_numbers_holds_where_most_predictions_are_exact() -> None:
    assert np.flatnonzero(suspect_numbers(np.array([0.0] * 20 + [5.0]))).tolist() == [20]
    assert not suspect_numbers(np.zeros(5)).any()


@pytest.mark.parametrize(
    ("task", "labels", "values", "suggested"),
    [
        (build_task("single_label", ("a", "b")), ["a", "b"], [[0.9, 0.1], [0.8, 0.2]], ("a", "a")),
        (build_task("multi_label", ("a", "b")), [("a",), ()], [[0.9, 0.1], [0.8, 0.6]], (("a",), ("a", "b"))),
        (build_task("ordinal", ("1", "2", "3")), ["1", "1"], [[0.9, 0.1, 0], [0, 0.1, 0.9]], ("1", "3")),
        (build_task("regression", ("value",)), [1.0, 9.0], [[1.0], [2.0]], (1.0, 2.0)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_every_task_supports_a_suggested_label_at_least_as_much(task, labels, values, suggested) -> None:  # noqa: ANN001
    values = np.array(values)
    assert task.suggest_labels(values) == suggested
    given = task.support_labels(task.encode(labels), values)
    best = task.support_labels(task.encode(suggested), values)
    assert ((given >= 0) & (given <= best) & (best <= 1)).all()
    assert given[1] < best[1]
