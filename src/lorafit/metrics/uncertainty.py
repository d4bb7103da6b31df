"""How sure a score is: stratified bootstrap intervals, paired differences and McNemar's test.

Rows are resampled with replacement within each true class, so that every resample has as many rows of a class as the
data (Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapters 8 and 13). Where a score depends on the
confusion matrix alone, that is exactly a multinomial draw of each row of the matrix, and no row is ever touched.

An interval tells how far a score would move with other rows of the same kind. It knows nothing of what the rows do not
show: a model without a single mistake gets the interval [1, 1] from ten rows as from ten thousand.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lorafit.evidence import ClassScores, Estimate, ModelScores, PairedComparison
from lorafit.metrics.scores import (
    accuracy,
    check_labels,
    check_pair,
    check_probabilities,
    confusion_matrix,
    f1,
    macro_f1,
    mcc,
    precision,
    predict_labels,
    recall,
    row_log_losses,
)

__all__ = [
    "build_estimates",
    "compare_paired",
    "estimate_mean",
    "estimate_outcomes",
    "estimate_scores",
    "mcnemar_exact",
    "percentile_interval",
    "resample_confusion",
    "resample_means",
    "wilson_interval",
]

_BLOCK: Final = 2**18
"""Numbers drawn at a time: 2 MB, which stay in the processor's cache and bound the memory whatever the data."""

_SCORES: Final[dict[str, Callable[[NDArray[np.int64]], NDArray[np.float64]]]] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "mcc": mcc,
    "precision": precision,
    "recall": recall,
    "f1": f1,
}


def resample_confusion(matrix: NDArray[np.int64], samples: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw the tables of counts that resampling rows within each true class would give.

    Args:
        matrix: Counts, shape (..., n_classes, n_outcomes): row = true class, column = what became of it, which for a
            confusion matrix is the predicted class. Rows of zeros stay zeros.
        samples: Number of resamples, at least 1.
        rng: Source of randomness.

    Returns:
        Shape (samples, ..., n_classes, n_outcomes), int64; sums over the last axis are those of `matrix`.
    """
    support = matrix.sum(axis=-1)
    shares = matrix / np.maximum(support, 1)[..., np.newaxis]
    return rng.multinomial(support, shares, size=(samples, *support.shape))


def resample_means(
    values: NDArray[np.float64], labels: NDArray[np.int64], samples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw the means that resampling rows within each true class would give, in bounded memory.

    Args:
        values: Shape (n,), one value a row, n at least 1.
        labels: Shape (n,), true class ids.
        samples: Number of resamples, at least 1.
        rng: Source of randomness.

    Returns:
        Shape (samples,), mean over all rows of each resample.
    """
    sums = np.zeros(samples)
    for label in np.unique(labels):
        stratum = values[labels == label]
        for block in _blocks(samples, len(stratum)):
            drawn = rng.integers(len(stratum), size=(block.stop - block.start, len(stratum)))
            sums[block] += stratum[drawn].sum(axis=1)
    return sums / len(values)


def percentile_interval(
    resampled: NDArray[np.float64], confidence_level: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the percentile interval of resampled scores.

    Args:
        resampled: Shape (samples, ...), one score a resample.
        confidence_level: Level of the interval, above 0 and below 1.

    Returns:
        Lower and upper ends, each of shape (...).

    Raises:
        ValueError: A level out of range.
    """
    if not 0 < confidence_level < 1:
        raise ValueError(f"confidence_level must lie between 0 and 1, got {confidence_level}.")
    tail = (1 - confidence_level) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    return low, high


def build_estimates(point: NDArray[np.float64], resampled: NDArray[np.float64], level: float) -> list[Estimate]:
    """Build estimates from measured values and their resampled ones.

    Args:
        point: Shape (k,), or () for one value.
        resampled: Shape (samples, k), or (samples,).
        level: Level of the percentile intervals, above 0 and below 1.

    Returns:
        One estimate a value.

    Raises:
        ValueError: A level out of range.
    """
    low, high = percentile_interval(resampled, level)
    ends = (np.atleast_1d(end).tolist() for end in (point, low, high))
    return [Estimate(value=value, low=lowest, high=highest) for value, lowest, highest in zip(*ends, strict=True)]


def wilson_interval(successes: int, trials: int, confidence_level: float) -> Estimate:
    """Estimate a share from counts, also where all or none succeed. Source: Wilson (1927), JASA 22.

    Args:
        successes: 0 to `trials`.
        trials: At least 1.
        confidence_level: Level of the interval, above 0 and below 1.

    Returns:
        The share with its score interval.

    Raises:
        ValueError: Counts or a level out of range.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"There must be 0 to {trials} successes in at least 1 trial, got {successes}.")
    if not 0 < confidence_level < 1:
        raise ValueError(f"confidence_level must lie between 0 and 1, got {confidence_level}.")
    z, share = NormalDist().inv_cdf((1 + confidence_level) / 2), successes / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2)) / (1 + z**2 / trials)
    return Estimate(value=share, low=min(share, max(0.0, centre - half)), high=max(share, min(1.0, centre + half)))


def mcnemar_exact(gained: int, lost: int) -> float:
    """Exact two-sided McNemar test: could gains and losses be equally likely?

    Given their number, gains are binomial with a share of one half if neither model is better. Source: McNemar (1947),
    Psychometrika 12; exact form as in Dietterich (1998), Neural Computation 10.

    Args:
        gained: Rows wrong before and right after, 0 or more.
        lost: Rows right before and wrong after, 0 or more.

    Returns:
        The p-value, 0 to 1; 1 where nothing changed.

    Raises:
        ValueError: A negative count.
    """
    if gained < 0 or lost < 0:
        raise ValueError(f"Counts must not be negative, got {gained} gained and {lost} lost.")
    changed, fewer = gained + lost, min(gained, lost)
    offset = math.lgamma(changed + 1) - changed * math.log(2)
    tail = math.fsum(
        math.exp(offset - math.lgamma(count + 1) - math.lgamma(changed - count + 1)) for count in range(fewer + 1)
    )
    return min(1.0, 2 * tail)


def estimate_scores(
    labels: ArrayLike,
    probabilities: ArrayLike,
    label_names: Sequence[str],
    *,
    confidence_level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> ModelScores:
    """Score a model on a split, each score with its stratified percentile bootstrap interval.

    The prediction of a row is its most probable class, of equally probable ones the lowest id. A class without rows
    gets recall 0 with the interval [0, 0].

    Args:
        labels: Shape (n,), true class ids.
        probabilities: Shape (n, n_classes), rows as in `labels`.
        label_names: Name of each class, in the order of the columns.
        confidence_level: Level of the intervals, above 0 and below 1.
        samples: Resamples behind each interval, at least 1.
        seed: Seed of the resampling; the same seed gives the same intervals.

    Returns:
        The scores.

    Raises:
        ValueError: No rows, different lengths, class ids out of range, values that are not probabilities, another
            number of names than of columns, or a level or number of samples out of range.
    """
    _check_samples(samples)
    values = check_probabilities(probabilities, np.size(labels))
    n_classes = values.shape[1]
    if len(label_names) != n_classes:
        raise ValueError(f"There must be one name a class: {n_classes} columns, {len(label_names)} names.")
    true_ids = check_labels(labels, n_classes)
    matrix = confusion_matrix(true_ids, predict_labels(values), n_classes)
    rng = np.random.default_rng(seed)
    estimates = _estimate_from_confusion(matrix, samples, rng, confidence_level)
    per_class = zip(
        label_names, estimates["precision"], estimates["recall"], estimates["f1"], matrix.sum(axis=1), strict=True
    )
    return ModelScores(
        accuracy=estimates["accuracy"][0],
        macro_f1=estimates["macro_f1"][0],
        mcc=estimates["mcc"][0],
        log_loss=estimate_mean(row_log_losses(true_ids, values), true_ids, samples, rng, confidence_level),
        per_class=[
            ClassScores(label=name, precision=precise, recall=found, f1=both, support=int(support))
            for name, precise, found, both, support in per_class
        ],
        confusion_matrix=matrix.tolist(),
    )


def compare_paired(
    labels: ArrayLike,
    before: ArrayLike,
    after: ArrayLike,
    *,
    confidence_level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> PairedComparison:
    """Compare two models on the same rows; each resample takes the same rows for both.

    Predictions are the most probable class, of equally probable ones the lowest id.

    Args:
        labels: Shape (n,), true class ids.
        before: Probabilities of the first model, shape (n, n_classes), rows as in `labels`.
        after: Probabilities of the second model, same shape.
        confidence_level: Level of the intervals, above 0 and below 1.
        samples: Resamples behind each interval, at least 1.
        seed: Seed of the resampling; the same seed gives the same intervals.

    Returns:
        The differences after minus before, and the McNemar test.

    Raises:
        ValueError: No rows, different shapes, class ids out of range, values that are not probabilities, or a level
            or number of samples out of range.
    """
    _check_samples(samples)
    true_ids, first, second = check_pair(labels, before, after)
    was_right, is_right = (predict_labels(values) == true_ids for values in (first, second))
    gained, lost = int((~was_right & is_right).sum()), int((was_right & ~is_right).sum())
    rng = np.random.default_rng(seed)
    return PairedComparison(
        accuracy_difference=_estimate_accuracy_difference(
            true_ids, was_right, is_right, samples, rng, confidence_level
        ),
        log_loss_difference=estimate_mean(
            row_log_losses(true_ids, second) - row_log_losses(true_ids, first), true_ids, samples, rng, confidence_level
        ),
        rows_gained=gained,
        rows_lost=lost,
        mcnemar_p_value=mcnemar_exact(gained, lost),
    )


def _check_samples(samples: int) -> None:
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}.")


def _blocks(samples: int, width: int) -> Iterator[slice]:
    """Cut `samples` resamples of `width` numbers each into slices of about `_BLOCK` numbers."""
    step = max(1, _BLOCK // width)
    for start in range(0, samples, step):
        yield slice(start, min(start + step, samples))


def _estimate_from_confusion(
    matrix: NDArray[np.int64], samples: int, rng: np.random.Generator, level: float
) -> dict[str, list[Estimate]]:
    """Estimate every score of `_SCORES`: a list of one, or of one a class."""
    parts: dict[str, list[NDArray[np.float64]]] = {name: [] for name in _SCORES}
    for block in _blocks(samples, matrix.size):
        drawn = resample_confusion(matrix, block.stop - block.start, rng)
        for name, score in _SCORES.items():
            parts[name].append(score(drawn))
    return {name: build_estimates(score(matrix), np.concatenate(parts[name]), level) for name, score in _SCORES.items()}


def _estimate_accuracy_difference(
    labels: NDArray[np.int64],
    was_right: NDArray[np.bool_],
    is_right: NDArray[np.bool_],
    samples: int,
    rng: np.random.Generator,
    level: float,
) -> Estimate:
    """Resample what became of each class's rows (lost, as before, gained): all that the difference depends on."""
    change = is_right.astype(np.int64) - was_right.astype(np.int64)
    outcomes = np.bincount(labels * 3 + change + 1, minlength=3 * (int(labels.max()) + 1)).reshape(-1, 3)
    return estimate_outcomes(outcomes[np.newaxis], [-1, 0, 1], samples, rng, level)[0]


def estimate_outcomes(
    counts: NDArray[np.int64], weights: Sequence[float], samples: int, rng: np.random.Generator, level: float
) -> list[Estimate]:
    """Estimate the mean weight of a row in each of several tables of outcomes, in bounded memory.

    Args:
        counts: Shape (tables, classes, outcomes): how many rows of each true class had each outcome, at least one row
            in a table.
        weights: What each outcome counts for; 0 and 1 for wrong and right give the accuracy.
        samples: Resamples behind each interval, at least 1.
        rng: Source of randomness.
        level: Level of the intervals, above 0 and below 1.

    Returns:
        One estimate a table.
    """
    rows = counts.sum(axis=(-2, -1))
    means = np.empty((samples, len(counts)))
    for block in _blocks(samples, counts.size):
        drawn = resample_confusion(counts, block.stop - block.start, rng)
        means[block] = (drawn @ np.asarray(weights)).sum(axis=-1) / rows
    return build_estimates((counts @ np.asarray(weights)).sum(axis=-1) / rows, means, level)


def estimate_mean(
    values: NDArray[np.float64], labels: NDArray[np.int64], samples: int, rng: np.random.Generator, level: float
) -> Estimate:
    """Estimate a mean over the rows.

    Args:
        values: Shape (n,), one value a row.
        labels: Shape (n,), true class ids; rows are resampled within each.
        samples: Resamples behind the interval, at least 1.
        rng: Source of randomness.
        level: Level of the interval, above 0 and below 1.

    Returns:
        The mean with its interval.
    """
    return build_estimates(np.asarray(values.mean()), resample_means(values, labels, samples, rng), level)[0]
