"""Abstaining, conformal sets and conformal intervals."""

from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from lorafit.tasks.metrics import softmax
from lorafit.tasks.records import Resampling
from lorafit.tasks.registry import build_task
from lorafit.tasks.selective import NEVER, choose_accept_threshold, choose_set_threshold, conformal_rank, trace_risk

if TYPE_CHECKING:
    from conftest import BuildCase

FEW = Resampling(samples=20)


def trace(confidence: list[float], right: list[int], points: int = 10) -> list[tuple[float, int, int]]:
    curve = trace_risk(np.array(right) == 1, np.array(confidence), points=points)
    return [(point.threshold, point.accepted, point.errors) for point in curve]


def test_risk_is_counted_from_the_most_confident_row_down() -> None:
    assert trace([0.6, 0.9, 0.8, 0.7], [0, 1, 1, 0]) == [(0.9, 1, 0), (0.8, 2, 0), (0.7, 3, 1), (0.6, 4, 2)]


def test_rows_of_one_confidence_are_accepted_together() -> None:
    assert trace([0.7, 0.9, 0.7, 0.7], [1, 1, 0, 1]) == [(0.9, 1, 0), (0.7, 4, 1)]


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    rng = np.random.default_rng(0)
    y, values = rng.integers(2, size=5000), softmax(rng.normal(size=(5000, 2)))
    right, confidence = values.argmax(axis=1) == y, values.max(axis=1)
    curve = trace_risk(right, confidence, points=100)
    assert len(curve) == 100
    assert curve[0].threshold == confidence.max()
    assert (curve[-1].accepted, curve[-1].errors) == (5000, (~right).sum())
    for point in curve[::10]:
        accepted = confidence >= point.threshold
        assert (point.accepted, point.errors) == (accepted.sum(), (~right)[accepted].sum())


def test_the_threshold_accepts_as_many_rows_as_the_target_allows() -> None:
    confidence = [0.99 - 0.001 * row for row in range(200)]
    right = [1] * 150 + [0, 1] * 25
    curve = trace_risk(np.array(right) == 1, np.array(confidence), points=1000)
    for target in (0.99, 0.95, 0.9):
        allowed = [row + 1 for row in range(200) if (right[: row + 1].count(0) + 1) / (row + 2) <= 1 - target + 1e-9]
        expected = pytest.approx(confidence[allowed[-1] - 1]) if allowed else NEVER
        assert choose_accept_threshold(curve, target) == expected, target


def test_a_few_rows_without_a_mistake_do_not_prove_a_high_accuracy() -> None:
    curve = trace_risk(np.full(10, fill_value=True), np.full(10, 0.9), points=10)
    assert choose_accept_threshold(curve, 0.99) == NEVER
    assert choose_accept_threshold(curve, 0.9) == 0.9


@pytest.mark.parametrize("target", [0, 1, 1.5, -0.1])
def test_a_target_out_of_range_is_refused(target: float) -> None:
    with pytest.raises(ValueError, match="target_accuracy"):
        choose_accept_threshold([], target)


@pytest.mark.parametrize("name", ["single_label", "ordinal"])
def test_predictions_abstain_below_the_confidence_that_the_target_needs(name: str, build_case: "BuildCase") -> None:
    case = build_case(name)
    task, (y, _, logits), (other, _, others) = case.task, case.draw(3000), case.draw(3000, seed=1)
    calibration = task.fit_calibration(y, logits, coverage=0.9, target_accuracy=0.9)
    values = task.activate(others, calibration)
    scores = task.calibration_scores(other, values, calibration, FEW)
    assert scores.asked == {"coverage": 0.9, "accepted_accuracy": 0.9}
    assert scores.metrics["accepted_accuracy"].value == pytest.approx(0.9, abs=0.04)
    predicted = [task.predict(row, calibration) for row in values]
    assert scores.metrics["accepted_share"].value == np.mean([not one.abstain for one in predicted])
    assert [one.abstain for one in predicted] == [one.score < calibration.accept_threshold for one in predicted]
    assert len(calibration.curve) <= 1000
    assert len(scores.risk_coverage) <= 200
    assert (scores.risk_coverage[-1].accepted, scores.risk_coverage[-1].errors) == (
        3000,
        (task.row_errors(other, values) > 0).sum(),
    )


def test_a_target_that_no_row_reaches_accepts_nothing() -> None:
    rng, task = np.random.default_rng(0), build_task("single_label", "ab")
    y, logits = rng.integers(2, size=200), rng.normal(size=(200, 2))
    calibration = task.fit_calibration(y, logits, coverage=0.9, target_accuracy=0.999)
    values = task.activate(logits, calibration)
    scores = task.calibration_scores(y, values, calibration, FEW)
    assert task.predict(values[0], calibration).abstain is True
    assert scores.metrics["accepted_share"].value == 0
    for name in ("accepted_accuracy", "accept_threshold"):
        assert np.isnan(scores.metrics[name].value)
    assert "every prediction abstains" in task.describe_calibration(scores)[-1]


# Conformal sets and intervals


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_sets_of_new_rows_hold_the_truth_as_often_as_asked(classes: int, coverage: float) -> None:
    rng, reached, task = np.random.default_rng(0), [], build_task("single_label", "abcde"[:classes])
    for _ in range(200):
        logits = rng.normal(size=(700, classes)) * 2
        y = (rng.random((700, 1)) > softmax(logits).cumsum(axis=1)).sum(axis=1).clip(max=classes - 1)
        values = softmax(logits * 1.5)  # miscalibrated: coverage does not rest on calibration
        threshold = choose_set_threshold(values[np.arange(300), y[:300]], coverage)
        sets = task._build_sets(values[300:], threshold)
        reached.append(sets[np.arange(400), y[300:]].mean())
    assert np.mean(reached) >= coverage - 0.005
    assert np.mean(reached) <= coverage + (0.1 if coverage < 0.9 else 0.02)  # the prediction is always inside


def test_the_set_threshold_is_the_quantile_of_the_true_class() -> None:
    likelihoods = np.linspace(0.05, 0.95, 19)
    assert choose_set_threshold(likelihoods, 0.9) == pytest.approx(0.1)  # the 18th of 19 from above
    assert choose_set_threshold(likelihoods, 0.95) == pytest.approx(0.05)
    assert choose_set_threshold(likelihoods, 0.96) == 0


def test_every_set_holds_the_prediction() -> None:
    values = np.array([[0.4, 0.35, 0.25], [0.98, 0.01, 0.01], [0.34, 0.33, 0.33]])
    for name, middle in (("single_label", [True, False, False]), ("ordinal", [True, True, False])):
        task = build_task(name, "123")
        calibration = task.fit_calibration(*_exact(task), coverage=0.9).model_copy(update={"set_threshold": 0.345})
        sets = [task.predict(row, calibration).conformal_set for row in values]
        third = tuple(
            label for label, inside in zip("123", middle, strict=True) if inside and (name, label) != ("ordinal", "1")
        )
        assert sets == [("1", "2"), ("1",), third]
        assert all(task.predict(row, calibration).label in inside for row, inside in zip(values, sets, strict=True))


def _exact(task: object) -> tuple[np.ndarray, np.ndarray]:
    return np.array([0, 1]), np.zeros((2, len(task.output_names)))


@pytest.mark.parametrize("name", ["single_label", "ordinal"])
def test_coverage_and_set_sizes_are_counted(name: str, build_case: "BuildCase") -> None:
    case = build_case(name)
    task, (y, _, logits), (other, _, others) = case.task, case.draw(500), case.draw(500, seed=1)
    calibration = task.fit_calibration(y, logits, coverage=0.9)
    values = task.activate(others, calibration)
    scores = task.calibration_scores(other, values, calibration, FEW)
    sets = [task.predict(row, calibration).conformal_set for row in values]
    held = np.mean([label in inside for label, inside in zip(task.decode(other), sets, strict=True)])
    assert scores.metrics["coverage"].value == pytest.approx(held)
    assert held == pytest.approx(0.9, abs=0.04)
    assert scores.set_sizes == [
        sum(len(inside) == size + 1 for inside in sets) for size in range(len(task.label_names))
    ]


@pytest.mark.parametrize("coverage", [0.0, 1.0, 2.0, float("nan")])
def test_a_coverage_out_of_range_is_refused(coverage: float, build_case: "BuildCase") -> None:
    with pytest.raises(ValueError, match="coverage must lie between 0 and 1"):
        conformal_rank(10, coverage)
    for name in ("single_label", "regression", "ordinal"):
        y, _, logits = build_case(name).draw(20)
        with pytest.raises(ValueError, match="coverage must lie between 0 and 1"):
            build_case(name).task.fit_calibration(y, logits, coverage=coverage)


@pytest.mark.parametrize(("rows", "coverage"), [(1, 0.5), (9, 0.9), (10, 0.9), (19, 0.9), (99, 0.95), (100, 0.3)])
def test_the_half_width_is_the_error_of_the_rank_asked_for(rows: int, coverage: float) -> None:
    errors = np.random.default_rng(13).permutation(np.arange(1.0, rows + 1))
    rank = ceil((rows + 1) * Fraction(str(coverage)))
    signed = errors * np.where(np.arange(rows) % 2, 1, -1)
    calibration = build_task("regression", ["value"]).fit_calibration(
        np.zeros(rows), signed[:, np.newaxis], coverage=coverage
    )
    assert calibration.half_width == rank


def test_too_few_rows_give_the_largest_error() -> None:
    task = build_task("regression", ["value"])
    few = task.fewest_calibration_rows(0.9)
    errors = np.arange(1.0, few + 1)[:, np.newaxis]
    assert few == 9
    assert task.fit_calibration(np.zeros(3), np.array([[1.0], [-5.0], [2.0]]), coverage=0.9).half_width == 5
    for rows in (few, few + 1):
        assert task.fit_calibration(np.zeros(rows - 1), errors[: rows - 1], coverage=0.9).half_width == rows - 1


@pytest.mark.parametrize(("rows", "coverage"), [(19, 0.9), (50, 0.8), (200, 0.95)])
def test_intervals_hold_the_truth_of_new_rows_as_often_as_asked(rows: int, coverage: float) -> None:
    rng, task, held = np.random.default_rng(14), build_task("regression", ["value"]), []
    for _ in range(1000):
        errors = rng.standard_t(3, size=(rows + 50, 1))
        calibration = task.fit_calibration(np.zeros(rows), errors[:rows], coverage=coverage)
        scores = task.calibration_scores(np.zeros(50), errors[rows:], calibration, FEW)
        held.append(scores.metrics["coverage"].value)
    expected = ceil((rows + 1) * Fraction(str(coverage))) / (rows + 1)  # exact for errors without ties
    assert expected >= coverage
    assert np.mean(held) == pytest.approx(expected, abs=5 * np.std(held) / np.sqrt(1000))


def test_coverage_of_intervals_counts_their_ends() -> None:
    task = build_task("regression", ["value"])
    calibration = task.fit_calibration(np.zeros(1), np.ones((1, 1)), coverage=0.5)
    values = np.array([[1.0], [-1.0], [1.5], [0.0]])
    scores = task.calibration_scores(np.zeros(4), values, calibration, Resampling(level=0.9))
    assert scores.metrics["coverage"].value == 3 / 4
    assert 0 < scores.metrics["coverage"].low < 3 / 4 < scores.metrics["coverage"].high < 1
    predicted = task.predict(values[2], calibration)
    assert (predicted.low, predicted.value, predicted.high) == (0.5, 1.5, 2.5)


def test_difference_of_coverage_is_that_of_resampled_rows(build_case: "BuildCase") -> None:
    task, (y, first, second) = build_case("regression").task, build_case("regression").draw(200)
    calibrations = (
        task.fit_calibration(y, first, coverage=0.8),
        task.fit_calibration(y, first, coverage=0.9).model_copy(update={"half_width": 0.9}),
    )
    held = [
        np.abs(values[:, 0] - y) <= one.half_width for values, one in zip((first, second), calibrations, strict=True)
    ]
    measured = task.measure_diff(y, first, second, calibrations, Resampling(level=0.9))
    assert measured["coverage"].value == pytest.approx(held[1].mean() - held[0].mean())
    rng = np.random.default_rng(4)
    draws = (rng.integers(200, size=200) for _ in range(500))
    slow = np.array([held[1][rows].mean() - held[0][rows].mean() for rows in draws])
    ends = np.quantile(slow, [0.05, 0.95]).tolist()
    assert [measured["coverage"].low, measured["coverage"].high] == pytest.approx(ends, abs=0.4 * slow.std())
    assert measured["half_width"].value == 0.9 - calibrations[0].half_width
