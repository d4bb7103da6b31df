"""Any other classifier as an ONNX graph, as torch traces it (`torch.onnx.export`, which builds on `torch.export`).

Such a graph is of ONNX's own operators; onnxruntime fuses those whose patterns it knows when it loads it.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lorafit.inference.export.graph import OPSET, refuse
from lorafit.models.features import FeatureReader
from lorafit.system.extras import require

if TYPE_CHECKING:
    import onnx
    from transformers import PreTrainedModel


_ROWS, _LENGTH = 2, 7
"""Shape of the batch that is traced: a size of 1 would be taken for a fixed one."""


class _Outputs(nn.Module):
    """Gives the logits and, where the model has some, the features: of inputs in this order."""

    def __init__(self, model: "PreTrainedModel") -> None:
        super().__init__()
        self.model = model
        self._reader = FeatureReader(model)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Ask the model."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask, **types).logits
        features = self._reader.take(attention_mask)
        return (logits,) if features is None else (logits, features)


def trace_graph(model: "PreTrainedModel", *, token_types: bool = False) -> "onnx.ModelProto":
    """Trace a classifier as a graph in fp32.

    Args:
        model: A sequence classifier without an adapter, or with a merged one; afterwards it computes attention step by
            step, as a graph does.
        token_types: Whether it reads types of tokens, as `build_graph` takes it.

    Returns:
        Inputs and outputs as `build_graph` gives them; without `features` where the model gives none.

    Raises:
        ConfigError: Torch cannot trace it, or knows no ONNX operator for a part of it; the message says which.
    """
    ids = torch.arange(_ROWS * _LENGTH).reshape(_ROWS, _LENGTH) % int(model.config.vocab_size)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if token_types:
        inputs["token_type_ids"] = ids % 2
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    try:
        with _quiet():
            model.set_attn_implementation("eager")
            outputs = _Outputs(model).eval()
            with torch.no_grad():
                names = ["logits", "features"][: len(outputs(**inputs))]
            program: Any = torch.onnx.export(
                outputs,
                tuple(inputs.values()),
                input_names=list(inputs),
                output_names=names,
                dynamic_shapes=(free,) * len(inputs),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # torch and onnxscript raise kinds of their own
        raise refuse(model, f"torch says '{_name_cause(error)}'") from error
    graph: onnx.ModelProto = program.model_proto
    _tidy(graph)
    _transpose_weights(graph)
    return graph


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what torch says of its own parts; a fault is raised all the same."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _name_cause(error: BaseException) -> str:
    """Return the first line of what it all began with."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().partition("\n")[0]


def _tidy(model: "onnx.ModelProto") -> None:
    """Name the free sizes, and leave out where in which file each node came from."""
    graph = model.graph
    for value in (*graph.input, *graph.output):
        for place, size in enumerate(value.type.tensor_type.shape.dim):
            if size.HasField("dim_param"):
                size.dim_param = ("batch", "length")[place]
    del graph.value_info[:]
    del model.functions[:]  # what they stood for is in the graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def _transpose_weights(model: "onnx.ModelProto") -> None:
    """Store weights as the products read them: those that layers share are left to be transposed again and again."""
    onnx = require("onnx", extra="export", purpose="Exporting")
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type != "Transpose" or node.input[0] not in tensors:
            nodes.append(node)
            continue
        order = next((list(one.ints) for one in node.attribute if one.name == "perm"), None)
        turned = np.transpose(onnx.numpy_helper.to_array(tensors[node.input[0]]), order)
        graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(turned), node.output[0]))
    read = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
