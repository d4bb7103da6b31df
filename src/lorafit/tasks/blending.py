"""Log-linear pools of a fine-tuned encoder and word models, and whether one is shown to be better than the encoder.

A pool adds up weighted logits, which multiplies probabilities raised to the weights (Genest and Zidek 1986, "Combining
Probability Distributions", Statistical Science 1); of numbers it is the weighted mean. The weights are fitted on rows
that trained none of them, and judged by cross-fitting: each row is pooled with weights that were fitted without it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lorafit.tasks.base import Array, Task
from lorafit.tasks.baselines import ENCODER
from lorafit.tasks.records import AlternativeRecord, BlendRecord, Resampling
from lorafit.tasks.statistics import bootstrap_mean
from lorafit.tasks.word_model import WordModel

_FOLDS: Final = 5
_FEWEST_ROWS: Final = 20
"""Fewer rows, or groups of rows, show nothing."""

LARGEST_WEIGHT: Final = 20.0
"""Of an encoder or word model: that of the coldest temperature that a calibration may have."""


@dataclass(frozen=True)
class HeldOut:
    """What is predicted of n rows by models that were not trained on them.

    Attributes:
        y: Their labels.
        logits: The encoder's, shape (n, outputs).
        words: Logits of word models by name, each of shape (n, outputs).
        groups: Shape (n,), ids of rows that belong together, or None.
        folds: Which model predicted each of the training rows, -1 for none: the rows are those of any. None where they
            were set aside.
    """

    y: NDArray[Any]
    logits: Array
    words: Mapping[str, Array]
    groups: NDArray[np.int64] | None = None
    folds: NDArray[np.int64] | None = None

    @property
    def models(self) -> int:
        """How many models predicted the rows out of fold; 0 where they were set aside."""
        return 0 if self.folds is None else int(self.folds.max()) + 1


@dataclass(frozen=True)
class Blend:
    """An encoder and word models, and how much each counts.

    Attributes:
        weights: By name, that of the encoder first.
        words: The word models by name.
    """

    weights: Mapping[str, float]
    words: Mapping[str, WordModel]

    def read(self, texts: Sequence[str]) -> list[Array]:
        """Return the values of every word model for n texts, each of shape (n, labels)."""
        return [model.score(texts) for model in self.words.values()]

    def pool(self, task: Task, logits: Array, read: Sequence[Array]) -> Array:
        """Return the blended logits of n texts from the encoder's, both of shape (n, outputs), and from `read`."""
        if not len(logits):
            return logits
        parts = [logits, *map(task.deactivate, read)]
        return task.pool_logits(np.stack(parts), np.array([self.weights[name] for name in (ENCODER, *self.words)]))

    def doubt(self, task: Task, read: Sequence[Array]) -> Array:
        """Return how undecided the word models are of n texts, from `read`: shape (n,), the mean of their doubts."""
        return np.asarray(np.mean([task.doubt(values) for values in read], axis=0))


def fit_blend(task: Task, held_out: HeldOut, *, seed: int) -> tuple[BlendRecord, Array]:
    """Fit the weights of a blend, and find out whether it has a lower loss than the encoder alone.

    Both are cross-fitted on the same folds, the encoder with a weight of its own: that is its temperature, so that it
    is not behind for lack of one.

    Args:
        task: The task.
        held_out: The rows.
        seed: Of the folds and the resampling.

    Returns:
        What was found, and the cross-fitted logits of the blend, shape (n, outputs), which stand in for those of other
        rows.
    """
    y, logits = held_out.y, np.stack([held_out.logits, *held_out.words.values()])
    names = (ENCODER, *held_out.words)
    units = _number_units(held_out)
    if (count := int(units.max()) + 1) < _FEWEST_ROWS:
        what = "rows" if held_out.groups is None else "groups of rows"
        reason = f"{count} held-out {what} are too few to show anything: {_FEWEST_ROWS} are needed"
        return BlendRecord(members=list(held_out.words), rows=len(y), kept=False, reason=reason), held_out.logits
    folds = _assign_folds(task.strata(y), units, seed)
    alone, blended = (_cross_fit(task, y, part, folds) for part in (logits[:1], logits))
    losses = [task.logit_losses(y, part) for part in (alone, blended)]
    difference = bootstrap_mean(losses[1] - losses[0], Resampling(seed=seed, groups=held_out.groups))
    kept = difference.high < 0
    record = BlendRecord(
        members=list(held_out.words),
        weights=dict(zip(names, _fit_weights(task, y, logits).tolist(), strict=True)),
        rows=len(y),
        encoder_loss=float(losses[0].mean()),
        blend_loss=float(losses[1].mean()),
        difference=difference,
        kept=kept,
        reason="its held-out loss is lower" if kept else "its held-out loss is not shown to be lower",
    )
    return record, blended


def compare_losses(task: Task, held_out: HeldOut, other: Array, *, seed: int) -> AlternativeRecord | None:
    """Compare the loss of another model on held-out rows, each at a weight of its own that is cross-fitted.

    Args:
        task: The task.
        held_out: The rows, with the logits of a run.
        other: Logits of the other model, shape (n, outputs).
        seed: Of the folds and the resampling.

    Returns:
        What was found; None where there are too few rows.
    """
    units = _number_units(held_out)
    if units.max() + 1 < _FEWEST_ROWS:
        return None
    y, folds = held_out.y, _assign_folds(task.strata(held_out.y), units, seed)
    own, others = (task.logit_losses(y, _cross_fit(task, y, part[None], folds)) for part in (held_out.logits, other))
    difference = bootstrap_mean(others - own, Resampling(seed=seed, groups=held_out.groups))
    return AlternativeRecord(
        rows=len(y), loss=float(own.mean()), other_loss=float(others.mean()), difference=difference
    )


def _number_units(held_out: HeldOut) -> NDArray[np.int64]:
    """Return the number of the group that each row belongs to, or of the row itself."""
    if held_out.groups is None:
        return np.arange(len(held_out.y))
    return np.asarray(np.unique(held_out.groups, return_inverse=True)[1])


def _assign_folds(strata: NDArray[np.int64], units: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Deal rows to folds, shape (n,): each stratum evenly, and rows of one unit together."""
    _, first = np.unique(units, return_index=True)
    shuffled = np.random.default_rng(seed).permutation(len(first))
    order = shuffled[np.argsort(strata[first][shuffled], kind="stable")]
    folds = np.empty(len(first), dtype=np.int64)
    folds[order] = np.arange(len(first)) % _FOLDS
    return folds[units]


def _cross_fit(task: Task, y: NDArray[Any], logits: Array, folds: NDArray[np.int64]) -> Array:
    """Pool members' logits, shape (members, n, outputs), by weights that were fitted on the other folds."""
    pooled = np.empty(logits.shape[1:])
    for fold in range(_FOLDS):
        own = folds == fold
        pooled[own] = task.pool_logits(logits[:, own], _fit_weights(task, y[~own], logits[:, ~own]))
    return pooled


def _fit_weights(task: Task, y: NDArray[Any], logits: Array) -> Array:
    """Find the weights, up to `LARGEST_WEIGHT`, with the lowest mean loss; it has no other minimum."""
    from scipy.optimize import minimize

    start = np.full(len(logits), 1 / len(logits))
    scale = max(float(task.logit_losses(y, task.pool_logits(logits, start)).mean()), float(np.finfo(np.float64).tiny))

    def measure(weights: Array) -> float:
        return float(task.logit_losses(y, task.pool_logits(logits, weights)).mean()) / scale

    found: Array = minimize(measure, start, method="L-BFGS-B", bounds=[(0, LARGEST_WEIGHT)] * len(start)).x
    return found
