"""Models of every task: bags of words and tiny untrained ones."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from lorafit.tasks.base import Array, Task
from lorafit.tasks.records import Calibration
from lorafit.tasks.registry import TASKS, build_task

LABELS = {
    "single_label": ("bad", "fair", "good"),
    "multi_label": ("good", "long"),
    "regression": ("value",),
    "ordinal": ("1", "2", "3", "4", "5"),
}
WEIGHTS = {"superb": 2.0, "lovely": 1.5, "été": 0.75, "🎬": 0.25, "dull": -1.75, "weak": -0.5, "!!": 0.125}
"""What words add in a `BagOfWords`."""


class BagOfWords:
    """A model whose first output is a sum of weights, so that what a word adds is known; keeps what it is asked."""

    calibration: Calibration | None = None

    def __init__(self, task: Task) -> None:
        self.task = task
        self.calls: list[list[str]] = []

    def compute_values(self, texts: Sequence[str]) -> Array:
        self.calls.append(list(texts))
        logits = np.zeros((len(texts), len(self.task.output_names)))
        logits[:, -1] = [self.score(text.split()) for text in texts]
        return self.task.activate(logits)

    def score(self, words: list[str]) -> float:
        """Return the last output: for two classes the log-odds of the second."""
        return sum(WEIGHTS.get(word, 0.0) for word in words)


@pytest.fixture(scope="session", params=TASKS)
def task(request: pytest.FixtureRequest) -> Task:
    """Each task in turn."""
    return build_task(request.param, LABELS[request.param])


@pytest.fixture(scope="session")
def wide_encoder(build_encoder: Callable[..., Path]) -> Path:
    """A tiny encoder with wide weights, so that outputs differ from text to text."""
    return build_encoder("distilbert", initializer_range=0.3)


@pytest.fixture(scope="session")
def build_predictor(wide_encoder: Path) -> Callable[..., "object"]:
    """Builds a predictor of a task with the tiny encoder, untrained."""

    def build(task: Task, *, max_length: int = 64, calibration: Calibration | None = None) -> object:
        import torch

        from lorafit.config import ModelConfig
        from lorafit.inference.predictor import Predictor
        from lorafit.models.acceleration.precision import PrecisionChoice
        from lorafit.models.load import load_tokenizer, load_with_head, locate_encoder
        from lorafit.models.runtimes.pytorch import TorchRuntime
        from lorafit.models.tokenization import Truncation

        torch.set_num_threads(1)
        model = load_with_head(locate_encoder(ModelConfig(name=str(wide_encoder))), task).model
        return Predictor(
            TorchRuntime(model, PrecisionChoice("fp32", "for the test")),
            load_tokenizer(wide_encoder),
            task=task,
            truncation=Truncation(max_length),
            calibration=calibration,
        )

    return build


@pytest.fixture(scope="session")
def trained(trained_of: Callable[[str], Path]) -> Path:
    """A trained run of a single-label task that has a target accuracy. Tests copy it before they change it."""
    return trained_of("single_label")
