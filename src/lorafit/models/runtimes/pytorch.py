"""Inference with the PyTorch model itself."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lorafit.models.acceleration.encoder_block import at_precision
from lorafit.models.acceleration.precision import PrecisionChoice
from lorafit.models.adaptation import reads_token_types
from lorafit.models.batching import BF16_POSITIONS
from lorafit.models.features import FeatureReader


class TorchRuntime:
    """Runs a classifier in evaluation mode. `name` is for messages.

    While it computes it takes `threads` threads, None for as many as torch takes; and a single one in a process that
    was forked after the model was loaded, since torch's threads stayed in the process before.
    """

    name = "torch"

    def __init__(self, model: torch.nn.Module, precision: PrecisionChoice, *, threads: int | None = None) -> None:
        self._model: Any = model
        self._precision = precision
        self._threads = threads
        self._process = os.getpid()

    @property
    def precision(self) -> Literal["fp32", "bf16"]:
        """Arithmetic of the forward pass."""
        return self._precision.name

    def fewest_positions(self, _: int) -> int | None:
        """Return those of bf16, for which the library beneath torch keeps kernels of every shape; else None."""
        return BF16_POSITIONS if self.precision == "bf16" else None

    def logits(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64], **others: Any
    ) -> NDArray[np.float32]:
        """Compute logits.

        Args:
            input_ids: Shape (rows, length).
            attention_mask: Same shape; 1 = token, 0 = padding.
            **others: `token_type_ids` of the same shape: which text of a pair a token belongs to; a model without such
                types ignores it. `prefix_hidden_states` of shape (rows, length, width): what the frozen layers give,
                where it is kept.

        Returns:
            Shape (rows, classes).
        """
        return self._run(input_ids, attention_mask, **others)

    def outputs(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64], **others: Any
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Compute logits, and the features that tell how typical a text is (`models.features`).

        Args:
            input_ids: As in `logits`.
            attention_mask: As in `logits`.
            **others: As in `logits`.

        Returns:
            Logits of shape (rows, classes), and features of shape (rows, width), or None where the model gives none.
        """
        with FeatureReader(self._model) as reader:
            logits = self._run(input_ids, attention_mask, **others)
            features = reader.take(torch.from_numpy(attention_mask).to(next(self._model.parameters()).device))
        return logits, None if features is None else features.cpu().numpy()

    def _run(
        self,
        input_ids: NDArray[np.int64],
        attention_mask: NDArray[np.int64],
        *,
        token_type_ids: NDArray[np.int64] | None = None,
        prefix_hidden_states: torch.Tensor | None = None,
        **_: Any,
    ) -> NDArray[np.float32]:
        if os.getpid() != self._process:
            torch.set_num_threads(1)
            self._threads, self._process = None, os.getpid()
        if self._model.training:
            self._model.eval()
        device = next(self._model.parameters()).device
        mask = None if attention_mask.all() else torch.from_numpy(attention_mask).to(device)
        with torch.inference_mode(), at_precision(self._model, self._precision), on_threads(self._threads):
            others = {} if prefix_hidden_states is None else {"prefix_hidden_states": prefix_hidden_states}
            if token_type_ids is not None and reads_token_types(self._model):
                others["token_type_ids"] = torch.from_numpy(token_type_ids).to(device)
            output = self._model(input_ids=torch.from_numpy(input_ids).to(device), attention_mask=mask, **others)
        logits: NDArray[np.float32] = output.logits.float().cpu().numpy()
        return logits


@contextmanager
def on_threads(count: int | None) -> Iterator[None]:
    """Let torch take so many threads inside the block."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
