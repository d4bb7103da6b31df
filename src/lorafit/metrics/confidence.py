"""From calibration rows to the record that is stored with what was trained; and how it does on other rows."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lorafit.evidence import AbstentionScores, CalibrationRecord, ConfidenceRecord, Estimate
from lorafit.metrics.calibration import fit_temperature, score_calibration
from lorafit.metrics.scores import check_labels, predict_labels, row_log_losses, softmax
from lorafit.metrics.selective import choose_accept_threshold, choose_set_threshold, conformal_sets, trace_risk
from lorafit.metrics.uncertainty import wilson_interval

__all__ = ["apply_temperature", "fit_calibration", "measure_confidence", "undo_temperature"]

_STORED_POINTS, _SHOWN_POINTS = 1000, 200


def fit_calibration(
    labels: ArrayLike, logits: ArrayLike, *, coverage: float, target_accuracy: float | None = None
) -> CalibrationRecord:
    """Fit temperature, conformal sets and operating point to rows that neither trained nor chose anything.

    Args:
        labels: Shape (n,), true class ids, n at least 1.
        logits: Shape (n, n_classes), the model's raw outputs.
        coverage: How often a text's set of labels is to hold the true one, above 0 and below 1.
        target_accuracy: Accuracy that accepted answers are to have, above 0 and below 1, or None.

    Returns:
        The record.
    """
    temperature = fit_temperature(labels, logits)
    raw, calibrated = softmax(logits), softmax(apply_temperature(logits, temperature))
    curve = trace_risk(labels, calibrated, points=_STORED_POINTS)
    return CalibrationRecord(
        rows=len(raw),
        temperature=temperature,
        log_loss_before=float(row_log_losses(labels, raw).mean()),
        log_loss_after=float(row_log_losses(labels, calibrated).mean()),
        coverage=coverage,
        set_threshold=choose_set_threshold(labels, calibrated, coverage),
        curve=curve,
        target_accuracy=target_accuracy,
        accept_threshold=None if target_accuracy is None else choose_accept_threshold(curve, target_accuracy),
    )


def apply_temperature(logits: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Divide logits of shape (n, n_classes) by the temperature."""
    return np.asarray(logits, dtype=np.float64) / temperature


def undo_temperature(probabilities: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Return the probabilities at temperature 1 that became these, both of shape (n, n_classes)."""
    smallest = np.finfo(np.float64).tiny
    return softmax(temperature * np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), smallest)))


def measure_confidence(
    labels: ArrayLike,
    probabilities: NDArray[np.float64],
    calibration: CalibrationRecord,
    *,
    confidence_level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> ConfidenceRecord:
    """Measure on other rows whether the calibrated confidence, the sets and the operating point hold.

    Args:
        labels: Shape (n,), true class ids, n at least 1.
        probabilities: Shape (n, n_classes), calibrated.
        calibration: What they were calibrated with.
        confidence_level: Level of the intervals, above 0 and below 1; those of shares are Wilson's.
        samples: Resamples behind the bootstrap intervals, at least 1.
        seed: Seed of the resampling.

    Returns:
        The record.
    """
    true_ids = check_labels(labels, probabilities.shape[1])
    sets = conformal_sets(probabilities, calibration.set_threshold)
    held = int(sets[np.arange(len(sets)), true_ids].sum())
    raw, calibrated = (
        score_calibration(true_ids, values, confidence_level=confidence_level, samples=samples, seed=seed)
        for values in (undo_temperature(probabilities, calibration.temperature), probabilities)
    )
    return ConfidenceRecord(
        calibration_rows=calibration.rows,
        temperature=calibration.temperature,
        raw=raw,
        calibrated=calibrated,
        coverage_asked=calibration.coverage,
        coverage=wilson_interval(held, len(sets), confidence_level),
        set_sizes=np.bincount(sets.sum(axis=1), minlength=sets.shape[1] + 1)[1:].tolist(),
        risk_coverage=trace_risk(true_ids, probabilities, points=_SHOWN_POINTS),
        abstention=_measure_abstention(true_ids, probabilities, calibration, confidence_level),
    )


def _measure_abstention(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], calibration: CalibrationRecord, level: float
) -> AbstentionScores | None:
    if calibration.target_accuracy is None or calibration.accept_threshold is None:
        return None
    accepted = probabilities.max(axis=1) >= calibration.accept_threshold
    right = int((predict_labels(probabilities) == labels)[accepted].sum())
    count = int(accepted.sum())
    accuracy: Estimate | None = wilson_interval(right, count, level) if count else None
    return AbstentionScores(
        target_accuracy=calibration.target_accuracy,
        accept_threshold=calibration.accept_threshold,
        accepted_share=wilson_interval(count, len(labels), level),
        accuracy=accuracy,
    )
