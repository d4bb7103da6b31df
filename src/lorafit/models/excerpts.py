"""Tokens of the ends of a long text, without tokenising what lies between them.

A tokenizer that splits at white space gives both sides of a blank between two letters the same tokens together and
apart. So a long text is tokenised piece by piece, from an end towards its middle, until there are as many tokens as its
truncation can need; of a text of any length memory is needed for a piece.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import Final, NamedTuple

from tokenizers import Tokenizer

from lorafit.system import limits

LONG: Final = 1 << 14
"""Characters from which on a text is tokenised in pieces."""

_LEAST: Final = 1 << 12
_CHARACTERS_PER_TOKEN: Final = 8
_BLANK: Final = re.compile(r"(?<=\w) (?=\w)")
_LETTERS: Final = frozenset({"Lu", "Ll", "Lt", "Lo", "Nd"})
_FILLERS: Final = frozenset("\u115f\u1160\u3164\uffa0")
"""Letters to Unicode, which tokenizers drop or take for white space."""

_PROBE: Final = (
    "The 3 films of 2019 weren't GREAT at all naïve ÇA ÉTAIT слово за словом 日本語 文字 한국어 영화 a1 b22 C333 "
    "supercalifragilistic x y zz 12345 67 8 the end"
)


class Ends(NamedTuple):
    """How many tokens of a text are needed at least: from its front, and from its back.

    `by_length` says that of two texts with more tokens than that the longer one must be known.
    """

    head: int
    tail: int
    by_length: bool = False

    @property
    def minds_length(self) -> bool:
        """Whether the longer of two texts with more tokens than that gets more room: an odd one is not halved."""
        return self.by_length or max(self.head, self.tail) % 2 == 0

    def shorten(self, ids: list[int]) -> list[int]:
        """Return one token fewer than are needed at least, so that a text of so many is the shorter one."""
        return ids[: self.head] + ids[len(ids) - self.tail + 1 :] if self.tail else ids[: self.head - 1]


def encode_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the token ids of a text, without special tokens."""
    ids: list[int] = tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids
    return ids


def encode_ends(tokenizer: Tokenizer, text: str, ends: Ends) -> list[int]:
    """Tokenise a long text as far as it is needed.

    Args:
        tokenizer: One that `splits_at_blanks`.
        text: A text.
        ends: What is needed of it.

    Returns:
        All its token ids, where they are not many more than is needed; else those of the front and of the back, one
        after the other, at least as many of each as are needed.
    """
    front: list[int] = []
    back: list[int] = []
    start, stop = 0, len(text)
    while start < stop and len(front) < ends.head:
        end = _find_break_after(text, start + _measure_piece(ends.head - len(front)), stop)
        front += encode_text(tokenizer, text[start:end])
        start = end
    while start < stop and len(back) < ends.tail:
        begin = _find_break_before(text, stop - _measure_piece(ends.tail - len(back)), start)
        back[:0] = encode_text(tokenizer, text[begin:stop])
        stop = begin
    return front + back


def count_tokens(tokenizer: Tokenizer, text: str) -> int:
    """Return the number of tokens of a text of any length."""
    return sum(len(encode_text(tokenizer, piece)) for piece in _cut(text))


def splits_at_blanks(tokenizer: Tokenizer) -> bool:
    """Tell whether a tokenizer gives both sides of a blank between two letters the same tokens together and apart.

    It does if it takes words one by one, unless an added token reaches across a blank.
    """
    splitter = tokenizer.pre_tokenizer
    words = [] if splitter is None else splitter.pre_tokenize_str("ab cd")
    if len(words) != 2 or words[0][1][1] != 2:
        return False
    if any(map(_reaches_across, tokenizer.get_added_tokens_decoder().values())):
        return False
    whole = encode_text(tokenizer, _PROBE)
    breaks = [match.start() for match in _BLANK.finditer(_PROBE)]
    return all(
        encode_text(tokenizer, _PROBE[:place]) + encode_text(tokenizer, _PROBE[place:]) == whole for place in breaks
    )


def _reaches_across(token: object) -> bool:
    content: str = token.content  # type: ignore[attr-defined]  # tokenizers has no type for it
    strips_left: bool = token.lstrip  # type: ignore[attr-defined]
    strips_right: bool = token.rstrip  # type: ignore[attr-defined]
    return (
        any(sign.isspace() for sign in content)
        or (strips_left and content[:1].isalnum())
        or (strips_right and content[-1:].isalnum())
    )


def _measure_piece(tokens: int) -> int:
    return min(max(_LEAST, _CHARACTERS_PER_TOKEN * tokens), 1 << 20)


def _cut(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = _find_break_after(text, start + (1 << 16), len(text))
        yield text[start:end]
        start = end


def _find_break_after(text: str, place: int, stop: int) -> int:
    """Return where a text can be cut, at `place` or after it; in a very long word that is anywhere."""
    if place >= stop:
        return stop
    furthest = place + limits.WORD.value
    for match in _BLANK.finditer(text, place, min(stop, furthest)):
        if _is_break(text, match.start()):
            return match.start()
    return min(stop, furthest)


def _find_break_before(text: str, place: int, start: int) -> int:
    """Return where a text can be cut, at `place` or before it."""
    if place <= start:
        return start
    furthest = max(start, place - limits.WORD.value)
    end = place + 1
    while (blank := text.rfind(" ", max(furthest, 1), end)) >= 0:
        if _is_break(text, blank):
            return blank
        end = blank
    return furthest


def _is_break(text: str, place: int) -> bool:
    return 0 < place < len(text) - 1 and all(
        unicodedata.category(sign) in _LETTERS and sign not in _FILLERS for sign in (text[place - 1], text[place + 1])
    )
