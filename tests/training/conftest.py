"""Small training jobs through the real engine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lorafit.config import MethodConfig, ModelConfig, TrainingConfig
from lorafit.models.acceleration.precision import PrecisionChoice
from lorafit.models.adaptation import AdaptedModel, apply_method
from lorafit.models.load import load_with_head, locate_encoder
from lorafit.models.method_settings import complete_method
from lorafit.models.methods import find_method
from lorafit.models.tokenization import TokenizedTexts
from lorafit.runs.folder import RunLayout
from lorafit.tasks.registry import build_task
from lorafit.training.inputs import TrainingRows
from lorafit.training.job import TrainingJob

TASK = build_task("single_label", ("bad", "good"))

BuildJob = Callable[..., TrainingJob]

FP32 = PrecisionChoice("fp32", "asked for")
BAD, GOOD = 80, 90
"""Token ids of the toy task: a text that holds the one is of class 0, a text that holds the other of class 1."""


@dataclass(frozen=True)
class WatchedRows(TrainingRows):
    """Training rows that note each batch that was asked for."""

    seen: list[list[int]] = field(default_factory=list)

    def collate(self, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        self.seen.append(list(rows))
        return super().collate(rows)


@pytest.fixture
def make_job(tiny_distilbert: Path, tmp_path: Path) -> BuildJob:
    """Builds a job on 45 toy rows; takes settings of the training section, and parts of the job."""

    def build(
        *,
        validate: Callable[[], Mapping[str, float]] | None = None,
        folder: Path = tmp_path / "run",
        precision: PrecisionChoice = FP32,
        method: MethodConfig | None = None,
        encoder: Path = tiny_distilbert,
        **settings: Any,
    ) -> TrainingJob:
        sizes = {"epochs": 3, "batch_size": 8, "batch_tokens": 120, "evaluations_per_epoch": 2}
        defaults = sizes | {"learning_rate": 5e-3, "early_stopping_patience": 0, "seed": 3}
        config = TrainingConfig(**(defaults | settings))
        method = complete_method(method or MethodConfig(r=4, lora_dropout=0.1))
        adapted = build_adapted(encoder, seed=config.seed, base_dropout=config.base_dropout, method=method)
        held_out = build_rows(24, seed=99)
        return TrainingJob(
            adapted=adapted,
            rows=build_rows(45, seed=1),
            config=config,
            method=method,
            layout=RunLayout(folder),
            precision=precision,
            validate=validate or (lambda: measure(adapted, held_out)),
            metrics=TASK.metrics,
            row_numbers=range(101, 146),
        )

    return build


@pytest.fixture
def measure_rows() -> Callable[[AdaptedModel, TrainingRows], dict[str, float]]:
    """Measures a model on rows."""
    return measure


def build_adapted(
    folder: Path, *, seed: int, base_dropout: bool = False, method: MethodConfig | None = None
) -> AdaptedModel:
    encoder = locate_encoder(ModelConfig(name=str(folder)))
    method = method or MethodConfig(r=4, lora_dropout=0.1)
    pooling = find_method(method.name).pooling
    loaded = load_with_head(encoder, TASK, seed=seed, base_dropout=base_dropout, pooling=pooling)
    return apply_method(loaded.model, method, newly_initialised=loaded.newly_initialised, seed=seed)


def build_rows(count: int, *, seed: int) -> WatchedRows:
    """Texts of 3 to 15 tokens."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, size=count)
    pieces = [[2, GOOD if label else BAD, *rng.integers(5, 75, size=int(rng.integers(0, 13))), 3] for label in labels]
    ids = np.concatenate(pieces).astype(np.int32)
    offsets = np.cumsum([0, *map(len, pieces)])
    return WatchedRows(TokenizedTexts(ids=ids, offsets=offsets, truncated=0), labels=labels, pad_id=0)


def measure(adapted: AdaptedModel, rows: TrainingRows) -> dict[str, float]:
    """Loss and accuracy of the model as it is, in one batch."""
    batch = rows.collate(range(len(rows)))
    with torch.no_grad():
        output = adapted.model.eval()(**batch)
    accuracy = (output.logits.argmax(dim=1) == batch["labels"]).double().mean()
    return {"loss": float(output.loss), "calibrated_loss": float(output.loss), "accuracy": float(accuracy)}
