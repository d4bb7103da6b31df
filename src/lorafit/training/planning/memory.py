"""Batches that fit into the memory: foreseen from steps on few rows, before a large one is tried."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lorafit.config import TrainingConfig
from lorafit.errors import OutOfMemoryError
from lorafit.models.acceleration.memory import give_back_at_once
from lorafit.models.batching import plan_batches
from lorafit.system import hardware
from lorafit.system.faults import find_fault

if TYPE_CHECKING:
    from lorafit.training.prepare import Prepared

_SAFETY = 1.2
"""What a forecast is multiplied with: validation, and what Python and the libraries take meanwhile."""

_FRESH_PROCESS = 450_000_000
"""Bytes of the fresh process that loads the saved model beside this one, its weights left out."""

_OPTIMIZER_COPIES = 4
"""Of every trained weight: its gradient, two moments, and the copy by which a trial step is undone."""

_LESS = "--set training.batch_tokens=1024, --set model.max_length=128, or a smaller base"
"""What takes less memory, the first first."""

_FEW_ROWS = 4
_FEWEST_TOKENS = 8


@dataclass(frozen=True)
class MemoryPlan:
    """Settings whose steps fit into the memory.

    Attributes:
        prepared: What was prepared, with batches that fit.
        peak_bytes: Peak memory of this process so far.
        notes: What was changed, and why.
    """

    prepared: "Prepared"
    peak_bytes: int
    notes: tuple[str, ...] = ()


def fit_to_memory(prepared: "Prepared", *, room: int | None = None) -> MemoryPlan:
    """Make the training batches so small that a step on the longest texts fits into the memory there is.

    Steps on one text and on a few are made; what they take beyond what is taken now grows with the rows, as all texts
    of these batches are as long. Afterwards the peak memory of this process counts anew.

    Args:
        prepared: Data and model, which stay as they are.
        room: Bytes that may still be taken; None asks the system.

    Returns:
        The plan; nothing is changed where all fits, or the system does not tell.

    Raises:
        OutOfMemoryError: Even the smallest batch does not fit.
    """
    model, config = prepared.adapted.model, prepared.config.training
    peak = hardware.peak_memory_bytes()
    room = hardware.memory_room() if room is None else room
    if room is None or model.device.type != "cpu":
        return MemoryPlan(prepared, peak)
    needs = _measure(prepared, room)
    lengths, chosen = prepared.tokens["train"].lengths, config.model_copy()
    while needs.of(_count_rows(lengths, chosen)) > room and _count_rows(lengths, chosen) > 1:
        chosen.batch_tokens = max(_FEWEST_TOKENS, min(chosen.batch_tokens, int(lengths.max()) * config.batch_rows) // 2)
    if (least := needs.of(_count_rows(lengths, chosen))) > room:
        raise OutOfMemoryError(_describe_lack(least, room))
    if chosen.batch_tokens == config.batch_tokens:
        return MemoryPlan(prepared, peak)
    note = (
        f"batches of {chosen.batch_tokens:,} tokens instead of {config.batch_tokens:,}, which would take about "
        f"{needs.of(_count_rows(lengths, config)) / 1e9:.1f} GB more of memory: {room / 1e9:.1f} GB are left"
    )
    settings = prepared.config.model_copy(update={"training": chosen})
    return MemoryPlan(replace(prepared, config=settings), peak, (note,))


@dataclass(frozen=True)
class _Needs:
    """Bytes beyond what is taken now: `first` for a batch of one text, `per_row` for each further one."""

    first: float
    per_row: float

    def of(self, rows: int) -> float:
        """Return what a batch of so many texts needs."""
        return _SAFETY * (self.first + (rows - 1) * self.per_row)


def _measure(prepared: "Prepared", room: int) -> _Needs:
    """Make a step on one text and one on a few, unless not even their optimizer fits."""
    from lorafit.training.inputs import build_rows
    from lorafit.training.planning.costs import build_batch, kept_as_it_is

    model, tokens = prepared.adapted.model, prepared.tokens["train"]
    sizes = {weight: weight.numel() * weight.element_size() for weight in model.parameters()}
    trained = sum(size for weight, size in sizes.items() if weight.requires_grad)
    least = max(sum(sizes.values()) + _FRESH_PROCESS, _OPTIMIZER_COPIES * trained)
    if least > room:
        raise OutOfMemoryError(_describe_lack(least, room))
    rows = build_rows(tokens, prepared.task.targets(prepared.splits.train.y, prepared.scaler), prepared.pad_id)
    few = min(_FEW_ROWS, len(rows))
    hardware.reset_peak_memory()
    taken, kept = [hardware.peak_memory_bytes()], []
    with give_back_at_once(), kept_as_it_is(model, prepared.precision) as step:
        for count in (1, few):
            with _count_kept_bytes() as sizes_kept:
                step(build_batch(rows, count, int(tokens.lengths.max())))
            taken.append(hardware.peak_memory_bytes())
            kept.append(sum(sizes_kept.values()))
    growth = max(taken[2] - taken[1], kept[1] - kept[0])
    return _Needs(max(least, taken[1] - taken[0]), growth / max(1, few - 1))


@contextmanager
def _count_kept_bytes() -> Iterator[dict[int, int]]:
    """Yield the bytes of what a forward pass in the block keeps for the backward pass, by address.

    The peak memory does not show them where they come from memory that this process had before.
    """
    import torch

    found: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        yield found


def _count_rows(lengths: NDArray[np.int64], config: TrainingConfig) -> int:
    """Return how many of the longest texts are in a batch."""
    return int(plan_batches(lengths, max_rows=config.batch_rows, max_tokens=config.batch_tokens).bounds[1])


def _describe_lack(needed: float, room: int) -> str:
    return (
        f"Training takes about {needed / 1e9:.1f} GB more of memory, and {room / 1e9:.1f} GB are left. Give this "
        f"process more, or take less: {_LESS}."
    )


@contextmanager
def advise_on_memory(remedy: str = "") -> Iterator[None]:
    """Name the settings that take less where the memory is not enough for the block.

    Args:
        remedy: What was kept and the command to go on, as sentences.

    Raises:
        OutOfMemoryError: The memory was not enough.
    """
    try:
        yield
    except OutOfMemoryError:
        raise
    except Exception as error:
        fault = find_fault(error)
        if not isinstance(fault, OutOfMemoryError):
            raise
        raise OutOfMemoryError(f"{fault} A new run takes less with {_LESS}. {remedy}".rstrip()) from error
