from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from lorafit.encoders.load import load_with_head, locate_encoder
from lorafit.errors import ConfigError
from lorafit.exporting.graph import build_graph
from lorafit.exporting.int8 import quantize_graph, quantize_weight
from lorafit.labels import LabelSet
from lorafit.settings import ModelConfig

Build = Callable[..., PreTrainedModel]
FAMILIES = ["distilbert", "bert", "roberta", "xlm-roberta", "camembert", "electra"]
LABELS = LabelSet(("neg", "pos", "none"))


@pytest.fixture
def build_model(build_encoder: Callable[..., Path]) -> Build:
    def build(family: str, **settings: object) -> PreTrainedModel:
        folder = build_encoder(family, initializer_range=0.3, **settings)
        return load_with_head(locate_encoder(ModelConfig(name=str(folder))), LABELS).model

    return build


def run(model: onnx.ModelProto, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0]


def draw_batch(model: PreTrainedModel, rows: int, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids with padding after the shorter texts."""
    rng = np.random.default_rng(rows * length)
    ids = rng.integers(5, model.config.vocab_size, (rows, length))
    mask = (np.arange(length) < rng.integers(1, length + 1, rows)[:, np.newaxis]).astype(np.int64)
    mask[0] = 1
    return np.where(mask == 1, ids, model.config.pad_token_id), mask


def ask_torch(model: PreTrainedModel, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
    with torch.no_grad():
        return model.eval()(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).logits.numpy()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("rows", "length"), [(1, 1), (3, 17), (5, 64)])
def test_graph_gives_the_models_logits(build_model: Build, family: str, rows: int, length: int) -> None:
    model = build_model(family)
    batch = draw_batch(model, rows, length)
    graph = build_graph(model)
    onnx.checker.check_model(graph)
    expected = ask_torch(model, *batch)
    assert np.abs(expected).max() > 0.1
    assert np.abs(run(graph, *batch) - expected).max() < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_int8_is_near_and_quantizes_every_layer(build_model: Build, family: str) -> None:
    model = build_model(family)
    batch = draw_batch(model, 8, 32)
    graph = build_graph(model)
    quantized = quantize_graph(graph)
    kinds = [node.op_type for node in quantized.graph.node]
    assert "MatMul" not in kinds
    assert kinds.count("DynamicQuantizeMatMul") == [node.op_type for node in graph.graph.node].count("MatMul")
    expected, got = ask_torch(model, *batch), run(quantized, *batch)
    assert 0 < np.abs(got - expected).max() < 0.1 * np.abs(expected).max()
    assert len(quantized.SerializeToString()) < len(graph.SerializeToString())


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta"])
def test_positions_count_from_the_paddings_id(build_model: Build, family: str) -> None:
    model = build_model(family, pad_token_id=1)
    batch = draw_batch(model, 4, 12)
    assert (batch[0] == 1).any()
    assert np.abs(run(build_graph(model), *batch) - ask_torch(model, *batch)).max() < 1e-4


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"])
def test_activations_are_those_of_the_model(build_model: Build, activation: str) -> None:
    model = build_model("bert", hidden_act=activation)
    batch = draw_batch(model, 3, 9)
    assert np.abs(run(build_graph(model), *batch) - ask_torch(model, *batch)).max() < 1e-4


def test_an_encoder_without_a_graph_is_named() -> None:
    config = AutoConfig.for_model("albert", vocab_size=20, embedding_size=8, hidden_size=8, num_attention_heads=2)
    model = AutoModelForSequenceClassification.from_config(config)
    with pytest.raises(
        ConfigError, match=r"This albert model cannot be .*: it is of none of the kinds bert,.* --merged"
    ):
        build_graph(model)
    other = AutoConfig.for_model("bert", vocab_size=20, hidden_size=8, num_attention_heads=2, hidden_act="silu")
    with pytest.raises(ConfigError, match="its activation 'silu' has no operator"):
        build_graph(AutoModelForSequenceClassification.from_config(other))


def test_weights_are_quantized_by_output_channel() -> None:
    weight = np.array([[1.0, -0.001, 0.0], [-0.5, 0.0005, 0.0]], dtype=np.float32)
    whole, scales = quantize_weight(weight)
    assert whole.dtype == np.int8
    assert whole.tolist() == [[127, -127, 0], [-64, 64, 0]]
    assert (np.abs(whole * scales - weight) <= scales / 2 * (1 + 1e-5)).all()
