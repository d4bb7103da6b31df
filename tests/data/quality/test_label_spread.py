from collections.abc import Callable

import pytest

from lorafit.data.checks import check_rows
from lorafit.data.quality.label_spread import find_label_faults
from lorafit.data.quality.rows import Rows, gather_rows
from lorafit.data.rows import RawRows, RawSplits
from lorafit.tasks.labels import LabelReading
from lorafit.tasks.registry import get_task

MakeRows = Callable[..., Rows]


def test_labels_that_a_split_lacks_are_named(make_rows: MakeRows) -> None:
    labels = ["x", "y", "z", "y", "z", "x", "y", "x"] * 10
    texts = [f"text {number}" for number in range(80)]
    rows = make_rows((texts, labels), test=(["a", "b", "c"], ["x", "x", "new"]))
    found = {finding.name: finding for finding in find_label_faults(rows)}
    assert found["unseen-labels"].severity == "error"
    assert found["unseen-labels"].message == "The label 'new' (1 row) is not in train: no model can predict it."
    assert found["untested-labels"].message == (
        "The labels 'y', 'z' (50 rows) have no test rows: how well they are found is not known."
    )
    assert set(found) == {"unseen-labels", "untested-labels"}


@pytest.mark.parametrize(
    ("labels", "options"), [(["X", "Y"], "--merge-spellings"), (["X", "new"], "--merge-spellings --bad-rows drop")]
)
def test_unseen_labels_in_other_case_can_be_merged(make_rows: MakeRows, labels: list[str], options: str) -> None:
    rows = make_rows(([f"text {number}" for number in range(40)], ["x", "y"] * 20), test=(["a", "b"], labels))
    (unseen,) = [finding for finding in find_label_faults(rows) if finding.name == "unseen-labels"]
    assert unseen.remedy == f"lorafit train DATA {options}"


def test_spellings_of_other_splits_are_merged_into_those_of_train() -> None:
    texts = [f"text {number}" for number in range(40)]
    raw = RawSplits(RawRows("a.csv", texts, ["x", "y"] * 20), test=RawRows("b.csv", ["a", "b"], ["X", "Y"]))
    rows, _ = gather_rows(raw, get_task("single_label"), LabelReading(merge_spellings=True))
    assert rows.task is not None
    assert rows.task.label_names == ("x", "y")
    assert "unseen-labels" not in {finding.name for finding in find_label_faults(rows)}


def test_rare_labels_and_imbalance_are_told(make_rows: MakeRows) -> None:
    labels = ["ok"] * 95 + ["fraud"] * 5
    rows = make_rows(([f"text {number}" for number in range(100)], labels))
    found = {finding.name: finding for finding in find_label_faults(rows)}
    assert found["rare-labels"].message.startswith("1 of 2 labels has fewer than 10 training rows: 'fraud' (5). ")
    assert found["rare-labels"].remedy == "", "--rare-labels leaves 5 rows as they are"
    assert "95 % of the training rows have the label 'ok'" in found["imbalance"].message


@pytest.mark.parametrize(("rows_of_it", "tested", "is_merged"), [(2, False, True), (3, False, False), (2, True, False)])
def test_rare_labels_are_to_be_merged_where_training_merges_them(
    make_rows: MakeRows, rows_of_it: int, *, tested: bool, is_merged: bool
) -> None:
    labels = ["ok"] * 50 + ["no"] * 50 + ["fraud"] * rows_of_it
    texts = [f"text {number}" for number in range(len(labels))]
    rows = make_rows((texts, labels), **({"test": (["a", "b"], ["ok", "no"])} if tested else {}))
    (rare,) = [finding for finding in find_label_faults(rows) if finding.name == "rare-labels"]
    assert rare.remedy == ("lorafit train DATA --rare-labels merge:other" if is_merged else "")


def test_all_labels_are_not_to_be_merged_into_one(make_rows: MakeRows) -> None:
    (rare,) = [one for one in find_label_faults(make_rows((["a", "b"], ["x", "y"]))) if one.name == "rare-labels"]
    assert rare.remedy == ""


@pytest.mark.parametrize(("turn", "is_found"), [(1, True), (0, False)])
def test_rows_sorted_by_label_are_found(make_rows: MakeRows, turn: int, *, is_found: bool) -> None:
    labels = ["b", "a", "c"] * 20
    labels = [*labels[0::3], *labels[1::3], *labels[2::3]] if turn else labels
    rows = make_rows(([f"text {number}" for number in range(60)], labels))
    assert [finding.name for finding in find_label_faults(rows)] == (["sorted-by-label"] if is_found else [])


@pytest.mark.parametrize("merge_spellings", [False, True])
def test_spellings_of_a_label_are_told_once(*, merge_spellings: bool) -> None:
    labels = ["good", "Good"] * 20 + ["bad"] * 40
    raw = RawRows("a.csv", [f"text {number}" for number in range(80)], labels)
    task, reading = get_task("single_label"), LabelReading(merge_spellings=merge_spellings)
    rows, findings = gather_rows(RawSplits(raw), task, reading)
    told = [one for one in (*findings, *find_label_faults(rows)) if "Good" in one.message]
    assert [one.name for one in told] == (["reading"] if merge_spellings else ["label-spellings"])
    notes = check_rows(raw, task, reading, drop_bad_rows=False).notes
    assert ["--merge-spellings" in note for note in notes] == [True]


def test_names_are_safe_to_print_and_short(make_rows: MakeRows) -> None:
    strange = ["\x1b]0;owned\x07\u202ered", "\x1b]0;OWNED\x07\u202eRED", "x" * 50]
    labels = [strange[0]] * 95 + strange[1:] * 2
    rows = make_rows(([f"text {number}" for number in range(99)], labels), test=(["a"], ["\x1b[31mnew"]))
    messages = [finding.message for finding in find_label_faults(rows)]
    assert len(messages) == 5
    assert all(message.isprintable() and "x" * 40 not in message for message in messages)


def test_numbers_have_no_faults_of_classes(make_rows: MakeRows) -> None:
    rows = make_rows((["a", "b", "c"], [1.0, 2.0, 3.5]), task="regression")
    assert list(find_label_faults(rows)) == []
