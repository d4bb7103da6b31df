"""The figure that methods are compared by, with its resamples, and how far off each row is."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from lorafit.config import EvaluationConfig
from lorafit.data.rows import Split
from lorafit.evidence import Estimate
from lorafit.labels import Task
from lorafit.metrics.multi_label import decide, resample_multi_label
from lorafit.metrics.regression import resample_regression
from lorafit.metrics.scores import predict_labels
from lorafit.metrics.uncertainty import build_estimates, resample_means
from lorafit.task_figures import LEADING

__all__ = ["Score", "measure_errors", "measure_score"]


@dataclass(frozen=True)
class Score:
    """A figure as a mean over models, or the difference of two such means.

    Attributes:
        value: Of the rows.
        resampled: Shape (samples,), of their resamples.
        by_model: Of the rows, each model's own; empty of a difference.
    """

    value: float
    resampled: NDArray[np.float64]
    by_model: tuple[float, ...] = ()

    def __sub__(self, other: "Score") -> "Score":
        return Score(self.value - other.value, self.resampled - other.resampled)

    def estimate(self, level: float) -> Estimate:
        """Return the figure with its percentile interval of a level above 0 and below 1."""
        return build_estimates(np.asarray(self.value), self.resampled, level)[0]


def measure_score(
    rows: Split, predictions: Sequence[NDArray[np.float64]], task: Task, config: EvaluationConfig
) -> Score:
    """Measure the task's leading figure, as a mean over models.

    Args:
        rows: The n rows.
        predictions: What each model said of them, shape (n, outputs).
        task: What a text gets.
        config: Number and seed of the resamples, which are the same rows in every call.

    Returns:
        The figure.
    """
    samples, seed = config.bootstrap_samples, config.seed
    if task == "single_label":
        right = np.array([predict_labels(said) == rows.labels for said in predictions], dtype=np.float64)
        shares, rng = right.mean(axis=0), np.random.default_rng(seed)
        by_model = tuple(right.mean(axis=1).tolist())
        return Score(float(shares.mean()), resample_means(shares, rows.labels, samples, rng), by_model)
    if task == "multi_label":
        parts = [resample_multi_label(rows.labels, said, samples=samples, seed=seed) for said in predictions]
    else:
        parts = [resample_regression(rows.labels, said[:, 0], samples=samples, seed=seed) for said in predictions]
    name = LEADING[task]
    by_model = tuple(float(figures[name]) for figures, _ in parts)
    return Score(fmean(by_model), np.mean([resampled[name] for _, resampled in parts], axis=0), by_model)


def measure_errors(rows: Split, values: NDArray[np.float64], task: Task) -> NDArray[np.float64]:
    """Measure how far off each row is.

    Args:
        rows: The n rows.
        values: What a model said of them, shape (n, outputs).
        task: What a text gets.

    Returns:
        Shape (n,): 1 for a wrong label, the number of wrong labels, or the distance from the number.
    """
    if task == "single_label":
        errors = predict_labels(values) != rows.labels
    elif task == "multi_label":
        errors = (decide(values) != (rows.labels == 1)).sum(axis=1)
    else:
        errors = np.abs(values[:, 0] - rows.labels)
    return np.asarray(errors, dtype=np.float64)
