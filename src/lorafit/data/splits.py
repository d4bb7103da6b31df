"""Cutting and sampling of splits: by label, repeatable, and never one text on both sides."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lorafit.data.rows import Split
from lorafit.errors import DataError
from lorafit.system.text import Text
from lorafit.tasks.base import Task


def cut_split(split: Split, fraction: float, seed: int, task: Task) -> tuple[Split, Split]:
    """Cut a share off a split, the same share of every stratum. Rows with the same text stay together.

    Args:
        split: The rows.
        fraction: Share to cut off, above 0 and below 1.
        seed: Decides which rows.
        task: The task, which has the strata.

    Returns:
        The rest and the cut, each in input order and with at least one row of every stratum of `split`.

    Raises:
        DataError: A stratum has fewer than two different texts.
    """
    check_distinct_texts(split, 2, task)
    rng = np.random.default_rng(seed)
    cut = np.zeros(len(split), dtype=bool)
    groups = _group_by_text(split)
    # a text that comes with other labels, too, counts for the first
    owners = task.strata(split.y)[[rows[0] for rows in groups]]
    for label in np.unique(owners):
        candidates = [groups[index] for index in np.flatnonzero(owners == label)]
        for rows in _choose_groups(candidates, fraction, rng):
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


def check_distinct_texts(split: Split, minimum: int, task: Task) -> None:
    """Make sure that every stratum has enough different texts to be cut.

    Args:
        split: The rows.
        minimum: Different texts that every stratum needs: one for each part that it is to be cut into.
        task: The task, which has the strata.

    Raises:
        DataError: A stratum has fewer.
    """
    strata = task.strata(split.y)
    owners = strata[[rows[0] for rows in _group_by_text(split)]]
    for label in np.unique(strata):
        count = int(np.count_nonzero(owners == label))
        if count < minimum:
            name, each = task.describe_stratum(int(label))
            raise DataError(
                f"{name} has {count} different text{'' if count == 1 else 's'}, but at least {minimum} are needed to "
                f"cut the rows: one of {each} in each part. Add rows, or give files of your own for validation and "
                "test."
            )


def count_shared_texts(first: Split, second: Split) -> int:
    """Return how many different texts occur in both splits, character for character."""
    return len(set(first.texts) & set(second.texts))


def _group_by_text(split: Split) -> list[list[int]]:
    groups: dict[Text, list[int]] = {}
    for position, text in enumerate(split.texts):
        groups.setdefault(text, []).append(position)
    return list(groups.values())


def _choose_groups(groups: Sequence[list[int]], fraction: float, rng: np.random.Generator) -> list[list[int]]:
    total = sum(map(len, groups))
    target = min(max(round(fraction * total), 1), total - 1)
    most = min(max(round(fraction * len(groups)), 1), len(groups) - 1)  # below a half, three groups leave two
    chosen: list[list[int]] = []
    for index in rng.permutation(len(groups)):
        if len(chosen) < most and len(groups[index]) <= target:
            chosen.append(groups[index])
            target -= len(groups[index])
    return chosen or [min(groups, key=len)]


def _share_out(n: int, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Share `n` out in proportion to `counts`, at least one each, by largest remainder."""
    exact = n * counts / counts.sum()
    shares: NDArray[np.int64] = np.maximum(np.floor(exact).astype(np.int64), 1)
    while shares.sum() < n:
        shares[np.argmax(exact - shares)] += 1
    while shares.sum() > n:  # where raising many to one took too much
        shares[np.argmax(np.where(shares > 1, shares - exact, -np.inf))] -= 1
    return shares
