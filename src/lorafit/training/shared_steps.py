"""Steps that several ranks share: the part of every batch that one reads, its dropout, and how long it waits."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from transformers import TrainerCallback, TrainerState, TrainingArguments

from lorafit.training.inputs import TrainingRows
from lorafit.training.ranks import Ranks


def split_batch(lengths: NDArray[np.int64], parts: int) -> list[list[int]]:
    """Deal the rows of a batch out so that all parts have nearly as many tokens: the longest first, to the emptiest.

    It is Graham's rule (1969, "Bounds on Multiprocessing Timing Anomalies"): two parts differ by no more than the
    longest row.

    Args:
        lengths: Tokens of each row, shape (n,).
        parts: How many parts.

    Returns:
        The places of each part's rows; a part has none where there are fewer rows than parts.
    """
    dealt: list[list[int]] = [[] for _ in range(parts)]
    tokens = [0] * parts
    for place in np.argsort(-lengths, kind="stable").tolist():
        emptiest = tokens.index(min(tokens))
        dealt[emptiest].append(place)
        tokens[emptiest] += int(lengths[place])
    return dealt


class SharedSteps(TrainerCallback):
    """One rank's part in every step, whose loss and gradients are together those of the whole batch.

    torch averages the gradients of the ranks. So the loss of a part is multiplied by its `share`: its rows over those
    of the batch, times the ranks. A rank without a row reads one that counts nothing, as it must take part in the step.
    """

    def __init__(self, rows: TrainingRows, ranks: Ranks, seed: int, find_model: Callable[[], Any]) -> None:
        self._rows = rows
        self._ranks = ranks
        self._seed = seed
        self._find_model = find_model
        self._tokens = self._positions = 0
        self._began = self._ready = self._spent = self._waited = 0.0

    def collate(self, items: Sequence[int]) -> dict[str, Any]:
        """Return this rank's part of the batch of these items, with its `share`."""
        texts, places = self._rows.find(items)
        part = split_batch(texts.lengths[places], self._ranks.count)[self._ranks.rank]
        batch: dict[str, Any] = dict(self._rows.collate([items[place] for place in part or [0]]))
        self._positions += batch["attention_mask"].numel()
        self._tokens += int(batch["attention_mask"].sum()) if part else 0
        return batch | {"share": len(part) * self._ranks.count / len(items)}

    def measure(self) -> dict[str, float]:
        """Return what all ranks have measured together since training last began, as fields of `TrainingRecord`."""
        idle = self._waited / self._spent if self._spent else 0.0
        told = self._ranks.gather((self._tokens, self._positions, idle))
        tokens, positions, idle = (sum(values) for values in zip(*told, strict=True))
        found = {"processes": self._ranks.count, "machines": self._ranks.machines, "idle_share": idle / len(told)}
        return found | ({"padding_share": 1 - tokens / positions} if positions else {})

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Hear when this rank's gradients are there: torch sends them then."""
        self._find_model().register_comm_hook(None, self._send)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Let dropout depend on step and rank alone: a resumed run goes on exactly, and no rank draws as another."""
        numbers = np.random.SeedSequence((self._seed, state.global_step, self._ranks.rank))
        torch.manual_seed(int(numbers.generate_state(1)[0]))
        self._began = time.perf_counter()

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Count the step; the gradients are those of all ranks now."""
        now = time.perf_counter()
        self._spent += now - self._began
        self._waited += now - self._ready

    def _send(
        self,
        _: object,
        bucket: distributed.GradBucket,  # type: ignore[name-defined]  # torch looks for this type, and exports it untyped
    ) -> torch.futures.Future[torch.Tensor]:
        self._ready = time.perf_counter()
        return allreduce_hook(None, bucket)  # type: ignore[arg-type]  # None is all ranks
