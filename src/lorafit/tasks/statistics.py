"""Provisional: replaced by the finished module."""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lorafit.tasks.records import Estimate

Array = NDArray[np.float64]


def wilson_interval(successes: ArrayLike, trials: ArrayLike, level: float) -> tuple[Array, Array]:
    """Provisional."""
    s, t = np.asarray(successes, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    z = NormalDist().inv_cdf((1 + level) / 2)
    with np.errstate(all="ignore"):
        p = s / t
        c = (p + z * z / (2 * t)) / (1 + z * z / t)
        h = z * np.sqrt(p * (1 - p) / t + z * z / (4 * t * t)) / (1 + z * z / t)
    return np.minimum(p, np.maximum(0, c - h)), np.maximum(p, np.minimum(1, c + h))


def f1_interval(true_positives: ArrayLike, false: ArrayLike, level: float) -> tuple[Array, Array]:
    """Provisional."""
    low, high = wilson_interval(true_positives, np.asarray(true_positives) + np.asarray(false), level)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def resample_row_sums(
    statistics: Array,
    samples: int,
    rng: np.random.Generator,
    *,
    groups: NDArray[np.int64] | None = None,
    edges: Array | None = None,
) -> Array:
    """Provisional."""
    rows = statistics if edges is None else np.concatenate([statistics, edges])
    shape = np.ones(len(rows))
    shape[len(statistics) :] = 0.5
    out = np.empty((samples, statistics.shape[1]))
    step = max(16, 2**22 // len(rows))
    for start in range(0, samples, step):
        w = rng.standard_gamma(shape, size=(min(step, samples - start), len(rows)))
        out[start : start + step] = (w / w.sum(axis=1, keepdims=True) * len(statistics)) @ rows
    return out


def percentile_interval(drawn: Array, level: float) -> tuple[Array, Array]:
    """Provisional."""
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def sign_test(fixed: int, broken: int) -> float:
    """Provisional."""
    from scipy.stats import binomtest

    return 1.0 if fixed + broken == 0 else float(binomtest(fixed, fixed + broken).pvalue)


def adjust_p_values(p_values: Sequence[float]) -> list[float]:
    """Provisional."""
    adjusted, highest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def bootstrap_mean(values: Array, level: float, samples: int, seed: int) -> Estimate:
    """Provisional."""
    drawn = resample_row_sums(values[:, np.newaxis], samples, np.random.default_rng(seed))[:, 0] / len(values)
    low, high = percentile_interval(drawn, level)
    return Estimate(value=float(values.mean()), low=float(low), high=float(high))
