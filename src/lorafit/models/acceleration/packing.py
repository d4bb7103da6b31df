"""Batches without their padding, for texts of unlike lengths in one batch.

What a block computes token by token it computes of the tokens alone, one after the other; attention alone gets the
rectangle of rows and positions (Zeng et al. 2022, arXiv:2208.08124, of BERT on GPUs).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

_LEAST = 0.1
"""Share of padding from which on it pays: tokens are copied in and out of the rectangle in every layer."""


@dataclass(frozen=True)
class Packing:
    """Where the tokens of a batch stand in its rectangle.

    Attributes:
        rows: Texts, at least 2.
        length: Positions of each, padding included.
        places: Shape (tokens,): where each stands, counted row by row; group by group.
        starts: Shape (rows,): which of the tokens is the first of each text.
        groups: Which of the tokens are of the texts of a group, by its number.
    """

    rows: int
    length: int
    places: torch.Tensor
    starts: torch.Tensor
    groups: Mapping[int, slice]

    @staticmethod
    def is_packed(states: torch.Tensor) -> bool:
        """Return whether states are packed: shape (1, tokens, …)."""
        return len(states) == 1

    def pack(self, states: torch.Tensor) -> torch.Tensor:
        """Bring (rows, length, …) to (1, tokens, …)."""
        return states.reshape(-1, *states.shape[2:])[self.places].unsqueeze(0)

    def unpack(self, states: torch.Tensor) -> torch.Tensor:
        """Bring (1, tokens, …) to (rows, length, …); padding is 0."""
        rectangle = states.new_zeros(self.rows * self.length, *states.shape[2:])
        rectangle.index_copy_(0, self.places, states[0])
        return rectangle.view(self.rows, self.length, *states.shape[2:])

    def take_first(self, states: torch.Tensor) -> torch.Tensor:
        """Return the first token of each text, shape (rows, 1, …), of packed states."""
        return states[0, self.starts].unsqueeze(1)


_packing: ContextVar[Packing | None] = ContextVar("how the batch being computed is packed", default=None)


def current_packing() -> Packing | None:
    """Return how the batch being computed is packed; None where it is not."""
    return _packing.get()


@contextmanager
def packed(mask: torch.Tensor | None, groups: NDArray[np.int64]) -> Iterator[None]:
    """Inside the block compute the fused blocks of a batch without its padding, where there is enough of it.

    The last of them must give the first token alone, as below a head that reads no other.

    Args:
        mask: Shape (rows, length): 1 = token, 0 = padding, which stands behind the tokens; None for no padding.
        groups: Shape (rows,): the number of each text's group, whose tokens are to lie together.
    """
    if mask is None or len(mask) == 1 or float((mask == 0).float().mean()) < _LEAST:
        yield
        return
    (rows, length), lengths = mask.shape, mask.sum(dim=1).numpy()
    order = np.argsort(groups, kind="stable")
    ends = np.cumsum(lengths[order])
    starts = np.empty_like(ends)
    starts[order] = ends - lengths[order]
    within = np.arange(ends[-1]) - np.repeat(starts[order], lengths[order])
    places = np.repeat(order * length, lengths[order]) + within
    numbers, first = np.unique(groups[order], return_index=True)
    bounds = [*starts[order][first].tolist(), int(ends[-1])]
    parts = {group: slice(*pair) for group, pair in zip(numbers.tolist(), pairwise(bounds), strict=True)}
    token = _packing.set(Packing(rows, length, torch.from_numpy(places), torch.from_numpy(starts), parts))
    try:
        yield
    finally:
        _packing.reset(token)
