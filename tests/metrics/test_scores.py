"""scikit-learn is the reference for every figure."""

import warnings

import numpy as np
import pytest
import sklearn.metrics
from numpy.typing import ArrayLike, NDArray

from lorafit.metrics import scores

IntArray = NDArray[np.int64]


def draw(n_rows: int, n_classes: int, seed: int = 0, used: list[int] | None = None) -> tuple[IntArray, IntArray]:
    """Labels and predictions that agree about half of the time, on the `used` classes."""
    rng = np.random.default_rng(seed)
    ids = np.arange(n_classes) if used is None else np.array(used)
    labels = rng.choice(ids, n_rows)
    return labels, np.where(rng.random(n_rows) < 0.5, labels, rng.choice(ids, n_rows))


CASES = {
    "two classes": (*draw(500, 2), 2),
    "five classes": (*draw(300, 5), 5),
    "two hundred classes": (*draw(3000, 200), 200),
    "classes absent": (*draw(200, 6, used=[1, 4]), 6),
    "more classes than rows": (*draw(7, 30), 30),
    "all right": (np.array([0, 1, 2, 1]), np.array([0, 1, 2, 1]), 3),
    "all wrong": (np.array([0, 1, 0, 1]), np.array([1, 0, 1, 0]), 2),
    "constant prediction": (np.array([0, 1, 2, 1]), np.array([1, 1, 1, 1]), 3),
    "one class": (np.array([1, 1, 1]), np.array([1, 1, 1]), 3),
    "predicted class without rows": (np.array([0, 0, 1]), np.array([0, 2, 1]), 4),
    "one row": (np.array([1]), np.array([0]), 2),
}


@pytest.mark.parametrize(("labels", "predicted", "n_classes"), CASES.values(), ids=CASES.keys())
def test_scores_equal_scikit_learn(labels: IntArray, predicted: IntArray, n_classes: int) -> None:
    matrix = scores.confusion_matrix(labels, predicted, n_classes)
    ids = np.arange(n_classes)
    assert matrix.dtype == np.int64
    np.testing.assert_array_equal(matrix, sklearn.metrics.confusion_matrix(labels, predicted, labels=ids))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of a single class
        expected = sklearn.metrics.precision_recall_fscore_support(labels, predicted, labels=ids, zero_division=0)
        macro = sklearn.metrics.f1_score(labels, predicted, average="macro", zero_division=0)
        coefficient = sklearn.metrics.matthews_corrcoef(labels, predicted)
    np.testing.assert_allclose(scores.precision(matrix), expected[0], atol=1e-12)
    np.testing.assert_allclose(scores.recall(matrix), expected[1], atol=1e-12)
    np.testing.assert_allclose(scores.f1(matrix), expected[2], atol=1e-12)
    np.testing.assert_allclose(scores.macro_f1(matrix), macro, atol=1e-12)
    np.testing.assert_allclose(scores.mcc(matrix), coefficient, atol=1e-12)
    np.testing.assert_allclose(scores.accuracy(matrix), np.mean(labels == predicted), atol=1e-12)


@pytest.mark.parametrize("name", ["accuracy", "precision", "recall", "f1", "macro_f1", "mcc"])
def test_leading_axes_are_scored_one_by_one(name: str) -> None:
    score = getattr(scores, name)
    stack = np.random.default_rng(1).integers(0, 4, size=(2, 3, 5, 5))
    stack[0, 0] = 0
    together = score(stack)
    for first in range(2):
        for second in range(3):
            np.testing.assert_allclose(together[first, second], score(stack[first, second]), atol=1e-15)


def test_large_counts_do_not_overflow() -> None:
    matrix = np.array([[3, 1], [2, 4]])
    np.testing.assert_allclose(scores.mcc(matrix * 10**9), scores.mcc(matrix))


@pytest.mark.parametrize("n_classes", [2, 7])
def test_log_losses_average_to_scikit_learns(n_classes: int) -> None:
    labels, _ = draw(400, n_classes)
    probabilities = np.random.default_rng(2).dirichlet(np.full(n_classes, 0.3), 400)
    probabilities[0] = np.eye(n_classes)[labels[0]]
    probabilities[1] = np.eye(n_classes)[(labels[1] + 1) % n_classes]
    losses = scores.row_log_losses(labels, probabilities)
    assert losses.shape == (400,)
    expected = sklearn.metrics.log_loss(labels, probabilities, labels=np.arange(n_classes))
    np.testing.assert_allclose(losses.mean(), expected, rtol=1e-9)


def test_a_certain_mistake_costs_a_finite_loss() -> None:
    losses = scores.row_log_losses([0, 1], [[0.0, 1.0], [0.0, 1.0]])
    np.testing.assert_allclose(losses, [36.0437, 0], atol=1e-4)
    assert not np.signbit(losses).any()


def test_softmax_survives_large_logits_and_low_precision() -> None:
    logits = np.array([[1e4, 0.0, -1e4], [-1e4, -1e4, -1e4], [1.0, 2.0, 3.0]], dtype=np.float32)
    probabilities = scores.softmax(logits)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities[:2], [[1, 0, 0], [1 / 3] * 3])
    np.testing.assert_allclose(probabilities[2], np.exp([1, 2, 3]) / np.exp([1, 2, 3]).sum())


def test_a_tie_goes_to_the_lowest_id() -> None:
    predicted = scores.predict_labels([[0.25, 0.25, 0.5], [0.4, 0.4, 0.2], [1 / 3, 1 / 3, 1 / 3]])
    assert predicted.tolist() == [2, 0, 0]
    assert predicted.dtype == np.int64


@pytest.mark.parametrize(
    ("labels", "predicted", "message"),
    [
        ([], [], "at least one row"),
        ([0, 1], [0], "2 labels, 1"),
        ([0, 3], [0, 1], r"between 0 and 2, got 3 in row 2 \(1 such"),
        ([0, 1], [-1, 1], "got -1 in row 1"),
        ([0.0, 1.0], [0, 1], "must be integers, got float64"),
        ([[0, 1]], [0, 1], r"shape \(n,\), got \(1, 2\)"),
    ],
)
def test_unusable_class_ids_are_refused(labels: ArrayLike, predicted: ArrayLike, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scores.confusion_matrix(labels, predicted, 3)


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        ([0.5, 0.5], r"shape \(n, n_classes\), got \(2,\)"),
        (np.zeros((2, 0)), r"shape \(n, n_classes\)"),
        ([[0.5, 0.5]], "2 labels, 1 rows"),
        ([[0.5, 0.5], [2.5, -1.5]], r"got \[2\.5, -1\.5\] in row 2 \(1 such rows\)\. Logits"),
        ([[0.5, 0.5], [np.nan, 0.5]], r"got \[nan, 0\.5\] in row 2"),
        ([[0.5, 0.2], [0.5, 0.5]], "sum to 1, got 0.7 in row 1"),
    ],
)
def test_unusable_probabilities_are_refused(probabilities: ArrayLike, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scores.row_log_losses([0, 1], probabilities)


def test_log_losses_refuse_labels_without_a_column_and_no_rows() -> None:
    with pytest.raises(ValueError, match="between 0 and 1, got 2 in row 1"):
        scores.row_log_losses([2], [[0.5, 0.5]])
    with pytest.raises(ValueError, match="at least one row"):
        scores.row_log_losses([], np.zeros((0, 2)))


def test_mistakes_come_by_their_confidence() -> None:
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.05, 0.95], [0.6, 0.4]])
    labels = np.array([1, 0, 1, 1])
    assert scores.find_mistakes(labels, probabilities).tolist() == [0, 1, 3]
    assert scores.find_mistakes(labels, probabilities, most=1).tolist() == [0]
    assert scores.find_mistakes(np.array([0, 1, 1, 0]), probabilities).tolist() == []
