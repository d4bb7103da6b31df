"""Scores and comparison of models that predict a number, and intervals around their predictions.

Rows are resampled all together: they have no class. The figures are scikit-learn's; the tests hold them against it.

Sources of the intervals: Vovk et al. (2005), "Algorithmic Learning in a Random World"; Lei et al. (2018),
"Distribution-Free Predictive Inference for Regression", JASA 113, arXiv:1604.04173 (split conformal).
"""

from math import ceil, isfinite
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lorafit.evidence import Estimate
from lorafit.metrics.row_resampling import Resampled, build_comparison, resample_row_sums
from lorafit.metrics.uncertainty import build_estimates, wilson_interval
from lorafit.task_evidence import TaskComparison, TaskScores

__all__ = [
    "choose_half_width",
    "compare_interval_coverage",
    "compare_regression",
    "estimate_regression_scores",
    "find_largest_errors",
    "measure_interval_coverage",
    "resample_regression",
    "score_regression",
]

_LARGEST: Final = 1e100
"""Of larger numbers, sums of squares would not be finite."""

_NO_SPREAD: Final = 1e-12
"""Share of a sum of squares below which what is left of it about the mean is a rounding error."""

_ROUNDING: Final = 1e-9
"""The size of a rounding error of a share, which must not decide."""


def score_regression(labels: ArrayLike, values: ArrayLike) -> dict[str, float]:
    """Score a model on rows, without intervals.

    Args:
        labels: Shape (n,), the true numbers, n at least 1.
        values: Shape (n,), the predicted ones, rows as in `labels`.

    Returns:
        The figures of `estimate_regression_scores`.

    Raises:
        ValueError: No rows, different shapes, or numbers that are not finite or beyond 1e100.
    """
    true, predicted = _check_numbers(labels, values)
    figures = _score(_row_columns(true, predicted).sum(axis=0), len(true))
    return {name: float(value) for name, value in figures.items()}


def estimate_regression_scores(
    labels: ArrayLike, values: ArrayLike, *, confidence_level: float = 0.95, samples: int = 2000, seed: int = 0
) -> TaskScores:
    """Score a model on a split, each score with its percentile bootstrap interval over rows.

    Where the true numbers do not differ, R² is 1 for a model that predicts them exactly and otherwise 0. Where the true
    or the predicted ones do not differ, Pearson's r is 0. Both hold for resamples too.

    Args:
        labels: Shape (n,), the true numbers, n at least 1.
        values: Shape (n,), the predicted ones, rows as in `labels`.
        confidence_level: Level of the intervals, above 0 and below 1.
        samples: Resamples behind each interval, at least 1.
        seed: Seed of the resampling; the same seed gives the same intervals.

    Returns:
        `mae` and `rmse` in the numbers' unit, `r2` (at most 1) and `pearson` (-1 to 1).

    Raises:
        ValueError: No rows, different shapes, numbers that are not finite or beyond 1e100, or a level or number of
            samples out of range.
    """
    true, predicted = _check_numbers(labels, values)
    point, drawn = _resample(true, predicted, samples, seed)
    return TaskScores(
        figures={name: build_estimates(value, drawn[name], confidence_level)[0] for name, value in point.items()}
    )


def resample_regression(labels: ArrayLike, values: ArrayLike, *, samples: int = 2000, seed: int = 0) -> Resampled:
    """Return the figures of `estimate_regression_scores`, and those of resampled rows.

    Args:
        labels: Shape (n,), the true numbers, n at least 1.
        values: Shape (n,), the predicted ones, rows as in `labels`.
        samples: Number of resamples, at least 1.
        seed: Seed of the resampling; the same seed draws the same rows for other predictions.

    Returns:
        By name the figures, shape (), and those of the resamples, shape (samples,).

    Raises:
        ValueError: As `estimate_regression_scores`.
    """
    return _resample(*_check_numbers(labels, values), samples, seed)


def compare_regression(
    labels: ArrayLike,
    before: ArrayLike,
    after: ArrayLike,
    *,
    confidence_level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> TaskComparison:
    """Compare two models on the same rows; each resample takes the same rows for both.

    Args:
        labels: Shape (n,), the true numbers, n at least 1.
        before: Predictions of the first model, shape (n,), rows as in `labels`.
        after: Predictions of the second model, same shape.
        confidence_level: Level of the intervals, above 0 and below 1.
        samples: Resamples behind each interval, at least 1.
        seed: Seed of the resampling; the same seed gives the same intervals.

    Returns:
        The differences after minus before of the figures of `estimate_regression_scores`, and the exact sign test of
        rows that got nearer to the true number against rows that got farther from it. Others count for neither.

    Raises:
        ValueError: As `estimate_regression_scores`.
    """
    true, first = _check_numbers(labels, before)
    _, second = _check_numbers(labels, after)
    was_off, is_off = np.abs(first - true), np.abs(second - true)
    return build_comparison(
        _resample(true, first, samples, seed),
        _resample(true, second, samples, seed),  # one seed, so the same rows
        gained=int((is_off < was_off).sum()),
        lost=int((is_off > was_off).sum()),
        confidence_level=confidence_level,
    )


def find_largest_errors(labels: ArrayLike, values: ArrayLike, *, most: int = 10) -> NDArray[np.int64]:
    """Return the rows whose prediction is farthest off.

    Args:
        labels: Shape (n,), the true numbers, n at least 1.
        values: Shape (n,), the predicted ones, rows as in `labels`.
        most: How many rows at most.

    Returns:
        Their places, the largest error first; of equal ones, the first. Rows without an error are left out.

    Raises:
        ValueError: As `estimate_regression_scores`.
    """
    true, predicted = _check_numbers(labels, values)
    errors = np.abs(predicted - true)
    order = np.argsort(-errors, kind="stable")
    return np.asarray(order[errors[order] > 0][:most], dtype=np.int64)


def choose_half_width(labels: ArrayLike, values: ArrayLike, coverage: float) -> float:
    """Choose how far intervals around predictions reach, so that they hold the true number often enough.

    It is the error of rank ceil((n + 1) * coverage) among the calibration rows, the smallest first. Over calibration
    and new rows drawn alike, the true number is then in the interval with a probability of at least `coverage`. That
    holds on average over all rows, not for every kind of text. With fewer than coverage / (1 - coverage) rows there is
    no such rank; the largest error stands in, which promises a probability of n / (n + 1) only.

    Args:
        labels: Shape (n,), true numbers of calibration rows, n at least 1.
        values: Shape (n,), the predicted ones, rows as in `labels`.
        coverage: How often an interval is to hold the truth, above 0 and below 1.

    Returns:
        Half the width of every interval, 0 or more, in the numbers' unit.

    Raises:
        ValueError: A coverage out of range, no rows, different shapes, or numbers that are not finite or beyond 1e100.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage must lie between 0 and 1, got {coverage}.")
    true, predicted = _check_numbers(labels, values)
    errors = np.sort(np.abs(predicted - true))
    rank = ceil((len(errors) + 1) * coverage - _ROUNDING)
    return float(errors[min(rank, len(errors)) - 1])


def measure_interval_coverage(
    labels: ArrayLike, values: ArrayLike, half_width: float, confidence_level: float
) -> Estimate:
    """Measure how often intervals around predictions hold the true number, their ends included.

    Args:
        labels: Shape (n,), the true numbers, n at least 1.
        values: Shape (n,), the predicted ones, rows as in `labels`.
        half_width: From `choose_half_width`, of other rows.
        confidence_level: Level of the share's interval, above 0 and below 1.

    Returns:
        The share of rows, 0 to 1, with its Wilson interval.

    Raises:
        ValueError: A width below 0 or not finite, no rows, different shapes, numbers that are not finite or beyond
            1e100, or a level out of range.
    """
    held = _find_held(labels, values, half_width)
    return wilson_interval(int(held.sum()), len(held), confidence_level)


def compare_interval_coverage(
    labels: ArrayLike,
    before: tuple[ArrayLike, float],
    after: tuple[ArrayLike, float],
    *,
    confidence_level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Compare how often the intervals of two models hold the true number, on the same rows.

    Args:
        labels: Shape (n,), the true numbers, n at least 1.
        before: Predictions of the first model, shape (n,), and the half-width of its intervals.
        after: The same of the second model.
        confidence_level: Level of the interval, above 0 and below 1.
        samples: Resamples behind the interval, at least 1.
        seed: Seed of the resampling; the same seed gives the same interval.

    Returns:
        The share of rows held after minus that before, -1 to 1, with its paired bootstrap interval.

    Raises:
        ValueError: As `measure_interval_coverage`, or a number of samples out of range.
    """
    was_held, is_held = _find_held(labels, *before), _find_held(labels, *after)
    change = is_held.astype(np.float64) - was_held
    drawn = resample_row_sums(change[:, np.newaxis], samples, np.random.default_rng(seed))[:, 0] / len(change)
    return build_estimates(np.asarray(change.mean()), drawn, confidence_level)[0]


def _find_held(labels: ArrayLike, values: ArrayLike, half_width: float) -> NDArray[np.bool_]:
    """Say of each row whether its interval holds the true number, shape (n,)."""
    if not (half_width >= 0 and isfinite(half_width)):
        raise ValueError(f"half_width must be a finite number of at least 0, got {half_width}.")
    true, predicted = _check_numbers(labels, values)
    return np.asarray(np.abs(predicted - true) <= half_width)


def _check_numbers(labels: ArrayLike, values: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    true, predicted = (np.asarray(numbers, dtype=np.float64) for numbers in (labels, values))
    if true.size == 0:
        raise ValueError("Scores need at least one row, got none.")
    if true.ndim != 1 or true.shape != predicted.shape:
        raise ValueError(f"Both must have the shape (n,), got labels {true.shape} and predictions {predicted.shape}.")
    for name, numbers in (("Labels", true), ("Predictions", predicted)):
        wrong = np.flatnonzero(~(np.abs(numbers) <= _LARGEST))
        if wrong.size:
            raise ValueError(
                f"{name} must be finite numbers of at most {_LARGEST:g} in size, got {numbers[wrong[0]]} in row "
                f"{wrong[0] + 1} ({wrong.size} such rows)."
            )
    return true, predicted


def _resample(
    true: NDArray[np.float64], predicted: NDArray[np.float64], samples: int, seed: int
) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]]:
    """Return the figures of the rows, and those of their resamples."""
    columns = _row_columns(true, predicted)
    drawn = resample_row_sums(columns, samples, np.random.default_rng(seed))
    return _score(columns.sum(axis=0), len(true)), _score(drawn, len(true))


def _row_columns(true: NDArray[np.float64], predicted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what is summed, shape (n, 7): both numbers, their squares and product, the error and its square.

    Numbers are taken from their median, so that variances by sums of squares lose no digits: the mean is never farther
    from it than one standard deviation.
    """
    label, value = (numbers - np.median(numbers) for numbers in (true, predicted))
    error = np.abs(predicted - true)
    return np.stack([label, value, label**2, value**2, label * value, error, error**2], axis=1)


def _score(sums: NDArray[np.float64], rows: int) -> dict[str, NDArray[np.float64]]:
    """Score sums of `_row_columns`, shape (..., 7); each figure has the shape (...)."""
    label, value, label_squared, value_squared, product, error, error_squared = np.moveaxis(sums, -1, 0)
    label_spread, value_spread = _spread(label, label_squared, rows), _spread(value, value_squared, rows)
    together = np.sqrt(label_spread) * np.sqrt(value_spread)
    correlation = np.divide(product - label * value / rows, together, out=np.zeros_like(together), where=together > 0)
    untold = np.divide(error_squared, label_spread, out=np.ones_like(label_spread), where=label_spread > 0)
    return {
        "mae": np.asarray(error / rows),
        "rmse": np.sqrt(error_squared / rows),
        "r2": np.where(error_squared == 0, 1.0, 1 - untold),
        "pearson": np.clip(correlation, -1, 1),
    }


def _spread(total: NDArray[np.float64], squares: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    """Return the sum of squares about the mean, exactly 0 where numbers do not differ."""
    about_mean = squares - total**2 / rows
    return np.where(about_mean > _NO_SPREAD * squares, about_mean, 0.0)
