"""What a batch costs on this machine: measured on a few real steps, and fitted as a function of the batch's shape."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from transformers import PreTrainedModel

from lorafit.config import TrainingConfig
from lorafit.models.acceleration.attention import attention_for_training
from lorafit.models.acceleration.encoder_block import FusedBlock, at_precision, frozen_depth
from lorafit.models.acceleration.precision import PrecisionChoice
from lorafit.models.adaptation import base_of
from lorafit.models.batching import plan_batches
from lorafit.models.quiet import quiet_transformers
from lorafit.models.runtimes.pytorch import TorchRuntime
from lorafit.training.inputs import TrainingRows

_LAST_LAYER = 0.2
"""Cost of the last fused block relative to the others: only its keys and values are computed for all tokens."""


@dataclass(frozen=True)
class Timing:
    """The time of one batch.

    Attributes:
        rows: Number of texts.
        length: Tokens per text, with padding.
        seconds: Wall-clock time.
    """

    rows: int
    length: int
    seconds: float


@dataclass(frozen=True)
class CostModel:
    """Seconds of a batch: step + per_token * positions + per_pair * positions * length, all terms at least 0.

    The three terms are the overhead of a batch, the linear layers, and attention.
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
        train: An optimizer step with forward and backward pass, on the model as it was measured.
        forward: A forward pass.
        layers: Number of encoder layers, or 0 if they are not known one by one.
        frozen: Number of lowest layers without an adapter when it was measured.
    """

    train: CostModel
    forward: CostModel
    layers: int
    frozen: int

    def sum_steps(self, shapes: NDArray[np.int64], *, frozen: int, kept: bool) -> float:
        """Return the seconds of training on some batches once.

        Args:
            shapes: Rows and length of each batch, shape (batches, 2).
            frozen: Number of lowest layers without an adapter.
            kept: Whether their hidden states are read from disk instead of computed.

        Returns:
            Seconds.
        """
        forward = self.forward.sum_over(shapes)
        above = self.train.sum_over(shapes) - self._share(self.frozen) * forward
        scale = (1 - self._share(frozen)) / (1 - self._share(self.frozen))
        return max(0.0, above) * scale + (0.0 if kept else self._share(frozen) * forward)

    def sum_forward(self, shapes: NDArray[np.int64], *, kept: int = 0) -> float:
        """Return the seconds of predicting some batches, with the `kept` lowest layers read from disk."""
        return self.forward.sum_over(shapes) * (1 - self._share(kept))

    def _share(self, lowest: int) -> float:
        """Return the share of the lowest layers in a forward pass."""
        return lowest / (self.layers - 1 + _LAST_LAYER) if self.layers else 0.0


def fit_cost_model(timings: Sequence[Timing]) -> CostModel:
    """Fit a cost model by non-negative least squares of the relative errors.

    Args:
        timings: At least one; fewer than three different shapes fit fewer terms.

    Returns:
        The terms.
    """
    from scipy.optimize import nnls

    shapes = np.array([(timing.rows, timing.length) for timing in timings], dtype=np.int64)
    seconds = np.array([timing.seconds for timing in timings])
    matrix = _terms(shapes) / seconds[:, None]
    candidates = [[1], [1, 2], [0, 1, 2]][min(len(np.unique(shapes, axis=0)), 3) - 1]
    terms = np.zeros(3)
    terms[candidates], _ = nnls(matrix[:, candidates], np.ones(len(seconds)))
    return CostModel(*terms.tolist())


def _terms(shapes: NDArray[np.int64]) -> NDArray[np.float64]:
    rows, length = shapes[:, 0].astype(np.float64), shapes[:, 1].astype(np.float64)
    return np.stack([np.ones_like(rows), rows * length, rows * length**2], axis=1)


_ROUNDS = 3
_TRAIN_SHARE = 0.8
_MOST_SECONDS = 10.0
_MOST_SHARE = 0.05
"""Measuring stops after so many seconds, or that share of the expected training time."""

_TARGETS = ("labels", "weights")
"""What of a training batch the model does not read; the weights cost nothing that could be measured."""

_LEARNING_RATE = 1e-6
_SHORTEST = 8


def measure_costs(
    model: PeftModel | PreTrainedModel, rows: TrainingRows, config: TrainingConfig, precision: PrecisionChoice
) -> Costs:
    """Measure training steps and forward passes.

    A step is all that the Trainer does for a batch: both passes, clipping and AdamW, after which merged weights are
    rebuilt. Means are taken, not minima: under sustained load a processor does not keep its peak speed. Afterwards the
    weights and torch's random state are what they were.

    Args:
        model: From `apply_method`, with fused blocks where possible.
        rows: Tokenised training rows.
        config: The training section.
        precision: Arithmetic of the forward pass.

    Returns:
        The costs.
    """
    shapes = _choose_shapes(rows.texts.lengths, config)
    runtime, device = TorchRuntime(model, precision), next(model.parameters()).device
    batches = [build_batch(rows, *shape) for shape in shapes]

    def predict(batch: dict[str, torch.Tensor]) -> None:
        inputs: dict[str, Any] = {name: part.numpy() for name, part in batch.items() if name not in _TARGETS}
        runtime.logits(**inputs)

    with kept_as_it_is(model, precision) as step:
        began = time.perf_counter()
        step(batches[0])  # the first one is slow, and allocates the memory that training needs
        room = min(_MOST_SECONDS, _MOST_SHARE * _estimate(rows, config, time.perf_counter() - began))
        train = _time_batches(step, shapes, batches, began + _TRAIN_SHARE * room, device)
        predict(batches[0])  # builds the merged weights for all that follow
        forward = _time_batches(predict, shapes, batches, began + room, device)
    return Costs(
        train=fit_cost_model(train),
        forward=fit_cost_model(forward),
        layers=_count_layers(model),
        frozen=frozen_depth(model),
    )


def _count_layers(model: PeftModel | PreTrainedModel) -> int:
    """Return the number of encoder layers, or 0 where none is fused, so that they are not known one by one."""
    is_known = any(isinstance(module, FusedBlock) for module in model.modules())
    return int(base_of(model).config.num_hidden_layers) if is_known else 0


def _time_batches(
    action: Callable[[dict[str, torch.Tensor]], None],
    shapes: list[tuple[int, int]],
    batches: list[dict[str, torch.Tensor]],
    until: float,
    device: torch.device,
) -> list[Timing]:
    """Time an action on every batch in turns until the deadline, and return the mean of each batch."""
    seconds: dict[tuple[int, int], list[float]] = {}
    for shape, batch in list(zip(shapes, batches, strict=True)) * _ROUNDS:
        if seconds and time.perf_counter() > until:
            break
        began = time.perf_counter()
        action(batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.setdefault(shape, []).append(time.perf_counter() - began)
    return [Timing(*shape, fmean(taken)) for shape, taken in seconds.items()]


def _choose_shapes(lengths: NDArray[np.int64], config: TrainingConfig) -> list[tuple[int, int]]:
    """Return the shapes of batches whose texts are the longest, half as long, and a quarter or of median length."""
    longest = int(lengths.max())
    wanted = [longest, longest // 2, min(longest // 4, int(np.median(lengths)))]
    shapes = []
    for length in dict.fromkeys(max(min(_SHORTEST, longest), length) for length in wanted):
        plan = plan_batches(np.minimum(lengths, length), max_rows=config.batch_rows, max_tokens=config.batch_tokens)
        shapes.append((int(plan.bounds[1]), length))
    return shapes


def build_batch(rows: TrainingRows, count: int, length: int) -> dict[str, torch.Tensor]:
    """Return a batch of the longest texts, truncated to a length."""
    batch = rows.collate(np.argsort(-rows.texts.lengths, kind="stable")[:count].tolist())
    return {name: part if name in _TARGETS else part[:, :length].contiguous() for name, part in batch.items()}


@contextmanager
def kept_as_it_is(
    model: PeftModel | PreTrainedModel, precision: PrecisionChoice
) -> Iterator[Callable[[dict[str, torch.Tensor]], None]]:
    """Yield a function that does a training step; afterwards the model and torch's random state are restored."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=_LEARNING_RATE, fused=True)
    base = base_of(model)
    was_training, device = model.training, base.device
    forked = [device.index] if device.type == "cuda" else []

    def step(batch: dict[str, torch.Tensor]) -> None:
        model.train()
        with at_precision(model, precision):
            loss = model(**{name: part.to(device) for name, part in batch.items() if name != "weights"}).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    try:
        with torch.random.fork_rng(devices=forked), attention_for_training(base, precision), quiet_transformers():
            yield step
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)
                parameter.grad = None
        model.train(was_training)


def _estimate(rows: TrainingRows, config: TrainingConfig, step_seconds: float) -> float:
    """Return how long the training steps would take if all were like the longest."""
    per_epoch = len(plan_batches(rows.texts.lengths, max_rows=config.batch_rows, max_tokens=config.batch_tokens))
    return step_seconds * (config.max_steps or per_epoch * config.epoch_count)
