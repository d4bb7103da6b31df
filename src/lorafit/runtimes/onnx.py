"""Inference with an exported model in onnxruntime: no torch, no transformers."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lorafit.errors import RunError
from lorafit.extras import require
from lorafit.hardware import available_cores

__all__ = ["OnnxRuntime"]


class OnnxRuntime:
    """Runs an exported classifier on the CPU. `name` is for messages: `onnx` or `int8`."""

    def __init__(self, file: Path, precision: Literal["fp32", "int8"]) -> None:
        onnxruntime: Any = require("onnxruntime", extra="onnx", purpose="Loading an exported model")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = available_cores()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises kinds of its own
            raise RunError(f"{file} cannot be loaded: onnxruntime says {error}") from error
        self.name = "int8" if precision == "int8" else "onnx"
        self._precision = precision

    @property
    def precision(self) -> Literal["fp32", "int8"]:
        """Arithmetic of the linear layers."""
        return self._precision

    def logits(self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64], *_: Any) -> NDArray[np.float32]:
        """Compute logits.

        Args:
            input_ids: Shape (rows, length).
            attention_mask: Same shape; 1 = token, 0 = padding.

        Returns:
            Shape (rows, classes).
        """
        logits: NDArray[np.float32]
        (logits,) = self._session.run(["logits"], {"input_ids": input_ids, "attention_mask": attention_mask})
        return logits
