from collections.abc import Sequence

import numpy as np
import pytest

from lorafit.data.rows import Split
from lorafit.data.splits import check_distinct_texts, count_shared_texts, cut_split, sample_rows
from lorafit.errors import DataError
from lorafit.tasks.base import Task
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


def test_label_with_too_few_texts_is_named() -> None:
    split = make_split([0, 0, 1, 1], ["a", "b", "c", "c"])
    with pytest.raises(DataError, match="The label 'good' has 1 different text, but at least 2 are needed"):
        cut_split(split, 0.5, 0, build_task("single_label", ("bad", "good")))
    with pytest.raises(DataError, match="The label 'a' has 2 different texts, but at least 3 are needed"):
        check_distinct_texts(split, 3, CLASSES)


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


@pytest.mark.parametrize(
    ("y", "task", "message"),
    [
        (
            np.array([1.0, 3.5]),
            build_task("regression", ["value"]),
            "A fifth of the numbers' range has 2 different texts",
        ),
        (np.zeros((2, 2), dtype=np.int64), build_task("multi_label", "ab"), "What has no label has 2 different"),
    ],
    ids=["number", "no label"],
)
def test_too_few_rows_are_named_by_the_task(y: np.ndarray, task: Task, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_distinct_texts(Split(np.arange(2), ("x", "y"), y), 3, task)
