"""What the model reads in training: batches of tokens, or of the frozen layers' cached hidden states."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
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

Collate = Callable[[Sequence[int]], dict[str, Any]]
"""Makes a batch of some items."""


@dataclass(frozen=True)
class TrainingRows(Dataset[int]):
    """Tokenised training rows, from `build_rows` where a text may be several of them.

    Items 0 to n - 1 are the n inputs, n to 2n - 1 the same ones, cut shorter.

    Attributes:
        texts: Token ids of n inputs, with the frozen layers' hidden states where these are cached.
        labels: Shape (n, …): the targets of the loss, from `Task.targets`.
        pad_id: Token id of the padding.
        weights: Shape (n,), (n, 1) or (n, outputs): what each loss counts, 1 on the average; None where all count the
            same.
        groups: Shape (n,): groups of which every epoch draws as many rows each; None where it has each row once.
        short: The inputs cut shorter, where that is wanted.
    """

    texts: ModelInputs
    labels: NDArray[Any]
    pad_id: int
    weights: NDArray[np.float32] | None = None
    groups: NDArray[np.int64] | None = None
    short: TokenizedTexts | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, item: int) -> int:
        return item

    def collate(self, items: Sequence[int]) -> dict[str, torch.Tensor]:
        """Return what `pad` gives of some items, all whole or all short, their `labels` and, if any, `weights`."""
        texts, places = self.find(items)
        batch = {name: torch.as_tensor(part) for name, part in texts.pad(places, self.pad_id).items()}
        batch["labels"] = torch.from_numpy(self.labels[places])
        if self.weights is not None:
            batch["weights"] = torch.from_numpy(self.weights[places])
        return batch

    def find(self, items: Sequence[int]) -> tuple[ModelInputs, NDArray[np.int64]]:
        """Return the texts that some items, all whole or all short, are of, and their places there."""
        is_short, places = np.divmod(np.asarray(items), len(self))
        return self.short if self.short is not None and is_short.any() else self.texts, places


def give_inputs(values: NDArray[Any], windows: NDArray[np.int64] | None) -> NDArray[Any]:
    """Return what each text has, shape (texts, …), for each of its inputs, whose number in windows is `windows`."""
    return values if windows is None else np.repeat(values, windows, axis=0)


def build_rows(
    texts: ModelInputs,
    labels: NDArray[Any],
    pad_id: int,
    weights: NDArray[np.float32] | None = None,
    groups: NDArray[np.int64] | None = None,
    short: TokenizedTexts | None = None,
) -> TrainingRows:
    """Give every input the label of its text, and all windows of a text together the weight of a text.

    Args:
        texts: The inputs of n texts.
        labels: Shape (n, …): the targets of the loss.
        pad_id: Token id of the padding.
        weights: Shape (n,), (n, 1) or (n, outputs): what the loss of each text counts; None where all count the same.
        groups: Shape (n,): groups of texts that are to be drawn equally often; None where each text is taken once.
        short: The same texts cut shorter, an input each; None where there are none, or texts are in windows.

    Returns:
        The rows.
    """
    windows = texts.windows
    if windows is None:
        return TrainingRows(texts, labels, pad_id, weights, groups, short)
    shares = (len(texts) / len(windows) / windows).astype(np.float32)
    if weights is not None:
        shares = (shares[:, np.newaxis] * weights.reshape(len(weights), -1)).astype(np.float32)
    owners = np.repeat(np.arange(len(windows)), windows)
    if groups is not None:  # windows are drawn, so groups of long texts have lighter ones
        ids = np.unique(groups, return_inverse=True)[1]
        per_window = np.bincount(ids) / np.bincount(ids, windows) * len(owners) / len(windows)
        shares = (shares.T / per_window[ids]).T.astype(np.float32)
    return TrainingRows(texts, labels[owners], pad_id, shares[owners], None if groups is None else groups[owners])


class BalancedDraw:
    """Draws as many rows of every group, about n in all, into places that are the same in every epoch.

    The rows of a group are sorted by length and cut into as many parts as it has places; each place takes one row of
    its part at random. So a frequent group shows other rows in every epoch, a rare one all of its rows several times,
    and no row is longer than its place (`lengths`), from which batches can be planned once.
    """

    def __init__(self, lengths: NDArray[np.int64], groups: NDArray[np.int64]) -> None:
        _, ids, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        places = -(-len(groups) // len(sizes))
        self._rows = np.lexsort((-lengths, ids))
        cuts = np.arange(places + 1) * sizes[:, np.newaxis] // places
        begins = (np.cumsum(sizes) - sizes)[:, np.newaxis]
        self._starts = (begins + cuts[:, :-1]).ravel()
        self._sizes = np.maximum(np.diff(cuts, axis=1), 1).ravel()
        # Rounded up by at most an eighth, so that many places are alike and copies of a row seldom meet in a batch.
        longest = lengths[self._rows[self._starts]]
        step = 1 << np.maximum(np.ceil(np.log2(np.maximum(longest, 1))).astype(np.int64) - 4, 0)
        self.lengths: NDArray[np.int64] = np.minimum(-(-longest // step) * step, lengths.max(initial=0))

    def draw(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return the row in each place."""
        return np.asarray(self._rows[self._starts + rng.integers(self._sizes)], dtype=np.int64)


class EpochBatches(Sampler[list[int]]):
    """A batch sampler whose order depends on seed and epoch alone, so that a resumed epoch goes on exactly.

    The Trainer fixes the number of batches per epoch before the first one and drops the rest. Here rows change places
    only with rows of the same length, so that every epoch has the same number of batches and each row once. With
    `groups` (shape (n,)) an epoch is a balanced draw of rows, whose lengths are bounded by those of its places. After
    `begin_short` the first batches over all epochs are of short items.
    """

    def __init__(
        self,
        lengths: NDArray[np.int64],
        *,
        max_rows: int,
        max_tokens: int,
        seed: int,
        groups: NDArray[np.int64] | None = None,
    ) -> None:
        self._draw = None if groups is None else BalancedDraw(lengths, groups)
        self._places = lengths if self._draw is None else self._draw.lengths
        self._rows = np.arange(len(lengths)) if self._draw is None else self._draw.draw(np.random.default_rng(seed))
        self._lengths = lengths
        self._tokens = self._sum_tokens(int(lengths.max()))
        self._seed = seed
        self._epoch = 0
        self._short_steps = self._longest_short = self._short_tokens = 0
        self.plan: BatchPlan = plan_batches(self._places, max_rows=max_rows, max_tokens=max_tokens)

    def begin_short(self, steps: int, *, longest: int) -> None:
        """Let the first steps over all epochs read inputs cut to so many tokens."""
        self._short_steps, self._longest_short = steps, longest
        self._short_tokens = self._sum_tokens(longest)

    def count_tokens(self, steps: int) -> float:
        """Return the tokens of the first steps, as they are on the average; of balanced ones as one draw has them."""
        short = min(steps, self._short_steps)
        return (short * self._short_tokens + (steps - short) * self._tokens) / len(self)

    def compute_padding_share(self, steps: int) -> float:
        """Return the share of padding in the first steps, 0 to 1; of balanced ones as one draw has it."""
        short, positions = min(steps, self._short_steps), 0.0
        for made, longest in ((short, self._longest_short), (steps - short, int(self._lengths.max()))):
            if made:
                places = np.minimum(self._places, longest)
                positions += made * float(places.sum()) / (1 - self.plan.padding_share(places)) / len(self)
        return 1 - self.count_tokens(steps) / positions

    def _sum_tokens(self, longest: int) -> int:
        """Return the tokens of an epoch's inputs where they are cut to so many."""
        return int(np.minimum(self._lengths[self._rows], longest).sum())

    def batch_at(self, step: int) -> list[int]:
        """Return the rows of a step, counted from 0 over all epochs."""
        epoch, place = divmod(step, len(self))
        return next(islice(self._draw_batches(epoch), place, None))

    def mark_short(self, rows: Sequence[int], step: int) -> list[int]:
        """Return rows as the items that a step reads of them."""
        offset = len(self._lengths) if step < self._short_steps else 0
        return [row + offset for row in rows]

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, counted from 0, of the next iteration."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[list[int]]:
        for step, rows in enumerate(self._draw_batches(self._epoch), start=self._epoch * len(self)):
            yield self.mark_short(rows, step)

    def _draw_batches(self, epoch: int) -> Iterator[list[int]]:
        rng = np.random.default_rng((self._seed, epoch))
        plan = self.plan.shuffled(self._places, rng)
        order = rng.permutation(len(plan))
        rows = self._rows if self._draw is None else self._draw.draw(rng)
        for batch in order:
            yield rows[plan[int(batch)]].tolist()


def build_train_loader(rows: TrainingRows, batches: EpochBatches, collate: Collate | None = None) -> DataLoader[int]:
    """Return the Trainer's loader: batches in the order of the sampler, padded or as `collate` makes them of items."""
    return DataLoader(rows, batch_sampler=batches, collate_fn=collate or rows.collate)


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
