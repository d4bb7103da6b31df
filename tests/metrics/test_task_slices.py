"""Slices of several labels and of numbers against scikit-learn, scipy and a slow twin of the bootstrap."""

import math
import time
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error

from lorafit.data.rows import Split
from lorafit.labels import ClasslessTask
from lorafit.metrics.slices import tell_apart
from lorafit.metrics.task_slices import score_task_slices
from lorafit.task_evidence import TaskSliceScores

FloatArray = NDArray[np.float64]
Score = Callable[[NDArray[np.float64], FloatArray], float]

FIGURES: dict[ClasslessTask, dict[str, Score]] = {
    "multi_label": {
        "micro_f1": lambda true, said: float(f1_score(true, said >= 0.5, average="micro", zero_division=0)),
        "exact_match": lambda true, said: float(accuracy_score(true, said >= 0.5)),
    },
    "regression": {"mae": lambda true, said: float(mean_absolute_error(true, said[:, 0]))},
}
QUICK: dict[str, Score] = {
    "micro_f1": lambda true, said: float(
        2 * ((said >= 0.5) & (true == 1)).sum() / max((said >= 0.5).sum() + true.sum(), 1)
    ),
    "exact_match": lambda true, said: float(((said >= 0.5) == (true == 1)).all(axis=1).mean()),
    "mae": lambda true, said: float(np.abs(said[:, 0] - true).mean()),
}
"""The same without the checks that make scikit-learn slow."""

TASKS: tuple[ClasslessTask, ...] = ("multi_label", "regression")


def make_rows(n: int, task: ClasslessTask, seed: int) -> tuple[Split, FloatArray, FloatArray]:
    """Rows of every length with two columns, and what a good and a bad model give."""
    rng = np.random.default_rng(seed)
    columns = {
        "shop": tuple(f"shop {value}" for value in np.minimum(rng.geometric(0.15, n), 30)),
        "rating": tuple(str(value) for value in rng.integers(1, 6, n)),
    }
    texts = tuple("word " * int(count) for count in rng.choice([1, 15, 16, 63, 64, 255, 256], n))
    if task == "regression":
        labels: NDArray[np.float64] | NDArray[np.int64] = rng.normal(50, 10, n)
        good, bad = ((labels + rng.normal(0, spread, n))[:, np.newaxis] for spread in (2, 6))
    else:
        labels = (rng.random((n, 4)) < [0.5, 0.3, 0.2, 0.05]).astype(np.int64)
        good, bad = (np.clip(labels * skill + rng.random((n, 4)) * 0.7, 0, 1) for skill in (0.35, 0.15))
    return Split(np.arange(n), texts, labels, columns), good, bad


def list_members(rows: Split) -> dict[tuple[str, str], NDArray[np.int64]]:
    return {
        (slicing.column, value): np.flatnonzero(slicing.places == place)
        for slicing in tell_apart(rows)
        for place, value in enumerate(slicing.values)
    }


def build_rows(labels: NDArray[np.float64] | NDArray[np.int64], shops: list[str]) -> Split:
    """Rows of no length that is told apart: fewer than 10 of any."""
    texts = tuple("word " * (1, 16, 64, 256)[place % 4] for place in range(len(labels)))
    return Split(np.arange(len(labels)), texts, labels, {"shop": tuple(shops)})


@pytest.mark.parametrize("task", TASKS)
def test_slices_equal_scikit_learns_figures_and_the_slow_twins_intervals(task: ClasslessTask) -> None:
    rows, after, before = make_rows(600, task, seed=1)
    scores = score_task_slices(rows, task, after, before, samples=1000, seed=3)
    members = list_members(rows)
    assert [(one.column, one.value) for one in scores] == list(members)
    assert ("shop", "other") in members
    rng = np.random.default_rng(99)
    for one in scores:
        places = members[one.column, one.value]
        true, new, old = rows.labels[places], after[places], before[places]
        assert one.rows == len(places)
        assert one.figures.keys() == one.differences.keys() == FIGURES[task].keys()
        draws = [rng.integers(len(places), size=len(places)) for _ in range(500)]
        for name, score in FIGURES[task].items():
            figure, difference = one.figures[name], one.differences[name]
            assert figure.value == pytest.approx(score(true, new))
            assert difference.value == pytest.approx(score(true, new) - score(true, old))
            quick = QUICK[name]
            drawn = np.array([[quick(true[draw], new[draw]), quick(true[draw], old[draw])] for draw in draws])
            pairs = [(difference, drawn[:, 0] - drawn[:, 1])]
            if name != "exact_match":
                pairs.append((figure, drawn[:, 0]))
            for estimate, twin in pairs:
                low, high = np.quantile(twin, [0.025, 0.975])
                margin = 0.5 * twin.std() + 1.01 / len(places)  # shares move in steps of one row
                assert estimate.low == pytest.approx(low, abs=margin)
                assert estimate.high == pytest.approx(high, abs=margin)


def test_exact_matches_have_wilsons_interval() -> None:
    rows, after, _ = make_rows(300, "multi_label", seed=2)
    for one in score_task_slices(rows, "multi_label", after, samples=10):
        share = one.figures["exact_match"]
        wilson = scipy.stats.binomtest(round(share.value * one.rows), one.rows).proportion_ci(0.95, "wilson")
        assert (share.low, share.high) == pytest.approx((wilson.low, wilson.high))
        assert one.differences == {}


def test_f1_without_any_label_is_undefined_and_nothing_is_worse_than_it_by_chance() -> None:
    """Of 20 texts without labels the model gives none; before training it gave all of them some."""
    marks = np.array([[1, 0]] * 12 + [[0, 0]] * 20)
    after = np.where(marks == 1, 0.9, 0.1)
    after[:4] = 0.1
    rows = build_rows(marks, ["north"] * 12 + ["south"] * 20)
    south, north = score_task_slices(rows, "multi_label", after, np.full((32, 2), 0.9), samples=200)
    for estimate in (south.figures["micro_f1"], south.differences["micro_f1"]):
        assert all(map(math.isnan, (estimate.value, estimate.low, estimate.high)))
    assert south.figures["exact_match"].value == south.differences["exact_match"].value == 1
    assert south.adjusted_p_value == 1
    assert north.figures["micro_f1"].value == pytest.approx(2 * 8 / (8 + 12))


def test_resamples_without_any_label_reach_down_to_an_f1_of_0() -> None:
    marks = np.array([[1]] + [[0]] * 11)
    rows = build_rows(marks, ["north"] * 12)
    (one,) = score_task_slices(rows, "multi_label", np.where(marks == 1, 0.9, 0.1), samples=200)
    figure = one.figures["micro_f1"]
    assert (figure.value, figure.low, figure.high) == (1, 0, 1)


def test_p_value_is_that_of_the_hypergeometric_distribution() -> None:
    """Where an error is 0 or 1, the errors of a slice drawn at random are so distributed."""
    errors = np.array([1.0] * 7 + [0.0] * 5 + [1.0] * 6 + [0.0] * 18)
    rows = build_rows(np.zeros(36), ["north"] * 12 + ["south"] * 24)
    south, north = score_task_slices(rows, "regression", errors[:, np.newaxis], samples=20_000)
    assert (north.value, north.figures["mae"].value) == ("north", pytest.approx(7 / 12))
    chance = {size: float(scipy.stats.hypergeom(36, 13, size).sf(found - 1)) for size, found in ((12, 7), (24, 6))}
    assert north.adjusted_p_value == pytest.approx(2 * chance[12], rel=0.1), "the smaller of two, raised for both"
    assert south.adjusted_p_value == pytest.approx(chance[24], rel=0.02)


@pytest.mark.parametrize("task", TASKS)
def test_weak_slice_is_found_and_the_others_are_not(task: ClasslessTask) -> None:
    rows, after, before = make_rows(800, task, seed=4)
    weak = np.array([value == "3" for value in rows.columns["rating"]])
    scores = score_task_slices(rows, task, np.where(weak[:, np.newaxis], before, after), samples=2000)
    assert [(one.column, one.value) for one in scores if one.adjusted_p_value < 0.05] == [("rating", "3")]


@pytest.mark.parametrize("task", TASKS)
def test_model_that_does_not_differ_by_slice_is_hardly_ever_shown_to(task: ClasslessTask) -> None:
    found = 0
    for seed in range(60):
        rows, after, _ = make_rows(150, task, seed=seed)
        rows = Split(rows.ids, rows.texts, rows.labels, {"rating": rows.columns["rating"]})
        found += any(one.adjusted_p_value < 0.05 for one in score_task_slices(rows, task, after, samples=400))
    assert found <= 7


def test_weak_slice_is_found_among_many() -> None:
    rng, n = np.random.default_rng(0), 2200
    columns = {name: tuple(f"{value:02}" for value in rng.permutation(np.arange(n) % 50)) for name in ("a", "b", "c")}
    rows = Split(np.arange(n), ("a text",) * n, np.zeros(n), columns)
    said = np.where(np.array(columns["a"]) == "07", 40.0, rng.random(n) / 10)[:, np.newaxis]
    scores = score_task_slices(rows, "regression", said, samples=100)
    assert len(scores) > 100
    assert [(one.column, one.value) for one in scores if one.adjusted_p_value < 0.05] == [("a", "07")]


@pytest.mark.parametrize("task", TASKS)
def test_slice_of_all_rows_or_of_equal_ones_is_not_worse(task: ClasslessTask) -> None:
    rows, after, _ = make_rows(40, task, seed=5)
    same = Split(rows.ids, ("a",) * 40, rows.labels, {})
    (alone,) = score_task_slices(same, task, after, samples=50)
    assert (alone.column, alone.value, alone.adjusted_p_value) == ("words", "1-15", 1)
    labels = np.full(40, 0.1) if task == "regression" else np.ones((40, 1), dtype=np.int64)
    equal = build_rows(labels, ["north", "south"] * 20)
    scores = score_task_slices(equal, task, np.full((40, 1), 0.4), samples=50)
    assert {one.adjusted_p_value for one in scores} == {1}


@pytest.mark.parametrize("task", TASKS)
def test_figures_depend_on_the_seed_and_not_on_other_columns(task: ClasslessTask) -> None:
    rows, after, before = make_rows(300, task, seed=6)
    alone = Split(rows.ids, rows.texts, rows.labels, {"rating": rows.columns["rating"]})

    def ratings(rows: Split, seed: int) -> list[tuple[object, ...]]:
        scores = score_task_slices(rows, task, after, before, samples=50, seed=seed)
        return [(one.value, one.figures, one.differences) for one in scores if one.column == "rating"]

    assert ratings(rows, 1) == ratings(alone, 1)
    assert ratings(rows, 1) != ratings(rows, 2)


def test_records_with_undefined_figures_come_back_from_json() -> None:
    rows = build_rows(np.zeros((12, 2), dtype=np.int64), ["north"] * 12)
    (one,) = score_task_slices(rows, "multi_label", np.full((12, 2), 0.1), samples=10)
    again = TaskSliceScores.model_validate_json(one.model_dump_json())
    assert math.isnan(again.figures["micro_f1"].value)
    assert again.figures["exact_match"] == one.figures["exact_match"]


@pytest.mark.parametrize("task", TASKS)
def test_many_rows_take_seconds(task: ClasslessTask) -> None:
    rows, after, before = make_rows(25_000, task, seed=7)
    began = time.process_time()
    score_task_slices(rows, task, after, before, samples=500)
    assert time.process_time() - began < 10
