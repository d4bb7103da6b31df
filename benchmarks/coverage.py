"""How often confidence intervals of 95 % hold the truth, by simulation.

Run: python benchmarks/coverage.py [--replicates 5000] [--only NAME]

Draws data sets from known distributions, puts intervals around their metrics as `lorafit.tasks` does, and counts how
often these hold the metric of the whole distribution. Writes benchmarks/results/coverage.json and prints a table.
Takes about 25 minutes on two cores; nothing is trained.
"""

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lorafit.tasks.metrics import share_to_f1
from lorafit.tasks.statistics import (
    design_effect,
    percentile_interval,
    resample_row_sums,
    share_interval,
    sum_units,
)

__all__ = ["SCENARIOS", "Classes", "Coverage", "Difference", "Groups", "Numbers", "measure"]

Array = NDArray[np.float64]

LEVEL = 0.95
TOGETHER = 50
"""Data sets that share their resampling weights, which makes one product of matrices of them."""

_TOO_SURE = (5.0, 1.5)
"""Mean and deviation of the logit of an overconfident model's confidence."""

LARGE = 500_000
"""Rows from which a truth without a formula is measured."""


@dataclass(frozen=True)
class Data:
    """Data sets of n rows.

    Attributes:
        statistics: Shape (n, sets, k).
        edges: Shape (2, sets, k), a worst and a best row.
        shares: Name to rows that count and rows of metrics that are shares of rows, each of shape (rows, sets).
        unions: Name to true positives and false ones of the F1 of a class, each of shape (rows, sets).
        errors: Shape (rows, sets), how wrong each row is.
    """

    statistics: Array
    edges: Array
    shares: Mapping[str, tuple[Array, Array]]
    unions: Mapping[str, tuple[Array, Array]]
    errors: Array


class Scenario(Protocol):
    """A distribution of rows, each right with a probability of `p`.

    Attributes:
        groups: In what groups rows come.
    """

    groups: "Groups"

    def draw(self, p: float, rows: int, sets: int, rng: np.random.Generator) -> Data:
        """Draw data sets."""

    def compute(self, sums: Array) -> dict[str, Array]:
        """Compute the metrics that are resampled from sums of statistics, shape (..., k)."""

    def find_truth(self, p: float) -> dict[str, float]:
        """Return the metrics of the whole distribution."""


@dataclass(frozen=True)
class Groups:
    """Groups that rows come in, one after another.

    Attributes:
        rows: Rows of a group; 1 where rows stand alone.
        alike: Correlation of what is drawn for two rows of a group, 0 to 1.
    """

    rows: int = 1
    alike: float = 0.0

    def number(self, rows: int) -> NDArray[np.int64] | None:
        """Return the group of each row, None where they stand alone."""
        return None if self.rows == 1 else np.arange(rows) // self.rows

    def draw_normal(self, shape: tuple[int, int], rng: np.random.Generator) -> Array:
        """Draw standard normal numbers of rows, shape (rows, sets)."""
        alone = rng.normal(size=shape)
        if self.rows == 1:
            return alone
        shared = np.repeat(rng.normal(size=(-(-shape[0] // self.rows), shape[1])), self.rows, axis=0)[: shape[0]]
        return np.asarray(np.sqrt(self.alike) * shared + np.sqrt(1 - self.alike) * alone)


ALONE = Groups()


@dataclass(frozen=True)
class Classes:
    """One of several classes a text, by two models: one whose confidence is right, and one that is far too sure.

    A wrong row gets another class with equal chances. The metrics of a class are those of the rarest. No calibrated
    model is right less often than by chance or always: for these p, it is one that is hardly, or almost entirely, sure.

    Attributes:
        chances: Share of each class in the data, the rarest first.
        groups: Of rows that are about as sure, and about as often right.
    """

    chances: tuple[float, ...]
    groups: Groups = ALONE

    def draw(self, p: float, rows: int, sets: int, rng: np.random.Generator) -> Data:
        """Draw data sets."""
        from scipy.special import ndtr

        classes, shape = len(self.chances), (rows, sets)
        y = rng.choice(classes, size=shape, p=self.chances)
        mean, deviation = self._confidence(p)
        sure = mean + deviation * self.groups.draw_normal(shape, rng)
        is_calibrated = 1 / classes < p < 1
        luck = ndtr(self.groups.draw_normal(shape, rng))
        is_right = luck < (np.exp(_log_top(sure, classes)) if is_calibrated else p)
        predicted = np.where(is_right, y, (y + rng.integers(1, classes, size=shape)) % classes)
        losses, worst, best = [], [], []
        for logit in (sure, rng.normal(*_TOO_SURE, shape)):
            rest = rng.dirichlet(np.ones(classes - 1), size=shape)  # how other classes share what the top one leaves
            top, others = -_log_top(logit, classes), -_log_rest(logit, classes)[..., np.newaxis] - np.log(rest)
            losses.append(np.where(is_right, top, others[..., 0]))
            worst.append(others.mean(axis=2).max(axis=0))
            best.append(top.mean(axis=0))
        true, given = np.eye(classes)[y], np.eye(classes)[predicted]
        statistics = np.concatenate([*(loss[..., np.newaxis] for loss in losses), true * given, given, true], axis=-1)
        rare, rare_hits = true[..., 0], true[..., 0] * given[..., 0]
        wrong, right = _spread_evenly((true + given).sum(axis=0) > 0)
        return Data(
            statistics=statistics,
            edges=np.stack([np.column_stack([*worst, wrong]), np.column_stack([*best, right])]),
            shares={"accuracy": (is_right, np.ones(shape)), "recall": (rare_hits, rare)},
            unions={"F1": (rare_hits, rare + given[..., 0] - 2 * rare_hits)},
            errors=1.0 - is_right,
        )

    def compute(self, sums: Array) -> dict[str, Array]:
        """Compute the metrics."""
        hits, chosen, support = np.split(sums[..., 2:], 3, axis=-1)
        rows = support.sum(axis=-1)
        return {
            "macro F1": _macro_f1(hits, chosen, support),
            "MCC": _mcc(hits, chosen, support),
            "log loss": sums[..., 0] / rows,
            "log loss (too sure)": sums[..., 1] / rows,
        }

    def find_truth(self, p: float) -> dict[str, float]:
        """Return the metrics of the distribution."""
        classes, chances = len(self.chances), np.array(self.chances)
        hits, chosen = chances * p, chances * p + (1 - chances) * (1 - p) / (classes - 1)
        return {
            "accuracy": p,
            "recall": p,
            "F1": float(2 * hits[0] / (chances[0] + chosen[0])),
            "macro F1": float(_macro_f1(hits, chosen, chances)),
            "MCC": float(_mcc(hits, chosen, chances)),
            "log loss": self._mean_loss(p, *self._confidence(p), is_calibrated=1 / classes < p < 1),
            "log loss (too sure)": self._mean_loss(p, *_TOO_SURE, is_calibrated=False),
        }

    def _mean_loss(self, p: float, mean: float, deviation: float, *, is_calibrated: bool) -> float:
        classes = len(self.chances)
        logit, weight = _integrate(mean, deviation)
        right = np.exp(_log_top(logit, classes)) if is_calibrated else p
        other = np.sum(1 / np.arange(1, classes - 1))  # mean of -log of a share of the rest
        return float(weight @ (-right * _log_top(logit, classes) + (1 - right) * (other - _log_rest(logit, classes))))

    def _confidence(self, p: float) -> tuple[float, float]:
        """Return mean and deviation of the logit of a calibrated model's confidence."""
        from scipy.optimize import brentq

        classes = len(self.chances)
        if p <= 1 / classes:
            return -2.0, 1.0
        if p == 1:
            return 5.0, 1.0

        def miss(mean: float) -> float:
            logit, weight = _integrate(mean, 1.0)
            return float(weight @ np.exp(_log_top(logit, classes))) - p

        return brentq(miss, -20, 20), 1.0


@dataclass(frozen=True)
class Difference:
    """The second of two models of two classes minus the first, which is right with probability `p`.

    The edges are a row fixed and a row broken; their change of log loss is the largest that a row has.

    Attributes:
        gain: How much the second model's logit of the true class is higher on average.
        change: Standard deviation of that.
        groups: Of rows that change alike.
    """

    gain: float
    change: float
    groups: Groups = ALONE

    def draw(self, p: float, rows: int, sets: int, rng: np.random.Generator) -> Data:
        """Draw data sets."""
        statistics = self._draw_rows(p, (rows, sets), rng)
        counts = statistics[..., 3:7].sum(axis=0).reshape(sets, 2, 2).sum(axis=1)
        wrong, right = _spread_evenly(counts > 0)
        most = np.abs(statistics[..., 7] - statistics[..., 0]).max(axis=0)
        fixed, broken = (
            np.column_stack([-change, before, change, after])
            for change, before, after in ((-most / 2, wrong, right), (most / 2, right, wrong))
        )
        errors = statistics[..., 1:3].sum(axis=-1) - statistics[..., 8:10].sum(axis=-1)
        return Data(statistics, np.stack([fixed, broken]), {}, {}, errors)

    def _draw_rows(self, p: float, shape: tuple[int, int], rng: np.random.Generator) -> Array:
        from scipy.special import ndtri

        true = np.eye(2)[(rng.random(shape) < 0.7).astype(int)]
        first = 2 * (self.groups.draw_normal(shape, rng) + ndtri(min(p, 1 - 1e-9)))
        second = first + self.gain + self.change * self.groups.draw_normal(shape, rng)
        models = []
        for margin in (first, second):
            given = np.where(margin[..., np.newaxis] > 0, true, 1 - true)
            models.append(
                np.concatenate([np.logaddexp(0, -margin)[..., np.newaxis], true * given, given, true], axis=-1)
            )
        return np.concatenate(models, axis=-1)

    def compute(self, sums: Array) -> dict[str, Array]:
        """Compute the metrics."""
        before, after = (self._score(part) for part in np.split(sums, 2, axis=-1))
        return {name: after[name] - before[name] for name in before}

    def _score(self, sums: Array) -> dict[str, Array]:
        hits, chosen, support = np.split(sums[..., 1:], 3, axis=-1)
        rows = support.sum(axis=-1)
        return {
            "Δ accuracy": hits.sum(axis=-1) / rows,
            "Δ macro F1": _macro_f1(hits, chosen, support),
            "Δ log loss": sums[..., 0] / rows,
        }

    def find_truth(self, p: float) -> dict[str, float]:
        """Return the metrics of the distribution."""
        sums = self._draw_rows(p, (LARGE, 1), np.random.default_rng(0)).sum(axis=(0, 1))
        return {name: float(value) for name, value in self.compute(sums).items()}


@dataclass(frozen=True)
class Numbers:
    """Numbers predicted with an error of standard deviation 0.5, labels of 1; there is no `p`."""

    groups: Groups = ALONE

    def draw(self, p: float, rows: int, sets: int, rng: np.random.Generator) -> Data:
        """Draw data sets."""
        del p
        statistics = self._draw_rows((rows, sets), rng)
        places = np.arange(sets)
        ends = (statistics[part(statistics[..., 0], axis=0), places] for part in (np.argmax, np.argmin))
        return Data(statistics, np.stack(list(ends)), {}, {}, statistics[..., 0])

    def _draw_rows(self, shape: tuple[int, int], rng: np.random.Generator) -> Array:
        true = rng.normal(size=shape)
        value = true + 0.5 * rng.normal(size=shape)
        error = np.abs(value - true)
        return np.stack([error, error**2, np.ones(shape), true, value, true**2, value**2, true * value], axis=-1)

    def compute(self, sums: Array) -> dict[str, Array]:
        """Compute the metrics."""
        error, squared, rows, true, value, true_squared, value_squared, product = np.moveaxis(sums, -1, 0)
        spread, value_spread = true_squared - true**2 / rows, value_squared - value**2 / rows
        return {
            "MAE": error / rows,
            "RMSE": np.sqrt(squared / rows),
            "R²": 1 - squared / spread,
            "r": (product - true * value / rows) / np.sqrt(spread * value_spread),
        }

    def find_truth(self, p: float) -> dict[str, float]:
        """Return the metrics of the distribution."""
        del p
        return {"MAE": 0.5 * np.sqrt(2 / np.pi), "RMSE": 0.5, "R²": 0.75, "r": 1 / np.sqrt(1.25)}


_ZIPF = np.sort(np.arange(1, 53) ** -1.5)
EIGHTS = Groups(8, 0.3)
PROBABILITIES = (0.02, 0.5, 0.98, 1.0)
SCENARIOS: dict[str, tuple[Scenario, tuple[int, ...], tuple[float, ...]]] = {
    "2 classes, equally frequent": (Classes((0.5, 0.5)), (20, 100, 1000), PROBABILITIES),
    "4 classes, 10 to 40 % of the rows": (Classes((0.1, 0.2, 0.3, 0.4)), (20, 100, 1000), PROBABILITIES),
    "20 classes, equally frequent": (Classes((0.05,) * 20), (100, 1000), (0.5, 0.98)),
    "52 classes, 0.1 to 41 % of the rows": (Classes(tuple(_ZIPF / _ZIPF.sum())), (2500,), (0.9,)),
    "a better model": (Difference(0.3, 0.5), (20, 100, 1000), (0.5, 0.98)),
    "another model": (Difference(0.0, 2.0), (20, 100, 1000), (0.5, 0.98)),
    "numbers": (Numbers(), (20, 100, 1000), (1.0,)),
    "4 classes, in groups of 8 rows": (Classes((0.1, 0.2, 0.3, 0.4), EIGHTS), (96, 240, 1000), PROBABILITIES),
    "4 classes, in groups of 8 rows that are much alike": (
        Classes((0.1, 0.2, 0.3, 0.4), Groups(8, 0.9)),
        (96, 240, 1000),
        (0.98,),
    ),
    "a better model, in groups of 8 rows": (Difference(0.3, 0.5, EIGHTS), (96, 240, 1000), (0.5, 0.98)),
}
"""By name: the distribution, and the rows and probabilities to be right with which it is drawn."""


@dataclass(frozen=True)
class Coverage:
    """How intervals of one metric hold its truth.

    Attributes:
        truth: The metric of the whole distribution.
        held: Share of intervals that hold it.
        below: Share of intervals that end below it.
        above: Share of intervals that begin above it.
        width: Mean width.
        replicates: Number of intervals.
    """

    truth: float
    held: float
    below: float
    above: float
    width: float
    replicates: int


def measure(
    scenario: Scenario, *, p: float, rows: int, replicates: int, samples: int = 2000, seed: int = 0
) -> dict[str, Coverage]:
    """Simulate data sets and measure how their intervals hold the truth.

    Args:
        scenario: What is drawn.
        p: Probability of a row to be right.
        rows: Rows of a data set.
        replicates: Data sets.
        samples: Resamples behind an interval.
        seed: Of everything.

    Returns:
        Coverage by metric, without the intervals that are undefined.
    """
    found: dict[str, list[Array]] = {}
    for start in range(0, replicates, TOGETHER):
        rng = np.random.default_rng([seed, rows, start])
        data = scenario.draw(p, rows, min(TOGETHER, replicates - start), rng)
        for name, ends in _bound(scenario, data, samples, rng).items():
            found.setdefault(name, []).append(np.stack(ends))
    truth, coverages = scenario.find_truth(p), {}
    for name, ends in found.items():
        low, high = np.concatenate(ends, axis=1)
        low, high = low[~np.isnan(low)], high[~np.isnan(high)]
        below, above = high < truth[name] - 1e-12, low > truth[name] + 1e-12
        coverages[name] = Coverage(
            truth=truth[name],
            held=float(1 - (below | above).mean()),
            below=float(below.mean()),
            above=float(above.mean()),
            width=float((high - low).mean()),
            replicates=len(low),
        )
    return coverages


def _bound(scenario: Scenario, data: Data, samples: int, rng: np.random.Generator) -> dict[str, tuple[Array, Array]]:
    """Put an interval around every metric of every data set."""
    rows, sets, width = data.statistics.shape
    groups = scenario.groups.number(rows)
    effects = np.array([design_effect(errors, groups) for errors in data.errors.T])
    sums = resample_row_sums(
        data.statistics.reshape(rows, -1),
        samples,
        rng,
        groups=groups,
        edges=(data.edges * effects[:, np.newaxis]).reshape(2, -1),
    )
    points = scenario.compute(data.statistics.sum(axis=0))
    sums = sums.reshape(samples, sets, width)
    drawn, centres = scenario.compute(sums), scenario.compute(sums.mean(axis=0))
    return {
        **{name: _bound_share(*counts, groups) for name, counts in data.shares.items()},
        **{name: _bound_f1(*counts, groups) for name, counts in data.unions.items()},
        **{name: percentile_interval(drawn[name], LEVEL, point=points[name], centre=centres[name]) for name in points},
    }


def _bound_share(held: Array, trials: Array, groups: NDArray[np.int64] | None) -> tuple[Array, Array]:
    counts = (sum_units(part.astype(np.float64), groups) for part in (held, trials))
    return share_interval(*counts, LEVEL, grouped=groups is not None)


def _bound_f1(hits: Array, false: Array, groups: NDArray[np.int64] | None) -> tuple[Array, Array]:
    low, high = _bound_share(hits, hits + false, groups)
    return share_to_f1(low), share_to_f1(high)


def _spread_evenly(occurs: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Return hits, predictions and labels of a wrong and of a right row, spread evenly over the classes that occur.

    So rare classes, whose F1 a single row moves most, get as much of it as others.

    Args:
        occurs: Shape (sets, classes).

    Returns:
        Both of shape (sets, 3 * classes).
    """
    occurs = np.where(occurs.sum(axis=-1, keepdims=True) > 1, occurs, True)
    even = occurs / occurs.sum(axis=-1, keepdims=True)
    return np.column_stack([0 * even, even, even]), np.column_stack([even, even, even])


def _integrate(mean: float, deviation: float) -> tuple[Array, Array]:
    """Return places and weights of an integral over a normal distribution."""
    places, weights = np.polynomial.hermite_e.hermegauss(120)
    return mean + deviation * places, weights / weights.sum()


def _log_top(logit: Array, classes: int) -> Array:
    """Return the log of the confidence, which is 1 / classes or more, from its logit above that."""
    return np.log(1 / classes + (1 - 1 / classes) / (1 + np.exp(-logit)))


def _log_rest(logit: Array, classes: int) -> Array:
    """Return the log of 1 - confidence."""
    return np.log1p(-1 / classes) - np.logaddexp(0, logit)


def _macro_f1(hits: Array, chosen: Array, support: Array) -> Array:
    marks = chosen + support
    scores = np.divide(2 * hits, marks, out=np.zeros_like(marks), where=marks > 0)
    return np.asarray(scores.sum(axis=-1) / (marks > 0).sum(axis=-1))


def _mcc(hits: Array, chosen: Array, support: Array) -> Array:
    rows = support.sum(axis=-1)
    together = hits.sum(axis=-1) * rows - (chosen * support).sum(axis=-1)
    spread = (rows**2 - (chosen**2).sum(axis=-1)) * (rows**2 - (support**2).sum(axis=-1))
    is_spread = spread > 1e-12 * rows**4
    return np.asarray(np.where(is_spread, together / np.sqrt(np.where(is_spread, spread, 1)), 0.0))


def main() -> None:
    """Simulate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=5000, help="data sets of each kind")
    parser.add_argument("--only", help="part of the names of the scenarios to simulate; nothing is written")
    arguments = parser.parse_args()
    cases: list[dict[str, Any]] = []
    started = time.perf_counter()
    for name, (scenario, sizes, probabilities) in SCENARIOS.items():
        if arguments.only and arguments.only not in name:
            continue
        print(f"\n{name}")
        for rows in sizes:
            replicates = arguments.replicates if rows < 1000 else arguments.replicates // 2
            for p in probabilities:
                coverages = measure(scenario, p=p, rows=rows, replicates=replicates)
                print(f"{rows:6,} rows, p = {p:4}: ", end="")
                print(", ".join(f"{metric} {100 * one.held:.1f}" for metric, one in coverages.items()), flush=True)
                for metric, one in coverages.items():
                    numbers = {key: round(value, 5) for key, value in vars(one).items()}
                    cases.append({"scenario": name, "rows": rows, "p": p, "metric": metric, **numbers})
    if not arguments.only:
        from trials import RESULTS, write_results

        seconds = round(time.perf_counter() - started)
        results = {"scipy": version("scipy"), "level": LEVEL, "samples": 2000, "seconds": seconds, "cases": cases}
        write_results(RESULTS / "coverage.json", results)


if __name__ == "__main__":
    main()
