"""Every row of the table, through the real engine: it learns, and what it learned is what is saved and merged."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedModel

from lorafit.config import Config, MethodConfig, ModelConfig
from lorafit.inference.export.graph import build_graph
from lorafit.models.acceleration.encoder_block import fuse_encoder, is_fused
from lorafit.models.acceleration.inference import make_fast
from lorafit.models.adaptation import AdaptedModel, base_of, merge_adapter
from lorafit.models.adapters import load_adapter
from lorafit.models.load import load_with_head, locate_encoder
from lorafit.models.method_settings import complete_method, complete_settings
from lorafit.models.methods import METHODS
from lorafit.models.quiet import quiet_transformers
from lorafit.models.runtimes import plain
from lorafit.runs.records import TrainingRecord
from lorafit.runs.saving import write_trained
from lorafit.system.progress import Silent
from lorafit.tasks.registry import build_task
from lorafit.training.contrastive import fit_by_pairs
from lorafit.training.head import fit_head_alone
from lorafit.training.inputs import TrainingRows
from lorafit.training.job import TrainingJob
from lorafit.training.trainer import fit

BuildJob = Callable[..., TrainingJob]
Measure = Callable[[AdaptedModel, TrainingRows], dict[str, float]]

FITTING: dict[str, dict[str, Any]] = {
    "vera": {"r": 16},
    "adamss": {"r": 16},
    "oft": {"options": {"oft_block_size": 8}},
    "virtual": {"virtual_tokens": 4},
}
"""Settings that suit an encoder 32 wide."""

OWN_STATE = {"lora", "full", "adalora", "p_tuning", "setfit"}
"""Methods whose weights change in ways of their own while they are trained, and the plainest; others are like these."""

QUICK = OWN_STATE | {"lora_fa", "pissa", "oft", "vera", "ln_tuning", "houlsby", "bitfit", "head_only", "embedding"}
"""A method of each kind; `make test-slow` trains those that are like them."""

TASK = build_task("single_label", ("no", "yes"))

TEXTS = ["a wonderful film", "dull and far too long", "not bad"]


def build_settings(name: str) -> Config:
    virtual = FITTING["virtual"] if "virtual_tokens" in METHODS[name].defaults else {}
    return complete_settings(Config(method=MethodConfig(name=name, **FITTING.get(name, {}), **virtual)))


def train(job: TrainingJob) -> TrainingRecord:
    """Train as a run does."""
    match METHODS[job.method.name].objective:
        case "none":
            return fit_head_alone(job)
        case "pairs":
            return fit_by_pairs(job, TASK.pair_marks(job.rows.labels), progress=Silent())
        case "labels":
            return fit(job, progress=Silent())


def compute_logits(model: torch.nn.Module, folder: Path, texts: list[str] = TEXTS) -> np.ndarray:
    batch = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        return model.eval()(**batch).logits.numpy()


@pytest.fixture(scope="module")
def encoder(build_encoder: Callable[..., Path]) -> Path:
    """A tiny encoder whose random weights are so large that the text reaches the head."""
    return build_encoder("distilbert", initializer_range=0.2)


def frozen_weights(adapted: AdaptedModel) -> dict[str, torch.Tensor]:
    return {name: w.clone() for name, w in adapted.model.named_parameters() if not w.requires_grad}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every method trained, one folder each."""
    return tmp_path_factory.mktemp("trained")


@pytest.mark.no_cover  # the loop is covered by its own tests, and a row of the table has no lines of its own
@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]
)
def test_it_learns_reloads_and_merges(
    name: str, make_job: BuildJob, measure_rows: Measure, encoder: Path, folders: Path
) -> None:
    settings = build_settings(name)
    rates = settings.training.model_dump(include={"learning_rate", "head_learning_rate"}, exclude_none=True)
    job = make_job(
        method=settings.method,
        encoder=encoder,
        epochs=12,
        evaluations_per_epoch=1,
        **{rate: 10 * value for rate, value in rates.items()},
    )
    job = replace(job, validate=lambda: measure_rows(job.adapted, job.rows))
    method, model = METHODS[name], job.adapted.model
    trained = {n: w.detach().clone() for n, w in model.named_parameters() if w.requires_grad}
    frozen = frozen_weights(job.adapted)
    fused = fuse_encoder(model) is None
    assert fused is ("fused-blocks" not in method.limits)
    before = job.validate()["loss"]
    record = train(job)
    assert record.best_validation_loss < before - 0.01
    assert job.validate()["loss"] == pytest.approx(record.best_validation_loss, abs=1e-5), "the best weights are kept"
    now = dict(model.named_parameters())
    assert all(torch.equal(now[n], w) for n, w in frozen.items())
    changed = {n for n, w in trained.items() if not torch.equal(now[n], w)}
    assert any(job.adapted.is_head(n) for n in changed)
    assert any(not job.adapted.is_head(n) for n in changed) is (name not in {"head_only", "embedding"})

    folder = folders / name
    folder.mkdir()
    write_trained(job.adapted, locate_encoder(ModelConfig(name=str(encoder))), folder, max_length=64)
    logits = compute_logits(model, folder)
    alone = np.concatenate([compute_logits(model, folder, [text]) for text in TEXTS])
    assert np.abs(alone - logits).max() < 1e-4 * max(1.0, np.abs(logits).max()), "neighbours change no answer"
    with quiet_transformers():
        assert np.abs(np.array(plain.compute_plain_logits(folder, TEXTS)) - logits).max() < 1e-4
    (folder / "expected.json").write_text(json.dumps(logits.tolist()))
    fast = make_fast(model)
    assert is_fused(fast) is (fused or not (method.is_adapter and "merge" in method.limits))
    assert np.abs(compute_logits(fast, folder) - logits).max() < 1e-4 * max(1.0, np.abs(logits).max())
    assert np.array_equal(compute_logits(model, folder), logits), "the trained model stays as it is"
    if method.bottleneck is not None:
        assert np.abs(compute_logits(load_adapter(load(encoder), folder), folder) - logits).max() < 1e-5
    elif job.adapted.is_adapter:
        check_merge(job.adapted, name, logits, folder)


@pytest.mark.no_cover
@pytest.mark.parametrize(
    "name",
    [
        name if name in OWN_STATE else pytest.param(name, marks=pytest.mark.slow)
        for name, method in METHODS.items()
        if method.learning_rate is not None
    ],
)
def test_first_validation_may_be_the_best(name: str, make_job: BuildJob, measure_rows: Measure, encoder: Path) -> None:
    """Whatever a method does while it is trained, the weights of an early checkpoint can be taken again."""
    settings = build_settings(name)
    job = make_job(
        method=settings.method,
        encoder=encoder,
        epochs=4,
        evaluations_per_epoch=1,
        learning_rate=settings.training.learning_rate,
    )
    fuse_encoder(job.adapted.model)
    seen = []

    def validate() -> dict[str, float]:
        """Remember the true loss and give a rising one."""
        metrics = measure_rows(job.adapted, job.rows)
        seen.append(metrics["loss"])
        return {**metrics, "calibrated_loss": float(len(seen))}

    job = replace(job, validate=validate)
    record = train(job)
    assert record.best_step == 6
    assert measure_rows(job.adapted, job.rows)["loss"] == pytest.approx(seen[0], abs=1e-5)


@pytest.mark.parametrize(("max_steps", "rank"), [(1, 4), (2, 1), (12, 1), (30, 4)])
def test_adalora_takes_few_steps_and_small_ranks(make_job: BuildJob, encoder: Path, max_steps: int, rank: int) -> None:
    method = complete_method(MethodConfig(name="adalora", r=rank))
    job = make_job(method=method, encoder=encoder, max_steps=max_steps, learning_rate=1e-2)
    assert fit(job, progress=Silent()).steps == max_steps
    values = {name: value for name, value in job.adapted.model.named_parameters() if "lora_E" in name}
    assert sum((value != 0).sum().item() for value in values.values()) <= (rank + max(1, rank // 2)) * len(values)
    if max_steps == 30:
        assert sum((value != 0).sum().item() for value in values.values()) == rank * len(values), "cut to r on average"


def check_merge(adapted: AdaptedModel, name: str, logits: np.ndarray, folder: Path) -> None:
    with quiet_transformers():
        base = plain._load_adapter(folder)
    merge = getattr(base, "merge_and_unload", None)
    if "merge" in METHODS[name].limits:
        with pytest.raises((AttributeError, TypeError, ValueError, NotImplementedError)):
            merge()
        return
    assert merge is not None
    with quiet_transformers():
        merged = merge_adapter(base)
    assert not any("modules_to_save" in key for key in merged.state_dict())
    assert np.abs(compute_logits(merged, folder) - logits).max() < 1e-3 * max(1.0, np.abs(logits).max())
    assert np.abs(compute_graph_logits(merged, folder) - logits).max() < 1e-3 * max(1.0, np.abs(logits).max())


def load(encoder: Path) -> PreTrainedModel:
    return load_with_head(locate_encoder(ModelConfig(name=str(encoder))), TASK).model


def compute_graph_logits(merged: PreTrainedModel, folder: Path) -> np.ndarray:
    """What the model says as an ONNX graph."""
    batch = dict(AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="np"))
    session = onnxruntime.InferenceSession(build_graph(merged).SerializeToString())
    return session.run(["logits"], {name: batch[name] for name in ("input_ids", "attention_mask")})[0]


@pytest.mark.parametrize(
    "names", [QUICK, pytest.param(METHODS.keys() - QUICK, marks=pytest.mark.slow)], ids=["quick", "slow"]
)
def test_plain_libraries_open_all_of_them_in_a_fresh_process(names: set[str], folders: Path) -> None:
    trained = sorted(folder for folder in folders.iterdir() if folder.name in names)
    assert len(trained) == len(names), "run the file as a whole"
    script = f"""
import json, sys
sys.path.insert(0, {str(Path(plain.__file__).parent)!r})
from pathlib import Path
import plain
texts = {TEXTS!r}
print(json.dumps([plain.compute_plain_logits(Path(folder), texts) for folder in sys.argv[1:]]))
assert not any(name.split(".")[0] == "lorafit" for name in sys.modules)
"""
    answer = subprocess.run(
        [sys.executable, "-c", script, *map(str, trained)], capture_output=True, text=True, check=True
    )
    for folder, logits in zip(trained, json.loads(answer.stdout), strict=True):
        expected = np.array(json.loads((folder / "expected.json").read_text()))
        assert np.abs(np.array(logits) - expected).max() < 1e-4, folder.name


def test_base_of_a_whole_model_is_the_model_itself(make_job: BuildJob) -> None:
    job = make_job(method=MethodConfig(name="full"))
    assert base_of(job.adapted.model) is job.adapted.model
