from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from lorafit.config import ModelConfig
from lorafit.errors import ConfigError
from lorafit.inference.export.graph import build_graph, can_build, refuse
from lorafit.inference.export.int8 import (
    Range,
    RangeMeter,
    list_largest,
    quantize_graph,
    quantize_statically,
    quantize_weight,
)
from lorafit.inference.export.tracing import trace_graph
from lorafit.models.architectures import ARCHITECTURES
from lorafit.models.load import load_with_head, locate_encoder
from lorafit.models.runtimes.pytorch import TorchRuntime
from lorafit.runs.golden import GOLDEN_PRECISION
from lorafit.tasks.base import Task
from lorafit.tasks.registry import build_task

Build = Callable[..., PreTrainedModel]
FAMILIES = ["distilbert", "bert", "roberta", "xlm-roberta", "camembert", "electra"]
TRACED = sorted(name for name, one in ARCHITECTURES.items() if one.block is None and name != "gemma2")
"""gemma2 has the modules of gemma, which stands for it. `test_export.py` traces ALBERT in every run of the tests."""

LEAST = list_largest()[-1]
"""Weights of int8 so small that no product overflows on this processor, which would hide what is tested."""

THREE = build_task("single_label", ("neg", "none", "pos"))


@pytest.fixture
def build_model(build_encoder: Callable[..., Path]) -> Build:
    def build(family: str, *, task: Task = THREE, **settings: object) -> PreTrainedModel:
        folder = build_encoder(family, initializer_range=0.3, **settings)
        return load_with_head(locate_encoder(ModelConfig(name=str(folder))), task).model

    return build


def run(model: onnx.ModelProto, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0]


def read_features(model: onnx.ModelProto, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["features"], {"input_ids": ids, "attention_mask": mask})[0]


def draw_batch(model: PreTrainedModel, rows: int, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids with padding after the shorter texts."""
    rng = np.random.default_rng(rows * length)
    ids = rng.integers(5, model.config.vocab_size, (rows, length))
    mask = (np.arange(length) < rng.integers(1, length + 1, rows)[:, np.newaxis]).astype(np.int64)
    mask[0] = 1
    return np.where(mask == 1, ids, model.config.pad_token_id), mask


def ask_torch(
    model: PreTrainedModel, ids: NDArray[np.int64], mask: NDArray[np.int64], **others: NDArray[np.int64]
) -> NDArray[np.float32]:
    inputs = {"input_ids": ids, "attention_mask": mask, **others}
    with torch.no_grad():
        return model.eval()(**{name: torch.from_numpy(part) for name, part in inputs.items()}).logits.numpy()


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
def test_graph_gives_the_features_that_torch_gives(build_model: Build, family: str) -> None:
    model = build_model(family)
    ids, mask = draw_batch(model, 3, 9)
    session = onnxruntime.InferenceSession(build_graph(model).SerializeToString(), providers=["CPUExecutionProvider"])
    logits, features = session.run(["logits", "features"], {"input_ids": ids, "attention_mask": mask})
    expected, read = TorchRuntime(model, GOLDEN_PRECISION).outputs(ids, mask)
    assert np.abs(features - read).max() < 1e-4
    np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.parametrize("family", ["bert", "electra", "roberta"])
def test_graph_for_pairs_reads_the_types_of_tokens(build_model: Build, family: str) -> None:
    model = build_model(family)
    ids, mask = draw_batch(model, 4, 12)
    types = (np.arange(12) >= 5) * mask
    graph = build_graph(model, token_types=True)
    onnx.checker.check_model(graph)
    assert [one.name for one in graph.graph.input] == ["input_ids", "attention_mask", "token_type_ids"]
    expected = ask_torch(model, ids, mask, token_type_ids=types)
    meter = RangeMeter(graph)
    assert np.abs(meter.logits(ids, mask, token_type_ids=types) - expected).max() < 1e-4
    assert np.abs(expected - ask_torch(model, ids, mask)).max() > 1e-3
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (features,) = session.run(["features"], {"input_ids": ids, "attention_mask": mask, "token_type_ids": types})
    _, read = TorchRuntime(model, GOLDEN_PRECISION).outputs(ids, mask, token_type_ids=types)
    assert np.abs(features - read).max() < 1e-4


@pytest.mark.slow
def test_traced_graph_for_pairs_reads_the_types_of_tokens(build_model: Build) -> None:
    model = build_model("albert")
    ids, mask = draw_batch(model, 4, 12)
    types = (np.arange(12) >= 5) * mask
    expected = ask_torch(model, ids, mask, token_type_ids=types)
    graph = trace_graph(model, token_types=True)
    assert np.abs(RangeMeter(graph).logits(ids, mask, token_type_ids=types) - expected).max() < 1e-4
    assert np.abs(expected - ask_torch(model, ids, mask)).max() > 1e-3


def test_a_graph_has_the_outputs_of_its_task(build_model: Build, task: Task) -> None:
    model = build_model("distilbert", task=task)
    batch = draw_batch(model, 3, 9)
    graph = build_graph(model)
    for one in (graph, quantize_graph(graph)):
        assert one.graph.output[0].type.tensor_type.shape.dim[1].dim_value == len(task.output_names)
        assert run(one, *batch).shape == (3, len(task.output_names))


@pytest.mark.parametrize("family", FAMILIES)
def test_int8_is_near_and_quantizes_every_layer(build_model: Build, family: str) -> None:
    model = build_model(family)
    batch = draw_batch(model, 8, 32)
    graph = build_graph(model)
    quantized = quantize_graph(graph, most=LEAST)
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


@pytest.mark.parametrize(("family", "settings"), [("albert", {}), ("bert", {"hidden_act": "silu"}), ("llama", {})])
def test_what_has_other_parts_is_left_to_torch(build_model: Build, family: str, settings: dict[str, str]) -> None:
    assert not can_build(build_model(family, **settings))


@pytest.mark.parametrize("family", FAMILIES)
def test_features_that_reach_far_are_evened_out(build_model: Build, family: str) -> None:
    """Far features coarsen the others' steps unless their reach is moved into the weights, which changes nothing."""
    model = build_model(family)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.LayerNorm) and name.startswith(model.base_model_prefix):
            module.weight.data[3] *= 40
    batch = draw_batch(model, 8, 32)
    graph, expected = build_graph(model), ask_torch(model, *batch)
    meter = RangeMeter(graph)
    assert np.abs(meter.logits(*batch) - expected).max() < 1e-4 * np.abs(expected).max()
    even, uneven = quantize_graph(graph, meter.ranges, most=LEAST), quantize_graph(graph, most=LEAST)
    assert sum("_even_" in node.name for node in even.graph.node) >= 2
    exact, evened, coarse = (read_features(one, *batch) for one in (graph, even, uneven))
    assert np.abs(evened - exact).mean() < 0.65 * np.abs(coarse - exact).mean()


def test_reach_is_the_furthest_of_all_batches(build_model: Build) -> None:
    model = build_model("distilbert")
    graph, batches = build_graph(model), [draw_batch(model, 4, length) for length in (5, 9)]
    together, apart = RangeMeter(graph), [RangeMeter(graph), RangeMeter(graph)]
    for batch, meter in zip(batches, apart, strict=True):
        together.logits(*batch)
        meter.logits(*batch)
    names = [name for name in together.ranges if name.endswith("weight")]
    assert len(names) == sum(node.op_type == "MatMul" for node in graph.graph.node)
    for name in names:
        assert (together.ranges[name].reach == np.maximum(*(meter.ranges[name].reach for meter in apart))).all()
    with torch.no_grad():
        states = [model.base_model.embeddings(torch.from_numpy(ids)).numpy() for ids, _ in batches]
    expected = np.maximum(*(np.abs(state).max(axis=(0, 1)) for state in states))
    assert together.ranges[names[0]].reach == pytest.approx(expected, rel=1e-4)


def test_weights_are_quantized_by_output_channel() -> None:
    weight = np.array([[1.0, -0.001, 0.0], [-0.5, 0.0005, 0.0]], dtype=np.float32)
    whole, scales = quantize_weight(weight)
    assert whole.dtype == np.int8
    assert whole.tolist() == [[127, -127, 0], [-64, 64, 0]]
    assert (np.abs(whole * scales - weight) <= scales / 2 * (1 + 1e-5)).all()


def count_products(model: onnx.ModelProto) -> int:
    """Products with a constant weight, that of the head left out."""
    constants = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2}
    return sum(node.op_type in {"MatMul", "Gemm"} and node.input[1] in constants for node in model.graph.node) - 1


WIDTH = 6
RNG = np.random.default_rng(0)
WEIGHTS = {
    "first": RNG.normal(size=(WIDTH, WIDTH)).astype(np.float32),
    "head": RNG.normal(size=(WIDTH, 2)).astype(np.float32),
    "bias": RNG.normal(size=WIDTH).astype(np.float32),
    "one": np.ones(1, np.float32),
}


def write_graph(
    *nodes: tuple[str, list[str], str],
    inputs: tuple[str, ...] = ("x",),
    outputs: tuple[str, ...] = ("logits",),
    tables: Mapping[str, NDArray[np.generic]] | None = None,
) -> onnx.ModelProto:
    """A graph of inputs of shape (rows, WIDTH), whose last node is the head."""
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [output]) for kind, inputs, output in nodes],
        "graph",
        [helper.make_tensor_value_info(name, float32, ["rows", WIDTH]) for name in inputs],
        [helper.make_tensor_value_info(name, float32, None) for name in outputs],
        [onnx.numpy_helper.from_array(values, name) for name, values in {**WEIGHTS, **(tables or {})}.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


HEAD = ("MatMul", ["h", "head"], "logits")


@pytest.mark.parametrize(
    ("nodes", "outputs", "additions"),
    [
        ([("MatMul", ["x", "first"], "p"), ("Add", ["p", "bias"], "h"), HEAD], ("logits",), 0),
        ([("MatMul", ["x", "first"], "p"), ("Add", ["bias", "p"], "h"), HEAD], ("logits",), 0),
        ([("MatMul", ["x", "first"], "h"), HEAD], ("logits",), 0),
        ([("MatMul", ["x", "first"], "p"), ("Add", ["p", "one"], "h"), HEAD], ("logits",), 1),
        ([("MatMul", ["x", "first"], "p"), ("Add", ["p", "bias"], "h"), HEAD], ("logits", "p"), 1),
        (
            [("MatMul", ["x", "first"], "p"), ("Add", ["p", "bias"], "a"), ("Mul", ["a", "p"], "h"), HEAD],
            ("logits",),
            1,
        ),
        (
            [("MatMul", ["x", "first"], "a"), ("Relu", ["a"], "b"), ("MatMul", ["b", "first"], "h"), HEAD],
            ("logits",),
            0,
        ),
    ],
    ids=["bias right", "bias left", "no bias", "a number", "product is an output", "two readers", "weight shared"],
)
def test_biases_are_taken_in_where_they_are_biases(
    nodes: list[tuple[str, list[str], str]], outputs: tuple[str, ...], additions: int
) -> None:
    graph = write_graph(*nodes, outputs=outputs)
    highest = np.array([1, 1, 1, 1, 1, 30], np.float32)
    quantized = quantize_graph(graph, {"first": Range(-highest, highest)}, most=LEAST)
    kinds = [node.op_type for node in quantized.graph.node]
    assert kinds.count("DynamicQuantizeMatMul") == [kind for kind, *_ in nodes].count("MatMul") - 1
    assert kinds.count("Add") == additions
    assert kinds.count("MatMul") == 1, "the head"
    x = {"x": RNG.normal(size=(5, WIDTH)).astype(np.float32)}
    got, expected = (
        onnxruntime.InferenceSession(one.SerializeToString()).run(["logits"], x)[0] for one in (quantized, graph)
    )
    assert 0 < np.abs(got - expected).max() < 0.1 * np.abs(expected).max()


def test_a_weight_that_something_else_reads_stays() -> None:
    nodes = [("MatMul", ["x", "first"], "a"), ("Add", ["a", "first"], "h"), HEAD]
    quantized = quantize_graph(write_graph(*nodes))
    assert [node.op_type for node in quantized.graph.node] == ["MatMul", "Add", "MatMul"]


def test_reach_of_a_shared_weight_is_that_of_all_its_inputs() -> None:
    nodes = [("MatMul", ["input_ids", "first"], "a"), ("Relu", ["a"], "b"), ("MatMul", ["b", "first"], "h"), HEAD]
    meter = RangeMeter(write_graph(*nodes, inputs=("input_ids", "attention_mask")))
    x = np.full((1, WIDTH), -3, np.float32)
    meter.logits(x, x)
    expected = np.maximum(3, np.maximum(x @ WEIGHTS["first"], 0))[0]
    assert expected.max() > 3
    assert meter.ranges["first"].reach == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_static_int8_is_near_and_quantizes_every_layer(build_model: Build, family: str) -> None:
    model = build_model(family)
    batch = draw_batch(model, 8, 32)
    graph = build_graph(model)
    meter = RangeMeter(graph)
    meter.logits(*batch)
    quantized = quantize_statically(graph, meter.ranges, most=LEAST)
    kinds = [[node.op_type for node in one.graph.node] for one in (graph, quantized)]
    products = kinds[0].count("MatMul")
    assert (kinds[1].count("QuantizeLinear"), kinds[1].count("DequantizeLinear")) == (products, 2 * products)
    expected, got = ask_torch(model, *batch), run(quantized, *batch)
    assert 0 < np.abs(got - expected).max() < 0.1 * np.abs(expected).max()


def test_activations_beyond_what_was_seen_are_cut_off() -> None:
    graph = write_graph(("MatMul", ["x", "first"], "p"), ("Add", ["p", "bias"], "h"), HEAD)
    lowest, highest = np.full(WIDTH, -1, np.float32), np.full(WIDTH, 3, np.float32)
    quantized = quantize_statically(graph, {"first": Range(lowest, highest)})
    x = np.array([[-5, -1, 0, 1.5, 3, 70]], np.float32)
    exact, rounded = (
        onnxruntime.InferenceSession(one.SerializeToString()).run(None, {"x": values})[0]
        for one, values in ((graph, x.clip(-1, 3)), (quantized, x))
    )
    np.testing.assert_allclose(rounded, exact, atol=0.1)


def test_embeddings_in_int8_are_read_row_by_row() -> None:
    table = RNG.normal(size=(100, WIDTH)).astype(np.float32)
    table[7] *= 1000  # a row that reaches far takes nothing from the others
    few = RNG.normal(size=(99, WIDTH)).astype(np.float32)
    nodes = [
        ("Gather", ["table", "ids"], "a"),
        ("Gather", ["table", "places"], "b"),
        ("Gather", ["few", "ids"], "c"),
        ("Sum", ["a", "b", "c"], "h"),
        HEAD,
    ]
    tables = {"table": table, "few": few, "ids": np.array([3, 7, 98]), "places": np.array([0, 3, 50])}
    graph = write_graph(*nodes, tables=tables)
    quantized = quantize_graph(graph)
    kept = {one.name: onnx.numpy_helper.to_array(one) for one in quantized.graph.initializer}
    assert (kept["table"].dtype, kept["few"].dtype) == (np.int8, np.float32)
    scales = np.abs(table).max(axis=1, keepdims=True) / 127
    assert kept["table.scale"] == pytest.approx(scales)
    assert (np.abs(kept["table"] * kept["table.scale"] - table) <= scales / 2 * (1 + 1e-5)).all()
    x = np.zeros((1, WIDTH), np.float32)
    sessions = (onnxruntime.InferenceSession(one.SerializeToString()) for one in (graph, quantized))
    expected, got = (session.run(None, {"x": x})[0] for session in sessions)
    assert 0 < np.abs(got - expected).max() < 0.01 * np.abs(expected).max()


@pytest.mark.parametrize("reader", ["a node", "a branch", "an output"])
def test_a_table_that_something_else_reads_stays(reader: str) -> None:
    table = RNG.normal(size=(100, WIDTH)).astype(np.float32)
    summing = ("ReduceSum", ["table"], "s")
    nodes = [("Gather", ["table", "ids"], "a"), *([summing] if reader == "a node" else []), ("Relu", ["a"], "h"), HEAD]
    outputs = ("logits", "table") if reader == "an output" else ("logits",)
    tables = {"table": table, "ids": np.array([[3]]), "yes": np.array(1, bool)}
    graph = write_graph(*nodes, outputs=outputs, tables=tables)
    if reader == "a branch":
        helper = onnx.helper
        ends = [helper.make_tensor_value_info("s", onnx.TensorProto.FLOAT, None)]
        branch = helper.make_graph([helper.make_node(summing[0], summing[1], ["s"])], "branch", [], ends)
        graph.graph.node.append(helper.make_node("If", ["yes"], ["t"], then_branch=branch, else_branch=branch))
    kept = {one.name: one.data_type for one in quantize_graph(graph).graph.initializer}
    assert kept["table"] == onnx.TensorProto.FLOAT


@pytest.mark.slow
@pytest.mark.parametrize("family", TRACED)
def test_a_traced_graph_gives_the_models_logits_and_int8_is_near(build_model: Build, family: str) -> None:
    model = build_model(family)
    assert not can_build(model)
    batches = [draw_batch(model, *shape) for shape in ((1, 1), (1, 30), (3, 17), (5, 60))]
    expected = [ask_torch(model, *batch) for batch in batches]
    graph = trace_graph(model)
    onnx.checker.check_model(graph)
    meter = RangeMeter(graph)
    for batch, logits in zip(batches, expected, strict=True):
        assert np.abs(logits).max() > 0.1
        assert np.abs(meter.logits(*batch) - logits).max() < 1e-4 * max(1, np.abs(logits).max())
    quantized = quantize_graph(graph, meter.ranges, most=LEAST)
    kinds = [node.op_type for node in quantized.graph.node]
    layers = model.config.num_hidden_layers
    assert kinds.count("DynamicQuantizeMatMul") >= 4 * layers
    assert kinds.count("DynamicQuantizeMatMul") >= count_products(graph) - 1, "some heads have two products"
    far = max(np.abs(run(quantized, *batch) - logits).max() for batch, logits in zip(batches, expected, strict=True))
    assert 0 < far < 0.15 * max(np.abs(logits).max() for logits in expected)
    assert len(quantized.SerializeToString()) < len(graph.SerializeToString())


def test_what_torch_cannot_trace_is_named(build_model: Build) -> None:
    model = build_model("nystromformer")
    with pytest.raises(ConfigError, match=r"This nystromformer model cannot be .*torch says '.+'\..* --merged"):
        trace_graph(model)


def test_a_refusal_for_openvino_names_the_other_engine(build_model: Build) -> None:
    model = build_model("bert")
    assert "cannot be exported: odd. Try --runtime onnxruntime. It" in str(refuse(model, "odd", other_engine=True))
    assert "cannot be exported: odd. It" in str(refuse(model, "odd"))


def test_weights_may_be_smaller_where_products_may_overflow() -> None:
    assert list_largest(frozenset({"avx2", "fma"})) == (127, 63)
    assert list_largest(frozenset({"avx2", "avx512_vnni"})) == list_largest(frozenset({"avx2", "avx_vnni"})) == (127,)
    assert list_largest(frozenset({"asimd"})) == (127,)


@pytest.mark.parametrize(("machine", "largest"), [("AMD64", (127, 63)), ("x86_64", (127, 63)), ("arm64", (127,))])
def test_where_the_system_tells_no_features_x86_may_take_fewer_bits(
    machine: str, largest: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert list_largest(frozenset()) == largest
    weight = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    whole, scales = quantize_weight(weight, 63)
    assert np.abs(whole).max() == 63
    assert np.abs(whole * scales - weight).max() <= scales.max() / 2 + 1e-6
