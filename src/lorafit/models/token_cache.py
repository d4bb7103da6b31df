"""Tokens of large sets of texts, kept in lorafit's cache under a digest of everything they depend on."""

import hashlib
from collections.abc import Sequence

import numpy as np
import tokenizers
from tokenizers import Tokenizer

from lorafit.models.array_cache import SUFFIX, keep_arrays, read_arrays
from lorafit.models.cache import cache_folder
from lorafit.models.tokenization import TokenizedTexts, Truncation, tokenize
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
    path = cache_folder() / "tokens" / f"{_compute_key(tokenizer, texts, truncation)}{SUFFIX}"
    if (kept := read_arrays(path)) is not None:
        truncated = int(kept["truncated"][0])
        return TokenizedTexts(kept["ids"], kept["offsets"], truncated, kept.get("type_ids"), kept.get("windows"))
    tokens = tokenize(tokenizer, texts, truncation)
    kept = {"ids": tokens.ids, "offsets": tokens.offsets, "truncated": np.array([tokens.truncated])}
    parts = {"type_ids": tokens.type_ids, "windows": tokens.windows}
    keep_arrays(path, kept | {name: part for name, part in parts.items() if part is not None}, most=_BYTES)
    return tokens


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
