import dataclasses
import math
import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from lorafit.errors import TrainingDivergedError, TrainingInterruptedError
from lorafit.models.acceleration.precision import PrecisionChoice, choose_precision
from lorafit.models.adaptation import AdaptedModel
from lorafit.system.progress import Silent
from lorafit.training.checkpoints import ResumePoint, find_checkpoint
from lorafit.training.divergence import check_outputs
from lorafit.training.job import TrainingJob
from lorafit.training.trainer import fit

BuildJob = Callable[..., TrainingJob]

BAD_TOKEN = 77
"""A token that no toy text has."""


def poison(adapted: AdaptedModel, part: str, *, rows: Sequence[int] | None = None, value: float = math.nan) -> str:
    """Write a value into a weight, or into some rows of it; return the weight's name."""
    name, weight = next((name, weight) for name, weight in adapted.model.named_parameters() if part in name)
    with torch.no_grad():
        weight[slice(None) if rows is None else list(rows)] = value
    return name


class StopAt(Silent):
    """Interrupts this process when a step is done."""

    def __init__(self, step: int) -> None:
        self.step = step

    def update(self, done: int, **_: float) -> None:
        if done == self.step:
            signal.raise_signal(signal.SIGINT)


def spoil_text(job: TrainingJob, row: int) -> None:
    """Put the bad token into a training text."""
    texts = job.rows.texts
    texts.ids[texts.offsets[row] + 1] = BAD_TOKEN  # type: ignore[union-attr]


def weights(job: TrainingJob) -> dict[str, torch.Tensor]:
    return {name: t.detach().clone() for name, t in job.adapted.model.named_parameters() if t.requires_grad}


def diverge(job: TrainingJob) -> TrainingDivergedError:
    with pytest.raises(TrainingDivergedError) as caught:
        fit(job, progress=Silent())
    return caught.value


def test_row_that_breaks_the_loss_is_named_and_the_weights_stay_finite(make_job: BuildJob) -> None:
    job = make_job()
    poison(job.adapted, "word_embeddings", rows=[BAD_TOKEN])
    spoil_text(job, 12)
    error = diverge(job)
    assert "the loss is nan (training row 113)" in str(error), "numbered as in the source, and alone"
    assert "word_embeddings" in str(error)
    assert "take another base" in str(error)
    assert error.settings == {}, "no setting mends a base model"
    assert all(bool(torch.isfinite(weight).all()) for weight in weights(job).values())


def test_step_that_fails_changes_no_weights(make_job: BuildJob, tmp_path: Path) -> None:
    """Up to the first batch with the row, the weights are those of a training that ends before it."""
    job = make_job(folder=tmp_path / "bad", epochs=1)
    spoil_text(job, 12)
    poison(job.adapted, "word_embeddings", rows=[BAD_TOKEN])
    step = int(re.findall(r"at step (\d+)", str(diverge(job)))[0])
    seen = job.rows.seen  # type: ignore[attr-defined]
    assert [12 in batch for batch in seen[:step]] == [False] * (step - 1) + [True]
    assert step > 1, "the seed puts the row later"
    kept = weights(job)
    good = make_job(folder=tmp_path / "good", epochs=1)
    stop = dataclasses.replace(good, validate=lambda: {"loss": 0.5, "calibrated_loss": 0.5, "accuracy": 0.5})
    with pytest.raises(TrainingInterruptedError):
        fit(stop, progress=StopAt(step - 1))
    for name, weight in weights(stop).items():
        assert torch.equal(weight, kept[name]), name


def test_gradient_that_is_not_finite_stops_training_though_the_loss_is(make_job: BuildJob) -> None:
    class Sharp(torch.autograd.Function):
        @staticmethod
        def forward(_: object, values: torch.Tensor) -> torch.Tensor:
            return values.clone()

        @staticmethod
        def backward(_: object, *gradients: torch.Tensor) -> torch.Tensor:
            return gradients[0] * math.inf

    job, steps = make_job(), [0]

    def sharpen(_: object, __: object, output: torch.Tensor) -> object:
        steps[0] += 1
        return Sharp.apply(output) if steps[0] >= 3 else None

    head = job.adapted.model.base_model.model.classifier
    head.register_forward_hook(sharpen)
    error = diverge(job)
    assert "at step 3: the gradient norm is" in str(error)
    assert error.settings == {"training.learning_rate": pytest.approx(1e-3)}


def test_learning_rate_far_too_high_is_told_with_one_to_try(make_job: BuildJob) -> None:
    job = make_job(learning_rate=1e25, head_learning_rate=1e24, warmup_ratio=0.0, evaluations_per_epoch=1)
    error = diverge(job)
    assert "at step 2: the loss is" in str(error), "the first step that has it, whether it is logged or not"
    assert "Lower the learning rate (it peaks at 1e+25): --set training.learning_rate=2e+24" in str(error)
    assert error.settings == {"training.learning_rate": 2e24, "training.head_learning_rate": 2e23}


@pytest.mark.skipif(choose_precision("auto").name != "bf16", reason="this CPU has no bfloat16 unit")
def test_bf16_is_blamed_only_where_fp32_would_do(make_job: BuildJob, tmp_path: Path) -> None:
    class Coarse(torch.nn.Module):
        """Overflows in bf16 alone."""

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return values * math.nan if values.dtype == torch.bfloat16 else values

    bf16 = PrecisionChoice("bf16", "asked for")
    job = make_job(precision=bf16, folder=tmp_path / "coarse")
    layer = job.adapted.model.get_submodule(f"base_model.model.{job.adapted.targets[0]}")
    layer.register_forward_hook(lambda _, __, output: Coarse()(output))
    error = diverge(job)
    assert "--set training.precision=fp32" in str(error)
    assert error.settings == {"training.precision": "fp32"}
    error = diverge(make_job(precision=bf16, folder=tmp_path / "fast", learning_rate=1e25, warmup_ratio=0.0))
    assert "--set training.learning_rate=2e+24" in str(error)
    assert error.settings == {"training.learning_rate": 2e24}


def test_weights_that_came_broken_are_named(make_job: BuildJob) -> None:
    job = make_job()
    name = poison(job.adapted, "lora_B")
    error = diverge(job)
    assert "at step 1: the loss is nan" in str(error)
    assert f"the weights {name} came like that" in str(error)
    assert error.settings == {}


def test_label_beyond_what_can_be_computed_is_named(make_job: BuildJob) -> None:
    job = make_job()
    job.adapted.model.config.problem_type = "regression"
    labels = np.zeros((45, 2), dtype=np.float32)
    labels[20] = 1e38
    rows = dataclasses.replace(job.rows, labels=labels)
    job = dataclasses.replace(job, rows=rows, validate=lambda: {"loss": 0.5, "calibrated_loss": 0.5})
    error = diverge(job)
    assert "the loss is inf (training row 121). The label of row 121 is beyond" in str(error)
    assert error.settings == {}


def test_validation_that_is_not_a_number_stops_training_and_keeps_the_last_checkpoint(make_job: BuildJob) -> None:
    losses = iter([0.5, math.nan])

    def validate() -> dict[str, float]:
        loss = next(losses)
        return {"loss": loss, "calibrated_loss": loss, "accuracy": 0.5}

    job = make_job(validate=validate)
    assert "at step 6: the validation loss is nan. Lower the learning rate" in str(diverge(job))
    assert find_checkpoint(job.layout.checkpoints) == ResumePoint(job.layout.checkpoints / "checkpoint-3", {})


def test_rows_without_numbers_in_validation_are_named_with_the_step(make_job: BuildJob) -> None:
    def validate() -> dict[str, float]:
        check_outputs(np.array([[0.0], [math.inf]]), np.array([7, 9]), split="validation")
        raise AssertionError

    error = diverge(make_job(validate=validate))
    assert str(error).startswith("Training diverged at step 3: the model gives no numbers for validation row 9;")


def test_weights_that_are_not_finite_become_no_checkpoint(make_job: BuildJob) -> None:
    def validate() -> dict[str, float]:
        poison(job.adapted, "lora_A")
        return {"loss": 0.5, "calibrated_loss": 0.5, "accuracy": 0.5}

    job = make_job(validate=validate)
    error = diverge(job)
    assert "at step 3: the weights" in str(error)
    assert find_checkpoint(job.layout.checkpoints).checkpoint is None


def test_outputs_that_are_numbers_pass() -> None:
    check_outputs(np.array([[0.0, 1e308]]), np.array([1]), split="test")
    with pytest.raises(TrainingDivergedError, match=r"no numbers for test rows 4, 6; nothing is measured"):
        check_outputs(np.array([[0.0, math.nan], [1, 1], [math.inf, 0]]), np.array([4, 5, 6]), split="test")
