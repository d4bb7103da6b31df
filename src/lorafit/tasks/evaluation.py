"""Scores with confidence intervals, paired comparisons, slices and mistakes: written once, for every task."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from lorafit.system.text import Text, join_text
from lorafit.tasks.base import Array, Metric, Task, share
from lorafit.tasks.format import write_p_value
from lorafit.tasks.records import (
    BaselineScores,
    ClassScores,
    Comparison,
    Estimate,
    Resampling,
    Scores,
    Slice,
    SliceComparison,
    SliceScores,
)
from lorafit.tasks.statistics import (
    adjust_p_values,
    design_effect,
    percentile_interval,
    resample_row_sums,
    sign_test,
    sum_units,
)

Verdict = Literal["better", "worse", "inconclusive"]

FEW_ROWS: Final = 100
"""Below so many rows, or groups of them, people are told that intervals are wide."""

CAUTION_OF_GROUPS: Final = "which takes rows as independent though they come in groups"
"""What is said beside an exact test where rows come in groups."""

LENGTH_COLUMN: Final = "words"
"""Name under which slices by the length of a text stand, so that no column of the data may have it."""

_FEWEST_ROWS: Final = 10
"""A value or a range of lengths with fewer rows is no slice of its own."""

_MOST_VALUES: Final = 50
"""Slices of a column: the values that most rows have."""

_LONGEST_NAME: Final = 40
_LENGTHS: Final = {"1-15": 1, "16-63": 16, "64-255": 64, "256+": 256}
"""Ranges of the length in words, by their lower ends."""

_FINENESS: Final = 2
"""How many times finer the p-values of slices are than what their number asks for at the least."""

_ROUNDING: Final = 1e-9
"""The size, as a share, of a rounding error, which must not decide."""


def estimate(
    task: Task,
    y: NDArray[Any],
    values: Array,
    resampling: Resampling,
) -> Scores:
    """Score a model on rows, each metric with its confidence interval.

    Shares of rows have Wilson intervals or, in groups, those of `grouped_interval`; the others have bootstrap ones
    (`resample_row_sums`). An interval tells how far a metric would move with other rows of the same kind.

    Args:
        task: The task.
        y: Labels of n rows, at least one.
        values: Shape (n, labels).
        resampling: Of the intervals.

    Returns:
        The scores.

    Raises:
        ValueError: As `Task.row_statistics`.
    """
    return score_models(task, y, values, {}, resampling)[0]


def compare(
    task: Task,
    y: NDArray[Any],
    before: Array,
    after: Array,
    resampling: Resampling,
) -> Comparison:
    """Compare two models on the same rows; each resample takes the same rows for both.

    Args:
        task: The task.
        y: Labels of n rows, at least one.
        before: Values of the first model, shape (n, labels).
        after: Those of the second.
        resampling: Of the intervals.

    Returns:
        The differences after minus before, and the exact sign test of rows fixed against rows broken, which takes rows
        as independent, in groups, too.

    Raises:
        ValueError: As `Task.row_statistics`.
    """
    return _compare(task, y, before, after, _Resampled(task, y, [before], [after], resampling))


def score_models(
    task: Task,
    y: NDArray[Any],
    after: Array,
    others: Mapping[str, Array],
    resampling: Resampling,
) -> tuple[Scores, dict[str, BaselineScores]]:
    """Score a model and others on the same rows, and compare it with each of them.

    All are resampled at once, which takes a fraction of the time of `estimate` and `compare` of each.

    Args:
        task: The task.
        y: Labels of n rows, at least one.
        after: Values of the model, shape (n, labels).
        others: Those of the others, by name.
        resampling: Of the intervals.

    Returns:
        The scores of the model; and by name those of the others, each with the comparison of the model with it.

    Raises:
        ValueError: As `Task.row_statistics`.
    """
    resampled = _Resampled(task, y, list(others.values()), [after], resampling)
    *scores, own = (
        Scores(
            metrics=resampled.estimate(place),
            per_class=task.per_class(resampled.sums[place], resampling.level, grouped=resampling.is_grouped),
            confusion_matrix=task.confusion_matrix(y, values),
        )
        for place, values in enumerate([*others.values(), after])
    )
    return own, {
        name: BaselineScores(scores=scores[place], comparison=_compare(task, y, values, after, resampled, place))
        for place, (name, values) in enumerate(others.items())
    }


def estimate_mean(
    task: Task,
    y: NDArray[Any],
    models: Sequence[Array],
    resampling: Resampling,
) -> Estimate:
    """Estimate the mean of the primary metric over models, such as one method with several seeds.

    Args:
        task: The task.
        y: Labels of n rows, at least one.
        models: Values of each model, shape (n, labels); at least one.
        resampling: Of the interval.

    Returns:
        The mean and its interval over rows: of one model as in `estimate`, of several a bootstrap interval of the mean.
    """
    resampled = _Resampled(task, y, [], models, resampling)
    if len(models) == 1:
        return resampled.estimate(0)[task.primary]
    drawn = resampled.drawn[task.primary][0].mean(axis=1)
    return _bound(float(resampled.points[task.primary].mean()), drawn, resampling.level)


def compare_means(
    task: Task,
    y: NDArray[Any],
    before: Sequence[Array],
    after: Sequence[Array],
    resampling: Resampling,
) -> Estimate:
    """Compare two groups of models by the mean of the primary metric; each resample takes the same rows for all.

    Args:
        task: The task.
        y: Labels of n rows, at least one.
        before: Values of each model of the first group, shape (n, labels); at least one.
        after: Those of the second.
        resampling: Of the interval.

    Returns:
        The mean of the second group minus that of the first.
    """
    return _Resampled(task, y, before, after, resampling).subtract(range(len(before)))[task.primary]


def judge_difference(metric: Metric, difference: Estimate) -> Verdict:
    """Say whether a difference is one for the better or the worse: its interval leaves 0 out."""
    if not (difference.low > 0 or difference.high < 0):
        return "inconclusive"
    return "better" if (difference.low > 0) == metric.higher_is_better else "worse"


def judge(task: Task, comparison: Comparison, level: float) -> Verdict:
    """Say whether a model is shown to be better or worse than another on the same rows.

    Args:
        task: The task.
        comparison: The second model against the first.
        level: Level of its intervals.

    Returns:
        `inconclusive` unless the interval of the primary metric's difference leaves 0 out, and the sign test of rows
        fixed against rows broken is significant and agrees.
    """
    verdict = judge_difference(task.primary_metric, comparison.differences[task.primary])
    gain = comparison.rows_fixed - comparison.rows_broken
    agrees = gain > 0 if verdict == "better" else gain < 0
    return verdict if agrees and comparison.p_value < 1 - level else "inconclusive"


def find_unpredicted(scores: Scores) -> list[ClassScores]:
    """Return the labels that occur and are never predicted, the most frequent first."""
    missed = [one for one in scores.per_class if one.support and math.isnan(one.precision.value)]
    return sorted(missed, key=lambda one: -one.support)


def describe_changed_rows(task: Task, comparison: Comparison) -> str:
    """Write how many rows one model has better and worse than another, with the exact test of that."""
    wording = task.wording
    fixed = wording.fixed.format(count=f"{comparison.rows_fixed:,}")
    broken = wording.broken.format(count=f"{comparison.rows_broken:,}")
    caution = f", {CAUTION_OF_GROUPS}" if comparison.grouped else ""
    return f"{fixed}, {broken} ({wording.test}, {write_p_value(comparison.p_value)}{caution})"


def describe_few(rows: int, groups: int | None) -> str | None:
    """Say that rows are few, or the groups they come in, as the beginning of a sentence; None where they are not."""
    count, noun = (rows, "row") if groups is None else (groups, "group")
    if count >= FEW_ROWS:
        return None
    return f"1 {noun} is very little" if count == 1 else f"{count} {noun}s are few"


def find_mistakes(task: Task, y: NDArray[Any], values: Array, *, most: int = 10) -> NDArray[np.int64]:
    """Return the places of the rows on which a model is most wrong, the worst first; of equal ones, the first."""
    severity = task.mistake_severity(y, values)
    order = np.argsort(-severity, kind="stable")
    return np.asarray(order[severity[order] > 0][:most], dtype=np.int64)


@dataclass(frozen=True)
class Slicing:
    """Rows cut into slices by one column.

    Attributes:
        column: Its name.
        values: Name of each slice.
        places: Shape (n,): which slice each row is in, -1 for none; every slice has a row.
    """

    column: str
    values: Sequence[str]
    places: NDArray[np.int64]


def cut_into_slices(texts: Sequence[Text], columns: Mapping[str, Sequence[str]]) -> Iterator[Slicing]:
    """Cut rows into slices by the length of their text in words and by each column.

    Of a column the 50 values that most rows have are slices; the others, and those of fewer than 10 rows, are together
    the slice `other`. Numbers come in order, other values by their number of rows. Ranges of lengths of fewer than 10
    rows are left out.

    Args:
        texts: A text or a pair of texts a row; white space separates words.
        columns: Values by column, one a row.

    Yields:
        Lengths first, if any range has 10 rows, then the columns as they come.
    """
    words = np.fromiter((len(join_text(text).split()) for text in texts), dtype=np.int64, count=len(texts))
    ranges = np.searchsorted(list(_LENGTHS.values())[1:], words, side="right")
    kept = np.flatnonzero(np.bincount(ranges, minlength=len(_LENGTHS)) >= _FEWEST_ROWS)
    if len(kept):
        index = np.full(len(_LENGTHS), -1)
        index[kept] = np.arange(len(kept))
        yield Slicing(LENGTH_COLUMN, [list(_LENGTHS)[number] for number in kept], index[ranges])
    for column, values in columns.items():
        yield _cut_by_value(column, values)


def score_slices(
    task: Task,
    y: NDArray[Any],
    after: Array,
    before: Array | None,
    slicings: Sequence[Slicing],
    resampling: Resampling,
) -> list[SliceScores]:
    """Score a model on the rows of each slice.

    An interval is that of one slice looked at alone: of twenty slices that do not differ, one may well seem to. The
    p-values take their number into account.

    Args:
        task: The task.
        y: Labels of n rows.
        after: Values of the fine-tuned model, shape (n, labels).
        before: Those of the model before training, or None.
        slicings: From `cut_into_slices`.
        resampling: Of intervals and tests; a test takes more samples where there are so many slices that none of them
            could be told apart, and takes rows as independent where intervals know groups. What a column gets does not
            depend on the others, but for the adjusted p-values.

    Returns:
        One record a slice, in the order of `slicings`.
    """
    count = sum(len(slicing.values) for slicing in slicings)
    samples = max(resampling.samples, math.ceil(_FINENESS * count / (1 - resampling.level)))
    statistics = task.slice_statistics(task.row_statistics(y, after))
    tests = (_test_slices(task, statistics, slicing, samples, resampling.seed) for slicing in slicings)
    p_values = iter(adjust_p_values([p_value for found in tests for p_value in found]))
    scores = []
    for slicing in slicings:
        for place, value in enumerate(slicing.values):
            rows = np.flatnonzero(slicing.places == place)
            others = [] if before is None else [before[rows]]
            resampled = _Resampled(task, y[rows], others, [after[rows]], resampling.select(rows), sliced=True)
            scores.append(
                SliceScores(
                    column=slicing.column,
                    value=value,
                    rows=len(rows),
                    metrics=resampled.estimate(len(others)),
                    differences={} if before is None else resampled.subtract([0]),
                    adjusted_p_value=next(p_values),
                )
            )
    return scores


def compare_slices(
    task: Task,
    y: NDArray[Any],
    models: tuple[Array, Array],
    slices: Sequence[tuple[str, str, NDArray[np.int64]]],
    resampling: Resampling,
    *,
    on_progress: Callable[[int], object] | None = None,
) -> list[SliceComparison]:
    """Compare two models on the rows of each slice.

    Args:
        task: The task.
        y: Labels of n rows.
        models: Values of the first and of the second model, each of shape (n, labels).
        slices: Column, value and places of the rows of each slice, at least one row; slices may share rows.
        resampling: Of the intervals, each that of one slice looked at alone.
        on_progress: Called after each slice with how many are done.

    Returns:
        One record a slice, in the same order.
    """
    found = []
    for done, (column, value, rows) in enumerate(slices, start=1):
        members, (before, after) = y[rows], (values[rows] for values in models)
        resampled = _Resampled(task, members, [before], [after], resampling.select(rows), sliced=True)
        first, second = ({name: float(points[side]) for name, points in resampled.points.items()} for side in (0, 1))
        paired = _compare(task, members, before, after, resampled)
        found.append((Slice(column=column, value=value, rows=len(rows)), first, second, paired))
        if on_progress is not None:
            on_progress(done)
    p_values = adjust_p_values([paired.p_value for *_, paired in found])
    return [
        SliceComparison(**one.model_dump(), before=first, after=second, comparison=paired, adjusted_p_value=p_value)
        for (one, first, second, paired), p_value in zip(found, p_values, strict=True)
    ]


def find_weak_slices(task: Task, slices: Sequence[SliceScores], level: float) -> list[SliceScores]:
    """Return the slices shown to be worse than all rows together by the primary metric, the weakest first."""
    sign = 1 if task.primary_metric.higher_is_better else -1
    weak = [one for one in slices if one.adjusted_p_value < 1 - level]
    return sorted(weak, key=lambda one: sign * one.metrics[task.primary].value)


class _Resampled:
    """Metrics of several models on the same rows, and on the same resamples of them.

    Args:
        task: The task.
        y: Labels of n rows.
        before: Values of some models, shape (n, labels).
        after: Values of others, which the differences of `subtract` are in favour of.
        resampling: Of the intervals.
        sliced: Whether it is the metrics of slices that are wanted.

    Attributes:
        resampling: That of the intervals.
        points: By name, shape (models,).
        sums: Of `Task.row_statistics` over all rows or, if they come in groups, over each; shape (models, units, k).
    """

    def __init__(
        self,
        task: Task,
        y: NDArray[Any],
        before: Sequence[Array],
        after: Sequence[Array],
        resampling: Resampling,
        *,
        sliced: bool = False,
    ) -> None:
        models = [*before, *after]
        statistics = [task.row_statistics(y, values) for values in models]
        edges = [task.edge_statistics(y, values) for values in models]
        paired = task.pair_edges(edges, statistics, len(before))
        errors = np.stack([task.row_errors(y, values) for values in models])
        changes = errors[len(before) :].mean(axis=0) - errors[: len(before)]
        effects, self._effects = ([design_effect(row, resampling.groups) for row in part] for part in (errors, changes))
        edges = [effect * part for effect, part in zip(effects, edges, strict=True)]
        self.sums = np.stack([sum_units(part, resampling.groups) for part in statistics])
        self._shares = [task.proportions(sums) for sums in self.sums]
        self._compute = task.compute_slices if sliced else task.compute
        if sliced:
            statistics, edges, paired = (
                [task.slice_statistics(part) for part in parts] for parts in (statistics, edges, paired)
            )
        self.points = self._compute(np.stack([part.sum(axis=0) for part in statistics]))
        self._statistics = np.concatenate(statistics, axis=1)
        alone, together = (np.concatenate(parts, axis=1) for parts in (edges, paired))
        self._edges = np.stack([alone, *(effect * together for effect in sorted({*self._effects}))])
        self._before, self._models, self.resampling = len(before), len(models), resampling

    @cached_property
    def drawn(self) -> dict[str, Array]:
        """Metrics of the resamples by name, and last those of their mean, shape (sets, samples + 1, models).

        The first set is that with the edges of single models; the others have those of differences, with each of the
        weights that these have.
        """
        rng, samples = np.random.default_rng(self.resampling.seed), self.resampling.samples
        sums = resample_row_sums(self._statistics, samples, rng, groups=self.resampling.groups, edges=self._edges)
        sums = np.concatenate([sums, sums.mean(axis=1, keepdims=True)], axis=1)
        return self._compute(sums.reshape(len(sums), samples + 1, self._models, -1))

    def estimate(self, place: int) -> dict[str, Estimate]:
        """Estimate every metric of one model."""
        found, shares = {}, self._shares[place]
        for name, points in self.points.items():
            if name in shares:
                found[name] = share(*shares[name], self.resampling.level, grouped=self.resampling.is_grouped)
            else:
                found[name] = _bound(float(points[place]), self.drawn[name][0, :, place], self.resampling.level)
        return found

    def subtract(self, places: Sequence[int]) -> dict[str, Estimate]:
        """Estimate the mean of the models `after` minus that of some `before`, every metric."""
        chosen, first, effects = list(places), self._before, sorted({*self._effects})
        found = {}
        for name, points in self.points.items():
            pairs = [(self.drawn[name][1 + effects.index(self._effects[place])], place) for place in chosen]
            drawn = np.mean([drawn[:, first:].mean(axis=1) - drawn[:, place] for drawn, place in pairs], axis=0)
            point = float(points[first:].mean() - points[chosen].mean())
            found[name] = _bound(point, drawn, self.resampling.level)
        return found


def _compare(
    task: Task, y: NDArray[Any], before: Array, after: Array, resampled: _Resampled, place: int = 0
) -> Comparison:
    was_off, is_off = task.row_errors(y, before), task.row_errors(y, after)
    fixed, broken = int((is_off < was_off).sum()), int((is_off > was_off).sum())
    return Comparison(
        differences=resampled.subtract([place]),
        rows_fixed=fixed,
        rows_broken=broken,
        p_value=sign_test(fixed, broken),
        grouped=resampled.resampling.is_grouped,
    )


def _bound(point: float, drawn: Array, level: float) -> Estimate:
    """Put an interval around a metric, from those of `_Resampled.drawn`."""
    low, high = percentile_interval(drawn[:-1], level, point=point, centre=drawn[-1])
    return Estimate(value=point, low=float(low), high=float(high))


def _test_slices(task: Task, statistics: Array, slicing: Slicing, samples: int, seed: int) -> list[float]:
    """Return how likely each slice would be as bad as it is, or worse, if its rows were any of the n rows.

    Rows are dealt to the slices at random, a permutation test, which holds for slices of few rows and for any metric.
    P-values are never 0 (Phipson and Smyth 2010, "Permutation P-values Should Never Be Zero", Statistical Applications
    in Genetics and Molecular Biology 9). Of rows that are of two kinds, such as right and wrong ones, the chance of
    every deal is known, and the test is exact: for accuracies it is Fisher's.
    """
    held = np.flatnonzero(slicing.places >= 0)
    sizes = np.bincount(slicing.places[held])
    starts, rng = np.cumsum(sizes) - sizes, np.random.default_rng(seed)
    sign = -1 if task.primary_metric.higher_is_better else 1

    def measure_loss(sums: Array) -> Array:
        return sign * np.nan_to_num(task.compute_slices(sums)[task.primary], nan=1.0)  # of no labels, none is wrong

    def deal(order: NDArray[np.int64]) -> Array:
        return measure_loss(np.add.reduceat(statistics[order], starts, axis=0))

    measured = deal(held[np.argsort(slicing.places[held], kind="stable")])
    limit = measured - _ROUNDING * np.abs(measured)
    kinds, counts = np.unique(statistics, axis=0, return_counts=True)
    if len(kinds) <= 2:
        return [
            _sum_chances(measure_loss, kinds, counts, size, least) for size, least in zip(sizes, limit, strict=True)
        ]
    as_bad = np.zeros(len(sizes), dtype=np.int64)
    for _ in range(samples):
        as_bad += deal(rng.permutation(len(statistics))[: len(held)]) >= limit
    return [float(p_value) for p_value in (1 + as_bad) / (1 + samples)]


def _sum_chances(
    measure_loss: Callable[[Array], Array], kinds: Array, counts: NDArray[np.int64], size: int, limit: float
) -> float:
    """Sum the chances of those deals of `size` rows of at most two kinds whose loss is at least `limit`."""
    from scipy.stats import hypergeom

    drawn = np.arange(max(0, size - counts[0]), min(size, counts[1:].sum()) + 1)
    losses = measure_loss((size - drawn)[:, np.newaxis] * kinds[0] + drawn[:, np.newaxis] * kinds[-1])
    chances = hypergeom(counts.sum(), counts[1:].sum(), size).logpmf(drawn[losses >= limit])
    return min(1.0, float(np.exp(chances).sum()))


def _cut_by_value(column: str, values: Sequence[str]) -> Slicing:
    counts = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
    kept = [value for value, rows in counts if rows >= _FEWEST_ROWS][:_MOST_VALUES]
    kept.sort(key=_place)
    index = {value: place for place, value in enumerate(kept)}
    places = np.fromiter((index.get(value, len(kept)) for value in values), dtype=np.int64, count=len(values))
    return Slicing(column, _shorten([*kept, "other"] if len(kept) < len(counts) else kept), places)


def _place(value: str) -> float:
    """Order numbers by their value, before everything else, which stays as it is."""
    try:
        number = float(value)
    except ValueError:
        return math.inf
    return number if math.isfinite(number) else math.inf


def _shorten(values: Sequence[str]) -> list[str]:
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
