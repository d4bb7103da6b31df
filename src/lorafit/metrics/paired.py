"""What changes from one model to another on the same rows: scores, flips, calibration.

Both models' scores are resampled together: each resample takes the same rows for both, within each true class, as in
`lorafit.metrics.uncertainty`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lorafit.evidence import Estimate
from lorafit.metrics.calibration import calibration_error
from lorafit.metrics.scores import check_pair, confusion_matrix, macro_f1, mcc, predict_labels
from lorafit.metrics.uncertainty import percentile_interval, wilson_interval

__all__ = ["Flips", "adjust_p_values", "estimate_flips", "estimate_score_differences", "measure_ece_difference"]

_CELLS: Final = 2**21
"""Numbers held at a time: 16 MB, which bound the memory whatever the data."""

_SCORES: Final[dict[str, Callable[[NDArray[np.int64]], NDArray[np.float64]]]] = {"macro_f1": macro_f1, "mcc": mcc}


class Flips(NamedTuple):
    """Rows whose label changes, as shares of all rows with Wilson's interval, which is never of width 0.

    Attributes:
        negative: Rows that the first model had right and the second has wrong (negative flips: Yan et al. 2021,
            "Positive-Congruent Training", arXiv:2011.09161).
        churn: Rows that get another label, right or wrong (churn: Milani Fard et al. 2016, "Launch and Iterate").
    """

    negative: Estimate
    churn: Estimate


def estimate_flips(labels: ArrayLike, before: ArrayLike, after: ArrayLike, *, confidence_level: float = 0.95) -> Flips:
    """Estimate on how many rows the second model does not say what the first did.

    Args:
        labels: Shape (n,), true class ids, n at least 1.
        before: Probabilities of the first model, shape (n, n_classes), rows as in `labels`.
        after: Probabilities of the second model, same shape.
        confidence_level: Level of the intervals, above 0 and below 1.

    Returns:
        The shares.

    Raises:
        ValueError: As `lorafit.metrics.uncertainty.compare_paired`.
    """
    true_ids, first, second = check_pair(labels, before, after)
    was, now = predict_labels(first), predict_labels(second)
    lost, changed = int(((was == true_ids) & (now != true_ids)).sum()), int((was != now).sum())
    return Flips(*(wilson_interval(count, len(true_ids), confidence_level) for count in (lost, changed)))


def estimate_score_differences(
    labels: ArrayLike,
    before: ArrayLike,
    after: ArrayLike,
    *,
    confidence_level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Estimate how macro F1 and Matthews correlation differ, with paired percentile bootstrap intervals.

    The scores depend on how often each pair of predictions occurs in a class, which is drawn at once.

    Args:
        labels: Shape (n,), true class ids, n at least 1.
        before: Probabilities of the first model, shape (n, n_classes), rows as in `labels`.
        after: Probabilities of the second model, same shape.
        confidence_level: Level of the intervals, above 0 and below 1.
        samples: Resamples behind each interval, at least 1.
        seed: Seed of the resampling.

    Returns:
        `macro_f1` and `mcc`, each the second minus the first.

    Raises:
        ValueError: As `lorafit.metrics.uncertainty.compare_paired`.
    """
    true_ids, first, second = check_pair(labels, before, after)
    classes, (was, now) = first.shape[1], (predict_labels(first), predict_labels(second))
    drawn: dict[str, list[NDArray[np.float64]]] = {name: [] for name in _SCORES}
    for old, new in _resample_pairs(true_ids, was, now, classes, samples, np.random.default_rng(seed)):
        for name, score in _SCORES.items():
            drawn[name].append(score(new) - score(old))
    old, new = (confusion_matrix(true_ids, predicted, classes) for predicted in (was, now))
    estimates = {}
    for name, score in _SCORES.items():
        low, high = percentile_interval(np.concatenate(drawn[name]), confidence_level)
        estimates[name] = Estimate(value=float(score(new) - score(old)), low=float(low), high=float(high))
    return estimates


def measure_ece_difference(labels: ArrayLike, before: ArrayLike, after: ArrayLike) -> float:
    """Measure how the expected calibration error differs.

    There is no interval. Chance makes the error of nearly every resample larger, and the more so the better a model is
    calibrated. So where one of the two is calibrated this does not cancel in the difference, and bootstrap intervals,
    percentile or basic, hold the true difference far less often than they say.

    Args:
        labels: Shape (n,), true class ids, n at least 1.
        before: Probabilities of the first model, shape (n, n_classes), rows as in `labels`.
        after: Probabilities of the second model, same shape.

    Returns:
        The second model's minus the first's, -1 to 1.

    Raises:
        ValueError: As `lorafit.metrics.uncertainty.compare_paired`.
    """
    true_ids, first, second = check_pair(labels, before, after)
    return calibration_error(true_ids, second) - calibration_error(true_ids, first)


def adjust_p_values(p_values: Sequence[float]) -> list[float]:
    """Raise p-values so that among all of them a chance finding is as rare as in one test.

    Source: Holm (1979), "A Simple Sequentially Rejective Multiple Test Procedure", Scand. J. of Statistics 6.

    Args:
        p_values: Any number of p-values, each 0 to 1, of tests that may depend on each other.

    Returns:
        The adjusted ones in the same order, 0 to 1.
    """
    adjusted, highest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def _blocks(samples: int, width: int) -> Iterator[slice]:
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}.")
    step = max(1, _CELLS // width)
    for start in range(0, samples, step):
        yield slice(start, min(start + step, samples))


def _resample_pairs(
    labels: NDArray[np.int64],
    was: NDArray[np.int64],
    now: NDArray[np.int64],
    classes: int,
    samples: int,
    rng: np.random.Generator,
) -> Iterator[NDArray[np.int64]]:
    """Yield confusion matrices of both models that belong together, shape (2, block, classes, classes)."""
    cells = []
    for label in np.unique(labels):
        rows = labels == label
        pairs, counts = np.unique(was[rows] * classes + now[rows], return_counts=True)
        columns = [predicted[:, np.newaxis] == np.arange(classes) for predicted in (pairs // classes, pairs % classes)]
        cells.append((label, counts, [column.astype(np.float64) for column in columns]))
    for block in _blocks(samples, classes**2):
        matrices = np.zeros((2, block.stop - block.start, classes, classes), dtype=np.int64)
        for label, counts, columns in cells:
            drawn = rng.multinomial(counts.sum(), counts / counts.sum(), size=block.stop - block.start)
            for matrix, column in zip(matrices, columns, strict=True):
                matrix[:, label] = drawn @ column
        yield matrices
