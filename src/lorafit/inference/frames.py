"""Predictions as a table of pandas or polars."""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from lorafit.errors import MissingExtraError
from lorafit.tasks.base import Prediction

_NULLABLE: Final = {int: "Int64", bool: "boolean"}
"""Types of pandas that can hold what is missing, by that of the values."""


def build_columns(predictions: Sequence[Prediction | None], example: Prediction) -> dict[str, list[object]]:
    """Return the columns of n predictions by name, those that `example` has; None where there is no prediction."""
    rows = [{} if one is None else one.columns() for one in predictions]
    return {name: [row.get(name) for row in rows] for name in example.columns()}


def build_frame(texts: object, predictions: Sequence[Prediction | None], example: Prediction) -> Any:  # noqa: ANN401
    """Put predictions into a table.

    Args:
        texts: What held the n texts: a Series gives its index, and says whose table is wanted.
        predictions: n predictions, None where there is none.
        example: Any prediction.

    Returns:
        A DataFrame of polars for a Series of polars, else of pandas; whole numbers and booleans stay so beside what is
        missing.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    columns = build_columns(predictions, example)
    libraries = {kind.__module__.partition(".")[0] for kind in type(texts).__mro__}
    if "polars" in libraries:
        return import_module("polars").DataFrame(columns)
    if find_spec("pandas") is None:
        raise MissingExtraError("A table of predictions needs the package 'pandas': pip install pandas")
    pandas = import_module("pandas")
    typed: dict[str, Any] = dict(columns)
    for name, values in columns.items():
        kinds = {_NULLABLE.get(type(value)) for value in values if value is not None}
        if None in values and len(kinds) == 1 and None not in kinds:
            typed[name] = pandas.array(values, dtype=kinds.pop())
    return pandas.DataFrame(typed, index=getattr(texts, "index", None) if "pandas" in libraries else None)
