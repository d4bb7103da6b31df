"""The words of a text: where they stand, and the text without some of them.

A word is a run of letters, digits and accents, with apostrophes and hyphens inside (don't, well-made) and the points
and slashes of numbers (3.5, 7/10). A run of other signs (punctuation, an emoji) counts as a word too, and so does each
Chinese character and kana, since their scripts write no spaces.
"""

from collections.abc import Collection, Sequence
from itertools import pairwise

from lorafit.system.text import Text, is_visible

Span = tuple[int, int]
"""The first character, counted from 0, and the one after the last; of a pair, those of both texts joined by `\\n`."""

_SPACE, _WORD, _MARK, _ALONE = range(4)
"""Kinds of characters. From `_ALONE` on every kind is that of one character, which is a word by itself."""


def cut_spans(text: Text, most: int) -> tuple[list[Span], int]:
    """Cut a text, or both texts of a pair, into words, or into groups of adjacent words where there are too many.

    Args:
        text: The text or pair.
        most: Spans wanted at most, at least 1; a pair may have one more.

    Returns:
        First character and character after the last of each span, in the order of the text, white space left out; and
        the words a span has (the last may have fewer). Of a pair, a text of a single span has none: nothing would be
        left of it.
    """
    if isinstance(text, str):
        words = _find_words(text)
        size = max(1, -(-len(words) // most))
        return _group(words, size), size
    second = len(text[0]) + 1
    sides = _find_words(text[0]), [(start + second, end + second) for start, end in _find_words(text[1])]
    size = max(1, -(-sum(map(len, sides)) // most))
    return [span for side in sides if len(side) > size for span in _group(side, size)], size


def leave_out(text: Text, spans: Sequence[Span], removed: Collection[int]) -> Text:
    """Take some spans out of a text, or out of both texts of a pair.

    The white space around a removed span closes up; a space is put where two neighbours would grow together, unless
    their script writes none. White space at both ends of the text stays.

    Args:
        text: The text or pair.
        spans: As `cut_spans` gives them.
        removed: Indices of the spans to take out; the last one of a text stays if all of them are among these.

    Returns:
        The rest; with nothing removed, the text as it was.
    """
    if isinstance(text, str):
        return _leave_out(text, spans, removed)
    second = len(text[0]) + 1
    count = sum(start < second for start, _ in spans)
    moved = [(start - second, end - second) for start, end in spans[count:]]
    return (
        _leave_out(text[0], spans[:count], removed),
        _leave_out(text[1], moved, {index - count for index in removed}),
    )


def _leave_out(text: str, spans: Sequence[Span], removed: Collection[int]) -> str:
    if not spans:
        return text
    kept = [index for index in range(len(spans)) if index not in removed] or [len(spans) - 1]
    parts = [text[: spans[0][0]], text[slice(*spans[kept[0]])]]
    for before, index in pairwise(kept):
        parts += [_close_gap(text, spans[before : index + 1]), text[slice(*spans[index])]]
    return "".join([*parts, text[spans[-1][1] :]])


def _find_words(text: str) -> list[Span]:
    kinds = _classify(text)
    starts = [index for index in range(len(text)) if index == 0 or kinds[index] != kinds[index - 1]]
    return [(start, end) for start, end in pairwise([*starts, len(text)]) if kinds[start] != _SPACE]


def _group(words: Sequence[Span], size: int) -> list[Span]:
    groups = [words[first : first + size] for first in range(0, len(words), size)]
    return [(group[0][0], group[-1][1]) for group in groups]


def _classify(text: str) -> list[int]:
    """Return the kind of every character; characters of one word are neighbours of one kind."""
    kinds: list[int] = []
    for index, sign in enumerate(text):
        before = kinds[-1] if kinds else _SPACE
        if sign.isspace():
            kinds.append(_SPACE)
        elif not is_visible(sign):  # accents, joiners of emoji: part of what they follow
            kinds.append(before)
        elif _stands_alone(sign):
            kinds.append(_ALONE + index)
        elif sign.isalnum() or sign == "_" or (before == _WORD and _joins(text, index)):
            kinds.append(_WORD)
        else:
            kinds.append(_MARK)
    return kinds


def _joins(text: str, index: int) -> bool:
    """Say whether a mark after a word's character goes on with it: don't, well-made, 7/10, 3.5."""
    after = text[index + 1 : index + 2]
    if text[index] in "'\N{RIGHT SINGLE QUOTATION MARK}-":
        return after.isalnum()
    return text[index] in ".,:/" and text[index - 1].isdecimal() and after.isdecimal()


def _stands_alone(sign: str) -> bool:
    """Say whether a character belongs to a script that writes no spaces: Chinese characters and kana."""
    ranges = ("\u2e80", "\u9fff"), ("\uf900", "\ufaff"), ("\U00020000", "\U0003ffff")
    return sign.isalnum() and any(low <= sign <= high for low, high in ranges)


def _close_gap(text: str, run: Sequence[Span]) -> str:
    """Return what stands between the first and the last of some spans when those between them are gone."""
    gaps = [text[end:start] for (_, end), (start, _) in pairwise(run)]
    if len(gaps) == 1:
        return gaps[0]
    spaceless = _stands_alone(text[run[0][1] - 1]) or _stands_alone(text[run[-1][0]])
    return next(filter(None, gaps), "" if spaceless else " ")
