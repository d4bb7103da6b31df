"""Numbers: metrics that lose no digits, and what holds where numbers do not differ."""

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from numpy.typing import ArrayLike, NDArray

from lorafit.tasks.evaluation import estimate
from lorafit.tasks.records import Resampling
from lorafit.tasks.registry import build_task

FloatArray = NDArray[np.float64]

TASK = build_task("regression", ["value"])


def make_rows(n: int, *, noise: float, seed: int) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(seed)
    y = rng.gamma(2.0, 1.5, size=n) + 3
    return y, 0.8 * y + noise * rng.normal(size=n)


def measure(y: ArrayLike, values: ArrayLike) -> dict[str, float]:
    """The metrics, each with an interval of finite ends."""
    scores = estimate(TASK, np.asarray(y), np.asarray(values)[:, np.newaxis], Resampling(samples=50))
    for one in scores.metrics.values():
        assert np.isfinite([one.low, one.value, one.high]).all()
    return {name: one.value for name, one in scores.metrics.items()}


@pytest.mark.parametrize(("shift", "scale"), [(1e8, 1.0), (-1e6, 1e-3), (0.0, 1e40), (0.0, 1e-40)])
def test_metrics_of_numbers_far_from_zero_lose_no_digits(shift: float, scale: float) -> None:
    y, values = make_rows(200, noise=0.5, seed=2)
    measured = measure(y * scale + shift, values * scale + shift)
    assert measured["r2"] == pytest.approx(sklearn.metrics.r2_score(y, values), rel=1e-5)
    assert measured["pearson"] == pytest.approx(scipy.stats.pearsonr(y, values).statistic, rel=1e-5)
    assert measured["mae"] == pytest.approx(np.abs(y - values).mean() * scale, rel=1e-5)
    assert measured["rmse"] == pytest.approx(np.sqrt(((y - values) ** 2).mean()) * scale, rel=1e-5)


def test_a_number_far_from_the_others_does_not_spoil_what_is_left_of_them() -> None:
    y, values = make_rows(21, noise=1.0, seed=11)
    y[0] = values[0] = 1e8
    statistics = TASK.row_statistics(y, values[:, np.newaxis])
    rest = TASK.compute(statistics[1:].sum(axis=0))
    assert rest["r2"] == pytest.approx(sklearn.metrics.r2_score(y[1:], values[1:]), rel=1e-6)
    assert measure(y, values)["r2"] == pytest.approx(1)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e9 / 3])
def test_a_constant_predictor_has_no_correlation(constant: float) -> None:
    y, _ = make_rows(60, noise=1.0, seed=9)
    measured = measure(y, np.full(60, constant))
    assert measured["pearson"] == 0
    assert measured["r2"] == pytest.approx(sklearn.metrics.r2_score(y, np.full(60, constant)))


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e9 / 3])
def test_constant_labels_have_r2_0_unless_all_are_predicted(constant: float) -> None:
    y, values = np.full(60, constant), make_rows(60, noise=1.0, seed=10)[1]
    measured = measure(y, values)
    assert (measured["r2"], measured["pearson"]) == (0, 0)
    assert measure(y, y) == {"mae": 0, "rmse": 0, "r2": 1, "pearson": 0}


def test_weighted_rows_of_equal_numbers_have_no_spread() -> None:
    statistics = TASK.row_statistics(np.array([0.1, 0.1, 0.3]), np.array([[0.2], [0.2], [0.25]]))
    weighted = TASK.compute(np.array([0.7, 1 / 3, 0.0]) @ statistics)
    assert (weighted["r2"], weighted["pearson"]) == (0, 0)


@pytest.mark.parametrize(("label", "value"), [(2.0, 2.0), (2.0, -1.0)])
def test_one_row_is_scored(label: float, value: float) -> None:
    off = label - value
    assert measure([label], [value]) == {"mae": off, "rmse": off, "r2": float(off == 0), "pearson": 0}


def test_whole_numbers_and_single_precision_are_taken() -> None:
    assert measure([1, 2, 4], np.array([1, 3, 4], dtype=np.float32))["mae"] == pytest.approx(1 / 3)


@pytest.mark.slow
def test_mae_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng, covered = np.random.default_rng(7), 0
    for number in range(1000):
        y = rng.normal(size=400) * 3
        errors = rng.exponential(0.5, size=400) * rng.choice([-1, 1], size=400)
        values = (y + errors)[:, np.newaxis]
        mae = estimate(TASK, y, values, Resampling(samples=200, seed=number)).metrics["mae"]
        covered += mae.low <= 0.5 <= mae.high
    assert 925 <= covered <= 975
