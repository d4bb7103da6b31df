"""Mean states of texts, and the regression on them: what a head learns at once, without a step of an optimizer."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lorafit.inference.predictor import Inputs, compute_outputs
from lorafit.models.acceleration.precision import PrecisionChoice
from lorafit.models.pooling import MeanPooledForSequenceClassification
from lorafit.models.runtimes.pytorch import TorchRuntime
from lorafit.tasks.base import Array
from lorafit.training.losses import compute_weighted_loss

STRENGTH: Final = 1.0
"""Of the penalty, the inverse of scikit-learn's C: its default, not chosen by measurement."""

_STRENGTHS: Final = (1000.0, 100.0, 10.0, 1.0, 0.1)
"""Strengths that are compared, until one is worse than the one before."""

_FOLDS: Final = 5
_MANY: Final = 2_000
"""From so many texts on, one fold is enough to choose a strength by."""

_ITERATIONS: Final = 500
_TOLERANCE: Final = 1e-7
_ROUGHLY: Final = 1e-4
"""Slopes at which fits are done, and those that strengths are compared by."""


def embed_texts(
    model: MeanPooledForSequenceClassification,
    precision: PrecisionChoice,
    texts: Inputs,
    pad_id: int,
    *,
    on_progress: Callable[[int], None] | None = None,
) -> Array:
    """Compute the mean states of tokenised texts.

    Args:
        model: The classifier.
        precision: Arithmetic of the encoder.
        texts: n texts; of one in windows the mean over these is taken.
        pad_id: Token id of the padding.
        on_progress: Called with the number of texts done.

    Returns:
        Shape (n, width).
    """
    runtime, outputs = _StateRuntime(model, precision), model.config.num_labels or 0
    _, states = compute_outputs(runtime, texts, pad_id, outputs=outputs, on_progress=on_progress)
    if states is None:
        raise ValueError("there are no texts")
    return states


class _StateRuntime(TorchRuntime):
    """Gives the mean states that a head reads as its features."""

    def outputs(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64], **others: Any
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        read: list[Tensor] = []
        hook = self._model.classifier.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
        try:
            logits = self.logits(input_ids, attention_mask, **others)
        finally:
            hook.remove()
        (states,) = read
        return logits, states.float().cpu().numpy()


@dataclass(frozen=True)
class HeadTargets:
    """What a head is to say of n texts, and the loss of what it says.

    Attributes:
        labels: n targets, as `Task.targets` makes them.
        problem_type: Transformers' word for the loss.
        outputs: Number of outputs.
        weights: What each loss counts, as `compute_weighted_loss` takes it; None where all count the same.
        gamma: Exponent of the focal loss, 0 without it.
    """

    labels: NDArray[Any]
    problem_type: str
    outputs: int
    weights: NDArray[np.float32] | None = None
    gamma: float = 0.0

    def select(self, places: NDArray[Any]) -> "HeadTargets":
        """Return those of some texts, by their places or a mask."""
        weights = None if self.weights is None else self.weights[places]
        return replace(self, labels=self.labels[places], weights=weights)

    def compute_loss(self, logits: Tensor) -> Tensor:
        """Return the mean loss of logits of shape (n, outputs)."""
        weights = None if self.weights is None else torch.from_numpy(self.weights)
        labels = torch.from_numpy(self.labels)
        return compute_weighted_loss(logits, labels, self.problem_type, weights=weights, gamma=self.gamma)


@dataclass(frozen=True)
class LinearHead:
    """A linear layer: `weight` of shape (outputs, width), `bias` of shape (outputs,)."""

    weight: Array
    bias: Array

    def apply(self, states: Array) -> Array:
        """Return logits of shape (n, outputs) for states of shape (n, width)."""
        return states @ self.weight.T + self.bias


def fit_head(
    states: Array,
    targets: HeadTargets,
    *,
    strength: float = STRENGTH,
    tolerance: float = _TOLERANCE,
    start: LinearHead | None = None,
) -> LinearHead:
    """Fit a head to states by the loss that a whole model is trained with, and an L2 penalty on its weights.

    It is the logistic regression of scikit-learn with C = 1 / strength: of classes multinomial (of two, which have a
    weight each here, with twice that C), of several labels one a label; of numbers it is ridge regression. The penalty
    bounds it, so it has one solution.

    Args:
        states: Shape (n, width).
        targets: Of the n texts.
        strength: Of the penalty, above 0.
        tolerance: Largest slope of the mean loss at which the fit is done.
        start: Where the fit begins; None for 0.

    Returns:
        The head.
    """
    center, basis = states.mean(axis=0), np.eye(states.shape[1])
    if len(states) < states.shape[1]:  # the weights lie in the span of the states
        basis, _ = np.linalg.qr((states - center).T.astype(np.float64))
    x = torch.from_numpy((states - center) @ basis)
    begin = start or LinearHead(np.zeros((targets.outputs, states.shape[1])), np.zeros(targets.outputs))
    weight, bias = (torch.from_numpy(part).requires_grad_() for part in (begin.weight @ basis, begin.apply(center)))
    losses = len(states) * (1 if targets.problem_type == "single_label_classification" else targets.outputs)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=_ITERATIONS,
        history_size=20,
        tolerance_grad=tolerance,
        tolerance_change=tolerance**2,
        line_search_fn="strong_wolfe",
    )

    def compute() -> Tensor:
        optimizer.zero_grad()
        fit = targets.compute_loss(x @ weight.T + bias)
        loss: Tensor = fit + strength / (2 * losses) * (weight**2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimizer.step(compute)  # type: ignore[no-untyped-call]
    found = weight.detach().numpy() @ basis.T
    return LinearHead(found, bias.detach().numpy() - found @ center)


def choose_strength(states: Array, targets: HeadTargets, *, seed: int) -> float:
    """Choose the strength of the penalty by the loss of texts that a head was not fitted to.

    Args:
        states: Shape (n, width), from an encoder that has not seen the targets.
        targets: Of the n texts.
        seed: Of the folds.

    Returns:
        The strength, a power of ten.
    """
    if len(states) < 2 * _FOLDS:
        return STRENGTH
    folds = np.random.default_rng(seed).permutation(len(states)) % _FOLDS
    heads = dict[int, LinearHead]()
    chosen, lowest = STRENGTH, inf
    for strength in _STRENGTHS:
        loss = 0.0
        for fold in range(_FOLDS if len(states) < _MANY else 1):
            own = folds == fold
            start = heads.get(fold)
            heads[fold] = fit_head(
                states[~own], targets.select(~own), strength=strength, tolerance=_ROUGHLY, start=start
            )
            logits = torch.from_numpy(heads[fold].apply(states[own]))
            loss += float(targets.select(own).compute_loss(logits)) * int(own.sum())
        if loss >= lowest:
            break
        chosen, lowest = strength, loss
    return chosen
