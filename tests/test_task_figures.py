import math

import pytest

from lorafit.evidence import Estimate
from lorafit.task_evidence import TaskComparison, TaskSliceScores
from lorafit.task_figures import (
    describe_chance,
    describe_rows,
    judge_difference,
    judge_task,
    name_difference,
    name_figure,
    strength_of,
    write_difference,
    write_figure,
    write_figure_value,
    write_true_value,
    write_value,
)


def guess(value: float, low: float, high: float) -> Estimate:
    return Estimate(value=value, low=low, high=high)


def compare(name: str, low: float, high: float, *, gained: int = 40, lost: int = 5, p: float = 0.001) -> TaskComparison:
    difference = {name: guess((low + high) / 2, low, high)}
    return TaskComparison(differences=difference, rows_gained=gained, rows_lost=lost, p_value=p)


def test_shares_are_in_per_cent_and_numbers_have_the_digits_that_they_need() -> None:
    share = guess(0.8123, 0.7, 0.9)
    assert write_figure("micro_f1", share) == "81.2 % [70.0, 90.0]"
    assert write_figure("hamming_loss", guess(-0.02, -0.03, 0.0), sign=True, separator="\n") == "-2.0 %\n[-3.0, +0.0]"
    assert write_figure("log_loss", guess(0.25, 0.2, 0.3)) == "0.250 [0.200, 0.300]"
    assert write_figure("mae", guess(123456.7, 120000, 130000)) == "123,457 [120,000, 130,000]"
    assert write_figure("mae", guess(0.00123, 0.001, 0.0015)) == "0.00123 [0.00100, 0.00150]"
    assert write_figure("r2", guess(0.5, -1.25, 0.75), sign=True) == "+0.500 [-1.250, +0.750]"
    assert write_figure("r2", guess(0.0001, -0.0137, -0.0001)) == "0.000 [-0.014, 0.000]"
    assert write_figure("new_figure", guess(1, 1, 1)) == "1.000 [1.000, 1.000]"
    assert [write_value(value) for value in (0.0, 12.3456, 1e-9, -2e20)] == [
        "0.000",
        "12.35",
        "1.000e-09",
        "-2.000e+20",
    ]


def test_whole_numbers_of_the_data_have_no_point() -> None:
    numbers = (80.0, -0.0, 1234567.0, 2.5, 1e20, -0.001)
    assert [write_true_value(number) for number in numbers] == [
        "80", "0", "1,234,567", "2.500", "1.000e+20", "-0.00100"
    ]  # fmt: skip


def test_differences_are_written_without_a_unit() -> None:
    assert write_difference("accuracy", guess(-0.0123, -0.02, 0.001)) == "-1.2 [-2.0, +0.1]"
    assert write_difference("mae", guess(0.5, 0.25, 0.75)) == "+0.500 [+0.250, +0.750]"
    assert write_figure_value("accuracy", 0.8123) == "81.2 %"
    assert write_figure_value("mae", 12.3456) == "12.35"


@pytest.mark.parametrize(
    ("name", "low", "high", "verdict"),
    [
        ("accuracy", 0.01, 0.02, "better"),
        ("accuracy", -0.02, -0.01, "worse"),
        ("accuracy", 0.0, 0.01, "unclear"),
        ("mae", 0.01, 0.02, "worse"),
        ("mae", -0.02, -0.01, "better"),
        ("mae", -0.01, 0.0, "unclear"),
    ],
)
def test_difference_is_judged_by_its_interval(name: str, low: float, high: float, verdict: str) -> None:
    assert judge_difference(name, guess((low + high) / 2, low, high)) == verdict


def test_what_is_no_number_is_said() -> None:
    assert write_figure("pearson", guess(math.nan, math.nan, math.nan)) == "undefined"
    assert write_figure("micro_f1", guess(math.nan, math.nan, math.nan)) == "undefined"
    assert write_difference("micro_f1", guess(math.nan, math.nan, math.nan)) == "undefined"
    assert write_figure("pearson", guess(0.5, math.nan, math.inf)) == "0.500 [undefined, ∞]"
    assert write_value(-math.inf) == "-∞"


def test_differences_of_shares_are_named_as_points() -> None:
    assert [name_difference(name) for name in ("micro_f1", "mae", "new_figure")] == [
        "F1 (micro) (points)", "MAE", "new figure"
    ]  # fmt: skip


def test_slices_are_ordered_by_their_leading_figure_undefined_ones_last() -> None:
    def build(**figures: float) -> TaskSliceScores:
        estimates = {name: guess(value, value, value) for name, value in figures.items()}
        return TaskSliceScores(
            column="shop", value="north", rows=10, figures=estimates, differences={}, adjusted_p_value=1
        )

    several = [build(micro_f1=value, exact_match=0.0) for value in (0.2, 0.9, math.nan)]
    strengths = [strength_of(one, "multi_label") for one in several]
    assert strengths == sorted(strengths)
    assert strength_of(build(mae=2.0), "regression") < strength_of(build(mae=1.0), "regression")


def test_figures_have_names_for_people() -> None:
    names = ("micro_f1", "exact_match", "hamming_loss", "mae", "r2", "pearson", "new_figure")
    assert [name_figure(name) for name in names] == [
        "F1 (micro)", "exact match", "Hamming loss", "MAE", "R²", "Pearson's r", "new figure"
    ]  # fmt: skip


def test_signs_of_values_are_written_where_they_are_asked_for() -> None:
    assert [write_value(value, sign=True) for value in (12.3456, -0.5, 0.0)] == ["+12.35", "-0.500", "+0.000"]


def test_rows_gained_and_lost_are_described_by_task() -> None:
    paired = compare("mae", -2, -1, gained=1200, lost=5, p=1e-9)
    assert describe_rows(paired, "regression") == (
        "1,200 rows nearer to their number, 5 farther (exact sign test, p < 0.000001)"
    )
    assert describe_rows(paired, "multi_label").startswith("1,200 rows with fewer wrong labels, 5 with more (exact")


@pytest.mark.parametrize(("p", "said"), [(0.0432, "p = 0.043"), (1e-6, "p = 1e-06"), (9e-7, "p < 0.000001")])
def test_small_chances_are_not_written_out(p: float, said: str) -> None:
    assert describe_chance(p) == said


@pytest.mark.parametrize(
    ("paired", "found"),
    [
        (compare("micro_f1", 0.01, 0.03), "better"),
        (compare("micro_f1", 0.01, 0.03, p=0.06), "unclear"),
        (compare("micro_f1", -0.01, 0.03), "unclear"),
        (compare("micro_f1", 0.0, 0.03), "unclear"),
        (compare("micro_f1", 0.01, 0.03, gained=5, lost=40), "unclear"),
        (compare("micro_f1", -0.03, -0.01, gained=5, lost=40), "worse"),
        (compare("micro_f1", -0.03, -0.01, gained=40, lost=5), "unclear"),
        (compare("micro_f1", math.nan, math.nan), "unclear"),
        (compare("exact_match", 0.01, 0.03), "unclear"),
    ],
)
def test_more_f1_is_better_where_interval_and_test_agree(paired: TaskComparison, found: str) -> None:
    assert judge_task(paired, "multi_label", 0.95) == found


@pytest.mark.parametrize(
    ("low", "high", "gained", "lost", "found"),
    [(-0.3, -0.1, 40, 5, "better"), (0.1, 0.3, 5, 40, "worse"), (-0.1, 0.1, 40, 5, "unclear")],
)
def test_less_error_is_better(low: float, high: float, gained: int, lost: int, found: str) -> None:
    assert judge_task(compare("mae", low, high, gained=gained, lost=lost), "regression", 0.95) == found
