"""Selective prediction: abstaining below a confidence, and conformal sets. Thresholds come from calibration rows.

Sources: Geifman and El-Yaniv (2017), "Selective Classification for Deep Neural Networks", arXiv:1705.08500 (risk and
coverage); Vovk et al. (2005), "Algorithmic Learning in a Random World", and Sadinle et al. (2019), "Least Ambiguous
Set-Valued Classifiers with Bounded Error Levels", arXiv:1609.00451 (split-conformal sets by the probability itself).
"""

from collections.abc import Sequence
from math import ceil
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lorafit.tasks.base import Array
from lorafit.tasks.records import RiskPoint

NEVER: Final = 2.0
"""A threshold that no confidence reaches."""

_ROUNDING: Final = 1e-9
"""The size of a rounding error of a share, which must not decide."""


def trace_risk(right: NDArray[np.bool_], confidence: Array, *, points: int) -> list[RiskPoint]:
    """Trace the risk-coverage curve: what accepting the most confident rows alone would give.

    Args:
        right: Shape (n,): whether each prediction is right.
        confidence: Shape (n,): its confidence, 0 to 1.
        points: How many points to keep at most, 2 or more, evenly spread over the accepted rows.

    Returns:
        The highest threshold first; the last point accepts every row. Rows of one confidence are accepted together.
    """
    order = np.argsort(-confidence, kind="stable")
    thresholds, errors = confidence[order], np.cumsum(~right[order])
    last_of_tie = np.flatnonzero(np.append(np.diff(thresholds) < 0, True))  # the end closes a tie, too
    if len(last_of_tie) > points:
        last_of_tie = last_of_tie[np.linspace(0, len(last_of_tie) - 1, points).round().astype(np.int64)]
    return [
        RiskPoint(threshold=float(thresholds[last]), accepted=int(last) + 1, errors=int(errors[last]))
        for last in last_of_tie
    ]


def choose_accept_threshold(curve: Sequence[RiskPoint], target_accuracy: float) -> float:
    """Choose the lowest confidence that is accepted so that the accepted answers have the accuracy asked for.

    One error more than was counted is assumed, (errors + 1) / (accepted + 1): a few rows without a mistake prove
    little. It is no guarantee: on new rows the accuracy is near the target on average, about as often below as above.

    Args:
        curve: From `trace_risk` on calibration rows.
        target_accuracy: The accuracy asked for, above 0 and below 1.

    Returns:
        The threshold; `NEVER` where no share of the rows is as accurate.

    Raises:
        ValueError: A target out of range.
    """
    if not 0 < target_accuracy < 1:
        raise ValueError(f"target_accuracy must lie between 0 and 1, got {target_accuracy}.")
    most = 1 - target_accuracy + _ROUNDING
    fit = [point for point in curve if (point.errors + 1) / (point.accepted + 1) <= most]
    return fit[-1].threshold if fit else NEVER


def choose_set_threshold(likelihoods: Array, coverage: float) -> float:
    """Choose the least probability that puts a class into a conformal set, so that sets hold the truth often enough.

    Over calibration and new rows drawn alike, the true class is in the set with a probability of at least `coverage`.
    That holds on average over all rows, not for every class or kind of text.

    Args:
        likelihoods: Shape (n,): probabilities of the true classes of calibration rows.
        coverage: How often the set is to hold the truth, above 0 and below 1.

    Returns:
        The threshold, 0 to 1; 0, which puts every class into every set, where there are too few rows.

    Raises:
        ValueError: A coverage out of range.
    """
    needed = conformal_rank(len(likelihoods), coverage)
    return float(np.sort(likelihoods)[::-1][needed - 1]) if needed <= len(likelihoods) else 0.0


def conformal_rank(rows: int, coverage: float) -> int:
    """Return which of the scores of calibration rows, the best first, keeps the coverage: ceil((rows + 1) * coverage).

    Args:
        rows: Number of calibration rows.
        coverage: Above 0 and below 1.

    Returns:
        The rank, counted from 1; more than `rows` where they are too few.

    Raises:
        ValueError: A coverage out of range.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage must lie between 0 and 1, got {coverage}.")
    return ceil((rows + 1) * coverage - _ROUNDING)
