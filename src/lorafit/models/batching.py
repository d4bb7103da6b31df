"""Batches of texts of similar length under a token budget.

Everything that runs a model goes through here: training, validation, prediction.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

BF16_POSITIONS: Final = 64
"""Positions below which a batch takes as long, within a twentieth, in torch's bfloat16 on a CPU that has it."""


@dataclass(frozen=True)
class BatchPlan:
    """Rows sorted by length and cut into batches.

    Attributes:
        order: Shape (n,), int64: row positions, longest text first.
        bounds: Shape (batches + 1,), int64: batch b is `order[bounds[b]:bounds[b + 1]]`.
    """

    order: NDArray[np.int64]
    bounds: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, batch: int) -> NDArray[np.int64]:
        return self.order[self.bounds[batch] : self.bounds[batch + 1]]

    def shuffled(self, lengths: NDArray[np.int64], rng: np.random.Generator) -> "BatchPlan":
        """Exchange rows of the same length and padding at random; every batch keeps its shape.

        A row is always padded to the same length, so that whatever is computed from it alone is rounded the same way
        in every epoch (kept hidden states rely on it).

        Args:
            lengths: Tokens a text, shape (n,): those the plan was made from.
            rng: Source of randomness.

        Returns:
            A plan with the same number of batches, each of the same size and length.
        """
        padded = np.empty_like(lengths)
        padded[self.order] = np.repeat(self.shapes(lengths)[:, 1], np.diff(self.bounds))
        rows = rng.permutation(len(lengths))
        return BatchPlan(order=rows[np.lexsort((-padded[rows], -lengths[rows]))], bounds=self.bounds)

    def shapes(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows and the length of each batch, padding included, shape (batches, 2)."""
        longest = lengths[self.order[self.bounds[:-1]]]
        return np.stack([np.diff(self.bounds), pad_lengths(longest, longest=int(lengths.max(initial=0)))], axis=1)

    def padding_share(self, lengths: NDArray[np.int64]) -> float:
        """Return the share of padding among all positions of all batches, 0 to 1."""
        positions = int(self.shapes(lengths).prod(axis=1).sum())
        return 1 - int(lengths.sum()) / positions if positions else 0.0


def pad_lengths(lengths: NDArray[np.int64], *, longest: int, steps: int = 16) -> NDArray[np.int64]:
    """Round lengths up by at most a sixteenth, so that batches come in few different lengths.

    The library beneath torch makes its kernels anew for every shape, which takes time and memory: up to 32 tokens every
    length is one of its own, up to 64 every second one, up to 128 every fourth, and so on.

    Args:
        lengths: Longest text of each batch.
        longest: Longest text of all: no length is rounded up beyond it.
        steps: Lengths between a power of two and the next, a power of two: with 8, lengths are rounded up by an eighth
            at most.

    Returns:
        Shape and dtype of `lengths`: what each batch is padded to.
    """
    bits = np.ceil(np.log2(np.maximum(lengths, 1))).astype(np.int64)
    step = 1 << np.maximum(bits - steps.bit_length(), 0)
    padded: NDArray[np.int64] = np.minimum(-(-lengths // step) * step, longest)
    return padded


def pad_to_few_shapes(rows: int, length: int, *, longest: int, fewest: int = BF16_POSITIONS) -> int:
    """Round a length up so that few products of rows and lengths come up, however many batches there are.

    In bfloat16 that library keeps for good what it makes for each such product. Rows must be a power of two, as
    `plan_batches` gives them with `few_shapes`: then there are eight products between a power of two and the next, and
    four of batches of fewer than eight texts, whose time goes into other things than products.

    Args:
        rows: Texts in the batch.
        length: Longest of them.
        longest: Longest text that the model takes.
        fewest: Positions that a batch has at least, at least 1.

    Returns:
        What the batch is padded to.
    """
    at_least = max(length, fewest // rows)
    return int(pad_lengths(np.array(at_least), longest=longest, steps=4 if rows < 8 else 8))


def plan_batches(lengths: NDArray[np.int64], *, max_rows: int, max_tokens: int, few_shapes: bool = False) -> BatchPlan:
    """Sort texts by length and cut them into batches that are nearly free of padding.

    Each is padded to its longest text, rounded up a little (`pad_lengths`). A batch closes when one more row would pass
    either limit; a single text longer than `max_tokens` is a batch of its own. A last batch less than half full is
    evened out with the one before it, so that no optimiser step rests on a handful of rows.

    Args:
        lengths: Tokens a text, shape (n,).
        max_rows: Most rows in a batch.
        max_tokens: Most positions in a batch, padding included.
        few_shapes: Let every batch have a power of two of rows, for `pad_to_few_shapes`.

    Returns:
        The plan; every row is in exactly one batch.
    """
    order = np.argsort(-lengths, kind="stable")
    padded = np.maximum(pad_lengths(lengths[order], longest=int(lengths.max(initial=0))), 1)
    bounds = [0]
    while bounds[-1] < len(order):
        rows = min(max(1, min(max_rows, max_tokens // int(padded[bounds[-1]]))), len(order) - bounds[-1])
        bounds.append(bounds[-1] + (1 << (rows.bit_length() - 1) if few_shapes else rows))
    if not few_shapes and len(bounds) > 2 and (bounds[-1] - bounds[-2]) * 2 < bounds[-2] - bounds[-3]:
        bounds[-2] = (bounds[-3] + bounds[-1] + 1) // 2
    return BatchPlan(order=order, bounds=np.array(bounds, dtype=np.int64))
