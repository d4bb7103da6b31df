"""Activations, and the metrics of classes from sums over rows. They are scikit-learn's; the tests hold them against it.

Functions of sums take any number of leading axes, so that thousands of resamples are scored in one call.
"""

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lorafit.tasks.records import ClassScores, Estimate
from lorafit.tasks.statistics import share_interval

Array = NDArray[np.float64]

_SUM_TOLERANCE: Final = 1e-3
"""How far the probabilities of a row may be from a sum of 1: room for rows that were stored in half precision."""


def softmax(logits: ArrayLike) -> Array:
    """Turn logits of shape (..., classes) into probabilities, in double precision and without overflow."""
    values = np.asarray(logits, dtype=np.float64)
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def sigmoid(logits: ArrayLike) -> Array:
    """Turn each logit into a probability of its own, in double precision and without overflow."""
    values = np.asarray(logits, dtype=np.float64)
    power = np.exp(-np.abs(values))  # of the negative size, which cannot overflow
    return np.asarray(np.where(values >= 0, 1.0, power) / (1 + power))


def to_losses(likelihoods: ArrayLike) -> Array:
    """Return negative log likelihoods in nats, clipped at the machine epsilon of float64 as in scikit-learn.

    A mistake made with certainty costs 36.04 nats instead of infinitely many: double precision cannot tell a
    probability nearer to 1 than that from 1, so this is where losses of both sides end.
    """
    return np.asarray(np.abs(np.log(np.clip(likelihoods, np.finfo(np.float64).eps, 1.0))))


def entropies(probabilities: Array) -> Array:
    """Return the entropy in nats of each row of probabilities, shape (n, labels); `0 * log(0)` is 0."""
    return np.asarray((probabilities * to_losses(probabilities)).sum(axis=1))


def binary_loss(marks: NDArray[np.bool_], logits: Array) -> float:
    """Return the mean of `binary_losses`."""
    return float(binary_losses(marks, logits).mean())


def binary_losses(marks: NDArray[np.bool_], logits: Array) -> Array:
    """Return the negative log likelihood, in nats, of each of logits that stand for a decision of their own."""
    return np.asarray(np.logaddexp(0, logits) - marks * logits)


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> Array:
    """Divide, with 0 where the denominator is 0."""
    above, below = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    return np.divide(above, below, out=np.zeros(np.broadcast_shapes(above.shape, below.shape)), where=below != 0)


def f1(hits: ArrayLike, predicted: ArrayLike, true: ArrayLike) -> Array:
    """Compute F1, the harmonic mean of precision and recall; 0 where a class neither occurs nor is predicted.

    Args:
        hits: Rows rightly predicted as a class (or their weight).
        predicted: Rows predicted as it.
        true: Rows of it.

    Returns:
        0 to 1.
    """
    return ratio(2 * np.asarray(hits), np.asarray(predicted) + np.asarray(true))


def share_to_f1(share: Array) -> Array:
    """Return the F1 of a class by the share of the right rows among those that are of it or predicted as it."""
    return 2 * share / (1 + share)


def macro_f1(hits: Array, predicted: Array, true: Array) -> Array:
    """Average F1 over labels.

    A label that neither occurs nor is predicted has no F1 and is left out, for single labels and for several: that is
    scikit-learn's `f1_score(average="macro", zero_division=nan)` over all labels, and its default for single labels.

    Args:
        hits: Right rows by label, shape (..., labels).
        predicted: Rows predicted as each label, same shape.
        true: Rows of each label, same shape.

    Returns:
        Shape (...), 0 to 1; NaN where no label occurs and none is predicted.
    """
    occurs = ((predicted + true) > 0).sum(axis=-1)
    return np.where(occurs > 0, ratio(f1(hits, predicted, true).sum(axis=-1), occurs), np.nan)


def mcc(hits: Array, predicted: Array, true: Array) -> Array:
    """Compute Matthews' correlation coefficient, for any number of classes the R_K statistic.

    Source: Gorodkin (2004), "Comparing two K-category assignments by a K-category correlation coefficient",
    Computational Biology and Chemistry 28.

    Args:
        hits: Right rows by class, shape (..., classes).
        predicted: Rows predicted as each class, same shape.
        true: Rows of each class, same shape.

    Returns:
        Shape (...), -1 to 1; 0 where only one class occurs or only one is predicted.
    """
    rows = true.sum(axis=-1)
    covariance = hits.sum(axis=-1) * rows - (predicted * true).sum(axis=-1)
    spread = (rows**2 - (predicted**2).sum(axis=-1)) * (rows**2 - (true**2).sum(axis=-1))
    # A spread that is only a rounding error of weighted rows is none.
    return ratio(covariance, np.sqrt(np.where(spread > 1e-12 * rows**4, spread, 0.0)))


def score_classes(names: tuple[str, ...], counts: Array, level: float, *, grouped: bool) -> list[ClassScores]:
    """Score each class, with intervals as `share_interval`.

    Given how many rows are of a class or predicted as it, the right ones among them are binomial, and F1 is a function
    of their share alone; so its interval is of the same kind.

    Args:
        names: Of the classes.
        counts: Right rows by class, rows predicted as each and rows of each, whole numbers of shape (units, 3 classes).
        level: Of the intervals, above 0 and below 1.
        grouped: Whether units are groups of rows, and intervals are to know what these have in common.

    Returns:
        One record a class; what is undefined is NaN.
    """
    hits, predicted, true = np.split(np.rint(counts), 3, axis=1)
    columns = []
    for trials, is_f1 in ((predicted, False), (true, False), (predicted + true - hits, True)):
        right, total = hits.sum(axis=0), trials.sum(axis=0)
        found = (_undefined_ratio(right, total), *share_interval(hits, trials, level, grouped=grouped))
        ends = np.stack([share_to_f1(part) if is_f1 else part for part in found], axis=1).tolist()
        columns.append([Estimate(value=value, low=low, high=high) for value, low, high in ends])
    return [
        ClassScores(label=name, precision=precision, recall=recall, f1=both, support=int(rows))
        for name, precision, recall, both, rows in zip(names, *columns, true.sum(axis=0), strict=True)
    ]


def confusion_matrix(true: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Count how often each class was taken for each: row = true class, column = predicted class."""
    counts = np.bincount(true * classes + predicted, minlength=classes**2)
    return counts.reshape(classes, classes).astype(np.int64, copy=False)


def check_ids(ids: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Check class ids and return them as int64.

    Args:
        ids: Shape (n,), integers from 0 to `classes` - 1, n at least 1.
        classes: Number of classes.

    Returns:
        The ids.

    Raises:
        ValueError: No rows, not one-dimensional, not integers, or out of range.
    """
    given = np.asarray(ids)
    if given.size == 0:
        raise ValueError("Metrics need at least one row, got none.")
    if given.ndim != 1:
        raise ValueError(f"Class ids must have the shape (n,), got {given.shape}.")
    if given.dtype.kind not in "iu":
        raise ValueError(f"Class ids must be integers, got {given.dtype}.")
    _refuse_rows(np.asarray((given < 0) | (given >= classes)), given, f"Class ids must lie between 0 and {classes - 1}")
    return given.astype(np.int64, copy=False)


def check_marks(marks: ArrayLike, labels: int) -> NDArray[np.bool_]:
    """Check an indicator matrix and return it as booleans.

    Args:
        marks: Shape (n, labels), 1 where a text has a label and 0 elsewhere, n at least 1.
        labels: Number of labels.

    Returns:
        The matrix.

    Raises:
        ValueError: No rows, another shape, or other values.
    """
    given = np.asarray(marks)
    if given.ndim != 2 or given.shape[1] != labels:
        raise ValueError(f"An indicator matrix must have the shape (n, {labels}), got {given.shape}.")
    if len(given) == 0:
        raise ValueError("Metrics need at least one row, got none.")
    wrong = np.asarray(~((given == 0) | (given == 1)).all(axis=1))
    _refuse_rows(wrong, given, "Indicators must be 0 or 1")
    return np.asarray(given == 1)


def check_shares(values: ArrayLike, rows: int, labels: int) -> Array:
    """Check probabilities that each stand for themselves.

    Args:
        values: Shape (rows, labels), each from 0 to 1.
        rows: Number of rows there must be.
        labels: Number of columns.

    Returns:
        The values in float64.

    Raises:
        ValueError: Another shape, or values outside 0 to 1.
    """
    given = np.asarray(values, dtype=np.float64)
    if given.shape != (rows, labels):
        raise ValueError(f"Probabilities must have the shape ({rows}, {labels}), got {given.shape}.")
    outside = np.asarray(~((given >= 0) & (given <= 1)).all(axis=1))
    _refuse_rows(outside, given, "Probabilities must lie between 0 and 1 (logits are activated first)")
    return given


def check_probabilities(values: ArrayLike, rows: int, classes: int) -> Array:
    """Check probabilities of classes: as `check_shares`, and each row has a sum of 1 (within 0.001)."""
    given = check_shares(values, rows, classes)
    sums = given.sum(axis=1)
    _refuse_rows(np.abs(sums - 1) > _SUM_TOLERANCE, sums, "The probabilities of a row must sum to 1")
    return given


def _undefined_ratio(above: Array, below: Array) -> Array:
    return np.asarray(np.divide(above, below, out=np.full(below.shape, np.nan), where=below != 0))


def _refuse_rows(wrong: NDArray[np.bool_], values: NDArray[np.generic], rule: str) -> None:
    places = np.flatnonzero(wrong)
    if places.size:
        first = int(places[0])
        raise ValueError(f"{rule}, got {values[first].tolist()} in row {first + 1} ({places.size} such rows).")
