"""The graph that is kept of a run: what it answers, and when it does not."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lorafit
from lorafit.errors import RunError
from lorafit.inference.export.export import keep_graph
from lorafit.system import extras

TEXTS = ["superb film hours 7", "awful film minute 8", "", "fine"]
USABLE = [text for text in TEXTS if text]


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache without graphs."""
    monkeypatch.setenv("LORAFIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def run(trained: Path, own_cache: Path, tmp_path: Path) -> Path:
    """A copy of a trained run, the graph of which is kept."""
    assert not own_cache.exists()
    keep_graph(shutil.copytree(trained, tmp_path / "run"))
    return tmp_path / "run"


def find_graphs(cache: Path) -> list[Path]:
    return [*cache.glob("run_graphs/*.safetensors")]


def test_the_graph_answers_as_the_run_does(run: Path) -> None:
    graph, torch = lorafit.load(run, runtime="auto"), lorafit.load(run)
    assert (graph.runtime.name, torch.runtime.name) == ("onnx", "torch")
    np.testing.assert_allclose(graph.predict_proba(USABLE), torch.predict_proba(USABLE), atol=1e-2)
    for found, expected in zip(graph.predict(USABLE), torch.predict(USABLE), strict=True):
        assert (found.label, found.conformal_set) == (expected.label, expected.conformal_set)
        assert found.typicality == pytest.approx(expected.typicality, abs=0.05)


@pytest.mark.parametrize("task", ["multi_label", "regression", "ordinal"])
def test_so_it_does_for_every_task(
    trained_of: Callable[[str], Path], own_cache: Path, tmp_path: Path, task: str
) -> None:
    run = shutil.copytree(trained_of(task), tmp_path / task)
    keep_graph(run)
    assert find_graphs(own_cache)
    graph, torch = lorafit.load(run, runtime="auto"), lorafit.load(run)
    assert graph.runtime.name == "onnx"
    scale = 1.0 if task != "regression" else 50.0
    np.testing.assert_allclose(graph.compute_values(USABLE), torch.compute_values(USABLE), atol=1e-2 * scale)


def test_a_command_answers_by_it_without_torch(run: Path) -> None:
    tell = "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules))"
    code = f"{tell}; from lorafit import cli; cli.main()"
    for more, loads_torch in ((), "False"), (("--runtime", "torch"), "True"):
        command = [sys.executable, "-c", code, "predict", run, "superb film", "--json", *more]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        answer, loaded = done.stdout.splitlines()
        assert json.loads(answer)["label"] == "pos", done.stderr
        assert loaded == loads_torch


def test_a_run_that_was_moved_has_its_graph_and_an_altered_one_does_not(run: Path, tmp_path: Path) -> None:
    moved = run.rename(tmp_path / "elsewhere")
    assert lorafit.load(moved, runtime="auto").runtime.name == "onnx"
    with (moved / "adapter" / "tokenizer_config.json").open("a") as file:
        file.write(" ")
    with pytest.raises(RunError, match=r"tokenizer_config\.json was altered"):
        lorafit.load(moved, runtime="auto")
    with pytest.warns(UserWarning, match=r"tokenizer_config\.json was altered"):
        assert lorafit.load(moved, runtime="auto", accept_altered=True).runtime.name == "torch"


def test_an_incomplete_run_is_refused_though_its_graph_is_there(run: Path, edit_record: Callable[..., None]) -> None:
    edit_record(run / "run.json", status="running")
    with pytest.raises(RunError, match="has no finished model"):
        lorafit.load(run, runtime="auto")


@pytest.mark.parametrize("fault", ["damaged", "missing", "of another kind"])
def test_torch_answers_where_there_is_no_graph_that_can_be_run(
    run: Path, own_cache: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = find_graphs(own_cache)
    if fault == "damaged":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 255
        path.write_bytes(content)
    elif fault == "missing":
        path.unlink()
    else:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    predictor = lorafit.load(run, runtime="auto")
    assert predictor.runtime.name == "torch"
    assert predictor.predict(USABLE)
    assert len(find_graphs(own_cache)) == (fault != "missing"), "who asks makes none"


def test_another_precision_is_not_the_graphs(run: Path) -> None:
    assert lorafit.load(run, runtime="auto", precision="fp32").runtime.name == "torch"


def test_none_is_kept_without_the_extra_and_of_methods_that_cannot_be_merged(
    trained: Path, own_cache: Path, train_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_graph(train_run("single_label", "method.name=prompt_tuning", "training.epochs=1"))
    with monkeypatch.context() as patch:
        patch.setitem(extras.EXTRAS, "export", ("no_such_package",))
        keep_graph(trained)
    assert not find_graphs(own_cache)
    keep_graph(trained)
    assert len(find_graphs(own_cache)) == 1


def test_training_ends_with_it(train_run: Callable[..., Path], own_cache: Path) -> None:
    run = train_run("single_label", "training.epochs=1")
    assert len(find_graphs(own_cache)) == 1
    assert lorafit.load(run, runtime="auto").runtime.name == "onnx"
    assert "graph" in json.loads((run / "run.json").read_text())["seconds"]


def test_training_says_why_none_is_kept(
    train_run: Callable[..., Path], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lorafit.inference.export import export

    def give_other_logits(*_: object, **__: object) -> float:
        raise RunError("they differ.")

    monkeypatch.setattr(export, "verify_golden", give_other_logits)
    run = train_run("single_label", "training.epochs=1")
    assert not find_graphs(own_cache)
    assert lorafit.load(run, runtime="auto").runtime.name == "torch"
