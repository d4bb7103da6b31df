"""Scores, comparisons and verdicts of every task: intervals that are intervals, pairs, seeds, and what is undefined."""

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import scipy.stats

from lorafit.tasks.base import Metric
from lorafit.tasks.evaluation import (
    compare,
    compare_means,
    describe_changed_rows,
    estimate,
    estimate_mean,
    judge,
    judge_difference,
    score_models,
)
from lorafit.tasks.records import Comparison, Estimate, Resampling
from lorafit.tasks.registry import TASKS, build_task

if TYPE_CHECKING:
    from conftest import BuildCase, Case


def describe_edges(estimated: Estimate) -> tuple[bool, bool]:
    """Whether there is room below and above the value."""
    return estimated.low < estimated.value, estimated.value < estimated.high


# Several models at once


@pytest.mark.parametrize("name", [name for name in TASKS if name != "regression"])  # there one row changes for all
def test_other_models_do_not_move_the_interval_of_a_pair(
    build_case: "BuildCase", name: str, resampling: Resampling
) -> None:
    case = build_case(name)
    y, before, after = case.draw_values(12)
    alone = score_models(case.task, y, after, {"before": before}, resampling)[1]["before"].comparison.differences
    others = {"before": before, "far off": case.task.activate(-20 * case.task.deactivate(after))}
    beside = score_models(case.task, y, after, others, resampling)[1]["before"].comparison.differences
    for metric in ("log_loss", case.task.primary):
        pair = alone[metric], beside[metric]
        assert pair[1].high - pair[1].low == pytest.approx(pair[0].high - pair[0].low, rel=0.35)


def test_mcc_stays_between_its_ends_where_a_model_knows_one_class(resampling: Resampling) -> None:
    task = build_task("single_label", ("a", "b"))
    for rows in (4, 6, 20):
        y = np.array([0, 1] * (rows // 2))
        found = estimate(task, y, np.tile([0.55, 0.45], (rows, 1)), resampling).metrics["mcc"]
        assert -1 <= found.low <= found.value == 0 <= found.high <= 1


def test_models_are_scored_together_as_they_are_alone(case: "Case", resampling: Resampling) -> None:
    task, (y, before, after) = case.task, case.draw_values(200)
    own, others = score_models(task, y, after, {"before": before, "same": after}, resampling)
    assert list(others) == ["before", "same"]
    for found, values in ((own, after), (others["before"].scores, before), (others["same"].scores, after)):
        alone = estimate(task, y, values, resampling)
        assert (found.per_class, found.confusion_matrix) == (alone.per_class, alone.confusion_matrix)
        for name, expected in alone.metrics.items():
            width = expected.high - expected.low
            assert found.metrics[name].value == expected.value
            assert [found.metrics[name].low, found.metrics[name].high] == pytest.approx(
                [expected.low, expected.high], abs=0.4 * width
            )
    paired = compare(task, y, before, after, resampling)
    found = others["before"].comparison
    assert (found.rows_fixed, found.rows_broken, found.p_value) == (
        paired.rows_fixed,
        paired.rows_broken,
        paired.p_value,
    )
    for name, difference in paired.differences.items():
        assert found.differences[name].value == pytest.approx(difference.value)
        gain = own.metrics[name].value - others["before"].scores.metrics[name].value
        assert difference.value == pytest.approx(gain)
    same = others["same"].comparison
    assert (same.rows_fixed, same.rows_broken, same.p_value) == (0, 0, 1)
    for difference in same.differences.values():
        assert difference.low <= difference.value == 0 <= difference.high


def test_rows_fixed_and_broken_are_those_with_smaller_and_larger_errors(case: "Case", resampling: Resampling) -> None:
    task, (y, before, after) = case.task, case.draw_values(200)
    after[:20] = before[:20]
    compared = compare(task, y, before, after, resampling)
    gain = task.row_errors(y, before) - task.row_errors(y, after)
    assert (compared.rows_fixed, compared.rows_broken) == ((gain > 0).sum(), (gain < 0).sum())
    changed = compared.rows_fixed + compared.rows_broken
    assert changed <= 180, "ties count for neither"
    assert compared.p_value == pytest.approx(scipy.stats.binomtest(compared.rows_fixed, changed).pvalue)


def test_paired_intervals_are_narrower_than_those_of_models_apart(case: "Case") -> None:
    task, (y, _, after) = case.task, case.draw_values(300)
    nearly = after.copy()
    nearly[:3] = np.roll(after, 7, axis=0)[:3]
    resampling = Resampling(samples=200)
    paired, apart = (
        compare(task, y, after, nearly, resampling).differences,
        estimate(task, y, after, resampling).metrics,
    )
    for name in task.metrics:
        assert paired[name].high - paired[name].low < apart[name].high - apart[name].low, name


def test_means_over_models_are_resampled_together(case: "Case", resampling: Resampling) -> None:
    task, (y, before, after) = case.task, case.draw_values(200)
    first, second = (estimate(task, y, values, resampling).metrics[task.primary] for values in (before, after))
    mean = estimate_mean(task, y, [before, after], resampling)
    assert mean.value == pytest.approx((first.value + second.value) / 2)
    assert mean.low < mean.value < mean.high
    assert estimate_mean(task, y, [after], resampling) == second
    difference = compare_means(task, y, [before, before], [after, after, after], resampling)
    assert difference.value == pytest.approx(second.value - first.value)
    one = compare(task, y, before, after, resampling).differences[task.primary]
    assert [difference.low, difference.high] == pytest.approx([one.low, one.high], abs=0.4 * (one.high - one.low))


# Intervals


def test_the_seed_decides_the_intervals_and_nothing_else(case: "Case") -> None:
    task, (y, before, after) = case.task, case.draw_values(120)
    for measure in (
        lambda seed: estimate(task, y, after, Resampling(samples=100, seed=seed)),
        lambda seed: compare(task, y, before, after, Resampling(samples=100, seed=seed)),
    ):
        first, again, other = measure(3), measure(3), measure(4)
        assert first == again
        assert first != other
        metrics = [getattr(one, "metrics", None) or one.differences for one in (first, other)]
        assert [one.value for one in metrics[0].values()] == [one.value for one in metrics[1].values()]


def test_a_higher_level_gives_a_wider_interval(case: "Case") -> None:
    task, (y, _, after) = case.task, case.draw_values(200)
    narrow, wide = (estimate(task, y, after, Resampling(level, 500)).metrics for level in (0.8, 0.99))
    for name in task.metrics:
        assert wide[name].low < narrow[name].low < narrow[name].high < wide[name].high, name


def test_more_rows_give_a_narrower_interval(case: "Case") -> None:
    few, many = (
        estimate(case.task, y, after, Resampling(samples=300)).metrics
        for y, _, after in (case.draw_values(100), case.draw_values(2500))
    )
    for name in case.task.metrics:
        widths = [one[name].high - one[name].low for one in (few, many)]
        assert 2.5 < widths[0] / widths[1] < 10, name


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_a_level_out_of_range_is_refused(case: "Case", level: float) -> None:
    y, before, after = case.draw_values(20)
    for measure in (estimate, lambda *rest: compare(*rest[:2], before, *rest[2:])):
        with pytest.raises(ValueError, match="between 0 and 1"):
            measure(case.task, y, after, Resampling(level, samples=10))


def test_no_samples_are_refused(case: "Case") -> None:
    y, _, after = case.draw_values(20)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        estimate(case.task, y, after, Resampling(samples=0))


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_few_rows_are_scored(case: "Case", rows: int, resampling: Resampling) -> None:
    y, before, after = case.draw_values(rows)
    scores, compared = estimate(case.task, y, after, resampling), compare(case.task, y, before, after, resampling)
    for one in (*scores.metrics.values(), *compared.differences.values()):
        assert math.isnan(one.value) or one.low <= one.value <= one.high


def test_rows_of_a_group_are_resampled_together(case: "Case") -> None:
    """Each row ten times over tells no more than once."""
    task, (y, before, after) = case.task, case.draw_values(60)
    rows = np.repeat(np.arange(60), 10)
    by_row = estimate(task, y, after, Resampling(samples=500))
    by_group = estimate(task, y[rows], after[rows], Resampling(samples=500, groups=rows))
    alone, grouped = by_row.metrics, by_group.metrics
    paired, together = (
        compare(task, y, before, after, Resampling(samples=500)).differences,
        compare(task, y[rows], before[rows], after[rows], Resampling(samples=500, groups=rows)).differences,
    )
    for name in task.metrics:
        for one, other in ((alone[name], grouped[name]), (paired[name], together[name])):
            assert other.value == pytest.approx(one.value)
            assert 0.6 < (other.high - other.low) / (one.high - one.low) < 1.5, name
    for single, tenfold in zip(by_row.per_class, by_group.per_class, strict=True):
        assert tenfold.support == 10 * single.support
        for one, other in ((single.recall, tenfold.recall), (single.f1, tenfold.f1)):
            assert other.value == pytest.approx(one.value, nan_ok=True)
            assert math.isnan(one.value) or 0.8 < (other.high - other.low) / (one.high - one.low) < 1.5


def test_sign_test_of_rows_in_groups_tells_what_it_takes_for_granted(case: "Case", resampling: Resampling) -> None:
    y, before, after = case.draw_values(60)
    alone = compare(case.task, y, before, after, resampling)
    grouped = compare(case.task, y, before, after, replace(resampling, groups=np.arange(60) // 6))
    assert (alone.grouped, grouped.grouped) == (False, True)
    assert grouped.p_value == alone.p_value
    caution = ", which takes rows as independent though they come in groups)"
    assert describe_changed_rows(case.task, grouped).endswith(caution)
    assert describe_changed_rows(case.task, alone) == describe_changed_rows(case.task, grouped).replace(caution, ")")


def test_means_over_models_resample_groups_together(case: "Case") -> None:
    task, (y, before, after), resampling = case.task, case.draw_values(60), Resampling(samples=500)
    rows = np.repeat(np.arange(60), 10)
    many = y[rows], [before[rows], after[rows]], [after[rows], after[rows]]
    for one, other in (
        (
            estimate_mean(task, y, [before, after], resampling),
            estimate_mean(task, *many[:2], replace(resampling, groups=rows)),
        ),
        (
            compare_means(task, y, [before, after], [after, after], resampling),
            compare_means(task, *many, replace(resampling, groups=rows)),
        ),
    ):
        assert other.value == pytest.approx(one.value)
        assert 0.6 < (other.high - other.low) / (one.high - one.low) < 1.5


def test_a_constant_model_has_an_interval_of_positive_width() -> None:
    y = np.where(np.arange(500) < 20, 0, 1)
    scores = estimate(build_task("single_label", "ab"), y, np.tile([0.04, 0.96], (500, 1)), Resampling())
    accuracy = scores.metrics["accuracy"]
    assert accuracy.value == 0.96
    assert (accuracy.low, accuracy.high) == pytest.approx((0.939, 0.974), abs=1e-3)
    for name in ("macro_f1", "log_loss"):
        assert describe_edges(scores.metrics[name]) == (True, True)
    assert scores.metrics["mcc"].value == 0


def test_rows_that_are_all_right_do_not_prove_a_perfect_model() -> None:
    y = np.arange(500) % 2
    scores = estimate(build_task("single_label", "ab"), y, np.eye(2)[y] * 0.8 + 0.1, Resampling())
    assert scores.metrics["accuracy"].low == pytest.approx(0.9924, abs=1e-4)
    for name in ("accuracy", "macro_f1", "mcc"):
        assert (scores.metrics[name].value, scores.metrics[name].high) == pytest.approx((1, 1))
        assert 0.97 < scores.metrics[name].low < 1, name
    assert scores.metrics["log_loss"].low <= scores.metrics["log_loss"].value < scores.metrics["log_loss"].high
    marks = np.stack([y, 1 - y], axis=1)
    several = estimate(build_task("multi_label", "ab"), marks, marks * 0.8 + 0.1, Resampling()).metrics
    for name in ("micro_f1", "macro_f1", "exact_match"):
        assert several[name].low < several[name].value == 1 == pytest.approx(several[name].high)
    hamming = several["hamming_loss"]
    assert (hamming.low, hamming.value) == pytest.approx((0, 0), abs=1e-12)
    assert 0 < hamming.high < 0.02


def test_rows_that_are_all_right_and_all_alike_do_not_either() -> None:
    marks = np.tile([1, 0], (200, 1))
    several = estimate(build_task("multi_label", "ab"), marks, marks * 0.8 + 0.1, Resampling()).metrics
    assert several["micro_f1"].low < 1
    assert several["hamming_loss"].high > 0


def test_rows_that_are_all_wrong_do_not_prove_a_useless_model() -> None:
    y = np.arange(300) % 3
    scores = estimate(build_task("single_label", "abc"), y, np.eye(3)[(y + 1) % 3], Resampling()).metrics
    assert (scores["accuracy"].low, scores["accuracy"].value) == (0, 0)
    assert scores["accuracy"].high > 0
    assert scores["macro_f1"].high > 0


def test_a_class_of_one_row_has_a_wide_interval() -> None:
    y = np.where(np.arange(100) == 0, 0, 1)
    values = np.tile([0.1, 0.9], (100, 1))
    rare, common = estimate(build_task("single_label", "ab"), y, values, Resampling(samples=100)).per_class
    assert (rare.recall.value, rare.recall.low, rare.support) == (0, 0, 1)
    assert rare.recall.high > 0.7
    assert math.isnan(rare.precision.value), "it was never predicted"
    assert common.recall.value == 1
    assert common.recall.low > 0.95


@pytest.mark.parametrize("name", ["single_label", "ordinal"])
def test_scores_of_an_absent_class_are_undefined(name: str, resampling: Resampling) -> None:
    task = build_task(name, "1234")
    y = np.array([0, 0, 2, 2, 2, 0] * 5)
    values = np.eye(4)[[0, 1, 2, 2, 0, 0] * 5] * 0.88 + 0.03
    scores = estimate(task, y, values, resampling)
    never, absent = scores.per_class[3], scores.per_class[1]
    for undefined in (never.precision, never.recall, never.f1, absent.recall):
        assert all(map(math.isnan, (undefined.value, undefined.low, undefined.high)))
        assert task.primary_metric.write(undefined) == "undefined"
    assert (absent.precision.value, absent.f1.value, absent.support) == (0, 0, 0)
    assert all(math.isfinite(one.value) for one in scores.metrics.values())


def test_an_absent_class_does_not_pull_the_interval_of_the_macro_f1_down() -> None:
    y, _ = np.divmod(np.arange(400), 200)
    values = np.tile(np.eye(6)[:2] * 0.9 + 0.1 / 6, (200, 1))
    values = values[np.where(np.arange(400) % 10 == 0, 1 - y, y)]
    values /= values.sum(axis=1, keepdims=True)
    measured = estimate(build_task("single_label", "abcdef"), y, values, Resampling()).metrics["macro_f1"]
    assert measured.value == pytest.approx(0.9, abs=0.01)
    assert 0.8 < measured.low < measured.value < measured.high < 0.95


def test_labels_that_nobody_has_are_undefined_and_left_out_of_the_macro_f1(resampling: Resampling) -> None:
    task, marks = build_task("multi_label", "abc"), np.array([[1, 0, 0], [0, 0, 0], [1, 0, 0], [1, 0, 0]])
    values = np.array([[0.9, 0.1, 0.8], [0.2, 0.2, 0.1], [0.7, 0.3, 0.2], [0.6, 0.4, 0.3]])
    scores = estimate(task, marks, values, resampling)
    assert scores.metrics["macro_f1"].value == pytest.approx(1 / 2), "as of single labels"
    assert math.isnan(scores.per_class[1].f1.value)
    assert math.isnan(scores.per_class[2].recall.value)
    assert scores.per_class[2].precision.value == 0
    nothing = estimate(task, np.zeros((5, 3)), np.full((5, 3), 0.1), resampling).metrics
    for name in ("micro_f1", "macro_f1"):
        assert math.isnan(nothing[name].value), "nothing could be right or wrong"
    assert (nothing["exact_match"].value, nothing["hamming_loss"].value) == (1, 0)
    assert nothing["log_loss"].value == pytest.approx(-np.log(0.9))


@pytest.mark.parametrize("name", ["single_label", "multi_label", "ordinal"])
def test_a_certain_mistake_costs_the_same_finite_loss(name: str, resampling: Resampling) -> None:
    task = build_task(name, "12")
    y = np.array([[0, 1]]) if name == "multi_label" else np.array([1])
    loss = estimate(task, y, np.array([[1.0, 0.0]]), resampling).metrics["log_loss"]
    assert loss.value == pytest.approx(36.0437, abs=1e-4)
    right = estimate(task, y, np.array([[0.0, 1.0]]), resampling).metrics["log_loss"]
    assert right.value == 0
    assert not np.signbit(right.value)


# Verdicts


def guess(low: float, high: float) -> Estimate:
    return Estimate(value=(low + high) / 2, low=low, high=high)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.02, "better"),
        (-0.02, -0.01, "worse"),
        (0.0, 0.01, "inconclusive"),
        (-0.01, 0.0, "inconclusive"),
        (-0.01, 0.01, "inconclusive"),
        (math.nan, math.nan, "inconclusive"),
    ],
)
def test_difference_is_judged_by_its_interval(low: float, high: float, verdict: str) -> None:
    reverse = {"better": "worse", "worse": "better", "inconclusive": "inconclusive"}
    assert judge_difference(Metric("accuracy", ""), guess(low, high)) == verdict
    assert judge_difference(Metric("MAE", "", higher_is_better=False), guess(low, high)) == reverse[verdict]


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize(
    ("low", "high", "rows", "p_value", "verdict"),
    [
        (0.01, 0.03, (40, 5), 0.001, "better"),
        (0.01, 0.03, (40, 5), 0.06, "inconclusive"),
        (-0.01, 0.03, (40, 5), 0.001, "inconclusive"),
        (0.0, 0.03, (40, 5), 0.001, "inconclusive"),
        (0.01, 0.03, (5, 40), 0.001, "inconclusive"),
        (-0.03, -0.01, (5, 40), 0.001, "worse"),
        (-0.03, -0.01, (40, 5), 0.001, "inconclusive"),
        (math.nan, math.nan, (40, 5), 0.001, "inconclusive"),
    ],
)
def test_a_model_is_better_where_interval_and_test_agree(
    name: str, low: float, high: float, rows: tuple[int, int], p_value: float, verdict: str, build_case: "BuildCase"
) -> None:
    task = build_case(name).task
    difference = guess(low, high) if task.primary_metric.higher_is_better else guess(-high, -low)
    others = {other: guess(-0.5, -0.4) for other in task.metrics}
    comparison = Comparison(
        differences={**others, task.primary: difference}, rows_fixed=rows[0], rows_broken=rows[1], p_value=p_value
    )
    assert judge(task, comparison, 0.95) == verdict
    assert judge(task, comparison, 1 - p_value / 2) == "inconclusive"


def test_two_thousand_resamples_of_25000_rows_and_several_models_take_seconds(build_case: "BuildCase") -> None:
    y, before, after = build_case("single_label", "ab").draw_values(25_000)
    began = time.process_time()
    score_models(build_case("single_label", "ab").task, y, after, {"before": before, "other": before}, Resampling())
    assert time.process_time() - began < 5
