"""Differences of two models against their slow, obvious twins: rows drawn one resample at a time."""

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from lorafit.metrics import paired, scores
from lorafit.metrics.paired import (
    adjust_p_values,
    estimate_flips,
    estimate_score_differences,
    measure_ece_difference,
)
from lorafit.metrics.scores import softmax

SAMPLES = 2000
Rows = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]


def make_models(n_rows: int, n_classes: int, *, seed: int) -> Rows:
    """Labels of unequal frequency, and two models that often agree, of which the second is better and surer."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(n_classes, n_rows, p=np.arange(1, n_classes + 1) / np.arange(1, n_classes + 1).sum())
    logits = rng.normal(size=(n_rows, n_classes))
    logits[np.arange(n_rows), labels] += 1
    later = logits + 0.4 * rng.normal(size=logits.shape)
    later[np.arange(n_rows), labels] += 0.5
    return labels, softmax(logits), softmax(2 * later)


def resample_rows(labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """The twin: row numbers drawn with replacement within each true class."""
    strata = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return np.concatenate([rng.choice(stratum, len(stratum)) for stratum in strata])


@pytest.fixture(scope="module")
def models() -> Rows:
    return make_models(150, 3, seed=1)


@pytest.mark.parametrize("cells", [2**21, 100])
def test_differences_of_scores_equal_the_twins(models: Rows, monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    monkeypatch.setattr(paired, "_CELLS", cells)
    labels, *probabilities = models
    was, now = (values.argmax(axis=1) for values in probabilities)
    measured, rng = estimate_score_differences(*models, samples=SAMPLES, seed=3), np.random.default_rng(2)
    drawn_rows = [resample_rows(labels, rng) for _ in range(500)]
    for name in ("macro_f1", "mcc"):
        score = getattr(scores, name)
        slow = np.array(
            [
                score(scores.confusion_matrix(labels[rows], now[rows], 3))
                - score(scores.confusion_matrix(labels[rows], was[rows], 3))
                for rows in drawn_rows
            ]
        )
        low, high = np.quantile(slow, [0.025, 0.975])
        point = [score(scores.confusion_matrix(labels, predicted, 3)) for predicted in (was, now)]
        assert measured[name].value == pytest.approx(point[1] - point[0])
        assert measured[name].low == pytest.approx(low, abs=0.4 * slow.std())
        assert measured[name].high == pytest.approx(high, abs=0.4 * slow.std())


def test_difference_of_calibration_is_a_number_without_interval() -> None:
    labels, before = np.zeros(4, dtype=np.int64), np.array([[0.9, 0.1]] * 4)
    after = np.vstack([before[:3], [[0.3, 0.7]]])
    measured = measure_ece_difference(labels, before, after)
    assert isinstance(measured, float)
    assert measured == pytest.approx((3 * 0.1 + 0.7) / 4 - 0.1), "the last is 70 % sure of the wrong class"


def test_flips_are_counted_row_by_row(models: Rows) -> None:
    labels, *probabilities = models
    was, now = (values.argmax(axis=1).tolist() for values in probabilities)
    rows = list(zip(labels.tolist(), was, now, strict=True))
    flips = estimate_flips(*models)
    assert flips.negative.value == sum(old == label != new for label, old, new in rows) / 150
    assert flips.churn.value == sum(old != new for _, old, new in rows) / 150
    assert flips.negative.low < flips.negative.value < flips.negative.high


def test_a_model_against_itself_changes_nothing_but_ten_rows_prove_little() -> None:
    labels, first, _ = make_models(10, 2, seed=4)
    flips = estimate_flips(labels, first, first)
    assert flips.negative == flips.churn
    assert (flips.churn.value, flips.churn.low) == (0, 0)
    assert flips.churn.high == pytest.approx(0.2775, abs=1e-4), "ten rows without a flip may have a quarter elsewhere"
    differences = [*estimate_score_differences(labels, first, first).values()]
    assert [(one.value, one.low, one.high) for one in differences] == [(0, 0, 0)] * 2
    assert measure_ece_difference(labels, first, first) == 0


def test_one_class_alone_and_classes_that_never_occur_are_measured() -> None:
    labels = np.zeros(20, dtype=np.int64)
    _, first, second = make_models(20, 4, seed=5)
    differences = estimate_score_differences(labels, first, second, samples=100)
    assert differences["mcc"].value == 0
    assert np.isfinite(differences["macro_f1"].high)
    assert np.isfinite(measure_ece_difference(labels, first, second))


@pytest.mark.parametrize(("rows", "classes"), [(25_000, 2), (2_000, 200)])
def test_imdbs_test_rows_and_two_hundred_classes_take_seconds(rows: int, classes: int) -> None:
    models = make_models(rows, classes, seed=6)
    began = time.process_time()
    estimate_score_differences(*models)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.6, 0.7], [1.0, 1.0]),
        ([0.02, 0.02], [0.04, 0.04]),
    ],
)
def test_p_values_are_adjusted_as_holm_has_it(p_values: list[float], adjusted: list[float]) -> None:
    assert adjust_p_values(p_values) == pytest.approx(adjusted)


def test_models_of_different_shape_and_no_samples_are_refused(models: Rows) -> None:
    labels, first, second = models
    narrow = second[:, :2] / second[:, :2].sum(axis=1, keepdims=True)
    for estimate in (estimate_flips, estimate_score_differences, measure_ece_difference):
        with pytest.raises(ValueError, match="3 and 2 columns"):
            estimate(labels, first, narrow)
    with pytest.raises(ValueError, match="samples must be at least 1, got 0"):
        estimate_score_differences(labels, first, second, samples=0)
