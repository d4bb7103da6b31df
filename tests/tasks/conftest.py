"""Rows and models made up for every task, so that one test proves what all tasks promise."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lorafit.tasks.base import Array, Task
from lorafit.tasks.labels import Label
from lorafit.tasks.records import Resampling
from lorafit.tasks.registry import TASKS, build_task

Rows = tuple[NDArray[Any], Array, Array]


def _draw_classes(task: Task, n: int, rng: np.random.Generator) -> Rows:
    classes = len(task.label_names)
    shares = np.arange(1, classes + 1) / np.arange(1, classes + 1).sum()
    y = rng.choice(classes, n, p=shares)
    first = rng.normal(size=(n, classes)) + np.eye(classes)[y]
    return y, first, 2 * first + 0.8 * rng.normal(size=first.shape) + np.eye(classes)[y]


def _draw_marks(task: Task, n: int, rng: np.random.Generator) -> Rows:
    y = (rng.random((n, len(task.label_names))) < np.linspace(0.1, 0.6, len(task.label_names))).astype(np.int64)
    first = rng.normal(size=y.shape) + 0.7 * (2 * y - 1)
    return y, first, 1.5 * first + 0.5 * rng.normal(size=y.shape) + 0.5 * (2 * y - 1)


def _draw_numbers(task: Task, n: int, rng: np.random.Generator) -> Rows:
    y = rng.gamma(2.0, 1.5, size=n) + 3
    first, second = (y + spread * rng.normal(size=n) for spread in (1.0, 0.6))
    return y, 0.8 * first[:, np.newaxis], 0.9 * second[:, np.newaxis]


def _draw_scores(task: Task, n: int, rng: np.random.Generator) -> Rows:
    places = np.arange(len(task.label_names))
    y = rng.choice(len(places), n, p=(places + 1) / (places + 1).sum())
    first, second = (y + spread * rng.normal(size=n) for spread in (1.2, 0.7))
    noise = 0.1 * rng.normal(size=(n, len(places) - 1))  # so that cumulative logits contradict each other now and then
    return y, first[:, np.newaxis] - places[1:] + 0.5 + noise, 2 * (second[:, np.newaxis] - places[1:] + 0.5) + noise


@dataclass(frozen=True)
class Case:
    """A task with data.

    Attributes:
        task: The task.
        labels: Labels of a few rows, every label among them.
    """

    task: Task
    labels: tuple[Label, ...]

    def draw(self, n: int = 300, *, seed: int = 0) -> Rows:
        """Return `y` of n rows, and the logits of two models of which the second is better and surer."""
        return _DRAW[self.task.name](self.task, n, np.random.default_rng(seed))

    def draw_values(self, n: int = 300, *, seed: int = 0) -> Rows:
        """Return `y` of n rows, and the values of two models of which the second is better."""
        y, first, second = self.draw(n, seed=seed)
        return y, self.task.activate(first), self.task.activate(second)


_DRAW: dict[str, Callable[[Task, int, np.random.Generator], Rows]] = {
    "single_label": _draw_classes,
    "multi_label": _draw_marks,
    "regression": _draw_numbers,
    "ordinal": _draw_scores,
}
BuildCase = Callable[..., Case]

_NAMES = {"single_label": "abc", "multi_label": "abcd", "regression": ["value"], "ordinal": "12345"}
_LABELS: dict[str, tuple[Label, ...]] = {
    "single_label": ("b", "a", "c", "a"),
    "multi_label": (("a", "d"), (), ("b", "c"), ("a",)),
    "regression": (2.5, -1.0, 2.5, 0.0),
    "ordinal": ("4", "1", "5", "2", "3"),
}


def build_case_of(name: str, label_names: Sequence[str] = ()) -> Case:
    return Case(build_task(name, label_names or _NAMES[name]), _LABELS[name])


@pytest.fixture(params=TASKS)
def case(request: pytest.FixtureRequest) -> Case:
    """Each task in turn."""
    return build_case_of(request.param)


@pytest.fixture
def build_case() -> BuildCase:
    """Builds the case of a task by its name, with other label names if they are given."""
    return build_case_of


@pytest.fixture
def resampling() -> Resampling:
    """Few resamples, for tests that do not look at how exact intervals are."""
    return Resampling(samples=100)
