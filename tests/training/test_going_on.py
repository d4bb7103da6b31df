"""Runs that go on after their checkpoints were damaged or their training diverged."""

import json
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lorafit.config import Config, load_config
from lorafit.data.writing import write_table
from lorafit.errors import TrainingDivergedError
from lorafit.models.acceleration.encoder_block import FusedBlock
from lorafit.models.acceleration.precision import choose_precision
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import RunRecord
from lorafit.system.progress import Silent
from lorafit.training.prepare import prepare
from lorafit.training.stages import RunStages

TOO_HIGH = 1e3
"""A learning rate with which training diverges at step 5, and with a fifth of which it does not."""


class Lines(Silent):
    """Keeps what is said, and interrupts when a step is done."""

    def __init__(self, step: int = 0) -> None:
        self.step = step
        self.lines: list[str] = []
        self.steps: list[int] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def update(self, done: int, **_: float) -> None:
        self.steps.append(done)
        if done == self.step:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def config(build_encoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A training of 14 steps with a checkpoint after each."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "data.parquet"
    words = (("awful", "boring"), ("lovely", "superb"))
    labels = [row % 2 for row in range(120)]
    texts = [f"{rng.choice(words[label])} film {row}" for row, label in enumerate(labels)]
    write_table(path, {"text": texts, "label": labels})
    return load_config(
        flags={
            "data.source": str(path),
            "data.validation_fraction": 0.1,
            "model.name": str(build_encoder("distilbert")),
            "model.max_length": 32,
            "training.batch_size": 16,
            "training.threads": 1,
            "training.learning_rate": 0.01,
            "training.epochs": 2,
            "training.evaluations_per_epoch": 100,
            "training.early_stopping_patience": 0,
            "training.precision": "fp32",
            "evaluation.before": False,
        }
    )


def change(config: Config, **settings: Any) -> Config:
    changed = config.model_copy(deep=True)
    for name, value in settings.items():
        setattr(changed.training, name, value)
    return changed


def begin(config: Config, folder: Path, progress: Silent | None = None) -> RunStages:
    progress = progress or Silent()
    return RunStages.begin(prepare(config, progress), RunLayout(folder), progress)


def resume(folder: Path, progress: Silent | None = None) -> RunStages:
    progress = progress or Silent()
    return RunStages.resume(prepare(load_config(folder / "config.yaml"), progress), RunLayout(folder), progress)


def interrupt(config: Config, folder: Path, *, step: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        begin(config, folder, Lines(step)).fit()


def weights(stages: RunStages) -> dict[str, torch.Tensor]:
    model = stages.prepared.adapted.model
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}


def assert_same(stages: RunStages, expected: RunStages) -> None:
    one, other = weights(stages), weights(expected)
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    first, second = stages.journal.record.training, expected.journal.record.training
    assert first is not None
    assert second is not None
    for name in ("steps", "best_step", "best_validation_loss", "tokens"):
        assert getattr(first, name) == getattr(second, name), name


@pytest.fixture(scope="module")
def whole(config: Config, tmp_path_factory: pytest.TempPathFactory) -> RunStages:
    """The same training, undisturbed."""
    stages = begin(config, tmp_path_factory.mktemp("whole") / "run")
    stages.fit()
    return stages


def alter(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def lose(path: Path) -> None:
    shutil.rmtree(path.parent)


@pytest.mark.parametrize(
    ("which", "damage"),
    [
        ("newest", alter),
        ("best", alter),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in product(("newest", "best"), (cut, lose))),
    ],
)
def test_resumed_run_ends_as_if_its_checkpoint_had_not_been_damaged(
    config: Config, whole: RunStages, tmp_path: Path, which: str, damage: Callable[[Path], None]
) -> None:
    record = whole.journal.record.training
    assert record is not None
    step = next(step for step in range(9, 5, -1) if best_until(whole, step) != step)
    interrupt(config, tmp_path / "run", step=step + 1)
    checkpoints = RunLayout(tmp_path / "run").checkpoints
    best = best_until(whole, step)
    assert {path.name for path in checkpoints.iterdir()} == {f"checkpoint-{step}", f"checkpoint-{best}"}
    damaged = checkpoints / f"checkpoint-{step if which == 'newest' else best}"
    damage(damaged / "adapter_model.safetensors")
    progress = Lines()
    stages = resume(tmp_path / "run", progress)
    stages.fit()
    assert_same(stages, whole)
    events = RunRecord.read(stages.layout.record).events
    if which == "newest" and damage is lose:
        assert events == []
    else:
        assert any(damaged.name in event for event in events)
        assert [line for line in progress.lines if line in events] == events, "what is recorded is said"
    assert progress.steps[0] == (best + 1 if which == "newest" else 1)


def best_until(stages: RunStages, step: int) -> int:
    """Return the step of the lowest validation loss so far."""
    losses = {
        entry["step"]: entry["eval_calibrated_loss"]
        for entry in read_history(stages)
        if "eval_calibrated_loss" in entry and entry["step"] <= step
    }
    return min(losses, key=lambda step: (losses[step], step))


def read_history(stages: RunStages) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stages.layout.history.read_text().splitlines()]


def test_diverged_run_says_what_would_help_and_does_it_when_resumed(config: Config, tmp_path: Path) -> None:
    stages = begin(change(config, learning_rate=TOO_HIGH), tmp_path / "run")
    command = r"Or go on from the last checkpoint with training\.learning_rate=200:\n  lorafit train --resume \S+run$"
    with pytest.raises(TrainingDivergedError, match=command), stages.journal.kept():
        stages.fit()
    record = RunRecord.read(stages.layout.record)
    assert record.status == "failed"
    assert record.divergence is not None
    best = best_until(stages, 4)
    assert best < 4, "it went wrong before it diverged"
    assert record.divergence.settings == {"training.learning_rate": 200}
    assert record.divergence.fault in record.events
    progress = Lines()
    again = resume(tmp_path / "run", progress)
    again.fit()
    assert progress.steps[0] == best + 1, "what was good is kept"
    assert_lower_rate(again)
    event = "training goes on with training.learning_rate=200, because it had diverged"
    assert event in progress.lines
    assert RunRecord.read(again.layout.record).events == [record.divergence.fault, event]


@pytest.mark.slow
def test_run_that_is_to_retry_does_so_by_itself_and_the_same(config: Config, tmp_path: Path) -> None:
    settings = change(config, learning_rate=TOO_HIGH)
    stopped = begin(settings, tmp_path / "stopped")
    with pytest.raises(TrainingDivergedError):
        stopped.fit()
    resumed = resume(tmp_path / "stopped")
    resumed.fit()
    progress = Lines()
    stages = begin(change(settings, on_divergence="retry"), tmp_path / "retried", progress)
    stages.fit()
    assert_same(stages, resumed)
    assert_lower_rate(stages)
    assert stages.journal.record.events == resumed.journal.record.events
    assert [line for line in progress.lines if line in stages.journal.record.events] == stages.journal.record.events


@pytest.mark.slow
def test_interrupted_retry_is_resumed_with_the_lower_rate(config: Config, tmp_path: Path) -> None:
    settings = change(config, learning_rate=TOO_HIGH, on_divergence="retry")
    whole = begin(settings, tmp_path / "whole")
    whole.fit()
    interrupt(settings, tmp_path / "run", step=8)
    again = resume(tmp_path / "run")
    again.fit()
    assert_same(again, whole)
    assert_lower_rate(again)


def assert_lower_rate(stages: RunStages) -> None:
    rates = {entry["step"]: entry["learning_rate"] for entry in read_history(stages) if "learning_rate" in entry}
    assert 180 < max(rate for step, rate in rates.items() if step > 2) <= 200, "two steps were good"


@pytest.mark.slow
def test_retry_is_made_once(config: Config, tmp_path: Path) -> None:
    stages = begin(change(config, learning_rate=1e14, on_divergence="retry"), tmp_path / "run")
    message = r"It had diverged before, and went on with training\.learning_rate=2e\+13\.$"
    with pytest.raises(TrainingDivergedError, match=message), stages.journal.kept():
        stages.fit()
    record = RunRecord.read(stages.layout.record)
    assert record.status == "failed"
    assert len(record.events) == 3
    assert not stages.layout.adapter.exists()


@pytest.mark.skipif(choose_precision("auto").name != "bf16", reason="this CPU has no bfloat16 unit")
def test_retry_of_bf16_is_made_in_fp32(config: Config, whole: RunStages, tmp_path: Path) -> None:
    stages = begin(change(config, precision="bf16", on_divergence="retry"), tmp_path / "run")
    assert stages.journal.record.hardware.precision == "bf16"
    block = next(part for part in stages.prepared.adapted.model.modules() if isinstance(part, FusedBlock))
    block.register_forward_hook(lambda _, __, output: output * (torch.nan if output.dtype == torch.bfloat16 else 1))
    stages.fit()
    assert RunRecord.read(stages.layout.record).hardware.precision == "fp32"
    assert_same(stages, whole)


def test_rows_without_numbers_are_named_and_nothing_is_written(config: Config, tmp_path: Path) -> None:
    stages = begin(config, tmp_path / "run")
    texts, tokens = stages.prepared.splits.test, stages.prepared.tokens["test"]
    row = 3
    token = int(tokens.ids[tokens.offsets[row + 1] - 2])
    rows = [place for place in range(len(texts)) if token in tokens.ids[slice(*tokens.offsets[place : place + 2])]]
    embeddings = stages.prepared.adapted.model.get_input_embeddings()
    with torch.no_grad():
        embeddings.weight[token] = torch.nan
    numbers = ", ".join(str(texts.ids[place]) for place in rows[:10])
    with pytest.raises(TrainingDivergedError, match=f"no numbers for test rows? {numbers}"):
        stages.evaluate()
    assert not stages.layout.metrics.exists()
    assert not stages.layout.predictions("test", "after").exists()
