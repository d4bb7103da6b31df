"""Mean states of texts, and the regression on them: what a head learns at once, without a step of an optimizer."""

from collections.abc import Callable
from dataclasses import dataclass
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

_STRENGTH: Final = 1.0
"""Of the penalty, the inverse of scikit-learn's C: its default, not chosen by measurement."""

_ITERATIONS: Final = 500
_TOLERANCE: Final = 1e-7


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
    runtime, outputs = TorchRuntime(model, precision), model.config.num_labels or 0
    _, states = compute_outputs(runtime, texts, pad_id, outputs=outputs, on_progress=on_progress)
    if states is None:
        raise ValueError("there are no texts")
    return states


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
    targets: NDArray[Any],
    problem_type: str,
    *,
    outputs: int,
    weights: NDArray[np.float32] | None = None,
    gamma: float = 0.0,
) -> LinearHead:
    """Fit a head to states by the loss that a whole model is trained with, and an L2 penalty on its weights.

    It is the logistic regression of scikit-learn with C = 1: of classes multinomial, of several labels one a label; of
    numbers it is ridge regression. The penalty bounds it, so it has one solution.

    Args:
        states: Shape (n, width).
        targets: n targets, as `Task.targets` makes them.
        problem_type: Transformers' word for the loss.
        outputs: Number of outputs.
        weights: What each loss counts, as `compute_weighted_loss` takes it; None where all count the same.
        gamma: Exponent of the focal loss, 0 without it.

    Returns:
        The head.
    """
    center = states.mean(axis=0)
    x, labels = torch.from_numpy(states - center), torch.from_numpy(targets)
    weighed = None if weights is None else torch.from_numpy(weights)
    weight = torch.zeros(outputs, states.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(outputs, dtype=torch.float64, requires_grad=True)
    losses = len(states) * (1 if problem_type == "single_label_classification" else outputs)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=_ITERATIONS,
        history_size=20,
        tolerance_grad=_TOLERANCE,
        tolerance_change=_TOLERANCE**2,
        line_search_fn="strong_wolfe",
    )

    def compute() -> Tensor:
        optimizer.zero_grad()
        logits = x @ weight.T + bias
        fit = compute_weighted_loss(logits, labels, problem_type, weights=weighed, gamma=gamma)
        loss: Tensor = fit + _STRENGTH / (2 * losses) * (weight**2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimizer.step(compute)  # type: ignore[no-untyped-call]
    found = weight.detach().numpy()
    return LinearHead(found, bias.detach().numpy() - found @ center)
