"""Solve for the head of a classifier of mean states: a regression on what its encoder gives as it is."""

import json
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from lorafit.models.tokenization import TokenizedTexts
from lorafit.runs.records import TrainingRecord
from lorafit.system.atomic import write_atomic
from lorafit.training.embeddings import STRENGTH, HeadTargets, choose_strength, embed_texts, fit_head
from lorafit.training.job import TrainingJob


def solve_head(job: TrainingJob, *, most: int | None = None, is_frozen: bool = False) -> None:
    """Fit the head to the states of training inputs, and write it into the model.

    Args:
        job: What to train, of a classifier of mean states.
        most: Largest number of inputs, drawn at random where there are more; None takes all.
        is_frozen: Whether the encoder has not seen the inputs' labels, so that the strength of the penalty can be
            chosen by cross-validation on them.
    """
    model: Any = job.adapted.model
    rows, texts = job.rows, job.rows.texts
    chosen = np.sort(np.random.default_rng(job.config.seed).permutation(len(rows))[:most])
    tokens = texts if isinstance(texts, TokenizedTexts) else texts.tokens
    states = embed_texts(model, job.precision, replace(tokens, windows=None).select(chosen), rows.pad_id)
    targets = HeadTargets(
        rows.labels, str(model.config.problem_type), model.config.num_labels, rows.weights, job.config.gamma
    ).select(chosen)
    strength = choose_strength(states, targets, seed=job.config.seed) if is_frozen else STRENGTH
    head = fit_head(states, targets, strength=strength)
    with torch.no_grad():
        model.classifier.weight.copy_(torch.from_numpy(head.weight))
        model.classifier.bias.copy_(torch.from_numpy(head.bias))


def fit_head_alone(job: TrainingJob) -> TrainingRecord:
    """Train nothing but the head, without a step of an optimizer.

    Args:
        job: What to train, of a classifier of mean states.

    Returns:
        The cost; there are no steps.
    """
    began = time.perf_counter()
    job.adapted.model.eval()
    solve_head(job, is_frozen=True)
    seconds, found = time.perf_counter() - began, {} if job.validate is None else job.validate()
    line = {"step": 0, "epoch": 1.0, **{f"eval_{name}": value for name, value in found.items()}}
    write_atomic(job.layout.history, json.dumps(line) + "\n")
    tokens = int(job.rows.texts.lengths.sum())
    return TrainingRecord(
        steps=0,
        epochs=1.0,
        best_step=0,
        best_validation_loss=found.get("calibrated_loss"),
        stopped_early=False,
        seconds=time.perf_counter() - began,
        tokens=tokens,
        tokens_per_second=tokens / max(seconds, 1e-9),
        padding_share=0.0,
        adapted_modules=0,
    )
