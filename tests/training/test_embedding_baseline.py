"""The regression on mean states against scikit-learn's, for every task, and the states against transformers' own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from transformers import AutoModel

from lorafit.config import ModelConfig, load_config
from lorafit.errors import ConfigError
from lorafit.models.load import load_tokenizer, locate_encoder
from lorafit.models.tokenization import Truncation, tokenize
from lorafit.tasks.base import Task
from lorafit.tasks.registry import TASKS, build_task
from lorafit.training.embedding_baseline import EmbeddingModel, FrozenBase, check_size
from lorafit.training.embeddings import HeadTargets, choose_strength, fit_head

LABELS = {"regression": ("value",), "ordinal": ("1", "2", "3")}


def draw(name: str) -> tuple[Task, np.ndarray, np.ndarray]:
    """A task with 60 rows: their states, and labels that depend on these."""
    rng = np.random.default_rng(3)
    task = build_task(name, LABELS.get(name, ("a", "b", "c")))
    states = rng.normal(size=(60, 8)) + 5
    seen = states[:, :3] + rng.normal(size=(60, 3))
    y: dict[str, Any] = {
        "single_label": seen.argmax(axis=1),
        "multi_label": (seen > 5).astype(np.int64),
        "regression": 1000 + 20 * seen[:, 0],
        "ordinal": np.digitize(seen[:, 0], [4.5, 5.5]),
    }
    return task, states, y[name]


def fit_slowly(task: Task, states: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Values by scikit-learn, whose regression it is."""

    def fit(labels: np.ndarray) -> np.ndarray:
        return LogisticRegression(C=1.0, max_iter=10_000, tol=1e-10).fit(states, labels).predict_proba(states)

    if task.name == "single_label":
        return fit(y)
    if task.name == "multi_label":
        return np.column_stack([fit(column)[:, 1] for column in y.T])
    if task.name == "regression":
        spread = (y - y.mean()) / y.std()
        return (Ridge(alpha=0.5).fit(states, spread).predict(states) * y.std() + y.mean())[:, np.newaxis]
    reached = np.column_stack([fit(y > score)[:, 1] for score in range(2)])
    return -np.diff(np.minimum.accumulate(reached, axis=1), axis=1, prepend=1, append=0)


@pytest.mark.parametrize("name", TASKS)
def test_values_are_those_of_scikit_learns_regression(name: str) -> None:
    task, states, y = draw(name)
    values = EmbeddingModel.fit(task, states, y, strength=1.0).compute_values(states)
    assert values.shape == (60, len(task.label_names))
    assert np.abs(values - fit_slowly(task, states, y)).max() < 1e-4


@pytest.mark.parametrize("name", TASKS)
def test_rows_of_one_label_are_enough(name: str) -> None:
    task, states, y = draw(name)
    rows = np.flatnonzero((y == y[0]).reshape(60, -1).all(axis=1))
    values = EmbeddingModel.fit(task, states[rows], y[rows]).compute_values(states[rows])
    assert task.decode(y[rows]) == tuple(task.suggest_labels(values)) or name == "regression"
    assert np.isfinite(values).all()


def test_heavier_rows_pull_the_head() -> None:
    states, ids = np.zeros((4, 2)), np.array([0, 0, 0, 1])
    weights = np.array([2 / 3, 2 / 3, 2 / 3, 2], dtype=np.float32)
    plain, weighed = (
        fit_head(states, HeadTargets(ids, "single_label_classification", 2, given)) for given in (None, weights)
    )
    assert np.diff(plain.bias) == pytest.approx(np.log(1 / 3), abs=1e-3)
    assert np.diff(weighed.bias) == pytest.approx(0, abs=1e-3)


def test_strength_suits_how_much_the_states_say() -> None:
    rng = np.random.default_rng(0)
    ids, noise = rng.integers(0, 2, 200), rng.normal(size=(200, 20))
    targets = HeadTargets(ids, "single_label_classification", 2)
    assert choose_strength(noise, targets, seed=0) == 1000.0
    assert choose_strength(noise + 4 * ids[:, None], targets, seed=0) <= 1.0
    assert choose_strength(noise[:5], targets.select(np.arange(5)), seed=0) == 1.0, "too few to choose by"


@pytest.mark.parametrize("family", ["distilbert", "bert", "modernbert", "qwen2"])
def test_states_are_the_mean_of_what_the_frozen_base_gives(build_encoder: Callable[..., Path], family: str) -> None:
    encoder = locate_encoder(ModelConfig(name=str(build_encoder(family))))
    tokenizer, pad_id = load_tokenizer(encoder.folder)
    tokens = tokenize(
        tokenizer, ["a fine film", "dull", "the end is a long way off and it is not good"], Truncation(16)
    )
    config = load_config(overrides=["model.max_length=16", "training.precision=fp32"])
    found = FrozenBase.load(encoder, build_task("single_label", ("a", "b")), pad_id, config).embed(tokens)
    plain = AutoModel.from_pretrained(encoder.folder).eval()
    with torch.no_grad():
        states = [plain(torch.tensor(tokens[row])[None].long())[0].mean(dim=1)[0].numpy() for row in range(3)]
    assert np.abs(found - np.array(states)).max() < 1e-5


def test_an_encoder_with_too_few_positions_is_refused(tiny_distilbert: Path) -> None:
    encoder = locate_encoder(ModelConfig(name=str(tiny_distilbert)))
    config = load_config(overrides=["model.max_length=256"])
    with pytest.raises(ConfigError, match="this encoder reads at most 128 tokens"):
        FrozenBase.load(encoder, build_task("single_label", ("a", "b")), 0, config)


def test_what_takes_minutes_is_refused() -> None:
    lengths = {"train": np.full(10_000, 200), "test": np.full(4_000, 200), "validation": np.full(10**6, 200)}
    check_size(lengths, rows=10_000, width=384, outputs=100)
    with pytest.raises(ConfigError, match="training and test rows have 4,000,000 tokens, and at most 3,000,000 are"):
        check_size({**lengths, "test": np.full(10_000, 200)}, rows=10_000, width=384, outputs=2)
    with pytest.raises(ConfigError, match="10,000 training rows with 200 outputs are too many for a baseline"):
        check_size(lengths, rows=10_000, width=384, outputs=200)
