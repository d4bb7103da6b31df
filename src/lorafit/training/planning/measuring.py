"""Times a few real steps at several lengths, and leaves the model as it was."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from transformers import PreTrainedModel

from lorafit.models.acceleration.attention import attention_for_training
from lorafit.models.acceleration.encoder_block import FusedBlock, at_precision, frozen_depth
from lorafit.models.acceleration.precision import PrecisionChoice
from lorafit.models.adaptation import base_of
from lorafit.models.batching import plan_batches
from lorafit.models.load import quiet_transformers
from lorafit.models.runtimes.pytorch import TorchRuntime
from lorafit.settings import TrainingConfig
from lorafit.training.batching import TrainingRows
from lorafit.training.planning.costs import Costs, Timing, fit_cost_model
from lorafit.training.planning.forecast import Ground
from lorafit.training.prepare import Prepared
from lorafit.training.targets import build_targets

__all__ = ["measure_costs", "measure_ground"]

_ROUNDS = 3
_TRAIN_SHARE = 0.8
_MOST_SECONDS = 10.0
_MOST_SHARE = 0.05
"""Measuring ends when it has taken so long, or that share of the training steps it is for."""

_LEARNING_RATE = 1e-6
_SHORTEST = 8


def measure_ground(prepared: Prepared, *, free_bytes: float = inf) -> Ground:
    """Measure what forecasts for one run rest on.

    Args:
        prepared: Data and model.
        free_bytes: Room on the disk for hidden states.

    Returns:
        Lengths and costs.
    """
    splits, model = prepared.splits, prepared.adapted.model
    task = prepared.labels.task
    targets = build_targets(splits.train.labels, task, prepared.standard)
    rows = TrainingRows(prepared.tokens["train"], targets, prepared.pad_id)
    return Ground(
        lengths={name: texts.lengths for name, texts in prepared.tokens.items()},
        costs=measure_costs(model, rows, prepared.config.training, prepared.precision),
        width=model.config.hidden_size,
        precision=prepared.precision.name,
        free_bytes=free_bytes,
        characters=sum(len(text) for part in (splits.train, splits.test) for text in part.texts),
        fits=len(prepared.labels) if task == "multi_label" else 1,
    )


def measure_costs(
    model: PeftModel | PreTrainedModel, rows: TrainingRows, config: TrainingConfig, precision: PrecisionChoice
) -> Costs:
    """Measure training steps and forward passes.

    A step is all that the Trainer does for a batch: both passes, clipping and AdamW, so that the merged weights are
    built anew for the next. Afterwards the weights are what they were, and so is torch's random state.

    Args:
        model: From `apply_method`, its blocks fused where that can be.
        rows: Tokenised training rows.
        config: The training section.
        precision: Arithmetic of the forward pass.

    Returns:
        What batches cost, on average: a processor under load for minutes does not keep the pace of its best moments.
    """
    shapes = _choose_shapes(rows.texts.lengths, config)
    runtime, device = TorchRuntime(model, precision), next(model.parameters()).device
    batches = [_build_batch(rows, *shape) for shape in shapes]

    def predict(batch: dict[str, torch.Tensor]) -> None:
        runtime.logits(batch["input_ids"].numpy(), batch["attention_mask"].numpy())

    with _kept_as_it_is(model, precision) as step:
        began = time.perf_counter()
        step(batches[0])  # the first is slow, and touches the memory that training will
        room = min(_MOST_SECONDS, _MOST_SHARE * _estimate(rows, config, time.perf_counter() - began))
        train = _time_batches(step, shapes, batches, began + _TRAIN_SHARE * room, device)
        predict(batches[0])  # builds the merged weights, once for all that follow
        forward = _time_batches(predict, shapes, batches, began + room, device)
    return Costs(
        train=fit_cost_model(train),
        forward=fit_cost_model(forward),
        layers=_count_layers(model),
        frozen=frozen_depth(model),
    )


def _count_layers(model: PeftModel | PreTrainedModel) -> int:
    """Return the number of the encoder's layers, or 0 where none is fused and they are not known one by one."""
    is_known = any(isinstance(module, FusedBlock) for module in model.modules())
    return int(base_of(model).config.num_hidden_layers) if is_known else 0


def _time_batches(
    action: Callable[[dict[str, torch.Tensor]], None],
    shapes: list[tuple[int, int]],
    batches: list[dict[str, torch.Tensor]],
    until: float,
    device: torch.device,
) -> list[Timing]:
    """Time an action on every batch in turns, until the clock says so, and return the mean of each."""
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
def _kept_as_it_is(
    model: PeftModel | PreTrainedModel, precision: PrecisionChoice
) -> Iterator[Callable[[dict[str, torch.Tensor]], None]]:
    """Give a function that trains for a step; after the block the model and torch's random state are as before."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=_LEARNING_RATE, fused=True)
    base = base_of(model)
    was_training, device = model.training, base.device
    forked = [device.index] if device.type == "cuda" else []

    def step(batch: dict[str, torch.Tensor]) -> None:
        model.train()
        with at_precision(model, precision):
            loss = model(**{name: tensor.to(device) for name, tensor in batch.items()}).loss
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
    """Return roughly how long the training steps take, if all were like the longest."""
    per_epoch = len(plan_batches(rows.texts.lengths, max_rows=config.batch_size, max_tokens=config.batch_tokens))
    return step_seconds * (config.max_steps or per_epoch * config.epochs)
