import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.metrics import brier_score_loss, log_loss

from lorafit.metrics.calibration import (
    BINS,
    brier_parts,
    calibrated_log_loss,
    calibration_error,
    fit_temperature,
    row_brier_scores,
    score_calibration,
)
from lorafit.metrics.scores import softmax


def draw(rows: int, *, classes: int = 2, temperature: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return labels drawn from a model's own probabilities, and its logits too sharp by `temperature`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, classes)) * 2
    chances = softmax(logits).cumsum(axis=1)
    labels = (rng.random((rows, 1)) > chances).sum(axis=1).clip(max=classes - 1)
    return labels, logits * temperature


@pytest.mark.parametrize(("classes", "temperature"), [(2, 1.0), (2, 2.5), (5, 0.4), (3, 1.7)])
def test_the_temperature_that_made_logits_too_sharp_is_found(classes: int, temperature: float) -> None:
    labels, logits = draw(20_000, classes=classes, temperature=temperature)
    assert fit_temperature(labels, logits) == pytest.approx(temperature, rel=0.05)


def test_the_temperature_is_the_one_a_general_optimiser_finds() -> None:
    labels, logits = draw(3000, classes=4, temperature=2.0, seed=3)
    best = minimize_scalar(
        lambda log: log_loss(labels, softmax(logits / np.exp(log))), bounds=(-2, 2), method="bounded"
    )
    assert fit_temperature(labels, logits) == pytest.approx(np.exp(best.x), rel=0.01)


def test_rows_without_a_mistake_do_not_make_a_model_certain() -> None:
    labels = np.array([0, 1] * 25)
    logits = np.where(labels[:, np.newaxis] == np.arange(2), 1.0, -1.0)
    temperature = fit_temperature(labels, logits)
    confidence = softmax(logits / temperature).max()
    assert confidence == pytest.approx(1 - 1 / 52, abs=1e-3)


def test_logits_that_say_nothing_keep_temperature_1() -> None:
    assert fit_temperature(np.array([0, 1, 1]), np.full((3, 2), 0.7)) == 1


def test_a_shift_of_all_logits_of_a_row_changes_nothing() -> None:
    labels, logits = draw(500, temperature=2.0)
    shifted = logits + np.linspace(-50, 50, 500)[:, np.newaxis]
    assert fit_temperature(labels, shifted) == pytest.approx(fit_temperature(labels, logits), rel=1e-6)


def test_logits_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="finite numbers"):
        fit_temperature(np.array([0, 1]), np.array([[0.0, np.nan], [1.0, 0.0]]))


def test_the_calibrated_loss_does_not_depend_on_how_sharp_the_logits_are() -> None:
    labels, logits = draw(2000)
    losses = [calibrated_log_loss(labels, logits * sharper) for sharper in (0.5, 1, 3)]
    assert losses == pytest.approx([losses[0]] * 3, abs=1e-4)


def slow_ece(labels: np.ndarray, probabilities: np.ndarray) -> float:
    total = 0.0
    for index in range(BINS):
        low, high = index / BINS, (index + 1) / BINS
        inside = [
            (float(row.argmax() == label), row.max())
            for label, row in zip(labels, probabilities, strict=True)
            if low <= row.max() < high or (index == BINS - 1 and row.max() == 1)
        ]
        if inside:
            right, confidence = np.mean(inside, axis=0)
            total += len(inside) / len(labels) * abs(right - confidence)
    return total


@pytest.mark.parametrize("classes", [2, 4])
def test_the_calibration_error_is_that_of_plain_loops(classes: int) -> None:
    labels, logits = draw(700, classes=classes, temperature=2.0)
    probabilities = softmax(logits)
    assert calibration_error(labels, probabilities) == pytest.approx(slow_ece(labels, probabilities))


def test_calibrating_lowers_the_error_on_other_rows() -> None:
    labels, logits = draw(20_000, temperature=3.0)
    temperature = fit_temperature(labels[:10_000], logits[:10_000])
    before, after = (calibration_error(labels[10_000:], softmax(logits[10_000:] / t)) for t in (1.0, temperature))
    assert before > 0.05
    assert after < 0.015


def test_a_constant_confidence_is_one_bin() -> None:
    labels, probabilities = np.array([0, 0, 0, 1]), np.tile([0.75, 0.25], (4, 1))
    assert calibration_error(labels, probabilities) == 0
    assert calibration_error(labels, probabilities, adaptive=True) == 0
    scores = score_calibration(labels, probabilities, samples=50)
    assert [one.rows for one in scores.bins] == [4]


def test_brier_scores_are_scikit_learns() -> None:
    labels, logits = draw(300)
    probabilities = softmax(logits)
    assert row_brier_scores(labels, probabilities).mean() == pytest.approx(
        2 * brier_score_loss(labels, probabilities[:, 1])
    )
    labels, logits = draw(300, classes=3)
    truth = np.eye(3)[labels]
    assert row_brier_scores(labels, softmax(logits)).mean() == pytest.approx(
        ((softmax(logits) - truth) ** 2).sum(axis=1).mean()
    )


def test_the_parts_of_the_brier_score_add_up_where_each_bin_has_one_probability() -> None:
    rng = np.random.default_rng(0)
    said = rng.choice([0.1, 0.4, 0.6, 0.95], size=2000)
    labels = (rng.random(2000) < said**1.5).astype(np.int64)
    probabilities = np.stack([1 - said, said], axis=1)
    parts = brier_parts(labels, probabilities)
    total = parts.reliability - parts.resolution + parts.uncertainty
    assert total == pytest.approx(row_brier_scores(labels, probabilities).mean())
    assert parts.uncertainty == pytest.approx(2 * labels.mean() * (1 - labels.mean()))


def test_the_interval_of_the_ece_is_that_of_resampled_rows() -> None:
    labels, logits = draw(1500, temperature=2.0)
    probabilities, rng = softmax(logits), np.random.default_rng(1)
    slow = []
    for _ in range(400):
        rows = np.concatenate([rng.choice(np.flatnonzero(labels == one), (labels == one).sum()) for one in (0, 1)])
        slow.append(calibration_error(labels[rows], probabilities[rows]))
    point = calibration_error(labels, probabilities)
    low, high = 2 * point - np.quantile(slow, [0.975, 0.025])
    scores = score_calibration(labels, probabilities, samples=2000)
    assert scores.ece.value == point
    assert [scores.ece.low, scores.ece.high] == pytest.approx([low, high], abs=0.004)


@pytest.mark.parametrize(
    ("rows", "classes", "temperature"), [(1000, 2, 1.0), (1000, 10, 1.0), (300, 5, 1.5), (1000, 2, 1.6)]
)
def test_the_interval_of_the_ece_holds_the_truth(rows: int, classes: int, temperature: float) -> None:
    rng = np.random.default_rng(0)
    many = rng.normal(size=(300_000, classes)) * 2
    chances, said = softmax(many), softmax(many * temperature)
    right = chances[np.arange(len(many)), said.argmax(axis=1)]
    bins = np.minimum((said.max(axis=1) * BINS).astype(int), BINS - 1)
    truth = np.abs(np.bincount(bins, weights=right - said.max(axis=1))).sum() / len(many)
    held = 0
    for seed in range(100):
        labels, logits = draw(rows, classes=classes, temperature=temperature, seed=seed)
        ece = score_calibration(labels, softmax(logits), samples=200, seed=seed).ece
        assert ece.low <= ece.value <= ece.high
        held += ece.low <= truth + 1e-12 <= ece.high
    assert held >= 85


def test_the_interval_of_a_calibrated_models_ece_begins_at_0() -> None:
    lows = []
    for seed in range(100):
        labels, logits = draw(1000, seed=seed)
        lows.append(score_calibration(labels, softmax(logits), samples=200).ece.low)
    assert lows.count(0) >= 93


def test_ten_rows_with_a_class_missing_are_scored() -> None:
    labels, probabilities = np.zeros(10, dtype=np.int64), softmax(np.random.default_rng(0).normal(size=(10, 3)))
    scores = score_calibration(labels, probabilities, samples=100)
    assert sum(one.rows for one in scores.bins) == 10
    assert all(one.accuracy.low <= one.accuracy.value <= one.accuracy.high for one in scores.bins)


def test_the_reliability_curve_has_bins_of_equally_many_rows_in_order() -> None:
    labels, logits = draw(1500)
    bins = score_calibration(labels, softmax(logits), samples=50).bins
    assert [one.rows for one in bins] == [100] * BINS
    confidences = [one.confidence for one in bins]
    assert confidences == sorted(confidences)
