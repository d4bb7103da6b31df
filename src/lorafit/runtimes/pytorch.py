"""Inference with the PyTorch model itself."""

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lorafit.acceleration.precision import PrecisionChoice, autocast

__all__ = ["TorchRuntime"]


class TorchRuntime:
    """Runs a classifier in evaluation mode. `name` is for messages."""

    name = "torch"

    def __init__(self, model: torch.nn.Module, precision: PrecisionChoice) -> None:
        self._model: Any = model
        self._precision = precision

    @property
    def precision(self) -> Literal["fp32", "bf16"]:
        """Arithmetic of the forward pass."""
        return self._precision.name

    def logits(self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """Compute logits.

        Args:
            input_ids: Shape (rows, length).
            attention_mask: Same shape; 1 = token, 0 = padding.

        Returns:
            Shape (rows, classes).
        """
        self._model.eval()
        mask = None if attention_mask.all() else torch.from_numpy(attention_mask)
        with torch.inference_mode(), autocast(self._precision):
            output = self._model(input_ids=torch.from_numpy(input_ids), attention_mask=mask)
        logits: NDArray[np.float32] = output.logits.float().numpy()
        return logits
