"""A number a text: scikit-learn's figures, resampled rows against a slow twin, intervals against the truth."""

from fractions import Fraction
from math import ceil
from typing import Any

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from numpy.typing import ArrayLike, NDArray

from lorafit.metrics.regression import (
    choose_half_width,
    compare_interval_coverage,
    compare_regression,
    estimate_regression_scores,
    find_largest_errors,
    measure_interval_coverage,
    score_regression,
)
from lorafit.metrics.uncertainty import wilson_interval

FloatArray = NDArray[np.float64]

FIGURES = ["mae", "rmse", "r2", "pearson"]


def make_rows(n_rows: int, *, noise: float, seed: int) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(seed)
    labels = rng.gamma(2.0, 1.5, size=n_rows) + 3
    return labels, 0.8 * labels + noise * rng.normal(size=n_rows)


def slow_figures(labels: FloatArray, values: FloatArray) -> dict[str, float]:
    return {
        "mae": sklearn.metrics.mean_absolute_error(labels, values),
        "rmse": sklearn.metrics.root_mean_squared_error(labels, values),
        "r2": sklearn.metrics.r2_score(labels, values),
        "pearson": scipy.stats.pearsonr(labels, values).statistic,
    }


def draw_rows(n_rows: int, samples: int, seed: int) -> list[NDArray[np.int64]]:
    """The rows that the fast code draws, as row numbers."""
    rng = np.random.default_rng(seed)
    return [rng.integers(n_rows, size=n_rows) for _ in range(samples)]


def read_values(labels: ArrayLike, values: ArrayLike) -> dict[str, float]:
    measured = estimate_regression_scores(labels, values, samples=50)
    for estimate in measured.figures.values():
        assert np.isfinite([estimate.low, estimate.value, estimate.high]).all()
    return {name: estimate.value for name, estimate in measured.figures.items()}


@pytest.mark.parametrize("noise", [0.1, 1.0, 10.0])
def test_figures_are_scikit_learns_and_lie_inside_their_intervals(noise: float) -> None:
    labels, values = make_rows(300, noise=noise, seed=1)
    measured = estimate_regression_scores(labels, values, samples=500)
    assert list(measured.figures) == FIGURES
    assert measured.per_class == []
    for name, value in slow_figures(labels, values).items():
        estimate = measured.figures[name]
        assert estimate.value == pytest.approx(value)
        assert estimate.low < estimate.value < estimate.high


@pytest.mark.parametrize(("shift", "scale"), [(1e8, 1.0), (-1e6, 1e-3), (0.0, 1e40), (0.0, 1e-40)])
def test_figures_of_numbers_far_from_zero_lose_no_digits(shift: float, scale: float) -> None:
    labels, values = make_rows(200, noise=0.5, seed=2)
    moved, guessed = labels * scale + shift, values * scale + shift
    expected = slow_figures(labels, values)
    measured = read_values(moved, guessed)
    assert measured["r2"] == pytest.approx(expected["r2"], rel=1e-5)
    assert measured["pearson"] == pytest.approx(expected["pearson"], rel=1e-5)
    assert measured["mae"] == pytest.approx(expected["mae"] * scale, rel=1e-5)
    assert measured["rmse"] == pytest.approx(expected["rmse"] * scale, rel=1e-5)


def test_intervals_are_those_of_scikit_learns_figures_of_resampled_rows() -> None:
    labels, first = make_rows(50, noise=1.0, seed=3)
    _, second = make_rows(50, noise=0.6, seed=3)
    drawn = draw_rows(50, 300, seed=4)
    old, new = ([slow_figures(labels[rows], values[rows]) for rows in drawn] for values in (first, second))
    measured = estimate_regression_scores(labels, first, samples=300, seed=4, confidence_level=0.9)
    compared = compare_regression(labels, first, second, samples=300, seed=4, confidence_level=0.9)
    for name in FIGURES:
        was, now = (np.array([figures[name] for figures in part]) for part in (old, new))
        estimate, difference = measured.figures[name], compared.differences[name]
        assert [estimate.low, estimate.high] == pytest.approx(np.quantile(was, [0.05, 0.95]).tolist())
        ends = np.quantile(now - was, [0.05, 0.95]).tolist()
        assert [difference.low, difference.high] == pytest.approx(ends, abs=1e-9)


def test_differences_are_those_of_the_scores_and_ties_count_for_neither() -> None:
    labels, before = make_rows(200, noise=1.0, seed=5)
    after = np.where(np.arange(200) < 20, before, labels + 0.9 * np.roll(before - labels, 1))
    compared = compare_regression(labels, before, after, samples=100)
    first, second = slow_figures(labels, before), slow_figures(labels, after)
    assert list(compared.differences) == FIGURES
    for name, difference in compared.differences.items():
        assert difference.value == pytest.approx(second[name] - first[name])
    nearer = np.abs(before - labels) - np.abs(after - labels)
    assert (compared.rows_gained, compared.rows_lost) == (np.sum(nearer > 0), np.sum(nearer < 0))
    assert compared.rows_gained + compared.rows_lost == 180
    assert compared.p_value == pytest.approx(scipy.stats.binomtest(compared.rows_gained, 180).pvalue)


def test_scores_without_intervals_are_the_same() -> None:
    labels, values = make_rows(100, noise=1.0, seed=6)
    measured = estimate_regression_scores(labels, values, samples=10).figures
    assert score_regression(labels, values) == {name: one.value for name, one in measured.items()}


def test_equal_models_do_not_differ() -> None:
    labels, values = make_rows(80, noise=1.0, seed=6)
    compared = compare_regression(labels, values, values, samples=100)
    for estimate in compared.differences.values():
        assert (estimate.low, estimate.value, estimate.high) == (0, 0, 0)
    assert (compared.rows_gained, compared.rows_lost, compared.p_value) == (0, 0, 1)


def test_mae_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(7)
    covered = 0
    for number in range(1000):
        labels = rng.normal(size=400) * 3
        errors = rng.exponential(0.5, size=400) * rng.choice([-1, 1], size=400)
        mae = estimate_regression_scores(labels, labels + errors, samples=200, seed=number).figures["mae"]
        covered += mae.low <= 0.5 <= mae.high
    assert 930 <= covered <= 970


def test_the_seed_decides_the_intervals_and_nothing_else() -> None:
    labels, values = make_rows(100, noise=1.0, seed=8)
    for measure in (
        lambda seed: estimate_regression_scores(labels, values, samples=100, seed=seed),
        lambda seed: compare_regression(labels, values, labels, samples=100, seed=seed),
    ):
        assert measure(3) == measure(3)
        assert measure(3) != measure(4)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e9 / 3])
def test_a_constant_predictor_has_no_correlation(constant: float) -> None:
    labels, _ = make_rows(60, noise=1.0, seed=9)
    measured = read_values(labels, np.full(60, constant))
    assert measured["pearson"] == 0
    assert measured["r2"] == pytest.approx(sklearn.metrics.r2_score(labels, np.full(60, constant)))


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e9 / 3])
def test_constant_labels_have_r2_0_unless_all_are_predicted(constant: float) -> None:
    labels, values = np.full(60, constant), make_rows(60, noise=1.0, seed=10)[1]
    measured = read_values(labels, values)
    assert (measured["r2"], measured["pearson"]) == (0, 0)
    assert read_values(labels, labels) == {"mae": 0, "rmse": 0, "r2": 1, "pearson": 0}


def test_resamples_without_spread_are_scored_as_such() -> None:
    labels, values = np.array([0.1, 0.3]), np.array([0.2, 0.25])
    figures = estimate_regression_scores(labels, values, samples=400, confidence_level=0.99).figures
    assert (figures["r2"].low, figures["r2"].high) == (0, pytest.approx(1 - 0.0125 / 0.02))  # half hold one row twice
    assert (figures["pearson"].low, figures["pearson"].high) == (0, pytest.approx(1))


def test_a_number_far_from_the_others_leaves_resamples_without_it_exact() -> None:
    labels, values = make_rows(20, noise=1.0, seed=11)
    labels[0] = values[0] = 1e8
    slow = [
        sklearn.metrics.r2_score(labels[rows], values[rows])
        for rows in draw_rows(20, 300, seed=12)
        if not (rows == 0).any()
    ]
    r2 = estimate_regression_scores(labels, values, samples=300, seed=12).figures["r2"]
    assert r2.low == pytest.approx(np.quantile([*slow, *[1.0] * (300 - len(slow))], 0.025))
    assert r2.value == pytest.approx(1)


@pytest.mark.parametrize(("label", "value"), [(2.0, 2.0), (2.0, -1.0)])
def test_one_row_is_scored(label: float, value: float) -> None:
    off = label - value
    assert read_values([label], [value]) == {"mae": off, "rmse": off, "r2": float(off == 0), "pearson": 0}


def test_whole_numbers_and_single_precision_are_taken() -> None:
    measured = read_values([1, 2, 4], np.array([1, 3, 4], dtype=np.float32))
    assert measured["mae"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(("rows", "coverage"), [(1, 0.5), (9, 0.9), (10, 0.9), (19, 0.9), (99, 0.95), (100, 0.3)])
def test_the_half_width_is_the_error_of_the_rank_asked_for(rows: int, coverage: float) -> None:
    errors = np.random.default_rng(13).permutation(np.arange(1.0, rows + 1))
    rank = ceil((rows + 1) * Fraction(str(coverage)))
    signs = np.where(np.arange(rows) % 2, 1, -1)
    assert choose_half_width(np.zeros(rows), errors * signs, coverage) == rank


def test_too_few_rows_give_the_largest_error() -> None:
    assert choose_half_width([0.0, 0.0, 0.0], [1.0, -5.0, 2.0], 0.9) == 5


@pytest.mark.parametrize(("rows", "coverage"), [(19, 0.9), (50, 0.8), (200, 0.95)])
def test_intervals_hold_the_truth_of_new_rows_as_often_as_asked(rows: int, coverage: float) -> None:
    rng = np.random.default_rng(14)
    held = []
    for _ in range(2000):
        errors = rng.standard_t(3, size=rows + 50)
        width = choose_half_width(np.zeros(rows), errors[:rows], coverage)
        held.append(measure_interval_coverage(np.zeros(50), errors[rows:], width, 0.95).value)
    expected = ceil((rows + 1) * Fraction(str(coverage))) / (rows + 1)  # exact for errors without ties
    assert expected >= coverage
    assert np.mean(held) == pytest.approx(expected, abs=5 * np.std(held) / np.sqrt(2000))


def test_coverage_counts_ends_and_has_wilsons_interval() -> None:
    measured = measure_interval_coverage([0.0, 0.0, 0.0, 0.0], [1.0, -1.0, 1.5, 0.0], 1.0, 0.9)
    assert measured == wilson_interval(3, 4, 0.9)
    labels, values = make_rows(99, noise=1.0, seed=15)
    width = choose_half_width(labels, values, 0.9)
    assert measure_interval_coverage(labels, values, width, 0.95).value == pytest.approx(90 / 99)


def test_difference_of_coverage_is_that_of_resampled_rows() -> None:
    labels, first = make_rows(60, noise=1.0, seed=16)
    _, second = make_rows(60, noise=0.7, seed=16)
    held = [np.abs(said - labels) <= width for said, width in ((first, 1.5), (second, 0.9))]
    measured = compare_interval_coverage(labels, (first, 1.5), (second, 0.9), samples=300, seed=4, confidence_level=0.9)
    assert measured.value == pytest.approx(held[1].mean() - held[0].mean())
    drawn = [held[1][rows].mean() - held[0][rows].mean() for rows in draw_rows(60, 300, seed=4)]
    assert [measured.low, measured.high] == pytest.approx(np.quantile(drawn, [0.05, 0.95]).tolist())
    with pytest.raises(ValueError, match="half_width"):
        compare_interval_coverage(labels, (first, 1.5), (second, -0.9))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": [], "values": []}, "at least one row"),
        ({"labels": [1.0, 2.0]}, r"labels \(2,\) and predictions \(3,\)"),
        ({"labels": np.ones((3, 1)), "values": np.ones((3, 1))}, r"shape \(n,\), got labels \(3, 1\)"),
        ({"values": [1.0, np.nan, 2.0]}, r"Predictions must be finite .* got nan in row 2 \(1 such rows\)"),
        ({"labels": [1.0, 2.0, -np.inf]}, "Labels must be finite .* got -inf in row 3"),
        ({"labels": [1.0, 2.0, 1e101]}, "at most 1e[+]100 in size, got 1e[+]101"),
        ({"samples": 0}, "samples must be at least 1, got 0"),
        ({"confidence_level": 0.0}, "between 0 and 1, got 0.0"),
    ],
)
def test_what_cannot_be_scored_is_refused(arguments: dict[str, Any], message: str) -> None:
    call = {"labels": [1.0, 2.0, 3.0], "values": [1.0, 2.0, 2.0], "samples": 10, **arguments}
    with pytest.raises(ValueError, match=message):
        estimate_regression_scores(**call)
    values = call.pop("values")
    with pytest.raises(ValueError, match=message):
        compare_regression(before=values, after=values, **call)
    if "samples" not in arguments and "confidence_level" not in arguments:
        with pytest.raises(ValueError, match=message):
            choose_half_width(call["labels"], values, 0.9)
        with pytest.raises(ValueError, match=message):
            measure_interval_coverage(call["labels"], values, 1.0, 0.9)


@pytest.mark.parametrize("coverage", [0.0, 1.0, float("nan")])
def test_a_coverage_out_of_range_is_refused(coverage: float) -> None:
    with pytest.raises(ValueError, match="coverage must lie between 0 and 1"):
        choose_half_width([1.0], [1.0], coverage)


@pytest.mark.parametrize(
    ("width", "level", "message"),
    [
        (-1.0, 0.9, "half_width"),
        (float("inf"), 0.9, "half_width"),
        (float("nan"), 0.9, "half_width"),
        (1.0, 1.5, "confidence_level"),
    ],
)
def test_a_width_or_level_out_of_range_is_refused(width: float, level: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure_interval_coverage([1.0], [1.0], width, level)


def test_largest_errors_come_first_and_exact_numbers_are_left_out() -> None:
    labels, values = [1.0, 2.0, 3.0, 4.0], [1.5, 2.0, 0.0, 4.5]
    assert find_largest_errors(labels, values).tolist() == [2, 0, 3]
    assert find_largest_errors(labels, values, most=1).tolist() == [2]
    assert find_largest_errors(labels, labels).tolist() == []
    with pytest.raises(ValueError, match="at least one row"):
        find_largest_errors([], [])
