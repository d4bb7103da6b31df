"""The training rows as the Trainer reads them: one whole batch an item, in a new order every epoch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from lorafit.models.batching import BatchPlan, plan_batches
from lorafit.training.prefix import ModelInputs

__all__ = ["EpochBatches", "TrainingRows", "build_train_loader"]


@dataclass(frozen=True)
class TrainingRows(Dataset[int]):
    """Tokenised training rows.

    Attributes:
        texts: Token ids of n texts, with the frozen layers' hidden states where they are kept.
        labels: Shape (n, …): what the loss compares with, from `build_targets`.
        pad_id: Token id of the padding.
    """

    texts: ModelInputs
    labels: NDArray[Any]
    pad_id: int

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, row: int) -> int:
        return row

    def collate(self, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        """Return `input_ids` and `attention_mask` of shape (rows, longest) and `labels` of shape (rows, …).

        Where the frozen layers' hidden states are kept, they come as `prefix_hidden_states`.
        """
        input_ids, mask, *states = self.texts.pad(rows, self.pad_id)
        return {
            "input_ids": torch.from_numpy(input_ids),
            "attention_mask": torch.from_numpy(mask),
            "labels": torch.from_numpy(self.labels[np.asarray(rows)]),
            **({"prefix_hidden_states": states[0]} if states else {}),
        }


class EpochBatches(Sampler[list[int]]):
    """A batch sampler whose order depends on seed and epoch alone, so that a resumed epoch goes on exactly.

    The Trainer fixes the number of batches an epoch before the first and drops what is over. Here rows change places
    only with rows of the same length, so every epoch has the same number of batches, and each row comes once.
    """

    def __init__(self, lengths: NDArray[np.int64], *, max_rows: int, max_tokens: int, seed: int) -> None:
        self._lengths = lengths
        self._seed = seed
        self._epoch = 0
        self.plan: BatchPlan = plan_batches(lengths, max_rows=max_rows, max_tokens=max_tokens)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0, that the next iteration is."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng((self._seed, self._epoch))
        plan = self.plan.shuffled(self._lengths, rng)
        for batch in rng.permutation(len(plan)):
            yield plan[int(batch)].tolist()


def build_train_loader(rows: TrainingRows, batches: EpochBatches) -> DataLoader[int]:
    """Return the loader the Trainer iterates over: padded batches in the sampler's order."""
    return DataLoader(rows, batch_sampler=batches, collate_fn=rows.collate)
