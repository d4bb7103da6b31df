"""Bottleneck adapters: what they compute, their files, and that AdapterHub's own library computes the same."""

import copy
import json
import os
import subprocess
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from lorafit.config import MethodConfig, ModelConfig
from lorafit.errors import ConfigError
from lorafit.inference.export.tracing import trace_graph
from lorafit.models.acceleration.encoder_block import frozen_depth, fuse_encoder
from lorafit.models.adaptation import AdaptedModel, apply_method, count_parameters
from lorafit.models.adapters import load_adapter
from lorafit.models.bottleneck import list_bottlenecks
from lorafit.models.load import LoadedModel, load_with_head, locate_encoder
from lorafit.models.methods import METHODS
from lorafit.models.quiet import quiet_transformers
from lorafit.models.runtimes import plain
from lorafit.runs.saving import write_trained
from lorafit.tasks.registry import build_task

BOTTLENECKS = [name for name, method in METHODS.items() if method.bottleneck is not None]
ENCODERS = ["distilbert", "bert", "roberta"]
TEXTS = ["a wonderful film", "dull and far too long", "not bad"]
Build = Callable[..., Path]


def load(base: Path) -> LoadedModel:
    return load_with_head(locate_encoder(ModelConfig(name=str(base))), build_task("single_label", ("no", "yes")))


def adapt(base: Path, method: str, **settings: Any) -> AdaptedModel:
    """Adapt an encoder, with numbers as after some training."""
    loaded = load(base)
    adapted = apply_method(
        loaded.model, MethodConfig(name=method, **settings), newly_initialised=loaded.newly_initialised
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapted.model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    adapted.model.eval()
    return adapted


def save(adapted: AdaptedModel, base: Path, folder: Path) -> np.ndarray:
    """Save what was trained, and return its logits."""
    folder.mkdir(parents=True, exist_ok=True)
    write_trained(adapted, locate_encoder(ModelConfig(name=str(base))), folder, max_length=64)
    return compute_logits(adapted.model, folder)


def compute_logits(model: torch.nn.Module, folder: Path) -> np.ndarray:
    batch = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        return model.eval()(**batch).logits.numpy()


@pytest.fixture(scope="module")
def encoders(build_encoder: Build) -> dict[str, Path]:
    """Tiny encoders whose random weights are so large that the text reaches the head."""
    return {kind: build_encoder(kind, initializer_range=0.2) for kind in ENCODERS}


@pytest.mark.parametrize("kind", ["distilbert", "bert", pytest.param("roberta", marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", BOTTLENECKS)
def test_what_is_saved_is_opened_by_lorafit_and_without_it(
    method: str, kind: str, encoders: dict[str, Path], tmp_path: Path
) -> None:
    base = encoders[kind]
    before = compute_logits(load(base).model, base)
    logits = save(adapt(base, method), base, tmp_path)
    assert np.abs(logits - before).max() > 0.01
    opened = load_adapter(load(base).model, tmp_path)
    assert np.array_equal(compute_logits(opened, tmp_path), logits)
    assert not any(parameter.requires_grad for parameter in opened.parameters())
    with quiet_transformers():
        assert np.abs(np.array(plain.compute_plain_logits(tmp_path, TEXTS)) - logits).max() < 1e-5
    names = {path.name for path in tmp_path.iterdir()}
    assert {"adapter_config.json", "adapter.safetensors", "head_config.json", "model_head.safetensors"} <= names


def test_parameters_are_those_of_the_arithmetic(tiny_distilbert: Path) -> None:
    adapted = adapt(tiny_distilbert, "houlsby", reduction_factor=4)
    assert adapted.targets == tuple(
        f"distilbert.transformer.layer.{layer}.{place}_adapters.adapters.lorafit"
        for layer in (0, 1)
        for place in ("attention", "output")
    )
    assert count_parameters(adapted).adapter == 4 * (2 * 32 * 8 + 8 + 32)
    assert count_parameters(adapted).head == (32 * 32 + 32) + (32 * 2 + 2)
    assert len(adapt(tiny_distilbert, "pfeiffer").targets) == len(adapt(tiny_distilbert, "parallel").targets) == 2


def test_fresh_parallel_adapter_changes_nothing_and_others_little(encoders: dict[str, Path]) -> None:
    base = encoders["bert"]
    before = compute_logits(load(base).model, base)
    for method, most in {"parallel": 0.0, "houlsby": 0.1, "pfeiffer": 0.1}.items():
        adapted = apply_method(load(base).model, MethodConfig(name=method))
        assert np.abs(compute_logits(adapted.model, base) - before).max() <= most


@pytest.mark.parametrize("method", BOTTLENECKS)
def test_top_layers_alone_carry_one_above_a_frozen_prefix(
    method: str, encoders: dict[str, Path], tmp_path: Path
) -> None:
    base = encoders["distilbert"]
    adapted = adapt(base, method, layers="top1")
    assert {name.split(".layer.")[1][0] for name in adapted.targets} == {"1"}
    logits = save(adapted, base, tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["config"]["leave_out"] == [0]
    assert np.array_equal(compute_logits(load_adapter(load(base).model, tmp_path), tmp_path), logits)
    fused = copy.deepcopy(adapted.model)
    assert fuse_encoder(fused) is not None
    assert frozen_depth(fused) == 1
    assert np.abs(compute_logits(fused, tmp_path) - logits).max() < 1e-5


def test_encoder_and_sizes_that_do_not_fit_are_refused(build_encoder: Build, tiny_distilbert: Path) -> None:
    with pytest.raises(ConfigError, match=r"Houlsby adapters cannot be put into a albert encoder.*distilbert, bert"):
        adapt(build_encoder("albert"), "houlsby")
    with pytest.raises(ConfigError, match="this encoder is no more than 32 wide"):
        adapt(tiny_distilbert, "pfeiffer", reduction_factor=33)
    with pytest.raises(ConfigError, match="this encoder has 2 layers"):
        adapt(tiny_distilbert, "pfeiffer", layers="top3")


def test_altered_folder_is_refused(tiny_distilbert: Path, tmp_path: Path) -> None:
    save(adapt(tiny_distilbert, "houlsby"), tiny_distilbert, tmp_path)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())

    def expect(message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            load_adapter(load(tiny_distilbert).model, tmp_path)

    for wrong in ({"non_linearity": "tanh"}, {"reduction_factor": 0}, {"leave_out": [1]}, {"leave_out": [0, 1, 2]}):
        altered = {**settings, "config": {**settings["config"], **wrong}}
        (tmp_path / "adapter_config.json").write_text(json.dumps(altered))
        expect("is not one that lorafit wrote|have no place in it")
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    for name in ("adapter.safetensors", "model_head.safetensors"):
        tensors = load_file(tmp_path / name)
        first = next(iter(tensors))
        save_file({key: tensor for key, tensor in tensors.items() if key != first}, tmp_path / name)
        expect(f"{name} has no tensor")
        save_file({**tensors, first: torch.zeros(3)}, tmp_path / name)
        expect("is of the shape")
        save_file({**tensors, "other.weight": torch.zeros(3)}, tmp_path / name)
        expect("have no place in it")
        save_file(tensors, tmp_path / name)
    load_adapter(load(tiny_distilbert).model, tmp_path)


def test_training_does_not_go_on_from_one(tiny_distilbert: Path, tmp_path: Path) -> None:
    save(adapt(tiny_distilbert, "pfeiffer"), tiny_distilbert, tmp_path)
    with pytest.raises(ConfigError, match="bottleneck adapters cannot be merged into a base"):
        locate_encoder(ModelConfig(name=str(tmp_path)))


def test_copies_have_adapters_of_their_own(tiny_distilbert: Path) -> None:
    model = adapt(tiny_distilbert, "houlsby").model
    copied = copy.deepcopy(model)
    logits = compute_logits(model, tiny_distilbert)
    with torch.no_grad():
        for name in list_bottlenecks(copied):
            copied.get_submodule(name).adapter_up.weight *= 3.0
    assert np.array_equal(compute_logits(model, tiny_distilbert), logits)
    assert not np.allclose(compute_logits(copied, tiny_distilbert), logits)


@pytest.mark.slow
@pytest.mark.parametrize("method", BOTTLENECKS)
def test_traced_graph_computes_them(method: str, encoders: dict[str, Path]) -> None:
    base = encoders["bert"]
    model = adapt(base, method).model
    logits = compute_logits(model, base)
    batch = dict(AutoTokenizer.from_pretrained(base)(TEXTS, padding=True, return_tensors="np"))
    session = onnxruntime.InferenceSession(trace_graph(model).SerializeToString())
    found = session.run(["logits"], {name: batch[name] for name in ("input_ids", "attention_mask")})[0]
    assert np.abs(found - logits).max() < 1e-4


@pytest.fixture(scope="module")
def adapters_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with the adapters library and the transformers that it needs; torch is that of these tests."""
    place = tmp_path_factory.mktemp("adapters") / "venv"
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"
    packages = ["adapters==1.3.0", "transformers~=4.57.6", "huggingface-hub<1.0", "tokenizers>=0.22,<=0.23.0"]
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", *packages], check=True)
    script = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True)
    here = sysconfig.get_path("purelib")
    (Path(own.stdout.strip()) / "here.pth").write_text(here)  # after its own packages: torch and what is not there
    return python


@pytest.mark.slow
@pytest.mark.parametrize("kind", ENCODERS)
def test_adapters_library_computes_the_same(
    kind: str, encoders: dict[str, Path], adapters_python: Path, tmp_path: Path
) -> None:
    base, expected = encoders[kind], {}
    for method in BOTTLENECKS:
        expected[str(tmp_path / method)] = save(adapt(base, method), base, tmp_path / method)
    script = f"""
import json, sys
sys.path.insert(0, {str(Path(plain.__file__).parent)!r})
from pathlib import Path
import adapters, plain, transformers
assert transformers.__version__.startswith("4.57")
print(json.dumps([plain.compute_plain_logits(Path(folder), {TEXTS!r}) for folder in sys.argv[1:]]))
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    answer = subprocess.run(
        [adapters_python, "-c", script, *expected], capture_output=True, text=True, env=environment, check=False
    )
    assert answer.returncode == 0, answer.stderr
    for logits, (folder, wanted) in zip(json.loads(answer.stdout), expected.items(), strict=True):
        assert np.abs(np.array(logits) - wanted).max() < 1e-5, folder
