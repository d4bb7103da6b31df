"""How well out-of-fold logits calibrate the model of all rows, by simulation with a cheap model."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lorafit.data.rows import Split
from lorafit.tasks.base import Task
from lorafit.tasks.calibration import fit_temperature
from lorafit.tasks.registry import build_task
from lorafit.training.folds import assign_held_out_folds

ROWS, NEW, SETS = 60, 500, 200
FEATURES, COVERAGE = 5, 0.9


def fit_logits(x: NDArray[np.float64], y: NDArray[Any], new: NDArray[np.float64], task: Task) -> NDArray[np.float64]:
    """Train logistic or ridge regression, and return its outputs for other rows."""
    from sklearn.linear_model import LogisticRegression, Ridge

    if task.name == "regression":
        return np.asarray(Ridge(1.0).fit(x, y).predict(new)).reshape(-1, 1)
    return np.asarray(LogisticRegression(C=10.0).fit(x, y).predict_log_proba(new))


def draw(task: Task, count: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[Any]]:
    x = rng.normal(size=(count, FEATURES))
    if task.name == "regression":
        return x, x @ np.linspace(1, 0, FEATURES) + rng.normal(size=count)
    scores = 1.5 * x[:, :3] + rng.gumbel(size=(count, 3))
    return x, scores.argmax(axis=1)


def fit_out_of_fold(x: NDArray[np.float64], y: NDArray[Any], task: Task, seed: int) -> NDArray[np.float64]:
    """Return each row's logits of a model of the other folds."""
    rows = Split(np.arange(ROWS), tuple(f"text {row}" for row in range(ROWS)), y)
    folds = assign_held_out_folds(rows, task, seed=seed)
    logits = np.empty((ROWS, len(task.output_names)))
    for fold in range(5):
        others, out = folds != fold, folds == fold
        logits[out] = fit_logits(x[others], y[others], x[out], task)
    return logits


@pytest.mark.slow
@pytest.mark.parametrize("name", ["single_label", "regression"])
def test_coverage_is_close_to_what_is_asked_for(name: str) -> None:
    task = build_task(name, ("a", "b", "c") if name == "single_label" else ("value",))
    rng, held = np.random.default_rng(0), []
    for number in range(SETS):
        x, y = draw(task, ROWS, rng)
        calibration = task.fit_calibration(y, fit_out_of_fold(x, y, task, number), coverage=COVERAGE)
        new, truth = draw(task, NEW, rng)
        values = task.activate(fit_logits(x, y, new, task), calibration)
        held.append(
            np.mean([covers(task.predict(value, calibration), true) for value, true in zip(values, truth, strict=True)])
        )
    assert COVERAGE - 0.01 < np.mean(held) < COVERAGE + 0.05


@pytest.mark.slow
def test_temperature_is_somewhat_high_and_better_than_none() -> None:
    task, rng = build_task("single_label", ("a", "b", "c")), np.random.default_rng(0)
    temperatures, losses = [], []
    for number in range(SETS):
        x, y = draw(task, ROWS, rng)
        new, truth = draw(task, 4 * NEW, rng)
        logits = fit_logits(x, y, new, task)
        found = fit_temperature(y, fit_out_of_fold(x, y, task, number)), fit_temperature(truth, logits)
        temperatures.append(found)
        losses.append([task.logit_losses(truth, logits / temperature).mean() for temperature in (1, *found)])
    too_high = np.exp(np.mean(np.diff(-np.log(temperatures), axis=1)))
    none, ours, best = np.mean(losses, axis=0)
    assert 1.2 < too_high < 1.3
    np.testing.assert_allclose([none, ours, best], [0.88, 0.83, 0.81], atol=0.01)


def covers(prediction: Any, true: float) -> bool:  # noqa: ANN401 - of any task
    columns = prediction.columns()
    if "low" in columns:
        return bool(columns["low"] <= true <= columns["high"])
    return ("a", "b", "c")[int(true)] in prediction.conformal_set
