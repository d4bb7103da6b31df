"""How numbers are written for people: one way for a metric, an interval, a difference, a p-value."""

import math
from typing import Final, Literal

from lorafit.tasks.records import Estimate

Form = Literal["percent", "plain", "unit"]
"""Per cent with one decimal; three decimals; or the unit of the labels, with as many digits as its size asks for."""

_LARGEST_WHOLE: Final = 1e15
"""Whole numbers up to here are written with all their digits."""


def write_numbers(form: Form, *numbers: float, sign: bool = False) -> list[str]:
    """Write numbers that stand together with the same number of decimals, without a per cent sign.

    Args:
        form: How.
        *numbers: Any; NaN is `undefined`, and a minus zero is a zero.
        sign: Whether what is above zero gets a sign, too.

    Returns:
        One text a number.
    """
    if form == "percent":
        return [_write(100 * number, ".1f", sign=sign) for number in numbers]
    spec = ",.3f" if form == "plain" else _choose_decimals(*numbers)
    return [_write(number, spec, sign=sign) for number in numbers]


def write_estimate(form: Form, estimate: Estimate, *, sign: bool = False, separator: str = " ") -> str:
    """Write a value with its interval.

    Args:
        form: How.
        estimate: The value and its interval.
        sign: Whether it is a difference: signs are written and, of shares, points instead of per cent.
        separator: What stands between value and interval.

    Returns:
        For example `83.6 % [81.5, 85.7]`, as a difference `+1.2 [-0.3, +2.6]`; `undefined` where there is no value.
    """
    if math.isnan(estimate.value):
        return "undefined"
    unit = " %" if form == "percent" and not sign else ""
    if math.isnan(estimate.low):
        return f"{write_numbers(form, estimate.value, sign=sign)[0]}{unit}"
    value, low, high = write_numbers(form, estimate.value, estimate.low, estimate.high, sign=sign)
    return f"{value}{unit}{separator}[{low}, {high}]"


def write_number(value: float, *, sign: bool = False) -> str:
    """Write a number in the unit of the labels, with as many digits as its size asks for."""
    return write_numbers("unit", value, sign=sign)[0]


def write_label_number(value: float) -> str:
    """Write a number of the data: a whole one without decimals, any other as `write_number` does."""
    return f"{value:z,.0f}" if value.is_integer() and abs(value) < _LARGEST_WHOLE else write_number(value)


def write_p_value(p_value: float) -> str:
    """Write the p-value of a test."""
    return f"p = {p_value:.2g}" if p_value >= 1e-6 else "p < 0.000001"


def _choose_decimals(*numbers: float) -> str:
    """Choose the decimals: three about 1, more of small numbers, none of large ones."""
    largest = max((abs(number) for number in numbers if math.isfinite(number)), default=0.0)
    if largest == 0:
        return ",.3f"
    exponent = math.floor(math.log10(largest))
    if not -6 <= exponent < 15:
        return ".3e"
    return f",.{max(3 - exponent, 0) if exponent >= 0 else 2 - exponent}f"


def _write(number: float, spec: str, *, sign: bool) -> str:
    if math.isnan(number):
        return "undefined"
    return f"{number:{'+' if sign else ''}z{spec}}".replace("inf", "∞")
