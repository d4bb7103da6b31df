"""Encoders that torch traces: the model's own logits, and int8, for every architecture without a graph of lorafit's."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from lorafit.encoders.architectures import ARCHITECTURES
from lorafit.encoders.load import load_with_head, locate_encoder
from lorafit.errors import ConfigError
from lorafit.exporting.graph import can_build
from lorafit.exporting.int8 import ReachMeter, quantize_graph
from lorafit.exporting.tracing import trace_graph
from lorafit.labels import LabelSet
from lorafit.settings import ModelConfig

TRACED = sorted(name for name, one in ARCHITECTURES.items() if one.block is None and name != "gemma2")
"""gemma2 has the modules of gemma, which stands for it."""

QUICK = {"albert"}
"""Traced in every run of the tests: its layers share their weights, which int8 must quantize once."""


def build(build_encoder: Callable[..., Path], family: str) -> PreTrainedModel:
    folder = build_encoder(family, initializer_range=0.3)
    return load_with_head(locate_encoder(ModelConfig(name=str(folder))), LabelSet(("neg", "pos", "none"))).model.eval()


def draw_batch(model: PreTrainedModel, rows: int, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rng = np.random.default_rng(rows * length)
    ids = rng.integers(5, model.config.vocab_size, (rows, length))
    mask = (np.arange(length) < rng.integers(1, length + 1, rows)[:, np.newaxis]).astype(np.int64)
    mask[0] = 1
    return np.where(mask == 1, ids, model.config.pad_token_id), mask


def ask_torch(model: PreTrainedModel, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
    with torch.no_grad():
        return model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).logits.numpy()


def run(model: onnx.ModelProto, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0]


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in TRACED]
)
def test_a_traced_graph_gives_the_models_logits_and_int8_is_near(
    build_encoder: Callable[..., Path], family: str
) -> None:
    model = build(build_encoder, family)
    assert not can_build(model)
    batches = [draw_batch(model, *shape) for shape in ((1, 1), (1, 30), (3, 17), (5, 60))]
    expected = [ask_torch(model, *batch) for batch in batches]
    graph = trace_graph(model)
    onnx.checker.check_model(graph)
    assert not any(node.metadata_props for node in graph.graph.node), "a path of this machine may be in it"
    meter = ReachMeter(graph)
    for batch, logits in zip(batches, expected, strict=True):
        assert np.abs(logits).max() > 0.1
        assert np.abs(meter.logits(*batch) - logits).max() < 1e-4 * max(1, np.abs(logits).max())
    quantized = quantize_graph(graph, meter.reach)
    kinds = [node.op_type for node in quantized.graph.node]
    layers = model.config.num_hidden_layers
    assert kinds.count("DynamicQuantizeMatMul") >= 4 * layers
    far = max(np.abs(run(quantized, *batch) - logits).max() for batch, logits in zip(batches, expected, strict=True))
    assert 0 < far < 0.15 * max(np.abs(logits).max() for logits in expected)
    assert len(quantized.SerializeToString()) < len(graph.SerializeToString())


def test_what_torch_cannot_trace_is_named(build_encoder: Callable[..., Path]) -> None:
    model = build(build_encoder, "nystromformer")
    with pytest.raises(ConfigError, match=r"This nystromformer model cannot be .*torch says '.+'\..* --merged"):
        trace_graph(model)
