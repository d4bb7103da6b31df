from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from lorafit.config import MethodConfig
from lorafit.system.progress import Silent
from lorafit.tasks.registry import build_task
from lorafit.training.checkpoints import find_checkpoint
from lorafit.training.contrastive import compute_pair_loss, fit_by_pairs
from lorafit.training.embeddings import HeadTargets, embed_texts, fit_head
from lorafit.training.job import TrainingJob

TASK = build_task("single_label", ("bad", "good"))


def compare_pairs(states: np.ndarray, marks: np.ndarray) -> float:
    """Pair after pair, as it is defined."""
    kinds: tuple[list[float], list[float]] = ([], [])
    weights: tuple[list[float], list[float]] = ([], [])
    for one, two in combinations(range(len(states)), 2):
        cosine = states[one] @ states[two] / np.linalg.norm(states[one]) / np.linalg.norm(states[two])
        alike = np.minimum(marks[one], marks[two]).sum() / np.maximum(marks[one], marks[two]).sum()
        for kind, share in enumerate((alike, 1 - alike)):
            kinds[kind].append(share * (cosine - alike) ** 2)
            weights[kind].append(share)
    means = [sum(kind) / sum(weight) for kind, weight in zip(kinds, weights, strict=True) if sum(weight) > 0]
    return float(np.mean(means)) if means else 0.0


@pytest.mark.parametrize(
    "y", [np.array([0, 1, 1, 0, 2]), np.array([0, 0, 0]), np.array([0, 1]), np.array([1])], ids=len
)
def test_loss_is_that_of_all_pairs(y: np.ndarray) -> None:
    states = np.random.default_rng(0).normal(size=(len(y), 6))
    marks = build_task("single_label", ("a", "b", "c")).pair_marks(y)
    found = compute_pair_loss(torch.tensor(states, dtype=torch.float32), torch.tensor(marks))
    assert float(found) == pytest.approx(compare_pairs(states, marks), abs=1e-6)


def test_loss_of_sets_of_labels_goes_by_what_they_share() -> None:
    y = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]])
    marks = build_task("multi_label", ("a", "b", "c")).pair_marks(y)
    states = np.random.default_rng(1).normal(size=(5, 4))
    found = compute_pair_loss(torch.tensor(states, dtype=torch.float32), torch.tensor(marks))
    assert float(found) == pytest.approx(compare_pairs(states, marks), abs=1e-6)
    perfect = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert float(compute_pair_loss(perfect, torch.tensor(marks[3:]))) == pytest.approx(0), "none is the same as none"


def test_single_row_moves_nothing() -> None:
    states = torch.ones(1, 3, requires_grad=True)
    compute_pair_loss(states, torch.ones(1, 2)).backward()
    assert torch.equal(states.grad, torch.zeros(1, 3))


@pytest.fixture
def job(make_job: Callable[..., TrainingJob], build_encoder: Callable[..., Path]) -> TrainingJob:
    encoder = build_encoder("distilbert", initializer_range=0.2)
    return make_job(method=MethodConfig(name="setfit"), encoder=encoder, epochs=4, learning_rate=1e-3)


def test_pairs_of_a_label_come_together_and_the_head_is_fitted_to_them(job: TrainingJob) -> None:
    def measure() -> tuple[float, np.ndarray]:
        states = embed_texts(job.adapted.model, job.precision, job.rows.texts, 0)
        unit = states / np.linalg.norm(states, axis=1, keepdims=True)
        same = job.rows.labels[:, None] == job.rows.labels
        return float((unit @ unit.T)[same].mean() - (unit @ unit.T)[~same].mean()), states

    before, _ = measure()
    marks = TASK.pair_marks(job.rows.labels)
    record = fit_by_pairs(job, marks, progress=Silent())
    after, states = measure()
    assert after > before + 0.2
    assert record.steps == 24
    head = fit_head(states, HeadTargets(job.rows.labels, "single_label_classification", 2))
    assert np.abs(job.adapted.model.classifier.weight.detach().numpy() - head.weight).max() < 1e-3
    assert job.validate()["accuracy"] > 0.8


def test_interrupted_training_goes_on_where_it_was(
    make_job: Callable[..., TrainingJob], build_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    encoder = build_encoder("distilbert", initializer_range=0.2)
    settings = {"method": MethodConfig(name="setfit"), "encoder": encoder, "epochs": 2, "learning_rate": 1e-3}
    job = make_job(**settings)
    marks = TASK.pair_marks(job.rows.labels)

    class Stopped(Exception):  # noqa: N818 - no error of lorafit's
        pass

    def stop(share: float, _: object) -> None:
        if share >= 0.5:
            raise Stopped

    with pytest.raises(Stopped):
        fit_by_pairs(replace(job, on_validation=stop), marks, progress=Silent())
    checkpoint = find_checkpoint(job.layout.checkpoints).checkpoint
    assert checkpoint is not None
    resumed = fit_by_pairs(make_job(**settings), marks, progress=Silent(), resume_from=checkpoint)
    record = fit_by_pairs(make_job(**settings, folder=tmp_path / "whole"), marks, progress=Silent())
    assert resumed.steps == record.steps
    assert resumed.best_validation_loss == pytest.approx(record.best_validation_loss, abs=1e-6)
