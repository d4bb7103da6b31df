"""Temperature scaling, and how far confidence holds: calibration error, Brier score, reliability diagram.

Sources: Guo et al. (2017), "On Calibration of Modern Neural Networks", arXiv:1706.04599 (temperature, ECE); Nguyen and
O'Connor (2015), arXiv:1508.05154 (bins of equally many rows).

A decision is what confidence is about: the most probable class of a text, or whether it has a label, so that a text may
hold several. Functions take decisions as two arrays: whether they are right, and with what confidence they were made.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lorafit.tasks.base import Array, share_of_rows
from lorafit.tasks.metrics import softmax
from lorafit.tasks.records import Estimate, ReliabilityBin, Resampling
from lorafit.tasks.statistics import percentile_interval, resample_row_sums

BINS: Final = 15
_COLDEST, _HOTTEST, _HALVINGS = 0.05, 20.0, 40


def fit_temperature(ids: NDArray[np.int64], logits: Array) -> float:
    """Find the temperature with the lowest log loss.

    The loss is convex in the temperature's inverse, so that halving the interval where its slope changes sign finds it.
    Each row's target leaves a share of 1 / (n + 2) to the other classes, as Platt (1999) has it: without a single
    mistake among the rows, the best temperature would be 0.

    Args:
        ids: Shape (n,), true class ids, n at least 1.
        logits: Shape (n, classes).

    Returns:
        The temperature, 0.05 to 20; 1 where it makes no difference.

    Raises:
        ValueError: Other shapes, or logits that are not finite numbers.
    """
    values = np.asarray(logits, dtype=np.float64)
    if len(values) != len(ids) or not len(ids) or not np.isfinite(values).all():
        raise ValueError(f"Logits must be {len(ids)} rows of finite numbers, got the shape {values.shape}.")
    values = values - values.mean(axis=1, keepdims=True)
    rest = 1 / (len(values) + 2)
    likely = values[np.arange(len(values)), ids]
    target = likely * (1 - rest) - rest * likely / max(1, values.shape[1] - 1)  # the others' logits sum to -likely
    low, high = np.log(1 / _HOTTEST), np.log(1 / _COLDEST)
    if not np.ptp(values):
        return 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        slope = ((softmax(np.exp(middle) * values) * values).sum(axis=1) - target).mean()
        low, high = (middle, high) if slope < 0 else (low, middle)
    return float(np.exp(-(low + high) / 2))


def fit_binary_temperature(marks: NDArray[np.bool_], logits: Array) -> float:
    """Find the temperature of logits that each stand for a decision of their own: `fit_temperature` of n * m rows.

    Args:
        marks: Shape (n, m), whether each is true.
        logits: Shape (n, m).

    Returns:
        The temperature, 0.05 to 20; 1 where it makes no difference.

    Raises:
        ValueError: Other shapes, or logits that are not finite numbers.
    """
    values = np.asarray(logits, dtype=np.float64)
    if values.shape != marks.shape:
        raise ValueError(f"Logits must have the shape {marks.shape}, got {values.shape}.")
    flat = values.ravel()
    return fit_temperature(marks.ravel().astype(np.int64), np.stack([np.zeros_like(flat), flat], axis=1))


def undo_temperature(probabilities: Array, temperature: float) -> Array:
    """Return the probabilities at temperature 1 that became these, both of shape (n, classes)."""
    smallest = np.finfo(np.float64).tiny
    return softmax(temperature * np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), smallest)))


def expected_calibration_error(right: NDArray[np.bool_], confidence: Array, *, adaptive: bool = False) -> float:
    """Compute |accuracy - confidence|, averaged over bins by their rows.

    Args:
        right: Of any shape: whether each decision is right.
        confidence: Same shape: its confidence, 0 to 1.
        adaptive: Bins of equally many rows instead of equal width; rows of one confidence stay together.

    Returns:
        0 to 1.
    """
    bins = bin_adaptively(confidence.ravel()) if adaptive else _bin_evenly(confidence.ravel())
    gaps = np.bincount(bins, weights=(right - confidence).ravel(), minlength=BINS)
    return float(np.abs(gaps).sum() / right.size)


def estimate_calibration_errors(
    decisions: Sequence[tuple[NDArray[np.bool_], Array]], resampling: Resampling, *means: Array
) -> list[Estimate]:
    """Estimate the expected calibration error of several models on the same texts, 15 bins of equal width.

    Chance makes every measured ECE, and every resampled one still more, larger than the truth. So the interval is the
    basic bootstrap one (Efron and Tibshirani 1993, chapter 13), which takes that off again, and it begins at 0 where a
    model whose confidence is right could well have an ECE as large (Vaicenavicius et al. 2019, arXiv:1902.06977). What
    such a model would get is taken from the resampled bins, too, less what the bins hold: decisions about one text go
    wrong together, which draws one by one would not show.

    Args:
        decisions: Of each model, shape (n, m): whether each of the m decisions about n texts is right, and with what
            confidence, 0 to 1, it was made.
        resampling: Of whole texts, or groups of them, the same for all.
        *means: Values of shape (n,), whose means are estimated from the same resamples.

    Returns:
        The errors, 0 to 1, with their intervals; then the means with percentile intervals.
    """
    gaps = [_sum_gaps(right, confidence) for right, confidence in decisions]
    columns = [*gaps, *(values[:, np.newaxis] / len(values) for values in means)]
    rng = np.random.default_rng(resampling.seed)
    drawn = resample_row_sums(np.concatenate(columns, axis=1), resampling.samples, rng, groups=resampling.groups)
    parts = np.split(drawn, np.cumsum([column.shape[1] for column in columns])[:-1], axis=1)
    found = [_bound_error(one.sum(axis=0), part, resampling.level) for one, part in zip(gaps, parts, strict=False)]
    for values, part in zip(means, parts[len(gaps) :], strict=True):
        point = float(values.mean())
        low, high = percentile_interval(part[:, 0], resampling.level, point=point)
        found.append(Estimate(value=point, low=float(low), high=float(high)))
    return found


def list_reliability(right: NDArray[np.bool_], confidence: Array, resampling: Resampling) -> list[ReliabilityBin]:
    """List the bins of the reliability diagram, of equally many of n decisions, lowest confidence first."""
    bins, listed = bin_adaptively(confidence), []
    for index in np.unique(bins):
        inside = bins == index
        accuracy = share_of_rows(right[inside], resampling.select(inside))
        listed.append(
            ReliabilityBin(rows=int(inside.sum()), confidence=float(confidence[inside].mean()), accuracy=accuracy)
        )
    return listed


def bin_adaptively(confidence: Array) -> NDArray[np.int64]:
    """Return the bin of each of n confidences, bins of equally many; equal ones stay together."""
    edges = np.quantile(confidence, np.linspace(0, 1, BINS + 1)[1:-1])
    return np.searchsorted(edges, confidence, side="left")


def _bin_evenly(confidence: Array) -> NDArray[np.int64]:
    # By way of 20 cells a bin, as multiples of a cell's width are hit by the same confidences on every machine.
    cells = BINS * 20
    return np.minimum((confidence * cells).astype(np.int64), cells - 1) // 20


def _sum_gaps(right: NDArray[np.bool_], confidence: Array) -> Array:
    """Return what each text adds to the gaps of the bins, shape (n, bins), as a share of all decisions."""
    place = np.arange(len(right))[:, np.newaxis] * BINS + _bin_evenly(confidence)
    sums = np.bincount(place.ravel(), weights=(right - confidence).ravel(), minlength=len(right) * BINS)
    return np.asarray(sums.reshape(len(right), BINS) / right.size)


def _bound_error(gaps: Array, drawn: Array, level: float) -> Estimate:
    """Put an interval around the sum of the gaps, shape (bins,), from resamples of them, (samples, bins)."""
    point = float(np.abs(gaps).sum())
    low, high = percentile_interval(np.abs(drawn).sum(axis=1), level)
    usual = percentile_interval(np.abs(drawn - gaps).sum(axis=1), level)[1]
    return Estimate(
        value=point,
        low=0.0 if point <= usual else min(point, max(0.0, 2 * point - float(high))),
        high=max(point, 2 * point - float(low)),
    )
