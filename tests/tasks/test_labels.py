"""Cells of label columns in the forms that people have them."""

import json
import math
import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorafit.errors import DataError
from lorafit.tasks.label_spellings import group_spellings
from lorafit.tasks.labels import Label, LabelColumn, LabelReading, sort_names
from lorafit.tasks.registry import TASKS, build_task, get_task

NAN = math.nan


def read(name: str, cells: Sequence[object], **reading: object) -> LabelColumn:
    return get_task(name).read_labels(cells, replace(LabelReading(), **reading))  # type: ignore[arg-type]  # by name


def read_clean(name: str, cells: Sequence[object], **reading: object) -> list[Label | None]:
    """The labels of a column of which there is nothing to say."""
    column = read(name, cells, **reading)
    assert (column.faults, column.notes, column.doubts) == ({}, (), ())
    return list(column.labels)


# One cell


@pytest.mark.parametrize(
    ("name", "cell", "label"),
    [
        ("single_label", " good ", "good"),
        ("single_label", 1, "1"),
        ("single_label", -1, "-1"),
        ("single_label", 1.0, "1"),
        ("single_label", " 1.0 ", "1"),
        ("single_label", "1.000000000000000000e+00", "1"),
        ("single_label", "007", "007"),
        ("single_label", True, "true"),
        ("single_label", "FALSE", "false"),
        ("single_label", np.int64(3), "3"),
        ("single_label", np.str_("a"), "a"),
        ("single_label", Decimal(2), "2"),
        ("single_label", "[odd", "[odd"),
        ("single_label", "[spam]", "[spam]"),
        ("single_label", "(1)", "(1)"),
        ("single_label", "two\u00a0 \twords\u200b", "two words"),
        ("single_label", "cafe\u0301", "café"),
        ("single_label", ["a"], "a"),
        ("single_label", ("a", None), "a"),
        ("single_label", ["a", "a "], "a"),
        ("single_label", '["a"]', "a"),
        ("single_label", "['a']", "a"),
        ("single_label", "('a',)", "a"),
        ("single_label", {"choices": "x"}, "x"),
        ("single_label", '{"choices": ["x"]}', "x"),
        ("single_label", [{"choices": ["x"]}], "x"),
        ("single_label", [{"result": [{"value": {"choices": ["x"]}, "type": "choices"}]}], "x"),
        ("single_label", {"POS": 0.0, "NEG": 1.0}, "NEG"),
        ("single_label", '{"POS": false, "NEG": true}', "NEG"),
        ("multi_label", "a", ("a",)),
        ("multi_label", [], ()),
        ("multi_label", "[]", ()),
        ("multi_label", ["a", None, NAN], ("a",)),
        ("multi_label", ["b", 1, "b"], ("1", "b")),
        ("multi_label", {"b", "a"}, ("a", "b")),
        ("multi_label", np.array(["b", "a"]), ("a", "b")),
        ("multi_label", '["b, c", "a"]', ("a", "b, c")),
        ("multi_label", "['b, c', \"it's\"]", ("b, c", "it's")),
        ("multi_label", "['b, c' 'a'\n 'd']", ("a", "b, c", "d")),
        ("multi_label", "{'a', 'b'}", ("a", "b")),
        ("multi_label", '{"choices": ["b", "a"]}', ("a", "b")),
        ("multi_label", "{'choices': ['b', 'a']}", ("a", "b")),
        ("multi_label", {"a": "1", "b": True, "c": "yes", "d": 1.0, "e": "0", "f": False, "g": "no"}, tuple("abcd")),
        ("multi_label", {"value": 1, "choices": 0, "b": 1}, ("b", "value")),
        ("multi_label", 3, ("3",)),
        ("regression", 3, 3.0),
        ("regression", " 2.5 ", 2.5),
        ("regression", "1e-3", 0.001),
        ("regression", "\u22122", -2.0),
        ("regression", Decimal("1.5"), 1.5),
        ("regression", np.float32(0.5), 0.5),
        ("regression", [4], 4.0),
        ("regression", "['4']", 4.0),
        ("ordinal", 5, "5"),
        ("ordinal", 4.0, "4"),
        ("ordinal", " -3 ", "-3"),
        ("ordinal", "03", "3"),
        ("ordinal", "3.0", "3"),
        ("ordinal", "-0", "0"),
        ("ordinal", ["3"], "3"),
    ],
)
def test_a_cell_is_read_as_a_label(name: str, cell: object, label: Label) -> None:
    column = read(name, [cell])
    assert (column.labels, column.faults) == ((label,), {})


@pytest.mark.parametrize(
    "cell", ["", "  ", "\u00a0\u200b", None, NAN, np.nan, np.float32("nan"), Decimal("nan"), pd.NA, pd.NaT]
)
@pytest.mark.parametrize("name", TASKS)
def test_missing_cells_have_no_label(name: str, cell: object) -> None:
    column = read(name, [cell, "1", "2"])
    assert column.labels[0] is None
    assert None not in column.labels[1:]
    assert set(column.faults.values()) == (
        {"an empty label ([] says that a text has none)"} if name == "multi_label" else set()
    )


@pytest.mark.parametrize(
    ("name", "cell", "fault"),
    [
        ("single_label", math.inf, "a number that is not finite or beyond 1e+30"),
        ("single_label", ["a", "b"], "several labels (--task multi_label trains on them)"),
        ("single_label", "['a', 'b']", "several labels (--task multi_label trains on them)"),
        ("single_label", {"a": 1, "b": "true"}, "several labels (--task multi_label trains on them)"),
        ("single_label", {"a": "maybe"}, "a mark of 'a' that is neither 0 nor 1 (true, false, yes, no)"),
        ("single_label", {"a": {"b": 1}}, "a dictionary that holds something else than a mark for each label"),
        ("single_label", b"a", "a label of type bytes"),
        ("single_label", "half \ud800 pair", "a label with half a surrogate pair"),
        ("multi_label", [["a"]], "a list that holds something else than names"),
        ("multi_label", {"a": 2, "b": 0}, "a mark of 'a' that is neither 0 nor 1 (true, false, yes, no)"),
        ("multi_label", [object()], "a label of type object"),
        ("regression", "good", "no number (a regression needs a column of numbers: --label-column)"),
        ("regression", "1_000", "no number"),
        ("regression", "5 stars", "a number with a sign or word beside it"),
        ("regression", True, "true or false instead of a number"),
        ("regression", 10**400, "a number that is not finite or beyond 1e+30"),
        ("regression", "1e31", "a number that is not finite or beyond 1e+30"),
        ("regression", "-inf", "a number that is not finite or beyond 1e+30"),
        ("regression", [1, 2], "several numbers"),
        ("regression", {"a": 1}, "a dictionary instead of a number"),
        ("ordinal", "good", "no whole number (--task ordinal needs a column of them: --label-column)"),
        ("ordinal", "3.5", "no whole number"),
        ("ordinal", 2.5, "no whole number"),
        ("ordinal", True, "no whole number"),
        ("ordinal", "1" * 16, "no whole number"),
        ("ordinal", [1, 2], "several labels"),
    ],
)
def test_what_is_no_label_is_a_fault_that_does_not_hold_it(name: str, cell: object, fault: str) -> None:
    column = read(name, [cell, "1"])
    assert column.labels[0] is None
    assert list(column.faults) == [0]
    assert column.faults[0].startswith(fault)


# Several labels


def test_marks_in_columns_are_the_labels_of_their_columns() -> None:
    cells = [
        {"rude": "0", "hate": "1", "never": "0"},
        {"rude": "1", "hate": "1", "never": "0"},
        dict.fromkeys(("rude", "hate", "never"), 0),
    ]
    column = read("multi_label", cells)
    assert column.labels == (("hate",), ("hate", "rude"), ())
    assert column.notes == ("Labels that no cell is marked with: 'never'.",)
    assert read_clean("single_label", [{"a": 1, "b": 0}, {"a": 0, "b": 1}]) == ["a", "b"]


def test_an_empty_mark_is_a_0_only_where_there_is_no_0() -> None:
    crosses = read("multi_label", [{"a": "x", "b": ""}, {"a": None, "b": "X"}, {"a": "", "b": ""}])
    assert crosses.labels == (("a",), ("b",), ())
    assert crosses.notes == ("Empty marks count as 0, since there is no 0 among the marks.",)
    gaps = read("multi_label", [{"a": "1", "b": "0"}, {"a": "", "b": "1"}, {"a": "", "b": NAN}])
    assert gaps.labels == (("a",), None, None)
    assert gaps.faults == {
        1: "a label without a mark, where others have 0 or 1",
        2: "an empty label ([] says that a text has none)",
    }
    hidden = read("multi_label", [{"a": 1, "b": 0}, {"a": -1, "b": -1}], missing="-1")
    assert hidden.labels == (("a",), None)


def test_marks_that_are_shares_count_from_one_half_on() -> None:
    column = read("multi_label", [{"a": 0.5, "b": 0.1}, {"a": 0.2, "b": 1.0}])
    assert column.labels == (("a",), ("b",))
    assert column.notes == ("Marks between 0 and 1 count as 1 from 0.5 on.",)


@pytest.mark.parametrize(
    "cells",
    [
        [[0, 0, 1], [1, 1, 0], [0, 0, 0]],
        ["[0, 0, 1]", "[1, 1, 0]", "[0, 0, 0]"],
        ["[0 0 1]", "[1 1 0]", "[0. 0. 0.]"],
        [[0.0, 0.0, 1.0], [True, True, False], [0, 0, 0]],
        ["0,0,1", "1,1,0", "0,0,0"],
    ],
)
def test_lists_of_0_and_1_are_marks(cells: list[object]) -> None:
    column = read("multi_label", cells)
    assert column.labels == (("label_2",), ("label_0", "label_1"), ())
    assert "marks of 3 labels, called label_0 to label_2" in column.notes[-1]
    assert column.doubts == ()
    assert read("multi_label", cells, names=("x", "y", "z")).labels == (("z",), ("x", "y"), ())
    assert read("multi_label", cells, names=("x", "y")).faults == dict.fromkeys(
        range(3), "a list of more or fewer marks than 2"
    )


@pytest.mark.parametrize("name", ["single_label", "multi_label"])
def test_names_instead_of_marks_are_refused_with_their_column(name: str) -> None:
    columns = read(name, [{"my tone": "pos", "b": "1"}, {"my tone": "neg", "b": "0"}], names=("my tone", "b"))
    assert set(columns.faults.values()) == {
        "a mark of 'my tone' that is neither 0 nor 1 (true, false, yes, no): if it is a label by name, choose one "
        "column of labels, such as --label-column 'my tone'"
    }
    cells = read(name, [{"name": "pos"}, {"name": "neg"}])
    assert set(cells.faults.values()) == {
        "a mark of 'name' that is neither 0 nor 1 (true, false, yes, no): if it is a label by name, write the name "
        "alone in the label column, not an object that holds it"
    }


def test_lists_of_marks_have_one_length() -> None:
    column = read("multi_label", [[0, 0, 1], [1, 0, 0], [0, 1]])
    assert column.labels == (("label_2",), ("label_0",), None)
    assert column.faults == {2: "a list of more or fewer marks than 3"}
    assert read("single_label", [[0, 0, 1], [1, 0, 0]]).labels == ("label_2", "label_0")
    numbered = read("multi_label", [[place == 11, *[0] * 10, place == 0] for place in (0, 11)])
    assert numbered.labels == (("label_11",), ("label_00",)), "names are in the order of places"


def test_lists_of_the_labels_0_and_1_are_doubted() -> None:
    column = read("multi_label", [[0], [1], [0, 1]])
    assert column.labels == (("0",), ("1",), ("0", "1"))
    assert "--label-columns" in column.doubts[0]
    assert read("multi_label", [[0], [1]]).labels == (("0",), ("1",))


@pytest.mark.parametrize("cells", [["0", "1"], [0, 1], [True, False], ["yes", "no"], ["1", "1"]])
def test_marks_alone_are_doubted(cells: list[object]) -> None:
    (doubt,) = read("multi_label", cells * 5).doubts
    assert "look like marks of one label" in doubt
    assert read("multi_label", cells * 5, known=("a", "b")).doubts == (), "a trained model says what labels are"
    assert read("single_label", cells * 5).doubts == ()


@pytest.mark.parametrize(
    ("separator", "told"),
    [
        (",", ","), (", ", ","), (";", "';'"), ("|", "'|'"), ("\t", r"$'\t'"), ("/", "/"),
        (" & ", "'&'"), (" ", "' '"),
    ],
)  # fmt: skip
def test_separators_are_found_and_told(separator: str, told: str) -> None:
    sets = [("a",), ("b",), ("a", "b"), ("a", "c"), ("b", "c"), ("c",)]
    cells = [separator.join(names) for names in sets] * 5
    column = read("multi_label", cells)
    assert column.labels == tuple(sets) * 5
    assert column.notes == (
        f"Labels were parted at {separator.strip(' ') or ' '!r} (--label-separator {told}) in 15 cells.",
    )


def test_a_text_without_labels_is_written_as_an_empty_list() -> None:
    column = read("multi_label", ["a,b", "b,a", "", "[]"])
    assert column.labels == (("a", "b"), ("a", "b"), None, ())
    assert column.faults == {2: "an empty label ([] says that a text has none)"}


def test_one_column_of_marks_is_no_task_for_several_labels() -> None:
    column = read("multi_label", [{"toxic": 0}, {"toxic": 1}])
    with pytest.raises(DataError, match=r"a\.csv: 'toxic' is the only label\. .*--label-columns A,B"):
        get_task("multi_label").from_labels([label for label in column.labels if label is not None], "a.csv")


def test_names_with_commas_stay_whole() -> None:
    names = ["Arts, crafts", "Sports", "Food, drink"]
    column = read("multi_label", names * 10)
    assert {name for label in column.labels for name in label or ()} == set(names)
    assert column.notes == (
        "20 cells with ',' not parted, since the parts are no labels elsewhere: --label-separator , parts them.",
    )
    piped = [*names, "Arts, crafts|Sports", "Sports|Food, drink", "Food, drink|Arts, crafts"]
    found, told = read("multi_label", piped), read("multi_label", piped[3:], separator="|")
    assert (
        found.labels[3:]
        == told.labels
        == (("Arts, crafts", "Sports"), ("Food, drink", "Sports"), ("Arts, crafts", "Food, drink"))
    )
    assert told.notes == ()
    assert read_clean("multi_label", [["Arts, crafts", "Sports"], "Arts, crafts"]) == [
        ("Arts, crafts", "Sports"),
        ("Arts, crafts",),
    ]
    assert read("multi_label", names, separator=",").labels == (("Arts", "crafts"), ("Sports",), ("Food", "drink"))
    assert read_clean("multi_label", ["Arts, crafts"], known=("Arts, crafts", "Sports")) == [("Arts, crafts",)]
    assert read("multi_label", ["b,a"], known=("a", "b")).labels == (("a", "b"),)
    both = ["Arts, crafts", "b,a"]
    assert read("multi_label", both, known=("Arts, crafts", "a", "b")).labels == (("Arts, crafts",), ("a", "b"))


@pytest.mark.parametrize(
    "cells",
    [
        ["science", "fiction", "science fiction"],
        ["very good", "good", "very bad", "bad"],
        ["pin_why/how", "fee_why/how", "fee_late"],
    ],
)
def test_parts_of_names_are_no_labels(cells: list[str]) -> None:
    assert read_clean("multi_label", cells * 3) == [(cell,) for cell in cells] * 3


def test_cells_with_several_labels_are_doubted_where_one_is_read() -> None:
    column = read("single_label", ["a", "b", "a,b", "c", "b,c", "a,c"] * 5)
    assert column.doubts == (
        "15 of 30 cells look like several labels with ',' between them: --task multi_label trains on them.",
    )
    assert read("single_label", ["happy", "sad", "happy, sad"] * 5).doubts == ()


@pytest.mark.parametrize("name", ["single_label", "multi_label"])
@pytest.mark.parametrize("cell", ["[a, b]", "{a,b}", "{'a': unknown}", "['a', 'b' ...]"])
def test_lists_in_an_unknown_notation_are_doubted(name: str, cell: str) -> None:
    assert any("look like lists" in doubt and "--label-columns" in doubt for doubt in read(name, [cell, "c"]).doubts)


# Spellings


@pytest.mark.parametrize("name", ["single_label", "ordinal"])
def test_whole_numbers_are_one_label_in_every_file(name: str) -> None:
    column = read(name, ["1", "1.0", 1, 1.0, np.float64(1), "2.", 2])
    assert column.labels == ("1",) * 5 + ("2",) * 2
    assert column.notes == (
        "Labels spelled in several ways (white space, Unicode form, 1.0 for 1, True for true) are one each: "
        "'1' (3 + 2), '2' (1 + 1).",
    )
    assert (
        read_clean(name, ["1.0", "2.0"]) == read_clean(name, [1.0, 2.0]) == read_clean(name, ["1", "2"]) == ["1", "2"]
    )


@pytest.mark.parametrize(
    ("cells", "notes"),
    [
        ([True, 1, False, 1], ["Labels 'true' (1 cell) and '1' (2 cells) stay apart"]),
        (["True", "1", "0", "false"], ["Labels 'true' (1 cell) and '1'", "Labels 'false' (1 cell) and '0'"]),
        ([True, False, True], []),
        ([1, 0, "maybe"], []),
    ],
)
def test_truths_in_words_and_numbers_are_told(cells: list[object], notes: list[str]) -> None:
    told = read("single_label", cells).notes
    assert len(told) == len(notes)
    assert all(one.startswith(note) for one, note in zip(told, notes, strict=True))
    assert read("single_label", cells, known=("true", "1", "false", "0", "maybe")).notes == ()


def test_versions_stay_as_they_are() -> None:
    assert read("single_label", ["2.0", "2.1", "2.10"] * 9).labels == ("2.0", "2.1", "2.10") * 9
    assert read_clean("single_label", ["1.0.2", "2.0-beta"]) == ["1.0.2", "2.0-beta"]


def test_spellings_of_a_label_are_one() -> None:
    cells = ["positive", "positive ", "very  bad", "very\u00a0bad", "caf\u00e9", "cafe\u0301", True, "True", "TRUE"]
    column = read("single_label", cells)
    assert column.labels == ("positive",) * 2 + ("very bad",) * 2 + ("café",) * 2 + ("true",) * 3
    assert "'positive' (1 + 1), 'very bad' (1 + 1), 'café' (1 + 1), 'true' (1 + 1 + 1)." in column.notes[0]
    lists = read("multi_label", [["a", "b "], ["b", "a"]])
    assert lists.labels == (("a", "b"),) * 2
    assert "'b' (1 + 1)" in lists.notes[0]


def test_case_alone_makes_labels_unless_they_are_merged() -> None:
    cells = ["good"] * 3 + ["Good"] * 2 + ["bad", "BAD", "BAD"]
    column = read("single_label", cells)
    assert set(column.labels) == {"good", "Good", "bad", "BAD"}
    assert column.notes == ()
    assert column.unmerged == (
        "Labels differ in upper and lower case alone: --merge-spellings makes each of them one: 'good' 3, 'Good' 2; "
        "'bad' 1, 'BAD' 2.",
    )
    merged = read("single_label", cells, merge_spellings=True)
    assert merged.labels == ("good",) * 5 + ("BAD",) * 3
    assert merged.notes[0].startswith("Labels were merged (--merge-spellings): 'good' 3, 'Good' 2;")
    assert merged.unmerged == ()


def test_spellings_are_grouped() -> None:
    names = ["Positive", "positive", "POSITIVE ", "\uff4eeg", "neg", "1", "1.0", "other", "very good", "very_good"]
    assert group_spellings(names) == [
        ["Positive", "positive", "POSITIVE "],
        ["\uff4eeg", "neg"],
        ["1", "1.0"],
        ["very good", "very_good"],
    ]


def test_labels_of_a_model_take_its_spelling() -> None:
    known = ("2.0", "2.5", "Good")
    assert read("single_label", ["2", 2.5, "2.50", "Good "], known=known).labels == ("2.0", "2.5", "2.50", "Good")
    other = read("single_label", ["good", "good"], known=known)
    assert other.labels == ("good", "good")
    assert other.unmerged[0].endswith("makes each of them one: 'Good' of training, 'good' 2.")
    assert read("single_label", ["good", "GOOD", "GOOD"], known=known, merge_spellings=True).labels == ("Good",) * 3
    assert read_clean("single_label", ["a", "A"], known=("a", "A")) == ["a", "A"]


def test_published_names_are_found_in_other_spellings() -> None:
    task, absent = build_task("single_label", ["a b", "false", "true"]).reorder(["True", "False", "a  b", "c"])
    assert task.label_names == ("true", "false", "a b")
    assert absent == ["c"]


# Missing labels


@pytest.mark.parametrize("word", ["nan", "NaN", "NA", "n/a", "NULL", "None", "-", "#N/A"])
def test_words_for_nothing_are_missing_among_numbers_and_labels_elsewhere(word: str) -> None:
    for name in ("single_label", "ordinal", "regression"):
        column = read(name, ["1", word, "2", "2"])
        assert column.labels[1] is None
        assert column.notes == (f"1 cell with '{word}' instead of a number: no label.",)
        assert column.faults == {}
    column = read("single_label", ["yes", word, "no"])
    assert column.labels[1] == word
    assert (
        f"1 cell with '{word}', read as a label: --missing-label {shlex.quote(word)} --bad-rows drop leaves it out."
        in column.notes
    )
    assert read("single_label", ["yes", word, "no"], missing=word.lower()).labels == ("yes", None, "no")
    assert read_clean("single_label", ["yes", word], known=("yes", word)) == ["yes", word]
    assert read("single_label", [word], known=("1", "2")).labels == (None,)


@pytest.mark.parametrize("name", ["single_label", "ordinal", "regression"])
def test_minus_1_is_a_label_with_a_note(name: str) -> None:
    cells = ["-1", 0, "1", -1.0]
    column = read(name, cells)
    assert None not in column.labels
    assert column.notes[-1] == "2 cells with the label -1. If it hides a label: --missing-label -1 --bad-rows drop."
    assert read(name, cells, missing="-1").labels[::3] == (None, None)
    assert not any("hides" in note for note in read(name, ["-2", "-1", "1"]).notes)


def test_a_label_said_to_be_missing_is_so_in_all_spellings() -> None:
    assert read("single_label", ["9.0", 9, 9.0, "1"], missing="9").labels == (None, None, None, "1")
    assert read("multi_label", [["a", "?"], ["?"], "?"], missing="?").labels == (("a",), None, None)


# Fractions, and what is no column of labels


@pytest.mark.parametrize("convert", [float, str, json.dumps])
def test_fractions_hint_at_a_regression_in_every_format(convert: type) -> None:
    hint = "Fractions look like a regression: --task regression."
    halves = read("single_label", [convert(half / 2) for half in range(1, 11)] * 5)
    assert halves.labels[:4] == ("0.5", "1.0", "1.5", "2.0")
    assert (halves.notes, halves.doubts) == ((f"The 10 labels are numbers. {hint}",), ())
    scores = read("single_label", [convert(score / 100) for score in range(100)] * 3)
    assert (scores.notes, scores.doubts) == ((), (f"The 100 labels are numbers. {hint}",))
    assert read("single_label", ["0,5", "1,5"] * 9).notes == (f"The 2 labels are numbers. {hint}",)
    assert read("single_label", [convert(0.5), convert(1.0)]).doubts == (f"The 2 labels are numbers. {hint}",)


@pytest.mark.parametrize("name", ["single_label", "multi_label"])
def test_labels_that_occur_once_are_doubted(name: str) -> None:
    (doubt,) = read(name, [f"topic {number}" for number in range(30)] + ["other"] * 70).doubts
    assert doubt.startswith("30 of 31 labels occur once, such as 'topic 0', 'topic 1', 'topic 10', … 27 more.")
    assert "--label-column" in doubt
    assert read(name, [f"topic {number}" for number in range(30)] + ["other"] * 200).doubts == ()
    (doubt,) = read(name, [f"{'a long sentence ' * 5}{number}" for number in range(30)] * 2).doubts
    assert "as long as texts" in doubt


def test_labels_in_messages_are_cut_and_safe() -> None:
    column = read("single_label", [f"\x1b[31m{number} {'x' * 100}" for number in range(50)])
    told = " ".join((*column.notes, *column.doubts))
    assert "\x1b" not in told
    assert "x" * 41 not in told


# Any column


def test_many_cells_are_read_by_their_different_ones() -> None:
    cells = [name for name in ("good", "bad", "so so") for _ in range(100_000)]
    start = time.perf_counter()
    assert len(read_clean("single_label", cells)) == 300_000
    assert time.perf_counter() - start < 5


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=3)
    | st.decimals()
)
NAMES = st.sampled_from(
    ["a", "b", "A", "1", "1.0", "0", "", "NA", "a,b", "a|b", "[1, 0]", "['a']", "{'a': 1}", "3,5", "1,234"]
)
CELLS = st.recursive(
    SCALARS | NAMES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(NAMES | st.integers(), inner, max_size=3)
        | st.lists(inner, max_size=3).map(repr)
        | st.fixed_dictionaries({"choices": inner})
    ),
    max_leaves=5,
)


@pytest.mark.parametrize("name", TASKS)
@settings(max_examples=200, deadline=None)
@given(
    cells=st.lists(CELLS, max_size=12),
    separator=st.sampled_from([None, ",", "|"]),
    missing=st.sampled_from([None, "NA", "1", "a"]),
    merge=st.booleans(),
    known=st.sampled_from([(), ("a", "b"), ("1", "2")]),
)
def test_any_column_is_read(
    name: str, cells: list[object], separator: str | None, missing: str | None, merge: bool, known: tuple[str, ...]
) -> None:
    column = read(name, cells, separator=separator, missing=missing, merge_spellings=merge, known=known)
    assert len(column.labels) == len(cells)
    assert all(column.labels[place] is None for place in column.faults)
    found = {label for label in column.labels if label is not None}
    labels = [name for label in found for name in (label if isinstance(label, tuple) else (label,))]
    assert all(type(label) is (float if name == "regression" else str) for label in labels)
    assert all(label and label == label.strip() for label in labels if isinstance(label, str))


def test_whole_numbers_of_too_many_digits_are_names_like_others() -> None:
    assert sort_names(["10", "9", "1" * 5000]) == ("10", "1" * 5000, "9")
