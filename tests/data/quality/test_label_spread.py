from collections.abc import Callable

import pytest

from lorafit.data.quality.label_spread import find_label_faults, group_spellings
from lorafit.data.quality.rows import Rows

MakeRows = Callable[..., Rows]


def test_labels_that_a_split_lacks_are_named(make_rows: MakeRows) -> None:
    labels = ["x", "y", "z", "y", "z", "x", "y", "x"] * 10
    texts = [f"text {number}" for number in range(80)]
    rows = make_rows((texts, labels), test=(["a", "b", "c"], ["x", "x", "new"]))
    found = {finding.name: finding for finding in find_label_faults(rows)}
    assert found["unseen-labels"].severity == "error"
    assert found["unseen-labels"].message == "The label 'new' (1 rows) is not in train: no model can predict it."
    assert "'y', 'z'" in found["untested-labels"].message
    assert set(found) == {"unseen-labels", "untested-labels"}


def test_rare_labels_and_imbalance_are_told(make_rows: MakeRows) -> None:
    labels = ["ok"] * 95 + ["fraud"] * 5
    rows = make_rows(([f"text {number}" for number in range(100)], labels))
    found = {finding.name: finding for finding in find_label_faults(rows)}
    assert "'fraud' (5)" in found["rare-labels"].message
    assert "95 % of the training rows have the label 'ok'" in found["imbalance"].message


@pytest.mark.parametrize(("turn", "is_found"), [(1, True), (0, False)])
def test_rows_sorted_by_label_are_found(make_rows: MakeRows, turn: int, *, is_found: bool) -> None:
    labels = ["b", "a", "c"] * 20
    labels = [*labels[0::3], *labels[1::3], *labels[2::3]] if turn else labels
    rows = make_rows(([f"text {number}" for number in range(60)], labels))
    assert [finding.name for finding in find_label_faults(rows)] == (["sorted-by-label"] if is_found else [])


def test_spellings_are_grouped() -> None:
    names = ["Positive", "positive", "POSITIVE ", "\uff4eeg", "neg", "1", "1.0", "other", "very good", "very_good"]
    assert group_spellings(names) == [
        ["Positive", "positive", "POSITIVE "],
        ["\uff4eeg", "neg"],
        ["1", "1.0"],
        ["very good", "very_good"],
    ]


def test_numbers_have_no_faults_of_classes(make_rows: MakeRows) -> None:
    rows = make_rows((["a", "b", "c"], [1.0, 2.0, 3.5]), task="regression")
    assert list(find_label_faults(rows)) == []
