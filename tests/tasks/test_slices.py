"""Slices of every task against slow twins: cutting, metrics, and the test of weak ones."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from lorafit.tasks.base import Array, Task
from lorafit.tasks.evaluation import (
    LENGTH_COLUMN,
    Slicing,
    compare,
    compare_slices,
    cut_into_slices,
    estimate,
    find_weak_slices,
    score_slices,
)
from lorafit.tasks.records import Resampling, SliceScores
from lorafit.tasks.registry import TASKS, build_task
from lorafit.tasks.statistics import adjust_p_values

if TYPE_CHECKING:
    from conftest import BuildCase, Case

LENGTHS = {"1-15": range(1, 16), "16-63": range(16, 64), "64-255": range(64, 256), "256+": range(256, 10**6)}
Columns = dict[str, tuple[str, ...]]


def make_columns(n: int, seed: int) -> tuple[list[str], Columns]:
    """Texts of every length, and two columns."""
    rng = np.random.default_rng(seed)
    texts = ["word  " * int(count) for count in rng.choice([1, 15, 16, 40, 63, 64, 255, 256, 400], n)]
    return texts, {
        "shop": tuple(f"shop {value}" for value in np.minimum(rng.geometric(0.15, n), 30)),
        "rating": tuple(str(value) for value in rng.integers(1, 6, n)),
    }


def cut_slowly(texts: Sequence[str], columns: Columns) -> dict[tuple[str, str], list[int]]:
    """The twin of the slicing: positions of each slice's rows."""
    found: dict[tuple[str, str], list[int]] = {}
    for name, lengths in LENGTHS.items():
        positions = [place for place, text in enumerate(texts) if len(text.split()) in lengths]
        if len(positions) >= 10:
            found[LENGTH_COLUMN, name] = positions
    for column, values in columns.items():
        common = [value for value, _ in sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))]
        kept = [value for value in common if values.count(value) >= 10][:50]
        for value in sorted(kept, key=int) if column == "rating" else kept:
            found[column, value] = [place for place, other in enumerate(values) if other == value]
        rest = [place for place, other in enumerate(values) if other not in kept]
        if rest:
            found[column, "other"] = rest
    return found


def cut(column: str, values: Sequence[str]) -> list[Slicing]:
    """Cut rows by one column alone, each of a length of its own."""
    return [one for one in cut_into_slices([""] * len(values), {column: values}) if one.column == column]


def count_values(values: Sequence[str]) -> list[tuple[str, int]]:
    (slicing,) = cut("shop", values)
    return list(zip(slicing.values, np.bincount(slicing.places).tolist(), strict=True))


# Cutting


def test_slices_are_those_of_plain_loops() -> None:
    texts, columns = make_columns(900, 1)
    found = {
        (slicing.column, value): np.flatnonzero(slicing.places == place).tolist()
        for slicing in cut_into_slices(texts, columns)
        for place, value in enumerate(slicing.values)
    }
    assert found == cut_slowly(texts, columns)
    assert list(found) == list(cut_slowly(texts, columns))
    assert ("shop", "other") in found


def test_values_of_few_rows_and_beyond_the_fifty_most_frequent_are_taken_together() -> None:
    assert count_values(["x"] * 10 + ["y"] * 9 + ["z"] * 2) == [("x", 10), ("other", 11)]
    counted = count_values([f"v{number:02}" for number in range(60) for _ in range(70 - number)])
    assert counted[:50] == [(f"v{number:02}", 70 - number) for number in range(50)]
    assert counted[50:] == [("other", sum(70 - number for number in range(50, 60)))]


def test_numbers_come_in_their_order_before_other_values() -> None:
    values = ["10"] * 30 + ["9"] * 20 + ["b"] * 15 + ["-1.5"] * 10 + ["nan"] * 50 + [""] * 40
    assert count_values(values) == [("-1.5", 10), ("9", 20), ("10", 30), ("nan", 50), ("(none)", 40), ("b", 15)]


def test_long_and_many_lined_values_are_cut_and_stay_distinct() -> None:
    values = ["x" * 50 + "1"] * 12 + ["x" * 50 + "2"] * 11 + ["a\n b"] * 10 + ["other"] * 10 + ["rare"]
    short = "x" * 39 + "…"
    assert count_values(values) == [(short, 12), (f"{short} (2)", 11), ("a b", 10), ("other", 10), ("other (2)", 1)]


def test_lengths_of_few_rows_are_left_out_also_where_none_is_left() -> None:
    texts = ("a b",) * 12 + ("a " * 20,) * 9 + ("a " * 70,) * 10
    (lengths,) = cut_into_slices(texts, {})
    assert lengths.values == ["1-15", "64-255"]
    assert lengths.places.tolist() == [0] * 12 + [-1] * 9 + [1] * 10
    only = list(cut_into_slices(("a",) * 9 + ("a " * 20,) * 9, {"shop": ("x",) * 18}))
    assert [one.column for one in only] == ["shop"]


# Metrics


def test_slices_are_scored_as_their_rows_alone(case: "Case", resampling: Resampling) -> None:
    task, (y, before, after) = case.task, case.draw_values(400)
    texts, columns = make_columns(400, 2)
    members = cut_slowly(texts, columns)
    scores = score_slices(task, y, after, before, list(cut_into_slices(texts, columns)), resampling)
    assert [(one.column, one.value, one.rows) for one in scores] == [(*key, len(rows)) for key, rows in members.items()]
    for one, rows in zip(scores, members.values(), strict=True):
        alone = estimate(task, y[rows], after[rows], resampling).metrics
        paired = compare(task, y[rows], before[rows], after[rows], resampling).differences
        for name in task.slice_metrics:
            for measured, expected in ((one.metrics[name], alone[name]), (one.differences[name], paired[name])):
                assert measured.value == pytest.approx(expected.value)
                assert measured.low <= measured.value <= measured.high
                width = expected.high - expected.low
                assert [measured.low, measured.high] == pytest.approx([expected.low, expected.high], abs=0.4 * width)


def test_rows_of_a_group_are_resampled_together_in_slices(case: "Case") -> None:
    """Each row ten times over tells no more than once."""
    task, (y, before, after), resampling = case.task, case.draw_values(60), Resampling(samples=500)
    rows = np.repeat(np.arange(60), 10)
    half = np.arange(60) % 2
    every, inner = np.arange(60), np.flatnonzero(half[rows] == 1)
    alone = score_slices(task, y, after, before, [Slicing("s", ["a", "b"], half)], resampling)
    slicing = Slicing("s", ["a", "b"], half[rows])
    grouped = score_slices(task, y[rows], after[rows], before[rows], [slicing], replace(resampling, groups=rows))
    paired = compare_slices(task, y, (before, after), [("s", "b", every[half == 1])], resampling)
    values = (before[rows], after[rows])
    together = compare_slices(task, y[rows], values, [("s", "b", inner)], replace(resampling, groups=rows))
    assert not paired[0].comparison.grouped
    assert together[0].comparison.grouped
    for name in task.slice_metrics:
        pairs = [(one.metrics[name], other.metrics[name]) for one, other in zip(alone, grouped, strict=True)]
        pairs += [(one.differences[name], other.differences[name]) for one, other in zip(alone, grouped, strict=True)]
        pairs.append((paired[0].comparison.differences[name], together[0].comparison.differences[name]))
        for one, other in pairs:
            assert other.value == pytest.approx(one.value)
            assert 0.5 < (other.high - other.low) / (one.high - one.low) < 1.7, name


def test_slices_are_compared_as_their_rows_alone(case: "Case", resampling: Resampling) -> None:
    task, (y, before, after) = case.task, case.draw_values(200)
    slices = [("s", "all", np.arange(200)), ("s", "few", np.arange(30)), ("t", "odd", np.arange(1, 200, 2))]
    done: list[int] = []
    found = compare_slices(task, y, (before, after), slices, resampling, on_progress=done.append)
    assert done == [1, 2, 3]
    p_values = []
    for one, (column, value, rows) in zip(found, slices, strict=True):
        assert (one.column, one.value, one.rows) == (column, value, len(rows))
        alone = compare(task, y[rows], before[rows], after[rows], resampling)
        assert (one.comparison.rows_fixed, one.comparison.rows_broken, one.comparison.p_value) == (
            alone.rows_fixed,
            alone.rows_broken,
            alone.p_value,
        )
        p_values.append(alone.p_value)
        for name in task.slice_metrics:
            assert one.after[name] - one.before[name] == pytest.approx(alone.differences[name].value)
            assert one.comparison.differences[name].value == pytest.approx(alone.differences[name].value)
    assert [one.adjusted_p_value for one in found] == adjust_p_values(p_values)


def test_without_a_model_before_there_is_no_difference(case: "Case", resampling: Resampling) -> None:
    y, _, after = case.draw_values(40)
    for one in score_slices(case.task, y, after, None, cut("s", ["x", "y"] * 20), resampling):
        assert one.differences == {}


def test_intervals_depend_on_the_seed_and_not_on_other_columns(case: "Case") -> None:
    task, (y, before, after), (texts, columns) = case.task, case.draw_values(300), make_columns(300, 5)

    def ratings(columns: Columns, seed: int) -> list[Any]:
        slicings = list(cut_into_slices(texts, columns))
        scores = score_slices(task, y, after, before, slicings, Resampling(samples=50, seed=seed))
        return [(one.value, one.metrics, one.differences) for one in scores if one.column == "rating"]

    assert ratings(columns, 1) == ratings({"rating": columns["rating"]}, 1)
    assert ratings(columns, 1) != ratings(columns, 2)


def test_shares_of_a_slice_have_intervals_that_narrow_with_its_rows() -> None:
    task, values = build_task("single_label", "ab"), ["x"] * 1000 + ["y"] * 10
    y = np.arange(1010) % 2
    many, few = score_slices(task, y, np.eye(2)[y], None, cut("s", values), Resampling(samples=10))
    assert (few.metrics["accuracy"].value, few.metrics["accuracy"].high) == (1, 1)
    assert few.metrics["accuracy"].low == pytest.approx(0.7225, abs=1e-4)
    assert many.metrics["accuracy"].low == pytest.approx(0.9962, abs=1e-4)


def test_f1_without_any_label_is_undefined_and_nothing_is_worse_than_it_by_chance(resampling: Resampling) -> None:
    """Of 20 texts without labels the model gives none; before training it gave all of them some."""
    task, marks = build_task("multi_label", "ab"), np.array([[1, 0]] * 12 + [[0, 0]] * 20)
    after = np.where(marks == 1, 0.9, 0.1)
    after[:4] = 0.1
    slicings = cut("s", ["north"] * 12 + ["south"] * 20)
    south, north = score_slices(task, marks, after, np.full((32, 2), 0.9), slicings, resampling)
    for estimated in (south.metrics["micro_f1"], south.differences["micro_f1"]):
        assert all(map(math.isnan, (estimated.value, estimated.low, estimated.high)))
    assert south.metrics["exact_match"].value == south.differences["exact_match"].value == 1
    assert south.adjusted_p_value == 1
    assert north.metrics["micro_f1"].value == pytest.approx(2 * 8 / (8 + 12))
    again = SliceScores.model_validate_json(south.model_dump_json())
    assert math.isnan(again.metrics["micro_f1"].value)
    assert find_weak_slices(task, [south, north], 0.95) in ([], [north])


# The test of weak slices


def deal_slowly(task: Task, y: NDArray[Any], values: Array, rows: NDArray[np.int64], samples: int) -> float:
    """The twin of the test: rows of the slice's number drawn from all rows, one deal at a time."""
    rng, sign = np.random.default_rng(7), -1 if task.primary_metric.higher_is_better else 1

    def measure(rows: NDArray[np.int64]) -> float:
        value = float(task.compute(task.row_statistics(y[rows], values[rows]).sum(axis=0))[task.primary])
        return sign * (1.0 if math.isnan(value) else value)

    limit = measure(rows) - 1e-9
    return float(np.mean([measure(rng.permutation(len(y))[: len(rows)]) >= limit for _ in range(samples)]))


def test_p_values_are_shares_of_random_deals_that_are_as_bad(case: "Case") -> None:
    task, (y, _, values) = case.task, case.draw_values(120)
    names = np.where(np.arange(120) < 30, "x", np.where(np.arange(120) < 50, "y", "z"))
    slicings = cut("s", names.tolist())
    found = score_slices(task, y, values, None, slicings, Resampling(samples=1000, seed=3))
    slow = [
        deal_slowly(task, y, values, np.flatnonzero(slicings[0].places == place), 800)
        for place in range(len(slicings[0].values))
    ]
    expected = adjust_p_values(slow)
    assert [one.adjusted_p_value for one in found] == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("name", ["single_label", "regression"])
def test_rows_that_are_right_or_wrong_are_tested_exactly(name: str) -> None:
    """Fisher's exact test: errors of a slice drawn at random are hypergeometric."""
    wrong = np.array([1] * 7 + [0] * 5 + [1] * 6 + [0] * 18)
    if name == "regression":
        task, y, values = build_task(name, ["value"]), np.zeros(36), wrong[:, np.newaxis].astype(np.float64)
    else:
        task, y, values = build_task(name, "ab"), np.zeros(36, dtype=np.int64), np.eye(2)[wrong]
    slicings = cut("s", ["north"] * 12 + ["south"] * 24)
    south, north = score_slices(task, y, values, None, slicings, Resampling(samples=1))
    fisher = scipy.stats.fisher_exact([[7, 5], [6, 18]], alternative="greater").pvalue
    assert north.adjusted_p_value == pytest.approx(2 * fisher), "the smaller of two, adjusted for both"
    assert south.adjusted_p_value == pytest.approx(scipy.stats.hypergeom(36, 13, 24).sf(5))


def test_two_kinds_of_rows_are_tested_exactly_whatever_the_metric(resampling: Resampling) -> None:
    """F1 of a slice is 0 as soon as one of its rows has a label, and undefined without."""
    task, marks = build_task("multi_label", "ab"), np.zeros((40, 2), dtype=np.int64)
    marks[[0, 20, 30], 0] = 1
    slicings = cut("s", ["north"] * 20 + ["south"] * 20)
    scores = score_slices(task, marks, np.full((40, 2), 0.1), None, slicings, resampling)
    none = scipy.stats.hypergeom(40, 3, 20).pmf(0)
    assert [one.adjusted_p_value for one in scores] == pytest.approx([min(1, 2 * (1 - none))] * 2)


@pytest.mark.parametrize("name", TASKS)
def test_weak_slice_is_found_and_the_others_are_not(name: str, build_case: "BuildCase") -> None:
    y, before, after = build_case(name).draw_values(800)
    columns = make_columns(800, 4)[1]
    weak = np.array(columns["rating"]) == "3"
    values = after.copy()
    values[weak] = np.roll(before, 1, axis=0)[weak]
    task, slicings = build_case(name).task, list(cut_into_slices(["a"] * 800, columns))
    scores = score_slices(task, y, values, None, slicings, Resampling(samples=1000))
    assert [(one.column, one.value) for one in find_weak_slices(task, scores, 0.95)] == [("rating", "3")]


def test_model_that_does_not_differ_by_slice_is_hardly_ever_shown_to(case: "Case") -> None:
    found = 0
    for seed in range(40):
        y, _, values = case.draw_values(150, seed=seed)
        ratings = np.random.default_rng(seed).integers(1, 6, 150).astype(str).tolist()
        scores = score_slices(case.task, y, values, None, cut("s", ratings), Resampling(samples=200))
        found += bool(find_weak_slices(case.task, scores, 0.95))
    assert found <= 6


def test_weak_slice_is_found_among_many() -> None:
    rng, n, task = np.random.default_rng(0), 1100, build_task("regression", ["value"])
    columns = {name: tuple(f"{value:02}" for value in rng.permutation(np.arange(n) % 50)) for name in ("a", "b", "c")}
    values = np.where(np.array(columns["a"]) == "07", 40.0, rng.random(n) / 10)[:, np.newaxis]
    slicings = list(cut_into_slices(("a text",) * n, columns))
    scores = score_slices(task, np.zeros(n), values, None, slicings, Resampling(samples=100))
    assert len(scores) > 100
    assert [(one.column, one.value) for one in find_weak_slices(task, scores, 0.95)] == [("a", "07")]


def test_weak_slices_come_weakest_first(build_case: "BuildCase") -> None:
    for name, order in (("single_label", [0.2, 0.9]), ("regression", [0.9, 0.2])):
        task = build_case(name).task
        y, _, values = build_case(name).draw_values(20)
        (one,) = score_slices(task, y, values, None, cut("s", ["x"] * 20), Resampling(samples=10))
        scores = [
            one.model_copy(
                update={
                    "adjusted_p_value": 0.001,
                    "metrics": {task.primary: one.metrics[task.primary].model_copy(update={"value": value})},
                }
            )
            for value in (0.9, 0.2)
        ]
        found = find_weak_slices(task, scores, 0.95)
        assert [weak.metrics[task.primary].value for weak in found] == order


def test_slice_of_all_rows_or_of_equal_ones_is_not_worse(case: "Case", resampling: Resampling) -> None:
    y, _, values = case.draw_values(40)
    (alone,) = score_slices(case.task, y, values, None, list(cut_into_slices(["a"] * 40, {})), resampling)
    assert (alone.column, alone.value, alone.adjusted_p_value) == (LENGTH_COLUMN, "1-15", pytest.approx(1))
    same = np.repeat(y[:1], 40, axis=0), np.repeat(values[:1], 40, axis=0)
    scores = score_slices(case.task, *same, None, cut("s", ["north", "south"] * 20), resampling)
    assert [one.adjusted_p_value for one in scores] == pytest.approx([1, 1])
