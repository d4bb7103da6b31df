"""Linear layers of an ONNX graph in int8: weights quantized once, by output channel; activations as they come."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lorafit.exporting.graph import FUSED_DOMAIN
from lorafit.extras import require

if TYPE_CHECKING:
    import onnx

__all__ = ["quantize_graph", "quantize_weight"]

_MOST = 127


def quantize_weight(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantize a weight symmetrically, each output channel with a scale of its own.

    Signed weights without a zero point are what onnxruntime's fast kernels take.

    Args:
        weight: Shape (inputs, outputs).

    Returns:
        Whole numbers from -127 to 127 of the same shape, and scales of shape (outputs,); `whole * scales` is the weight
        to within half a scale.
    """
    scales = np.abs(weight).max(axis=0) / _MOST
    scales[scales == 0] = 1.0
    whole = np.clip(np.round(weight / scales), -_MOST, _MOST)
    return whole.astype(np.int8), scales.astype(np.float32)


def quantize_graph(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """Replace products with a constant weight and the bias after them by one int8 operator each.

    `DynamicQuantizeMatMul` of onnxruntime quantizes the activations of a batch to uint8 by their range.

    Args:
        model: As `build_graph` makes it.

    Returns:
        A new model. The head stays in fp32.
    """
    onnx = require("onnx", extra="export", purpose="Exporting")
    quantized: Any = onnx.ModelProto()
    quantized.CopyFrom(model)
    graph = quantized.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    readers = {name: node for node in graph.node for name in node.input}
    nodes, gone = [], set()
    for node in graph.node:
        if node.name in gone:
            continue
        if node.op_type != "MatMul" or node.input[1] not in tensors:
            nodes.append(node)
            continue
        bias = readers[node.output[0]]
        whole, scales = quantize_weight(onnx.numpy_helper.to_array(tensors[node.input[1]]))
        name = node.input[1]
        tensors[name].CopyFrom(onnx.numpy_helper.from_array(whole, name))
        constants = {f"{name}.scale": scales, f"{name}.zero_point": np.zeros(len(scales), np.int8)}
        graph.initializer.extend(onnx.numpy_helper.from_array(value, key) for key, value in constants.items())
        nodes.append(
            onnx.helper.make_node(
                "DynamicQuantizeMatMul",
                [node.input[0], name, *constants, bias.input[1]],
                [bias.output[0]],
                name=bias.name,
                domain=FUSED_DOMAIN,
            )
        )
        gone.add(bias.name)
    del graph.node[:]
    graph.node.extend(nodes)
    return quantized  # type: ignore[no-any-return]  # onnx is imported by its name
