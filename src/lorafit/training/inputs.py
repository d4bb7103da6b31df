"""What the model reads in training: batches of tokens, or of the frozen layers' cached hidden states."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from lorafit.models.acceleration.prefix_cache import PrefixCache, PrefixedTexts
from lorafit.models.batching import BatchPlan, plan_batches
from lorafit.models.tokenization import TokenizedTexts
from lorafit.system.progress import Progress

ModelInputs = TokenizedTexts | PrefixedTexts
"""Texts as the model reads them: their tokens, with the frozen layers' hidden states where these are cached."""


@dataclass(frozen=True)
class TrainingRows(Dataset[int]):
    """Tokenised training rows.

    Attributes:
        texts: Token ids of n texts, with the frozen layers' hidden states where these are cached.
        labels: Shape (n, …): the targets of the loss, from `build_targets`.
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

        Cached hidden states of the frozen layers are added as `prefix_hidden_states`.
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

    The Trainer fixes the number of batches per epoch before the first one and drops the rest. Here rows change places
    only with rows of the same length, so that every epoch has the same number of batches and each row once.
    """

    def __init__(self, lengths: NDArray[np.int64], *, max_rows: int, max_tokens: int, seed: int) -> None:
        self._lengths = lengths
        self._seed = seed
        self._epoch = 0
        self.plan: BatchPlan = plan_batches(lengths, max_rows=max_rows, max_tokens=max_tokens)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, counted from 0, of the next iteration."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng((self._seed, self._epoch))
        plan = self.plan.shuffled(self._lengths, rng)
        for batch in rng.permutation(len(plan)):
            yield plan[int(batch)].tolist()


def build_train_loader(rows: TrainingRows, batches: EpochBatches) -> DataLoader[int]:
    """Return the Trainer's loader: padded batches in the order of the sampler."""
    return DataLoader(rows, batch_sampler=batches, collate_fn=rows.collate)


def cache_hidden_states(
    cache: PrefixCache,
    texts: Mapping[str, tuple[TokenizedTexts, BatchPlan]],
    *,
    limit_bytes: int,
    pad_id: int,
    progress: Progress,
) -> dict[str, ModelInputs]:
    """Compute the hidden states of the frozen layers, or find them on disk.

    Args:
        cache: The cache.
        texts: Tokenised texts by split, and the batches in which they are read.
        limit_bytes: Most that all of the cache may take.
        pad_id: Token id of the padding.
        progress: Receives the progress, and why nothing is cached where that is so.

    Returns:
        The texts by split, with their hidden states, or as they are where these cannot be cached.
    """
    plain: dict[str, ModelInputs] = {name: tokens for name, (tokens, _) in texts.items()}
    inputs: dict[str, ModelInputs] = {}
    try:
        obstacle = cache.find_obstacle(list(texts.values()), limit_bytes=limit_bytes)
        if obstacle is None:
            size = cache.size([tokens for tokens, _ in texts.values()])
            progress.say(f"caching the frozen layers' hidden states on disk: {size / 1e9:.2f} GB")
            for name, (tokens, plan) in texts.items():
                progress.start(f"frozen layers, {name} rows", total=len(tokens), unit="text")
                inputs[name] = cache.open(tokens, plan, pad_id, on_progress=progress.update)
                progress.finish()
            return inputs
    except OSError as error:
        progress.finish()
        obstacle = f"they could not be written ({error.strerror})"
    progress.say(f"the frozen layers' hidden states are not cached: {obstacle}")
    return plain
