"""Contrastive fine-tuning: an encoder learns by pairs of texts, then the head by regression on the encoder's states.

It is SetFit (Tunstall et al. 2022, arXiv:2209.11055): the cosine of two texts is to be 1 where their labels are the
same and 0 where they have nothing in common. Each batch gives all of its pairs, so that a text is computed once for
many of them, and pairs grow with the batches and never with the square of the rows.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lorafit.runs.records import TrainingRecord
from lorafit.system.progress import Progress
from lorafit.training.head import solve_head
from lorafit.training.job import TrainingJob
from lorafit.training.planning.schedule import MOST_FITTED
from lorafit.training.trainer import fit


def fit_by_pairs(
    job: TrainingJob, marks: NDArray[np.float32], *, progress: Progress, resume_from: Path | None = None
) -> TrainingRecord:
    """Train the encoder by pairs, and fit its head: for every validation, and to the weights that are kept.

    Args:
        job: What to train, of a classifier of mean states; the targets of its rows are the head's. Pairs are made of
            short texts where there are any, and the head is fitted to whole ones.
        marks: Shape (inputs, k), from `Task.pair_marks`, of each of the rows.
        progress: As `fit` takes it.
        resume_from: As `fit` takes it.

    Returns:
        What `fit` gives.
    """
    validate, texts = job.validate, job.rows.texts if job.rows.short is None else job.rows.short

    def fit_and_validate() -> Mapping[str, float]:
        solve_head(job, most=MOST_FITTED)
        return {} if validate is None else validate()

    by_pairs = replace(
        job,
        rows=replace(job.rows, texts=texts, labels=marks, weights=None, short=None),
        compute_loss=_compute_loss,
        validate=None if validate is None else fit_and_validate,
    )
    record = fit(by_pairs, progress=progress, resume_from=resume_from)
    solve_head(job, most=MOST_FITTED)
    return record


def compute_pair_loss(states: Tensor, marks: Tensor) -> Tensor:
    """Return how far the cosines of all pairs of a batch are from how alike their labels are.

    It is the mean squared difference, that of alike pairs and of unlike ones counting the same, however many there are.

    Args:
        states: Shape (rows, width).
        marks: Shape (rows, k), from `Task.pair_marks`.

    Returns:
        A scalar; 0 for a single row.
    """
    unit, marks = functional.normalize(states.float(), dim=1), marks.float()
    first, second = torch.triu_indices(len(states), len(states), offset=1, device=states.device)
    common = torch.minimum(marks[first], marks[second]).sum(dim=1)
    alike = common / torch.maximum(marks[first], marks[second]).sum(dim=1)
    errors = ((unit[first] * unit[second]).sum(dim=1) - alike) ** 2
    means = [(errors * share).sum() / share.sum() for share in (alike, 1 - alike) if share.sum() > 0]
    return torch.stack(means).mean() if means else 0.0 * unit.sum()


def _compute_loss(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:  # noqa: ANN401 - the Trainer's model
    """Compute the loss of a batch of tokens with marks for labels."""
    tokens = {name: part for name, part in inputs.items() if name != "labels"}
    states = model.embed(**tokens)
    with torch.autocast(states.device.type, enabled=False):
        return compute_pair_loss(states, inputs["labels"])
