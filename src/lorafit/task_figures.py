"""The figures of each task: their names, how they are written, and what they show."""

import math
from dataclasses import dataclass
from typing import Final, Literal

from lorafit.evidence import Estimate
from lorafit.labels import ClasslessTask, Task
from lorafit.task_evidence import TaskComparison, TaskSliceScores

__all__ = [
    "FIGURES",
    "LEADING",
    "Figure",
    "describe_chance",
    "describe_rows",
    "judge_difference",
    "judge_task",
    "name_difference",
    "name_figure",
    "strength_of",
    "write_difference",
    "write_figure",
    "write_figure_value",
    "write_true_value",
    "write_value",
]


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        title: Its name for people.
        meaning: What it says, as a clause.
        is_share: Whether it is written in per cent.
        is_higher_better: Whether more of it is better.
        has_unit: Whether it is in the unit of the numbers, which may be of any size.
    """

    title: str
    meaning: str
    is_share: bool = False
    is_higher_better: bool = True
    has_unit: bool = False


FIGURES: Final = {
    "accuracy": Figure("accuracy", "share of the texts that get their label", is_share=True),
    "micro_f1": Figure(
        "F1 (micro)",
        "over the labels of all texts: how many of those given are right, and how many true ones are found",
        is_share=True,
    ),
    "macro_f1": Figure("F1 (macro)", "the mean of the labels' own F1: rare labels count as much", is_share=True),
    "exact_match": Figure("exact match", "share of the texts that get exactly their labels", is_share=True),
    "hamming_loss": Figure(
        "Hamming loss",
        "share of the decisions that are wrong; there is one for each text and label",
        is_share=True,
        is_higher_better=False,
    ),
    "log_loss": Figure(
        "log loss", "how little probability the truth gets, a decision, in nats", is_higher_better=False
    ),
    "mae": Figure("MAE", "how far off a number is on average, in its unit", is_higher_better=False, has_unit=True),
    "rmse": Figure(
        "RMSE",
        "the same with large errors counted more: the root of the mean square",
        is_higher_better=False,
        has_unit=True,
    ),
    "r2": Figure("R²", "share of the numbers' variance that is told; 0 is what their mean would give, 1 the best"),
    "pearson": Figure("Pearson's r", "how far predicted and true numbers lie on a line, -1 to 1"),
}
"""By their names in records."""

LEADING: Final[dict[Task, str]] = {"single_label": "accuracy", "multi_label": "micro_f1", "regression": "mae"}
"""The figure that verdicts are about, by task."""

_LARGEST_WHOLE: Final = 1e15
"""Whole numbers up to here are written with all their digits."""


def name_figure(name: str) -> str:
    """Return a figure's name for people."""
    return FIGURES[name].title if name in FIGURES else name.replace("_", " ")


def name_difference(name: str) -> str:
    """Return the name of a figure's difference for people, as `write_difference` writes it."""
    return f"{name_figure(name)} (points)" if _is_share(name) else name_figure(name)


def write_figure(name: str, estimate: Estimate, *, sign: bool = False, separator: str = " ") -> str:
    """Write a figure with its interval.

    Args:
        name: A key of `FIGURES`.
        estimate: Its value and interval, or a difference of such values.
        sign: Whether to write the sign of what is above zero.
        separator: What stands between value and interval.

    Returns:
        Shares in per cent; figures with a unit with as many digits as their size asks for, others to three after the
        point; `undefined` where there is none.
    """
    if math.isnan(estimate.value):
        return _write(estimate.value, "")
    value, low, high = _write_numbers(name, estimate.value, estimate.low, estimate.high, sign=sign)
    return f"{value}{' %' if _is_share(name) else ''}{separator}[{low}, {high}]"


def write_figure_value(name: str, value: float) -> str:
    """Write a figure's value as `write_figure` does, without an interval."""
    return f"{_write_numbers(name, value)[0]}{' %' if _is_share(name) else ''}"


def write_difference(name: str, estimate: Estimate, *, separator: str = " ") -> str:
    """Write a difference of two values of a figure with its interval: points of shares, others in the figure's unit."""
    return write_figure(name, estimate, sign=True, separator=separator).replace(" %", "")


def write_value(value: float, *, sign: bool = False) -> str:
    """Write a number with as many digits as its size asks for; with `sign`, that of what is above zero, too."""
    return _write(value, _choose_form(value), sign=sign)


def write_true_value(value: float) -> str:
    """Write a number of the data: a whole one without digits after the point, any other as `write_value` does."""
    return f"{value:z,.0f}" if value.is_integer() and abs(value) < _LARGEST_WHOLE else write_value(value)


def describe_chance(p_value: float) -> str:
    """Write the p-value of a test."""
    return f"p = {p_value:.2g}" if p_value >= 1e-6 else "p < 0.000001"


def describe_rows(paired: TaskComparison, task: ClasslessTask) -> str:
    """Write how many rows a model gets better and worse than another, with the test of that."""
    gained, lost, chance = f"{paired.rows_gained:,}", f"{paired.rows_lost:,}", describe_chance(paired.p_value)
    if task == "regression":
        return f"{gained} rows nearer to their number, {lost} farther (exact sign test, {chance})"
    return f"{gained} rows with fewer wrong labels, {lost} with more (exact sign test, {chance})"


def judge_task(paired: TaskComparison, task: ClasslessTask, level: float) -> Literal["better", "worse", "unclear"]:
    """Say whether the fine-tuned model is shown to be better or worse than another on the same rows.

    Args:
        paired: The comparison.
        task: What a text gets.
        level: Level of its intervals, above 0 and below 1.

    Returns:
        `unclear` unless the interval of the leading figure's difference leaves 0 out, and the test of the rows gained
        against those lost agrees.
    """
    name = LEADING[task]
    difference = paired.differences.get(name)
    if difference is None or not paired.p_value < 1 - level:
        return "unclear"
    verdict, gain = judge_difference(name, difference), paired.rows_gained - paired.rows_lost
    agrees = gain > 0 if verdict == "better" else gain < 0
    return verdict if agrees else "unclear"


def judge_difference(name: str, difference: Estimate) -> Literal["better", "worse", "unclear"]:
    """Say whether a difference of a figure is one for the better or the worse.

    Args:
        name: A key of `FIGURES`.
        difference: Of two values of it.

    Returns:
        `unclear` where the interval holds 0.
    """
    is_up, is_down = difference.low > 0, difference.high < 0
    if not (is_up or is_down):
        return "unclear"
    return "better" if is_up == FIGURES[name].is_higher_better else "worse"


def strength_of(one: TaskSliceScores, task: ClasslessTask) -> float:
    """Return what orders slices, the weakest first: more is better; where the leading figure is undefined, infinite."""
    name = LEADING[task]
    value = one.figures[name].value
    if math.isnan(value):
        return math.inf
    return value if FIGURES[name].is_higher_better else -value


def _is_share(name: str) -> bool:
    return name in FIGURES and FIGURES[name].is_share


def _write_numbers(name: str, *numbers: float, sign: bool = False) -> list[str]:
    """Write values of a figure with the same digits after the point."""
    if _is_share(name):
        return [_write(100 * number, ".1f", sign=sign) for number in numbers]
    form = _choose_form(*numbers) if name in FIGURES and FIGURES[name].has_unit else ",.3f"
    return [_write(number, form, sign=sign) for number in numbers]


def _choose_form(*numbers: float) -> str:
    """Choose the digits after the point: three about 1, more of small numbers, none of large ones."""
    largest = max((abs(number) for number in numbers if math.isfinite(number)), default=0.0)
    if largest == 0:
        return ",.3f"
    exponent = math.floor(math.log10(largest))
    if not -6 <= exponent < 15:
        return ".3e"
    return f",.{max(3 - exponent, 0) if exponent >= 0 else 2 - exponent}f"


def _write(number: float, form: str, *, sign: bool = False) -> str:
    if math.isnan(number):
        return "undefined"
    return f"{number:{'+' if sign else ''}z{form}}".replace("inf", "∞")
