"""Texts to token ids, with a truncation that is counted and never silent.

Works on a `tokenizers.Tokenizer` alone, so that every runtime cuts and frames texts in exactly the same way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from lorafit.config import TruncationPolicy
from lorafit.errors import ConfigError, RunError
from lorafit.models.batching import pad_lengths
from lorafit.system.text import Text

_CHUNK = 512
_HEAD_SHARE = 0.25


@dataclass(frozen=True)
class Truncation:
    """What becomes of a text that is too long.

    Attributes:
        max_length: Longest input in tokens, special tokens included.
        policy: `head` keeps the first tokens; `head+tail` keeps the first quarter and the last three quarters of the
            room there is (Sun et al. 2019, "How to Fine-Tune BERT for Text Classification?", arXiv:1905.05583).
    """

    max_length: int
    policy: TruncationPolicy = "head"

    def cut(self, ids: list[int], room: int) -> list[int]:
        """Return at most `room` of the token ids (special tokens not among them)."""
        if len(ids) <= room:
            return ids
        if self.policy == "head":
            return ids[:room]
        head = int(room * _HEAD_SHARE)
        return ids[:head] + ids[len(ids) - (room - head) :]


@dataclass(frozen=True)
class TokenizedTexts:
    """Token ids of many texts in one flat array.

    Attributes:
        ids: Shape (total tokens,), int32: all texts one after the other, special tokens included.
        offsets: Shape (n + 1,), int64: text i is `ids[offsets[i]:offsets[i + 1]]`.
        truncated: How many texts were cut.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    truncated: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens a text, shape (n,)."""
        return np.diff(self.offsets)

    def pad(self, rows: Sequence[int] | NDArray[np.int64], pad_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Put some texts into one rectangle, padded on the right to the longest of them, rounded up as batches are.

        Args:
            rows: Which texts, in this order.
            pad_id: Token id of the padding.

        Returns:
            Input ids and attention mask (1 = token, 0 = padding), both of shape (len(rows), length), int64.
        """
        texts = [self[int(row)] for row in rows]
        longest = np.array(max(len(text) for text in texts))
        length = int(pad_lengths(longest, longest=int(self.lengths.max())))
        input_ids = np.full((len(texts), length), pad_id, dtype=np.int64)
        mask = np.zeros((len(texts), length), dtype=np.int64)
        for index, text in enumerate(texts):
            input_ids[index, : len(text)] = text
            mask[index, : len(text)] = 1
        return input_ids, mask


def tokenize(
    tokenizer: Tokenizer,
    texts: Sequence[Text],
    truncation: Truncation,
    *,
    on_progress: Callable[[int], None] | None = None,
) -> TokenizedTexts:
    """Turn texts into token ids with the special tokens of a single sequence around them.

    Args:
        tokenizer: Without truncation and padding of its own (as `read_tokenizer` gives it).
        texts: Any number of texts.
        truncation: How texts too long are cut.
        on_progress: Called now and then with the number of texts done.

    Returns:
        The token ids, in the order of the texts.

    Raises:
        ConfigError: `max_length` leaves no room for a token beside the special tokens.
    """
    prefix, suffix = _special_tokens(tokenizer)
    room = truncation.max_length - len(prefix) - len(suffix)
    if room < 1:
        raise ConfigError(
            f"model.max_length={truncation.max_length} leaves no room for text beside "
            f"{len(prefix) + len(suffix)} special tokens."
        )
    pieces: list[NDArray[np.int32]] = []
    lengths = np.zeros(len(texts), dtype=np.int64)
    truncated = 0
    for start in range(0, len(texts), _CHUNK):
        encodings = tokenizer.encode_batch_fast(list(texts[start : start + _CHUNK]), add_special_tokens=False)
        for index, encoding in enumerate(encodings, start=start):
            body = encoding.ids
            truncated += len(body) > room
            pieces.append(np.array(prefix + truncation.cut(body, room) + suffix, dtype=np.int32))
            lengths[index] = len(pieces[-1])
        if on_progress is not None:
            on_progress(min(start + _CHUNK, len(texts)))
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
    ids = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int32)
    return TokenizedTexts(ids=ids, offsets=offsets, truncated=truncated)


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
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise RunError(f"{path} is damaged: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _special_tokens(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    body = tokenizer.encode("a", add_special_tokens=False).ids
    framed = tokenizer.encode("a", add_special_tokens=True).ids
    start = next(index for index in range(len(framed) + 1) if framed[index : index + len(body)] == body)
    return framed[:start], framed[start + len(body) :]
