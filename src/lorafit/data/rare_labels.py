"""Labels with too few texts to be in every split: found, and refused, dropped, merged or kept in train alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lorafit.data.checks import CheckedRows, encode_rows
from lorafit.data.rows import Split
from lorafit.data.splits import join_rows
from lorafit.errors import DataError
from lorafit.tasks.base import Task
from lorafit.tasks.labels import quote_label

_MOST_LISTED: Final = 20
"""Rare labels that a message lists by name."""


@dataclass(frozen=True)
class RareLabels:
    """Labels that cannot be in every part that rows are cut into.

    Attributes:
        counts: Rows of each, by name.
        rows: Shape (n,): which rows have one of them.
    """

    counts: Mapping[str, int]
    rows: NDArray[np.bool_]

    def describe(self) -> str:
        """List them with their rows, at most 20."""
        shown = [f"{quote_label(name)} ({count:,})" for name, count in list(self.counts.items())[:_MOST_LISTED]]
        more = len(self.counts) - len(shown)
        return ", ".join(shown) + (f" and {more:,} more" if more else "")


def find_rare_labels(split: Split, parts: int, task: Task) -> RareLabels:
    """Find the labels that cannot be divided among all parts that rows are to be cut into.

    Args:
        split: The rows.
        parts: Number of parts; each needs a text (or a group) of every label.
        task: The task.

    Returns:
        The labels with too few different texts or groups; none where rows are cut by time, or have numbers.
    """
    marks = task.mark_labels(split.y)
    if split.times is not None:
        marks = marks[:, :0]
    units = np.stack([marks[rows].any(axis=0) for rows in join_rows(split)]).sum(axis=0)
    rare = np.flatnonzero((units < parts) & marks.any(axis=0)) if marks.shape[1] else np.zeros(0, dtype=np.int64)
    counts = {task.label_names[label]: int(marks[:, label].sum()) for label in rare}
    return RareLabels(counts, np.asarray(marks[:, rare].any(axis=1), dtype=np.bool_))


def refuse_or_treat(
    checked: Mapping[str, CheckedRows], task: Task, how: str, parts: int, notes: list[str]
) -> tuple[dict[str, CheckedRows], dict[str, str]]:
    """Treat the rare labels of train as a user says.

    Args:
        checked: The rows of the splits that there are; what is missing is to be cut from train.
        task: The task, with the labels of train.
        how: `data.rare_labels`.
        parts: Number of splits that the rows of train are cut into, itself included.
        notes: Receives what was done.

    Returns:
        The rows, and the new names of labels that were merged. Rows of labels that train no longer has are the
        caller's to drop.

    Raises:
        DataError: There are rare labels and `how` is `stop`.
    """
    rows = checked["train"]
    least = parts if how == "stop" else max(parts, 2)  # a label of one text is never measured, not even out of fold
    rare = find_rare_labels(encode_rows(rows, task), least, task)
    if not rare.counts or how == "keep":
        return dict(checked), {}
    if how == "stop":
        unit = "texts" if rows.groups is None else "groups"
        raise DataError(
            f"{rows.origin} has fewer than {parts} different {unit}, one for each of {parts} splits, of "
            f"{rare.describe()} (rows in brackets). Leave their rows out with --rare-labels drop, make them one label "
            "with --rare-labels merge:other, or have them in train alone, where nothing measures them, with "
            "--rare-labels keep."
        )
    if how == "drop":
        kept = rows.select((~rare.rows).tolist())
        notes.append(f"{rows.origin}: left out {int(rare.rows.sum()):,} rows of rare labels: {rare.describe()}.")
        return {**checked, "train": kept}, {}
    names = dict.fromkeys(rare.counts, how.partition(":")[2])
    notes.append(f"{rows.origin}: merged {len(names)} rare labels into '{how.partition(':')[2]}': {rare.describe()}.")
    return {name: part.rename(task, names) for name, part in checked.items()}, names
