"""Whether a confidence can be believed, and how it is made so: temperature scaling, calibration error, Brier score.

Sources: Guo et al. (2017), "On Calibration of Modern Neural Networks", arXiv:1706.04599 (temperature, ECE); Nguyen and
O'Connor (2015), arXiv:1508.05154 (bins of equally many rows); Murphy (1973), "A New Vector Partition of the Probability
Score", Journal of Applied Meteorology 12.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lorafit.evidence import CalibrationBin, CalibrationScores, Estimate
from lorafit.metrics.scores import check_labels, check_probabilities, predict_labels, row_log_losses, softmax
from lorafit.metrics.uncertainty import estimate_mean, percentile_interval, resample_confusion, wilson_interval

__all__ = [
    "BrierParts",
    "brier_parts",
    "calibrated_log_loss",
    "calibration_error",
    "fit_temperature",
    "row_brier_scores",
    "score_calibration",
]

BINS: Final = 15
_COLDEST, _HOTTEST, _HALVINGS = 0.05, 20.0, 40
_BLOCK: Final = 100
_CELLS_PER_BIN: Final = 20
"""Confidence is resampled in so many cells a bin: a 300th apart, which moves an ECE by less than can be measured."""


class BrierParts(NamedTuple):
    """The parts of a Brier score: reliability - resolution + uncertainty, but for the spread inside the bins."""

    reliability: float
    resolution: float
    uncertainty: float


def fit_temperature(labels: ArrayLike, logits: ArrayLike) -> float:
    """Find the temperature with the lowest log loss.

    The loss is convex in the temperature's inverse, so that halving the interval where its slope changes sign finds it.
    Each row's target leaves a share of 1 / (n + 2) to the other classes, as Platt (1999) has it: without a single
    mistake among the rows, the best temperature would be 0.

    Args:
        labels: Shape (n,), true class ids, n at least 1.
        logits: Shape (n, n_classes).

    Returns:
        The temperature, 0.05 to 20; 1 where it makes no difference.

    Raises:
        ValueError: No rows, class ids out of range, or logits that are not finite numbers.
    """
    values = np.asarray(logits, dtype=np.float64)
    true_ids = check_labels(labels, values.shape[1])
    if len(values) != len(true_ids) or not np.isfinite(values).all():
        raise ValueError(f"Logits must be {len(true_ids)} rows of finite numbers, got the shape {values.shape}.")
    values = values - values.mean(axis=1, keepdims=True)
    rest = 1 / (len(values) + 2)
    likely = values[np.arange(len(values)), true_ids]
    target = likely * (1 - rest) - rest * likely / max(1, values.shape[1] - 1)  # the others' logits sum to -likely
    low, high = np.log(1 / _HOTTEST), np.log(1 / _COLDEST)
    if not np.ptp(values):
        return 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        slope = ((softmax(np.exp(middle) * values) * values).sum(axis=1) - target).mean()
        low, high = (middle, high) if slope < 0 else (low, middle)
    return float(np.exp(-(low + high) / 2))


def calibrated_log_loss(labels: ArrayLike, logits: ArrayLike) -> float:
    """Log loss after the temperature that suits these very rows: what a model knows, whatever its confidence.

    Checkpoints are compared by it, as Berta et al. (2025), "Rethinking Early Stopping: Refine, Then Calibrate",
    arXiv:2501.19195, have it: the temperature is fitted later anyway, on rows of its own.

    Args:
        labels: Shape (n,), true class ids, n at least 1.
        logits: Shape (n, n_classes).

    Returns:
        Nats a row.
    """
    return float(row_log_losses(labels, softmax(np.asarray(logits) / fit_temperature(labels, logits))).mean())


def calibration_error(labels: ArrayLike, probabilities: ArrayLike, *, adaptive: bool = False) -> float:
    """Expected calibration error of the most probable class: |accuracy - confidence|, averaged over bins by their rows.

    Args:
        labels: Shape (n,), true class ids, n at least 1.
        probabilities: Shape (n, n_classes), rows as in `labels`.
        adaptive: Bins of equally many rows instead of equal width; rows of one confidence stay together.

    Returns:
        0 to 1.
    """
    right, confidence = _judge(labels, probabilities)
    bins = _adaptive_bins(confidence) if adaptive else _cells(confidence) // _CELLS_PER_BIN
    gaps = np.bincount(bins, weights=right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(right))


def row_brier_scores(labels: ArrayLike, probabilities: ArrayLike) -> NDArray[np.float64]:
    """Squared distance of each row's probabilities from the truth; their mean is the Brier score.

    Args:
        labels: Shape (n,), true class ids.
        probabilities: Shape (n, n_classes), rows as in `labels`.

    Returns:
        Shape (n,), 0 to 2: summed over the classes, twice scikit-learn's `brier_score_loss` of two classes.
    """
    values = check_probabilities(probabilities, np.size(labels))
    true_ids = check_labels(labels, values.shape[1])
    truth = values[np.arange(len(values)), true_ids]
    return np.asarray((values**2).sum(axis=1) - 2 * truth + 1)


def brier_parts(labels: ArrayLike, probabilities: ArrayLike) -> BrierParts:
    """Take the Brier score apart, class by class in bins of equally many rows, summed over the classes.

    Args:
        labels: Shape (n,), true class ids, n at least 1.
        probabilities: Shape (n, n_classes), rows as in `labels`.

    Returns:
        The parts.
    """
    values = check_probabilities(probabilities, np.size(labels))
    true_ids = check_labels(labels, values.shape[1])
    total = np.zeros(3)
    for index in range(values.shape[1]):
        bins, happened = _adaptive_bins(values[:, index]), true_ids == index
        rows = np.bincount(bins, minlength=BINS)
        filled = rows > 0
        share = np.bincount(bins, weights=happened, minlength=BINS)[filled] / rows[filled]
        said = np.bincount(bins, weights=values[:, index], minlength=BINS)[filled] / rows[filled]
        weight, base = rows[filled] / len(values), happened.mean()
        total += [(weight * (said - share) ** 2).sum(), (weight * (share - base) ** 2).sum(), base * (1 - base)]
    return BrierParts(*total.tolist())


def score_calibration(
    labels: ArrayLike, probabilities: ArrayLike, *, confidence_level: float = 0.95, samples: int = 2000, seed: int = 0
) -> CalibrationScores:
    """Score how far a model's confidence can be believed.

    Chance alone makes every measured ECE larger than the truth. So its interval is the basic bootstrap one (Efron and
    Tibshirani 1993, chapter 13), which takes that off again, and it begins at 0 where a model whose confidence is right
    could well have an ECE as large (Vaicenavicius et al. 2019, arXiv:1902.06977).

    Args:
        labels: Shape (n,), true class ids, n at least 1.
        probabilities: Shape (n, n_classes), rows as in `labels`.
        confidence_level: Level of the intervals, above 0 and below 1.
        samples: Resamples behind each interval, at least 1.
        seed: Seed of the resampling.

    Returns:
        The scores.
    """
    values = check_probabilities(probabilities, np.size(labels))
    true_ids, rng = check_labels(labels, values.shape[1]), np.random.default_rng(seed)
    right, confidence = _judge(true_ids, values)
    point = calibration_error(true_ids, values)
    parts = brier_parts(true_ids, values)
    return CalibrationScores(
        ece=_estimate_ece(point, true_ids, right, confidence, samples, rng, confidence_level),
        adaptive_ece=calibration_error(true_ids, values, adaptive=True),
        brier=estimate_mean(row_brier_scores(true_ids, values), true_ids, samples, rng, confidence_level),
        brier_reliability=parts.reliability,
        brier_resolution=parts.resolution,
        brier_uncertainty=parts.uncertainty,
        bins=_list_bins(right, confidence, confidence_level),
    )


def _judge(labels: ArrayLike, probabilities: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return which rows are right, and how confident the model was of each."""
    values = check_probabilities(probabilities, np.size(labels))
    true_ids = check_labels(labels, values.shape[1])
    return predict_labels(values) == true_ids, values.max(axis=1)


def _cells(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the cell of each confidence; `_CELLS_PER_BIN` of them make a bin of equal width."""
    count = BINS * _CELLS_PER_BIN
    return np.minimum((confidence * count).astype(np.int64), count - 1)


def _adaptive_bins(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    edges = np.quantile(confidence, np.linspace(0, 1, BINS + 1)[1:-1])
    return np.searchsorted(edges, confidence, side="left")


def _estimate_ece(
    point: float,
    labels: NDArray[np.int64],
    right: NDArray[np.bool_],
    confidence: NDArray[np.float64],
    samples: int,
    rng: np.random.Generator,
    level: float,
) -> Estimate:
    """Resample within each true class, and draw what a model whose confidence is right would get, cell by cell."""
    used, cell = np.unique(_cells(confidence), return_inverse=True)
    in_bin = used[:, np.newaxis] // _CELLS_PER_BIN == np.arange(BINS)
    rows = np.bincount(cell)
    said = np.bincount(cell, weights=confidence)
    classes, row = np.unique(labels, return_inverse=True)
    place = (row * len(used) + cell) * 2 + right
    counts = np.bincount(place, minlength=len(classes) * len(used) * 2).reshape(len(classes), -1)
    gap = np.stack([-said / rows, 1 - said / rows], axis=1).reshape(-1, 1) * np.repeat(in_bin, 2, axis=0)
    drawn, by_chance = [], []
    for start in range(0, samples, _BLOCK):
        size = min(_BLOCK, samples - start)
        drawn.append(np.abs(resample_confusion(counts, size, rng).sum(axis=1) @ gap).sum(axis=1))
        correct = rng.binomial(rows, np.minimum(said / rows, 1), size=(size, len(used)))
        by_chance.append(np.abs((correct - said) @ in_bin).sum(axis=1))
    low, high = percentile_interval(np.concatenate(drawn) / len(labels), level)
    usual = percentile_interval(np.concatenate(by_chance) / len(labels), level)[1]
    return Estimate(
        value=point,
        low=0.0 if point <= usual else max(0.0, 2 * point - float(high)),
        high=max(point, 2 * point - float(low)),
    )


def _list_bins(
    right: NDArray[np.bool_], confidence: NDArray[np.float64], confidence_level: float
) -> list[CalibrationBin]:
    bins, listed = _adaptive_bins(confidence), []
    for index in np.unique(bins):
        inside = bins == index
        rows, correct = int(inside.sum()), int(right[inside].sum())
        listed.append(
            CalibrationBin(
                rows=rows,
                confidence=float(confidence[inside].mean()),
                accuracy=wilson_interval(correct, rows, confidence_level),
            )
        )
    return listed
