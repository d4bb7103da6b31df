"""`--method auto`: what is chosen, what it says of it, and that what was trained while choosing is the run's own."""

import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import lorafit
from lorafit.config import Config, load_config, override_config
from lorafit.errors import ConfigError
from lorafit.models.methods import find_method
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import RunRecord
from lorafit.system.progress import Silent
from lorafit.tasks.base import TargetScaler
from lorafit.training import choice
from lorafit.training.planning.memory import MemoryPlan
from lorafit.training.prepare import Prepared, load_material


@pytest.fixture(scope="module")
def encoder(build_encoder: Callable[..., Path]) -> Path:
    """A tiny encoder whose random weights are so large that the text reaches the head."""
    return build_encoder("distilbert", initializer_range=0.2)


@pytest.fixture
def settings(encoder: Path, word_reviews: Path) -> Callable[..., Config]:
    def build(*more: str) -> Config:
        plain = (
            "evaluation.report=false",
            "evaluation.bootstrap_samples=100",
            "training.threads=1",
            "training.epochs=2",
        )
        given = (
            f"model.name={encoder}",
            "model.max_length=64",
            f"data.source={word_reviews}",
            "method.name=auto",
            "training.learning_rate=1e-2",
        )
        return load_config(overrides=[*plain, *given, *more])

    return build


class Lines(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.parametrize(
    ("winner", "rate", "epochs"),
    [
        ("lora", 1e-9, 12),  # by its head alone
        pytest.param("embedding", 1e-9, 1, marks=pytest.mark.slow),
        pytest.param("setfit", 3e-3, 4, marks=pytest.mark.slow),
    ],
)
def test_the_lowest_validation_loss_decides_and_nothing_is_trained_twice(
    settings: Callable[..., Config], tmp_path: Path, winner: str, rate: float, epochs: int
) -> None:
    given = (f"training.learning_rate={rate}", f"training.epochs={epochs}", "training.evaluations_per_epoch=1")
    given += ("training.head_learning_rate=3e-2",)
    config, lines = settings("data.validation_fraction=0.3", *given), Lines()
    run = lorafit.train(config, output=tmp_path / "run", progress=lines)
    found = run.record.choice
    assert found is not None
    assert set(found.losses) == {"embedding", "setfit", "lora"}
    assert run.record.method == found.method == min(found.losses, key=lambda name: found.losses[name]) == winner
    held_out = sum(run.record.data.splits[name].rows for name in ("validation", "calibration"))
    assert found.reason == f"by the lowest loss of {held_out} held-out rows"
    assert {"choosing", "training"} <= set(run.record.seconds)
    last = lines.said.index("trying LoRA")
    assert sum(line.startswith("epoch ") for line in lines.said[last:]) == epochs, "those of LoRA's trial alone"
    config.method.name = winner
    alone = lorafit.train(config, output=tmp_path / "named")
    assert alone.record.choice is None
    assert alone.metrics.after == run.metrics.after
    weights = next(name for name in run.record.files if name.endswith("model.safetensors"))
    assert alone.record.files[weights] == run.record.files[weights]
    predictor = lorafit.load(run.path, blend=False)
    splits = load_material(config).splits
    parts = [splits.validation, splits.calibration]
    logits = np.concatenate([predictor.compute_logits([str(text) for text in part.texts]) for part in parts if part])
    y = np.concatenate([part.y for part in parts if part])
    loss = splits.task.validation_metrics(y, logits, TargetScaler())["calibrated_loss"]
    assert found.losses[winner] == pytest.approx(loss, rel=1e-3)


def test_out_of_fold_losses_decide_where_no_rows_validate(settings: Callable[..., Config], tmp_path: Path) -> None:
    lines = Lines()
    run = lorafit.train(settings("training.learning_rate=3e-3"), output=tmp_path / "run", progress=lines)
    found, rows = run.record.choice, run.record.data.splits["train"].rows
    assert found is not None
    assert found.reason == f"by the lowest loss of {rows} training rows out of fold"
    assert set(found.losses) == {"embedding", "setfit"}
    assert lines.said.count("fold 1 of 5") == 1, "that of SetFit's trial, and none of the run"
    assert run.record.cross_fitted_folds == 5
    assert not RunLayout(run.path).cross_fitting.exists()


@pytest.mark.slow
def test_a_method_that_the_memory_has_no_room_for_is_not_chosen(
    settings: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, config = Lines(), settings("training.learning_rate=3e-3")
    monkeypatch.setattr(choice, "fit_to_memory", partial(choice.fit_to_memory, room=1000))
    run = lorafit.train(config, output=tmp_path / "run", progress=lines)
    assert run.record.choice is not None
    assert run.record.method == "embedding"
    assert set(run.record.choice.losses) == {"embedding"}
    assert any("memory" in line for line in lines.said)


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("data.validation_fraction=0.3",)])
def test_batches_that_were_made_smaller_for_the_memory_are_the_runs(
    settings: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    def shrink(prepared: Prepared) -> MemoryPlan:
        config = override_config(prepared.config, {"training.batch_tokens": 64})
        return MemoryPlan(replace(prepared, config=config), 0, ("smaller batches",))

    monkeypatch.setattr(choice, "fit_to_memory", shrink)
    given = ("training.learning_rate=3e-3", "training.epochs=6", *more)
    lines = Lines()
    run = lorafit.train(settings(*given), output=tmp_path / "run", progress=lines)
    assert run.record.method != "embedding"
    assert load_config(RunLayout(run.path).config).training.batch_tokens == 64
    assert run.record.events == ["smaller batches"]
    assert lines.said.count("fold 1 of 5") == (0 if more else 1), "folds are not trained again"


class CtrlC(Silent):
    """Interrupts the first training with steps."""

    def update(self, done: int, **measured: float | None) -> None:
        if done and "loss" in measured:
            signal.raise_signal(signal.SIGINT)


def test_stopped_while_it_chooses_it_leaves_nothing(settings: Callable[..., Config], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        lorafit.train(settings(), output=tmp_path / "run", progress=CtrlC())
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_method_that_diverges_is_not_chosen(settings: Callable[..., Config]) -> None:
    given = ("training.learning_rate=1e30", "data.validation_fraction=0.3", "training.max_grad_norm=1e30")
    with choice.choose_method(settings(*given), Silent()) as found:
        assert found.record is not None
        assert found.record.method == "embedding"
        assert set(found.record.losses) == {"embedding"}


def test_of_a_handful_of_rows_the_embeddings_are_taken(settings: Callable[..., Config], tmp_path: Path) -> None:
    run = lorafit.train(settings("data.max_rows=12"), output=tmp_path / "run")
    assert run.record.choice is not None
    assert run.record.choice.describe() == "embedding was chosen for 12 training rows."
    assert run.record.method == "embedding"
    assert RunRecord.read(RunLayout(run.path).record).choice == run.record.choice
    assert load_config(run.path / "config.yaml").method.name == "embedding"


def test_of_many_rows_lora_is_taken(
    settings: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(choice, "_MANY_ROWS", 50)
    with choice.choose_method(settings(), Silent()) as found:
        assert found.config.method.name == "lora"
        assert found.record is not None
        assert found.record.describe().startswith("lora was chosen for ")


def test_a_decoder_is_adapted_by_lora(settings: Callable[..., Config], build_encoder: Callable[..., Path]) -> None:
    with choice.choose_method(settings(f"model.name={build_encoder('qwen2')}"), Silent()) as found:
        assert found.record is not None
        assert found.record.describe() == "lora was chosen as embedding cannot adapt qwen2."


def test_settings_of_a_method_are_for_the_one_that_takes_them(settings: Callable[..., Config]) -> None:
    with choice.choose_method(settings("method.r=2"), Silent()) as found:
        assert found.config.method.r is None


def test_a_budget_is_refused(settings: Callable[..., Config], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"auto cannot be planned for a budget: .*leave --budget out\.$"):
        lorafit.train(settings("training.budget=1m"), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_elsewhere_a_method_must_be_named() -> None:
    with pytest.raises(
        ConfigError, match=r"auto is for `lorafit train`, which then chooses; here a method must be named"
    ):
        find_method("auto")
