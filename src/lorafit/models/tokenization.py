"""Texts to token ids, with a truncation that is counted and never silent.

Works on a `tokenizers.Tokenizer` alone, so that every runtime cuts and frames texts in exactly the same way.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from lorafit.config import TruncationPolicy
from lorafit.errors import ConfigError, RunError
from lorafit.models.batching import pad_lengths
from lorafit.models.excerpts import LONG, Ends, count_tokens, encode_ends, encode_text, splits_at_blanks
from lorafit.models.vetting import check_tokenizer, reading
from lorafit.system.files import check_file
from lorafit.system.text import Text

_CHUNK = 512
_HEAD_SHARE = 0.25

MOST_WINDOWS = 32
"""A text has at most so many windows; what is after them is cut."""

Tokens = list[int]


@dataclass(frozen=True)
class Truncation:
    """What becomes of a text, or a pair of texts, that is too long.

    Attributes:
        max_length: Longest input in tokens, special tokens included.
        policy: `head` keeps the first tokens, `tail` the last ones; `head+tail` keeps the first quarter and the last
            three quarters of the room there is (Sun et al. 2019, "How to Fine-Tune BERT for Text Classification?",
            arXiv:1905.05583); `windows` keeps all, in windows that overlap and are inputs of their own.
        stride: Tokens from the begin of a window to the next, at most a window; None for half a window.
    """

    max_length: int
    policy: TruncationPolicy = "head"
    stride: int | None = None

    def cut(self, ids: Tokens, room: int) -> Tokens:
        """Return at most `room` of the token ids (special tokens not among them)."""
        if len(ids) <= room:
            return ids
        if self.policy == "tail":
            return ids[len(ids) - room :]
        head = int(room * _HEAD_SHARE) if self.policy == "head+tail" else room
        return ids[:head] + ids[len(ids) - (room - head) :]

    def split(self, ids: Tokens, room: int) -> list[Tokens]:
        """Return the windows of a text: at most `room` token ids each, every one of which begins `step` after the last.

        They are those of a transformers tokenizer with `return_overflowing_tokens` and an overlap of `room - step`.
        """
        starts = range(0, max(1, len(ids) - room + self.step(room)), self.step(room))
        return [ids[start : start + room] for start in starts[:MOST_WINDOWS]]

    def step(self, room: int) -> int:
        """Return the tokens from the begin of a window to the next, for windows of `room` tokens."""
        return min(self.stride or max(1, room // 2), room)

    def need(self, room: int) -> Ends:
        """Return how many tokens of a text must be known to `fit` it into inputs of `room` tokens."""
        if self.policy == "windows":
            return Ends(MOST_WINDOWS * room + 1, 0, by_length=True)
        return Ends(0 if self.policy == "tail" else room + 1, 0 if self.policy == "head" else room + 1)

    def fit(self, texts: tuple[Tokens, ...], room: int) -> tuple[list[tuple[Tokens, ...]], bool]:
        """Make inputs of a text or of both texts of a pair.

        A pair is cut as transformers does: the longer text first. In windows stands the longer one; the other is in
        every window, cut to half the room.

        Args:
            texts: Their token ids, without special tokens.
            room: Most token ids of an input.

        Returns:
            The inputs, more than one in windows only, each with as many texts; and whether tokens were left out.
        """
        total = sum(map(len, texts))
        if total <= room:
            return [texts], False
        if self.policy != "windows":
            rooms = (room,) if len(texts) == 1 else _share_room(len(texts[0]), len(texts[1]), room)
            return [tuple(self.cut(ids, part) for ids, part in zip(texts, rooms, strict=True))], True
        long = max(range(len(texts)), key=lambda place: len(texts[place]))
        kept = tuple(ids[: room // 2] for place, ids in enumerate(texts) if place != long)
        left = room - sum(map(len, kept))
        windows = self.split(texts[long], left)
        reached = (len(windows) - 1) * self.step(left) + len(windows[-1]) + sum(map(len, kept))
        return [(*kept[:long], window, *kept[long:]) for window in windows], reached < total


@dataclass(frozen=True)
class TokenizedTexts:
    """Token ids of many inputs in one flat array: each a text or a pair of texts, or a window of one.

    Attributes:
        ids: Shape (total tokens,), int32: all inputs one after the other, special tokens included.
        offsets: Shape (n + 1,), int64: input i is `ids[offsets[i]:offsets[i + 1]]`.
        truncated: How many texts were cut.
        type_ids: Shape of `ids`, int8: which text of a pair each token belongs to, as the tokenizer's template has it;
            None where all are of type 0.
        windows: Shape (texts,), int64: how many of the inputs, in order, are windows of each text; None where every
            text is one input.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    truncated: int
    type_ids: NDArray[np.int8] | None = None
    windows: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens an input, shape (n,)."""
        return np.diff(self.offsets)

    @property
    def texts(self) -> int:
        """Number of texts, or of pairs."""
        return len(self) if self.windows is None else len(self.windows)

    def select(self, texts: NDArray[np.int64]) -> "TokenizedTexts":
        """Return some texts, by their places, in that order; how many were cut is no longer known and counts as 0."""
        rows, windows = find_inputs(texts, self.windows), None if self.windows is None else self.windows[texts]
        lengths = self.lengths[rows]
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], lengths)
        type_ids = None if self.type_ids is None else self.type_ids[places]
        return TokenizedTexts(self.ids[places], offsets, truncated=0, type_ids=type_ids, windows=windows)

    @classmethod
    def join(cls, parts: "Sequence[TokenizedTexts]") -> "TokenizedTexts":
        """Return the texts of all parts, at least one, one after the other."""
        if len(parts) == 1:
            return parts[0]
        lengths = np.concatenate([part.lengths for part in parts])
        types = [np.zeros(len(part.ids), dtype=np.int8) if part.type_ids is None else part.type_ids for part in parts]
        windows = [np.ones(len(part), dtype=np.int64) if part.windows is None else part.windows for part in parts]
        return cls(
            ids=np.concatenate([part.ids for part in parts]),
            offsets=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)]),
            truncated=sum(part.truncated for part in parts),
            type_ids=None if all(part.type_ids is None for part in parts) else np.concatenate(types),
            windows=None if all(part.windows is None for part in parts) else np.concatenate(windows),
        )

    def pad(self, rows: Sequence[int] | NDArray[np.int64], pad_id: int) -> dict[str, Any]:
        """Put some inputs into one rectangle, padded on the right to the longest, rounded up as batches are.

        Args:
            rows: Which inputs, in this order.
            pad_id: Token id of the padding.

        Returns:
            `input_ids`, `attention_mask` (1 = token, 0 = padding) and, where there are types, `token_type_ids`, all of
            shape (len(rows), length), int64.
        """
        spans = [slice(self.offsets[int(row)], self.offsets[int(row) + 1]) for row in rows]
        sizes = [span.stop - span.start for span in spans]
        length = int(pad_lengths(np.array(max(sizes)), longest=int(self.lengths.max())))
        batch = {
            "input_ids": np.full((len(spans), length), pad_id, dtype=np.int64),
            "attention_mask": np.zeros((len(spans), length), dtype=np.int64),
        }
        for index, (span, size) in enumerate(zip(spans, sizes, strict=True)):
            batch["input_ids"][index, :size] = self.ids[span]
            batch["attention_mask"][index, :size] = 1
        if self.type_ids is not None:
            batch["token_type_ids"] = np.zeros((len(spans), length), dtype=np.int64)
            for index, (span, size) in enumerate(zip(spans, sizes, strict=True)):
                batch["token_type_ids"][index, :size] = self.type_ids[span]
        return batch


def find_inputs(texts: NDArray[np.int64], windows: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Return the places of the inputs of some texts, in their order.

    Args:
        texts: Places of the texts, shape (m,).
        windows: As in `TokenizedTexts`.

    Returns:
        Places of their inputs; `texts` itself where every text is one.
    """
    if windows is None:
        return texts
    counts, begins = windows[texts], np.cumsum(windows) - windows
    places: NDArray[np.int64] = np.arange(counts.sum()) + np.repeat(begins[texts] - np.cumsum(counts) + counts, counts)
    return places


def average_windows(values: NDArray[np.float64], windows: NDArray[np.int64] | None) -> NDArray[np.float64]:
    """Return the mean of the values of each text's windows.

    Args:
        values: Shape (inputs, …).
        windows: As in `TokenizedTexts`.

    Returns:
        Shape (texts, …); `values` itself where every text is one input.
    """
    if windows is None:
        return values
    means: NDArray[np.float64] = np.add.reduceat(values, np.cumsum(windows) - windows) / windows[:, np.newaxis]
    return means


def tokenize(
    tokenizer: Tokenizer,
    texts: Sequence[Text],
    truncation: Truncation,
    *,
    on_progress: Callable[[int], None] | None = None,
) -> TokenizedTexts:
    """Turn texts, or pairs of texts, into token ids with the special tokens of the tokenizer's template around them.

    Args:
        tokenizer: Without truncation and padding of its own (as `read_tokenizer` gives it).
        texts: Any number of texts, or of pairs.
        truncation: What becomes of texts too long.
        on_progress: Called now and then with the number of texts done.

    Returns:
        The token ids, in the order of the texts.

    Raises:
        ConfigError: `max_length` leaves no room for a token of each text beside the special tokens.
    """
    is_pair = len(texts) > 0 and not isinstance(texts[0], str)
    frame = _read_pair_frame(tokenizer) if is_pair else _Frame(_special_tokens(tokenizer))
    room = truncation.max_length - frame.size
    if room < len(frame.pieces) - 1:
        raise ConfigError(
            f"model.max_length={truncation.max_length} leaves no room for text beside {frame.size} special tokens."
        )
    need = truncation.need(room)
    ids: list[NDArray[np.int32]] = [np.zeros(0, dtype=np.int32)]
    types: list[NDArray[np.int8]] = []
    lengths: list[int] = []
    windows = np.ones(len(texts), dtype=np.int64)
    truncated = 0
    for start in range(0, len(texts), _CHUNK):
        chunk: list[tuple[Tokens, ...]] = []
        for index, parts in enumerate(_encode(tokenizer, texts[start : start + _CHUNK], need), start=start):
            inputs, is_cut = truncation.fit(parts, room)
            truncated += is_cut
            windows[index] = len(inputs)
            chunk += inputs
        framed = [frame.put_around(parts) for parts in chunk]
        lengths += map(len, framed)
        ids.append(np.array(list(chain.from_iterable(framed)), dtype=np.int32))
        if frame.types is not None:
            types.append(np.array(list(chain.from_iterable(map(frame.type_tokens, chunk))), dtype=np.int8))
        if on_progress is not None:
            on_progress(min(start + _CHUNK, len(texts)))
    return TokenizedTexts(
        ids=np.concatenate(ids),
        offsets=np.cumsum([0, *lengths], dtype=np.int64),
        truncated=truncated,
        type_ids=np.concatenate(types) if types else None,
        windows=windows if len(lengths) > len(texts) else None,
    )


def read_tokenizer(folder: Path) -> Tokenizer:
    """Read `tokenizer.json` and switch off the truncation and padding that some files have baked in.

    Args:
        folder: Folder that holds `tokenizer.json`.

    Returns:
        The tokenizer.

    Raises:
        RunError: The file is missing or damaged.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise RunError(f"{path} is missing. lorafit needs the fast tokenizer's file beside the weights.")
    check_file(path, RunError)
    with reading(f"{path} is damaged", RunError):
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        check_tokenizer(tokenizer, path)
    return tokenizer


@dataclass(frozen=True)
class _Frame:
    """What a tokenizer's template puts around one or two texts.

    Attributes:
        pieces: Special tokens before, between and after the texts.
        types: Types of the tokens of the first piece, the first text, the second piece and so on, one for each special
            token and one for a text; None where all are 0.
    """

    pieces: tuple[Tokens, ...]
    types: tuple[list[int], ...] | None = None

    @property
    def size(self) -> int:
        """Number of special tokens."""
        return sum(map(len, self.pieces))

    def put_around(self, texts: tuple[Tokens, ...]) -> Tokens:
        """Return texts with their special tokens."""
        ids = self.pieces[0]
        for text, piece in zip(texts, self.pieces[1:], strict=True):
            ids = ids + text + piece
        return ids

    def type_tokens(self, texts: tuple[Tokens, ...]) -> list[int]:
        """Return the types of all tokens of texts with their special tokens."""
        if self.types is None:
            raise ValueError("the template has no types")
        types = self.types[0]
        for text, own, after in zip(texts, self.types[1::2], self.types[2::2], strict=True):
            types = types + own * len(text) + after
        return types


def _encode(tokenizer: Tokenizer, texts: Sequence[Text], need: Ends) -> Iterator[tuple[Tokens, ...]]:
    """Yield the token ids of each text, or of both of each pair, without special tokens, of long ones the ends."""
    sides: list[Sequence[Any]] = [texts] if isinstance(texts[0], str) else list(zip(*texts, strict=True))
    encoded = [_encode_side(tokenizer, side, need) for side in sides]
    for place, parts in enumerate(zip(*encoded, strict=True)):
        if len(parts) == 1 or min(map(len, parts)) < need.head + need.tail or not need.minds_length:
            yield parts
            continue
        first, second = (count_tokens(tokenizer, side[place]) for side in sides)  # of both the middle may be missing
        is_first_longer = first >= second if need.by_length else first > second
        yield (parts[0], need.shorten(parts[1])) if is_first_longer else (need.shorten(parts[0]), parts[1])


def _encode_side(tokenizer: Tokenizer, texts: Sequence[str], need: Ends) -> Iterator[Tokens]:
    is_long = [len(text) > LONG for text in texts]
    short = [text for text, long in zip(texts, is_long, strict=True) if not long]
    with reading("The tokenizer cannot take these texts", RunError):
        encodings = iter(tokenizer.encode_batch_fast(short, add_special_tokens=False))
    in_pieces = any(is_long) and splits_at_blanks(tokenizer)
    for text, long in zip(texts, is_long, strict=True):
        if not long:
            yield next(encodings).ids
        else:
            yield encode_ends(tokenizer, text, need) if in_pieces else encode_text(tokenizer, text)


def _special_tokens(tokenizer: Tokenizer) -> tuple[Tokens, Tokens]:
    body = tokenizer.encode("a", add_special_tokens=False).ids
    framed = tokenizer.encode("a", add_special_tokens=True).ids
    start = next(index for index in range(len(framed) + 1) if framed[index : index + len(body)] == body)
    return framed[:start], framed[start + len(body) :]


def marks_pairs(tokenizer: Tokenizer) -> bool:
    """Return whether a tokenizer tells the texts of a pair apart by types."""
    return _read_pair_frame(tokenizer).types is not None


def _read_pair_frame(tokenizer: Tokenizer) -> _Frame:
    framed = tokenizer.encode("a", "a", add_special_tokens=True)
    owners, ids, types = framed.sequence_ids, framed.ids, framed.type_ids
    bounds = [0, *(place for text in (0, 1) for place in _find_span(owners, text)), len(ids)]
    pieces = tuple(ids[start:end] for start, end in zip(bounds[::2], bounds[1::2], strict=True))
    if not any(types):
        return _Frame(pieces)
    cuts = [types[start:end] for start, end in pairwise(bounds)]
    return _Frame(pieces, tuple(cut[:1] if place % 2 else cut for place, cut in enumerate(cuts)))


def _find_span(owners: Sequence[int | None], text: int) -> tuple[int, int]:
    """Return the first token of a text, and the one after its last."""
    start = owners.index(text)
    return start, start + owners.count(text)


def _share_room(first: int, second: int, room: int) -> tuple[int, int]:
    """Return how many tokens both texts of a pair keep, as transformers' `longest_first` shares them."""
    short, long = sorted((first, second))
    if 2 * short >= room:
        short, long = room // 2, room - room // 2
    else:
        long = room - short
    return (short, long) if first <= second else (long, short)
