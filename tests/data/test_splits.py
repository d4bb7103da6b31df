from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from lorafit.data.rows import Split
from lorafit.data.splits import count_shared_texts, cut_split, read_times, sample_rows
from lorafit.errors import DataError
from lorafit.tasks.registry import build_task

CLASSES = build_task("single_label", "abcdefgh")


def make_split(labels: Sequence[int], texts: Sequence[str] | None = None) -> Split:
    names = tuple(texts) if texts is not None else tuple(f"text {number}" for number in range(len(labels)))
    return Split(np.arange(1, len(labels) + 1), names, np.asarray(labels, dtype=np.int64))


def test_cut_takes_the_same_share_of_every_label() -> None:
    split = make_split([0] * 60 + [1] * 30 + [2] * 10)
    rest, cut = cut_split(split, 0.2, 0, CLASSES)
    assert np.bincount(rest.y).tolist() == [48, 24, 8]
    assert np.bincount(cut.y).tolist() == [12, 6, 2]
    assert sorted([*rest.ids, *cut.ids]) == split.ids.tolist()


def test_parts_keep_the_input_order_and_belonging() -> None:
    split = make_split([0, 1] * 20)
    for part in cut_split(split, 0.3, 1, CLASSES):
        assert np.all(np.diff(part.ids) > 0)
        assert part.texts == tuple(split.texts[row - 1] for row in part.ids)
        assert part.y.tolist() == [split.y[row - 1] for row in part.ids]


def test_columns_go_with_their_rows() -> None:
    split = make_split([0, 1] * 20)
    split = Split(split.ids, split.texts, split.y, {"shop": tuple(f"shop of {text}" for text in split.texts)})
    for part in (*cut_split(split, 0.3, 1, CLASSES), sample_rows(split, 10, 0, CLASSES)):
        assert part.columns == {"shop": tuple(f"shop of {text}" for text in part.texts)}


def test_cut_depends_on_the_seed_only() -> None:
    split = make_split([0, 1] * 50)
    first, again, other = (cut_split(split, 0.3, seed, CLASSES)[1].ids.tolist() for seed in (0, 0, 1))
    assert first == again
    assert first != other


@pytest.mark.parametrize("seed", range(20))
def test_rows_of_one_text_stay_together(seed: int) -> None:
    texts = [f"text {number % 30}" for number in range(100)]
    split = make_split([number % 3 for number in range(100)], texts)
    rest, cut = cut_split(split, 0.25, seed, CLASSES)
    assert count_shared_texts(rest, cut) == 0
    assert set(rest.y) == set(cut.y) == {0, 1, 2}


@pytest.mark.parametrize("seed", range(20))
def test_text_with_several_labels_stays_together(seed: int) -> None:
    split = make_split([0, 1, 0, 1, 0, 1], ["a", "a", "b", "c", "d", "e"])
    rest, cut = cut_split(split, 0.4, seed, CLASSES)
    assert count_shared_texts(rest, cut) == 0
    assert len(rest) + len(cut) == 6


@pytest.mark.parametrize("seed", range(10))
def test_small_labels_reach_each_of_three_parts(seed: int) -> None:
    split = make_split([0] * 12 + [1] * 3, [*("a" * 10), "b", "c", "d", "e", "f"])
    rest, test = cut_split(split, 0.49, seed, CLASSES)
    train, validation = cut_split(rest, 0.49, seed, CLASSES)
    for part in (train, validation, test):
        assert set(part.y) == {0, 1}


def test_repeated_texts_larger_than_the_share_give_the_smallest_group() -> None:
    _, cut = cut_split(make_split([0] * 6 + [1] * 2, [*"aaabbb", "c", "d"]), 0.1, 0, CLASSES)
    assert np.bincount(cut.y).tolist() == [3, 1]


def test_label_that_cannot_be_divided_stays_in_the_rest() -> None:
    split = make_split([0, 0, 0, 1, 1, 1], ["a", "b", "c", "d", "d", "d"])
    rest, cut = cut_split(split, 0.4, 0, CLASSES)
    assert np.bincount(rest.y).tolist() == [2, 3]
    assert cut.y.tolist() == [0]


@pytest.mark.parametrize("seed", range(5))
def test_rows_that_are_to_stay_are_never_cut(seed: int) -> None:
    split = make_split([0, 1] * 20)
    keep = np.arange(40) < 10
    rest, cut = cut_split(split, 0.5, seed, CLASSES, keep=keep)
    assert set(range(1, 11)) <= set(rest.ids)
    assert len(cut) in {14, 15, 16}


@pytest.mark.parametrize("seed", range(10))
def test_groups_stay_on_one_side_of_every_cut(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = tuple(f"author {number}" if number else "" for number in rng.integers(0, 12, size=100))
    texts = [f"text {number}" for number in rng.integers(0, 2000, size=100)]
    split = replace(make_split([number % 2 for number in range(100)], texts), groups=groups)
    rest, cut = cut_split(split, 0.3, seed, CLASSES)
    assert rest.groups
    assert cut.groups
    assert set(rest.groups) & set(cut.groups) <= {""}
    assert not set(rest.texts) & set(cut.texts)
    assert 10 <= len(cut) <= 50


@pytest.mark.parametrize(
    ("times", "latest"),
    [
        (["3", "1", "10", "2"], [1, 3]),
        (["2026-01-03", "2025-12-31T10:00", "2026-02-01T00:00:00+02:00", "2026-01-02"], [1, 3]),
        (["5", "5", "5", "1"], [1, 2, 3]),
        (["1", "1", "1", "2"], [4]),
    ],
)
def test_latest_rows_are_cut_off_and_those_of_one_time_stay_together(times: list[str], latest: list[int]) -> None:
    split = replace(make_split([0, 1, 0, 1]), times=tuple(times))
    rest, cut = cut_split(split, 0.5, 0, CLASSES)
    assert cut.ids.tolist() == latest
    assert sorted([*rest.ids, *cut.ids]) == [1, 2, 3, 4]


def test_times_that_do_not_order_rows_are_refused() -> None:
    with pytest.raises(DataError, match="the same time"):
        cut_split(replace(make_split([0, 1]), times=("7", "7")), 0.5, 0, CLASSES)


def test_text_that_is_repeated_is_as_old_as_its_first_row() -> None:
    split = replace(make_split([0, 1, 0, 1], ["a", "b", "c", "a"]), times=("1", "2", "3", "4"))
    rest, cut = cut_split(split, 0.5, 0, CLASSES)
    assert (rest.ids.tolist(), cut.ids.tolist()) == ([1, 4], [2, 3])


@pytest.mark.parametrize(
    ("texts", "read"),
    [
        (["3", "1.5", "nan", "", "soon"], [3, 1.5, None, None, None]),
        (["2026-01-01", "2026-01-02T00:00:00+00:00", "5", ""], [1767225600, 1767312000, None, None]),
    ],
)
def test_times_are_numbers_or_dates(texts: list[str], read: list[float | None]) -> None:
    assert [None if np.isnan(time) else time for time in read_times(texts)] == read


def test_sample_is_stratified_and_in_order() -> None:
    split = make_split([0] * 900 + [1] * 90 + [2] * 10)
    sample = sample_rows(split, 50, 0, CLASSES)
    assert np.bincount(sample.y).tolist() == [45, 4, 1]
    assert np.all(np.diff(sample.ids) > 0)
    assert sample.ids.tolist() == sample_rows(split, 50, 0, CLASSES).ids.tolist()
    assert sample.ids.tolist() != sample_rows(split, 50, 1, CLASSES).ids.tolist()


@pytest.mark.parametrize("n", range(4, 60))
def test_sample_has_exactly_the_rows_asked_for(n: int) -> None:
    sample = sample_rows(make_split([0] * 57 + [1, 2, 3]), n, 0, CLASSES)
    assert len(sample) == n
    assert set(sample.y) == {0, 1, 2, 3}


def test_sample_gives_what_is_left_over_to_the_largest_remainders() -> None:
    sample = sample_rows(make_split([0] * 26 + [1] * 17 + [2] * 17), 10, 0, CLASSES)
    assert np.bincount(sample.y).tolist() == [4, 3, 3]


def test_sample_takes_back_what_raising_to_one_took_too_much() -> None:
    sample = sample_rows(make_split([0] * 50 + [1] * 50 + list(range(2, 8))), 10, 0, CLASSES)
    assert np.bincount(sample.y).tolist() == [2, 2, 1, 1, 1, 1, 1, 1]


def test_sample_of_everything_is_the_split_itself() -> None:
    split = make_split([0, 1])
    assert sample_rows(split, 2, 0, CLASSES) is split


def test_sample_smaller_than_the_labels_is_refused() -> None:
    with pytest.raises(DataError, match=r"2 rows cannot hold one of each label\. Take at least 3"):
        sample_rows(make_split([0, 1, 2]), 2, 0, CLASSES)


def test_numbers_are_cut_in_proportion_of_their_range() -> None:
    numbers = np.repeat(np.arange(10.0), 20)
    split = Split(np.arange(200), tuple(f"text {row}" for row in range(200)), numbers)
    rest, cut = cut_split(split, 0.2, 0, build_task("regression", ["value"]))
    assert np.bincount((cut.y // 2).astype(np.int64)).tolist() == [8] * 5
    assert (len(rest), len(cut)) == (160, 40)
    assert cut.y.dtype == np.float64


def test_several_labels_are_cut_in_proportion_of_the_rarest() -> None:
    task, marks = build_task("multi_label", "abc"), np.zeros((200, 3), dtype=np.int64)
    marks[:, 0], marks[:40, 1], marks[100:103, 2] = 1, 1, 1
    marks[150:, 0] = 0
    split = Split(np.arange(200), tuple(f"text {row}" for row in range(200)), marks)
    _, cut = cut_split(split, 0.2, 0, task)
    assert cut.y[:, 1].sum() == 8
    assert (~cut.y.any(axis=1)).sum() == 10


def test_fingerprint_tells_numbers_apart() -> None:
    first, second = (Split(np.arange(1), ("a",), np.array([value])) for value in (0.25, 0.75))
    assert first.fingerprint() != second.fingerprint()
