"""Training whose numbers are no longer finite: where it showed, at which rows, and what would help."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from lorafit.data.checks import describe_rows
from lorafit.errors import TrainingDivergedError
from lorafit.models.acceleration.precision import PrecisionChoice
from lorafit.tasks.base import Array
from lorafit.training.job import TrainingJob

_LOWER = 5
"""What the learning rate is divided by."""

_EXACT = PrecisionChoice("fp32", "for comparison")

_LARGEST_TARGET = 1e18
"""In standardised units; the square of a larger one is beyond fp32."""


def check_outputs(outputs: Array, rows: NDArray[np.int64], *, split: str) -> None:
    """Refuse outputs of a model that are not finite.

    Args:
        outputs: Shape (n, any): logits, or what they mean.
        rows: Shape (n,): the rows' numbers in their source.
        split: Name of the split, for the message.

    Raises:
        TrainingDivergedError: Some are not finite; the message names the rows.
    """
    broken = rows[~np.isfinite(outputs).all(axis=1)]
    if len(broken):
        raise TrainingDivergedError(
            f"The model gives no numbers for {split} {describe_rows(broken.tolist())}; nothing is measured with it."
        )


def check_weights(model: torch.nn.Module, *, step: int) -> None:
    """Refuse trained weights that are not finite, before they become a checkpoint.

    Args:
        model: The model.
        step: Number of steps done.

    Raises:
        TrainingDivergedError: Some are not finite.
    """
    if (name := find_broken_weight(model, trained=True)) is not None:
        raise TrainingDivergedError(f"Training diverged at step {step}: the weights {name} are no longer numbers.")


def find_broken_weight(model: torch.nn.Module, *, trained: bool) -> str | None:
    """Return the name of a weight that is not finite, among those that are trained or among those that are not."""
    for name, weight in model.named_parameters():
        if weight.requires_grad is trained and not bool(torch.isfinite(weight).all()):
            return name
    return None


def diagnose(
    job: TrainingJob,
    *,
    step: int,
    symptom: str,
    rows: Sequence[int] = (),
    is_broken: Callable[[Sequence[int], PrecisionChoice], bool] | None = None,
) -> TrainingDivergedError:
    """Say why training diverged, as far as that can be told, and what would help.

    Args:
        job: What was trained; its weights are those before the step.
        step: Number of the step, counted from 1.
        symptom: What was seen, as in `the loss is nan`.
        rows: Places of the training rows in its batch; none where it showed in validation.
        is_broken: Tells whether these training rows show it in some arithmetic; None where it cannot be tried.

    Returns:
        The error, with the settings that would help if training goes on with them.
    """
    blamed = [row for row in rows if is_broken is not None and is_broken([row], job.precision)]
    numbers = sorted({int(job.row_numbers[row]) for row in (blamed if 0 < len(blamed) < len(rows) else rows)})
    where = f" (training {describe_rows(numbers)})" if numbers else ""
    is_coarse = job.precision.name == "bf16" and not (is_broken is not None and is_broken(rows, _EXACT))
    advice, settings = _advise(job, step=step, rows=rows, is_coarse=is_coarse)
    return TrainingDivergedError(f"Training diverged at step {step}: {symptom}{where}. {advice}", settings=settings)


def _advise(job: TrainingJob, *, step: int, rows: Sequence[int], is_coarse: bool) -> tuple[str, Mapping[str, object]]:
    """Return what to do, and the settings that training can go on with; none where these would not help."""
    config, model = job.config, job.adapted.model
    if (name := find_broken_weight(model, trained=False)) is not None:
        return f"The base model's weights {name} hold values that are no numbers: take another base.", {}
    targets = {row: np.asarray(job.rows.labels[row], dtype=np.float64) for row in rows}
    beyond = [row for row, target in targets.items() if not (np.abs(target) < _LARGEST_TARGET).all()]
    if beyond:
        numbers = sorted({int(job.row_numbers[row]) for row in beyond})
        return f"The label of {describe_rows(numbers)} is beyond what can be computed with: correct it.", {}
    if is_coarse:
        advice = "It was computed in bfloat16, which may be too coarse: --set training.precision=fp32"
        return advice, {"training.precision": "fp32"}
    if step <= 1 and rows:
        name = find_broken_weight(model, trained=True)
        cause = "leave those rows out, or take another base" if name is None else f"the weights {name} came like that"
        return f"Nothing was learned yet, so the learning rate is not the cause: {cause}.", {}
    lower = {
        f"training.{name}": float(f"{rate / _LOWER:g}")
        for name in ("learning_rate", "head_learning_rate")
        if (rate := getattr(config, name)) is not None
    }
    advice = f"Lower the learning rate (it peaks at {config.peak_learning_rate:g})"
    return f"{advice}: --set training.learning_rate={lower['training.learning_rate']:g}", lower
