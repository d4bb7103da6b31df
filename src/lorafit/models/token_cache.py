"""Tokens of large sets of texts, kept in lorafit's cache under a digest of everything they depend on."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from tokenizers import Tokenizer

from lorafit.models.cache import cache_folder
from lorafit.models.tokenization import TokenizedTexts, Truncation, tokenize
from lorafit.system.atomic import write_atomic
from lorafit.system.text import Text

_CHARACTERS = 2_000_000
_BYTES = 500_000_000


def tokenize_once(tokenizer: Tokenizer, texts: Sequence[Text], truncation: Truncation) -> TokenizedTexts:
    """Turn texts or pairs into tokens as `tokenize` does, or read them from the cache.

    Only sets of more than two million characters are kept, about a second's work; of all that is kept, the least
    recently used beyond 500 MB is removed. Files that cannot be read or written, or were altered, are passed over.

    Args:
        tokenizer: As `read_tokenizer` gives it.
        texts: Any number of texts, or of pairs.
        truncation: What becomes of texts too long.

    Returns:
        The tokens, in the order of the texts.
    """
    if sum(len(text) if isinstance(text, str) else sum(map(len, text)) for text in texts) < _CHARACTERS:
        return tokenize(tokenizer, texts, truncation)
    folder = cache_folder() / "tokens"
    path = folder / f"{_compute_key(tokenizer, texts, truncation)}.safetensors"
    with suppress(OSError, SafetensorError, KeyError):
        kept = load_file(path)
        if np.array_equal(kept.pop("digest"), _compute_digest(kept)):
            with suppress(OSError):
                os.utime(path)
            truncated = int(kept["truncated"][0])
            return TokenizedTexts(kept["ids"], kept["offsets"], truncated, kept.get("type_ids"), kept.get("windows"))
    tokens = tokenize(tokenizer, texts, truncation)
    if tokens.ids.nbytes > _BYTES:
        return tokens
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = {"ids": tokens.ids, "offsets": tokens.offsets, "truncated": np.array([tokens.truncated])}
        parts = {"type_ids": tokens.type_ids, "windows": tokens.windows}
        kept |= {name: part for name, part in parts.items() if part is not None}
        write_atomic(path, save(kept | {"digest": _compute_digest(kept)}))
        _remove_oldest(folder)
    return tokens


def _compute_digest(parts: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    """Return the SHA-256 of some arrays and their names."""
    digest = hashlib.sha256()
    for name, part in sorted(parts.items()):
        digest.update(f"{name} {part.dtype} {part.shape} ".encode())
        digest.update(np.ascontiguousarray(part).data)
    return np.frombuffer(digest.digest(), dtype=np.uint8)


def _compute_key(tokenizer: Tokenizer, texts: Sequence[Text], truncation: Truncation) -> str:
    long = list(range(2 * truncation.max_length))
    examples = truncation.fit((long,), truncation.max_length), truncation.fit((long, long), truncation.max_length)
    digest = hashlib.sha256(f"{tokenizers.__version__} {examples} {tokenizer.to_str()}".encode())
    for text in texts:
        parts = (text,) if isinstance(text, str) else text
        digest.update(len(parts).to_bytes(1, "little"))
        for part in parts:
            data = part.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little"))
            digest.update(data)
    return digest.hexdigest()


def _remove_oldest(folder: Path) -> None:
    room = _BYTES
    for path in sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime, reverse=True):
        room -= path.stat().st_size
        if room < 0:
            path.unlink(missing_ok=True)
