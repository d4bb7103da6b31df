"""Cutting and sampling of splits: by label or by time, repeatable, and never one text or group on both sides."""

import datetime
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lorafit.data.rows import Split
from lorafit.errors import DataError
from lorafit.system.extras import require
from lorafit.tasks.base import Task


def cut_split(
    split: Split, fraction: float, seed: int, task: Task, *, keep: NDArray[np.bool_] | None = None
) -> tuple[Split, Split]:
    """Cut a share off a split: of every stratum the same share or, where rows have times, the latest rows.

    Rows with the same text, and rows of the same group, stay together.

    Args:
        split: The rows.
        fraction: Share to cut off, above 0 and below 1.
        seed: Decides which rows.
        task: The task, which has the strata.
        keep: Shape (n,): rows that stay in the rest whatever happens; None for no such rows.

    Returns:
        The rest and the cut, each in input order. A stratum that cannot be divided stays in the rest; of the others,
        each has at least one row.

    Raises:
        DataError: The rows have times that are all the same.
    """
    units = join_rows(split)
    if keep is not None:
        units = [rows for rows in units if not keep[rows].any()]
    cut = np.zeros(len(split), dtype=bool)
    if split.times is not None:
        for rows in _find_latest(units, read_times(split.times), fraction):
            cut[rows] = True
        return split.select(np.flatnonzero(~cut)), split.select(np.flatnonzero(cut))
    rng = np.random.default_rng(seed)
    strata = task.strata(split.y)
    sizes = np.bincount(strata) if len(strata) else strata
    # a text or group that comes with several labels counts for the rarest of them; of equal ones, for the first
    owners = np.array([min(strata[rows], key=lambda stratum: sizes[stratum]) for rows in units], dtype=np.int64)
    for label in np.unique(owners):
        candidates = [units[index] for index in np.flatnonzero(owners == label)]
        if len(candidates) > 1:
            for rows in _choose_units(candidates, fraction, rng):
                cut[rows] = True
    return split.select(np.flatnonzero(~cut)), split.select(np.flatnonzero(cut))


def sample_rows(split: Split, n: int, seed: int, task: Task) -> Split:
    """Draw rows without replacement, of every stratum in proportion and at least one.

    Args:
        split: The rows.
        n: How many to draw; a split that has no more is returned as it is.
        seed: Decides which rows.
        task: The task, which has the strata.

    Returns:
        The rows drawn, in input order.

    Raises:
        DataError: `n` is smaller than the number of strata.
    """
    if n >= len(split):
        return split
    strata = task.strata(split.y)
    names, counts = np.unique(strata, return_counts=True)
    if n < len(names):
        raise DataError(
            f"{n} rows cannot hold one of each {task.wording.stratum}. Take at least {len(names)} (data.max_rows)."
        )
    rng = np.random.default_rng(seed)
    drawn = [
        rng.choice(np.flatnonzero(strata == name), size=quota, replace=False)
        for name, quota in zip(names, _share_out(n, counts), strict=True)
    ]
    return split.select(np.sort(np.concatenate(drawn)))


def count_shared_texts(first: Split, second: Split) -> int:
    """Return how many different texts occur in both splits, character for character."""
    return len(set(first.texts) & set(second.texts))


def join_rows(split: Split) -> list[list[int]]:
    """Return the units that are never cut: rows with the same text or in the same group, and what those share."""
    units = _number(split.texts)
    if split.groups is not None:
        # rows and groups as a graph; a row without a group belongs to itself alone
        sparse = require("scipy.sparse", extra="train", purpose="keeping groups together")
        graphs = require("scipy.sparse.csgraph", extra="train", purpose="keeping groups together")
        groups = _number([group or position for position, group in enumerate(split.groups)]) + len(split)
        size = 2 * len(split)
        edges = sparse.coo_matrix((np.ones(len(split)), (units, groups)), shape=(size, size))
        units = graphs.connected_components(edges, directed=False)[1][units]
    rows: dict[int, list[int]] = {}
    for position, unit in enumerate(units.tolist()):
        rows.setdefault(unit, []).append(position)
    return list(rows.values())


def _number(values: Sequence[object]) -> NDArray[np.int64]:
    """Give equal values the same number, in order of their first occurrence; shape (n,)."""
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)


def read_times(times: Sequence[str]) -> NDArray[np.float64]:
    """Read times as numbers that order them.

    Args:
        times: Numbers, or dates such as 2026-11-29 or 2026-11-29T18:30 (ISO 8601; without a zone, UTC).

    Returns:
        Shape (n,): NaN where one cannot be read. Where most are dates, a number is none.
    """
    numbers, dates = (np.array([read(time) for time in times]) for read in (_read_number, _read_date))
    return numbers if np.isfinite(numbers).sum() >= np.isfinite(dates).sum() else dates


def _read_number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return np.nan
    return number if np.isfinite(number) else np.nan


def _read_date(text: str) -> float:
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return np.nan
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()


def _find_latest(units: Sequence[list[int]], moments: NDArray[np.float64], fraction: float) -> Iterator[list[int]]:
    """Yield the latest units; a text that is repeated is as old as its first row, and those of one time stay together.

    A DataError says that all rows have the same time.
    """
    begins = np.array([moments[rows].min() for rows in units])
    ordered = np.sort(np.repeat(begins, [len(rows) for rows in units]))
    threshold = ordered[min(len(ordered) - max(round(fraction * len(ordered)), 1), len(ordered) - 1)]
    if threshold == ordered[0]:
        later = ordered[ordered > ordered[0]]
        if not len(later):
            raise DataError("All rows have the same time: they cannot be cut by it (--time-column).")
        threshold = later[0]
    return (rows for rows, begin in zip(units, begins, strict=True) if begin >= threshold)


def _choose_units(units: Sequence[list[int]], fraction: float, rng: np.random.Generator) -> list[list[int]]:
    total = sum(map(len, units))
    target = min(max(round(fraction * total), 1), total - 1)
    most = min(max(round(fraction * len(units)), 1), len(units) - 1)  # below a half, three units leave two
    chosen: list[list[int]] = []
    for index in rng.permutation(len(units)):
        if len(chosen) < most and len(units[index]) <= target:
            chosen.append(units[index])
            target -= len(units[index])
    return chosen or [min(units, key=len)]


def _share_out(n: int, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Share `n` out in proportion to `counts`, at least one each, by largest remainder."""
    exact = n * counts / counts.sum()
    shares: NDArray[np.int64] = np.maximum(np.floor(exact).astype(np.int64), 1)
    while shares.sum() < n:
        shares[np.argmax(exact - shares)] += 1
    while shares.sum() > n:  # where raising many to one took too much
        shares[np.argmax(np.where(shares > 1, shares - exact, -np.inf))] -= 1
    return shares
