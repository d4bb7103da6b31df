"""Golden logits: those of plain fp32 PEFT for fixed sentences, which every way of loading a model must reproduce."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError
from tokenizers import Tokenizer

from lorafit.errors import RunError
from lorafit.models.acceleration.precision import PrecisionChoice
from lorafit.system.records import FileRecord
from lorafit.system.text import Text
from lorafit.tasks.base import Task

GOLDEN_TEXTS = (
    "A wonderful film, from the first minute to the last.",
    "I want those two hours of my life back.",
    "The acting is fine, but the story goes nowhere and the ending makes no sense at all.",
    "Not bad!",
    "It rained on Tuesday, so the match was moved to the following week.",
    "Please cancel my order; the parcel never arrived and nobody answers the phone.",
)
"""The sentences, which ship with lorafit and are never a user's rows."""

GOLDEN_PAIRS = (*pairwise(GOLDEN_TEXTS), ("Yes.", "No."))
"""The same for a model that takes pairs."""

GOLDEN_TOLERANCE = {
    "torch": 1e-3,
    "torch-bf16": 0.1,
    "onnx": 1e-3,
    "int8": 0.1,
    "openvino": 0.1,
    "openvino-int8": 0.1,
}
"""Largest allowed difference of a logit by runtime, relative to the largest golden logit, or to 0.1 if that is larger.

Another processor sums in another order, which moves activations across int8's quantization steps, and may have no bf16.
"""

_CAUSES = {
    "torch": "The adapter, its base model or a library has changed.",
    "torch-bf16": "The adapter, its base model or a library has changed.",
    "onnx": "onnxruntime has changed, or does not fit this machine. Export the run again, or open it with --no-verify.",
    "int8": (
        "onnxruntime has changed, or this processor computes int8 differently from the one it was exported on. Export "
        "the run here, or without --int8, or open it with --no-verify."
    ),
    "openvino": "OpenVINO has changed, or does not fit this machine. Export again, or open it with --no-verify.",
    "openvino-int8": (
        "OpenVINO has changed, or this processor computes int8 differently from the one it was exported on. Export the "
        "run here, or without --int8, or open it with --no-verify."
    ),
}

_LEAST_SCALE = 0.1
"""Logits that are all smaller are compared as if they were so large."""

GOLDEN_PRECISION = PrecisionChoice("fp32", "golden logits are compared in full precision")
"""The precision of the comparison, whatever precision the model predicts in."""


class GoldenRecord(FileRecord):
    """`golden.json`.

    Attributes:
        texts: The sentences, or pairs of them. Each is short enough to be one input, as plain libraries read it.
        logits: Shape (sentences, outputs).
    """

    texts: Annotated[list[str] | list[tuple[str, str]], Field(min_length=1)]
    logits: list[list[float]]

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        if [len(row) for row in self.logits] != [len(self.logits[0] if self.logits else ())] * len(self.texts):
            raise PydanticCustomError("shape", "the logits are not a row of the same length for each sentence")
        return self


def choose_golden_texts(
    tokenizer: Tokenizer, max_length: int, *, pair: bool = False
) -> list[str] | list[tuple[str, str]]:
    """Leave out sentences that would be truncated: other tools keep the head alone, which may be another part.

    Args:
        tokenizer: The model's, without truncation of its own.
        max_length: Longest input in tokens, special tokens included.
        pair: Whether the model takes pairs.

    Returns:
        Those of `GOLDEN_TEXTS`, or of `GOLDEN_PAIRS`, that fit, or all of them if none does.
    """
    if pair:
        return [two for two in GOLDEN_PAIRS if len(tokenizer.encode(*two).ids) <= max_length] or list(GOLDEN_PAIRS)
    return [text for text in GOLDEN_TEXTS if len(tokenizer.encode(text).ids) <= max_length] or list(GOLDEN_TEXTS)


def verify_golden(
    path: Path,
    compute_logits: Callable[[Sequence[Text]], NDArray[np.floating]],
    task: Task,
    *,
    runtime: str,
) -> float:
    """Compare a loaded model with its golden logits.

    Args:
        path: The `golden.json`.
        compute_logits: Texts, or pairs, to logits of shape (texts, outputs), at `GOLDEN_PRECISION`.
        task: The model's task.
        runtime: Name of the runtime, a key of `GOLDEN_TOLERANCE`.

    Returns:
        The largest absolute difference of a logit.

    Raises:
        RunError: The difference is larger than `GOLDEN_TOLERANCE` allows.
    """
    golden = GoldenRecord.read(path)
    expected = np.array(golden.logits)
    got = compute_logits(golden.texts)
    difference = float(np.abs(got - expected).max()) if got.shape == expected.shape else float("inf")
    allowed = GOLDEN_TOLERANCE[runtime] * task.logit_scale(expected, least=_LEAST_SCALE)
    if not difference <= allowed:
        raise RunError(
            f"The model run by {runtime} does not give its golden logits: they differ by "
            f"{difference:.4g}, allowed are {allowed:.4g}. {_CAUSES[runtime]}"
        )
    return difference
