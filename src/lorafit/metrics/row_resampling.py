"""Resampling rows that have no one class (several labels, or a number), all together, for scores that need sums alone.

A resample is how often each row was drawn (Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 6):
a product of matrices sums many columns in many resamples at once.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lorafit.metrics.uncertainty import build_estimates, mcnemar_exact
from lorafit.task_evidence import TaskComparison

__all__ = ["Resampled", "build_comparison", "resample_row_sums"]

Resampled = tuple[Mapping[str, NDArray[np.float64]], Mapping[str, NDArray[np.float64]]]
"""Scores of the rows by name, shape (), and of their resamples, shape (samples,)."""

_BLOCK: Final = 2**18
"""Counts held at a time: 2 MB, which stay in the processor's cache and bound the memory."""

_FEWEST: Final = 16
"""Resamples summed at a time however many the rows: a product of fewer would wait for the rows to come from memory."""


def resample_row_sums(values: NDArray[np.float64], samples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw the sums that resampling rows with replacement would give, in bounded memory.

    Which rows are drawn depends on their number and `rng` alone: the same seed draws the same rows for other values.

    Args:
        values: Shape (n, k), k values a row, n at least 1.
        samples: Number of resamples, at least 1.
        rng: Source of randomness.

    Returns:
        Shape (samples, k), sums over the n rows of each resample; those of whole numbers are whole.

    Raises:
        ValueError: A number of samples out of range.
    """
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}.")
    n_rows, sums = len(values), np.empty((samples, values.shape[1]))
    step = max(_FEWEST, _BLOCK // n_rows)
    for start in range(0, samples, step):
        counts = np.empty((min(step, samples - start), n_rows))
        for drawn in counts:
            drawn[:] = np.bincount(rng.integers(n_rows, size=n_rows), minlength=n_rows)
        sums[start : start + step] = counts @ values
    return sums


def build_comparison(
    before: Resampled, after: Resampled, *, gained: int, lost: int, confidence_level: float
) -> TaskComparison:
    """Put a paired comparison together.

    Args:
        before: Scores of the first model.
        after: Those of the second, of the same resamples.
        gained: Rows that the second gets better.
        lost: Rows that it gets worse.
        confidence_level: Level of the intervals, above 0 and below 1.

    Returns:
        The differences, and the exact sign test of the rows.
    """
    (old, old_drawn), (new, new_drawn) = before, after
    return TaskComparison(
        differences={
            name: build_estimates(np.asarray(value - old[name]), new_drawn[name] - old_drawn[name], confidence_level)[0]
            for name, value in new.items()
        },
        rows_gained=gained,
        rows_lost=lost,
        p_value=mcnemar_exact(gained, lost),
    )
