"""Predictions as a table of pandas or polars."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from lorafit.system.extras import require
from lorafit.tasks.base import Prediction


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
        A DataFrame of polars for a Series of polars, else of pandas.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    columns, library = build_columns(predictions, example), type(texts).__module__.partition(".")[0]
    if library == "polars":
        return import_module("polars").DataFrame(columns)
    index = getattr(texts, "index", None) if library == "pandas" else None
    return require("pandas", extra="train", purpose="A table of predictions").DataFrame(columns, index=index)
