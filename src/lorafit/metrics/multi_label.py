"""Scores, comparison and calibration of models that say of every label whether a text has it.

A decision is one label of one text. Texts are resampled whole and, having no one class, all together: what a text gets
for one label tells of the others. The figures are scikit-learn's (with `zero_division=0`); the tests hold them against
it.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lorafit.evidence import ClassScores, Estimate
from lorafit.metrics.calibration import BINS, fit_temperature
from lorafit.metrics.paired import Flips
from lorafit.metrics.row_resampling import Resampled, build_comparison, resample_row_sums
from lorafit.metrics.scores import f1, precision, recall
from lorafit.metrics.uncertainty import build_estimates, percentile_interval, wilson_interval
from lorafit.task_evidence import TaskComparison, TaskScores

__all__ = [
    "compare_multi_label",
    "decide",
    "decision_calibration_error",
    "estimate_multi_label_flips",
    "estimate_multi_label_scores",
    "find_multi_label_mistakes",
    "fit_multi_label_temperature",
    "resample_multi_label",
    "score_multi_label",
    "sigmoid",
]

_THRESHOLD: Final = 0.5


class _Scores(NamedTuple):
    """Scores of one or of many samples: figures of shape (...), those of the labels of shape (..., C)."""

    figures: dict[str, NDArray[np.float64]]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]


def sigmoid(logits: ArrayLike) -> NDArray[np.float64]:
    """Turn each logit into a probability of its own, in double precision and without overflow.

    Args:
        logits: Any shape.

    Returns:
        Same shape, float64, 0 to 1.
    """
    values = np.asarray(logits, dtype=np.float64)
    power = np.exp(-np.abs(values))  # of the negative size, which cannot overflow
    return np.asarray(np.where(values >= 0, 1.0, power) / (1 + power))


def decide(probabilities: ArrayLike) -> NDArray[np.bool_]:
    """Say which labels a text gets: those that are at least as probable as not.

    Args:
        probabilities: Any shape, each from 0 to 1.

    Returns:
        Same shape.
    """
    return np.asarray(np.asarray(probabilities) >= _THRESHOLD)


def score_multi_label(labels: ArrayLike, probabilities: ArrayLike) -> dict[str, float]:
    """Score a model on texts, without intervals.

    Args:
        labels: Shape (n, C), 1 where a text has a label and 0 elsewhere; n and C at least 1.
        probabilities: Shape (n, C), rows as in `labels`, each from 0 to 1.

    Returns:
        The figures of `estimate_multi_label_scores`.

    Raises:
        ValueError: No rows, different shapes, labels other than 0 and 1, or values that are not probabilities.
    """
    marks, values = _check_decisions(labels, probabilities)
    figures = _score(_row_columns(marks, values).sum(axis=0), len(marks)).figures
    return {name: float(value) for name, value in figures.items()}


def estimate_multi_label_scores(
    labels: ArrayLike,
    probabilities: ArrayLike,
    label_names: Sequence[str],
    *,
    confidence_level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> TaskScores:
    """Score a model on a split, each score with its percentile bootstrap interval over texts.

    A label that no text has and that is never given gets precision, recall and F1 of 0, and the macro F1 counts it.
    That holds for resamples too, so that the intervals of a label with few texts reach far down.

    Args:
        labels: Shape (n, C), 1 where a text has a label and 0 elsewhere; n and C at least 1.
        probabilities: Shape (n, C), rows as in `labels`, each from 0 to 1.
        label_names: Name of each label, in the order of the columns.
        confidence_level: Level of the intervals, above 0 and below 1.
        samples: Resamples behind each interval, at least 1.
        seed: Seed of the resampling; the same seed gives the same intervals.

    Returns:
        `micro_f1`, `macro_f1`, `exact_match`, `hamming_loss` and `log_loss` (nats a decision; a mistake made with
        certainty costs 708), and the scores of each label, whose support is the number of texts that have it.

    Raises:
        ValueError: No rows, different shapes, labels other than 0 and 1, values that are not probabilities, another
            number of names than of columns, or a level or number of samples out of range.
    """
    marks, values = _check_decisions(labels, probabilities)
    if len(label_names) != marks.shape[1]:
        raise ValueError(f"There must be one name a label: {marks.shape[1]} columns, {len(label_names)} names.")
    point, drawn = _resample(marks, values, samples, seed)
    per_class = zip(
        label_names,
        build_estimates(point.precision, drawn.precision, confidence_level),
        build_estimates(point.recall, drawn.recall, confidence_level),
        build_estimates(point.f1, drawn.f1, confidence_level),
        marks.sum(axis=0),
        strict=True,
    )
    return TaskScores(
        figures={
            name: build_estimates(value, drawn.figures[name], confidence_level)[0]
            for name, value in point.figures.items()
        },
        per_class=[
            ClassScores(label=name, precision=precise, recall=found, f1=both, support=int(support))
            for name, precise, found, both, support in per_class
        ],
    )


def resample_multi_label(
    labels: ArrayLike, probabilities: ArrayLike, *, samples: int = 2000, seed: int = 0
) -> Resampled:
    """Return the figures of `estimate_multi_label_scores`, and those of resampled texts.

    Args:
        labels: Shape (n, C), 1 where a text has a label and 0 elsewhere; n and C at least 1.
        probabilities: Shape (n, C), rows as in `labels`, each from 0 to 1.
        samples: Number of resamples, at least 1.
        seed: Seed of the resampling; the same seed draws the same texts for other probabilities.

    Returns:
        By name the figures, shape (), and those of the resamples, shape (samples,).

    Raises:
        ValueError: As `estimate_multi_label_scores`.
    """
    point, drawn = _resample(*_check_decisions(labels, probabilities), samples, seed)
    return point.figures, drawn.figures


def compare_multi_label(
    labels: ArrayLike,
    before: ArrayLike,
    after: ArrayLike,
    *,
    confidence_level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> TaskComparison:
    """Compare two models on the same texts; each resample takes the same texts for both.

    Args:
        labels: Shape (n, C), 1 where a text has a label and 0 elsewhere; n and C at least 1.
        before: Probabilities of the first model, shape (n, C), rows as in `labels`.
        after: Probabilities of the second model, same shape.
        confidence_level: Level of the intervals, above 0 and below 1.
        samples: Resamples behind each interval, at least 1.
        seed: Seed of the resampling; the same seed gives the same intervals.

    Returns:
        The differences after minus before of the figures of `estimate_multi_label_scores`, and the sign test of the
        texts with fewer wrong labels against those with more.

    Raises:
        ValueError: As `estimate_multi_label_scores`.
    """
    marks, first = _check_decisions(labels, before)
    _, second = _check_decisions(labels, after)
    resampled = (_resample(marks, values, samples, seed) for values in (first, second))  # one seed, so the same texts
    (old, old_drawn), (new, new_drawn) = resampled
    was_wrong, is_wrong = ((decide(values) != marks).sum(axis=1) for values in (first, second))
    return build_comparison(
        (old.figures, old_drawn.figures),
        (new.figures, new_drawn.figures),
        gained=int((is_wrong < was_wrong).sum()),
        lost=int((is_wrong > was_wrong).sum()),
        confidence_level=confidence_level,
    )


def estimate_multi_label_flips(
    labels: ArrayLike, before: ArrayLike, after: ArrayLike, *, confidence_level: float = 0.95
) -> Flips:
    """Estimate for how many texts the second model does not say what the first did.

    A text is right where it gets exactly its labels.

    Args:
        labels: Shape (n, C), 1 where a text has a label and 0 elsewhere; n and C at least 1.
        before: Probabilities of the first model, shape (n, C), rows as in `labels`.
        after: Probabilities of the second model, same shape.
        confidence_level: Level of the intervals, above 0 and below 1.

    Returns:
        The shares of the texts that are no longer right, and of those that get other labels.

    Raises:
        ValueError: As `estimate_multi_label_scores`.
    """
    marks, first = _check_decisions(labels, before)
    _, second = _check_decisions(labels, after)
    was, now = decide(first), decide(second)
    lost = int(((was == marks).all(axis=1) & (now != marks).any(axis=1)).sum())
    changed = int((was != now).any(axis=1).sum())
    return Flips(*(wilson_interval(count, len(marks), confidence_level) for count in (lost, changed)))


def find_multi_label_mistakes(labels: ArrayLike, probabilities: ArrayLike, *, most: int = 10) -> NDArray[np.int64]:
    """Return the texts with a wrong decision, those first of which the model was surest.

    Args:
        labels: Shape (n, C), 1 where a text has a label and 0 elsewhere; n and C at least 1.
        probabilities: Shape (n, C), rows as in `labels`, each from 0 to 1.
        most: How many texts at most.

    Returns:
        Their places, by the confidence of their surest wrong decision; of equal ones, the first.

    Raises:
        ValueError: As `estimate_multi_label_scores`.
    """
    marks, values = _check_decisions(labels, probabilities)
    surest = np.where(decide(values) != marks, np.maximum(values, 1 - values), 0.0).max(axis=1)
    order = np.argsort(-surest, kind="stable")
    return np.asarray(order[surest[order] > 0][:most], dtype=np.int64)


def fit_multi_label_temperature(labels: ArrayLike, logits: ArrayLike) -> float:
    """Find the temperature with the lowest log loss over all decisions.

    A decision is a choice between two classes with the logits 0 and that of the label, so that this is
    `lorafit.metrics.calibration.fit_temperature` of n * C rows: its targets leave a share of 1 / (n * C + 2) to the
    other answer, without which a model that makes no mistake would become certain.

    Args:
        labels: Shape (n, C), 1 where a text has a label and 0 elsewhere; n and C at least 1.
        logits: Shape (n, C), rows as in `labels`.

    Returns:
        The temperature, 0.05 to 20; 1 where it makes no difference.

    Raises:
        ValueError: No rows, different shapes, labels other than 0 and 1, or logits that are not finite numbers.
    """
    marks, values = _check_marks(labels), np.asarray(logits, dtype=np.float64)
    if values.shape != marks.shape or not np.isfinite(values).all():
        raise ValueError(f"Logits must be finite numbers of the shape {marks.shape}, got the shape {values.shape}.")
    has_label = values.ravel()
    return fit_temperature(marks.ravel().astype(np.int64), np.stack([np.zeros_like(has_label), has_label], axis=1))


def decision_calibration_error(
    labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    confidence_level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Expected calibration error over all decisions, in the bins of `lorafit.metrics.calibration.calibration_error`.

    The confidence of a decision is the probability of what was decided, 0.5 to 1.

    Chance makes every measured ECE, and every resampled one still more, larger than the truth. So the interval is the
    basic bootstrap one, as in `lorafit.metrics.calibration.score_calibration`, and begins at 0 where a model whose
    confidence is right could well have an ECE as large. What such a model would get is taken from the resampled bins
    too, less what the bins hold: decisions about one text go wrong together, which draws one by one would not show.
    Where decisions about one text depend strongly on each other, it holds the truth less often than it says: the
    simulations of the tests ask for 85 % of intervals of 95 %.

    Args:
        labels: Shape (n, C), 1 where a text has a label and 0 elsewhere; n and C at least 1.
        probabilities: Shape (n, C), rows as in `labels`, each from 0 to 1.
        confidence_level: Level of the interval, above 0 and below 1.
        samples: Resamples of whole texts behind the interval, at least 1.
        seed: Seed of the resampling.

    Returns:
        The error, 0 to 1, with its interval.

    Raises:
        ValueError: No rows, different shapes, labels other than 0 and 1, values that are not probabilities, or a level
            or number of samples out of range.
    """
    marks, values = _check_decisions(labels, probabilities)
    gaps = _bin_gaps(marks, values)
    total = gaps.sum(axis=0)
    drawn = resample_row_sums(gaps, samples, np.random.default_rng(seed))
    point = float(np.abs(total).sum() / marks.size)
    low, high = percentile_interval(np.abs(drawn).sum(axis=1) / marks.size, confidence_level)
    usual = percentile_interval(np.abs(drawn - total).sum(axis=1) / marks.size, confidence_level)[1]
    return Estimate(
        value=point,
        low=0.0 if point <= usual else min(point, max(0.0, 2 * point - float(high))),
        high=max(point, 2 * point - float(low)),
    )


def _check_marks(labels: ArrayLike) -> NDArray[np.bool_]:
    given = np.asarray(labels)
    if given.ndim != 2 or given.shape[1] == 0:
        raise ValueError(f"Labels must have the shape (n, labels), got {given.shape}.")
    if len(given) == 0:
        raise ValueError("Scores need at least one row, got none.")
    wrong = np.flatnonzero(~((given == 0) | (given == 1)).all(axis=1))
    if wrong.size:
        raise ValueError(
            f"Labels must be 0 or 1, got {given[wrong[0]].tolist()} in row {wrong[0] + 1} ({wrong.size} such rows)."
        )
    return np.asarray(given == 1)


def _check_decisions(labels: ArrayLike, probabilities: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    marks, values = _check_marks(labels), np.asarray(probabilities, dtype=np.float64)
    if values.shape != marks.shape:
        raise ValueError(f"There must be one probability a label: labels {marks.shape}, probabilities {values.shape}.")
    wrong = np.flatnonzero(~((values >= 0) & (values <= 1)).all(axis=1))
    if wrong.size:
        raise ValueError(
            f"Probabilities must lie between 0 and 1, got {values[wrong[0]].tolist()} in row {wrong[0] + 1} "
            f"({wrong.size} such rows). Logits go through sigmoid first."
        )
    return marks, values


def _resample(
    marks: NDArray[np.bool_], probabilities: NDArray[np.float64], samples: int, seed: int
) -> tuple[_Scores, _Scores]:
    """Return the scores of the rows, and those of their resamples."""
    columns = _row_columns(marks, probabilities)
    drawn = resample_row_sums(columns, samples, np.random.default_rng(seed))
    return _score(columns.sum(axis=0), len(marks)), _score(drawn, len(marks))


def _row_columns(marks: NDArray[np.bool_], probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what is summed, shape (n, 3 * C + 2): rightly given, given, true, all right, loss."""
    given = decide(probabilities)
    likelihoods = np.where(marks, probabilities, 1 - probabilities)
    losses = np.abs(np.log(np.maximum(likelihoods, np.finfo(np.float64).tiny)))
    exact = (given == marks).all(axis=1)
    return np.column_stack([given & marks, given, marks, exact, losses.mean(axis=1)]).astype(np.float64, copy=False)


def _score(sums: NDArray[np.float64], rows: int) -> _Scores:
    """Score sums of `_row_columns`, shape (..., 3 * C + 2), by the confusion matrix of each label."""
    counts = np.rint(sums[..., :-2]).astype(np.int64)
    right, given, true = np.split(counts, 3, axis=-1)
    cells = [rows - given - true + right, given - right, true - right, right]
    matrices = np.stack(cells, axis=-1).reshape(*right.shape, 2, 2)
    per_label = f1(matrices)[..., 1]
    figures = {
        "micro_f1": f1(matrices.sum(axis=-3))[..., 1],
        "macro_f1": per_label.mean(axis=-1),
        "exact_match": sums[..., -2] / rows,
        "hamming_loss": (given + true - 2 * right).sum(axis=-1) / (rows * right.shape[-1]),
        "log_loss": sums[..., -1] / rows,
    }
    return _Scores(figures, precision(matrices)[..., 1], recall(matrices)[..., 1], per_label)


def _bin_gaps(marks: NDArray[np.bool_], probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return right decisions minus their confidence, summed within each text and bin: shape (n, BINS)."""
    confidence = np.maximum(probabilities, 1 - probabilities)
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    place = np.arange(len(marks))[:, np.newaxis] * BINS + bins
    gap = (decide(probabilities) == marks) - confidence
    sums = np.bincount(place.ravel(), weights=gap.ravel(), minlength=len(marks) * BINS)
    return sums.astype(np.float64, copy=False).reshape(len(marks), BINS)
