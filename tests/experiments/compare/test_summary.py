"""Scores over seeds, and how they differ from the best method's, for every task."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error

from lorafit.data.rows import Split
from lorafit.experiments.compare.records import BaselineRow, MethodRow
from lorafit.experiments.compare.summary import BaselineResult, CellResult, summarise
from lorafit.runs.records import RunRecord, TrainingRecord
from lorafit.tasks.base import Array, TargetScaler, Task
from lorafit.tasks.evaluation import compare, judge
from lorafit.tasks.records import Resampling
from lorafit.tasks.registry import TASKS, build_task

RESAMPLING = Resampling(samples=200)
ROWS = 120
LABELS = {
    "single_label": ("a", "b", "c"),
    "multi_label": ("a", "b", "c"),
    "regression": ("value",),
    "ordinal": ("1", "2", "3"),
}

PLAIN: dict[str, Callable[[Any, Array], float]] = {
    "single_label": lambda y, values: accuracy_score(y, values.argmax(axis=1)),
    "multi_label": lambda y, values: f1_score(y, values >= 0.5, average="micro"),
    "regression": lambda y, values: mean_absolute_error(y, values[:, 0]),
    "ordinal": lambda y, values: mean_absolute_error(y, (values[:, ::-1].cumsum(axis=1)[:, :-1] >= 0.5).sum(axis=1)),
}
"""The primary metric of each task by scikit-learn."""


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest) -> Task:
    return build_task(request.param, LABELS[request.param])


@pytest.fixture
def measured_rows(task: Task) -> Split:
    rng = np.random.default_rng(0)
    drawn = {"multi_label": rng.integers(2, size=(ROWS, 3)), "regression": rng.normal(50, 10, ROWS)}
    return Split(np.arange(ROWS), ("a text",) * ROWS, drawn.get(task.name, rng.integers(3, size=ROWS)))


@pytest.fixture
def predict(task: Task, measured_rows: Split) -> Callable[[float, int], Array]:
    """Draws the values of a model that is the worse, the larger its noise."""

    def predict(noise: float, seed: int) -> Array:
        targets = task.targets(measured_rows.y, TargetScaler())
        outputs = len(task.output_names)
        known = np.eye(outputs)[targets] if targets.dtype.kind == "i" else targets.reshape(ROWS, outputs)
        return task.activate(known * 1.0 + noise * np.random.default_rng(seed).normal(size=known.shape))

    return predict


@pytest.fixture
def make_cell(run_record: RunRecord) -> Callable[..., CellResult]:
    def make(method: str, seed: int, loss: float, values: Array, **changes: Any) -> CellResult:
        training = TrainingRecord(
            steps=10,
            epochs=2.0,
            best_step=10,
            best_validation_loss=loss,
            stopped_early=False,
            seconds=5.0,
            tokens=1000,
            tokens_per_second=100.0,
            padding_share=0.0,
            adapted_modules=1,
        )
        fields = {"method": method, "seed": seed, "training": training, "seconds": {"training": 5.0 + seed}, **changes}
        return CellResult(run_record.model_copy(update=fields), values, 1000 + seed)

    return make


def test_scores_are_means_over_seeds(
    task: Task, measured_rows: Split, predict: Callable[..., Array], make_cell: Callable[..., CellResult]
) -> None:
    cells = [make_cell("ia3", seed, 0.5, predict(1.0, seed)) for seed in (3, 4)]
    cells += [make_cell("lora", seed, 0.4, predict(0.5, seed)) for seed in (3, 4)]
    best, rows, _ = summarise(cells, [], measured_rows, task, RESAMPLING)
    plain = {cell.record.method: [] for cell in cells}
    for cell in cells:
        plain[cell.record.method].append(PLAIN[task.name](measured_rows.y, cell.values))
    assert best == "lora"
    assert [(row.method, row.seeds) for row in rows] == [("ia3", [3, 4]), ("lora", [3, 4])]
    for row in rows:
        assert row.score_by_seed == pytest.approx(plain[row.method])
        assert row.score.value == pytest.approx(np.mean(plain[row.method]))
        assert row.score.low < row.score.value < row.score.high
        assert row.p_value is None
    other, own = rows
    assert (own.difference, own.verdict) == (None, None)
    assert other.difference is not None
    assert other.difference.value == pytest.approx(np.mean(plain["ia3"]) - np.mean(plain["lora"]))


def test_intervals_are_as_wide_as_resampled_rows_scatter(
    task: Task, measured_rows: Split, predict: Callable[..., Array], make_cell: Callable[..., CellResult]
) -> None:
    values = {("lora", 0): predict(0.5, 0), ("lora", 1): predict(0.5, 1), ("ia3", 0): predict(1.0, 2)}
    cells = [make_cell(method, seed, 0.4 if method == "lora" else 0.5, one) for (method, seed), one in values.items()]
    _, (own, other), _ = summarise(cells, [], measured_rows, task, RESAMPLING)
    statistics = [task.row_statistics(measured_rows.y, one) for one in values.values()]
    rng, drawn, differences = np.random.default_rng(0), [], []
    for _ in range(200):
        rows = rng.integers(ROWS, size=ROWS)
        *lora, ia3 = (float(task.compute(one[rows].sum(axis=0))[task.primary]) for one in statistics)
        drawn.append(np.mean(lora))
        differences.append(ia3 - np.mean(lora))
    assert other.difference is not None
    for estimate, scattered in ((own.score, drawn), (other.difference, differences)):
        low, high = np.quantile(scattered, [0.025, 0.975])
        assert estimate.high - estimate.low == pytest.approx(high - low, rel=0.35)


def test_single_seed_is_compared_like_two_runs(
    task: Task, measured_rows: Split, predict: Callable[..., Array], make_cell: Callable[..., CellResult]
) -> None:
    better, worse = predict(0.3, 0), predict(3.0, 1)
    cells = [make_cell("lora", 0, 0.4, better), make_cell("ia3", 0, 0.5, worse)]
    baselines = [BaselineResult(name, worse, 2.0) for name in task.baselines]
    _, (_, other), rows = summarise(cells, baselines, measured_rows, task, RESAMPLING)
    paired = compare(task, measured_rows.y, better, worse, RESAMPLING)
    for row in (other, *rows):
        assert (row.difference, row.p_value) == (paired.differences[task.primary], paired.p_value)
        assert row.verdict == judge(task, paired, RESAMPLING.level) == "worse"
    assert [(row.name, row.seconds) for row in rows] == [(name, 2.0) for name in task.baselines]


def test_rows_of_a_group_are_resampled_together(
    task: Task, measured_rows: Split, predict: Callable[..., Array], make_cell: Callable[..., CellResult]
) -> None:
    """Each row ten times over tells no more than once."""
    rows = np.repeat(np.arange(ROWS), 10)
    many = replace(measured_rows.select(rows), groups=tuple(map(str, rows)))
    for seeds in ((0,), (0, 1)):
        drawn = [(name, seed, predict(1.0, seed + len(name))) for name in ("lora", "ia3") for seed in seeds]
        for place in (0, 1):
            alone, together = (
                summarise(
                    [make_cell(name, seed, 0.5, pick(one)) for name, seed, one in drawn], [], of, task, RESAMPLING
                )
                for of, pick in ((measured_rows, lambda one: one), (many, lambda one: one[rows]))
            )
            pairs = [(alone[1][place].score, together[1][place].score)]
            if place:
                pairs.append((alone[1][place].difference, together[1][place].difference))
            for one, other in pairs:
                assert other.value == pytest.approx(one.value)
                assert 0.6 < (other.high - other.low) / (one.high - one.low) < 1.6


def test_same_predictions_are_inconclusive(
    task: Task, measured_rows: Split, predict: Callable[..., Array], make_cell: Callable[..., CellResult]
) -> None:
    values = predict(0.5, 0)
    for seeds in ((0,), (0, 1)):
        cells = [make_cell(name, seed, loss, values) for name, loss in (("lora", 0.4), ("ia3", 0.5)) for seed in seeds]
        _, (_, other), _ = summarise(cells, [], measured_rows, task, RESAMPLING)
        assert other.difference is not None
        assert other.difference.value == 0
        assert other.verdict == "inconclusive"


def test_validation_loss_alone_chooses_the_best(
    task: Task, measured_rows: Split, predict: Callable[..., Array], make_cell: Callable[..., CellResult]
) -> None:
    cells = [make_cell("lora", 0, 0.5, predict(0.3, 0)), make_cell("ia3", 0, 0.4, predict(3.0, 1))]
    best, (other, _), _ = summarise(cells, [], measured_rows, task, RESAMPLING)
    assert best == "ia3"
    assert other.verdict == "better"


def test_costs_are_averaged(task: Task, measured_rows: Split, make_cell: Callable[..., CellResult]) -> None:
    values = task.activate(np.zeros((ROWS, len(task.output_names))))
    cells = [
        make_cell("lora", seed, 0.4, values, peak_memory_bytes=100 * (seed + 1), texts_per_second=10.0 * (seed + 1))
        for seed in (0, 1)
    ]
    _, (row,), _ = summarise(cells, [], measured_rows, task, RESAMPLING)
    assert (row.training_seconds, row.bytes_on_disk, row.epoch_seconds) == (5.5, 1000, 5.0)
    assert (row.peak_memory_bytes, row.texts_per_second) == (200, 15.0)


def test_without_a_finished_cell_baselines_have_scores_alone(
    task: Task, measured_rows: Split, predict: Callable[..., Array]
) -> None:
    name = next(iter(task.baselines))
    summary = summarise([], [BaselineResult(name, predict(0.5, 0), 1.0)], measured_rows, task, RESAMPLING)
    best, methods, (row,) = summary
    assert (best, methods) == (None, list[MethodRow]())
    assert row == BaselineRow(name=name, score=row.score, seconds=1.0)
