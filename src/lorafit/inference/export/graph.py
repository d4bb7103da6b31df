"""BERT-like classifiers as ONNX graphs of fused operators, written from their weights.

The operators are those of ONNX and of onnxruntime's own domain `com.microsoft` (its documentation, "Contrib
Operators"): attention of all heads in one, a norm with its residual, GELU. Where the head reads nothing but the first
token, the last layer computes it alone.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lorafit.errors import ConfigError
from lorafit.models.architectures import ARCHITECTURES, Architecture, BlockParts, pooling_of
from lorafit.models.load import COUNTS_FROM_PADDING
from lorafit.system.extras import require

if TYPE_CHECKING:
    import onnx
    from transformers import PreTrainedModel


FUSED_DOMAIN = "com.microsoft"
"""Domain of onnxruntime's own operators."""

OPSET = 20
"""Version of ONNX's operators."""

_IR_VERSION = 9
"""What goes with that opset in ONNX's table of versions."""

_ACTIVATIONS = {
    "gelu": ("Gelu", FUSED_DOMAIN),
    "gelu_new": ("FastGelu", FUSED_DOMAIN),
    "gelu_pytorch_tanh": ("FastGelu", FUSED_DOMAIN),
    "relu": ("Relu", ""),
}
"""Operator and its domain, by the name that transformers gives the function."""


def refuse(model: "PreTrainedModel", why: str, *, other_engine: bool = False) -> ConfigError:
    """Return the error for a model that cannot be written as a graph; perhaps it can for another engine."""
    instead = " Try --runtime onnxruntime." if other_engine else ""
    return ConfigError(
        f"This {model.config.model_type} model cannot be exported: {why}.{instead} It predicts with torch as it is, "
        "and `lorafit export --merged` writes it for other tools."
    )


def can_build(model: "PreTrainedModel") -> bool:
    """Return whether all parts of a classifier are known to `build_graph`."""
    from lorafit.models.bottleneck import list_bottlenecks

    architecture = ARCHITECTURES.get(model.config.model_type)
    if architecture is None or architecture.block is None or getattr(model.config, "is_decoder", False):
        return False
    return _name_activation(model.config) in _ACTIVATIONS and not list_bottlenecks(model)


def build_graph(model: "PreTrainedModel", *, token_types: bool = False) -> "onnx.ModelProto":
    """Write a classifier as a graph in fp32.

    Args:
        model: A sequence classifier without an adapter, or with a merged one, of which `can_build` holds.
        token_types: Whether it reads types of tokens, which tell the texts of a pair apart; else all are of type 0.

    Returns:
        Inputs `input_ids`, `attention_mask` and, if they are read, `token_type_ids`, of shape (batch, length), int64;
        outputs `logits` of shape (batch, outputs) and `features`, as `models.features` has them, of shape (batch,
        width), float32.
    """
    architecture = ARCHITECTURES[model.config.model_type]
    writer = _Writer(model, token_types=token_types)
    x = writer.embed(from_padding=model.config.model_type in COUNTS_FROM_PADDING)
    mask = writer.add("Cast", "attention_mask", to=writer.int32)
    names, is_mean = architecture.name_layers(model), pooling_of(model) == "mean"
    below = x
    for name in names:
        below = x
        x = writer.add_block(x, mask, name, architecture, first_alone=name == names[-1] and not is_mean)
    state = writer.add_mean(x) if is_mean else writer.add("Squeeze", x, writer.store([1]))
    writer.add_features(state, writer.add_mean(below))
    if is_mean:
        writer.add_linear_head(state)
    else:
        writer.add_head(state)
    return writer.finish()


def _name_activation(config: Any) -> str:  # noqa: ANN401 - each kind of model has its own
    name: str = getattr(config, "activation", None) or config.hidden_act
    return name


class _Writer:
    """Collects nodes and weights of one graph."""

    def __init__(self, model: "PreTrainedModel", *, token_types: bool) -> None:
        self._token_types = token_types
        self._onnx = require("onnx", extra="export", purpose="Exporting")
        self.int32 = self._onnx.TensorProto.INT32
        self._config: Any = model.config
        self._base = f"{model.base_model_prefix}."
        self._weights: Mapping[str, NDArray[np.float32]] = {
            name: value.detach().float().numpy() for name, value in model.state_dict().items()
        }
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        output = f"{operator}_{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(operator, [*inputs], [output], name=output, **attributes))
        return output

    def store(self, values: Any) -> str:  # noqa: ANN401 - whatever numpy takes
        """Add constant values and return their name."""
        name = f"constant_{len(self._initializers)}"
        return self._keep(name, np.asarray(values))

    def weight(self, name: str) -> str:
        """Add a parameter of the model and return its name."""
        return self._keep(name, self._weights[name])

    def _keep(self, name: str, values: NDArray[Any]) -> str:
        self._initializers.append(self._onnx.numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name

    def linear(self, x: str, name: str) -> str:
        """Add a linear layer; `int8.py` knows it by its two nodes."""
        transposed = self._keep(f"{name}.weight", self._weights[f"{name}.weight"].T)
        return self.add("Add", self.add("MatMul", x, transposed), self.weight(f"{name}.bias"))

    def embed(self, *, from_padding: bool) -> str:
        """Add word, position and token-type embeddings and their norm."""
        names = f"{self._base}embeddings."
        x = self.add("Gather", self.weight(f"{names}word_embeddings.weight"), "input_ids")
        table = self._weights[f"{names}position_embeddings.weight"]
        types = f"{names}token_type_embeddings.weight"
        if self._token_types:
            x = self.add("Add", x, self.add("Gather", self.weight(types), "token_type_ids"))
        elif types in self._weights:  # all tokens are of type 0
            table = table + self._weights[types][0]
        positions = self._keep(f"{names}position_embeddings.weight", table)
        x = self.add("Add", x, self.add("Gather", positions, self._count_positions(from_padding=from_padding)))
        x = self._norm(x, f"{names}LayerNorm")
        if f"{self._base}embeddings_project.weight" in self._weights:
            x = self.linear(x, f"{self._base}embeddings_project")
        return x

    def _count_positions(self, *, from_padding: bool) -> str:
        """Return the place of each token; RoBERTa and its kin count from the padding's id on and pass padding over."""
        padding = self._config.pad_token_id
        if not from_padding:
            length = self.add("Gather", self.add("Shape", "input_ids"), self.store(1))
            return self.add("Range", self.store(0), length, self.store(1))
        same = self.add("Equal", "input_ids", self.store(padding))
        token = self.add("Cast", self.add("Not", same), to=self._onnx.TensorProto.INT64)
        counted = self.add("Mul", self.add("CumSum", token, self.store(1)), token)
        return self.add("Add", counted, self.store(padding))

    def add_block(self, x: str, mask: str, name: str, architecture: Architecture, *, first_alone: bool) -> str:
        """Add attention and feed-forward network, of the first token alone where that is asked for."""
        parts: BlockParts = architecture.block  # type: ignore[assignment]  # `can_build` has looked
        query, key, value, out, up, down = (f"{name}.{part}" for part in architecture.linears)
        first = self.add("Slice", x, self.store([0]), self.store([1]), self.store([1])) if first_alone else x
        attended = self.add(
            "MultiHeadAttention",
            self.linear(first, query),
            self.linear(x, key),
            self.linear(x, value),
            "",
            mask,
            domain=FUSED_DOMAIN,
            num_heads=self._config.num_attention_heads,
        )
        x = self._norm(self.linear(attended, out), f"{name}.{parts.attention_norm}", residual=first)
        inner = self._activate(self.linear(x, up), _name_activation(self._config))
        return self._norm(self.linear(inner, down), f"{name}.{parts.output_norm}", residual=x)

    def add_mean(self, x: str) -> str:
        """Add the mean of the tokens' hidden states, shape (batch, width)."""
        mask = self.add("Cast", "attention_mask", to=self._onnx.TensorProto.FLOAT)
        weights, axis = self.add("Unsqueeze", mask, self.store([2])), self.store([1])
        total, count = (
            self.add("ReduceSum", part, axis, keepdims=0) for part in (self.add("Mul", x, weights), weights)
        )
        return self.add("Div", total, count)

    def add_features(self, state: str, below: str) -> None:
        """Add the features: the state that the head reads, and the mean one below the last layer."""
        self._name("features", self.add("Concat", state, below, axis=1))

    def add_linear_head(self, x: str) -> None:
        """Add the head on mean states, shape (batch, width)."""
        self._name("logits", self._dense(x, "classifier"))

    def add_head(self, x: str) -> None:
        """Add the head on the first token's hidden state, shape (batch, width); its products stay in fp32."""
        kind = self._config.model_type
        if kind == "distilbert":
            x, last = self.add("Relu", self._dense(x, "pre_classifier")), "classifier"
        elif kind == "bert":
            x, last = self.add("Tanh", self._dense(x, f"{self._base}pooler.dense")), "classifier"
        elif kind == "electra":
            x, last = self._activate(self._dense(x, "classifier.dense"), "gelu"), "classifier.out_proj"
        else:
            x, last = self.add("Tanh", self._dense(x, "classifier.dense")), "classifier.out_proj"
        self._name("logits", self._dense(x, last))

    def _name(self, name: str, value: str) -> None:
        """Give a value the name of an output."""
        self._nodes.append(self._onnx.helper.make_node("Identity", [value], [name], name=name))

    def _dense(self, x: str, name: str) -> str:
        return self.add("Gemm", x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias"), transB=1)

    def _activate(self, x: str, function: str) -> str:
        operator, domain = _ACTIVATIONS[function]
        return self.add(operator, x, domain=domain)

    def _norm(self, x: str, name: str, *, residual: str | None = None) -> str:
        weights = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        epsilon = getattr(self._config, "layer_norm_eps", 1e-12)
        if residual is None:
            return self.add("LayerNormalization", x, *weights, epsilon=epsilon, axis=-1)
        return self.add("SkipLayerNormalization", x, residual, *weights, domain=FUSED_DOMAIN, epsilon=epsilon)

    def finish(self) -> "onnx.ModelProto":
        """Return the whole model."""
        helper, tensor = self._onnx.helper, self._onnx.TensorProto
        inputs = [
            helper.make_tensor_value_info(name, tensor.INT64, ["batch", "length"])
            for name in ("input_ids", "attention_mask", *(("token_type_ids",) if self._token_types else ()))
        ]
        sizes = {"logits": len(self._config.id2label), "features": 2 * int(self._config.hidden_size)}
        outputs = [helper.make_tensor_value_info(name, tensor.FLOAT, ["batch", size]) for name, size in sizes.items()]
        graph = helper.make_graph(self._nodes, "classifier", inputs, outputs, self._initializers)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(FUSED_DOMAIN, 1)]
        model: onnx.ModelProto = helper.make_model(
            graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="lorafit"
        )
        return model
