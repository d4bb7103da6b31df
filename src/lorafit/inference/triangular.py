"""A lower triangular matrix without its zeros: half the memory, and half the work of a product."""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

_STRIP: Final = 64
"""Rows that are kept together, with the few zeros at the end of all but the last of them."""

_FEW_ROWS: Final = 64
"""Rows, at most, that are multiplied one by one: the threads of a whole product would stay awake, and take the cores
from the model when the next text comes."""


@dataclass(frozen=True, eq=False)
class Triangular:
    """A matrix of shape (width, width) that is zero above its diagonal.

    Attributes:
        strips: Its rows from the first on, 64 at a time, each of shape (rows, columns up to the last row's diagonal).
    """

    strips: tuple[NDArray[np.float32], ...]

    @classmethod
    def of(cls, matrix: NDArray[np.floating]) -> Self:
        """Take a whole matrix, of which what is above the diagonal is passed over; it is rounded to fp32."""
        lower = np.tril(matrix).astype(np.float32)
        ends = [*range(_STRIP, len(lower), _STRIP), len(lower)]
        return cls(tuple(lower[max(end - 1, 0) // _STRIP * _STRIP : end, :end].copy() for end in ends))

    @property
    def width(self) -> int:
        """Rows, and columns."""
        width: int = self.strips[-1].shape[1]
        return width

    def whole(self) -> NDArray[np.float32]:
        """Return the matrix with its zeros."""
        return np.concatenate([np.pad(one, ((0, 0), (0, self.width - one.shape[1]))) for one in self.strips])

    def multiply(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Multiply the matrix by vectors.

        Args:
            vectors: Shape (n, width): each row is one.

        Returns:
            Shape (n, width), in fp64.
        """
        few = len(vectors) <= _FEW_ROWS
        parts = (
            np.vecdot(vectors[:, np.newaxis, : one.shape[1]], one.astype(np.float64))
            if few
            else vectors[:, : one.shape[1]] @ one.T.astype(np.float64)
            for one in self.strips
        )
        return np.concatenate([*parts], axis=1)
