"""Exported graphs, and what runs them."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from lorafit.models.runtimes.onnx import OnnxRuntime
    from lorafit.models.runtimes.openvino import OpenvinoRuntime

Engine = Literal["onnxruntime", "openvino"]
"""A library that runs graphs."""

Precision = Literal["fp32", "bf16", "int8"]
"""Arithmetic of an exported model's linear layers; OpenVINO computes in bf16 where the CPU has it, else in fp32."""


def open_graph(file: Path, precision: Precision, engine: Engine) -> "OnnxRuntime | OpenvinoRuntime":
    """Open an exported graph.

    Args:
        file: The graph.
        precision: As it was written: for onnxruntime fp32 or int8, for OpenVINO bf16 or int8.
        engine: What runs it.

    Returns:
        The runtime.

    Raises:
        RunError: It cannot be loaded.
        MissingExtraError: The engine is not installed; the message gives the pip line.
    """
    if engine == "openvino":
        from lorafit.models.runtimes.openvino import OpenvinoRuntime

        return OpenvinoRuntime(file, "int8" if precision == "int8" else "bf16")
    from lorafit.models.runtimes.onnx import OnnxRuntime

    return OnnxRuntime(file, "int8" if precision == "int8" else "fp32")
