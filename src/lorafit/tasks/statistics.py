"""Confidence intervals and tests: Wilson's interval for shares, one bootstrap for everything else, sign test, Holm.

`benchmarks/coverage.py` measures how often the intervals hold the truth.
"""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lorafit.tasks.records import Estimate, Resampling

Array = NDArray[np.float64]

_RARE: Final = 3
"""Up to so many successes or failures, Wilson's interval is corrected."""

_MANY: Final = 400
"""From so many rows on, the weights' correction for few rows changes widths by less than half a percent."""

_SAMPLES, _ROWS = 128, 2048
"""Weights drawn at a time, 2 MB: they stay in the processor's cache and bound the memory whatever the data."""


def wilson_interval(successes: ArrayLike, trials: ArrayLike, level: float) -> tuple[Array, Array]:
    """Return the interval of each of several shares, also where all or none succeed.

    Wilson's score interval holds the truth too rarely (as rarely as 84 instead of 95 %) where few successes or failures
    are to be expected. So its lower end for 1 to 3 successes, and its upper end for as many failures, is that of a
    Poisson count, as Brown, Cai and DasGupta propose.

    Sources: Wilson (1927), "Probable Inference", JASA 22; Brown, Cai and DasGupta (2001), "Interval Estimation for a
    Binomial Proportion", Statistical Science 16, section 4.1.1.

    Args:
        successes: Whole numbers, 0 to `trials`.
        trials: Whole numbers that broadcast with `successes`; where 0, the ends are NaN.
        level: Above 0 and below 1.

    Returns:
        Lower and upper ends, with low <= share <= high.

    Raises:
        ValueError: Counts or a level out of range.
    """
    count, total = np.broadcast_arrays(np.asarray(successes, dtype=np.float64), np.asarray(trials, dtype=np.float64))
    if (count < 0).any() or (count > total).any():
        raise ValueError("There must be 0 or more successes, and no more than trials.")
    tail = _tail(level)
    return _wilson_low(count, total, tail), 1 - _wilson_low(total - count, total, tail)


def _wilson_low(count: Array, total: Array, tail: float) -> Array:
    from scipy.special import gammaincinv

    z = NormalDist().inv_cdf(1 - tail)
    with np.errstate(divide="ignore", invalid="ignore"):  # no trials: NaN
        share = count / total
        centre = share + z**2 / (2 * total)
        low = (centre - z * np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))) / (1 + z**2 / total)
        is_rare = (count >= 1) & (count <= _RARE)
        rare = np.where(is_rare, gammaincinv(np.clip(count, 1, _RARE), 2 * tail) / total, low)
    return np.asarray(np.minimum(np.minimum(low, rare), share).clip(min=0.0))


def grouped_interval(successes: Array, trials: Array, level: float) -> tuple[Array, Array]:
    """Return the interval of each of several shares of rows that come in groups.

    It is Clopper and Pearson's for as many independent rows as tell as much, by the variance that rows of a group have
    in common and by Student's t for the number of groups, where large ones count for more. Of a single group, and where
    all or none succeed, that variance is not seen, and a group counts no more than a row: so all right may look less
    sure than one wrong. Where mistakes are rare and come together, the truth is held too rarely.

    Source: Korn and Graubard (1998), "Confidence Intervals for Proportions with Small Expected Number of Positive
    Counts Estimated from Survey Data", Survey Methodology 24; t counts here even where groups vary less than chance.

    Args:
        successes: Whole numbers, shape (groups, shares).
        trials: The same.
        level: Above 0 and below 1.

    Returns:
        Lower and upper ends, each of shape (shares,); NaN without trials.
    """
    from scipy.special import betaincinv, stdtrit

    total, tail = trials.sum(axis=0), _tail(level)
    with np.errstate(divide="ignore", invalid="ignore"):  # no trials, or nothing on one side: NaN
        freedom = np.fmax(total**2 / (trials**2).sum(axis=0) - 1, 1)  # as many groups as there would be of one size
        point = successes.sum(axis=0) / total
        scale = (stdtrit(np.maximum(total - 1, 1), 1 - tail) / stdtrit(freedom, 1 - tail)) ** 2
        count = total * scale / _design_effects(successes, trials, total * point * (1 - point))
        right, wrong = point * count, (1 - point) * count
        low = np.where(right > 0, betaincinv(right, wrong + 1, tail), point)
        high = np.where(wrong > 0, betaincinv(right + 1, wrong, 1 - tail), point)
    return low, high


def share_interval(successes: Array, trials: Array, level: float, *, grouped: bool) -> tuple[Array, Array]:
    """Return the interval of each of several shares of rows, Wilson's or that of `grouped_interval`.

    Args:
        successes: Whole numbers, shape (units, shares): of each group or, without groups, of whatever parts.
        trials: The same.
        level: Above 0 and below 1.
        grouped: Whether units are groups of rows that have something in common.

    Returns:
        Lower and upper ends, each of shape (shares,); NaN without trials.
    """
    if grouped:
        return grouped_interval(successes, trials, level)
    return wilson_interval(successes.sum(axis=0), trials.sum(axis=0), level)


def design_effect(values: Array, groups: NDArray[np.int64] | None) -> float:
    """Estimate how many rows tell as much about a mean as one that stands alone (Kish 1965, "Survey Sampling").

    Args:
        values: Shape (n,), n at least 1.
        groups: Shape (n,), ids of rows that belong together; None where rows stand alone.

    Returns:
        1 or more; where nothing is seen of what rows of a group have in common, the size of a group.
    """
    if groups is None:
        return 1.0
    sums, sizes = sum_groups(values[:, np.newaxis], groups)
    squares = ((values - values.mean()) ** 2).sum()
    is_spread = squares > 1e-12 * (values**2).sum()  # anything less is a rounding error
    return float(_design_effects(sums, sizes[:, np.newaxis], np.array([is_spread * squares]))[0])


def _design_effects(sums: Array, sizes: Array, squares: Array) -> Array:
    """Return `design_effect` of several columns from sums over groups, their rows, and the rows' squared deviations."""
    total, count = sizes.sum(axis=0), (sizes > 0).sum(axis=0)
    freedom = np.maximum(count - 1, 1)
    with np.errstate(divide="ignore", invalid="ignore"):  # no rows: NaN
        from_others = (sums - sums.sum(axis=0) / total * sizes) / (1 - sizes / total)  # a large group moves the mean
        apart = (from_others**2).sum(axis=0) * freedom / (freedom + 1)
        is_seen = (squares > 0) & (count > 1)
        return np.asarray(np.maximum(np.where(is_seen, apart / squares, (sizes**2).sum(axis=0) / total), 1))


def resample_row_sums(
    statistics: Array,
    samples: int,
    rng: np.random.Generator,
    *,
    groups: NDArray[np.int64] | None = None,
    edges: Array | None = None,
) -> Array:
    """Draw the sums over rows that other rows of the same kind could give: a Bayesian bootstrap.

    A resample gives each row a random weight (Rubin 1981, "The Bayesian Bootstrap", Annals of Statistics 9). No weight
    is 0, so what is defined for the rows is defined for every resample. With few rows the weights vary more, so that
    means vary as Student's t has it.

    Rows without a mistake do not show that there is none. So a resample also holds one of the `edges`, such as a worst
    and a best possible row, with the weight of a row, each of them in equally many resamples. For a share of rows, from
    400 rows on, the percentile interval is then exactly the mid-P interval (Lancaster 1961, "Significance Tests in
    Discrete Distributions", JASA 56), halfway between the two distributions of which Clopper and Pearson's is made; for
    the mean of a bounded variable, halfway between those of Gaffke (2005), "Three Test Statistics for a Nonparametric
    One-Sided Hypothesis on the Mean of a Nonnegative Variable", Mathematical Methods of Statistics 14.

    Weights depend on the number of rows, `samples`, `groups` and `rng` alone: the same seed gives the rows of two
    models the same weights, with or without edges.

    Args:
        statistics: Shape (n, k), n at least 1.
        samples: Number of resamples, at least 1.
        rng: Source of randomness.
        groups: Shape (n,), ids of rows that belong together and get one weight, or None.
        edges: Shape (..., m, k), statistics of rows that were not seen but could have been, with groups of as many rows
            as tell as much as one (`design_effect`); sets of them give sets of resamples. Without any (None, or m = 0),
            resamples do not vary where the rows are all alike.

    Returns:
        Shape (..., samples, k), scaled to the weight of n rows, an edge being one of them.

    Raises:
        ValueError: A number of samples out of range.
    """
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}.")
    units, sizes = (statistics, np.ones(len(statistics))) if groups is None else sum_groups(statistics, groups)
    extra = rng.standard_exponential(samples)
    sums, rows = np.zeros((samples, statistics.shape[1])), np.zeros(samples)
    for start in range(0, samples, _SAMPLES):
        block = slice(start, min(start + _SAMPLES, samples))
        for first in range(0, len(units), _ROWS):
            part = slice(first, min(first + _ROWS, len(units)))
            weights = _draw_weights(len(units), (block.stop - block.start, part.stop - part.start), rng)
            sums[block] += weights @ units[part]
            rows[block] += weights @ sizes[part]
    if edges is not None and edges.shape[-2]:
        sums = sums + extra[:, np.newaxis] * edges[..., np.arange(samples) % edges.shape[-2], :]
        rows += extra
    return np.asarray(sums * (len(statistics) / rows)[:, np.newaxis])


def _draw_weights(count: int, shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """Draw weights of some of `count` rows, which add up to about 1 each.

    Means of weights from Gamma(1 - 4/n) have (n - 1) / (n - 3) times the variance that is estimated from n rows, as
    Student's t with n - 1 degrees of freedom has.
    """
    return rng.standard_exponential(shape) if count >= _MANY else rng.standard_gamma(max(1 - 4 / count, 0.2), shape)


def sum_groups(statistics: Array, groups: NDArray[np.int64]) -> tuple[Array, Array]:
    """Return sums over the rows of each group, shape (groups, k), and its number of rows, in order of the ids."""
    order = np.argsort(groups, kind="stable")
    _, starts, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    return np.add.reduceat(statistics[order], starts, axis=0), sizes.astype(np.float64)


def sum_units(statistics: Array, groups: NDArray[np.int64] | None) -> Array:
    """Return sums over the rows of each group, shape (groups, k), or over all where rows stand alone, (1, k)."""
    return statistics.sum(axis=0, keepdims=True) if groups is None else sum_groups(statistics, groups)[0]


def percentile_interval(
    resampled: Array, level: float, *, point: ArrayLike | None = None, centre: ArrayLike | None = None
) -> tuple[Array, Array]:
    """Return the percentile interval of resampled metrics.

    The mean of resampled metrics is not the metric of mean resampled sums: the F1 of a rare class is lower in most
    resamples, and by as much the measured one is probably lower than the truth. With `centre`, the end on that side is
    moved outwards by twice as much. That is the bias-corrected interval of Efron (1981), "Nonparametric Standard Errors
    and Confidence Intervals", Canadian Journal of Statistics 9, with the bias of the mean in standard errors for that
    of the median, and with no end moved inwards. Means have no such bias.

    Args:
        resampled: Shape (samples, ...), one metric a resample.
        level: Above 0 and below 1.
        point: Shape (...), metrics that the intervals are to hold; where NaN, the ends are NaN.
        centre: Shape (...), metrics of the mean of the resampled sums, or None for no correction.

    Returns:
        Lower and upper ends, each of shape (...).

    Raises:
        ValueError: A level out of range.
    """
    tail = _tail(level)
    if centre is None:
        low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    else:
        low, high = _quantiles_without_bias(resampled, tail, np.asarray(centre, dtype=np.float64))
    return (low, high) if point is None else (np.minimum(low, point), np.maximum(high, point))


def _quantiles_without_bias(resampled: Array, tail: float, centre: Array) -> Array:
    normal, spread = NormalDist(), resampled.std(axis=0)
    is_spread = spread > 1e-9 * np.abs(centre)  # anything less is a rounding error
    lack = np.divide(centre - resampled.mean(axis=0), spread, out=np.zeros_like(spread), where=is_spread)
    z, ends = normal.inv_cdf(1 - tail), np.empty((2, *spread.shape))
    for place in np.ndindex(spread.shape):
        levels = [normal.cdf(min(2 * lack[place], 0.0) - z), normal.cdf(max(2 * lack[place], 0.0) + z)]
        ends[(slice(None), *place)] = np.quantile(resampled[(slice(None), *place)], levels)
    return ends


def bootstrap_mean(values: Array, resampling: Resampling, *, largest: float | None = None) -> Estimate:
    """Estimate the mean of values such as differences between two models.

    Args:
        values: Shape (n,), n at least 1.
        resampling: Of the interval.
        largest: Largest size that a value of either sign could have; as None, the largest that there is.

    Returns:
        The mean with its interval.

    Raises:
        ValueError: A level or number of samples out of range.
    """
    most, point = float(np.abs(values).max()) if largest is None else largest, values.mean()
    edges = np.array([[-most, 1], [most, 1]]) * design_effect(values, resampling.groups)
    counted, rng = np.stack([values, np.ones(len(values))], axis=1), np.random.default_rng(resampling.seed)
    sums = resample_row_sums(counted, resampling.samples, rng, groups=resampling.groups, edges=edges)
    low, high = percentile_interval(sums[:, 0] / sums[:, 1], resampling.level, point=point)
    return Estimate(value=float(point), low=float(low), high=float(high))


def sign_test(fixed: int, broken: int) -> float:
    """Test exactly, on both sides, whether rows are fixed as easily as broken: for right and wrong rows McNemar's test.

    Given their number, rows fixed are binomial with a share of one half if neither model is better. Source: McNemar
    (1947), Psychometrika 12; exact form as in Dietterich (1998), Neural Computation 10.

    Args:
        fixed: Rows that the second model has better than the first, 0 or more.
        broken: Rows that it has worse.

    Returns:
        The p-value; 1 where nothing changed.

    Raises:
        ValueError: A negative count.
    """
    from scipy.special import bdtr

    if fixed < 0 or broken < 0:
        raise ValueError(f"Counts must not be negative, got {fixed} fixed and {broken} broken.")
    return min(1.0, 2 * float(bdtr(min(fixed, broken), fixed + broken, 0.5)))


def energy_test(
    first: Array,
    second: Array,
    *,
    units: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
    permutations: int = 999,
    seed: int = 0,
) -> float:
    """Test whether two samples are of one distribution: a permutation test of their energy distance.

    Rows that are exchangeable give a p-value of at most a with a probability of at most a, for every a, however few
    they are and whatever they are distributed like; with units, it is these that have to be exchangeable. Source:
    Székely and Rizzo (2004), "Testing for Equal Distributions in High Dimension", InterStat 5.

    Args:
        first: Shape (m, k), m at least 1.
        second: Shape (n, k), n at least 1.
        units: Shapes (m,) and (n,): a number for what each row belongs to, which changes sides as a whole; None where
            rows stand alone. A number in both samples stands for two units.
        permutations: How often they change sides, at least 1; no p-value is below 1 / (permutations + 1).
        seed: Of the permutations.

    Returns:
        The p-value.
    """
    from scipy.spatial.distance import cdist

    rows, counts = np.concatenate([first, second]), [len(first), len(second)]
    distances, rng = cdist(rows, rows).astype(np.float32), np.random.default_rng(seed)
    owners = np.arange(len(rows))
    if units is not None:
        numbered = [np.unique(numbers, return_inverse=True)[1] for numbers in units]
        counts = [int(numbers.max()) + 1 for numbers in numbered]
        owners = np.concatenate([numbered[0], numbered[1] + counts[0]])
    sides = np.zeros((permutations + 1, sum(counts)), dtype=np.float32)
    sides[0, : counts[0]] = 1
    for side in sides[1:]:
        side[rng.permutation(sum(counts))[: counts[0]]] = 1
    sides = sides[:, owners]
    m = sides.sum(axis=1, dtype=np.float64)
    n = len(rows) - m
    within = np.einsum("ij,ij->i", sides @ distances, sides, dtype=np.float64)
    of_first, total = sides @ distances.sum(axis=1, dtype=np.float64), distances.sum(dtype=np.float64)
    energy = 2 * (of_first - within) / (m * n) - within / m**2 - (total - 2 * of_first + within) / n**2
    energy *= m * n / len(rows)  # else sides of few rows, by which it is the larger by chance, would stand out
    tie = 1e-6 * np.abs(energy).max()  # a rounding error must not decide
    return float((energy >= energy[0] - tie).mean())


def exact_tests(first: NDArray[np.int64], second: NDArray[np.int64], rows: tuple[int, int]) -> Array:
    """Test exactly, on both sides, whether shares of two samples of rows differ: Fisher's test, doubled.

    Args:
        first: Shape (k,): rows of the first sample that have each of k properties.
        second: The same of the second.
        rows: Rows of both samples.

    Returns:
        The p-values, shape (k,).
    """
    from scipy.stats import hypergeom

    among = hypergeom(sum(rows), first + second, rows[0])
    return np.asarray(np.minimum(1.0, 2 * np.minimum(among.cdf(first), among.sf(first - 1))))


def adjust_p_values(p_values: Sequence[float]) -> list[float]:
    """Raise p-values so that among all of them a chance finding is as rare as in one test.

    Source: Holm (1979), "A Simple Sequentially Rejective Multiple Test Procedure", Scand. J. of Statistics 6.

    Args:
        p_values: Any number of p-values, each 0 to 1, of tests that may depend on each other.

    Returns:
        The adjusted ones in the same order, 0 to 1.
    """
    adjusted, highest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def _tail(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"A confidence level lies between 0 and 1, got {level}.")
    return (1 - level) / 2
