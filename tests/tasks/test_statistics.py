"""Intervals and tests against SciPy, exact chances, slow twins and simulations of `benchmarks/coverage.py`."""

import importlib.util
import math
import sys
import tracemalloc
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray
from scipy.optimize import brentq

from lorafit.tasks.records import Resampling
from lorafit.tasks.statistics import (
    adjust_p_values,
    bootstrap_mean,
    design_effect,
    energy_test,
    exact_tests,
    grouped_interval,
    percentile_interval,
    resample_row_sums,
    sign_test,
    wilson_interval,
)

Array = NDArray[np.float64]

METRICS = ("accuracy", "recall", "F1", "macro F1", "MCC", "log loss", "log loss (too sure)")


def draw(statistics: Array, samples: int = 2000, seed: int = 0, **options: Array) -> Array:
    return resample_row_sums(statistics, samples, np.random.default_rng(seed), **options)


@pytest.fixture(scope="module")
def coverage() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "coverage.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_coverage", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


# Shares


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("trials", [1, 5, 8, 20, 1000])
def test_shares_have_the_interval_of_wilson_but_for_few_successes_or_failures(trials: int, level: float) -> None:
    successes = np.arange(trials + 1)
    low, high = wilson_interval(successes, trials, level)
    for count in {*range(min(trials, 12) + 1), *range(max(0, trials - 12), trials + 1)}:
        expected = scipy.stats.binomtest(count, trials).proportion_ci(level, method="wilson")
        poisson = [scipy.stats.chi2.ppf(1 - level, 2 * rare) / 2 / trials for rare in (count, trials - count) if rare]
        if 1 <= count <= 3:
            expected = expected._replace(low=min(expected.low, poisson[0]))
        if 1 <= trials - count <= 3:
            expected = expected._replace(high=max(expected.high, 1 - poisson[-1]))
        assert (low[count], high[count]) == pytest.approx(expected, abs=1e-12)
    assert (low <= successes / trials).all()
    assert (successes / trials <= high).all()
    assert (low[0], high[-1]) == (0, 1)
    assert high[0] > 0
    assert low[-1] < 1


@pytest.mark.parametrize("trials", [20, 100, 1000])
@pytest.mark.parametrize("p", [0.02, 0.5, 0.98, 1.0])
def test_intervals_of_shares_hold_the_truth_as_often_as_they_say(trials: int, p: float) -> None:
    low, high = wilson_interval(np.arange(trials + 1), trials, 0.95)
    held = scipy.stats.binom.pmf(np.arange(trials + 1), trials, p)[(low <= p) & (p <= high)].sum()
    assert held >= 0.94
    assert held <= 0.96 or trials == 20 or p == 1


@pytest.mark.parametrize(("trials", "fewest"), [(8, 0.925), (20, 0.925), (100, 0.925), (1000, 0.93)])
def test_no_share_is_held_much_more_rarely(trials: int, fewest: float) -> None:
    low, high = wilson_interval(np.arange(trials + 1), trials, 0.95)
    shares = np.linspace(0.0005, 0.5, 1000)[:, np.newaxis]
    chances = scipy.stats.binom.pmf(np.arange(trials + 1), trials, shares)
    assert (chances * ((low <= shares) & (shares <= high))).sum(axis=1).min() > fewest


def test_shares_without_trials_are_undefined_and_others_beside_them_are_not() -> None:
    low, high = wilson_interval([0, 2], [0, 4], 0.9)
    assert np.isnan([low[0], high[0]]).all()
    assert (low[1], high[1]) == tuple(float(end) for end in wilson_interval(2, 4, 0.9))


@pytest.mark.parametrize(("successes", "trials", "level"), [(-1, 3, 0.9), (4, 3, 0.9), (1, 3, 0.0), (1, 3, 1.0)])
def test_counts_and_levels_out_of_range_are_refused(successes: int, trials: int, level: float) -> None:
    with pytest.raises(ValueError, match=r"successes|level"):
        wilson_interval(successes, trials, level)


def test_intervals_of_groups_hold_the_truth_where_those_of_rows_do_not() -> None:
    rng, level, replicates = np.random.default_rng(0), 0.9, 400
    held = {"rows": 0, "groups": 0}
    for _ in range(replicates):
        shares = rng.beta(1.6, 0.4, 30)  # the mean is 0.8; rows of a group are alike
        trials = rng.integers(5, 15, 30)
        right = rng.binomial(trials, shares)
        bounds = {
            "rows": wilson_interval(right.sum(), trials.sum(), level),
            "groups": grouped_interval(right[:, np.newaxis], trials[:, np.newaxis], level),
        }
        for name, (low, high) in bounds.items():
            held[name] += bool(np.all(low <= 0.8) and np.all(high >= 0.8))
    assert held["rows"] / replicates < 0.65
    assert 0.86 < held["groups"] / replicates < 0.94


@pytest.mark.parametrize("small", [14, 39])
def test_one_large_group_among_small_ones_does_not_make_a_share_sure(small: int) -> None:
    rng, held = np.random.default_rng(11), 0
    trials = np.array([300] + [8] * small)
    for _ in range(300):
        right = rng.binomial(trials, rng.beta(1.75, 0.58, small + 1))  # the mean is 0.75
        low, high = grouped_interval(right[:, np.newaxis], trials[:, np.newaxis], 0.95)
        held += bool(low[0] <= 1.75 / 2.33 <= high[0])
    assert held / 300 > 0.93


def test_groups_of_one_row_are_rows_and_groups_that_are_alike_are_single_rows() -> None:
    right = np.array([1] * 160 + [0] * 40)[:, np.newaxis]
    alone = np.concatenate(grouped_interval(right, np.ones_like(right), 0.95))
    np.testing.assert_allclose(alone, np.stack(wilson_interval(160, 200, 0.95)), atol=0.004)
    tens = np.concatenate(grouped_interval(10 * right, np.full_like(right, 10), 0.95))
    np.testing.assert_allclose(tens, alone, atol=0.001)
    ten = np.full((200, 1), 10)
    low, high = grouped_interval(ten, ten, 0.95)
    assert (low[0], high[0]) == (pytest.approx(0.025 ** (1 / 200), abs=0.001), 1)
    low, high = grouped_interval(0 * ten, ten, 0.95)
    assert (low[0], high[0]) == (0, pytest.approx(1 - 0.025 ** (1 / 200), abs=0.001))
    halves = np.concatenate(grouped_interval(np.full((20, 1), 5), np.full((20, 1), 10), 0.95))
    np.testing.assert_allclose(halves, np.stack(wilson_interval(100, 200, 0.95)), atol=0.01)


def test_design_effects_tell_how_many_rows_are_worth_one() -> None:
    rng = np.random.default_rng(8)
    values = rng.normal(size=4000)
    assert design_effect(values, None) == 1
    assert design_effect(values, np.arange(4000)) == pytest.approx(1, abs=1e-3)
    assert 1 <= design_effect(values, rng.permutation(np.arange(4000) // 8)) < 1.15
    groups = np.repeat(np.arange(500), 8)
    assert design_effect(np.repeat(values[:500], 8), groups) == pytest.approx(8, rel=0.01)
    alike = (np.repeat(values[:500], 8) + values) > 0  # rows of a group correlate by a third
    assert design_effect(alike.astype(float), groups) == pytest.approx(1 + 7 / 3, abs=0.5)
    for unseen in (np.zeros(4000), np.full(4000, 0.1)):
        assert design_effect(unseen, groups) == 8
        assert design_effect(unseen[:13], np.repeat([0, 1, 2], [10, 2, 1])) == pytest.approx(105 / 13)
    assert design_effect(values, np.zeros(4000, dtype=int)) == 4000


@pytest.mark.parametrize("others", [0, 5])
@pytest.mark.parametrize("right", [50, 99, 100])
def test_one_group_says_next_to_nothing(right: int, others: int) -> None:
    trials = np.array([100] + [0] * others)[:, np.newaxis]
    low, high = grouped_interval(trials * right // 100, trials, 0.95)
    assert low[0] < 0.1
    assert high[0] > 0.95


def test_a_share_of_no_rows_has_no_interval() -> None:
    low, high = grouped_interval(np.array([[1, 0], [1, 0]]), np.array([[2, 0], [3, 0]]), 0.95)
    assert np.isnan([low[1], high[1]]).all()
    assert 0 < low[0] < 0.4 < high[0] < 1


# Tests of hypotheses


def count_exactly(fixed: int, broken: int) -> float:
    """The twin: every outcome of as many fair coins, counted."""
    changed = fixed + broken
    return min(1.0, 2 * sum(math.comb(changed, count) for count in range(min(fixed, broken) + 1)) / 2**changed)


@pytest.mark.parametrize(("fixed", "broken"), [(0, 0), (1, 0), (0, 7), (5, 5), (3, 10), (40, 19), (900, 1000)])
def test_sign_test_is_exact(fixed: int, broken: int) -> None:
    p_value = sign_test(fixed, broken)
    assert p_value == sign_test(broken, fixed)
    assert p_value == pytest.approx(count_exactly(fixed, broken), abs=1e-12)
    if fixed + broken:
        assert p_value == pytest.approx(scipy.stats.binomtest(fixed, fixed + broken).pvalue, abs=1e-9)


def test_sign_test_refuses_negative_counts() -> None:
    with pytest.raises(ValueError, match="-1 broken"):
        sign_test(3, -1)


def test_the_energy_test_counts_the_permutations_that_are_as_far_apart() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((7, 2)), rng.standard_normal((9, 2)) + 0.8

    def energy(one: Array, other: Array) -> float:
        def mean(a: Array, b: Array) -> float:
            return float(np.mean([np.linalg.norm(x - y) for x in a for y in b]))

        return 2 * mean(one, other) - mean(one, one) - mean(other, other)

    rows, far, draws = np.concatenate([first, second]), energy(first, second), np.random.default_rng(3)
    slow = 1
    for _ in range(199):
        chosen = np.isin(np.arange(16), draws.permutation(16)[:7])
        slow += energy(rows[chosen], rows[~chosen]) >= far - 1e-9
    assert energy_test(first, second, permutations=199, seed=3) == pytest.approx(slow / 200)


def test_the_energy_test_sees_other_means_and_other_spreads() -> None:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((100, 5))
    assert energy_test(rows, rng.standard_normal((80, 5)) + 0.5) == 1 / 1000
    assert energy_test(rows, rng.standard_normal((80, 5)) * 2) == 1 / 1000
    assert energy_test(rows[:1], rows[1:2]) == 1.0


def test_the_energy_test_lets_groups_change_sides_as_a_whole() -> None:
    def draw(rng: np.random.Generator, groups: int, sizes: tuple[int, int]) -> tuple[Array, NDArray[np.int64]]:
        owners = np.repeat(np.arange(groups), rng.integers(*sizes, groups))
        return rng.standard_normal((groups, 3))[owners] + 0.3 * rng.standard_normal((len(owners), 3)), owners

    alone, together = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        (first, owners), (second, others) = draw(rng, 15, (5, 15)), draw(rng, 12, (5, 15))
        alone.append(energy_test(first, second, permutations=199, seed=seed))
        together.append(energy_test(first, second, units=(owners, others), permutations=199, seed=seed))
    assert np.mean(np.array(alone) <= 0.05) > 0.5
    assert np.mean(np.array(together) <= 0.05) <= 0.15
    assert energy_test(first, second + 4, units=(owners, others)) == 1 / 1000


def test_the_energy_test_of_unlike_groups_is_decided_by_distance_and_not_by_size() -> None:
    rng = np.random.default_rng(0)
    owners, alone = np.repeat(np.arange(15), 20), np.arange(300)
    first, second = rng.standard_normal((300, 8)), rng.standard_normal((300, 8))
    assert energy_test(first, second, units=(owners, alone), permutations=199) > 0.05
    assert energy_test(first, second + 1, units=(owners, alone), permutations=199) == 1 / 200


@pytest.mark.slow
@pytest.mark.parametrize(("m", "n"), [(20, 20), (5, 60)])
def test_the_energy_test_is_wrong_as_rarely_as_it_says(m: int, n: int) -> None:
    rng = np.random.default_rng(2)
    found = np.array(
        [energy_test(rng.standard_t(2, (m, 4)), rng.standard_t(2, (n, 4)), seed=seed) for seed in range(2000)]
    )
    for share in (0.01, 0.05, 0.5):
        assert (found <= share).mean() <= share + 3 * math.sqrt(share * (1 - share) / 2000)
    assert (found <= 0.05).mean() > 0.03


def test_shares_are_tested_exactly() -> None:
    first, second = np.array([0, 3, 12, 20]), np.array([0, 9, 2, 30])
    expected = [
        min(
            1.0,
            2 * min(scipy.stats.fisher_exact([[a, 20 - a], [b, 30 - b]], side).pvalue for side in ("less", "greater")),
        )
        for a, b in zip(first, second, strict=True)
    ]
    np.testing.assert_allclose(exact_tests(first, second, (20, 30)), expected)


def test_holm_raises_p_values_in_their_order() -> None:
    assert adjust_p_values([]) == []
    assert adjust_p_values([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert adjust_p_values([0.9, 0.8]) == [1.0, 1.0]


# Resampling


@pytest.mark.parametrize("rows", [7, 2100], ids=["few rows", "several blocks"])
def test_sums_are_those_of_weights_that_do_not_depend_on_the_statistics(rows: int) -> None:
    rng, samples, edge_columns = np.random.default_rng(1), 150, np.zeros((rows, 2))
    marked = draw(np.column_stack([np.eye(rows), edge_columns]), samples, edges=np.eye(2, rows + 2, rows))
    weights, edge_weights = marked[:, :rows], marked[:, rows:]
    assert (weights > 0).all()
    assert marked.sum(axis=1) == pytest.approx(rows)
    assert (edge_weights[::2, 1] == 0).all()
    assert (edge_weights[1::2, 0] == 0).all()

    statistics, edges = rng.normal(size=(rows, 3)), rng.normal(size=(2, 3))
    slowly = [
        sum(weight * row for weight, row in zip(one, statistics, strict=True)) + edge @ edges
        for one, edge in zip(weights, edge_weights, strict=True)
    ]
    assert draw(statistics, samples, edges=edges) == pytest.approx(np.array(slowly))
    alone = weights / weights.sum(axis=1, keepdims=True) * rows
    assert draw(statistics, samples) == pytest.approx(alone @ statistics)
    assert draw(statistics, samples, edges=edges[:0]) == pytest.approx(alone @ statistics)
    both = draw(statistics, samples, edges=np.stack([edges, -edges]))
    assert (both[0] == draw(statistics, samples, edges=edges)).all()
    assert (both[1] == draw(statistics, samples, edges=-edges)).all()
    assert not (draw(statistics, samples, seed=1) == draw(statistics, samples)).any()


@pytest.mark.parametrize("rows", [12, 20, 100, 500])
def test_means_vary_as_students_t_has_it(rows: int) -> None:
    values = np.random.default_rng(2).normal(size=(rows, 1))
    variance = (draw(values, 20_000) / rows).var()
    student = scipy.stats.t(rows - 1).var() * values.var(ddof=1) / rows
    assert variance == pytest.approx(student, rel=0.06 if rows < 400 else 0.04)


@pytest.mark.parametrize("right", [0, 3, 250, 490, 500])
def test_a_share_gets_the_mid_p_interval(right: int) -> None:
    rows = 500
    statistics = np.repeat([[1.0], [0.0]], [right, rows - right], axis=0)
    low, high = percentile_interval(draw(statistics, 20_000, edges=np.array([[0.0], [1.0]])) / rows, 0.95)

    def miss(share: float, tail: float) -> float:
        chances = scipy.stats.binom(rows, share)
        return float(chances.cdf(right - 1) + chances.pmf(right) / 2) - tail

    expected = [
        0 if right == 0 else brentq(miss, 1e-9, 1 - 1e-9, args=(0.975,)),
        1 if right == rows else brentq(miss, 1e-9, 1 - 1e-9, args=(0.025,)),
    ]
    assert [low[0], high[0]] == pytest.approx(expected, abs=0.0015)


def test_rows_of_a_group_have_one_weight() -> None:
    rng, edges = np.random.default_rng(3), np.array([[0.0, 1.0], [2.0, 0.5]])
    statistics = rng.normal(size=(40, 2))
    alone = draw(statistics, edges=edges)
    assert draw(statistics, edges=edges, groups=np.arange(40) * 3) == pytest.approx(alone)
    order = rng.permutation(120)
    copies, groups = np.tile(statistics, (3, 1))[order], np.tile(np.arange(40), 3)[order]
    assert draw(copies, groups=groups) == pytest.approx(3 * draw(statistics))
    tripled = draw(copies, edges=3 * edges, groups=groups)
    assert tripled[:, 0] / tripled[:, 1] == pytest.approx(alone[:, 0] / alone[:, 1])
    clustered = np.repeat(rng.normal(size=(10, 1)), 12, axis=0)
    spread = draw(clustered, groups=np.repeat(np.arange(10), 12)).std()
    assert spread > 2.5 * draw(clustered).std()


def test_groups_of_different_sizes_weigh_by_their_rows() -> None:
    statistics, groups = np.array([[1.0, 1], [1, 2], [1, 6]]), np.array([5, 5, 2])
    sums = draw(statistics, groups=groups)
    assert sums[:, 0] == pytest.approx(3)
    share = (sums[:, 1] - 3 * 1.5) / (3 * (6 - 1.5))  # of the weight, that the group of one row has
    assert ((share > 0) & (share < 1)).all()
    assert 0.2 < share.mean() < 0.5


def test_intervals_do_not_collapse_where_every_row_is_alike() -> None:
    rows, edges = np.ones((50, 1)), np.array([[0.0], [1.0]])
    assert draw(rows) == pytest.approx(50)
    low, high = percentile_interval(draw(rows, edges=edges) / 50, 0.95, point=np.ones(1))
    assert 0.9 < low[0] < 0.96
    assert high[0] == pytest.approx(1)


def test_memory_does_not_grow_with_rows_times_samples() -> None:
    statistics = np.ones((300_000, 1))
    tracemalloc.start()
    draw(statistics, 130)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="samples must be at least 1"):
        draw(np.ones((3, 1)), 0)


# Intervals from resamples


def test_percentiles_hold_the_point_and_are_undefined_with_it() -> None:
    resampled = np.random.default_rng(4).normal(size=(2000, 3))
    low, high = percentile_interval(resampled, 0.9)
    assert low == pytest.approx(np.quantile(resampled, 0.05, axis=0))
    assert high == pytest.approx(np.quantile(resampled, 0.95, axis=0))
    widened = percentile_interval(resampled, 0.9, point=np.array([5.0, -5.0, np.nan]))
    assert [widened[0][0], widened[1][0]] == [low[0], 5]
    assert [widened[0][1], widened[1][1]] == [-5, high[1]]
    assert np.isnan([widened[0][2], widened[1][2]]).all()
    with pytest.raises(ValueError, match="between 0 and 1"):
        percentile_interval(resampled, 95)


def test_the_end_towards_the_truth_moves_by_twice_the_bias_and_no_other() -> None:
    resampled = np.random.default_rng(5).normal(size=(100_000, 4)) * [1, 2, 1, 0]
    plain, moved = (percentile_interval(resampled, 0.95, centre=centre) for centre in (None, [0.3, -0.6, np.nan, 0]))
    assert moved[0] == pytest.approx([plain[0][0], plain[0][1] - 2 * 0.6, plain[0][2], 0], abs=0.06)
    assert moved[1] == pytest.approx([plain[1][0] + 2 * 0.3, plain[1][1], plain[1][2], 0], abs=0.06)
    assert moved[0][0] == plain[0][0]
    assert moved[1][1] == plain[1][1]


def test_means_need_no_correction() -> None:
    sums = draw(np.random.default_rng(6).exponential(size=(30, 1)), edges=np.array([[0.0], [4.0]]))
    for found, expected in zip(
        percentile_interval(sums, 0.95, centre=sums.mean(axis=0)), percentile_interval(sums, 0.95), strict=True
    ):
        assert found == pytest.approx(expected, rel=1e-9)


def test_a_mean_may_be_moved_by_a_value_that_was_not_seen() -> None:
    values = np.zeros(200)
    values[:3] = 0.5
    seen, possible, never = (
        bootstrap_mean(values, Resampling()),
        bootstrap_mean(values, Resampling(), largest=1.0),
        bootstrap_mean(np.zeros(200), Resampling()),
    )
    assert seen.value == possible.value == pytest.approx(0.0075)
    assert possible.low < seen.low < 0.0075 < seen.high < possible.high
    assert (never.low, never.value, never.high) == (0, 0, 0)
    assert bootstrap_mean(values, Resampling()) == seen
    tenfold, groups = np.repeat(values, 10), np.repeat(np.arange(200), 10)
    same = bootstrap_mean(tenfold, Resampling(groups=groups))
    assert (same.low, same.high) == pytest.approx((seen.low, seen.high), rel=0.05)


# Coverage


@pytest.mark.parametrize("rows", [20, 100])
@pytest.mark.parametrize("p", [0.02, 0.5, 0.98, 1.0])
def test_intervals_of_95_percent_hold_the_truth(coverage: ModuleType, rows: int, p: float) -> None:
    scenario = coverage.Classes((0.1, 0.2, 0.3, 0.4))
    found = coverage.measure(scenario, p=p, rows=rows, replicates=300, samples=400)
    assert tuple(found) == ("accuracy", "recall", "F1", *METRICS[3:]) == METRICS
    for name, one in found.items():
        assert one.held > 0.93 - 3 * math.sqrt(0.05 * 0.95 / one.replicates), (name, one)


def test_intervals_of_differences_hold_the_truth(coverage: ModuleType) -> None:
    for one in coverage.measure(coverage.Difference(0.3, 0.5), p=0.5, rows=200, replicates=300, samples=400).values():
        assert 0.9 < one.held < 0.995, one


@pytest.mark.parametrize("p", [0.02, 0.5])
def test_intervals_of_groups_hold_the_truth_and_not_much_more(coverage: ModuleType, p: float) -> None:
    """240 rows in 30 groups: a row that was not seen must not weigh as much as a group."""
    eights = coverage.Groups(8, 0.3)
    scenario = coverage.Classes((0.1, 0.2, 0.3, 0.4), eights)
    for name, one in coverage.measure(scenario, p=p, rows=240, replicates=300, samples=400).items():
        assert one.held > 0.93 - 3 * math.sqrt(0.05 * 0.95 / one.replicates), (name, one)
        assert one.held < 0.99 or p < 0.5 or name in ("recall", "F1"), (name, one)
    for one in coverage.measure(
        coverage.Difference(0.3, 0.5, eights), p=0.5, rows=240, replicates=300, samples=400
    ).values():
        assert 0.9 < one.held < 0.99, one


@pytest.mark.slow
@pytest.mark.parametrize("chances", [(0.5, 0.5), (0.1, 0.2, 0.3, 0.4)], ids=["two classes", "four classes"])
@pytest.mark.parametrize("rows", [20, 100, 1000])
@pytest.mark.parametrize("p", [0.02, 0.5, 0.98, 1.0])
def test_intervals_of_95_percent_hold_the_truth_and_not_much_more(
    coverage: ModuleType, chances: tuple[float, ...], rows: int, p: float
) -> None:
    for name, one in coverage.measure(coverage.Classes(chances), p=p, rows=rows, replicates=2000).items():
        error = 3 * math.sqrt(0.05 * 0.95 / one.replicates)
        assert one.held > 0.93 - error, (name, one)
        if rows == 1000 and p < 1:
            assert one.held < 0.97 + error, (name, one)
