"""Texts as Python users hand them over: what is taken for a sequence of texts, and what is wrong with which."""

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lorafit.data.checks import describe_rows, describe_text_fault
from lorafit.errors import UserInputError
from lorafit.system.text import Text

AnyText = Text | Mapping[str, str]
"""A text, or a pair as a tuple of two or as a dictionary with `text` and `text_pair`."""

NOTHING_LEFT = "a text of which the tokenizer leaves nothing"

_MISSING = ("NAType", "NaTType")
"""Classes of pandas for a cell that holds nothing."""

_KEEP = 'Keep their places empty with bad_rows="keep", or leave'
_LEAVE_OUT = (
    " out what is none:\n"
    "  from lorafit.data.checks import describe_text_fault\n"
    "  texts = [text for text in texts if describe_text_fault(text) is None]"
)


@dataclass(frozen=True)
class GivenTexts:
    """Texts in their order, checked.

    Attributes:
        texts: n texts or pairs of texts, and whatever stands where there is none.
        faults: What is wrong with each row that cannot be predicted, by its place.
        pair: Whether the model takes pairs.
    """

    texts: list[Any]
    faults: dict[int, str]
    pair: bool

    @property
    def usable(self) -> list[int]:
        """Places of the texts that can be predicted."""
        return [place for place in range(len(self.texts)) if place not in self.faults]

    def describe_faults(self, done: str = "predicted") -> str | None:
        """List the rows that cannot be so used, as a sentence; None if there are none."""
        if not self.faults:
            return None
        kinds: dict[str, list[int]] = {}
        for place, fault in self.faults.items():
            kinds.setdefault(fault, []).append(place + 1)
        listed = "; ".join(f"{fault} ({describe_rows(rows)})" for fault, rows in kinds.items())
        return f"{len(self.faults)} of {len(self.texts)} texts cannot be {done}: {listed}."

    def refuse_faults(self, *, keeps: bool = True) -> None:
        """Raise a `UserInputError` that lists the rows that cannot be predicted, if there are some.

        Args:
            keeps: Whether the caller has a `bad_rows` that keeps them.
        """
        if (faults := self.describe_faults()) is not None:
            pairs = " Write predict([(text, text_pair), …])." if self.pair else ""
            raise UserInputError(f"{faults}{pairs} {_KEEP if keeps else 'Leave'}{_LEAVE_OUT}")


def read_texts(texts: Iterable[AnyText], *, pair: bool, call: str = "predict") -> GivenTexts:
    """Read texts from whatever holds them in an order: a list, a column of a table, an array, a generator.

    Args:
        texts: The texts, or pairs of texts.
        pair: Whether the model takes pairs.
        call: The function that they were given to, for messages.

    Returns:
        The texts, and what is wrong with those that are none.

    Raises:
        UserInputError: It is no sequence of texts: a single text, a table, a set, a file, numbers.
    """
    if (fault := _describe_kind(texts, pair=pair)) is not None:
        raise UserInputError(f"predict takes a list of texts, got {fault}".replace("predict", call))
    held: Any = texts
    values = held.to_pylist() if hasattr(held, "to_pylist") else held
    read = [_unpack(text) for text in values]
    found = ((place, _describe_fault(text, pair=pair)) for place, text in enumerate(read))
    return GivenTexts(read, {place: fault for place, fault in found if fault is not None}, pair)


def _describe_kind(texts: Any, *, pair: bool) -> str | None:  # noqa: ANN401 - it may be anything
    """Say what was given instead of a sequence of texts, and what to write; None for what is one."""
    kind, dtype, dimensions = type(texts).__name__, getattr(texts, "dtype", None), getattr(texts, "ndim", 1)
    one = "(text, text_pair)" if pair else "text"
    column = 'zip(df["text"], df["text_pair"])' if pair else 'df["text"]'
    flat = "map(tuple, texts)" if pair else "texts.ravel()"
    is_lazy = kind == "LazyFrame"  # whose columns polars would have to look for
    is_table = not is_lazy and (hasattr(texts, "columns") or hasattr(texts, "column_names"))
    is_read = isinstance(texts, Iterable) or hasattr(texts, "__getitem__")
    kinds = {
        f"a single string. Write predict([{one}]).": isinstance(texts, str),
        f"{kind}, which have no encoding. Write predict([texts.decode()]).": isinstance(texts, (bytes, bytearray)),
        f"a {kind}, which has no rows yet. Write df = texts.collect(), then predict({column}).": is_lazy,
        f"a table ({kind}). Give its column: write predict({column}).": is_table,
        f"a {kind}. Write predict([{one}]), or predict(texts.values()) for texts by a key.": isinstance(texts, Mapping),
        f"a {kind}, which has no order. Write predict(sorted(texts)).": isinstance(texts, (set, frozenset)),
        "an open file. Write predict(file.read().splitlines()).": isinstance(texts, io.IOBase),
        f"an array of {dimensions} dimensions. Write predict({flat}).": dimensions != 1,
        f"values of type {dtype}. Are they the texts?": _are_values(texts),
        f"a value of type {kind}. Write predict([{one}]).": not is_read,
    }
    return next((what for what, is_so in kinds.items() if is_so), None)


def _are_values(texts: Any) -> bool:  # noqa: ANN401 - it may be anything
    """Tell an array or a column of something else than texts; one that is all missing may have been of texts."""
    kind = getattr(getattr(texts, "dtype", None), "kind", "O")
    return kind not in "OUT" and len(texts) > 0 and not (kind == "f" and bool(np.isnan(texts).all()))


def _describe_fault(text: object, *, pair: bool) -> str | None:
    if pair and isinstance(text, str):
        return "a single text for a model that takes pairs"
    if not pair and isinstance(text, tuple):
        return "a pair for a model that takes single texts"
    if pair and isinstance(text, tuple) and len(text) != 2:
        return f"a tuple of {len(text)} texts"
    return describe_text_fault(text)


def _unpack(text: Any) -> Any:  # noqa: ANN401 - what is missing in it is found by the check
    """Return the text, or the pair, of a dictionary as transformers' pipelines take it; None of what is missing."""
    if isinstance(text, Mapping):
        if text.keys() == {"text", "text_pair"}:
            return text["text"], text["text_pair"]
        return text["text"] if text.keys() == {"text"} else text
    return None if type(text).__name__ in _MISSING else text
