"""What a batch costs, as a function of its shape, and what it would cost with fewer layers adapted."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

__all__ = ["CostModel", "Costs", "Timing", "fit_cost_model"]

_LAST_LAYER = 0.2
"""Cost of the last fused block as a share of another's: of its products only key and value are for all tokens."""


@dataclass(frozen=True)
class Timing:
    """Time of one batch.

    Attributes:
        rows: Texts in it.
        length: Tokens of each, padding included.
        seconds: Wall-clock time.
    """

    rows: int
    length: int
    seconds: float


@dataclass(frozen=True)
class CostModel:
    """Seconds of a batch: step + per_token * positions + per_pair * positions * length; none is below 0.

    The three terms are what every batch costs, the products of the linear layers, and attention.
    """

    step: float
    per_token: float
    per_pair: float

    def sum_over(self, shapes: NDArray[np.int64]) -> float:
        """Return the seconds of all batches of these shapes (rows and length; shape (batches, 2))."""
        return float((_terms(shapes) @ np.array([self.step, self.per_token, self.per_pair])).sum())


@dataclass(frozen=True)
class Costs:
    """What the batches of one encoder cost on this machine.

    Attributes:
        train: An optimiser step, forward and backward pass included, on the model as it was measured.
        forward: A forward pass alone.
        layers: The encoder's layers, or 0 if they are not known one by one.
        frozen: How many of them, from below, carried no adapter when it was measured.
    """

    train: CostModel
    forward: CostModel
    layers: int
    frozen: int

    def sum_steps(self, shapes: NDArray[np.int64], *, frozen: int, kept: bool) -> float:
        """Sum the time of training on some batches once.

        Args:
            shapes: Rows and length of each batch, shape (batches, 2).
            frozen: Lowest layers without an adapter.
            kept: Whether their hidden states are read instead of computed.

        Returns:
            Seconds.
        """
        forward = self.forward.sum_over(shapes)
        above = self.train.sum_over(shapes) - self._share(self.frozen) * forward
        scale = (1 - self._share(frozen)) / (1 - self._share(self.frozen))
        return max(0.0, above) * scale + (0.0 if kept else self._share(frozen) * forward)

    def sum_forward(self, shapes: NDArray[np.int64], *, kept: int = 0) -> float:
        """Return the seconds of predicting some batches; `kept` lowest layers are read instead of computed."""
        return self.forward.sum_over(shapes) * (1 - self._share(kept))

    def _share(self, lowest: int) -> float:
        """Return the part that the lowest layers have in a pass through all of them."""
        return lowest / (self.layers - 1 + _LAST_LAYER) if self.layers else 0.0


def fit_cost_model(timings: Sequence[Timing]) -> CostModel:
    """Fit the terms to measured batches by least squares of the relative errors, none of them below zero.

    Args:
        timings: At least one. With fewer than three different shapes, fewer terms are fitted.

    Returns:
        The terms.
    """
    shapes = np.array([(timing.rows, timing.length) for timing in timings], dtype=np.int64)
    seconds = np.array([timing.seconds for timing in timings])
    matrix = _terms(shapes) / seconds[:, None]
    candidates = [(1,), (1, 2), (0, 1, 2)][min(len(np.unique(shapes, axis=0)), 3) - 1]
    best, smallest = np.zeros(3), np.inf
    for size in range(1, len(candidates) + 1):  # so few terms that every choice of them can be tried
        for chosen in combinations(candidates, size):
            terms = np.zeros(3)
            terms[list(chosen)] = np.linalg.lstsq(matrix[:, chosen], np.ones(len(seconds)), rcond=None)[0]
            error = float(np.square(matrix @ terms - 1).sum())
            if terms.min() >= 0 and error < smallest:
                best, smallest = terms, error
    return CostModel(*best.tolist())


def _terms(shapes: NDArray[np.int64]) -> NDArray[np.float64]:
    rows, length = shapes[:, 0].astype(np.float64), shapes[:, 1].astype(np.float64)
    return np.stack([np.ones_like(rows), rows * length, rows * length**2], axis=1)
