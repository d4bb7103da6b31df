"""Times a few real steps at several lengths, and leaves the model as it was."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel

from lorafit.acceleration.attention import attention_for_training
from lorafit.acceleration.encoder_block import FusedBlock, at_precision, frozen_depth
from lorafit.acceleration.precision import PrecisionChoice
from lorafit.batching import plan_batches
from lorafit.config import TrainingConfig
from lorafit.encoders.load import quiet_transformers
from lorafit.planning.costs import Costs, Timing, fit_cost_model
from lorafit.runtimes.pytorch import TorchRuntime
from lorafit.training.batching import TrainingRows

__all__ = ["measure_costs"]

_ROUNDS = 3
_MOST_SECONDS = 5.0
_MOST_SHARE = 0.05
"""Measuring ends when it has taken so long, or that share of the training steps it is for."""

_LEARNING_RATE = 1e-6
_SHORTEST = 8


def measure_costs(model: PeftModel, rows: TrainingRows, config: TrainingConfig, precision: PrecisionChoice) -> Costs:
    """Measure training steps and forward passes.

    A step is all that the Trainer does for a batch: both passes, clipping and AdamW, so that the merged weights are
    built anew for the next. Afterwards the weights are what they were, and so is torch's random state.

    Args:
        model: From `apply_method`, its blocks fused where that can be.
        rows: Tokenised training rows.
        config: The training section.
        precision: Arithmetic of the forward pass.

    Returns:
        What batches cost; of several measurements of a shape the fastest counts.
    """
    shapes = _choose_shapes(rows.texts.lengths, config)
    runtime = TorchRuntime(model, precision)
    train: list[list[float]] = [[] for _ in shapes]
    forward: list[list[float]] = [[] for _ in shapes]
    with _kept_as_it_is(model) as step:
        batches = [_build_batch(rows, *shape) for shape in shapes]
        began = time.perf_counter()
        _time(lambda: step(batches[0], precision))  # the first is slow, and touches the memory that training will
        until = began + min(_MOST_SECONDS, _MOST_SHARE * _estimate(rows, config, time.perf_counter() - began))
        for index in [*range(len(shapes))] * _ROUNDS:
            if train[0] and time.perf_counter() > until:
                break
            batch = batches[index]
            train[index].append(_time(lambda batch=batch: step(batch, precision)))  # type: ignore[misc]
            ids, mask = batch["input_ids"].numpy(), batch["attention_mask"].numpy()
            forward[index].append(_time(lambda ids=ids, mask=mask: runtime.logits(ids, mask)))  # type: ignore[misc]
    new = [measured[0] - min(measured) for measured in train[1:] if len(measured) > 1]
    layers = sum(isinstance(module, FusedBlock) for module in model.modules())
    return Costs(
        train=fit_cost_model(_summarise(shapes, train)),
        forward=fit_cost_model(_summarise(shapes, forward)),
        layers=layers,
        frozen=frozen_depth(model),
        new_shape=float(np.mean(new)) if new else 0.0,
    )


def _choose_shapes(lengths: NDArray[np.int64], config: TrainingConfig) -> list[tuple[int, int]]:
    """Return rows and length of batches as the plan makes them: the longest, half of it, a quarter or the median."""
    longest = int(lengths.max())
    wanted = [longest, longest // 2, min(longest // 4, int(np.median(lengths)))]
    shapes = []
    for length in dict.fromkeys(max(min(_SHORTEST, longest), length) for length in wanted):
        plan = plan_batches(np.minimum(lengths, length), max_rows=config.batch_size, max_tokens=config.batch_tokens)
        shapes.append((int(plan.bounds[1]), length))
    return shapes


def _build_batch(rows: TrainingRows, count: int, length: int) -> dict[str, torch.Tensor]:
    """Return the longest texts, cut to a length."""
    batch = rows.collate(np.argsort(-rows.texts.lengths, kind="stable")[:count].tolist())
    return {name: tensor if name == "labels" else tensor[:, :length].contiguous() for name, tensor in batch.items()}


@contextmanager
def _kept_as_it_is(model: PeftModel) -> Iterator[Callable[[dict[str, torch.Tensor], PrecisionChoice], None]]:
    """Give a function that trains for a step; after the block the model and torch's random state are as before."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=_LEARNING_RATE, fused=True)
    base: Any = model.get_base_model()
    was_training = model.training

    def step(batch: dict[str, torch.Tensor], precision: PrecisionChoice) -> None:
        model.train()
        with at_precision(model, precision):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    try:
        with torch.random.fork_rng(devices=[]), attention_for_training(base), quiet_transformers():
            yield step
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)
                parameter.grad = None
        model.train(was_training)


def _estimate(rows: TrainingRows, config: TrainingConfig, step_seconds: float) -> float:
    """Return roughly how long the training steps take, if all were like the longest."""
    per_epoch = len(plan_batches(rows.texts.lengths, max_rows=config.batch_size, max_tokens=config.batch_tokens))
    return step_seconds * (config.max_steps or per_epoch * config.epochs)


def _summarise(shapes: list[tuple[int, int]], seconds: list[list[float]]) -> list[Timing]:
    return [
        Timing(rows, length, min(measured))
        for (rows, length), measured in zip(shapes, seconds, strict=True)
        if measured
    ]


def _time(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began
