from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from lorafit.data.checks import CheckedRows, check_rows, describe_rows, describe_text_fault, encode_rows
from lorafit.data.rows import RawRows
from lorafit.errors import DataError
from lorafit.tasks.labels import LabelReading
from lorafit.tasks.registry import TASKS, build_task, get_task

CLASSES = get_task("single_label")


def make_raw(texts: Sequence[object], labels: Sequence[object], ids: Sequence[int] | None = None) -> RawRows:
    return RawRows("a.csv", texts, labels, ids)


def make_checked(labels: Sequence[str]) -> CheckedRows:
    texts = tuple(f"text {number}" for number in range(len(labels)))
    return CheckedRows("a.csv", np.arange(1, len(labels) + 1), texts, tuple(labels))


def test_good_rows_pass_as_they_are() -> None:
    rows = check_rows(make_raw([" a ", "b"], [" x ", "y"]), CLASSES, LabelReading(), drop_bad_rows=False)
    assert rows.texts == (" a ", "b")
    assert rows.labels == ("x", "y")
    assert rows.ids.tolist() == [1, 2]
    assert rows.ids.dtype == np.int64
    assert rows.notes == ()


@pytest.mark.parametrize(
    ("value", "label"), [(1, "1"), (-1, "-1"), (True, "true"), (False, "false"), (1.0, "1"), (" 1.0 ", "1")]
)
def test_label_of_each_kind_becomes_text(value: object, label: str) -> None:
    assert check_rows(make_raw(["a"], [value]), CLASSES, LabelReading(), drop_bad_rows=False).labels == (label,)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("fine", None),
        (None, "no text"),
        (3, "a text of type int"),
        ("", "an empty text"),
        (" \n\u00a0", "an empty text"),
        ("half \ud800 pair", "a text with half a surrogate pair"),
        (float("nan"), "no text"),
        ("\u200b\u200b", "a text without a visible sign"),
        ("\ufeff", "a text without a visible sign"),
        ("\x01 \x02", "a text without a visible sign"),
        ("\ue000", "a text without a visible sign"),
        ("\u200b!", None),
    ],
)
def test_fault_of_a_text_is_described(text: object, fault: str | None) -> None:
    assert describe_text_fault(text) == fault


def test_bad_rows_are_listed_by_fault_with_their_numbers() -> None:
    raw = make_raw(["a", "", "secret", None, "secret", " "], ["x", "y", None, "y", float("nan"), "x"])
    with pytest.raises(DataError) as caught:
        check_rows(raw, CLASSES, LabelReading(), drop_bad_rows=False)
    assert str(caught.value) == (
        "a.csv: 5 of 6 rows cannot be used: an empty text (rows 2, 6); an empty label (rows 3, 5); no text (row 4). "
        "Mend them, or leave them out with --bad-rows drop."
    )


def test_bad_rows_are_dropped_with_a_note() -> None:
    raw = make_raw(["a", "", "b", 5], ["x", "y", "z", "y"], ids=[10, 20, 30, 40])
    rows = check_rows(raw, CLASSES, LabelReading(), drop_bad_rows=True)
    assert rows.ids.tolist() == [10, 30]
    assert rows.texts == ("a", "b")
    assert rows.labels == ("x", "z")
    assert rows.notes == ("a.csv: left out 2 of 4 rows: an empty text (row 20); a text of type int (row 40).",)


def test_columns_lose_the_dropped_rows_and_become_text() -> None:
    values = [1.0, "dropped", None, True, "  two\nlines ", 2.5, float("nan"), [1]]
    raw = RawRows("a.csv", ["a", "", *"cdefgh"], ["x", "y"] * 4, columns={"shop": values})
    split = encode_rows(check_rows(raw, CLASSES, LabelReading(), drop_bad_rows=True), build_task("single_label", "xy"))
    assert split.columns == {"shop": ("1", "", "true", "two\nlines", "2.5", "", "[1]")}


@pytest.mark.parametrize("drop_bad_rows", [False, True])
def test_no_usable_row_points_at_the_columns(drop_bad_rows: bool) -> None:
    with pytest.raises(
        DataError, match=r"none of its 2 rows can be used: a text of type int \(rows 1, 2\).*--text-col"
    ):
        check_rows(make_raw([1, 2], ["x", "y"]), CLASSES, LabelReading(), drop_bad_rows=drop_bad_rows)


def test_long_lists_of_rows_are_cut() -> None:
    assert describe_rows([7]) == "row 7"
    assert describe_rows(range(1, 11)) == "rows 1, 2, 3, 4, 5, 6, 7, 8, 9, 10"
    assert describe_rows(range(1, 12)) == "rows 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, …, 11 in all"


def test_faults_of_reading_text_and_label_are_listed_together() -> None:
    raw = replace(make_raw(["a", None, "c", "d"], ["1", "2", None, "word"]), faults={1: "1 field instead of 2"})
    with pytest.raises(DataError) as caught:
        check_rows(raw, get_task("regression"), LabelReading(), drop_bad_rows=False)
    message = str(caught.value)
    assert "3 of 4 rows cannot be used: 1 field instead of 2 (row 2); an empty label (row 3); " in message
    assert "(row 4). Mend them, or leave them out with --bad-rows drop." in message
    rows = check_rows(raw, get_task("regression"), LabelReading(), drop_bad_rows=True)
    assert [row for row, _ in rows.left_out] == [2, 3, 4]


@pytest.mark.parametrize(
    ("labels", "note"),
    [
        (["1.5", "N/A", "2"], "1 cell with 'N/A' instead of a number: no label."),
        (["1.5", "3,5", "2"], None),
        (["1.5", "3", "2"], None),
    ],
)
def test_a_refusal_says_how_labels_were_read(labels: list[object], note: str | None) -> None:
    texts = ["a", "b", "c" if note else ""]
    with pytest.raises(DataError) as caught:
        check_rows(make_raw(texts, labels), get_task("regression"), LabelReading(), drop_bad_rows=False)
    assert str(caught.value).endswith(f"--bad-rows drop.{f' {note}' if note else ''}")
    with pytest.raises(DataError, match="instead of a number: no label") as caught:
        check_rows(make_raw(texts, ["nan"] * 3), get_task("regression"), LabelReading(), drop_bad_rows=True)


def test_a_refusal_lists_some_of_many_faults() -> None:
    raw = replace(make_raw(["a"] * 30, ["x"] * 30), faults={place: f"fault {place}" for place in range(25)})
    with pytest.raises(DataError, match=r"fault 19 \(row 20\); and 5 other faults\. Mend") as caught:
        check_rows(raw, CLASSES, LabelReading(), drop_bad_rows=False)
    assert "fault 20" not in str(caught.value)


def test_pair_with_a_missing_text_is_a_bad_row() -> None:
    assert describe_text_fault(("a", "b")) is None
    assert describe_text_fault(("a", " ")) == "an empty text"
    assert describe_text_fault((None, "b")) == "no text"


def test_rows_are_encoded() -> None:
    split = encode_rows(make_checked(["y", "x", "y"]), build_task("single_label", "xy"))
    assert split.y.tolist() == [1, 0, 1]
    assert split.y.dtype == np.int64
    assert split.ids.tolist() == [1, 2, 3]


def test_unknown_label_is_named_with_the_numbers_of_its_rows() -> None:
    rows = check_rows(make_raw(["", "a", "b"], ["x", "x", "z"]), CLASSES, LabelReading(), drop_bad_rows=True)
    with pytest.raises(DataError) as caught:
        encode_rows(rows, build_task("single_label", "xy"))
    assert str(caught.value) == (
        "a.csv has 1 row with labels that training did not have: ['z'] (row 3). Allowed: ['x', 'y']. Leave these "
        "rows out with --bad-rows drop."
    )


@pytest.mark.parametrize(("labels", "is_others"), [(["POS", "NEG"], False), (["POS", "odd"], True)])
def test_unknown_labels_in_other_case_can_be_merged(labels: list[str], *, is_others: bool) -> None:
    task, reading = build_task("single_label", ("neg", "pos")), LabelReading(known=("neg", "pos"))
    with pytest.raises(DataError, match=r"'POS' and 'pos' differ: --merge-spellings makes them one\.") as caught:
        encode_rows(check_rows(make_raw(["a", "b"], labels), CLASSES, reading, drop_bad_rows=False), task)
    assert ("--bad-rows drop" in str(caught.value)) is is_others
    merged = check_rows(
        make_raw(["a", "b"], labels), CLASSES, replace(reading, merge_spellings=True), drop_bad_rows=False
    )
    assert merged.labels[0] == "pos"


def test_cells_of_every_task_are_read_and_encoded() -> None:
    cells = {"single_label": ["a", "b"], "multi_label": ["b;a", "[]"], "regression": ["2.5", 1], "ordinal": ["3", 1.0]}
    expected = {"single_label": [0, 1], "multi_label": [[1, 1], [0, 0]], "regression": [2.5, 1.0], "ordinal": [1, 0]}
    for name in TASKS:
        rows = check_rows(
            make_raw(["t", "u"], cells[name]), get_task(name), LabelReading(separator=";"), drop_bad_rows=False
        )
        split = encode_rows(rows, get_task(name).from_labels(rows.labels, rows.origin))
        assert split.y.tolist() == expected[name]
