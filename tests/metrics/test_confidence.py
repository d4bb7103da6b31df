import numpy as np
import pytest

from lorafit.metrics.confidence import apply_temperature, fit_calibration, measure_confidence, undo_temperature
from lorafit.metrics.scores import softmax


def draw(rows: int, seed: int, *, classes: int = 2, sharper: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, classes)) * 3
    labels = (rng.random((rows, 1)) > softmax(logits).cumsum(axis=1)).sum(axis=1).clip(max=classes - 1)
    return labels, logits * sharper


@pytest.mark.parametrize("classes", [2, 3])
def test_what_is_stored_holds_on_other_rows(classes: int) -> None:
    calibration = fit_calibration(*draw(5000, 0, classes=classes), coverage=0.9, target_accuracy=0.95)
    labels, logits = draw(20_000, 1, classes=classes)
    probabilities = softmax(apply_temperature(logits, calibration.temperature))
    measured = measure_confidence(labels, probabilities, calibration, samples=200)
    assert calibration.temperature == pytest.approx(2, rel=0.1)
    assert measured.calibrated.ece.value < 0.02 < measured.raw.ece.value
    assert measured.coverage.value >= 0.89
    assert sum(measured.set_sizes) == 20_000
    abstention = measured.abstention
    assert abstention is not None
    assert abstention.accuracy is not None
    assert abstention.accuracy.value == pytest.approx(0.95, abs=0.01)
    accepted = probabilities.max(axis=1) >= abstention.accept_threshold
    assert abstention.accepted_share.value == accepted.mean()


def test_without_a_target_there_is_no_operating_point() -> None:
    calibration = fit_calibration(*draw(100, 0), coverage=0.9)
    assert calibration.accept_threshold is None
    labels, logits = draw(50, 1)
    assert measure_confidence(labels, softmax(logits), calibration, samples=50).abstention is None


def test_a_target_that_no_row_reaches_accepts_nothing() -> None:
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(2, size=200), rng.normal(size=(200, 2))
    calibration = fit_calibration(labels, logits, coverage=0.9, target_accuracy=0.999)
    probabilities = softmax(apply_temperature(logits, calibration.temperature))
    abstention = measure_confidence(labels, probabilities, calibration, samples=50).abstention
    assert abstention is not None
    assert abstention.accuracy is None
    assert abstention.accepted_share.value == 0


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_a_temperature_can_be_undone(temperature: float) -> None:
    logits = np.array([[3.0, -1.0, 0.5], [0.0, 0.0, 0.0], [40.0, -40.0, 3.0]])
    calibrated = softmax(apply_temperature(logits, temperature))
    assert undo_temperature(calibrated, temperature) == pytest.approx(softmax(logits), abs=1e-12)


def test_probabilities_of_0_stay_so_when_a_temperature_is_undone() -> None:
    assert undo_temperature(np.array([[1.0, 0.0]]), 0.5).sum() == 1


def test_the_record_can_be_written_and_read(tmp_path: object) -> None:
    calibration = fit_calibration(*draw(3000, 0), coverage=0.9, target_accuracy=0.9)
    assert len(calibration.curve) <= 1000
    assert type(calibration).model_validate_json(calibration.model_dump_json()) == calibration
    assert calibration.log_loss_after < calibration.log_loss_before
