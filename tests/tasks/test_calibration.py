"""Temperature scaling and calibration error: against slow twins, general optimisers and simulated models."""

from typing import TYPE_CHECKING

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.metrics import brier_score_loss, log_loss

from lorafit.tasks.base import Array
from lorafit.tasks.calibration import (
    BINS,
    estimate_calibration_errors,
    expected_calibration_error,
    fit_binary_temperature,
    fit_temperature,
    list_reliability,
    undo_temperature,
)
from lorafit.tasks.metrics import sigmoid, softmax
from lorafit.tasks.records import CalibrationScores, Estimate, Resampling
from lorafit.tasks.registry import build_task

if TYPE_CHECKING:
    from conftest import BuildCase

Decisions = tuple[NDArray[np.bool_], Array]


def draw(rows: int, *, classes: int = 2, temperature: float = 1.0, seed: int = 0) -> tuple[NDArray[np.int64], Array]:
    """Labels drawn from a model's own probabilities, and its logits too sharp by `temperature`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, classes)) * 2
    y = (rng.random((rows, 1)) > softmax(logits).cumsum(axis=1)).sum(axis=1).clip(max=classes - 1)
    return y, logits * temperature


def draw_linked(
    rows: int, labels: int, *, link: float, temperature: float, seed: int
) -> tuple[NDArray[np.int64], Array]:
    """Labels drawn from the chances of logits, right or wrong together in a text, and the logits made too sharp."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, labels)) * 2
    shared, own = rng.normal(size=(rows, 1)), rng.normal(size=(rows, labels))
    is_right = scipy.stats.norm.cdf(np.sqrt(link) * shared + np.sqrt(1 - link) * own) < sigmoid(np.abs(logits))
    return ((logits >= 0) == is_right).astype(np.int64), logits * temperature


def estimate_ece(right: NDArray[np.bool_], confidence: Array, resampling: Resampling) -> Estimate:
    (error,) = estimate_calibration_errors([(right, confidence)], resampling)
    return error


def decide(y: NDArray[np.int64], values: Array) -> Decisions:
    """Whether each most probable class is right, and its probability."""
    return values.argmax(axis=1) == y, values.max(axis=1)


def decide_each(y: NDArray[np.int64], values: Array) -> Decisions:
    """Whether each decision about a label is right, and its confidence."""
    return (values >= 0.5) == (y == 1), np.maximum(values, 1 - values)


# Temperature


@pytest.mark.parametrize(("classes", "temperature"), [(2, 1.0), (2, 2.5), (5, 0.4), (3, 1.7)])
def test_the_temperature_that_made_logits_too_sharp_is_found(classes: int, temperature: float) -> None:
    assert fit_temperature(*draw(20_000, classes=classes, temperature=temperature)) == pytest.approx(
        temperature, rel=0.05
    )


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_of_several_decisions_a_text_is_found(temperature: float) -> None:
    marks, logits = draw_linked(5000, 4, link=0.3, temperature=temperature, seed=12)
    assert fit_binary_temperature(marks == 1, logits) == pytest.approx(temperature, rel=0.05)


def test_the_temperature_is_the_one_a_general_optimiser_finds() -> None:
    def optimise(measure: object) -> float:
        best = minimize_scalar(lambda log: measure(np.exp(log)), bounds=(-2, 2), method="bounded")
        return float(np.exp(best.x))

    y, logits = draw(3000, classes=4, temperature=2.0, seed=3)
    assert fit_temperature(y, logits) == pytest.approx(optimise(lambda t: log_loss(y, softmax(logits / t))), rel=0.01)
    marks, logits = draw_linked(1000, 3, link=0.0, temperature=2.0, seed=13)
    best = optimise(lambda t: (np.logaddexp(0, logits / t) - marks * logits / t).mean())
    assert fit_binary_temperature(marks == 1, logits) == pytest.approx(best, rel=0.01)


def test_rows_without_a_mistake_do_not_make_a_model_certain() -> None:
    y = np.array([0, 1] * 25)
    logits = np.where(y[:, np.newaxis] == np.arange(2), 1.0, -1.0)
    assert softmax(logits / fit_temperature(y, logits)).max() == pytest.approx(1 - 1 / 52, abs=1e-3)
    sure = 3.0 * np.where(np.arange(100).reshape(50, 2) % 3 == 0, 1, -1)
    assert sigmoid(sure / fit_binary_temperature(sure > 0, sure)).max() == pytest.approx(1 - 1 / 102, abs=1e-3)


def test_temperatures_of_rows_that_say_little_stay_in_their_bounds() -> None:
    assert fit_temperature(np.array([0, 1, 1]), np.full((3, 2), 0.7)) == 1, "logits that say nothing"
    marks = np.random.default_rng(14).random((50, 2)) < 0.5
    assert fit_binary_temperature(marks, np.where(marks, -3.0, 3.0)) == pytest.approx(20), "all wrong"
    assert fit_binary_temperature(marks, np.zeros((50, 2))) == 1
    assert fit_binary_temperature(np.array([[True]]), np.array([[1e6]])) == pytest.approx(20)


def test_a_shift_of_all_logits_of_a_row_changes_nothing() -> None:
    y, logits = draw(500, temperature=2.0)
    shifted = logits + np.linspace(-50, 50, 500)[:, np.newaxis]
    assert fit_temperature(y, shifted) == pytest.approx(fit_temperature(y, logits), rel=1e-6)


@pytest.mark.parametrize("logits", [np.zeros((3, 1)), np.full((2, 2), np.nan), np.zeros((0, 2))])
def test_logits_that_do_not_fit_are_refused(logits: Array) -> None:
    with pytest.raises(ValueError, match="rows of finite numbers"):
        fit_temperature(np.array([0, 1]), logits)
    with pytest.raises(ValueError, match=r"shape \(2, 2\)|rows of finite numbers"):
        fit_binary_temperature(np.array([[False, True], [True, True]]), logits)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_a_temperature_can_be_undone(temperature: float) -> None:
    logits = np.array([[3.0, -1.0, 0.5], [0.0, 0.0, 0.0], [40.0, -40.0, 3.0]])
    assert undo_temperature(softmax(logits / temperature), temperature) == pytest.approx(softmax(logits), abs=1e-12)
    assert undo_temperature(np.array([[1.0, 0.0]]), 0.5).sum() == 1, "a probability of 0 stays one"


# Calibration error


def measure_slowly(right: NDArray[np.bool_], confidence: Array) -> float:
    total = 0.0
    for index in range(BINS):
        low, high = index / BINS, (index + 1) / BINS
        inside = [
            (is_right, sure)
            for is_right, sure in zip(right.tolist(), confidence.tolist(), strict=True)
            if low <= sure < high or (index == BINS - 1 and sure == 1)
        ]
        if inside:
            accuracy, mean = np.mean(inside, axis=0)
            total += len(inside) / len(right) * abs(accuracy - mean)
    return total


@pytest.mark.parametrize("classes", [2, 4])
def test_the_calibration_error_is_that_of_plain_loops(classes: int) -> None:
    y, logits = draw(700, classes=classes, temperature=2.0)
    right, confidence = decide(y, softmax(logits))
    assert expected_calibration_error(right, confidence) == pytest.approx(measure_slowly(right, confidence))
    marks, logits = draw_linked(100, classes, link=0.2, temperature=2, seed=1)
    values = sigmoid(logits)
    values[:5] = 0.5
    values[5:10, :2] = [0.0, 1.0]
    right, confidence = decide_each(marks, values)
    slow = measure_slowly(right.ravel(), confidence.ravel())
    assert expected_calibration_error(right, confidence) == pytest.approx(slow)
    assert estimate_ece(right, confidence, Resampling(samples=10)).value == pytest.approx(slow)


def test_calibrating_lowers_the_error_on_other_rows() -> None:
    y, logits = draw(20_000, temperature=3.0)
    temperature = fit_temperature(y[:10_000], logits[:10_000])
    before, after = (
        expected_calibration_error(*decide(y[10_000:], softmax(logits[10_000:] / t))) for t in (1.0, temperature)
    )
    assert before > 0.05
    assert after < 0.015


def test_a_constant_confidence_is_one_bin() -> None:
    right, confidence = np.array([True, True, True, False]), np.full(4, 0.75)
    assert expected_calibration_error(right, confidence) == 0
    assert expected_calibration_error(right, confidence, adaptive=True) == 0
    (only,) = list_reliability(right, confidence, Resampling())
    assert (only.rows, only.confidence, only.accuracy.value) == (4, 0.75, 0.75)


def test_the_reliability_diagram_has_bins_of_equally_many_rows_in_order() -> None:
    y, logits = draw(1500)
    bins = list_reliability(*decide(y, softmax(logits)), Resampling())
    assert [one.rows for one in bins] == [100] * BINS
    assert [one.confidence for one in bins] == sorted(one.confidence for one in bins)
    assert all(one.accuracy.low < one.accuracy.value <= one.accuracy.high for one in bins)


def resample_slowly(right: NDArray[np.bool_], confidence: Array, samples: int) -> Array:
    """The twin: calibration errors of texts drawn with replacement, one resample at a time."""
    rng = np.random.default_rng(1)
    draws = (rng.integers(len(right), size=len(right)) for _ in range(samples))
    return np.array([expected_calibration_error(right[rows], confidence[rows]) for rows in draws])


def test_the_interval_of_the_ece_is_that_of_resampled_texts() -> None:
    y, logits = draw(1500, temperature=2.0)
    marks, linked = draw_linked(400, 3, link=0.5, temperature=3.0, seed=16)
    for right, confidence in (decide(y, softmax(logits)), decide_each(marks, sigmoid(linked))):
        shape = (len(right), -1)
        ece = estimate_ece(right.reshape(shape), confidence.reshape(shape), Resampling(samples=1000))
        low, high = 2 * ece.value - np.quantile(resample_slowly(right, confidence, 500), [0.975, 0.025])
        assert [ece.low, ece.high] == pytest.approx([low, high], abs=0.008)


def test_models_and_means_are_resampled_together() -> None:
    y, logits = draw(300, temperature=2.0)
    pairs = [tuple(part[:, np.newaxis] for part in decide(y, softmax(logits / t))) for t in (1.0, 2.0)]
    values = np.arange(300.0)
    resampling = Resampling(samples=2000)
    first, second, mean = estimate_calibration_errors(pairs, resampling, values)
    assert first == estimate_ece(*pairs[0], resampling)
    assert second.value == estimate_ece(*pairs[1], resampling).value
    assert mean.value == values.mean()
    half = 1.96 * values.std() / np.sqrt(300)
    assert [mean.low, mean.high] == pytest.approx([values.mean() - half, values.mean() + half], abs=0.15 * half)


def count_covered(
    rounds: int, draw_one: object, truth: float, *, samples: int = 200, resampling: Resampling | None = None
) -> tuple[int, int]:
    """Count the intervals that hold the truth, and those that begin at 0."""
    held = zero = 0
    for seed in range(rounds):
        right, confidence = draw_one(seed)
        ece = estimate_ece(right, confidence, resampling or Resampling(samples=samples, seed=seed))
        assert ece.low <= ece.value <= ece.high
        held += ece.low <= truth + 1e-12 <= ece.high
        zero += ece.low == 0
    return held, zero


@pytest.mark.parametrize(
    ("rows", "classes", "temperature"),
    [
        (300, 5, 1.5),
        (1000, 2, 1.0),
        pytest.param(1000, 10, 1.0, marks=pytest.mark.slow),
        pytest.param(1000, 2, 1.6, marks=pytest.mark.slow),
    ],
)
def test_the_interval_of_the_ece_holds_the_truth(rows: int, classes: int, temperature: float) -> None:
    many = np.random.default_rng(0).normal(size=(300_000, classes)) * 2
    chances, values = softmax(many), softmax(many * temperature)
    right = chances[np.arange(len(many)), values.argmax(axis=1)]
    bins = np.minimum((values.max(axis=1) * BINS).astype(int), BINS - 1)
    truth = np.abs(np.bincount(bins, weights=right - values.max(axis=1))).sum() / len(many)

    def draw_one(seed: int) -> Decisions:
        y, logits = draw(rows, classes=classes, temperature=temperature, seed=seed)
        right, confidence = decide(y, softmax(logits))
        return right[:, np.newaxis], confidence[:, np.newaxis]

    held, zero = count_covered(100, draw_one, truth)
    assert held >= 85
    if temperature == 1:
        assert zero >= 93, "a calibrated model could have no error at all"


@pytest.mark.parametrize(
    ("link", "temperature"),
    [
        (0.7, 1.0),
        (0.0, 1.6),
        pytest.param(0.0, 1.0, marks=pytest.mark.slow),
        pytest.param(0.7, 1.6, marks=pytest.mark.slow),
        pytest.param(0.7, 2.5, marks=pytest.mark.slow),
    ],
)
def test_the_interval_of_the_ece_of_linked_decisions_holds_the_truth(link: float, temperature: float) -> None:
    steps = scipy.stats.norm.ppf((np.arange(20_001) + 0.5) / 20_001) * 2
    sure = sigmoid(np.abs(steps) * temperature)
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    truth = np.abs(np.bincount(bins, weights=sigmoid(np.abs(steps)) - sure)).sum() / len(steps)

    def draw_one(seed: int) -> Decisions:
        marks, logits = draw_linked(300, 4, link=link, temperature=temperature, seed=seed)
        return decide_each(marks, sigmoid(logits))

    held, zero = count_covered(200, draw_one, truth)
    assert held >= 170
    if temperature == 1:
        assert zero >= 186


# Of tasks


def calibrate(name: str, build_case: "BuildCase", rows: int = 400) -> tuple[CalibrationScores, float]:
    """Calibrate on some rows of a case with sharpened logits, and measure on others."""
    case = build_case(name)
    (y, _, logits), (other, _, others) = case.draw(rows), case.draw(rows, seed=1)
    calibration = case.task.fit_calibration(y, 3 * logits, coverage=0.9)
    values = case.task.activate(3 * others, calibration)
    return case.task.calibration_scores(other, values, calibration, Resampling(samples=50)), calibration.temperature


@pytest.mark.parametrize("name", ["single_label", "multi_label", "ordinal"])
def test_temperature_is_fitted_stored_and_undone(name: str, build_case: "BuildCase") -> None:
    scores, temperature = calibrate(name, build_case, 2000)
    assert temperature > 1.5
    assert scores.metrics["temperature"].value == temperature
    assert scores.metrics["ece"].value < scores.raw["ece"].value
    case = build_case(name)
    y, _, logits = case.draw(2000)
    calibration = case.task.fit_calibration(y, 3 * logits, coverage=0.9)
    assert calibration.log_loss_after < calibration.log_loss_before
    again = case.task.calibration_scores(y, case.task.activate(logits), calibration, Resampling(samples=50))
    sharp = case.task.activate(logits * temperature)
    right = (case.task.row_errors(y, sharp) == 0) if name != "multi_label" else (sharp >= 0.5) == (y == 1)
    if name != "multi_label":
        confidence = sharp[np.arange(len(y)), case.task.main_output(sharp)]
    else:
        confidence = np.maximum(sharp, 1 - sharp)
    assert again.raw["ece"].value == pytest.approx(expected_calibration_error(right, confidence), abs=2e-3)


@pytest.mark.parametrize("classes", [2, 3])
def test_brier_score_is_scikit_learns(classes: int) -> None:
    y, logits = draw(300, classes=classes)
    task, values = build_task("single_label", "abc"[:classes]), softmax(logits)
    calibration = task.fit_calibration(y, logits, coverage=0.9)
    brier = task.calibration_scores(y, values, calibration, Resampling(samples=50)).metrics["brier"]
    if classes == 2:
        assert brier.value == pytest.approx(2 * brier_score_loss(y, values[:, 1]))
    assert brier.value == pytest.approx(((values - np.eye(classes)[y]) ** 2).sum(axis=1).mean())
    assert brier.low < brier.value < brier.high


def test_the_parts_of_the_brier_score_add_up_where_each_bin_has_one_probability() -> None:
    rng = np.random.default_rng(0)
    given = rng.choice([0.1, 0.4, 0.6, 0.95], size=2000)
    y, values = (rng.random(2000) < given**1.5).astype(np.int64), np.stack([1 - given, given], axis=1)
    task = build_task("single_label", "ab")
    calibration = task.fit_calibration(y, np.log(values), coverage=0.9)
    parts = task.calibration_scores(y, values, calibration, Resampling(samples=50)).metrics
    total = parts["brier_reliability"].value - parts["brier_resolution"].value + parts["brier_uncertainty"].value
    assert total == pytest.approx(parts["brier"].value)
    assert parts["brier_uncertainty"].value == pytest.approx(2 * y.mean() * (1 - y.mean()))


def test_ten_rows_with_a_class_missing_are_measured() -> None:
    task, y = build_task("single_label", "abc"), np.zeros(10, dtype=np.int64)
    logits = np.random.default_rng(0).normal(size=(10, 3))
    calibration = task.fit_calibration(y, logits, coverage=0.9)
    scores = task.calibration_scores(y, softmax(logits), calibration, Resampling(samples=100))
    assert sum(one.rows for one in scores.reliability) == sum(scores.set_sizes) == 10
    assert all(one.accuracy.low <= one.accuracy.value <= one.accuracy.high for one in scores.reliability)


def test_difference_of_calibration_is_a_number_without_interval() -> None:
    task, y = build_task("single_label", "ab"), np.zeros(4, dtype=np.int64)
    before = np.array([[0.9, 0.1]] * 4)
    after = np.vstack([before[:3], [[0.3, 0.7]]])
    ece = task.measure_diff(y, before, after, (None, None), Resampling(samples=10))["ece"]
    assert ece.value == pytest.approx((3 * 0.1 + 0.7) / 4 - 0.1), "the last is 70 % sure of the wrong class"
    assert np.isnan([ece.low, ece.high]).all()
