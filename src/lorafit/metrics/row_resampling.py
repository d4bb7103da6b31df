"""Resampling rows that have no one class (several labels, or a number), all together, for scores that need sums alone.

A resample is how often each row was drawn (Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 6):
a product of matrices sums many columns in many resamples at once.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["resample_row_sums"]

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
