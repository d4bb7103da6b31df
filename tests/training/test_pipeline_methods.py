"""Runs of methods that are more than an adapter on linear layers: from the rows to a prediction from the run folder."""

import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from sklearn.linear_model import LogisticRegression

import lorafit
from lorafit.config import Config, load_config
from lorafit.errors import ConfigError, RunError, TrainingInterruptedError
from lorafit.inference.export.export import export_merged
from lorafit.models.acceleration.encoder_block import is_fused
from lorafit.reports.verdict import describe_embedding
from lorafit.runs.evidence import read_settings
from lorafit.runs.folder import MODEL_FILES, POOLED_FILES, RunLayout
from lorafit.runs.predictions import read_predictions
from lorafit.runs.records import RunRecord
from lorafit.system.progress import Silent
from lorafit.tasks.records import Estimate, MetricsRecord, Scores
from lorafit.tasks.registry import TASKS
from lorafit.training.embedding_baseline import FrozenBase
from lorafit.training.embeddings import HeadTargets, choose_strength
from lorafit.training.evaluation import evaluate
from lorafit.training.pipeline import Run, resume
from lorafit.training.prepare import prepare

TEXTS = ["a superb film", "a dull story"]


@pytest.fixture(scope="module")
def encoder(build_encoder: Callable[..., Path]) -> Path:
    return build_encoder("distilbert", initializer_range=0.1)


def build_config(encoder: Path, word_reviews: Path, *overrides: str) -> Config:
    return load_config(
        overrides=[
            f"data.source={word_reviews}",
            "data.validation_fraction=0.1",
            "data.test_fraction=0.25",
            f"model.name={encoder}",
            "model.max_length=32",
            "training.batch_size=16",
            "training.epochs=2",
            "training.threads=1",
            "evaluation.bootstrap_samples=100",
            "evaluation.report=false",
            "evaluation.before=false",
            "evaluation.baselines=false",
            *overrides,
        ]
    )


def list_values(scores: Scores) -> dict[str, float]:
    return {name: estimate.value for name, estimate in scores.metrics.items()}


@pytest.fixture(scope="module")
def full(encoder: Path, word_reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    settings = ("method.name=full", "training.learning_rate=5e-3", "evaluation.baselines=true")
    return lorafit.train(build_config(encoder, word_reviews, *settings), output=tmp_path_factory.mktemp("full") / "run")


def test_model_itself_is_saved_where_it_was_trained(full: Run) -> None:
    layout = RunLayout(full.path)
    assert layout.trained == layout.model
    assert not layout.adapter.exists()
    assert sorted(full.record.files) == sorted(MODEL_FILES)
    assert full.record.parameters.adapter + full.record.parameters.head == full.record.parameters.total
    assert full.metrics.after.metrics["accuracy"].value > 0.9
    assert full.load().predict(TEXTS)[0].label == "pos"
    again = evaluate(full.path).after
    assert again.confusion_matrix == full.metrics.after.confusion_matrix
    then, now = (scores.metrics["log_loss"].value for scores in (full.metrics.after, again))
    assert now == pytest.approx(then, abs=0.02)  # in fused blocks now


def test_card_of_a_whole_model_tells_how_to_open_it(full: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = RunLayout(full.path)
    card = layout.card.read_text(encoding="utf-8")
    assert "library_name: transformers" in card
    code = re.search(r"```python\n(from transformers.*?)```", card, re.DOTALL)
    assert code
    monkeypatch.chdir(layout.model)
    names: dict[str, Any] = {}
    exec(code[1], names)  # noqa: S102 - what a reader of the card does
    assert names["classify"](TEXTS[0])[0]["label"] == "pos"


SETFIT = ("method.name=setfit", "training.learning_rate=1e-3", "training.epochs=1")
POOLED = {"setfit": SETFIT, "embedding": ("method.name=embedding",)}
"""Settings of the methods whose head reads the mean of the tokens."""


@pytest.mark.parametrize("method", POOLED)
def test_what_reads_mean_states_learns_and_is_saved_exported_and_gone_on_from(
    method: str, encoder: Path, word_reviews: Path, tmp_path: Path
) -> None:
    run = lorafit.train(build_config(encoder, word_reviews, *POOLED[method]), output=tmp_path / "run")
    layout = RunLayout(run.path)
    assert set(run.record.files) >= set(POOLED_FILES)
    assert run.metrics.after.metrics["accuracy"].value > 0.9
    assert list_values(evaluate(run.path).after) == pytest.approx(list_values(run.metrics.after), rel=1e-3)
    model = lorafit.load(run.path, precision="fp32")
    runtime: Any = model.runtime
    assert is_fused(runtime._model)
    logits = model.compute_logits(TEXTS)
    for int8, tolerance in ((False, 1e-3), (True, 0.2)):
        exported = lorafit.export(run.path, int8=int8)
        found = lorafit.load(exported.path).compute_logits(TEXTS)
        assert np.abs(found - logits).max() < tolerance * np.abs(logits).max()
    merged = export_merged(run.path)
    assert (merged / "2_Dense" / "model.safetensors").read_bytes() == (
        layout.model / "2_Dense" / "model.safetensors"
    ).read_bytes()
    further = prepare(build_config(run.path, word_reviews, *POOLED[method]), Silent())
    head: Any = further.adapted.model
    with safe_open(layout.model / "2_Dense" / "model.safetensors", framework="pt") as weights:
        assert (head.classifier.weight == weights.get_tensor("linear.weight")).all()
    assert prepare(build_config(run.path, word_reviews), Silent()).adapted.is_adapter, "any method goes on from it"


@pytest.mark.slow
@pytest.mark.parametrize("validation", [0, 0.4], ids=["out of fold", "set aside"])
def test_embeddings_that_would_have_been_better_are_named(
    validation: float, encoder: Path, word_reviews: Path, tmp_path: Path
) -> None:
    given = (f"data.validation_fraction={validation}", "training.max_steps=1")
    config = build_config(encoder, word_reviews, *given, "training.blend=off", "evaluation.baselines=true")
    run = lorafit.train(config, output=tmp_path / "run")
    found = run.record.embedding
    assert found is not None
    assert found.rows >= 20
    assert found.is_better
    sentence = describe_embedding(found)
    assert "--method embedding would have been better, or --method auto." in sentence
    assert f"On {found.rows} held-out rows" in sentence
    assert describe_embedding(None) == ""
    assert describe_embedding(found.model_copy(update={"difference": Estimate(value=-0.1, low=-0.3, high=0.1)})) == ""


@pytest.mark.slow
@pytest.mark.parametrize("method", POOLED)
@pytest.mark.parametrize("task", TASKS)
def test_what_reads_mean_states_learns_every_task(task: str, method: str, train_run: Callable[..., Path]) -> None:
    run = train_run(task, *POOLED[method][:2])
    record = RunRecord.read(RunLayout(run).record)
    assert (record.method, record.task, record.status) == (method, task, "complete")
    metrics, kind = MetricsRecord.read(RunLayout(run).metrics), record.build_task()
    majority = metrics.baselines["majority"].scores.metrics[kind.primary].value
    gain = metrics.after.metrics[kind.primary].value - majority
    assert gain * (1 if kind.primary_metric.higher_is_better else -1) > 0
    lorafit.load(run)


def test_altered_head_of_setfit_is_refused(encoder: Path, word_reviews: Path, tmp_path: Path) -> None:
    run = lorafit.train(build_config(encoder, word_reviews, *SETFIT, "training.max_steps=1"), output=tmp_path / "run")
    for name in set(POOLED_FILES) - set(MODEL_FILES):
        path = RunLayout(run.path).model / name
        before = path.read_bytes()
        path.write_bytes(before[:-1] + b" ")
        with pytest.raises(RunError, match=path.name.replace(".", r"\.")):
            lorafit.load(run.path)
        path.write_bytes(before)


def test_loaded_model_is_fused_whatever_the_method(
    full: Run, encoder: Path, word_reviews: Path, tmp_path: Path
) -> None:
    dora = lorafit.train(build_config(encoder, word_reviews, "method.name=dora"), output=tmp_path / "dora")
    for run in (full, dora):
        runtime: Any = run.load().runtime
        assert is_fused(runtime._model)
        assert list_values(evaluate(run.path).after) == pytest.approx(list_values(run.metrics.after), rel=1e-6)


def test_altered_model_is_refused(full: Run, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(full.path, tmp_path / "run"))
    with (copy / "model" / "model.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(RunError, match=r"model\.safetensors was altered after training"):
        lorafit.load(copy)


def test_baseline_embeds_by_the_encoder_as_it_was_before_training(full: Run) -> None:
    layout = RunLayout(full.path)
    prepared = prepare(read_settings(layout, full.record), Silent())
    base = FrozenBase.load(prepared.encoder, prepared.task, prepared.pad_id, prepared.config)
    states = {name: base.embed(texts) for name, texts in prepared.tokens.items()}
    y = prepared.splits.train.y
    targets = HeadTargets(y, "single_label_classification", 2)
    c = 2 / choose_strength(states["train"], targets, seed=0)  # two weights a class, which share the penalty of one
    plain = LogisticRegression(C=c, max_iter=10_000, tol=1e-10).fit(states["train"], y)
    found = read_predictions(layout.predictions("test", "embedding"), prepared.splits.test, prepared.task)
    assert found is not None
    assert np.abs(found - plain.predict_proba(states["test"])).max() < 1e-4
    assert full.record.left_out_baselines == {}


def test_baseline_that_takes_too_long_is_left_out_and_the_report_says_why(
    encoder: Path, word_reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorafit.training.embedding_baseline._MOST_TOKENS", 100)
    settings = ("method.name=head_only", "training.max_steps=1", "evaluation.baselines=true", "evaluation.report=true")
    run = lorafit.train(build_config(encoder, word_reviews, *settings), output=tmp_path / "run")
    assert list(run.metrics.baselines) == ["majority", "nb_svm", "tfidf"]
    said = run.record.left_out_baselines["embedding"]
    assert re.fullmatch(r"training and test rows have [\d,]+ tokens, and at most 100 are embedded for a baseline", said)
    page = RunLayout(run.path).report.read_text(encoding="utf-8")
    assert "not measured: embeddings and logistic regression" in page
    assert said in page


def test_baselines_are_scored_beside_the_model(full: Run) -> None:
    assert list(full.metrics.baselines) == list(full.load().task.baselines)
    for name, baseline in full.metrics.baselines.items():
        assert (baseline.scores.metrics["accuracy"].value > 0.9) == (name != "majority"), "single words decide"
        after, before = (scores.metrics["accuracy"].value for scores in (full.metrics.after, baseline.scores))
        assert baseline.comparison.differences["accuracy"].value == pytest.approx(after - before)
    again = evaluate(full.path).baselines
    assert {name: one.scores.model_dump_json() for name, one in again.items()} == {
        name: one.scores.model_dump_json() for name, one in full.metrics.baselines.items()
    }, "their predictions are kept"


class StopAt(Silent):
    """Sends this process a real signal when a training step is done."""

    def __init__(self, step: int) -> None:
        self._step = step

    def update(self, done: int, **figures: float) -> None:
        if "loss" in figures and done == self._step:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["adalora", *(pytest.param(name, marks=pytest.mark.slow) for name in ("full", "lora_fa", "bitfit", "p_tuning"))],
)
def test_interrupted_run_ends_as_one_that_was_not(name: str, encoder: Path, word_reviews: Path, tmp_path: Path) -> None:
    tokens = ["method.virtual_tokens=4"] if name == "p_tuning" else []
    config = build_config(encoder, word_reviews, f"method.name={name}", "training.learning_rate=5e-3", *tokens)
    whole = lorafit.train(config, output=tmp_path / "whole")
    with pytest.raises(TrainingInterruptedError):
        lorafit.train(config, output=tmp_path / "parts", progress=StopAt(9))
    parts = resume(tmp_path / "parts")
    assert parts.record.files == whole.record.files


@pytest.mark.slow
def test_virtual_tokens_are_taken_off_the_length(encoder: Path, word_reviews: Path, tmp_path: Path) -> None:
    config = build_config(encoder, word_reviews, "method.name=prompt_tuning", "method.virtual_tokens=20")
    run = lorafit.train(config, output=tmp_path / "run")
    assert run.record.max_length == 12
    assert run.load().predict_proba(["a superb film " * 40]).shape == (1, 2)
    with pytest.raises(ConfigError, match=r"virtual_tokens=25 leaves 7 of model\.max_length=32"):
        lorafit.train(build_config(encoder, word_reviews, "method.name=p_tuning", "method.virtual_tokens=25"))


def test_head_alone_is_trained_and_measured_on_what_the_frozen_encoder_gives(
    encoder: Path, word_reviews: Path, tmp_path: Path
) -> None:
    """The lowest layers are computed once; the result is that of computing them every time."""
    settings = ("method.name=head_only", "training.learning_rate=0.02")
    kept, never = (
        lorafit.train(
            build_config(encoder, word_reviews, *settings, f"training.prefix_cache={cache}"), output=tmp_path / cache
        )
        for cache in ("auto", "never")
    )
    stages = ["save check", "frozen layers", "training", "saving", "evaluation", "graph"]
    assert list(kept.record.seconds) == stages, "none is trained"
    assert list(kept.metrics.baselines) == ["majority"]
    assert kept.record.files["model.safetensors"] == never.record.files["model.safetensors"]
    assert np.array_equal(kept.load().predict_proba(TEXTS), never.load().predict_proba(TEXTS))
    again, before = list_values(evaluate(kept.path).after), list_values(kept.metrics.after)
    assert again == pytest.approx(before, rel=1e-6), "in fused blocks again"


def test_option_that_peft_does_not_know_is_refused_by_name(encoder: Path, word_reviews: Path) -> None:
    with pytest.raises(ConfigError, match=r"LoRA cannot be put on this encoder: .*'banana'"):
        lorafit.train(build_config(encoder, word_reviews, "method.options={banana: 1}"))
