"""Texts with labels, as every source delivers them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorafit.system.text import Text
from lorafit.tasks.base import Task


@dataclass(frozen=True)
class RawRows:
    """Rows as read, nothing checked yet.

    Attributes:
        origin: Where they come from, for messages ("reviews.csv", "imdb train").
        texts: What stands in the text column, of any type; of pairs, a tuple of both.
        labels: What stands in the label column, of any type.
        ids: Number of each row where that is not its place in `texts`, counted from 1.
        columns: Values of further columns by their names, by which results are told apart.
        faults: What is wrong with rows that could not be read, by their place, counted from 0.
        notes: What was found in the file that a user should know.
        groups: What each row belongs to, so that it is not split up; None where rows stand alone.
        times: What each row is ordered by where splits are cut by time; None where they are not.
    """

    origin: str
    texts: Sequence[object]
    labels: Sequence[object]
    ids: Sequence[int] | None = None
    columns: Mapping[str, Sequence[object]] = field(default_factory=dict)
    faults: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    groups: Sequence[object] | None = None
    times: Sequence[object] | None = None


@dataclass(frozen=True)
class RawSplits:
    """A source as read, with the splits that it has.

    Attributes:
        train: Rows to train on.
        validation: Published validation rows, or None.
        test: Published test rows, or None.
        label_names: The classes where the source publishes their names and order, or None to take them from train.
        notes: What a user should know about the source.
    """

    train: RawRows
    validation: RawRows | None = None
    test: RawRows | None = None
    label_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    @property
    def by_name(self) -> dict[str, RawRows]:
        """The splits that there are, by their names."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: rows for name, rows in parts.items() if rows is not None}


@dataclass(frozen=True)
class Split:
    """Checked rows of one split, in input order.

    Attributes:
        ids: Shape (n,), int64: the row's number in the file or split it was read from, counted from 1.
        texts: n texts or pairs of texts, none of them empty.
        y: The labels as `Task.encode` makes them, n rows.
        columns: n values of each slice column by its name, "" where there is none; the fingerprint leaves them out.
        groups: What each row belongs to, n of them; None where rows stand alone.
        times: What each row is ordered by, n of them; None where splits are not cut by time.
    """

    ids: NDArray[np.int64]
    texts: tuple[Text, ...]
    y: NDArray[Any]
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    groups: tuple[str, ...] | None = None
    times: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def group_ids(self) -> NDArray[np.int64] | None:
        """A number for each group, shape (n,), rows without a group each by itself; None where rows stand alone."""
        if self.groups is None:
            return None
        named = [group or f"\0{place}" for place, group in enumerate(self.groups)]
        return np.unique(named, return_inverse=True)[1].astype(np.int64)

    @property
    def unit_ids(self) -> NDArray[np.int64]:
        """A number for each group, or for each row where rows stand alone; shape (n,)."""
        return np.arange(len(self)) if (numbers := self.group_ids) is None else numbers

    def select(self, positions: NDArray[np.int64]) -> "Split":
        """Return the rows at `positions` (shape (m,), counted from 0), in that order."""
        return Split(
            ids=self.ids[positions],
            texts=tuple(self.texts[position] for position in positions),
            y=self.y[positions],
            columns={name: tuple(values[position] for position in positions) for name, values in self.columns.items()},
            groups=None if self.groups is None else tuple(self.groups[position] for position in positions),
            times=None if self.times is None else tuple(self.times[position] for position in positions),
        )

    def fingerprint(self) -> str:
        """Return the SHA-256 over ids, labels and texts in order, as 64 hexadecimal digits."""
        digest = hashlib.sha256()
        digest.update(self.ids.astype("<i8").tobytes())
        digest.update(self.y.astype(self.y.dtype.newbyteorder("<")).tobytes())
        for part in (part for text in self.texts for part in ((text,) if isinstance(text, str) else text)):
            encoded = part.encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(8, "little"))
            digest.update(encoded)
        return digest.hexdigest()


@dataclass(frozen=True)
class Splits:
    """The data of a run.

    Attributes:
        source: Name of the source as the user gave it; paths absolute.
        task: The task, with the labels of the training rows.
        train: Rows to train on.
        validation: Rows that choose (epochs, rates); never trained on. None at all where rows are few: all train.
        test: Rows for the last measurement only. None at all where a model is fitted without one.
        notes: What a user should know: rows left out, splits cut, duplicates.
        calibration: Rows that calibrate; they neither train nor choose. None where there are too few.
        left_out: Rows that were left out: where they come from, their number there, and what is wrong with them.
        renamed: New name by old one of the labels that were merged because they are rare.
    """

    source: str
    task: Task
    train: Split
    validation: Split
    test: Split
    notes: tuple[str, ...] = ()
    calibration: Split | None = None
    left_out: tuple[tuple[str, int, str], ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)

    @property
    def by_name(self) -> dict[str, Split]:
        """The splits that there are, by their names."""
        held_out = {"validation": self.validation, "test": self.test}
        parts = {"train": self.train, **{name: rows for name, rows in held_out.items() if len(rows)}}
        return parts if self.calibration is None else {**parts, "calibration": self.calibration}

    @property
    def pair(self) -> bool:
        """Whether the texts are pairs."""
        return not isinstance(self.train.texts[0], str)
