"""What the model reads in a run: batches of tokens, and the frozen layers' hidden states where they are kept."""

import shutil
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from lorafit.config import TrainingConfig
from lorafit.errors import TrainingInterruptedError
from lorafit.inference.predictor import plan_prediction
from lorafit.models.acceleration.prefix_cache import PrefixCache, PrefixedTexts
from lorafit.models.batching import BatchPlan, plan_batches
from lorafit.models.builtin import cache_folder
from lorafit.models.tokenization import TokenizedTexts
from lorafit.runs.journal import Journal
from lorafit.system.progress import Progress
from lorafit.training.prepare import Prepared

__all__ = ["EpochBatches", "ModelInputs", "TrainingRows", "build_train_loader", "kept_prefix", "open_inputs"]


ModelInputs = TokenizedTexts | PrefixedTexts
"""Texts as a model reads them: their tokens, with the frozen layers' hidden states where they are kept."""


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


@contextmanager
def kept_prefix(
    cache: PrefixCache,
    texts: Mapping[str, tuple[TokenizedTexts, BatchPlan]],
    config: TrainingConfig,
    *,
    pad_id: int,
    remove: Path | None,
    progress: Progress,
) -> Iterator[dict[str, ModelInputs]]:
    """Give texts with the hidden states of the frozen layers, or as they are where these cannot be kept; that is said.

    Args:
        cache: Where hidden states are kept.
        texts: Tokenised texts by name, and the batches they are read in.
        config: The training section.
        pad_id: Token id of the padding.
        remove: Folder to remove after the block, unless it was interrupted; None leaves the files for later runs.
        progress: Told what is done.

    Yields:
        The texts by name.
    """
    inputs: dict[str, ModelInputs] = {name: tokens for name, (tokens, _) in texts.items()}
    interrupted = False
    try:
        inputs, obstacle = _open(cache, texts, config, pad_id, progress)
        if obstacle is not None:
            progress.say(f"the frozen layers' hidden states are not kept: {obstacle}")
        yield inputs
    except (KeyboardInterrupt, TrainingInterruptedError):
        interrupted = True
        raise
    finally:
        inputs.clear()
        if remove is not None and not interrupted:
            shutil.rmtree(remove, ignore_errors=True)


def _open(
    cache: PrefixCache,
    texts: Mapping[str, tuple[TokenizedTexts, BatchPlan]],
    config: TrainingConfig,
    pad_id: int,
    progress: Progress,
) -> tuple[dict[str, ModelInputs], str | None]:
    """Return the texts with their hidden states and None, or the texts as they are and why."""
    plain: dict[str, ModelInputs] = {name: tokens for name, (tokens, _) in texts.items()}
    inputs: dict[str, ModelInputs] = {}
    try:
        if obstacle := cache.find_obstacle(list(texts.values()), limit_bytes=int(config.prefix_cache_gb * 1e9)):
            return plain, obstacle
        size = cache.size([tokens for tokens, _ in texts.values()])
        progress.say(f"keeping the frozen layers' hidden states on disk: {size / 1e9:.2f} GB")
        for name, (tokens, plan) in texts.items():
            progress.start(f"frozen layers, {name} rows", total=len(tokens), unit="text")
            inputs[name] = cache.open(tokens, plan, pad_id, on_progress=progress.update)
            progress.finish()
    except OSError as error:
        progress.finish()
        return plain, f"they could not be written ({error.strerror})"
    return inputs, None


@contextmanager
def open_inputs(
    prepared: Prepared,
    journal: Journal,
    progress: Progress,
    *,
    prefix_folder: Path | None = None,
    keeps_measured: bool = False,
) -> "Iterator[Mapping[str, ModelInputs]]":
    """Open the texts of a run, with the frozen layers' hidden states where that pays.

    Args:
        prepared: Data and model.
        journal: Keeps the run's record.
        progress: Told what is done.
        prefix_folder: Where the hidden states are kept for several runs; None for this one alone, after which they go.
        keeps_measured: Whether calibration and test rows' are kept, too, for runs that share them; not where all take
            more than half of `training.prefix_cache_gb`, so that there is room for another method's.

    Yields:
        The texts by split.
    """
    from lorafit.models.acceleration.encoder_block import frozen_depth
    from lorafit.models.acceleration.prefix_cache import PrefixCache
    from lorafit.training.inputs import kept_prefix

    config, tokens, model = prepared.config, prepared.tokens, prepared.adapted.model
    limits = {"max_rows": config.training.batch_size, "max_tokens": config.training.batch_tokens}
    plans = {name: plan_prediction(texts.lengths) for name, texts in tokens.items() if name != "train"}
    plans["train"] = plan_batches(tokens["train"].lengths, **limits)
    steps, again = len(plans["train"]), prefix_folder is not None
    if not config.wants_prefix_cache(steps_per_epoch=steps, frozen=frozen_depth(model), again=again):
        yield tokens
        return
    shared = config.training.prefix_cache == "shared"
    folder = cache_folder() / "prefix_cache" if shared else prefix_folder or journal.layout.prefix_cache
    cache = PrefixCache(model, prepared.precision, base_digest=prepared.encoder.digest(), folder=folder)
    groups: list[tuple[str, ...]] = [("train", "validation")]
    if keeps_measured and cache.size(list(tokens.values())) <= config.training.prefix_cache_gb * 1e9 / 2:
        groups.append(tuple(name for name in tokens if name not in groups[0]))
    inputs: ChainMap[str, ModelInputs] = ChainMap(dict(tokens))
    with ExitStack() as stack:
        with journal.stage("frozen layers"):
            for names in groups:
                states = stack.enter_context(
                    kept_prefix(
                        cache,
                        {name: (tokens[name], plans[name]) for name in names},
                        config.training,
                        pad_id=prepared.pad_id,
                        remove=None if shared or prefix_folder else folder,
                        progress=progress,
                    )
                )
                inputs = inputs.new_child(states)
        yield inputs
