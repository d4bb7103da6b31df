"""Linear models over hashed words and sequences of words, which score a text without scikit-learn.

A text's columns are those of scikit-learn's HashingVectorizer: MurmurHash3 of each n-gram's UTF-8, modulo 2**24
(Weinberger et al. 2009, arXiv:0902.2206). The hashes come from `mmh3`, or from scikit-learn where that is missing.
"""

import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from lorafit.system.extras import require
from lorafit.tasks.metrics import sigmoid, softmax

Array = NDArray[np.float64]
Link = Literal["softmax", "one_vs_rest", "marks", "numbers"]
"""How scores become values: probabilities of one softmax, sigmoids scaled to sum to 1, sigmoids, or as they are."""

HASHES: Final = 2**24
"""Columns that n-grams are spread over: some times as many as a large data set has."""

LONGEST: Final = 1_000_000
"""Characters that are read of a text: each of its sequences of words takes some 100 bytes."""

MOST_BYTES: Final = 20_000_000
"""Room for a word model on disk, in bytes: of all of IMDb it takes 7 million."""

_WORDS: Final = re.compile(r"(?u)\b\w+\b|[!?]")
_SPACES: Final = re.compile(r"\s\s+")


@dataclass(frozen=True)
class Reading:
    """How a text is taken apart.

    Attributes:
        words: Longest sequence of words; 0 for texts without any word, of signs alone, which are read by the character.
    """

    words: int

    def hash_text(self, text: str) -> NDArray[np.int64]:
        """Return the columns of a text's n-grams, in no order, as often as they occur.

        A lone surrogate, which UTF-8 does not have and scikit-learn refuses, is hashed as UTF-8 would write it.
        """
        compute, text = _find_hash(), text[:LONGEST].lower()
        if not self.words:
            signs = _SPACES.sub(" ", text)
            return _to_columns([compute(sign.encode("utf-8", "surrogatepass")) for sign in signs])
        words = [word.encode() for word in _WORDS.findall(text)]
        joined, ends = b" ".join(words), np.cumsum([len(word) + 1 for word in words], dtype=np.int64) - 1
        begins = [0, *(ends[:-1] + 1).tolist()]
        spans = (zip(begins, ends[longer:].tolist(), strict=False) for longer in range(min(self.words, len(words))))
        return _to_columns([compute(joined[begin:end]) for parts in spans for begin, end in parts])


def _to_columns(hashes: list[int]) -> NDArray[np.int64]:
    return np.abs(np.array(hashes, dtype=np.int64)) % HASHES


@cache
def _find_hash() -> Callable[[bytes], int]:
    """Return MurmurHash3 of 32 bits with a sign, seed 0; a MissingExtraError gives the pip line."""
    try:
        hashes: Any = importlib.import_module("mmh3")
    except ModuleNotFoundError:
        try:
            hashes = importlib.import_module("sklearn.utils.murmurhash")
        except ModuleNotFoundError:
            hashes = require("mmh3", extra="onnx", purpose="Scoring the words of a text")
    compute: Callable[[bytes], int] = hashes.hash if hasattr(hashes, "hash") else hashes.murmurhash3_32
    return compute


@dataclass(frozen=True)
class WordModel:
    """A fitted linear model over n-grams.

    Attributes:
        reading: How texts are taken apart.
        link: How scores become values.
        labels: Number of labels.
        fitted: The m labels that have weights.
        reference: Of a softmax over two classes, the class whose score is 0; else None.
        certain: Labels without weights that every training row had; the others without weights none had.
        columns: The k columns that count, shape (k,), rising.
        weights: Shape (k, m).
        biases: Shape (m,).
        idf: Shape (k,), inverse document frequencies of TF-IDF with 1 + log(count) and rows of length 1; None where it
            counts only whether an n-gram occurs.
    """

    reading: Reading
    link: Link
    labels: int
    fitted: tuple[int, ...]
    reference: int | None
    certain: tuple[int, ...]
    columns: NDArray[np.uint32]
    weights: NDArray[np.float32]
    biases: Array
    idf: NDArray[np.float32] | None = None

    def score(self, texts: Sequence[str]) -> Array:
        """Return the values of n texts, shape (n, labels): a text without a known n-gram gets those of the biases."""
        scores = np.empty((len(texts), len(self.fitted)))
        for place, text in enumerate(texts):
            scores[place] = self.biases + self._weigh(text)
        return self._activate(scores)

    def compact(self, most_bytes: int) -> Self:
        """Return the model as it is kept: its numbers rounded as `pack` has them, without what matters least.

        Args:
            most_bytes: What the columns may take in a file.

        Returns:
            A model that `unpack` gives back exactly.
        """
        a_column = 4 + 2 * len(self.fitted) + (0 if self.idf is None else 2)
        size = np.abs(self.weights).max(axis=1, initial=0.0)
        kept = size > 0 if self.idf is None else np.ones(len(size), dtype=np.bool_)  # the length of a row needs all
        if kept.sum() > (room := most_bytes // a_column):
            kept = np.zeros(len(size), dtype=np.bool_)
            kept[np.argsort(-size, kind="stable")[:room]] = True
        part = replace(
            self,
            columns=self.columns[kept],
            weights=self.weights[kept],
            idf=None if self.idf is None else self.idf[kept],
        )
        return replace(part, **_unpack_numbers(part.pack()))

    def pack(self) -> dict[str, NDArray[Any]]:
        """Return its numbers in half precision by name, each label's weights as shares of its largest."""
        scales = np.abs(self.weights).max(axis=0, initial=0.0).astype(np.float64)
        shares = self.weights / np.where(scales > 0, scales, 1)
        packed = {
            "columns": self.columns,
            "weights": shares.astype(np.float16),
            "scales": scales,
            "biases": self.biases,
        }
        return packed if self.idf is None else {**packed, "idf": self.idf.astype(np.float16)}

    def describe(self) -> dict[str, Any]:
        """Return what `pack` leaves out, for `unpack`."""
        return {
            "words": self.reading.words,
            "link": self.link,
            "labels": self.labels,
            "fitted": list(self.fitted),
            "reference": self.reference,
            "certain": list(self.certain),
        }

    @classmethod
    def unpack(cls, facts: dict[str, Any], packed: dict[str, NDArray[Any]]) -> Self:
        """Return the model of what `describe` and `pack` gave."""
        return cls(
            reading=Reading(facts["words"]),
            link=facts["link"],
            labels=facts["labels"],
            fitted=tuple(facts["fitted"]),
            reference=facts["reference"],
            certain=tuple(facts["certain"]),
            **_unpack_numbers(packed),
        )

    def _weigh(self, text: str) -> Array:
        """Sum up the weights of a text's n-grams, shape (m,)."""
        found, counts = np.unique(self.reading.hash_text(text), return_counts=True)
        places = np.searchsorted(self.columns, found.astype(np.uint32))
        known = self.columns.take(places, mode="clip") == found if len(self.columns) else np.zeros(0, dtype=np.int64)
        places, counts = places[known], counts[known]
        weights = self.weights[places].astype(np.float64)
        if self.idf is None:
            return np.asarray(weights.sum(axis=0))
        amounts = (1 + np.log(counts)) * self.idf[places]
        return np.asarray(amounts @ weights / max(np.linalg.norm(amounts), np.finfo(np.float64).tiny))

    def _activate(self, scores: Array) -> Array:
        if self.link == "numbers":
            return scores
        values = np.zeros((len(scores), self.labels))
        values[:, list(self.certain)] = 1
        fitted = list(self.fitted)
        if self.link == "softmax":
            if self.reference is not None:
                fitted, scores = [self.reference, *fitted], np.column_stack([np.zeros(len(scores)), scores])
            values[:, fitted] = softmax(scores)
            return values
        values[:, fitted] = sigmoid(scores) if self.link == "marks" else softmax(-np.logaddexp(0, -scores))
        return values


def _unpack_numbers(packed: dict[str, NDArray[Any]]) -> dict[str, Any]:
    idf = packed.get("idf")
    return {
        "columns": packed["columns"],
        "weights": packed["weights"].astype(np.float32) * packed["scales"].astype(np.float32),
        "biases": packed["biases"],
        "idf": None if idf is None else idf.astype(np.float32),
    }
