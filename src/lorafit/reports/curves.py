"""Curves and lists behind the figures of a report: ROC, precision and recall, confused classes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Confusion",
    "Ranking",
    "average_roc",
    "find_confusions",
    "rank_class",
    "rank_classes",
    "thin",
]


@dataclass(frozen=True)
class Ranking:
    """How well the probability of one class tells its rows from the others.

    Attributes:
        false_positive_rate: Shape (m,), rising from 0 to 1: share of the other rows above a threshold.
        recall: Shape (m,): share of the class's rows above it; the true positive rate.
        precision: Shape (m,): share of the class's rows among those above it; 1 where there are none.
        roc_area: Area under recall over false positive rate: 0.5 by chance, 1 at best.
        average_precision: Precision averaged over the steps of recall; by chance, the share of the class.
    """

    false_positive_rate: NDArray[np.float64]
    recall: NDArray[np.float64]
    precision: NDArray[np.float64]
    roc_area: float
    average_precision: float


@dataclass(frozen=True)
class Confusion:
    """A class that was taken for another.

    Attributes:
        true: Id of the class.
        predicted: Id of what it was taken for.
        rows: How often.
        share: That as a share of the class's rows.
    """

    true: int
    predicted: int
    rows: int
    share: float


def rank_class(is_class: NDArray[np.bool_], scores: NDArray[np.float64]) -> Ranking | None:
    """Walk down the rows by their probability of a class; rows of equal probability are taken together.

    The figures are those of scikit-learn's `roc_curve`, `roc_auc_score` and `average_precision_score`.

    Args:
        is_class: Shape (n,): whether a row is of the class.
        scores: Shape (n,): its probability.

    Returns:
        The curves; None where all rows are of the class or none is.
    """
    positives = int(is_class.sum())
    negatives = len(is_class) - positives
    if not positives or not negatives:
        return None
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    hits = np.concatenate(([0], np.cumsum(is_class[order])[ends])).astype(np.float64)
    taken = np.concatenate(([0], ends + 1)).astype(np.float64)
    recall, false_positive_rate = hits / positives, (taken - hits) / negatives
    precision = np.divide(hits, taken, out=np.ones_like(hits), where=taken > 0)
    return Ranking(
        false_positive_rate=false_positive_rate,
        recall=recall,
        precision=precision,
        roc_area=float(np.trapezoid(recall, false_positive_rate)),
        average_precision=float((np.diff(recall) * precision[1:]).sum()),
    )


def rank_classes(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> list[Ranking | None]:
    """Rank the rows for every class against the rest.

    Args:
        labels: Shape (n,): true class ids.
        probabilities: Shape (n, classes).

    Returns:
        One entry a class; None for a class that no row has, or all have.
    """
    return [rank_class(labels == number, scores) for number, scores in enumerate(probabilities.T)]


def average_roc(
    rankings: list[Ranking | None], *, points: int = 101
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average the ROC curves of several classes, each counting the same.

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
    """Return the pairs of classes that were confused most often.

    Args:
        matrix: Row = true class, column = predicted class.
        most: How many pairs at most.

    Returns:
        The pairs, most rows first.
    """
    return sorted(_walk_confusions(matrix), key=lambda pair: (-pair.rows, -pair.share))[:most]


def _walk_confusions(matrix: list[list[int]]) -> Iterator[Confusion]:
    for true, row in enumerate(matrix):
        for predicted, count in enumerate(row):
            if count and predicted != true:
                yield Confusion(true, predicted, count, count / sum(row))
