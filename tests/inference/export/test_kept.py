"""The graph that is kept of a run: what it answers, and when it does not."""

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lorafit
from lorafit.cli import main
from lorafit.config import load_config
from lorafit.errors import RunError, UserInputError
from lorafit.inference import loading
from lorafit.inference.export import export as module
from lorafit.inference.export import kept
from lorafit.inference.export.export import export, keep_graph
from lorafit.models.runtimes.onnx import OnnxRuntime
from lorafit.system import extras
from lorafit.system.progress import Silent

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


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ("model.truncation=windows", "model.max_length=8"),
        ("method.name=setfit",),
        ("method.name=full",),
        ("method.name=dora", "data.calibration_fraction=0"),
    ],
    ids=["windows", "setfit", "full", "dora, uncalibrated"],
)
def test_so_it_does_for_other_methods_and_long_texts(
    train_run: Callable[..., Path], own_cache: Path, settings: tuple[str, ...]
) -> None:
    run = train_run("single_label", "training.epochs=1", "training.learning_rate=1e-3", *settings)
    texts = [*USABLE, "superb film hours 7 and awful film minute 8 and a dull end"]
    for how in ({}, {"raw": True}):
        graph, torch = lorafit.load(run, runtime="auto", **how), lorafit.load(run, **how)
        assert (graph.runtime.name, graph.fingerprint) == ("onnx", torch.fingerprint)
        np.testing.assert_allclose(graph.predict_proba(texts), torch.predict_proba(texts), atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "typed"),
    [
        ("bert", True),
        ("distilbert", False),
        pytest.param("bert", False, marks=pytest.mark.slow),
        pytest.param("distilbert", True, marks=pytest.mark.slow),
    ],
)
def test_so_it_does_for_pairs_whether_their_tokens_have_types_or_not(
    build_encoder: Callable[..., Path], own_cache: Path, tmp_path: Path, family: str, typed: bool
) -> None:
    encoder = shutil.copytree(build_encoder(family, initializer_range=0.2), tmp_path / "encoder")
    if not typed:
        path = encoder / "tokenizer.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        for one in content["post_processor"]["pair"]:
            next(iter(one.values()))["type_id"] = 0
        path.write_text(json.dumps(content), encoding="utf-8")
        settings = json.loads((encoder / "tokenizer_config.json").read_text(encoding="utf-8"))
        settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}
        (encoder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    rows = [{"a": f"fine {row}", "b": ("dull", "superb")[row % 2], "label": "ab"[row % 2]} for row in range(60)]
    plain = ("report", "before", "baselines")
    config = load_config(
        overrides=[
            f"model.name={encoder}",
            "model.max_length=32",
            "data.text_column=a",
            "data.text_pair_column=b",
            "training.max_steps=1",
            "training.threads=1",
            *(f"evaluation.{name}=false" for name in plain),
        ]
    )
    run = lorafit.train(config, data=rows, output=tmp_path / "run").path
    pairs = [("fine 1", "superb"), ("dull film", "a great end of it")]
    graph, torch = lorafit.load(run, runtime="auto"), lorafit.load(run, precision="fp32")
    assert graph.runtime.name == "onnx"
    np.testing.assert_allclose(graph.predict_proba(pairs), torch.predict_proba(pairs), atol=1e-4)


def test_it_takes_the_same_options(run: Path) -> None:
    graph, torch = (
        lorafit.load(run, runtime=name, target_accuracy=0.6, reject_atypical=0.1, threads=1) for name in ("auto", None)
    )
    again = pickle.loads(pickle.dumps(graph))  # noqa: S301 - made in this line
    assert graph.runtime.name == again.runtime.name == "onnx"
    for found in (graph, again):
        for one, other in zip(found.predict(USABLE), torch.predict(USABLE), strict=True):
            assert (one.label, one.abstain, one.atypical) == (other.label, other.abstain, other.atypical)


def test_other_runtimes_are_refused_and_any_of_an_export(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match=r"runtime='onnx': allowed are torch and auto"):
        lorafit.load(run, runtime="onnx")
    exported = export(run, output=tmp_path / "exported").path
    assert lorafit.load(exported, runtime="auto").runtime.name == "onnx"
    with pytest.raises(UserInputError, match="its runtime was chosen when it was exported"):
        lorafit.load(exported, runtime="torch")


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


def test_torch_answers_where_the_graph_gives_other_logits(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = OnnxRuntime.logits
    monkeypatch.setattr(OnnxRuntime, "logits", lambda *given, **named: logits(*given, **named) + 1)
    monkeypatch.setattr(OnnxRuntime, "outputs", lambda *given, **named: (OnnxRuntime.logits(*given, **named), None))
    assert lorafit.load(run, runtime="auto").runtime.name == "torch"


def test_another_precision_and_a_base_that_is_named_are_torchs(run: Path) -> None:
    assert lorafit.load(run, runtime="auto", precision="fp32").runtime.name == "torch"
    base = json.loads((run / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert lorafit.load(run, runtime="auto", base=base).runtime.name == "torch"


def test_a_command_asks_torch_for_many_texts_and_for_a_file(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(
        loading, "load", lambda *given, runtime, **named: asked.append(runtime) or lorafit.load(*given, **named)
    )
    for rows, more in ((64, ()), (65, ()), (2, ("--output", str(tmp_path / "answers.csv")))):
        (tmp_path / "new.txt").write_text("fine\n" * rows)
        with pytest.raises(SystemExit):
            main(["predict", str(run), "--file", str(tmp_path / "new.txt"), "--quiet", *more])
    assert asked == ["auto", None, None]


def test_the_cache_drops_what_is_least_recently_used(
    trained_of: Callable[[str], Path], own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [shutil.copytree(trained_of(task), tmp_path / task) for task in ("single_label", "ordinal")]
    keep_graph(runs[0])
    monkeypatch.setattr(kept, "MOST_KEPT", int(1.5 * find_graphs(own_cache)[0].stat().st_size))
    keep_graph(runs[1])
    assert [lorafit.load(run, runtime="auto").runtime.name for run in runs] == ["torch", "onnx"]


def test_none_is_made_that_is_larger_than_the_cache(
    trained: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_KEPT", 1000)
    keep_graph(trained)
    assert not own_cache.exists()


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


class Lines(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.parametrize(
    "error",
    [
        RunError("they differ."),
        pytest.param(ValueError("an unknown operator"), marks=pytest.mark.slow),
        pytest.param(MemoryError("none"), marks=pytest.mark.slow),
    ],
)
def test_training_is_complete_and_says_why_none_is_kept(
    word_reviews: Path, wide_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> float:
        raise error

    monkeypatch.setattr(module, "write_graph", fail)
    plain = ("report", "before", "baselines")
    given = (f"data.source={word_reviews}", f"model.name={wide_encoder}", "model.max_length=16", "training.max_steps=1")
    config = load_config(overrides=[*given, "training.threads=1", *(f"evaluation.{name}=false" for name in plain)])
    lines = Lines()
    run = lorafit.train(config, output=tmp_path / "run", progress=lines)
    assert run.record.status == "complete"
    assert f"no graph is kept for quick answers: {error}" in lines.said
    assert lorafit.load(run.path, runtime="auto").runtime.name == "torch"
