"""Models of every task: tiny untrained ones, and one trained run each, made once for all tests of inference."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

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
        tokenizer, pad_id = load_tokenizer(wide_encoder)
        return Predictor(
            TorchRuntime(model, PrecisionChoice("fp32", "for the test")),
            tokenizer,
            pad_id=pad_id,
            task=task,
            truncation=Truncation(max_length),
            calibration=calibration,
        )

    return build


TrainRun = Callable[..., Path]


@pytest.fixture(scope="session")
def train_run(build_encoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> TrainRun:
    """Trains a run of a task by its name, a tiny one that has learned its words; settings in dotted form."""

    def train(task: str, *overrides: str, encoder: Path | None = None) -> Path:
        import lorafit
        from lorafit.config import load_config

        folder = tmp_path_factory.mktemp(task)
        name = encoder or build_encoder("distilbert", initializer_range=0.1)
        config = load_config(
            overrides=[
                f"data.source={write_rows(folder / 'rows.jsonl', task)}",
                f"data.task={task}",
                "data.test_fraction=0.2",
                "data.validation_fraction=0.4",
                f"model.name={name}",
                "model.max_length=32",
                "training.batch_size=16",
                "training.epochs=4",
                "training.learning_rate=1e-2",
                "training.threads=1",
                "evaluation.before=false",
                "evaluation.baselines=false",
                "evaluation.report=false",
                "evaluation.bootstrap_samples=100",
                *overrides,
            ]
        )
        return lorafit.train(config, output=folder / "run").path

    return train


@pytest.fixture(scope="session")
def trained_of(train_run: TrainRun, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns the trained run of a task by its name: made once for all workers, and not to be changed."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    settings = {"single_label": ["evaluation.target_accuracy=0.9"]}

    def find(task: str) -> Path:
        made = shared / f"trained-{task}.txt"
        with FileLock(f"{made}.lock"):
            if not made.is_file():
                made.write_text(str(train_run(task, *settings.get(task, []))))
        return Path(made.read_text())

    return find


@pytest.fixture(scope="session")
def trained(trained_of: Callable[[str], Path]) -> Path:
    """A trained run of a single-label task that has a target accuracy. Tests copy it before they change it."""
    return trained_of("single_label")


def write_rows(path: Path, task: str, rows: int = 240) -> Path:
    """Write texts whose words tell their label."""
    words = (("awful", "poor"), ("boring", "dull"), ("of", "to"), ("fine", "good"), ("great", "superb"))
    with path.open("w", encoding="utf-8") as file:
        for row in range(rows):
            stars, long = row % 5, row // 5 % 2
            text = f"{words[stars][row // 10 % 2]} film {('minute', 'hours')[long]} {row}"
            names = [name for name, has in (("good", stars > 2), ("long", long)) if has]
            labels = {
                "single_label": ("neg", "pos")[stars > 1],
                "multi_label": names,
                "regression": 50 + 10 * stars + 5 * long,
                "ordinal": 1 + stars,
            }
            file.write(json.dumps({"text": text, "label": labels[task]}) + "\n")
    return path
