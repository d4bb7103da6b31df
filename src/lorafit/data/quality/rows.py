"""The rows that a check looks at: all splits of a source, as far as they can be read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from lorafit.data.checks import find_faults
from lorafit.data.quality.findings import MOST_ROWS, Finding, FoundRow, Place, Scope, count_rows, write_share
from lorafit.data.rows import RawRows, RawSplits, Splits
from lorafit.errors import DataError
from lorafit.system.text import Text, join_text
from lorafit.tasks.base import Task
from lorafit.tasks.labels import Label, LabelColumn, LabelReading, list_labels, name_labels

Positions = NDArray[np.int64]

SAMPLE_ROWS: Final = 5000
"""Rows of each split that are looked at where looking at all takes long."""


@dataclass(frozen=True)
class Rows:
    """The usable rows of all splits, one split after the other.

    Attributes:
        texts: n texts, a pair as two lines.
        ids: Shape (n,): the number of each row in its split.
        splits: First and last place of each split, by name; `train` is the first.
        task: The task with the labels of all splits, or None where they are none that could be trained on.
        y: The labels as `Task.encode` makes them, n rows; None without a task.
    """

    texts: Sequence[str]
    ids: Positions
    splits: Mapping[str, slice]
    task: Task | None
    y: NDArray[Any] | None

    def count(self, split: str) -> int:
        """Count the rows of a split."""
        part = self.splits[split]
        return int(part.stop - part.start)

    def scope(self, split: str | None = None) -> Scope:
        """Return that all rows of a split, or of all, were looked at."""
        rows = len(self.texts) if split is None else self.count(split)
        return Scope(rows=rows, of=rows)

    def place(self, position: int) -> Place:
        """Return the split and number of a row."""
        split = next(name for name, part in self.splits.items() if part.start <= position < part.stop)
        return Place(split=split, row=int(self.ids[position]))

    def list_rows(self, positions: Positions, kept: Positions | None = None) -> tuple[FoundRow, ...]:
        """List the rows at positions, with the one that is kept in place of each."""
        found = []
        for turn, position in enumerate(positions[:MOST_ROWS].tolist()):
            other = None if kept is None else self.place(int(kept[turn]))
            found.append(FoundRow(**self.place(position).model_dump(), kept=other))
        return tuple(found)

    def mark_labels(self, positions: Positions) -> NDArray[np.bool_]:
        """Return which labels rows have, shape (m, labels); (m, 0) where labels are no classes."""
        if self.task is None or self.y is None:
            return np.zeros((len(positions), 0), dtype=bool)
        return self.task.mark_labels(self.y[positions])

    def number_labels(self) -> Positions | None:
        """Return a number for each row that is the same where the label is; None without a task."""
        if self.y is None:
            return None
        numbers = np.unique(self.y, axis=0, return_inverse=True)[1]
        return np.asarray(numbers.reshape(-1), dtype=np.int64)

    def number_classes(self) -> Positions | None:
        """Return what `number_labels` does, but None where labels are no classes."""
        return self.number_labels() if self.mark_labels(np.arange(1)).size else None


@dataclass(frozen=True)
class Sample:
    """Rows of one split that are looked at.

    Attributes:
        split: The split.
        positions: Their places in `Rows`, in order.
        scope: What they are of it.
    """

    split: str
    positions: Positions
    scope: Scope


def draw_samples(rows: Rows, seed: int, *, most: int | None = SAMPLE_ROWS) -> list[Sample]:
    """Draw rows of every split without replacement.

    Args:
        rows: The rows.
        seed: Decides which.
        most: How many of a split; None for all.

    Returns:
        A sample a split.
    """
    samples = []
    for split, part in rows.splits.items():
        count, positions = rows.count(split), np.arange(part.start, part.stop)
        if most is not None and count > most:
            positions = np.sort(np.random.default_rng(seed).choice(positions, size=most, replace=False))
        drawn = seed if len(positions) < count else None
        samples.append(Sample(split, positions, Scope(rows=len(positions), of=count, seed=drawn)))
    return samples


def gather_rows(raw: RawSplits, task: type[Task], reading: LabelReading) -> tuple[Rows, list[Finding]]:
    """Put together what can be used of a source, and say what cannot.

    Args:
        raw: The source as read.
        task: The task.
        reading: How label cells are read.

    Returns:
        The rows, and findings about those that training would refuse and about how the source was read.

    Raises:
        DataError: No training row can be used.
    """
    texts: list[str] = []
    labels: list[Label] = []
    ids: list[int] = []
    splits: dict[str, slice] = {}
    findings: list[Finding] = [_tell(note, None, 0) for note in raw.notes]
    for split, part in raw.by_name.items():
        if split != "train":
            reading = replace(reading, known=reading.known or tuple(name_labels(labels)))
        start, read = len(texts), _read_part(split, part, task, reading)
        texts += read.texts
        labels += read.labels
        ids += read.ids
        findings += read.findings
        splits[split] = slice(start, len(texts))
    if splits["train"].stop == 0:
        raise DataError(
            f"{raw.train.origin}: none of its {len(raw.train.texts):,} rows can be used. {findings[-1].message} "
            "Are the columns the right ones (--text-column, --label-column)?"
        )
    built: Task | None = None
    try:
        built = task.from_labels(labels, raw.train.origin)
    except DataError as error:
        scope = Scope(rows=len(labels), of=len(labels))
        kinds = len(set(labels))
        findings.append(
            Finding(
                name="labels", severity="error", split=None, count=kinds, share=1.0, scope=scope, message=str(error)
            )
        )
    encoded = None if built is None else built.encode(labels)
    return Rows(texts, np.array(ids, dtype=np.int64), splits, built, encoded), findings


def join_splits(splits: Splits) -> Rows:
    """Put the rows of splits together that can be trained on."""
    parts = {name: split for name, split in splits.by_name.items() if name != "calibration"}
    ends = np.cumsum([0, *map(len, parts.values())]).tolist()
    return Rows(
        [join_text(text) for part in parts.values() for text in part.texts],
        np.concatenate([part.ids for part in parts.values()]),
        {name: slice(start, end) for name, start, end in zip(parts, ends, ends[1:], strict=False)},
        splits.task,
        np.concatenate([part.y for part in parts.values()]),
    )


class _Part(NamedTuple):
    """The usable rows of a split, and what is to be said of the others."""

    texts: list[str]
    labels: list[Label]
    ids: list[int]
    findings: list[Finding]


def _read_part(split: str, part: RawRows, task: type[Task], reading: LabelReading) -> _Part:
    column = task.read_labels(part.labels, reading)
    faults = find_faults(part, column)
    ids = part.ids if part.ids is not None else range(1, len(part.texts) + 1)
    places = [place for place in range(len(part.texts)) if place not in faults]
    return _Part(
        [join_text(cast("Text", part.texts[place])) for place in places],
        [cast("Label", column.labels[place]) for place in places],
        [ids[place] for place in places],
        list(_describe_part(split, part, column, {ids[place]: fault for place, fault in faults.items()})),
    )


def _describe_part(split: str, part: RawRows, column: LabelColumn, faults: Mapping[int, str]) -> Iterator[Finding]:
    """Yield what is to be said of a split; `find_label_faults` finds the spellings that stay apart."""
    total = len(part.texts)
    for note in (*part.notes, *column.notes):
        yield _tell(note, split, total)
    for doubt in column.doubts:
        yield _tell(doubt, split, total).model_copy(update={"name": "doubtful-labels", "severity": "error"})
    if faults:
        yield _report_faults(split, faults, total)
    yield from _find_constant_columns(split, part)


def _tell(message: str, split: str | None, rows: int) -> Finding:
    scope = Scope(rows=rows, of=rows)
    return Finding(name="reading", severity="note", split=split, count=rows, share=1.0, scope=scope, message=message)


def _report_faults(split: str, faults: Mapping[int, str], total: int) -> Finding:
    kinds: dict[str, int] = {}
    for fault in faults.values():
        kinds[fault] = kinds.get(fault, 0) + 1
    listed = "; ".join(f"{fault} ({count:,})" for fault, count in sorted(kinds.items(), key=lambda kind: -kind[1])[:5])
    more = "" if len(kinds) <= 5 else f"; and {len(kinds) - 5} more kinds"
    count, share = len(faults), len(faults) / total
    return Finding(
        name="unusable-rows",
        severity="error",
        split=split,
        count=count,
        share=share,
        scope=Scope(rows=total, of=total),
        message=f"{count_rows(count, split, 'cannot', 'cannot')} be used ({write_share(share)}): {listed}{more}.",
        remedy="lorafit train DATA --bad-rows drop",
        rows=tuple(FoundRow(split=split, row=row) for row in list(faults)[:MOST_ROWS]),
    )


def _find_constant_columns(split: str, part: RawRows) -> Iterator[Finding]:
    total = len(part.texts)
    constant = [name for name, values in part.columns.items() if total > 1 and len({str(one) for one in values}) == 1]
    if constant:
        yield Finding(
            name="constant-columns",
            severity="note",
            split=split,
            count=len(constant),
            share=len(constant) / len(part.columns),
            scope=Scope(rows=total, of=total),
            message=f"The columns {list_labels(constant)} have one value in all {split} rows and tell nothing apart.",
        )
