"""Texts that occur more than once, in a split and across splits, and what their labels say of each other.

Near duplicates are found by MinHash (Broder 1997) over pairs of neighbouring words and then compared exactly: two texts
are nearly the same where at least `LEAST_SIMILARITY` of all their word pairs are in both (Jaccard similarity). Upper
and lower case, punctuation and spaces do not count.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lorafit.data.quality.findings import Finding, count_rows, grade, write_share
from lorafit.data.quality.rows import Positions, Rows
from lorafit.system.extras import require

LEAST_SIMILARITY: Final = 0.8
"""Jaccard similarity of word pairs from which texts are nearly the same."""

_FEWEST_WORDS: Final = 5
"""Texts with fewer are nearly the same as many others by chance."""

_HASHES, _BANDS = 128, 32
"""Of the sketches: 4 hashes a band find 99.99 % of the pairs of the least similarity."""

_CANDIDATE: Final = 0.7
"""Estimated similarity from which two texts are compared exactly: the estimate is off by up to 0.07 (two sigma)."""

_CHUNK: Final = 2000
"""Texts that are cut into words at a time."""

_SPACELESS = "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
"""Scripts without blanks between words: each character counts as a word."""

_ASCII_WORDS: Final = re.compile(r"\w+", re.ASCII)
_WORDS: Final = re.compile(rf"[{_SPACELESS}]|[^\W{_SPACELESS}]+")


def group_equal(texts: Sequence[str]) -> Positions:
    """Return for each text the place of the first that is the same, character for character; shape (n,)."""
    first: dict[str, int] = {}
    return np.fromiter((first.setdefault(text, place) for place, text in enumerate(texts)), np.int64, len(texts))


def group_similar(texts: Sequence[str], equal: Positions) -> Positions:
    """Group texts that are nearly the same.

    Args:
        texts: n texts.
        equal: From `group_equal`.

    Returns:
        Shape (n,): for each text the place of the one that stands for its group, the first of it.

    Raises:
        MissingExtraError: rensa is not installed.
    """
    rensa = require("rensa", extra="check", purpose="Finding near duplicates")
    index = rensa.RMinHashDeduplicator(_CANDIDATE, _HASHES, use_lsh=True, num_bands=_BANDS, seed=0)
    groups = np.arange(len(texts))
    first_of: dict[int, int] = {}
    distinct = np.flatnonzero(equal == groups)
    for start in range(0, len(distinct), _CHUNK):
        places, pairs = [], []
        for place in distinct[start : start + _CHUNK].tolist():
            words = split_words(texts[place])
            if len(words) < _FEWEST_WORDS:
                continue
            groups[place] = first_of.setdefault(hash(tuple(words)), place)
            if groups[place] == place:
                places.append(place)
                pairs.append(_pair_words(words))
        sketches = rensa.RMinHash.from_token_sets(pairs, _HASHES, 0)
        is_new = index.add_pairs(zip(map(str, places), sketches, strict=True))
        found = [turn for turn, new in enumerate(is_new) if not new]
        for turn, keys in zip(found, index.get_duplicate_sets([sketches[one] for one in found]), strict=True):
            best = _choose_most_similar(pairs[turn], [int(key) for key in keys], texts)
            groups[places[turn]] = places[turn] if best is None else best
    return groups[groups[equal]]


def split_words(text: str) -> list[str]:
    """Return the words of a text in lower case; each character of a script without blanks counts as one."""
    return (_ASCII_WORDS if text.isascii() else _WORDS).findall(text.lower())


def find_duplicates(rows: Rows, equal: Positions, similar: Positions | None = None) -> Iterator[Finding]:
    """Find texts that occur more than once: inside a split with the same label, across splits with any.

    Args:
        rows: The rows.
        equal: From `group_equal`.
        similar: From `group_similar`; None for findings about equal texts alone.

    Yields:
        A finding for each split, and for each pair of splits, that has some.
    """
    labels = rows.number_labels()
    same = _join_labels(equal, labels)
    alike = None if similar is None else _join_labels(similar, labels)
    for split in rows.splits:
        yield from _find_inside(rows, split, same, alike)
    names = list(rows.splits)
    for place, split in enumerate(names):
        for earlier in names[:place]:
            yield from _find_across(rows, earlier, split, equal, similar)


def find_conflicts(rows: Rows, equal: Positions, similar: Positions | None = None) -> Iterator[Finding]:
    """Find texts that occur with different labels.

    Args:
        rows: The rows.
        equal: From `group_equal`.
        similar: From `group_similar`; None for findings about equal texts alone.

    Yields:
        A finding about all splits together, if there is one; none where labels are no classes.
    """
    labels = rows.number_classes()
    if labels is None:
        return
    groups, is_found = equal, mark_conflicts(equal, labels)
    prefix, same = _name_kind(near=similar is not None)
    if similar is not None:
        groups, is_found = similar, mark_conflicts(similar, labels) & ~np.isin(similar, similar[is_found])
    positions = np.flatnonzero(is_found)
    if not len(positions):
        return
    count, texts = len(positions), len(np.unique(groups[positions]))
    share = count / len(rows.texts)
    yield Finding(
        name=f"{prefix}conflicting-labels",
        severity="warning" if similar is None or share >= 0.01 else "note",
        split=None,
        count=count,
        share=share,
        scope=rows.scope(),
        message=f"{texts:,} {'text has' if texts == 1 else 'texts have'} contradictory labels: {same} stands in "
        f"{count:,} rows with more than one label.",
        remedy="lorafit check DATA --fix conflicts" if similar is None else "",
        rows=rows.list_rows(positions, groups[positions]),
    )


def mark_conflicts(groups: Positions, labels: Positions) -> NDArray[np.bool_]:
    """Return which rows belong to a group that has more than one label; shape (n,)."""
    order = np.lexsort((labels, groups))
    same_group = groups[order][1:] == groups[order][:-1]
    differs = same_group & (labels[order][1:] != labels[order][:-1])
    return np.isin(groups, groups[order][1:][differs])


def _pair_words(words: Sequence[str]) -> list[str]:
    return [f"{first} {second}" for first, second in itertools.pairwise(words)] or list(words)


def _choose_most_similar(pairs: Sequence[str], places: Sequence[int], texts: Sequence[str]) -> int | None:
    """Return the place of the most similar text, or None where none is similar enough."""
    own, best, highest = set(pairs), None, LEAST_SIMILARITY
    for place in sorted(places):
        others = set(_pair_words(split_words(texts[place])))
        similarity = len(own & others) / len(own | others)
        if similarity > highest or (best is None and similarity == highest):
            best, highest = place, similarity
    return best


def _find_inside(rows: Rows, split: str, equal: Positions, similar: Positions | None) -> Iterator[Finding]:
    part = rows.splits[split]
    kept = _first_inside(equal, part)
    own = np.arange(part.start, part.stop)
    repeated = kept != own
    if similar is not None:
        kept = _first_inside(similar, part)
        repeated = (kept != own) & ~repeated
    positions = own[repeated]
    if not len(positions):
        return
    count, share = len(positions), len(positions) / rows.count(split)
    prefix, same = _name_kind(near=similar is not None)
    yield Finding(
        name=f"{prefix}duplicates",
        severity=grade(share, warn_from=0.01),
        split=split,
        count=count,
        share=share,
        scope=rows.scope(split),
        message=f"{count_rows(count, split, 'has', 'have')} {same} and the same label as an earlier one "
        f"({write_share(share)}).",
        remedy=f"lorafit check SPLIT --fix {prefix}duplicates",
        rows=rows.list_rows(positions, kept[repeated]),
    )


def _find_across(
    rows: Rows, earlier: str, split: str, equal: Positions, similar: Positions | None
) -> Iterator[Finding]:
    kept = _first_in_other(equal, rows.splits[earlier], rows.splits[split])
    leaked = kept >= 0
    if similar is not None:
        kept = _first_in_other(similar, rows.splits[earlier], rows.splits[split])
        leaked = (kept >= 0) & ~leaked
    positions = np.arange(rows.splits[split].start, rows.splits[split].stop)[leaked]
    if not len(positions):
        return
    count, share = len(positions), len(positions) / rows.count(split)
    texts = len(np.unique((equal if similar is None else similar)[positions]))
    prefix, same = _name_kind(near=similar is not None)
    yield Finding(
        name=f"{prefix}leaks",
        severity=grade(share, warn_from=0.0, error_from=0.05),
        split=split,
        count=count,
        share=share,
        scope=rows.scope(split),
        message=f"{count_rows(count, split, 'has', 'have')} {same} as a row of {earlier} ({write_share(share)}; "
        f"{texts:,} different): what they measure is memory, too.",
        remedy=f"lorafit check DATA --fix {prefix}leaks" if earlier == "train" else "",
        rows=rows.list_rows(positions, kept[leaked]),
    )


def _name_kind(*, near: bool) -> tuple[str, str]:
    """Return what names of findings about equal or similar texts begin with, and what such texts are called."""
    return ("near-", "nearly the same text") if near else ("", "the same text")


def _join_labels(groups: Positions, labels: Positions | None) -> Positions:
    """Return groups of rows that have their label in common, too."""
    return groups if labels is None else groups * (int(labels.max()) + 1) + labels


def _first_inside(groups: Positions, part: slice) -> Positions:
    """Return for each row of a split the place of the first row of its group in that split."""
    _, first, inverse = np.unique(groups[part], return_index=True, return_inverse=True)
    return np.asarray(part.start + first[inverse], dtype=np.int64)


def _first_in_other(groups: Positions, other: slice, part: slice) -> Positions:
    """Return for each row of a split the place of the first row of its group in another split, or -1."""
    names, first = np.unique(groups[other], return_index=True)
    if not len(names):
        return np.full(part.stop - part.start, -1)
    places = np.minimum(np.searchsorted(names, groups[part]), len(names) - 1)
    return np.where(names[places] == groups[part], other.start + first[places], -1)
