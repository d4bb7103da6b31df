from decimal import Decimal

import pytest

from lorafit.data.label_values import LabelValue, read_label
from lorafit.errors import DataError
from lorafit.labels import Task


def read(value: object, task: Task) -> LabelValue | None:
    return read_label(value, "rows.csv: row 3", task, separator=",")


@pytest.mark.parametrize(
    ("value", "label"),
    [(" good ", "good"), (1, "1"), (1.0, "1"), (True, "true"), ("", None), (None, None), (float("nan"), None)],
)
def test_one_label_is_read_as_its_name(value: object, label: str | None) -> None:
    assert read(value, "single_label") == label


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        ("b, a", ("a", "b")),
        ("a,a,", ("a",)),
        ("", ()),
        ("  ", ()),
        ([], ()),
        (["a", None, float("nan")], ("a",)),
        (["b", 1], ("1", "b")),
        ('["b, c", "a"]', ("a", "b, c")),
        ("[odd", ("[odd",)),
        ("[]", ()),
        (3, ("3",)),
        (None, None),
    ],
)
def test_several_labels_are_read_as_their_names(value: object, labels: tuple[str, ...] | None) -> None:
    assert read(value, "multi_label") == labels


@pytest.mark.parametrize(
    ("value", "number"),
    [(3, 3.0), ("2.5", 2.5), (-1.5, -1.5), (" ", None), ("NaN", None), (None, None), (Decimal("1.5"), 1.5)],
)
def test_number_is_read_as_such(value: object, number: float | None) -> None:
    assert read(value, "regression") == number


@pytest.mark.parametrize(
    ("value", "task", "message"),
    [
        (
            0.5,
            "single_label",
            "row 3 has the label 0.5. Fractions look like a regression: say so with",
        ),
        (["a"], "single_label", "Several labels a text are trained with --task multi_label"),
        ({}, "single_label", "row 3 has a label of type dict. Allowed: text, whole numbers"),
        ([["a"]], "multi_label", "row 3 has a label of type list. Allowed: lists of labels"),
        ("good", "regression", "row 3 has a label that is no number"),
        ("1_000", "regression", "row 3 has a label that is no number"),
        (10**400, "regression", "row 3 has a number that is not finite or beyond"),
        (True, "regression", "row 3 has a label of type bool. Allowed: numbers"),
        (float("inf"), "regression", "row 3 has a number that is not finite or beyond 1e\\+30"),
    ],
)
def test_other_label_is_refused_with_its_row(value: object, task: Task, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(value, task)
