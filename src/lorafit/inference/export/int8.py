"""An ONNX graph in int8: linear layers and embeddings, for onnxruntime or for OpenVINO.

Weights are quantized once, those of linear layers by output channel, embeddings by row, which are fp32 again once read.
Activations share one scale: onnxruntime's operator takes the range of the batch at hand, OpenVINO one that was measured
beforehand. A few features of an encoder reach far beyond the others and would leave those a handful of steps, so their
reach is measured beforehand and moved into the weights (as SmoothQuant does, Xiao et al. 2023, arXiv:2211.10438, but of
these features alone).
"""

import platform
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lorafit.inference.export.graph import FUSED_DOMAIN
from lorafit.models.runtimes.onnx import choose_inputs, open_session
from lorafit.system.extras import require
from lorafit.system.hardware import cpu_flags

if TYPE_CHECKING:
    import onnx


_LEVELS = 255
_ORDINARY = 0.98
"""Share of the features that is ordinary; those that reach further are scaled down to the furthest of these."""

_FEWEST_ROWS = 100
"""Rows of a table of embeddings from which on it is quantized: smaller ones take no room."""


def quantize_weight(weight: NDArray[np.float32], most: int = 127) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantize a weight symmetrically, each output channel with a scale of its own.

    Signed weights without a zero point are what onnxruntime's fast kernels take.

    Args:
        weight: Shape (inputs, outputs).
        most: The largest whole number, up to 127.

    Returns:
        Whole numbers from -most to most of the same shape, and scales of shape (outputs,); `whole * scales` is the
        weight to within half a scale.
    """
    scales = np.abs(weight).max(axis=0) / most
    scales[scales == 0] = 1.0
    whole = np.clip(np.round(weight / scales), -most, most)
    return whole.astype(np.int8), scales.astype(np.float32)


def list_largest(flags: frozenset[str] | None = None) -> tuple[int, ...]:
    """Return the largest whole numbers of weights that are to be tried, the most precise first.

    Without VNNI, x86 adds up pairs of products in 16 bits, which two of 255 times 127 exceed: seldom in a model whose
    weights are mostly small, and 63 is never too much (onnxruntime's "reduce_range", NNCF's "overflow_fix";
    https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).

    Args:
        flags: The processor's features; None for this one's.

    Returns:
        127, and 63 after it where the processor is x86 without VNNI, or its features are not known (off Linux).
    """
    known = cpu_flags() if flags is None else flags
    lacks = "avx2" in known and not known & {"avx512_vnni", "avx_vnni"}
    return (127, 63) if lacks or (not known and platform.machine().lower() in {"x86_64", "amd64"}) else (127,)


class Range(NamedTuple):
    """The smallest and the largest value of each feature, both of shape (features,)."""

    lowest: NDArray[np.float32]
    highest: NDArray[np.float32]

    @property
    def reach(self) -> NDArray[np.float32]:
        """The largest size of each feature."""
        return np.maximum(-self.lowest, self.highest)


class RangeMeter:
    """Runs a graph in fp32 as a runtime does, and keeps the range of each feature that goes into a product.

    `ranges` has those seen so far, by the name of the product's weight in `model`.
    """

    name = "onnx"
    precision: Literal["fp32"] = "fp32"

    def __init__(self, model: "onnx.ModelProto") -> None:
        onnx = require("onnx", extra="export", purpose="Exporting")
        watched: Any = onnx.ModelProto()
        watched.CopyFrom(model)
        self.ranges: dict[str, Range] = {}
        self._inputs = [(node.input[1], node.input[0]) for node in _find_products(model.graph)]
        self._watched = sorted({x for _, x in self._inputs})
        for name in self._watched:
            watched.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
        self._session = open_session(watched.SerializeToString(), extra="export", purpose="Exporting")

    def logits(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64], **others: Any
    ) -> NDArray[np.float32]:
        """Compute logits, and keep the ranges.

        Args:
            input_ids: Shape (rows, length).
            attention_mask: Same shape; 1 = token, 0 = padding.
            **others: `token_type_ids` of the same shape, where the texts are pairs.

        Returns:
            Shape (rows, outputs).
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, **others}
        logits: NDArray[np.float32]
        logits, *values = self._session.run(["logits", *self._watched], choose_inputs(self._session, inputs))
        rows = {x: value.reshape(-1, value.shape[-1]) for x, value in zip(self._watched, values, strict=True)}
        found = {x: Range(value.min(axis=0), value.max(axis=0)) for x, value in rows.items()}
        for weight, x in self._inputs:
            known, new = self.ranges.get(weight, found[x]), found[x]
            self.ranges[weight] = Range(np.minimum(known.lowest, new.lowest), np.maximum(known.highest, new.highest))
        return logits

    def fewest_positions(self, _: int) -> None:
        """Return None, as `OnnxRuntime` does."""

    def outputs(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64], **others: Any
    ) -> tuple[NDArray[np.float32], None]:
        """Compute logits as `logits` does, without features."""
        return self.logits(input_ids, attention_mask, **others), None


def quantize_graph(
    model: "onnx.ModelProto", ranges: Mapping[str, Range] | None = None, *, most: int = 127
) -> "onnx.ModelProto":
    """Replace products with a constant weight, and the bias after them, by one int8 operator each; embeddings, too.

    `DynamicQuantizeMatMul` of onnxruntime quantizes the activations of a batch to uint8 by their range.

    Args:
        model: As `build_graph` or `trace_graph` makes it.
        ranges: From a `RangeMeter` on typical texts; None leaves features as they are.
        most: The largest whole number of weights, of `list_largest`.

    Returns:
        A new model. The head stays in fp32.
    """
    return _rewrite(_Quantizer, model, ranges or {}, most)


def quantize_statically(model: "onnx.ModelProto", ranges: Mapping[str, Range], *, most: int = 127) -> "onnx.ModelProto":
    """Replace weights of products by int8, and quantize what they are multiplied by; embeddings, too.

    The pairs of `QuantizeLinear` and `DequantizeLinear` in front of a product tell a compiler such as OpenVINO's that
    it can be computed in int8.

    Args:
        model: As `build_graph` or `trace_graph` makes it.
        ranges: From a `RangeMeter` on typical texts; values beyond are cut off.
        most: The largest whole number of weights, of `list_largest`.

    Returns:
        A new model. The head stays in fp32.
    """
    return _rewrite(_StaticQuantizer, model, ranges, most)


def _rewrite(
    kind: "type[_Quantizer]", model: "onnx.ModelProto", ranges: Mapping[str, Range], most: int
) -> "onnx.ModelProto":
    onnx = require("onnx", extra="export", purpose="Exporting")
    quantized: Any = onnx.ModelProto()
    quantized.CopyFrom(model)
    if all(opset.domain != FUSED_DOMAIN for opset in quantized.opset_import):
        quantized.opset_import.append(onnx.helper.make_opsetid(FUSED_DOMAIN, 1))
    kind(onnx, quantized.graph, ranges, most).rewrite()
    return quantized  # type: ignore[no-any-return]  # onnx is imported by its name


def _find_products(graph: Any) -> Iterator[Any]:  # noqa: ANN401 - onnx is imported by its name
    """Yield the products with a constant weight that only such products read, but for the head's, which is the last."""
    constants = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    products = [node for node in graph.node if node.op_type in {"MatMul", "Gemm"} and node.input[1] in constants]
    chosen = [node for node in products[:-1] if node.op_type == "MatMul"]
    readers = Counter(name for node in graph.node for name in node.input)
    uses = Counter(node.input[1] for node in chosen)
    return (node for node in chosen if uses[node.input[1]] == readers[node.input[1]])


class _Quantizer:
    """Rewrites one graph in place."""

    def __init__(self, onnx: Any, graph: Any, ranges: Mapping[str, Range], most: int) -> None:  # noqa: ANN401 - as above
        self._onnx, self._graph, self._ranges, self._most = onnx, graph, ranges, most
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._outputs = {value.name for value in graph.output}
        self._readers: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._inner = {name for node in graph.node for name in _list_inner(node)}
        self._nodes: list[Any] = []
        self._factors: dict[str, NDArray[np.float32]] = {}
        self._scaled: dict[tuple[str, bytes], str] = {}

    def rewrite(self) -> None:
        """Put int8 operators in the place of the products, and tables of int8 in that of the embeddings."""
        products = {node.output[0] for node in _find_products(self._graph)}
        tables = {name for name in self._tensors if self._is_table(name)}
        gone: set[str] = set()
        for node in self._graph.node:
            if node.output[0] in gone:
                continue
            if node.input and node.input[0] in tables:
                table, rows = node.input
                self._look_up(table, rows, node.output[0])
                continue
            if node.output[0] not in products:
                self._nodes.append(node)
                continue
            addition = self._find_bias(node)
            last, bias = (node, "") if addition is None else addition
            gone.add(last.output[0])
            x, weight = node.input
            if weight not in self._factors:  # layers may share one
                self._factors[weight] = self._quantize(weight)
            self._add(self._scale_down(x, self._factors[weight]), weight, bias, last.output[0])
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)

    def _is_table(self, name: str) -> bool:
        """Return whether a constant holds embeddings, which are looked up by row and read by nothing else."""
        tensor, readers = self._tensors[name], self._readers.get(name, [])
        is_large = len(tensor.dims) == 2 and tensor.dims[0] >= _FEWEST_ROWS
        return (
            is_large
            and name not in self._outputs | self._inner
            and tensor.data_type == self._onnx.TensorProto.FLOAT
            and all(node.op_type == "Gather" and node.input[0] == name and _axis(node) == 0 for node in readers)
        )

    def _look_up(self, table: str, rows: str, output: str) -> None:
        """Add what looks rows of a table up and scales them."""
        if f"{table}.scale" not in self._tensors:
            whole, scales = quantize_weight(self._onnx.numpy_helper.to_array(self._tensors[table]).T)
            self._store(table, np.ascontiguousarray(whole.T))
            self._store(f"{table}.scale", scales[:, np.newaxis])
        found = self._make("Gather", [table, rows], f"{output}_int8")
        values = self._make("Cast", [found], f"{output}_whole", to=self._onnx.TensorProto.FLOAT)
        self._make("Mul", [values, self._make("Gather", [f"{table}.scale", rows], f"{output}_scale")], output)

    def _find_bias(self, product: Any) -> tuple[Any, str] | None:  # noqa: ANN401 - as above
        """Return the addition of a bias and the bias's name, if that is all that becomes of a product."""
        readers = self._readers.get(product.output[0], [])
        if len(readers) != 1 or readers[0].op_type != "Add" or product.output[0] in self._outputs:
            return None
        outputs = [self._tensors[product.input[1]].dims[1]]
        for name in readers[0].input:
            if name in self._tensors and list(self._tensors[name].dims) == outputs:
                return readers[0], name
        return None

    def _add(self, x: str, weight: str, bias: str, output: str) -> None:
        """Add the product of activations and a quantized weight, and a bias if there is one."""
        inputs = [x, weight, f"{weight}.scale", f"{weight}.zero_point", bias]
        self._make("DynamicQuantizeMatMul", inputs, output, domain=FUSED_DOMAIN)

    def _make(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node, and return its output."""
        self._nodes.append(self._onnx.helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def _quantize(self, name: str) -> NDArray[np.float32]:
        """Quantize a weight; return what its inputs are to be multiplied by."""
        weight = self._onnx.numpy_helper.to_array(self._tensors[name])
        factors = _even_out(self._ranges[name].reach) if name in self._ranges else np.ones(len(weight), np.float32)
        whole, scales = quantize_weight(weight / factors[:, np.newaxis], self._most)
        self._store(name, whole)
        self._store(f"{name}.scale", scales)
        self._store(f"{name}.zero_point", np.zeros(len(scales), np.int8))
        return factors

    def _scale_down(self, x: str, factors: NDArray[np.float32]) -> str:
        """Add a multiplication by the factors, one for all products that need the same, and return its name."""
        if (factors == 1).all():
            return x
        key = x, factors.tobytes()
        if key not in self._scaled:
            name = f"{x}_even_{len(self._scaled)}"
            self._store(f"{name}.factors", factors)
            self._scaled[key] = self._make("Mul", [x, f"{name}.factors"], name)
        return self._scaled[key]

    def _store(self, name: str, values: NDArray[Any]) -> None:
        tensor = self._onnx.numpy_helper.from_array(values, name)
        if name in self._tensors:
            self._tensors[name].CopyFrom(tensor)
        else:
            self._graph.initializer.append(tensor)
            self._tensors[name] = self._graph.initializer[-1]


class _StaticQuantizer(_Quantizer):
    """Rewrites one graph in place, with the range of activations measured beforehand."""

    def _add(self, x: str, weight: str, bias: str, output: str) -> None:
        parts = [weight, f"{weight}.scale", f"{weight}.zero_point"]
        values = self._make("DequantizeLinear", parts, f"{output}_weight", axis=1)
        product = f"{output}_product" if bias else output
        self._make("MatMul", [self._round(x, weight, f"{output}_rounded"), values], product)
        if bias:
            self._make("Add", [product, bias], output)

    def _round(self, x: str, weight: str, name: str) -> str:
        """Add the rounding of what a weight is multiplied by to 256 values, and return its name."""
        lowest, highest = (part * self._factors[weight] for part in self._ranges[weight])
        below, above = -float(lowest.min(initial=0)), float(highest.max(initial=0))
        scale = (below + above) / _LEVELS or 1.0
        ends = [f"{name}.scale", f"{name}.zero_point"]
        self._store(ends[0], np.array(scale, np.float32))
        self._store(ends[1], np.array(round(below / scale), np.uint8))
        whole = self._make("QuantizeLinear", [x, *ends], f"{name}_whole")
        return self._make("DequantizeLinear", [whole, *ends], name)


def _list_inner(node: Any) -> Iterator[str]:  # noqa: ANN401 - onnx is imported by its name
    """Yield the names that the graphs inside a node read, as those of a branch or a loop."""
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from inner.input
            yield from _list_inner(inner)


def _axis(node: Any) -> int:  # noqa: ANN401 - onnx is imported by its name
    """Return the axis of a node, which is the first one where it does not say."""
    return next((int(one.i) for one in node.attribute if one.name == "axis"), 0)


def _even_out(reach: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the factors, 1 at most, that bring the features furthest out back to the others."""
    ordinary = np.quantile(reach, _ORDINARY)
    factors = ordinary / np.maximum(reach, ordinary) if ordinary > 0 else np.ones_like(reach)
    return factors.astype(np.float32)
