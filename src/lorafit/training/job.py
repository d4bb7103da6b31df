"""What the training loop is given."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lorafit.config import MethodConfig, TrainingConfig
from lorafit.models.acceleration.precision import PrecisionChoice
from lorafit.models.adaptation import AdaptedModel
from lorafit.runs.folder import RunLayout
from lorafit.tasks.base import Metric
from lorafit.training.inputs import TrainingRows
from lorafit.training.ranks import ALONE, Ranks

Validate = Callable[[], Mapping[str, float]]
"""Computes the validation metrics of the current model, at least `loss` and `calibrated_loss`."""

OnValidation = Callable[[float, Mapping[str, float]], None]
"""Receives the share of the steps that are done, in (0, 1], and the validation metrics."""


ComputeLoss = Callable[[Any, Mapping[str, torch.Tensor]], torch.Tensor]
"""Computes the loss of the model for a batch."""


@dataclass(frozen=True)
class TrainingJob:
    """The arguments of `fit`.

    Attributes:
        adapted: The model; training changes it in place.
        rows: Tokenised training rows.
        config: The training section.
        method: The method section.
        layout: The run folder, for checkpoints and history.
        precision: Arithmetic of the forward pass.
        validate: Computes the validation metrics; None where no rows validate, so that the last weights are kept.
        metrics: How they are written for people.
        row_numbers: Of each of `rows`, the number that its text has in the source, for messages.
        on_validation: Called after every validation; what it raises ends training.
        expected_seconds: Forecast of the training time, for the progress bar.
        compute_loss: What is minimised; None for the model's own loss, weighted as the settings have it.
        resumable: Whether checkpoints are written where no rows validate, and so none is needed for its weights.
        ranks: This process among those that train.
    """

    adapted: AdaptedModel
    rows: TrainingRows
    config: TrainingConfig
    method: MethodConfig
    layout: RunLayout
    precision: PrecisionChoice
    validate: Validate | None
    metrics: Mapping[str, Metric]
    row_numbers: Sequence[int] | NDArray[np.int64]
    on_validation: OnValidation | None = None
    expected_seconds: float | None = None
    compute_loss: ComputeLoss | None = None
    resumable: bool = True
    ranks: Ranks = ALONE
