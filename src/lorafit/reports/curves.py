"""Data behind the plots of a report: ROC and precision-recall curves, confused classes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ranking:
    """How well the probability of one class separates its rows from the others.

    Attributes:
        false_positive_rate: Shape (m,), rising from 0 to 1, for falling thresholds.
        recall: Shape (m,): the true positive rate at the same thresholds.
        precision: Shape (m,): the same for precision; 1 where no row is above the threshold.
        roc_area: Area under the ROC curve: 0.5 by chance, 1 at best.
        average_precision: Precision averaged over the steps of recall; by chance, the share of the class.
    """

    false_positive_rate: NDArray[np.float64]
    recall: NDArray[np.float64]
    precision: NDArray[np.float64]
    roc_area: float
    average_precision: float


@dataclass(frozen=True)
class Confusion:
    """A class predicted as another.

    Attributes:
        true: Id of the class.
        predicted: Id of the other.
        rows: How often.
        share: That as a share of the class's rows.
    """

    true: int
    predicted: int
    rows: int
    share: float


def rank_class(is_class: NDArray[np.bool_], scores: NDArray[np.float64]) -> Ranking | None:
    """Compute the curves of one class against the rest with scikit-learn; rows of equal probability are one step.

    Args:
        is_class: Shape (n,): whether a row is of the class.
        scores: Shape (n,): its probability.

    Returns:
        The curves; None where all rows are of the class or none is.
    """
    from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

    if is_class.all() or not is_class.any():
        return None
    false_positive_rate, recall, _ = roc_curve(is_class, scores, drop_intermediate=False)
    precision = precision_recall_curve(is_class, scores)[0][::-1]
    return Ranking(
        false_positive_rate=false_positive_rate,
        recall=recall,
        precision=precision,
        roc_area=float(auc(false_positive_rate, recall)),
        average_precision=float(average_precision_score(is_class, scores)),
    )


def rank_classes(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> list[Ranking | None]:
    """Compute the curves of every class against the rest.

    Args:
        labels: Shape (n,): true class ids.
        probabilities: Shape (n, classes).

    Returns:
        One entry per class; None for a class that no row has, or all have.
    """
    return [rank_class(labels == number, scores) for number, scores in enumerate(probabilities.T)]


def average_roc(
    rankings: list[Ranking | None], *, points: int = 101
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average the ROC curves of several classes with equal weights (macro average).

    Args:
        rankings: From `rank_classes`; at least one is not None.
        points: Number of false positive rates at which they are averaged.

    Returns:
        False positive rates from 0 to 1, and the mean recall at each; both of shape (points,).
    """
    rates = np.linspace(0, 1, points)
    recalls = [np.interp(rates, one.false_positive_rate, one.recall) for one in rankings if one is not None]
    return rates, np.mean(recalls, axis=0)


def thin(*arrays: NDArray[np.float64], most: int = 200) -> tuple[NDArray[np.float64], ...]:
    """Keep at most so many points of a curve, evenly over its length, both ends among them.

    Args:
        *arrays: Coordinates, each of shape (n,), the first one rising.
        most: How many points, at least 2.

    Returns:
        The coordinates of the points kept.
    """
    if len(arrays[0]) <= most:
        return arrays
    steps = np.concatenate(([0.0], np.cumsum(sum(np.abs(np.diff(array)) for array in arrays))))
    kept = np.unique(np.searchsorted(steps, np.linspace(0, steps[-1], most)))
    return tuple(array[kept] for array in arrays)


def find_confusions(matrix: list[list[int]], *, most: int = 20) -> list[Confusion]:
    """Find the pairs of classes that were confused most often.

    Args:
        matrix: Row = true class, column = predicted class.
        most: How many pairs at most.

    Returns:
        The pairs, most rows first.
    """
    pairs = [
        Confusion(true, predicted, count, count / sum(row))
        for true, row in enumerate(matrix)
        for predicted, count in enumerate(row)
        if count and predicted != true
    ]
    return sorted(pairs, key=lambda pair: (-pair.rows, -pair.share))[:most]
