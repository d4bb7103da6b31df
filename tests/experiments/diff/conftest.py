"""Finished runs of known predictions, written by hand."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lorafit.tasks.base import Task
from lorafit.tasks.registry import TASKS, build_task
from lorafit.tasks.regression import RegressionCalibration

WriteRun = Callable[..., Path]
LABELS = {
    "single_label": ("bad", "meh", "nice"),
    "multi_label": ("bad", "long", "odd"),
    "regression": ("value",),
    "ordinal": ("1", "2", "3", "4", "5"),
}
ROWS = 200


Models = SimpleNamespace
"""Two models on the same rows, the second the better: `task`, `y`, values `before` and `after`, `calibrations`."""


@pytest.fixture
def draw_models() -> Callable[..., Models]:
    """Draws two models of a task by its name."""
    return _draw_models


@pytest.fixture(params=TASKS)
def models(request: pytest.FixtureRequest) -> Models:
    """Two models of each task."""
    return _draw_models(request.param)


def _draw_models(name: str, rows: int = ROWS) -> Models:
    task, rng = build_task(name, LABELS[name]), np.random.default_rng(0)
    classes = len(task.label_names)
    if name == "regression":
        y = 50 + 10 * rng.normal(size=rows)
        before, after = (y[:, np.newaxis] + noise * rng.normal(size=(rows, 1)) for noise in (6, 3))
        widths = (RegressionCalibration(rows=50, coverage=0.9, half_width=width) for width in (10.0, 6.0))
        return Models(task=task, y=y, before=before, after=after, calibrations=tuple(widths))
    marks = rng.random((rows, classes)) < [0.5, 0.3, 0.1] if name == "multi_label" else np.eye(classes)
    y = marks.astype(np.int64) if name == "multi_label" else np.arange(rows) % classes
    aims = y if name == "multi_label" else marks[y]
    if name == "ordinal":
        aims = y[:, np.newaxis] >= np.arange(1, classes)
    before, after = (
        task.activate(2 * strength * (2 * aims - 1) + 2 * rng.normal(size=aims.shape)) for strength in (0.5, 1.5)
    )
    return Models(task=task, y=y, before=before, after=after, calibrations=(None, None))


@pytest.fixture
def write_values(write_run: WriteRun) -> WriteRun:
    """Writes a run of known predictions alone: its name, task, labels of the test rows, values, and what differs."""

    def write(name: str, task: Task, y: NDArray[Any], values: NDArray[Any], **changes: Any) -> Path:
        alone = {"before": False, "baselines": False, "history": False, "calibration": False}
        return write_run(task, name=name, y=y, after=values, **{**alone, **changes})

    return write


@pytest.fixture
def write_pair(write_values: WriteRun) -> Callable[..., tuple[Path, Path]]:
    """Writes the runs `a` and `b` of two models; the second predicts 80 texts a second, the first 100."""

    def write(models: Models, **changes: Any) -> tuple[Path, Path]:
        sides = zip("ab", (models.before, models.after), models.calibrations, (100.0, 80.0), strict=True)
        a, b = (
            write_values(name, models.task, models.y, values, **{**own, **changes})
            for name, values, calibration, speed in sides
            for own in [{"calibration": calibration or False, "texts_per_second": speed}]
        )
        return a, b

    return write


@pytest.fixture
def write_guesses(write_values: WriteRun) -> WriteRun:
    """Writes a single-label run: its name, true and predicted labels of the test rows, and what differs."""

    def write(
        name: str,
        truth: Sequence[str],
        guesses: Sequence[str],
        *,
        labels: tuple[str, ...] = ("neg", "pos"),
        confidence: float = 0.9,
        **changes: Any,
    ) -> Path:
        task = build_task("single_label", labels)
        values = np.full((len(truth), len(labels)), (1 - confidence) / (len(labels) - 1))
        values[np.arange(len(truth)), task.encode(guesses)] = confidence
        return write_values(name, task, task.encode(truth), values, **changes)

    return write
