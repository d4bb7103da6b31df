"""Figures of several labels a text, and of numbers, by length of the text and by the values of columns.

Rows of a slice are resampled as in `lorafit.metrics.row_resampling`. Whether a slice is worse than the whole is tested
by permutation, which holds for slices of few rows and for any figure (p-values: Phipson and Smyth 2010, "Permutation
P-values Should Never Be Zero", Statistical Applications in Genetics and Molecular Biology 9).
"""

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lorafit.data.rows import Split
from lorafit.evidence import Estimate
from lorafit.labels import ClasslessTask
from lorafit.metrics.multi_label import decide
from lorafit.metrics.paired import adjust_p_values
from lorafit.metrics.row_resampling import resample_row_sums
from lorafit.metrics.slices import Slicing, tell_apart
from lorafit.metrics.uncertainty import build_estimates, mcnemar_exact, wilson_interval
from lorafit.task_evidence import TaskComparison, TaskSliceScores
from lorafit.task_figures import FIGURES, LEADING

__all__ = ["compare_leading", "score_task_slices"]

_FINENESS: Final = 2
"""How many times finer the p-values are than what the number of slices asks for at the least."""

_ROUNDING: Final = 1e-9
"""The size, as a share, of a rounding error, which must not decide."""


def score_task_slices(
    rows: Split,
    task: ClasslessTask,
    finetuned: NDArray[np.float64],
    baseline: NDArray[np.float64] | None = None,
    *,
    confidence_level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> list[TaskSliceScores]:
    """Score a model on the rows of each slice, told apart as `lorafit.metrics.slices.score_slices` does.

    The share of exact matches has a Wilson interval, which tells something of few rows without a mistake, too. The
    other intervals are percentile bootstrap ones over the rows of the slice; a resample without any label counts with
    an F1 of 0. An interval is that of one slice looked at alone. The p-values take the number of slices into account.

    Args:
        rows: The n rows.
        task: What a text gets.
        finetuned: What the fine-tuned model gives, shape (n, outputs): a probability a label, or the number.
        baseline: What the model before training gives, same shape, or None.
        confidence_level: Level of the intervals, above 0 and below 1.
        samples: Resamples behind each interval and each test, at least 1; a test takes more where there are so many
            slices that none of them could be told apart.
        seed: Seed of the resampling; the figures of a column do not depend on the other columns.

    Returns:
        The slices that have rows: lengths first, then the columns as they come.

    Raises:
        ValueError: A level or number of samples out of range.
    """
    if not 0 < confidence_level < 1:
        raise ValueError(f"confidence_level must lie between 0 and 1, got {confidence_level}.")
    models = [finetuned] if baseline is None else [finetuned, baseline]
    columns = np.stack([_row_columns(rows.labels, task, values) for values in models], axis=1)
    slicings = list(tell_apart(rows))
    count = sum(len(slicing.values) for slicing in slicings)
    dealt = max(samples, math.ceil(_FINENESS * count / (1 - confidence_level)))
    tests = (_test(columns[:, 0], slicing, LEADING[task], dealt, seed) for slicing in slicings)
    p_values = adjust_p_values([p_value for found in tests for p_value in found])
    slices = (
        (slicing.column, value, columns[slicing.places == place])
        for slicing in slicings
        for place, value in enumerate(slicing.values)
    )
    scores = []
    for (column, value, members), p_value in zip(slices, p_values, strict=True):
        figures, differences = _estimate(members, confidence_level, samples, seed)
        scores.append(
            TaskSliceScores(
                column=column,
                value=value,
                rows=len(members),
                figures=figures,
                differences=differences,
                adjusted_p_value=p_value,
            )
        )
    return scores


def compare_leading(
    truth: NDArray[Any],
    task: ClasslessTask,
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    *,
    confidence_level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> tuple[tuple[float, float], TaskComparison]:
    """Compare two models on rows such as those of a slice by the leading figure alone, as `score_task_slices` does.

    Args:
        truth: What `Split.labels` holds of the n rows, n at least 1.
        task: What a text gets.
        before: What the first model gives, shape (n, outputs): a probability a label, or the number.
        after: What the second model gives, same shape.
        confidence_level: Level of the interval, above 0 and below 1.
        samples: Resamples behind the interval, at least 1.
        seed: Seed of the resampling.

    Returns:
        The figure of the first and of the second model, and the second against the first: the figure's difference, and
        the exact sign test of rows with fewer wrong labels, or nearer to their number, against those with more, or
        farther. A figure is NaN where it is undefined, a difference where either figure is.

    Raises:
        ValueError: A level or number of samples out of range.
    """
    columns = np.stack([_row_columns(truth, task, values) for values in (after, before)], axis=1)
    leading, (new, old) = LEADING[task], np.moveaxis(columns, 1, 0)
    second, first = _score(columns.sum(axis=0), undefined=math.nan)[leading].tolist()
    _, differences = _estimate(columns, confidence_level, samples, seed)
    was_wrong, is_wrong = (_count_wrong(values) for values in (old, new))
    gained, lost = int((is_wrong < was_wrong).sum()), int((is_wrong > was_wrong).sum())
    return (first, second), TaskComparison(
        differences={leading: differences[leading]},
        rows_gained=gained,
        rows_lost=lost,
        p_value=mcnemar_exact(gained, lost),
    )


def _count_wrong(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far off each row is, from `_row_columns`: its number of wrong labels, or its error."""
    if columns.shape[1] == 2:
        return columns[:, 0]
    return columns[:, 1] - 2 * columns[:, 0]


def _row_columns(truth: NDArray[Any], task: ClasslessTask, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what is summed, shape (n, k): what follows by task, and 1, which counts the rows."""
    if task == "regression":
        sums = [np.abs(values[:, 0] - truth)]
    else:
        given, true = decide(values), truth == 1
        # rightly given labels, given and true ones, and whether the row has exactly its labels
        sums = [(given & true).sum(axis=1), given.sum(axis=1) + true.sum(axis=1), (given == true).all(axis=1)]
    return np.column_stack([*sums, np.ones(len(truth))]).astype(np.float64, copy=False)


def _score(sums: NDArray[np.float64], *, undefined: float) -> dict[str, NDArray[np.float64]]:
    """Score sums of `_row_columns`, shape (..., k); each figure has the shape (...)."""
    *columns, rows = np.moveaxis(sums, -1, 0)
    if len(columns) == 1:
        return {"mae": columns[0] / rows}
    right, marks, exact = columns
    micro_f1 = np.divide(2 * right, marks, out=np.full_like(marks, undefined), where=marks > 0)
    return {"micro_f1": micro_f1, "exact_match": exact / rows}


def _estimate(
    members: NDArray[np.float64], level: float, samples: int, seed: int
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Estimate the figures of the first model, and how they differ from the second's; `members` (m, models, k)."""
    sums = resample_row_sums(members.reshape(len(members), -1), samples, np.random.default_rng(seed))
    point = _score(members.sum(axis=0), undefined=math.nan)
    drawn = _score(sums.reshape(samples, *members.shape[1:]), undefined=0.0)
    figures = {name: _bound(value[0], drawn[name][:, 0], level) for name, value in point.items()}
    if "exact_match" in point:
        right = round(float(point["exact_match"][0]) * len(members))
        figures["exact_match"] = wilson_interval(right, len(members), level)
    if members.shape[1] == 1:
        return figures, {}
    return figures, {
        name: _bound(value[0] - value[1], drawn[name][:, 0] - drawn[name][:, 1], level) for name, value in point.items()
    }


def _bound(point: NDArray[np.float64], drawn: NDArray[np.float64], level: float) -> Estimate:
    """Put an interval around a figure; one that is undefined has none."""
    if np.isnan(point):
        return Estimate(value=math.nan, low=math.nan, high=math.nan)
    return build_estimates(point, drawn, level)[0]


def _test(columns: NDArray[np.float64], slicing: Slicing, leading: str, samples: int, seed: int) -> list[float]:
    """Return how likely each slice would be as bad as it is, or worse, if its rows were any of the n rows.

    Rows are dealt to the slices at random. Where there is no label, nothing is wrong: that is an F1 of 1.
    """
    held = np.flatnonzero(slicing.places >= 0)
    sizes = np.bincount(slicing.places[held])
    starts, rng = np.cumsum(sizes) - sizes, np.random.default_rng(seed)

    def measure_loss(order: NDArray[np.int64]) -> NDArray[np.float64]:
        value = _score(np.add.reduceat(columns[order], starts, axis=0), undefined=1.0)[leading]
        return -value if FIGURES[leading].is_higher_better else value

    measured = measure_loss(held[np.argsort(slicing.places[held], kind="stable")])
    limit = measured - _ROUNDING * np.abs(measured)
    as_bad = np.zeros(len(sizes), dtype=np.int64)
    for _ in range(samples):
        as_bad += measure_loss(rng.permutation(len(columns))[: len(held)]) >= limit
    return [float(p_value) for p_value in (1 + as_bad) / (1 + samples)]
