"""Labels that are probably wrong, told from out-of-sample predictions.

Confident learning (Northcutt et al. 2021, arXiv:1911.00068, by cleanlab) finds rows that a model confidently gives
another label: with more than the probability that it gives that label on average where rows have it. A number is
suspect where its error is far outside the spread of all errors: a modified z-score above 3.5 (Iglewicz and Hoaglin
1993, "How to Detect and Handle Outliers").
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from lorafit.system.extras import require

Array = NDArray[np.float64]

_LARGEST_Z_SCORE: Final = 3.5
_SPREAD_OF_MEDIAN: Final = 1.4826
"""Standard deviation of normally distributed errors, as a multiple of their median distance from the median."""


def suspect_classes(ids: NDArray[np.int64], probabilities: Array) -> NDArray[np.bool_]:
    """Tell which rows probably have a wrong class.

    Args:
        ids: Shape (n,), the class that each row is said to have.
        probabilities: Shape (n, classes).

    Returns:
        Shape (n,).
    """
    filters = require("cleanlab.filter", extra="check", purpose="finding label errors")
    suspect: NDArray[np.bool_] = filters.find_label_issues(ids, probabilities, filter_by="confident_learning", n_jobs=1)
    return suspect


def suspect_marks(marks: NDArray[np.int64], probabilities: Array) -> NDArray[np.bool_]:
    """Tell which rows probably have a wrong label, or lack one, each label judged by itself.

    Args:
        marks: Shape (n, labels), an indicator matrix.
        probabilities: Same shape.

    Returns:
        Shape (n,).
    """
    suspect = np.zeros(len(marks), dtype=bool)
    for given, probability in zip(marks.T, probabilities.T, strict=True):
        if np.ptp(given):
            suspect |= suspect_classes(given, np.stack([1 - probability, probability], axis=1))
    return suspect


def score_deviations(errors: Array) -> Array:
    """Return the modified z-scores of n errors: how far each is from their median, in robust standard deviations."""
    distances = np.abs(errors - np.median(errors))
    spread = _SPREAD_OF_MEDIAN * np.median(distances)
    scores: Array = distances / (spread or distances.mean() or 1.0)  # where more than half of the errors are equal
    return scores


def suspect_numbers(errors: Array) -> NDArray[np.bool_]:
    """Tell which of n rows probably have a wrong number, by how far off predictions are; shape (n,)."""
    return np.asarray(score_deviations(errors) > _LARGEST_Z_SCORE)
