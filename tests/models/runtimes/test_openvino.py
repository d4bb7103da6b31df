"""Graphs in OpenVINO: what is compiled is kept, and nothing that is kept is trusted blindly."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from lorafit.config import ModelConfig
from lorafit.errors import EnvironmentUnfitError, RunError
from lorafit.inference.export.graph import build_graph
from lorafit.inference.export.openvino import write_for_openvino
from lorafit.inference.predictor import compute_outputs
from lorafit.models.load import load_with_head, locate_encoder
from lorafit.models.runtimes.openvino import OpenvinoRuntime, find_cause
from lorafit.models.tokenization import TokenizedTexts
from lorafit.tasks.registry import build_task

BATCH = {"input_ids": np.array([[5, 6, 7], [8, 9, 0]]), "attention_mask": np.array([[1, 1, 1], [1, 1, 0]])}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """lorafit's cache, where it keeps graphs."""
    monkeypatch.setenv("LORAFIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "graphs"


@pytest.fixture(scope="module")
def graphs(build_encoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Graphs of two models that give other logits."""
    folder, found = tmp_path_factory.mktemp("graphs"), []
    for scale in (0.3, 0.5):
        encoder = build_encoder("bert", initializer_range=scale)
        model = load_with_head(
            locate_encoder(ModelConfig(name=str(encoder))), build_task("single_label", ("a", "b"))
        ).model
        found.append(folder / f"{scale}.xml")
        write_for_openvino(build_graph(model), found[-1])
    return found


def test_a_compiled_graph_is_kept_and_used_again(graphs: list[Path], cache: Path) -> None:
    first, other = (OpenvinoRuntime(path, "bf16").logits(**BATCH) for path in graphs)
    assert np.abs(first - other).max() > 0.01
    kept = {path: path.stat().st_ino for path in cache.iterdir()}
    assert len(kept) == 2
    for path in kept:
        os.utime(path, (0, 0))
    again, once_more = (OpenvinoRuntime(path, "bf16").logits(**BATCH) for path in graphs)
    np.testing.assert_array_equal(again, first)
    np.testing.assert_array_equal(once_more, other)
    assert {path: path.stat().st_ino for path in cache.iterdir()} == kept, "none was written anew"
    assert all(path.stat().st_mtime > 0 for path in kept), "they were read"


@pytest.fixture
def two_threads(graphs: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch) -> OpenvinoRuntime:
    """A runtime with two threads, wherever the tests run."""
    monkeypatch.setattr("lorafit.models.runtimes.openvino.choose_threads", lambda: 2)
    return OpenvinoRuntime(graphs[1], "bf16")


def test_many_texts_are_streamed_with_the_same_answers(two_threads: OpenvinoRuntime, cache: Path) -> None:
    lengths = np.random.default_rng(0).integers(3, 40, 600)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = TokenizedTexts(np.random.default_rng(1).integers(5, 30, offsets[-1], np.int32), offsets, truncated=0)
    few = compute_outputs(two_threads, tokens, 0, outputs=2)
    assert len(list(cache.iterdir())) == 1
    for _ in range(100_000 // int(lengths.sum()) + 1):
        many = compute_outputs(two_threads, tokens, 0, outputs=2)
    assert len(list(cache.iterdir())) == 2, "a second graph was compiled once it paid"
    for one, other in zip(few, many, strict=True):
        assert one is not None
        assert other is not None
        np.testing.assert_allclose(one, other, atol=0.02 * np.abs(one).max())


def test_no_other_graph_is_taken_for_many_texts(
    graphs: list[Path], tmp_path: Path, two_threads: OpenvinoRuntime
) -> None:
    assert two_threads.wants_stream(1_000_000)
    for suffix in (".xml", ".bin"):
        shutil.copy(graphs[0].with_suffix(suffix), tmp_path / f"graph{suffix}")
    for change in (lambda: shutil.copy(graphs[1], tmp_path / "graph.xml"), (tmp_path / "graph.bin").unlink):
        loaded = OpenvinoRuntime(tmp_path / "graph.xml", "bf16")
        change()
        assert not loaded.wants_stream(1_000_000)
        assert np.isfinite(loaded.logits(**BATCH)).all()


def test_stream_keeps_the_order_and_may_be_left(two_threads: OpenvinoRuntime) -> None:
    batches = [{name: np.repeat(ids, 1 + place % 5, axis=1) for name, ids in BATCH.items()} for place in range(12)]
    expected = [two_threads.outputs(**batch)[0] for batch in batches]
    for one, (other, _) in zip(expected, two_threads.stream(batches), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    left = two_threads.stream(batches)
    np.testing.assert_allclose(next(left)[0], expected[0], atol=1e-6)
    left.close()
    np.testing.assert_allclose(next(two_threads.stream(batches))[0], expected[0], atol=1e-6)


def test_what_is_kept_and_damaged_is_made_again(graphs: list[Path], cache: Path) -> None:
    expected = OpenvinoRuntime(graphs[0], "bf16").logits(**BATCH)
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-100] + bytes(100))
    np.testing.assert_array_equal(OpenvinoRuntime(graphs[0], "bf16").logits(**BATCH), expected)
    assert kept.read_bytes() != whole[:-100] + bytes(100)


def test_a_cache_that_cannot_be_written_to_does_no_harm(
    graphs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LORAFIT_CACHE", str(tmp_path / "file"))
    assert np.isfinite(OpenvinoRuntime(graphs[0], "bf16").logits(**BATCH)).all()


def test_without_a_home_folder_it_is_compiled(graphs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def find_none() -> Path:
        raise EnvironmentUnfitError("This user has no home folder.")

    monkeypatch.setattr("lorafit.models.runtimes.openvino.cache_folder", find_none)
    assert np.isfinite(OpenvinoRuntime(graphs[0], "bf16").logits(**BATCH)).all()


def test_a_graph_is_compiled_anew_on_another_cpu(
    graphs: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    OpenvinoRuntime(graphs[0], "bf16")
    monkeypatch.setattr("lorafit.models.runtimes.openvino.cpu_name", lambda: "Another CPU")
    OpenvinoRuntime(graphs[0], "bf16")
    assert len(list(cache.iterdir())) == 2


def test_what_is_no_graph_is_refused(graphs: list[Path], cache: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(graphs[0], tmp_path / "graph.xml"))
    path.write_text(path.read_text()[:1000])
    path.with_suffix(".bin").write_bytes(b"")
    with pytest.raises(RunError, match=r"graph\.xml cannot be loaded: OpenVINO says"):
        OpenvinoRuntime(path, "bf16")
    assert not cache.exists()


def test_what_openvino_cannot_do_is_named(tmp_path: Path) -> None:
    helper, kind = onnx.helper, onnx.TensorProto
    ends = [helper.make_tensor_value_info(name, kind.FLOAT, ["rows", 3, 3]) for name in ("x", "logits")]
    graph = helper.make_graph([helper.make_node("Det", ["x"], ["logits"])], "odd", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    with pytest.raises(Exception, match="Det") as caught:
        write_for_openvino(model, tmp_path / "odd.xml")
    assert "Det" in find_cause(caught.value)


def test_features_are_those_of_the_graph_or_none(graphs: list[Path], cache: Path, tmp_path: Path) -> None:
    logits, features = OpenvinoRuntime(graphs[0], "bf16").outputs(**BATCH, token_type_ids=BATCH["input_ids"] * 0)
    assert features is not None
    assert (len(logits), len(features)) == (2, 2)
    helper, kind = onnx.helper, onnx.TensorProto
    nodes = [helper.make_node("Cast", ["input_ids"], ["logits"], to=kind.FLOAT)]
    shape = ["rows", "length"]
    ends = [helper.make_tensor_value_info(name, kind.INT64, shape) for name in BATCH]
    outputs = [helper.make_tensor_value_info("logits", kind.FLOAT, shape)]
    graph = helper.make_graph(nodes, "plain", ends, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    write_for_openvino(model, tmp_path / "plain.xml")
    logits, features = OpenvinoRuntime(tmp_path / "plain.xml", "bf16").outputs(**BATCH)
    np.testing.assert_array_equal(logits, BATCH["input_ids"])
    assert features is None
