"""Numbers as people write them."""

from collections import Counter

import pytest

from lorafit.tasks.labels import LabelColumn, LabelReading
from lorafit.tasks.registry import get_task


def read(*cells: object) -> LabelColumn:
    return get_task("regression").read_labels(cells, LabelReading())


@pytest.mark.parametrize(
    ("cells", "numbers", "notes"),
    [
        (("3,5", "4,25", "2"), (3.5, 4.25, 2), "2 numbers with a decimal comma, as 3,5 for 3.5."),
        (("0,125", "0,5"), (0.125, 0.5), "2 numbers with a decimal comma, as 0,125 for 0.125."),
        (
            ("1.234,5", "-7,25", "1.000"),
            (1234.5, -7.25, 1000),
            "2 numbers with a decimal comma, as 1.234,5 for 1234.5. 1 number with a sign between thousands",
        ),
        (("12.5", "1,200", "1,234"), (12.5, 1200, 1234), "2 numbers with a comma in thousands, as 1,200 for 1200."),
        (("1 234,5", "7,2"), (1234.5, 7.2), "2 numbers with a decimal comma, as 1 234,5 for 1234.5."),
        (("1,234.5", "1,000"), (1234.5, 1000), "2 numbers with a comma in thousands, as 1,234.5 for 1234.5."),
        (("1,234,567", "3"), (1234567, 3), "1 number with a comma in thousands, as 1,234,567 for 1234567."),
        (("1,200", "415", "900"), (1200, 415, 900), "1 number with a comma in thousands, as 1,200 for 1200."),
        (("1,712", "1,811", "2,345", "2,111", "9,999", "15"), (1712, 1811, 2345, 2111, 9999, 15), "5 numbers"),
        (("1\u00a0234", "12"), (1234, 12), "1 number with a sign between thousands, as 1 234 for 1234."),
        (("1\u2019234.5", "1'000"), (1234.5, 1000), "2 numbers with a sign between thousands, as 1'234.5 for 1234.5."),
        (("1.234.567",), (1234567,), "1 number with a sign between thousands"),
        (("1.234", "5.5"), (1.234, 5.5), None),
        (("3,5", 2.5, "1e3"), (3.5, 2.5, 1000), "1 number with a decimal comma"),
    ],
)  # fmt: skip
def test_commas_are_read_where_the_column_is_clear(
    cells: tuple[object, ...], numbers: tuple[float, ...], notes: str | None
) -> None:
    column = read(*cells)
    assert column.labels == numbers
    assert column.faults == {}
    assert " ".join(column.notes).startswith(notes or "")
    assert bool(column.notes) is (notes is not None)


@pytest.mark.parametrize(
    ("cells", "faulty", "fault"),
    [
        (("1,234", "2,345"), (0, 1), "a comma that may be a decimal comma or part of thousands"),
        (("1,230", "2,345", "1500"), (0, 1), "a comma that may be a decimal comma"),
        (("1,234", "5"), (0,), "a comma that may be a decimal comma"),
        (
            ("3,5", "1,234.5", "2"),
            (0, 1),
            "a comma that is a decimal sign in some cells and part of thousands in others",
        ),
        (("3,5", "2.5"), (0,), "a comma that is a decimal sign in some cells"),
        (
            ("2,5", "3.125", "1,75"),
            (1,),
            "a dot that may be a decimal point or part of thousands, beside decimal commas",
        ),
        (("2.5", "3,125", "1.75"), (1,), "a comma that may be a decimal comma"),
    ],
)
def test_commas_with_two_meanings_are_refused(cells: tuple[str, ...], faulty: tuple[int, ...], fault: str) -> None:
    column = read(*cells)
    assert tuple(column.faults) == faulty
    assert all(one.startswith(fault) and "(write 1234.5" in one for one in column.faults.values())


def test_faults_are_of_few_kinds() -> None:
    beside = ["$5", "5 €", "80%", "5 stars", "4/5", "~3"]
    words = ["good", "2024-01-01", "x" * 10_000, "1,,," * 5000 + "!"]
    column = read(*beside, *words, 3)
    kinds = Counter(column.faults.values())
    assert sorted(kinds.values()) == [4, 6]
    assert column.labels[-1] == 3
