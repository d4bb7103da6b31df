import dataclasses
import json
import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lorafit.config import MethodConfig, ModelConfig, TrainingConfig
from lorafit.errors import RunError, TrainingInterruptedError
from lorafit.models.acceleration.precision import PrecisionChoice, choose_precision
from lorafit.models.adaptation import apply_method
from lorafit.models.load import load_with_head, locate_encoder
from lorafit.models.method_settings import complete_method
from lorafit.models.tokenization import TokenizedTexts
from lorafit.runs.records import TrainingRecord
from lorafit.system.progress import Silent
from lorafit.system.signals import SIGNALS
from lorafit.tasks.registry import build_task
from lorafit.training.callbacks import Schedule
from lorafit.training.checkpoints import find_checkpoint, mark_complete
from lorafit.training.job import TrainingJob
from lorafit.training.trainer import build_arguments, build_optimizer, fit

BuildJob = Callable[..., TrainingJob]

STEPS_PER_EPOCH = 6
"""Batches of the job's 45 rows; a test holds it."""

CHILD = """
import runpy, sys, time
from pathlib import Path
import torch
from lorafit.errors import TrainingInterruptedError
from lorafit.system.progress import Silent
from lorafit.system.signals import SIGNALS
from lorafit.training.job import TrainingJob
from lorafit.training.trainer import fit
from lorafit.models.acceleration.precision import PrecisionChoice
from lorafit.runs.folder import RunLayout
from lorafit.config import MethodConfig, TrainingConfig

class Slow(Silent):
    def update(self, done, **figures):
        print(done, flush=True)
        time.sleep(0.1)

toys = runpy.run_path(sys.argv[1])
torch.set_num_threads(1)
adapted = toys["build_adapted"](Path(sys.argv[2]), seed=3)
sizes = {"batch_size": 8, "batch_tokens": 120, "evaluations_per_epoch": 2}
config = TrainingConfig(learning_rate=5e-4, epochs=50, early_stopping_patience=0, seed=3, **sizes)
rows = toys["build_rows"](45, seed=1)
validate = lambda: toys["measure"](adapted, rows)
layout, precision = RunLayout(Path(sys.argv[3])), PrecisionChoice("fp32", "")
metrics = toys["TASK"].metrics
job = TrainingJob(adapted, rows, config, MethodConfig(), layout, precision, validate, metrics, range(45))
try:
    fit(job, progress=Slow())
except TrainingInterruptedError as error:
    print(error.run, error, flush=True)
    sys.exit(error.exit_code)
"""


class StopAt(Silent):
    """Sends this process a real signal when a step is done."""

    def __init__(self, step: int, number: signal.Signals = signal.SIGINT, times: int = 1) -> None:
        self.step, self.number, self.times = step, number, times
        self.lines: list[str] = []

    def update(self, done: int, **_: float) -> None:
        if done == self.step:
            for turn in range(self.times):
                time.sleep(0.3 * turn)  # at once it would be the same signal, from the process group
                signal.raise_signal(self.number)

    def say(self, line: str) -> None:
        self.lines.append(line)


def script(*losses: float) -> Callable[[], dict[str, float]]:
    """A validation that gives these losses, one after the other."""
    remaining = iter(losses)

    def validate() -> dict[str, float]:
        loss = next(remaining)
        return {"loss": loss, "calibrated_loss": loss, "accuracy": 0.5}

    return validate


def weights(job: TrainingJob) -> dict[str, torch.Tensor]:
    return {name: t.detach().clone() for name, t in job.adapted.model.named_parameters() if t.requires_grad}


def are_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def history(job: TrainingJob) -> list[dict[str, Any]]:
    return [json.loads(line) for line in job.layout.history.read_text().splitlines()]


def evaluations(job: TrainingJob) -> dict[int, float]:
    return {entry["step"]: entry["eval_loss"] for entry in history(job) if "eval_loss" in entry}


def seen(job: TrainingJob) -> list[list[int]]:
    batches: list[list[int]] = job.rows.seen  # type: ignore[attr-defined]
    return batches


def interrupt(job: TrainingJob, step: int) -> None:
    with pytest.raises(TrainingInterruptedError):
        fit(job, progress=StopAt(step))


def resume(job: TrainingJob) -> TrainingRecord:
    choice = find_checkpoint(job.layout.checkpoints)
    assert choice.checkpoint is not None
    assert choice.passed_over == {}
    return fit(job, progress=Silent(), resume_from=choice.checkpoint)


@pytest.fixture(scope="module")
def uninterrupted() -> dict[str, Any]:
    """What the job with default settings gives when nothing interrupts it; filled by the first test that asks."""
    return {}


@pytest.fixture
def reference(make_job: BuildJob, uninterrupted: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    if not uninterrupted:
        job = make_job(folder=tmp_path / "reference")
        record = fit(job, progress=Silent())
        uninterrupted |= {"record": record, "weights": weights(job), "seen": seen(job), "evals": evaluations(job)}
        uninterrupted["last"] = (job.layout.checkpoints / "checkpoint-18" / "adapter_model.safetensors").read_bytes()
    return uninterrupted


def test_every_epoch_sees_each_row_once_in_the_same_number_of_batches(reference: dict[str, Any]) -> None:
    batches = reference["seen"]
    assert len(batches) == 3 * STEPS_PER_EPOCH == reference["record"].steps
    epochs = [batches[start : start + STEPS_PER_EPOCH] for start in range(0, len(batches), STEPS_PER_EPOCH)]
    for epoch in epochs:
        assert sorted(row for batch in epoch for row in batch) == list(range(45))
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("step", [2, 3, 6, 9, 11, 18])
def test_interrupted_and_resumed_training_is_the_same_to_the_bit(
    make_job: BuildJob, reference: dict[str, Any], step: int
) -> None:
    first = make_job()
    interrupt(first, step)
    second = make_job()
    record = resume(second)
    assert seen(first) + seen(second) == reference["seen"]
    assert are_equal(weights(second), reference["weights"])
    last = second.layout.checkpoints / "checkpoint-18" / "adapter_model.safetensors"
    assert last.read_bytes() == reference["last"]
    assert evaluations(second) == reference["evals"]
    same = ("steps", "epochs", "best_step", "best_validation_loss", "stopped_early", "tokens", "padding_share")
    assert {name: getattr(record, name) for name in same} == {name: getattr(reference["record"], name) for name in same}


def shorten(job: TrainingJob) -> TrainingJob:
    """Let the job begin with the first three tokens of each text."""
    whole = job.rows.texts
    ids = np.concatenate([whole[row][:3] for row in range(len(whole))])
    return replace(job, rows=replace(job.rows, short=TokenizedTexts(ids, np.arange(len(whole) + 1) * 3, truncated=0)))


@pytest.mark.parametrize("step", [4, 9, 14])
def test_training_that_begins_with_short_texts_goes_on_the_same_to_the_bit(
    make_job: BuildJob, tmp_path: Path, step: int
) -> None:
    whole = shorten(make_job(folder=tmp_path / "whole"))
    record = fit(whole, progress=Silent())
    lengths = [
        np.where(np.array(batch) < 45, whole.rows.texts.lengths[np.array(batch) % 45], 3) for batch in seen(whole)
    ]
    assert [bool((part == 3).all()) for part in lengths] == [True] * 9 + [False] * 9
    assert record.tokens == sum(part.sum() for part in lengths)
    positions = sum(part.max() * len(part) for part in lengths)
    assert record.padding_share == pytest.approx(1 - record.tokens / positions, abs=0.02)
    first = shorten(make_job())
    interrupt(first, step)
    second = shorten(make_job())
    assert resume(second).tokens == record.tokens
    assert are_equal(weights(second), weights(whole))


def test_training_twice_gives_the_same(make_job: BuildJob, reference: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(12345)
    again = make_job(folder=tmp_path / "again")
    fit(again, progress=Silent())
    assert are_equal(weights(again), reference["weights"])
    other = make_job(folder=tmp_path / "other", seed=4)
    fit(other, progress=Silent())
    assert not are_equal(weights(other), reference["weights"])


def test_balanced_training_is_resumed_with_the_same_batches(make_job: BuildJob, tmp_path: Path) -> None:
    def make(folder: str) -> TrainingJob:
        job = make_job(folder=tmp_path / folder, epochs=2, loss="focal")
        groups = (np.arange(45) >= 40).astype(np.int64)
        return dataclasses.replace(job, rows=dataclasses.replace(job.rows, groups=groups))

    whole, first, second = make("whole"), make("broken"), make("broken")
    steps = fit(whole, progress=Silent()).steps
    batches = seen(whole)
    for epoch in (batches[: steps // 2], batches[steps // 2 :]):
        rare = [row >= 40 for batch in epoch for row in batch]
        assert (sum(rare), len(rare)) == (23, 46), "the five rare rows are half of each epoch"
    interrupt(first, steps // 2 + 1)
    resume(second)
    assert seen(first) + seen(second) == batches
    assert are_equal(weights(second), weights(whole))


def test_rows_that_count_nothing_teach_nothing(make_job: BuildJob, tmp_path: Path) -> None:
    def train(folder: str, *, swap: bool) -> dict[str, torch.Tensor]:
        job = make_job(folder=tmp_path / folder, epochs=1)
        chosen, labels = np.arange(45) % 3 == 0, job.rows.labels
        labels = np.where(chosen & swap, 1 - labels, labels)
        rows = dataclasses.replace(job.rows, labels=labels, weights=np.where(chosen, 0, 1.5).astype(np.float32))
        fit(dataclasses.replace(job, rows=rows), progress=Silent())
        return weights(job)

    one, other = train("one", swap=False), train("other", swap=True)
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], msg="their labels do not matter")


def test_what_a_method_adds_to_the_loss_stays_where_rows_have_weights(make_job: BuildJob, tmp_path: Path) -> None:
    def train(folder: str, counts: NDArray[np.float32] | None) -> dict[str, torch.Tensor]:
        job = make_job(folder=tmp_path / folder, method=MethodConfig(name="adalora", r=4), epochs=2)
        rows = dataclasses.replace(job.rows, weights=counts)
        fit(dataclasses.replace(job, rows=rows), progress=Silent())
        return weights(job)

    plain, weighed = train("plain", None), train("weighed", np.ones(45, dtype=np.float32))
    for name, tensor in plain.items():
        torch.testing.assert_close(tensor, weighed[name], atol=1e-4, rtol=1e-3)


def test_loss_falls_on_a_task_that_can_be_learned(make_job: BuildJob) -> None:
    job = make_job(epochs=12, learning_rate=1e-2)
    before = job.validate()
    record = fit(job, progress=Silent())
    after = job.validate()
    assert after["loss"] < 0.5 * before["loss"]
    assert after["accuracy"] > 0.9
    losses = [entry["loss"] for entry in history(job) if "loss" in entry]
    assert losses[-1] < 0.5 * losses[0]
    assert record.adapted_modules == 12


def test_model_holds_the_weights_of_the_lowest_calibrated_loss_whatever_the_plain_one(make_job: BuildJob) -> None:
    losses, kept = iter([0.9, 0.8, 0.3, 0.7, 0.6, 0.5]), []

    def validate() -> dict[str, float]:
        kept.append(weights(job))
        loss = next(losses)
        return {"loss": 1 - loss, "calibrated_loss": loss, "accuracy": 0.5}

    job = dataclasses.replace(make_job(), validate=validate)
    record = fit(job, progress=Silent())
    assert (record.best_step, record.best_validation_loss) == (9, 0.3)
    assert are_equal(weights(job), kept[2])
    assert not are_equal(weights(job), kept[5])


def test_validation_loss_of_the_model_is_the_best_that_was_measured(make_job: BuildJob) -> None:
    job = make_job(epochs=6, learning_rate=3e-2)
    record = fit(job, progress=Silent())
    assert job.validate()["loss"] == record.best_validation_loss == min(evaluations(job).values())
    assert evaluations(job)[record.best_step] == record.best_validation_loss
    assert not job.adapted.model.training


def test_loss_of_zero_is_the_best_there_is(make_job: BuildJob) -> None:
    record = fit(make_job(epochs=1, validate=script(0.5, 0.0)), progress=Silent())
    assert (record.best_step, record.best_validation_loss) == (6, 0.0)


def test_training_stops_when_validation_loss_no_longer_falls(make_job: BuildJob) -> None:
    job = make_job(epochs=10, early_stopping_patience=2, validate=script(0.5, 0.4, 0.45, 0.41, 0.1))
    record = fit(job, progress=Silent())
    assert (record.steps, record.best_step, record.best_validation_loss) == (12, 6, 0.4)
    assert record.stopped_early
    assert record.epochs == 2


def test_patience_is_kept_through_an_interruption(make_job: BuildJob) -> None:
    losses = [0.5, 0.4, 0.45, 0.41, 0.1]
    interrupt(make_job(epochs=10, early_stopping_patience=2, validate=script(*losses)), 10)
    record = resume(make_job(epochs=10, early_stopping_patience=2, validate=script(*losses[3:])))
    assert (record.steps, record.best_step) == (12, 6)


def test_training_that_stopped_early_does_not_go_on_when_resumed(make_job: BuildJob) -> None:
    settings = {"epochs": 10, "early_stopping_patience": 2}
    first = make_job(**settings, validate=script(0.5, 0.4, 0.45, 0.41))
    record = fit(first, progress=Silent())
    second = make_job(**settings, validate=script())
    again = resume(second)
    assert seen(second) == []
    assert are_equal(weights(second), weights(first))
    assert (again.steps, again.best_step, again.stopped_early) == (record.steps, record.best_step, True)
    assert not second.adapted.model.training


@pytest.mark.parametrize("max_steps", [10, 12])
def test_training_at_its_last_step_does_not_go_on_when_resumed(make_job: BuildJob, max_steps: int) -> None:
    first = make_job(max_steps=max_steps)
    record = fit(first, progress=Silent())
    second = make_job(max_steps=max_steps)
    again = resume(second)
    assert seen(second) == []
    assert are_equal(weights(second), weights(first))
    assert (again.steps, again.tokens) == (record.steps, record.tokens)
    assert again.tokens_per_second == pytest.approx(record.tokens_per_second, rel=0.2)


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"epochs": 2}, [3, 6, 9, 12]),
        ({"epochs": 1, "evaluations_per_epoch": 1}, [6]),
        ({"epochs": 1, "evaluations_per_epoch": 100}, [1, 2, 3, 4, 5, 6]),
        ({"max_steps": 10}, [3, 6, 9, 10]),
        ({"max_steps": 2}, [2]),
        ({"max_steps": 8, "evaluations_per_epoch": 1, "epochs": 1}, [6, 8]),
    ],
)
def test_validation_happens_at_the_points_of_the_schedule_and_at_the_last_step(
    make_job: BuildJob, settings: dict[str, int], steps: list[int]
) -> None:
    job = make_job(**settings)
    record = fit(job, progress=Silent())
    assert list(evaluations(job)) == steps
    assert record.steps == steps[-1]
    assert not record.stopped_early
    assert find_checkpoint(job.layout.checkpoints).checkpoint == job.layout.checkpoints / f"checkpoint-{steps[-1]}"


@pytest.mark.parametrize("steps_per_epoch", [1, 2, 5, 7, 100])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_schedule_has_as_many_points_as_asked_for_and_ends_the_epoch(steps_per_epoch: int, count: int) -> None:
    points = sorted(Schedule(steps_per_epoch=steps_per_epoch, evaluations_per_epoch=count)._points)
    assert len(points) == min(count, steps_per_epoch)
    assert points[-1] == steps_per_epoch
    assert points[0] >= 1


@pytest.mark.parametrize(("apart", "saved"), [(0.0, {6, 12}), (60.0, {12})], ids=["long", "short"])
def test_without_validation_checkpoints_are_some_time_apart(
    make_job: BuildJob, monkeypatch: pytest.MonkeyPatch, apart: float, saved: set[int]
) -> None:
    monkeypatch.setattr("lorafit.training.callbacks._SECONDS_APART", apart)
    monkeypatch.setattr("lorafit.training.callbacks._CHECKPOINTS", 2)
    job = replace(make_job(epochs=2), validate=None)
    fit(job, progress=Silent())
    assert {path.name for path in job.layout.checkpoints.iterdir()} == {f"checkpoint-{step}" for step in saved}


@pytest.mark.parametrize("method", ["lora", "p_tuning"])
def test_training_that_need_not_go_on_ends_the_same_and_writes_no_checkpoint(
    make_job: BuildJob, tmp_path: Path, method: str
) -> None:
    def train(folder: str, *, resumable: bool) -> tuple[TrainingJob, TrainingRecord, torch.Tensor]:
        job = make_job(epochs=1, folder=tmp_path / folder, method=MethodConfig(name=method))
        job = replace(job, validate=None, resumable=resumable)
        record = fit(job, progress=Silent())
        with torch.no_grad():
            logits = job.adapted.model.eval()(**job.rows.collate(range(8))).logits
        return job, record, logits

    _, _, expected = train("kept", resumable=True)
    job, record, logits = train("other", resumable=False)
    assert not list(job.layout.checkpoints.glob("*"))
    assert record.best_step == record.steps == STEPS_PER_EPOCH
    torch.testing.assert_close(logits, expected)


def test_history_has_a_line_for_each_logged_step_and_evaluation(make_job: BuildJob) -> None:
    job = make_job(epochs=2)
    fit(job, progress=Silent())
    entries = history(job)
    steps = [entry for entry in entries if "loss" in entry]
    assert [entry["step"] for entry in steps] == [1, 3, 6, 9, 10, 12], "every tenth, and with every evaluation"
    assert all({"grad_norm", "learning_rate", "epoch"} <= entry.keys() for entry in steps)
    assert [entry["eval_accuracy"] for entry in entries if "eval_loss" in entry] == pytest.approx([0.5] * 4, abs=0.5)


def test_learning_rate_rises_then_falls_to_zero(make_job: BuildJob) -> None:
    job = make_job(epochs=3, warmup_ratio=0.5, learning_rate=1e-3)
    fit(job, progress=Silent())
    rates = {entry["step"]: entry["learning_rate"] for entry in history(job) if "learning_rate" in entry}
    assert {1: rates[1], 10: rates[10]} == pytest.approx({1: 0.0, 10: 1e-3})
    assert rates[max(rates)] < 1e-3


def test_tokens_are_those_of_all_rows_in_all_epochs(make_job: BuildJob) -> None:
    job = make_job(epochs=2)
    record = fit(job, progress=Silent())
    lengths = job.rows.texts.lengths
    assert record.tokens == 2 * lengths.sum()
    positions = sum(len(batch) * int(lengths[batch].max()) for batch in seen(job)[:STEPS_PER_EPOCH])
    assert record.padding_share == pytest.approx(1 - lengths.sum() / positions)
    assert record.epochs == 2


@pytest.mark.slow
def test_speed_leaves_checkpoints_out(make_job: BuildJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_slowly(checkpoint: Path) -> None:
        time.sleep(0.4)
        mark_complete(checkpoint)

    monkeypatch.setattr("lorafit.training.callbacks.mark_complete", write_slowly)
    began = time.perf_counter()
    record = fit(make_job(max_steps=8, evaluations_per_epoch=4), progress=Silent())
    assert time.perf_counter() - began > 1.2
    assert record.tokens / record.tokens_per_second < 0.8


@pytest.mark.slow
def test_speed_leaves_validation_out(make_job: BuildJob) -> None:
    def validate() -> dict[str, float]:
        time.sleep(0.4)
        return {"loss": 0.5, "calibrated_loss": 0.5, "accuracy": 0.5}

    record = fit(make_job(epochs=2, validate=validate), progress=Silent())
    training_seconds = record.tokens / record.tokens_per_second
    assert 0 < training_seconds <= record.seconds - 4 * 0.4


def test_best_weights_are_checked_before_they_become_the_result(make_job: BuildJob, reference: dict[str, Any]) -> None:
    losses = iter([0.9, 0.1, 0.5, 0.5, 0.5, 0.5])

    def validate() -> dict[str, float]:
        loss = next(losses)
        if loss == 0.5:
            best = job.layout.checkpoints / "checkpoint-6" / "adapter_model.safetensors"
            best.write_bytes(best.read_bytes()[:-1] + b"!")
        return {"loss": loss, "calibrated_loss": loss, "accuracy": 0.5}

    job = make_job(validate=validate)
    message = (
        r"checkpoint-6 was damaged during training, adapter_model\.safetensors was altered.* train --resume \S+run$"
    )
    with pytest.raises(RunError, match=message):
        fit(job, progress=Silent())
    choice = find_checkpoint(job.layout.checkpoints)
    assert choice.checkpoint is None
    choice.discard_rest()
    again = make_job()
    fit(again, progress=Silent())
    assert are_equal(weights(again), reference["weights"])


class Payload:
    """What runs code when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Path]]:
        return Path.touch, (self.proof,)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"])
def test_checkpoint_from_elsewhere_runs_no_code(make_job: BuildJob, tmp_path: Path, name: str) -> None:
    interrupt(make_job(), 4)
    job, proof = make_job(), tmp_path / "proof"
    checkpoint = job.layout.checkpoints / "checkpoint-4"
    assert (checkpoint / name).is_file()
    torch.save({"state": Payload(proof)}, checkpoint / name)
    mark_complete(checkpoint)
    if name == "training_args.bin":
        assert resume(job).steps == 18, "it is never read"
    else:
        with pytest.raises(RunError, match=r"checkpoint-4 is no state that this training can go on from\. Remove"):
            resume(job)
    assert not proof.exists()


def test_state_that_makes_no_sense_is_refused_in_one_sentence(make_job: BuildJob) -> None:
    interrupt(make_job(), 4)
    job = make_job()
    checkpoint = job.layout.checkpoints / "checkpoint-4"
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    for wrong in ({**state, "log_history": 3}, {**state, "unknown": 1}, {"best_global_step": None}):
        (checkpoint / "trainer_state.json").write_text(json.dumps(wrong))
        mark_complete(checkpoint)
        with pytest.raises(RunError, match="is no state that this training can go on from"):
            resume(job)


def test_damaged_checkpoint_is_passed_over_and_training_ends_the_same(
    make_job: BuildJob, reference: dict[str, Any]
) -> None:
    first = make_job()
    interrupt(first, 8)
    newest = first.layout.checkpoints / "checkpoint-8"
    (newest / "optimizer.pt").write_bytes((newest / "optimizer.pt").read_bytes()[:-100])
    choice = find_checkpoint(first.layout.checkpoints)
    assert list(choice.passed_over) == [newest]
    assert choice.checkpoint is not None
    second = make_job()
    fit(second, progress=Silent(), resume_from=choice.checkpoint)
    assert are_equal(weights(second), reference["weights"])


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_stops_training_after_the_step_with_a_checkpoint(make_job: BuildJob, number: signal.Signals) -> None:
    job, progress = make_job(), StopAt(4, number)
    handlers = [signal.getsignal(which) for which in SIGNALS]
    with pytest.raises(TrainingInterruptedError, match="Stopped at step 4") as caught:
        fit(job, progress=progress)
    assert caught.value.run == job.layout.root
    assert len(seen(job)) == 4
    assert find_checkpoint(job.layout.checkpoints).checkpoint == job.layout.checkpoints / "checkpoint-4"
    assert [line for line in progress.lines if "once more to stop at once" in line]
    assert [signal.getsignal(which) for which in SIGNALS] == handlers


def test_signal_in_a_validation_that_ends_training_is_heard(make_job: BuildJob) -> None:
    def end(_: float, __: object) -> None:
        signal.raise_signal(signal.SIGINT)
        raise ValueError("enough")

    with pytest.raises(TrainingInterruptedError, match="the last step was not saved") as caught:
        fit(dataclasses.replace(make_job(), on_validation=end), progress=Silent())
    assert str(caught.value.__cause__) == "enough"


def test_every_validation_is_told_with_the_share_of_the_steps_that_is_done(make_job: BuildJob) -> None:
    told: list[tuple[float, float]] = []
    job = dataclasses.replace(make_job(), on_validation=lambda share, figures: told.append((share, figures["loss"])))
    fit(job, progress=Silent())
    measured = evaluations(job)
    assert [(round(share * max(measured)), loss) for share, loss in told] == list(measured.items())


def test_second_signal_stops_at_once(make_job: BuildJob) -> None:
    job = make_job()
    with pytest.raises(KeyboardInterrupt):
        fit(job, progress=StopAt(4, times=2))
    assert find_checkpoint(job.layout.checkpoints).checkpoint == job.layout.checkpoints / "checkpoint-3"


@pytest.mark.slow  # in this process: `test_signal_stops_training_after_the_step_with_a_checkpoint`
def test_interrupted_process_saves_a_checkpoint_and_ends_with_130(tiny_distilbert: Path, tmp_path: Path) -> None:
    toys = Path(__file__).with_name("conftest.py")
    command = [sys.executable, "-c", CHILD, str(toys), str(tiny_distilbert), str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        lines: Iterator[str] = iter(child.stdout.readline, "")
        assert any(line == "4\n" for line in lines), child.stderr.read()
        child.send_signal(signal.SIGINT)
        rest = list(lines)
        assert child.wait(timeout=120) == 130, child.stderr.read()
    assert rest[-1].startswith(f"{tmp_path / 'run'} Stopped at step ")
    choice = find_checkpoint(tmp_path / "run" / "checkpoints")
    assert choice.passed_over == {}
    assert choice.checkpoint is not None
    assert rest[-1].strip().endswith(f"step {choice.checkpoint.name.removeprefix('checkpoint-')}.")


def test_training_works_outside_of_the_main_thread(make_job: BuildJob) -> None:
    records: list[TrainingRecord] = []
    job = make_job(max_steps=2)
    thread = threading.Thread(target=lambda: records.append(fit(job, progress=Silent())))
    thread.start()
    thread.join()
    assert [record.steps for record in records] == [2]


def test_progress_is_told_of_every_step_and_validation(make_job: BuildJob) -> None:
    class Listener(Silent):
        def __init__(self) -> None:
            self.calls: list[Any] = []

        def start(self, stage: str, *, total: int | None = None, unit: str = "", seconds: float | None = None) -> None:
            self.calls.append(("start", stage, total, unit, seconds))

        def update(self, done: int, **figures: float) -> None:
            self.calls.append(done)
            assert figures.keys() == {"loss", "tokens_per_second", "share"}
            assert figures["share"] == pytest.approx(done / 4)
            assert figures["tokens_per_second"] > 0
            assert done == 1 or math.isfinite(figures["loss"])

        def finish(self, note: str = "") -> None:
            self.calls.append(f"finish{note}")

        def say(self, line: str) -> None:
            self.calls.append(line)

    listener = Listener()
    job = dataclasses.replace(make_job(max_steps=4, validate=script(0.5, 0.25)), expected_seconds=12.5)
    fit(job, progress=listener)
    assert listener.calls == [
        ("start", "training", 4, "step", 12.5),
        1,
        2,
        3,
        "epoch 0.50: validation loss 0.5000, accuracy 50.0 %",
        4,
        "epoch 0.67: validation loss 0.2500, accuracy 50.0 %",
        "finish",
    ]


@pytest.mark.skipif(choose_precision("auto").name != "bf16", reason="this CPU has no bfloat16 unit")
def test_matrix_products_run_in_bf16_and_weights_stay_in_fp32(make_job: BuildJob) -> None:
    job = make_job(max_steps=3, precision=PrecisionChoice("bf16", "asked for"))
    kinds: set[torch.dtype] = set()
    layer = job.adapted.model.get_submodule(f"base_model.model.{job.adapted.targets[0]}")
    layer.register_forward_hook(lambda module, _, output: kinds.add(output.dtype) if module.training else None)
    record = fit(job, progress=Silent())
    assert kinds == {torch.bfloat16}
    assert {tensor.dtype for tensor in job.adapted.model.parameters()} == {torch.float32}
    assert math.isfinite(record.best_validation_loss)


@pytest.mark.parametrize("base_dropout", [False, True])
def test_dropout_of_the_base_is_off_in_training_unless_asked_for(make_job: BuildJob, base_dropout: bool) -> None:
    model = make_job(base_dropout=base_dropout).adapted.model.train()
    for part in model.modules():
        if hasattr(part, "lora_dropout"):
            part.lora_dropout.eval()  # the adapter's own dropout is a setting
    encoder = model.base_model.model.distilbert
    ids = torch.arange(5, 25).reshape(2, 10)
    first, second = (encoder(ids).last_hidden_state for _ in range(2))
    assert torch.equal(first, second) is not base_dropout


SIZED = TrainingConfig(learning_rate=1e-3, epochs=2, batch_size=8)


def test_settings_reach_the_trainer(tmp_path: Path) -> None:
    config = TrainingConfig(
        epochs=4,
        learning_rate=3e-4,
        weight_decay=0.2,
        warmup_ratio=0.25,
        max_grad_norm=2.0,
        seed=11,
        batch_size=6,
        schedule="cosine",
    )
    arguments = build_arguments(config, checkpoints=tmp_path / "checkpoints", steps_per_epoch=10)
    assert arguments.output_dir == str(tmp_path / "checkpoints")
    assert (arguments.max_steps, arguments.warmup_steps) == (40, 10)
    assert (arguments.learning_rate, arguments.weight_decay, arguments.max_grad_norm) == (3e-4, 0.2, 2.0)
    assert arguments.lr_scheduler_type == "cosine"
    assert (arguments.seed, arguments.per_device_train_batch_size) == (11, 6)
    assert not (tmp_path / "checkpoints").exists()


def test_a_single_process_takes_a_single_gpu(tmp_path: Path) -> None:
    arguments = build_arguments(SIZED, checkpoints=tmp_path, steps_per_epoch=10)
    assert arguments.n_gpu == 0
    arguments._n_gpu = 4  # as where torch sees four
    assert (arguments.n_gpu, arguments.train_batch_size) == (1, 8)


def test_max_steps_wins_over_epochs(tmp_path: Path) -> None:
    for max_steps in (7, 70):
        config = TrainingConfig(learning_rate=1e-3, epochs=4, batch_size=8, max_steps=max_steps)
        assert build_arguments(config, checkpoints=tmp_path, steps_per_epoch=10).max_steps == max_steps


def test_label_names_are_set_and_nothing_is_reported_elsewhere(tmp_path: Path) -> None:
    arguments = build_arguments(SIZED, checkpoints=tmp_path, steps_per_epoch=10)
    assert arguments.label_names == ["labels"]
    assert arguments.report_to == []
    assert arguments.push_to_hub is False


def test_not_a_number_is_never_filtered_from_the_loss(tmp_path: Path) -> None:
    arguments = build_arguments(SIZED, checkpoints=tmp_path, steps_per_epoch=10)
    assert arguments.logging_nan_inf_filter is False


def read_groups(folder: Path, training: TrainingConfig, method: MethodConfig) -> dict[str, tuple[float, float]]:
    """Learning rate and decay of every parameter that is trained."""
    loaded = load_with_head(locate_encoder(ModelConfig(name=str(folder))), build_task("single_label", ("bad", "good")))
    adapted = apply_method(loaded.model, method, newly_initialised=loaded.newly_initialised)
    optimizer, model = build_optimizer(adapted, training, complete_method(method)), adapted.model
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.param_groups[0]["lr"] == training.learning_rate
    of = {id(weight): group for group in optimizer.param_groups for weight in group["params"]}
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert len(of) == len(trained) == sum(len(group["params"]) for group in optimizer.param_groups)
    return {name: (of[id(weight)]["lr"], of[id(weight)]["weight_decay"]) for name, weight in trained.items()}


def test_each_part_learns_at_its_own_rate(tiny_distilbert: Path) -> None:
    training = TrainingConfig(learning_rate=1e-3, head_learning_rate=2e-3, weight_decay=0.1)
    groups = read_groups(tiny_distilbert, training, MethodConfig(r=4, loraplus_lr_ratio=16))
    for name, (rate, decay) in groups.items():
        assert rate == (2e-3 if "modules_to_save" in name else 16e-3 if "lora_B" in name else 1e-3)
        assert decay == (0.0 if name.endswith("bias") else 0.1)
    assert {rate for rate, _ in groups.values()} == {1e-3, 2e-3, 16e-3}
    assert {decay for _, decay in groups.values()} == {0.0, 0.1}


def test_factors_are_not_pulled_to_zero(tiny_distilbert: Path) -> None:
    groups = read_groups(tiny_distilbert, TrainingConfig(learning_rate=1e-3), MethodConfig(name="ia3"))
    assert {decay for name, (_, decay) in groups.items() if "ia3_l" in name} == {0.0}


def test_all_learn_alike_unless_told_otherwise(tiny_distilbert: Path) -> None:
    groups = read_groups(tiny_distilbert, TrainingConfig(learning_rate=3e-4), MethodConfig(r=4))
    assert {rate for rate, _ in groups.values()} == {3e-4}
