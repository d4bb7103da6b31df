import itertools
from collections.abc import Callable

import numpy as np
import pytest

from lorafit.data.quality.duplicates import (
    LEAST_SIMILARITY,
    find_conflicts,
    find_duplicates,
    group_equal,
    group_similar,
    mark_conflicts,
    split_words,
)
from lorafit.data.quality.findings import Place
from lorafit.data.quality.rows import Rows

MakeRows = Callable[..., Rows]

REVIEW = "a quiet film about two brothers who open a bakery and lose it again to the tax office"


def write_reviews(count: int) -> list[str]:
    """Write texts of 20 words that share few pairs, and variants of each with one word more."""
    rng = np.random.default_rng(0)
    words = [f"{first}{second}" for first in "bdfgklm" for second in ("an", "el", "ir", "os", "ut")]
    texts = [" ".join(rng.choice(words, size=20)) for _ in range(count)]
    return [variant for text in texts for variant in (text, f"{text} indeed", f"so {text}")]


def measure_similarity(text: str, other: str) -> float:
    """Return the Jaccard similarity of the word pairs of two texts, 0 to 1."""
    first, second = (set(itertools.pairwise(split_words(one))) for one in (text, other))
    return len(first & second) / len(first | second)


def test_equal_texts_are_grouped_by_the_first() -> None:
    assert group_equal(["a", "b", "a", "A", "b", "a"]).tolist() == [0, 1, 0, 3, 1, 0]


def test_similar_texts_are_those_of_the_slow_twin() -> None:
    texts = write_reviews(60)
    groups = group_similar(texts, group_equal(texts))
    expected = list(range(len(texts)))
    for first, other in itertools.combinations(range(len(texts)), 2):
        is_open = expected[first] == first and expected[other] == other
        if is_open and measure_similarity(texts[first], texts[other]) >= LEAST_SIMILARITY:
            expected[other] = first
    assert groups.tolist() == expected
    assert len(set(expected)) == 60


@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        (REVIEW.upper() + "!!", True),
        (REVIEW.replace(" ", "  "), True),
        (f"{REVIEW} in the end", True),
        (REVIEW.replace("brothers", "sisters").replace("tax", "land"), False),
        ("a loud film about three cousins", False),
    ],
)
def test_case_punctuation_and_an_ending_do_not_make_a_text_another(other: str, *, is_same: bool) -> None:
    texts = [REVIEW, other]
    assert (group_similar(texts, group_equal(texts)).tolist() == [0, 0]) is is_same


def test_copies_of_a_similar_text_are_in_its_group() -> None:
    texts = ["another", REVIEW, f"{REVIEW} indeed", f"{REVIEW} indeed", REVIEW]
    assert group_similar(texts, group_equal(texts)).tolist() == [0, 1, 1, 1, 1]


def test_short_texts_are_not_nearly_the_same() -> None:
    texts = ["not good at all", "Not good at all!", "ok", "OK"]
    assert group_similar(texts, group_equal(texts)).tolist() == [0, 1, 2, 3]


def test_scripts_without_blanks_are_compared_by_characters() -> None:
    text = "这家餐厅的服务非常好菜也很好吃我们下次还会再来"
    assert split_words("很好 ok") == ["很", "好", "ok"]
    assert group_similar([text, text + "的"], np.array([0, 1])).tolist() == [0, 0]
    assert group_similar([text, "手机电池太差了用了两天就坏了我要求退货"], np.array([0, 1])).tolist() == [0, 1]


def test_rows_of_a_duplicate_name_the_row_that_is_kept(make_rows: MakeRows) -> None:
    rows = make_rows((["a", "b", "a", "c", "a"], ["x", "y", "x", "y", "x"]))
    (finding,) = find_duplicates(rows, group_equal(rows.texts))
    assert (finding.name, finding.severity, finding.split, finding.count) == ("duplicates", "warning", "train", 2)
    assert finding.share == pytest.approx(0.4)
    assert [(row.row, row.kept) for row in finding.rows] == [
        (3, Place(split="train", row=1)),
        (5, Place(split="train", row=1)),
    ]


def test_duplicates_have_their_label_in_common_and_leaks_need_not(make_rows: MakeRows) -> None:
    rows = make_rows((["a", "a", "b", "a"], ["x", "y", "y", "y"]), test=(["b", "c"], ["x", "y"]))
    inside, across = find_duplicates(rows, group_equal(rows.texts))
    assert [(row.row, row.kept.row) for row in inside.rows if row.kept] == [(4, 2)]
    assert [row.row for row in across.rows] == [1]


def test_leaks_tell_which_share_of_test_is_in_train(make_rows: MakeRows) -> None:
    train = [f"{number} {REVIEW}" for number in range(4)]
    test = [train[2], "something else", train[2], f"{train[1]} indeed"]
    rows = make_rows((train, list("xyxy")), test=(test, list("xyxy")))
    equal = group_equal(rows.texts)
    found = {finding.name: finding for finding in find_duplicates(rows, equal)}
    assert set(found) == {"leaks", "duplicates"}
    assert (found["leaks"].count, found["leaks"].share, found["leaks"].severity) == (2, 0.5, "error")
    assert [(row.row, row.kept.row) for row in found["leaks"].rows if row.kept] == [(1, 3), (3, 3)]
    near = {finding.name: finding for finding in find_duplicates(rows, equal, group_similar(rows.texts, equal))}
    assert "1 different" in found["leaks"].message
    assert near["near-leaks"].rows[0].row == 4
    assert all(finding.split == "test" or finding.name == "near-duplicates" for finding in near.values())


def test_conflicts_are_counted_by_text_and_by_row(make_rows: MakeRows) -> None:
    texts = [f"text {number % 60}" for number in range(120)] + [f"other {number}" for number in range(140)]
    labels = ["x"] * 60 + ["y"] * 60 + ["x"] * 140
    rows = make_rows((texts, labels))
    (finding,) = find_conflicts(rows, group_equal(rows.texts))
    assert finding.message.startswith("60 texts have contradictory labels")
    assert (finding.count, finding.severity) == (120, "warning")
    assert list(find_conflicts(rows, group_equal(rows.texts), group_equal(rows.texts))) == []


def test_nearly_the_same_text_with_two_labels_is_a_conflict_of_its_own(make_rows: MakeRows) -> None:
    rows = make_rows(([REVIEW, f"{REVIEW} indeed", "another text"], ["x", "y", "x"]))
    equal = group_equal(rows.texts)
    assert list(find_conflicts(rows, equal)) == []
    (finding,) = find_conflicts(rows, equal, group_similar(rows.texts, equal))
    assert (finding.name, finding.count) == ("near-conflicting-labels", 2)


def test_numbers_do_not_contradict_each_other(make_rows: MakeRows) -> None:
    rows = make_rows((["a", "a", "b"], [1.5, 2.5, 3.0]), task="regression")
    assert list(find_conflicts(rows, group_equal(rows.texts))) == []


def test_conflicts_are_those_of_the_slow_twin() -> None:
    rng = np.random.default_rng(0)
    groups, labels = rng.integers(20, size=60), rng.integers(2, size=60)
    expected = [len(set(labels[groups == group])) > 1 for group in groups]
    assert mark_conflicts(groups, labels).tolist() == expected
