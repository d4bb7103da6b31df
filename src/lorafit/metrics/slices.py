"""Accuracy by length of the text and by the values of columns: where a model is weak."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lorafit.data.rows import LENGTH_COLUMN, Split
from lorafit.evidence import Estimate, SliceScores
from lorafit.metrics.scores import predict_labels
from lorafit.metrics.uncertainty import estimate_outcomes, wilson_interval

__all__ = ["Slicing", "score_slices", "tell_apart"]

_LEAST_ROWS: Final = 10
"""A value or a range of lengths that fewer rows have is not told apart."""

_MOST_VALUES: Final = 50
"""So many values of a column are told apart, those that most rows have."""

_LONGEST_NAME: Final = 40
_LENGTHS: Final = {"1-15": 1, "16-63": 16, "64-255": 64, "256+": 256}
"""Ranges of the length in words, by their lower ends."""


@dataclass(frozen=True)
class Slicing:
    """Rows told apart by a column.

    Attributes:
        column: Its name.
        values: Name of each slice.
        places: Shape (n,): which slice each row is in, -1 for none; every slice has a row.
    """

    column: str
    values: Sequence[str]
    places: NDArray[np.int64]


def score_slices(
    rows: Split,
    finetuned: NDArray[np.float64],
    baseline: NDArray[np.float64] | None = None,
    *,
    confidence_level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> list[SliceScores]:
    """Score a model on the rows of each slice.

    Rows are told apart by the number of words, which white space separates, and by each of their columns. Of a column
    the 50 values that most rows have are told apart; the others, and those of fewer than 10 rows, are taken together
    as `other`. Numbers come in their order, other values by their number of rows. Ranges of lengths of fewer than 10
    rows are left out.

    The accuracy has a Wilson interval, which tells something of few rows without a mistake, too; the difference has a
    stratified percentile bootstrap interval. An interval is that of one slice looked at alone: of twenty slices that do
    not differ, one may well seem to.

    Args:
        rows: The n rows.
        finetuned: Probabilities of the fine-tuned model, shape (n, classes).
        baseline: Those of the model before training, or None.
        confidence_level: Level of the intervals, above 0 and below 1.
        samples: Resamples behind the interval of each difference, at least 1.
        seed: Seed of the resampling; what a column gets does not depend on the others.

    Returns:
        The slices that have rows: lengths first, then the columns as they come.
    """
    is_right = (predict_labels(finetuned) == rows.labels).astype(np.int64)
    change = None if baseline is None else is_right - (predict_labels(baseline) == rows.labels)
    scores = []
    for slicing in tell_apart(rows):
        held = slicing.places >= 0
        shape = (len(slicing.values), finetuned.shape[1])
        strata = slicing.places[held] * shape[1] + rows.labels[held]
        differences: Sequence[Estimate | None] = [None] * len(slicing.values)
        if change is not None:
            counts, rng = _count(strata, change[held] + 1, shape, outcomes=3), np.random.default_rng(seed)
            differences = estimate_outcomes(counts, [-1, 0, 1], samples, rng, confidence_level)
        outcomes = _count(strata, is_right[held], shape, outcomes=2).sum(axis=1).tolist()
        scores += [
            SliceScores(
                column=slicing.column,
                value=value,
                rows=wrong + right,
                accuracy=wilson_interval(right, wrong + right, confidence_level),
                difference=difference,
            )
            for value, (wrong, right), difference in zip(slicing.values, outcomes, differences, strict=True)
        ]
    return scores


def _count(
    strata: NDArray[np.int64], outcome: NDArray[np.int64], shape: tuple[int, int], *, outcomes: int
) -> NDArray[np.int64]:
    """Count the rows of each slice and class that had each outcome: shape (slices, classes, outcomes)."""
    counts = np.bincount(strata * outcomes + outcome, minlength=shape[0] * shape[1] * outcomes)
    return counts.reshape(*shape, outcomes).astype(np.int64, copy=False)


def tell_apart(rows: Split) -> Iterator[Slicing]:
    """Tell rows apart by length of the text and by each of their columns, as `score_slices` does.

    Args:
        rows: The rows.

    Yields:
        How each of these tells them apart; no lengths where no range has 10 rows.
    """
    words = np.fromiter((len(text.split()) for text in rows.texts), dtype=np.int64, count=len(rows))
    ranges = np.searchsorted(list(_LENGTHS.values())[1:], words, side="right")
    kept = np.flatnonzero(np.bincount(ranges, minlength=len(_LENGTHS)) >= _LEAST_ROWS)
    if len(kept):
        index = np.full(len(_LENGTHS), -1)
        index[kept] = np.arange(len(kept))
        yield Slicing(LENGTH_COLUMN, [list(_LENGTHS)[number] for number in kept], index[ranges])
    for column, values in rows.columns.items():
        yield _tell_values_apart(column, values)


def _tell_values_apart(column: str, values: Sequence[str]) -> Slicing:
    counts = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
    kept = [value for value, rows in counts if rows >= _LEAST_ROWS][:_MOST_VALUES]
    kept.sort(key=_place)
    index = {value: place for place, value in enumerate(kept)}
    places = np.fromiter((index.get(value, len(kept)) for value in values), dtype=np.int64, count=len(values))
    return Slicing(column, _name([*kept, "other"] if len(kept) < len(counts) else kept), places)


def _place(value: str) -> float:
    """Order numbers by their value, before everything else, which stays as it is."""
    try:
        number = float(value)
    except ValueError:
        return math.inf
    return number if math.isfinite(number) else math.inf


def _name(values: Sequence[str]) -> list[str]:
    """Make values short and put them on one line; those that then look alike are numbered."""
    names: list[str] = []
    for value in values:
        plain = " ".join(value.split()) or "(none)"
        short = plain if len(plain) <= _LONGEST_NAME else plain[: _LONGEST_NAME - 1] + "…"
        name, number = short, 1
        while name in names:
            number += 1
            name = f"{short} ({number})"
        names.append(name)
    return names
