"""Texts with labels, as every source delivers them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lorafit.labels import LabelSet

__all__ = ["LENGTH_COLUMN", "RawRows", "RawSplits", "Split", "Splits"]

LENGTH_COLUMN = "words"
"""Name under which results by the length of a text stand, so that no column of the data may have it."""


_FEWEST_IN_STRATUM: Final = 10
_PARTS_OF_RANGE: Final = 5


@dataclass(frozen=True)
class RawRows:
    """Rows as read, nothing checked yet.

    Attributes:
        origin: Where they come from, for messages ("reviews.csv", "imdb train").
        texts: What stands in the text column, of any type.
        labels: What stands in the label column, of any type.
        ids: Number of each row where that is not its place in `texts`, counted from 1.
        columns: Values of further columns by their names, by which results are told apart.
    """

    origin: str
    texts: Sequence[object]
    labels: Sequence[object]
    ids: Sequence[int] | None = None
    columns: Mapping[str, Sequence[object]] = field(default_factory=dict)


@dataclass(frozen=True)
class RawSplits:
    """A source as read, with the splits that it has.

    Attributes:
        train: Rows to train on.
        validation: Published validation rows, or None.
        test: Published test rows, or None.
        labels: The classes where the source fixes their names and order, or None to take them from train.
        notes: What a user should know about the source.
    """

    train: RawRows
    validation: RawRows | None = None
    test: RawRows | None = None
    labels: LabelSet | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    """Checked rows of one split, in input order.

    Attributes:
        ids: Shape (n,), int64: the row's number in the file or split it was read from, counted from 1.
        texts: n texts, none of them empty.
        labels: By task: shape (n,), int64: class ids; shape (n, classes), int64: 1 where a label applies, else 0; or
            shape (n,), float64: the numbers.
        columns: n values of each slice column by its name, "" where there is none; the fingerprint leaves them out.
    """

    ids: NDArray[np.int64]
    texts: tuple[str, ...]
    labels: NDArray[Any]
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def strata(self) -> NDArray[np.int64]:
        """Shape (n,): groups of rows that cuts and samples keep in proportion.

        A row's class; of several labels the rarest that it has; of a number its fifth of the range by rank. Of the
        latter two, groups of fewer than 10 rows are taken together with the largest.
        """
        if self.labels.dtype.kind == "f":
            ends = np.quantile(self.labels, np.arange(1, _PARTS_OF_RANGE) / _PARTS_OF_RANGE)
            return _join_small(np.searchsorted(ends, self.labels))
        if self.labels.ndim == 2:
            counts = np.where(self.labels == 1, self.labels.sum(axis=0), len(self) + 1)
            return _join_small(np.where(self.labels.any(axis=1), counts.argmin(axis=1), self.labels.shape[1]))
        return self.labels

    def select(self, positions: NDArray[np.int64]) -> "Split":
        """Return the rows at `positions` (shape (m,), counted from 0), in that order."""
        return Split(
            ids=self.ids[positions],
            texts=tuple(self.texts[position] for position in positions),
            labels=self.labels[positions],
            columns={name: tuple(values[position] for position in positions) for name, values in self.columns.items()},
        )

    def fingerprint(self) -> str:
        """Return the SHA-256 over ids, labels and texts in order, as 64 hexadecimal digits."""
        digest = hashlib.sha256()
        digest.update(self.ids.astype("<i8").tobytes())
        digest.update(self.labels.astype("<f8" if self.labels.dtype.kind == "f" else "<i8").tobytes())
        for text in self.texts:
            encoded = text.encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(8, "little"))
            digest.update(encoded)
        return digest.hexdigest()


@dataclass(frozen=True)
class Splits:
    """The data of a run.

    Attributes:
        source: Name of the source as the user gave it; paths absolute.
        labels: The classes.
        train: Rows to train on.
        validation: Rows that choose (epochs, rates); never trained on.
        test: Rows for the last measurement only.
        notes: What a user should know: rows left out, splits cut, duplicates.
        calibration: Rows that calibrate; they neither train nor choose. None where there are too few.
    """

    source: str
    labels: LabelSet
    train: Split
    validation: Split
    test: Split
    notes: tuple[str, ...] = ()
    calibration: Split | None = None

    @property
    def by_name(self) -> dict[str, Split]:
        """The splits that there are, by their names."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return parts if self.calibration is None else {**parts, "calibration": self.calibration}


def _join_small(strata: NDArray[np.int64]) -> NDArray[np.int64]:
    names, inverse, counts = np.unique(strata, return_inverse=True, return_counts=True)
    return np.where(counts[inverse] < _FEWEST_IN_STRATUM, names[counts.argmax()], strata).astype(np.int64)
