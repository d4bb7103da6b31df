"""Slices against a slow twin, one slice and one resample at a time, and against scikit-learn."""

import time
from collections import Counter

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score

from lorafit.data.rows import Split
from lorafit.evidence import SliceScores
from lorafit.metrics.slices import score_slices

FloatArray = NDArray[np.float64]
LENGTHS = {"1-15": range(1, 16), "16-63": range(16, 64), "64-255": range(64, 256), "256+": range(256, 10**6)}


def make_rows(n: int, classes: int, seed: int) -> tuple[Split, FloatArray, FloatArray]:
    """Rows of every length with two columns, and what a good and a bad model say of them."""
    rng = np.random.default_rng(seed)
    words = rng.choice([1, 15, 16, 40, 63, 64, 255, 256, 400], n)
    columns = {
        "shop": tuple(f"shop {value}" for value in np.minimum(rng.geometric(0.15, n), 30)),
        "rating": tuple(str(value) for value in rng.integers(1, 11, n)),
    }
    labels = rng.integers(0, classes, n)
    texts = tuple("word  " * int(count) for count in words)
    good, bad = (rng.dirichlet(np.ones(classes), n) + skill * np.eye(classes)[labels] for skill in (0.6, 0.2))
    rows = Split(np.arange(n), texts, labels, columns)
    return rows, good / good.sum(axis=1, keepdims=True), bad / bad.sum(axis=1, keepdims=True)


def tell_apart_slowly(rows: Split) -> dict[tuple[str, str], list[int]]:
    """The twin of the slicing: positions of each slice's rows."""
    found: dict[tuple[str, str], list[int]] = {}
    for name, lengths in LENGTHS.items():
        positions = [place for place, text in enumerate(rows.texts) if len(text.split()) in lengths]
        if len(positions) >= 10:
            found["words", name] = positions
    for column, values in rows.columns.items():
        common = [value for value, _ in sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))]
        kept = [value for value in common if values.count(value) >= 10][:50]
        for value in sorted(kept, key=int) if column == "rating" else kept:
            found[column, value] = [place for place, other in enumerate(values) if other == value]
        rest = [place for place, other in enumerate(values) if other not in kept]
        if rest:
            found[column, "other"] = rest
    return found


def resample_slowly(worth: FloatArray, labels: NDArray[np.int64], samples: int) -> FloatArray:
    """The twin of the bootstrap: row by row within each true class."""
    rng = np.random.default_rng(99)
    strata = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    drawn = (np.concatenate([rng.choice(stratum, len(stratum)) for stratum in strata]) for _ in range(samples))
    return np.array([worth[rows].mean() for rows in drawn])


@pytest.mark.parametrize("classes", [2, 4])
def test_slices_equal_the_twins_and_scikit_learns_accuracy(classes: int) -> None:
    rows, after, before = make_rows(900, classes, seed=classes)
    scores = score_slices(rows, after, before, samples=1000, seed=3)
    slow = tell_apart_slowly(rows)
    assert [(one.column, one.value) for one in scores] == list(slow)
    assert ("shop", "other") in slow
    right_after, right_before = (said.argmax(axis=1) == rows.labels for said in (after, before))
    for one in scores:
        places = slow[one.column, one.value]
        labels = rows.labels[places]
        assert one.rows == len(places)
        assert one.difference is not None
        accuracies = [accuracy_score(labels, said[places].argmax(axis=1)) for said in (after, before)]
        assert one.accuracy.value == pytest.approx(accuracies[0])
        assert one.difference.value == pytest.approx(accuracies[0] - accuracies[1])
        wilson = scipy.stats.binomtest(int(right_after[places].sum()), len(places)).proportion_ci(0.95, "wilson")
        assert (one.accuracy.low, one.accuracy.high) == pytest.approx((wilson.low, wilson.high))
        twin = resample_slowly(right_after[places].astype(float) - right_before[places], labels, 1000)
        margin = 0.35 * twin.std() + 1.01 / len(places)  # means move in steps of one row
        low, high = np.quantile(twin, [0.025, 0.975])
        assert one.difference.low == pytest.approx(low, abs=margin)
        assert one.difference.high == pytest.approx(high, abs=margin)


def score_values(values: list[str]) -> list[SliceScores]:
    """Score a model that is always right on texts of one word."""
    rows = Split(np.arange(len(values)), ("a",) * len(values), np.arange(len(values)) % 2, {"shop": tuple(values)})
    scores = score_slices(rows, np.eye(2)[rows.labels], samples=10)
    return [one for one in scores if one.column == "shop"]


def count_values(values: list[str]) -> list[tuple[str, int]]:
    return [(one.value, one.rows) for one in score_values(values)]


def test_values_of_few_rows_and_beyond_the_fifty_most_frequent_are_taken_together() -> None:
    assert count_values(["x"] * 10 + ["y"] * 9 + ["z"] * 2) == [("x", 10), ("other", 11)]
    values = [f"v{number:02}" for number in range(60) for _ in range(70 - number)]
    counted = count_values(values)
    assert counted[:50] == [(f"v{number:02}", 70 - number) for number in range(50)]
    assert counted[50:] == [("other", sum(70 - number for number in range(50, 60)))]


def test_numbers_come_in_their_order_before_other_values() -> None:
    values = ["10"] * 30 + ["9"] * 20 + ["b"] * 15 + ["-1.5"] * 10 + ["nan"] * 50 + [""] * 40
    assert count_values(values) == [("-1.5", 10), ("9", 20), ("10", 30), ("nan", 50), ("(none)", 40), ("b", 15)]


def test_long_and_many_lined_values_are_cut_and_stay_distinct() -> None:
    values = ["x" * 50 + "1"] * 12 + ["x" * 50 + "2"] * 11 + ["a\n b"] * 10 + ["other"] * 10 + ["rare"]
    cut = "x" * 39 + "…"
    assert count_values(values) == [(cut, 12), (f"{cut} (2)", 11), ("a b", 10), ("other", 10), ("other (2)", 1)]


def test_without_baseline_or_columns_there_are_lengths_and_no_difference() -> None:
    texts = ("a b",) * 12 + ("a " * 20,) * 9 + ("a " * 70,) * 10
    rows = Split(np.arange(31), texts, np.array([0, 1] * 6 + [1] * 19))
    scores = score_slices(rows, np.array([[0.2, 0.8]] * 31), samples=10)
    assert [(one.value, one.rows, one.accuracy.value, one.difference) for one in scores] == [
        ("1-15", 12, 0.5, None),
        ("64-255", 10, 1.0, None),
    ], "the length of 9 rows is left out"


def test_lengths_of_few_rows_are_left_out_also_where_none_is_left() -> None:
    rows = Split(np.arange(18), ("a",) * 9 + ("a " * 20,) * 9, np.arange(18) % 2, {"shop": ("x",) * 18})
    scores = score_slices(rows, np.eye(2)[rows.labels], np.eye(2)[1 - rows.labels], samples=10)
    assert [(one.column, one.rows) for one in scores] == [("shop", 18)]


def test_slice_without_a_mistake_has_an_interval_that_narrows_with_its_rows() -> None:
    few, many = score_values(["x"] * 10 + ["y"] * 1000)[::-1]
    assert (few.accuracy.value, few.accuracy.high) == (1, 1)
    assert few.accuracy.low == pytest.approx(0.7225, abs=1e-4)
    assert many.accuracy.low == pytest.approx(0.9962, abs=1e-4)


def test_intervals_depend_on_the_seed_and_not_on_other_columns() -> None:
    rows, after, before = make_rows(300, 2, seed=5)
    alone = Split(rows.ids, rows.texts, rows.labels, {"rating": rows.columns["rating"]})

    def ratings(rows: Split, seed: int) -> list[SliceScores]:
        return [one for one in score_slices(rows, after, before, samples=50, seed=seed) if one.column == "rating"]

    assert ratings(rows, 1) == ratings(alone, 1)
    assert ratings(rows, 1) != ratings(rows, 2)


def test_many_rows_values_and_classes_take_seconds() -> None:
    rows, after, before = make_rows(25_000, 20, seed=6)
    began = time.perf_counter()
    score_slices(rows, after, before, samples=2000)
    assert time.perf_counter() - began < 10
