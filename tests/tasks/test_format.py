"""How numbers are written for people."""

import math

import pytest

from lorafit.tasks.base import Metric
from lorafit.tasks.format import write_label_number, write_number, write_numbers, write_p_value
from lorafit.tasks.records import Estimate
from lorafit.tasks.registry import TASKS, get_task

SHARE, ERROR, PLAIN = Metric("F1", "", form="percent"), Metric("MAE", "", form="unit"), Metric("R²", "")


def guess(value: float, low: float, high: float) -> Estimate:
    return Estimate(value=value, low=low, high=high)


def test_shares_are_in_per_cent_and_numbers_have_the_digits_that_they_need() -> None:
    assert SHARE.write(guess(0.8123, 0.7, 0.9)) == "81.2 % [70.0, 90.0]"
    assert SHARE.write(guess(0.8123, 0.7, 0.9), separator="\n") == "81.2 %\n[70.0, 90.0]"
    assert PLAIN.write(guess(0.25, 0.2, 0.3)) == "0.250 [0.200, 0.300]"
    assert PLAIN.write(guess(0.0001, -0.0137, -0.0001)) == "0.000 [-0.014, 0.000]"
    assert ERROR.write(guess(123456.7, 120000, 130000)) == "123,457 [120,000, 130,000]"
    assert ERROR.write(guess(0.00123, 0.001, 0.0015)) == "0.00123 [0.00100, 0.00150]"
    assert [write_number(value) for value in (0.0, 12.3456, 1e-9, -2e20)] == [
        "0.000",
        "12.35",
        "1.000e-09",
        "-2.000e+20",
    ]


def test_differences_have_signs_and_those_of_shares_are_in_points() -> None:
    assert SHARE.write_difference(guess(-0.0123, -0.02, 0.001)) == "-1.2 [-2.0, +0.1]"
    assert SHARE.write_difference(guess(-0.02, -0.03, 0.0), separator="\n") == "-2.0\n[-3.0, +0.0]"
    assert ERROR.write_difference(guess(0.5, 0.25, 0.75)) == "+0.500 [+0.250, +0.750]"
    assert PLAIN.write_difference(guess(0.5, -1.25, 0.75)) == "+0.500 [-1.250, +0.750]"
    assert (SHARE.difference_title, ERROR.difference_title) == ("F1 (points)", "MAE")
    assert [write_number(value, sign=True) for value in (12.3456, -0.5, 0.0)] == ["+12.35", "-0.500", "+0.000"]


def test_values_are_written_without_an_interval() -> None:
    assert [SHARE.write_value(0.8123), ERROR.write_value(12.3456), PLAIN.write_value(-0.0)] == [
        "81.2 %",
        "12.35",
        "0.000",
    ]
    assert SHARE.write(guess(0.5, math.nan, math.nan)) == "50.0 %", "a value that has no interval"


def test_what_is_undefined_is_said() -> None:
    undefined = guess(math.nan, math.nan, math.nan)
    for metric in (SHARE, ERROR, PLAIN):
        assert (
            metric.write(undefined) == metric.write_difference(undefined) == metric.write_value(math.nan) == "undefined"
        )
    assert ERROR.write(guess(0.5, 0.25, math.inf)) == "0.500 [0.250, ∞]"
    assert write_numbers("unit", -math.inf, math.nan, 2.0) == ["-∞", "undefined", "2.000"]


def test_whole_numbers_of_the_data_have_no_point() -> None:
    numbers = (80.0, -0.0, 1234567.0, 2.5, 1e20, -0.001)
    assert [write_label_number(number) for number in numbers] == [
        "80",
        "0",
        "1,234,567",
        "2.500",
        "1.000e+20",
        "-0.00100",
    ]


@pytest.mark.parametrize(
    ("p", "written"),
    [(1.0, "p = 1"), (0.0432, "p = 0.043"), (1e-6, "p = 1e-06"), (9e-7, "p < 0.000001"), (0.0, "p < 0.000001")],
)
def test_small_chances_are_not_written_out(p: float, written: str) -> None:
    assert write_p_value(p) == written


def test_metrics_of_one_name_are_written_alike_in_every_task() -> None:
    by_name: dict[str, set[tuple[object, ...]]] = {}
    for task in TASKS:
        for name, metric in get_task(task).metrics.items():
            by_name.setdefault(name, set()).add((metric.title, metric.higher_is_better, metric.form))
    differing = {name for name, found in by_name.items() if len(found) > 1}
    assert differing == {"mae"}, "scores have no unit"
