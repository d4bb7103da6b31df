"""Inference with an exported model in onnxruntime: no torch, no transformers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lorafit.errors import MissingExtraError, RunError
from lorafit.system.extras import require
from lorafit.system.hardware import choose_threads

_SPIN_MICROSECONDS = "20"
"""How long an idle thread looks for work before it sleeps: by itself so long that it holds a core others need.

`benchmarks/contention.py` measures both; an onnxruntime that does not know the limit passes it over.
"""


def open_session(model: str | bytes, *, extra: str, purpose: str) -> Any:  # noqa: ANN401 - onnxruntime has no types
    """Open a graph on the CPU, with as many threads as `choose_threads` says.

    Args:
        model: Path of the graph, or the graph itself.
        extra: The extra that brings onnxruntime, for the message if it is missing.
        purpose: What it is needed for, as `require` takes it.

    Returns:
        An `onnxruntime.InferenceSession`; onnxruntime raises exceptions of its own where it cannot run the graph.

    Raises:
        MissingExtraError: onnxruntime is not installed; the message gives the pip line.
    """
    onnxruntime: Any = require("onnxruntime", extra=extra, purpose=purpose)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = choose_threads()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_MICROSECONDS)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def choose_inputs(session: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - onnxruntime has no types
    """Return those of the inputs that a session's graph reads."""
    return {one.name: inputs[one.name] for one in session.get_inputs()}


class OnnxRuntime:
    """Runs an exported classifier on the CPU. `name` is for messages: `onnx` or `int8`."""

    def __init__(self, graph: Path | bytes, precision: Literal["fp32", "int8"]) -> None:
        model = graph if isinstance(graph, bytes) else str(graph)
        try:
            self._session = open_session(model, extra="onnx", purpose="Loading an exported model")
        except MissingExtraError:
            raise
        except Exception as error:  # onnxruntime raises kinds of its own
            name = "the graph of a run" if isinstance(graph, bytes) else graph
            raise RunError(f"{name} cannot be loaded: onnxruntime says {error}") from error
        self.name = "int8" if precision == "int8" else "onnx"
        self._precision = precision

    @property
    def precision(self) -> Literal["fp32", "int8"]:
        """Arithmetic of the linear layers."""
        return self._precision

    def fewest_positions(self, _: int) -> None:
        """Return None: batches of any shape are the same to it."""

    def logits(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64], **others: Any
    ) -> NDArray[np.float32]:
        """Compute logits.

        Args:
            input_ids: Shape (rows, length).
            attention_mask: Same shape; 1 = token, 0 = padding.
            **others: `token_type_ids` of the same shape, where the texts are pairs.

        Returns:
            Shape (rows, classes).
        """
        (logits,) = self._run(["logits"], input_ids, attention_mask, others)
        return logits

    def outputs(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64], **others: Any
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Compute logits, and the features that tell how typical a text is.

        Args:
            input_ids: As in `logits`.
            attention_mask: As in `logits`.
            **others: As in `logits`.

        Returns:
            Logits of shape (rows, classes), and features of shape (rows, width); None of a graph that gives none.
        """
        if not any(one.name == "features" for one in self._session.get_outputs()):
            return self.logits(input_ids, attention_mask, **others), None
        logits, features = self._run(["logits", "features"], input_ids, attention_mask, others)
        return logits, features

    def _run(
        self,
        names: list[str],
        input_ids: NDArray[np.int64],
        attention_mask: NDArray[np.int64],
        others: Mapping[str, Any],
    ) -> list[NDArray[np.float32]]:
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, **others}
        found: list[NDArray[np.float32]] = self._session.run(names, choose_inputs(self._session, inputs))
        return found
