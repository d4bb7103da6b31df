"""Activations and the metrics of classes: scikit-learn and SciPy are the references."""

import warnings

import numpy as np
import pytest
import scipy.special
import sklearn.metrics
from numpy.typing import NDArray

from lorafit.tasks.metrics import (
    binary_loss,
    confusion_matrix,
    f1,
    mcc,
    ratio,
    score_classes,
    sigmoid,
    softmax,
    to_losses,
)
from lorafit.tasks.registry import build_task
from lorafit.tasks.statistics import wilson_interval

IntArray = NDArray[np.int64]


def draw(n: int, classes: int, seed: int = 0, used: list[int] | None = None) -> tuple[IntArray, IntArray]:
    """Labels and predictions that agree about half of the time, on the `used` classes."""
    rng = np.random.default_rng(seed)
    ids = np.arange(classes) if used is None else np.array(used)
    y = rng.choice(ids, n)
    return y, np.where(rng.random(n) < 0.5, y, rng.choice(ids, n))


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


@pytest.mark.parametrize(("y", "predicted", "classes"), CASES.values(), ids=CASES.keys())
def test_metrics_of_classes_equal_scikit_learn(y: IntArray, predicted: IntArray, classes: int) -> None:
    task = build_task("single_label", [str(number) for number in range(classes)])
    sums = task.row_statistics(y, np.eye(classes)[predicted]).sum(axis=0)
    ids, found, per_class = (
        np.arange(classes),
        task.compute(sums),
        task.per_class(sums[np.newaxis], 0.95, grouped=False),
    )
    matrix = confusion_matrix(y, predicted, classes)
    assert matrix.dtype == np.int64
    np.testing.assert_array_equal(matrix, sklearn.metrics.confusion_matrix(y, predicted, labels=ids))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of a single class
        table = sklearn.metrics.precision_recall_fscore_support(y, predicted, labels=ids, zero_division=np.nan)
        macro = sklearn.metrics.f1_score(y, predicted, average="macro", zero_division=0)
        of_all = sklearn.metrics.f1_score(y, predicted, average="macro", labels=ids, zero_division=np.nan)
        coefficient = sklearn.metrics.matthews_corrcoef(y, predicted)
    for column, name in zip(table, ("precision", "recall", "f1"), strict=False):
        np.testing.assert_allclose([getattr(one, name).value for one in per_class], column, atol=1e-12)
    assert [one.support for one in per_class] == table[3].tolist()
    assert found["macro_f1"] == pytest.approx(macro) == pytest.approx(of_all)
    assert found["mcc"] == pytest.approx(coefficient)
    assert found["accuracy"] == pytest.approx(np.mean(y == predicted))


def test_leading_axes_are_scored_one_by_one() -> None:
    matrices = np.random.default_rng(1).integers(0, 4, size=(2, 3, 5, 5))
    matrices[0, 0] = 0
    parts = (np.einsum("...ii->...i", matrices), matrices.sum(axis=-2), matrices.sum(axis=-1))
    for score in (f1, mcc):
        together = score(*parts)
        for place in np.ndindex(2, 3):
            np.testing.assert_allclose(together[place], score(*(part[place] for part in parts)), atol=1e-15)
    assert (f1(*parts)[0, 0] == 0).all()


def test_large_and_fractional_counts_lose_no_digits() -> None:
    hits, predicted, true = np.array([3.0, 4.0]), np.array([5.0, 5.0]), np.array([4.0, 6.0])
    for factor in (1e9, 1e-3, 1 / 7):
        assert mcc(hits * factor, predicted * factor, true * factor) == pytest.approx(mcc(hits, predicted, true))
    constant = np.array([0.1 + 0.2, 0.0]) * 7
    assert mcc(constant, constant, constant) == 0, "a rounding error is no spread"


def test_intervals_of_classes_hold_their_scores_and_narrow_with_rows() -> None:
    few, many = (
        score_classes(("a", "b"), np.array([[8, 30, 10, 40, 16, 34]]) * scale, 0.95, grouped=False)
        for scale in (1, 100)
    )
    for narrow, wide in zip(many, few, strict=True):
        for name in ("precision", "recall", "f1"):
            small, large = getattr(narrow, name), getattr(wide, name)
            assert small.value == pytest.approx(large.value)
            assert large.low < small.low < small.value < small.high < large.high
    assert (few[0].precision.value, few[0].recall.value, few[0].support) == (0.8, 0.5, 16)
    assert few[0].f1.value == pytest.approx(2 * 8 / 26)
    low, high = wilson_interval(8, 18, 0.95)
    assert (few[0].f1.low, few[0].f1.high) == pytest.approx((2 * low / (1 + low), 2 * high / (1 + high)))


def test_classes_of_grouped_rows_have_wider_intervals_and_the_same_scores() -> None:
    counts = np.array([[8, 0, 8, 2, 8, 2], [0, 9, 6, 9, 0, 15], [4, 4, 4, 4, 4, 4]])
    alone, grouped = (
        score_classes(("a", "b"), part, 0.95, grouped=is_grouped)
        for part, is_grouped in ((counts.sum(axis=0, keepdims=True), False), (counts, True))
    )
    for one, other in zip(alone, grouped, strict=True):
        assert one.support == other.support
        for name in ("precision", "recall", "f1"):
            narrow, wide = getattr(one, name), getattr(other, name)
            assert narrow.value == wide.value
            assert wide.low < narrow.low <= narrow.value <= narrow.high <= wide.high


@pytest.mark.parametrize("classes", [2, 7])
def test_losses_average_to_scikit_learns(classes: int) -> None:
    y, _ = draw(400, classes)
    values = np.random.default_rng(2).dirichlet(np.full(classes, 0.3), 400)
    values[0] = np.eye(classes)[y[0]]
    values[1] = np.eye(classes)[(y[1] + 1) % classes]
    losses = to_losses(values[np.arange(400), y])
    expected = sklearn.metrics.log_loss(y, values, labels=np.arange(classes))
    assert losses.mean() == pytest.approx(expected, rel=1e-9)


def test_a_certain_mistake_costs_a_finite_loss_on_either_side() -> None:
    losses = to_losses([0.0, 1.0, 1 - np.nextafter(1, 0), 1e-300])
    np.testing.assert_allclose(losses, [36.0437, 0, 36.0437, 36.0437], atol=1e-4)
    assert not np.signbit(losses).any()


def test_losses_of_logits_are_those_of_their_probabilities() -> None:
    logits = np.array([[-3.0, 0.5], [800.0, -2.0]])
    marks = np.array([[True, False], [True, True]])
    expected = sklearn.metrics.log_loss(marks.ravel(), sigmoid(logits).ravel(), labels=[0, 1])
    assert binary_loss(marks, logits) == pytest.approx(expected)
    assert binary_loss(~marks, logits) > 200, "training is told how far off it is"


def test_softmax_survives_large_logits_and_low_precision() -> None:
    logits = np.array([[1e4, 0.0, -1e4], [-1e4, -1e4, -1e4], [1.0, 2.0, 3.0]], dtype=np.float32)
    values = softmax(logits)
    assert values.dtype == np.float64
    np.testing.assert_allclose(values[:2], [[1, 0, 0], [1 / 3] * 3])
    np.testing.assert_allclose(values[2], np.exp([1, 2, 3]) / np.exp([1, 2, 3]).sum())


def test_sigmoid_is_exact_and_does_not_overflow() -> None:
    logits = np.array([[-1e4, -700.0, -30.0, -1.0], [0.0, 1.0, 30.0, 1e4]])
    np.testing.assert_allclose(sigmoid(logits), scipy.special.expit(logits), rtol=1e-15)
    assert sigmoid(np.float32(0.3)).dtype == np.float64
    assert sigmoid(0.0) == 0.5


def test_ratios_of_nothing_are_0() -> None:
    np.testing.assert_array_equal(ratio([1.0, 0.0, 3.0], [2.0, 0.0, 0.0]), [0.5, 0, 0])


@pytest.mark.parametrize(
    ("name", "values", "label"),
    [
        ("single_label", [0.4, 0.4, 0.2], "a"),
        ("single_label", [0.25, 0.25, 0.5], "c"),
        ("single_label", [1 / 3] * 3, "a"),
        ("multi_label", [0.5, np.nextafter(0.5, 0), 1.0], ("a", "c")),
        ("multi_label", [0.0, 0.1, 0.2], ()),
    ],
)
def test_ties_go_to_the_first_label_and_one_half_gives_it(name: str, values: list[float], label: object) -> None:
    predicted = build_task(name, "abc").predict(np.array(values))
    assert getattr(predicted, "label", getattr(predicted, "labels", None)) == label


@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.float32])
def test_marks_may_be_of_any_type_that_holds_0_and_1(kind: type) -> None:
    task, marks = build_task("multi_label", "ab"), np.array([[1, 0], [0, 1], [1, 1]])
    values = np.array([[0.9, 0.2], [0.6, 0.3], [0.1, 0.8]])
    np.testing.assert_array_equal(task.row_statistics(marks.astype(kind), values), task.row_statistics(marks, values))
