"""Scores of a classifier, computed from its confusion matrix or from its probabilities.

Functions of a confusion matrix take any number of leading axes, so that thousands of resampled matrices are scored in
one call. The figures are scikit-learn's (with `zero_division=0`); the tests hold them against it.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "accuracy",
    "check_labels",
    "check_pair",
    "check_probabilities",
    "confusion_matrix",
    "f1",
    "find_mistakes",
    "macro_f1",
    "mcc",
    "precision",
    "predict_labels",
    "recall",
    "row_log_losses",
    "softmax",
]

_SUM_TOLERANCE = 1e-3
"""How far the probabilities of a row may be from a sum of 1: room for rows that were stored in half precision."""


def check_labels(labels: ArrayLike, n_classes: int) -> NDArray[np.int64]:
    """Check class ids and return them as an array.

    Args:
        labels: Shape (n,), integers from 0 to `n_classes` - 1, n at least 1.
        n_classes: Number of classes, at least 1.

    Returns:
        Shape (n,), int64.

    Raises:
        ValueError: No rows, not one-dimensional, not integers, or out of range.
    """
    ids = np.asarray(labels)
    if ids.size == 0:
        raise ValueError("Scores need at least one row, got none.")
    if ids.ndim != 1:
        raise ValueError(f"Class ids must have the shape (n,), got {ids.shape}.")
    if ids.dtype.kind not in "iu":
        raise ValueError(f"Class ids must be integers, got {ids.dtype}.")
    outside = np.flatnonzero((ids < 0) | (ids >= n_classes))
    if outside.size:
        raise ValueError(
            f"Class ids must lie between 0 and {n_classes - 1}, got {ids[outside[0]]} in row {outside[0] + 1} "
            f"({outside.size} such rows)."
        )
    return ids.astype(np.int64, copy=False)


def check_probabilities(probabilities: ArrayLike, n_rows: int) -> NDArray[np.float64]:
    """Check the probabilities of a classifier and return them as an array.

    Args:
        probabilities: Shape (n_rows, n_classes), each from 0 to 1, each row with a sum of 1 (within 0.001).
        n_rows: Number of rows that there must be.

    Returns:
        Shape (n_rows, n_classes), float64.

    Raises:
        ValueError: Another shape or number of rows, values outside 0 to 1, or rows that do not sum to 1.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"Probabilities must have the shape (n, n_classes), got {values.shape}.")
    if len(values) != n_rows:
        raise ValueError(f"There must be one row of probabilities a label: {n_rows} labels, {len(values)} rows.")
    wrong = np.flatnonzero(~((values >= 0) & (values <= 1)).all(axis=1))
    if wrong.size:
        raise ValueError(
            f"Probabilities must lie between 0 and 1, got {values[wrong[0]].tolist()} in row {wrong[0] + 1} "
            f"({wrong.size} such rows). Logits go through softmax first."
        )
    wrong = np.flatnonzero(np.abs(values.sum(axis=1) - 1) > _SUM_TOLERANCE)
    if wrong.size:
        raise ValueError(
            f"The probabilities of a row must sum to 1, got {values[wrong[0]].sum():.6g} in row {wrong[0] + 1} "
            f"({wrong.size} such rows)."
        )
    return values


def check_pair(
    labels: ArrayLike, before: ArrayLike, after: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Check the probabilities of two classifiers for the same rows and return all as arrays.

    Args:
        labels: Shape (n,), true class ids, n at least 1.
        before: Probabilities of the first, shape (n, n_classes).
        after: Those of the second, same shape.

    Returns:
        Labels, shape (n,), and both probabilities, shape (n, n_classes).

    Raises:
        ValueError: Different shapes, or as `check_labels` and `check_probabilities`.
    """
    first, second = (check_probabilities(values, np.size(labels)) for values in (before, after))
    if first.shape != second.shape:
        raise ValueError(f"Both models must have the same classes: {first.shape[1]} and {second.shape[1]} columns.")
    return check_labels(labels, first.shape[1]), first, second


def softmax(logits: ArrayLike) -> NDArray[np.float64]:
    """Turn logits into probabilities, in double precision and without overflow.

    Args:
        logits: Shape (..., n_classes), finite.

    Returns:
        Same shape, float64; the last axis sums to 1.
    """
    values = np.asarray(logits, dtype=np.float64)
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def predict_labels(probabilities: ArrayLike) -> NDArray[np.int64]:
    """Return the most probable class of each row; of equally probable ones, the lowest id.

    Args:
        probabilities: Shape (n, n_classes); logits serve as well.

    Returns:
        Shape (n,), int64.
    """
    return np.asarray(np.argmax(np.asarray(probabilities), axis=1), dtype=np.int64)


def confusion_matrix(labels: ArrayLike, predicted: ArrayLike, n_classes: int) -> NDArray[np.int64]:
    """Count how often each class was taken for each.

    Args:
        labels: Shape (n,), true class ids.
        predicted: Shape (n,), predicted class ids.
        n_classes: Number of classes; a class need not occur.

    Returns:
        Shape (n_classes, n_classes), int64: row = true class, column = predicted class.

    Raises:
        ValueError: No rows, different lengths, or class ids that are not integers or out of range.
    """
    true_ids, predicted_ids = check_labels(labels, n_classes), check_labels(predicted, n_classes)
    if len(true_ids) != len(predicted_ids):
        raise ValueError(f"There must be one prediction a label: {len(true_ids)} labels, {len(predicted_ids)} others.")
    counts = np.bincount(true_ids * n_classes + predicted_ids, minlength=n_classes**2)
    return counts.reshape(n_classes, n_classes).astype(np.int64, copy=False)


def accuracy(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of rows that are right.

    Args:
        matrix: Confusion matrices, shape (..., n_classes, n_classes).

    Returns:
        Shape (...), 0 to 1; 0 for a matrix without rows.
    """
    return _ratio(_right(matrix).sum(axis=-1), matrix.sum(axis=(-2, -1)))


def precision(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of right ones among the rows predicted as a class.

    Args:
        matrix: Confusion matrices, shape (..., n_classes, n_classes).

    Returns:
        Shape (..., n_classes), 0 to 1; 0 for a class that was never predicted.
    """
    return _ratio(_right(matrix), matrix.sum(axis=-2))


def recall(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of right ones among the rows of a class.

    Args:
        matrix: Confusion matrices, shape (..., n_classes, n_classes).

    Returns:
        Shape (..., n_classes), 0 to 1; 0 for a class without rows.
    """
    return _ratio(_right(matrix), matrix.sum(axis=-1))


def f1(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Harmonic mean of precision and recall of each class.

    Args:
        matrix: Confusion matrices, shape (..., n_classes, n_classes).

    Returns:
        Shape (..., n_classes), 0 to 1; 0 for a class that neither occurs nor is predicted.
    """
    return _ratio(2 * _right(matrix), matrix.sum(axis=-2) + matrix.sum(axis=-1))


def macro_f1(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean F1 of the classes that occur among the true or the predicted ones.

    A class that does neither has no F1 and is left out, as in `sklearn.metrics.f1_score(average="macro")`.

    Args:
        matrix: Confusion matrices, shape (..., n_classes, n_classes).

    Returns:
        Shape (...), 0 to 1.
    """
    occurs = (matrix.sum(axis=-2) + matrix.sum(axis=-1)) > 0
    return _ratio(f1(matrix).sum(axis=-1), occurs.sum(axis=-1))


def mcc(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Matthews correlation coefficient, for any number of classes the R_K statistic.

    Source: Gorodkin (2004), "Comparing two K-category assignments by a K-category correlation coefficient",
    Computational Biology and Chemistry 28.

    Args:
        matrix: Confusion matrices, shape (..., n_classes, n_classes).

    Returns:
        Shape (...), -1 to 1; 0 where only one class occurs or only one is predicted.
    """
    predicted = matrix.sum(axis=-2).astype(np.float64)
    true = matrix.sum(axis=-1).astype(np.float64)
    rows = true.sum(axis=-1)
    covariance = _right(matrix).sum(axis=-1) * rows - (predicted * true).sum(axis=-1)
    spread = (rows**2 - (predicted**2).sum(axis=-1)) * (rows**2 - (true**2).sum(axis=-1))
    return _ratio(covariance, np.sqrt(spread))


def row_log_losses(labels: ArrayLike, probabilities: ArrayLike) -> NDArray[np.float64]:
    """Negative log likelihood of each row's true class; their mean is the log loss.

    Probabilities are first raised to at least the machine epsilon of float64 (2.2e-16), so that a mistake made with
    certainty costs 36.04 nats instead of infinitely many, as in `sklearn.metrics.log_loss`.

    Args:
        labels: Shape (n,), true class ids.
        probabilities: Shape (n, n_classes), each from 0 to 1, each row with a sum of 1.

    Returns:
        Shape (n,), float64, in nats, 0 to 36.04.

    Raises:
        ValueError: No rows, different lengths, class ids out of range, or values that are not probabilities.
    """
    values = check_probabilities(probabilities, np.size(labels))
    true_ids = check_labels(labels, values.shape[1])
    likelihoods = values[np.arange(len(values)), true_ids]
    return np.asarray(np.abs(np.log(np.clip(likelihoods, np.finfo(np.float64).eps, 1.0))))


def _right(matrix: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.diagonal(matrix, axis1=-2, axis2=-1)


def _ratio(numerator: ArrayLike, denominator: ArrayLike) -> NDArray[np.float64]:
    above, below = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    return np.divide(above, below, out=np.zeros(np.broadcast_shapes(above.shape, below.shape)), where=below != 0)


def find_mistakes(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], *, most: int = 10
) -> NDArray[np.int64]:
    """Return the rows that are wrong with the most confidence.

    Args:
        labels: Shape (n,): true class ids.
        probabilities: Shape (n, classes).
        most: How many rows at most.

    Returns:
        Their places, the most confident first; of equal ones, the first.
    """
    wrong = np.flatnonzero(predict_labels(probabilities) != labels)
    order = np.argsort(-probabilities[wrong].max(axis=1), kind="stable") if len(wrong) else np.array([], dtype=np.int64)
    return np.asarray(wrong[order[:most]], dtype=np.int64)
