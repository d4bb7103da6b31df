"""How typical the text of a prediction is, as tables and terminals show it: the same for every task."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lorafit.tasks.base import Prediction


def typicality_columns(prediction: "Prediction") -> dict[str, object]:
    """Return the columns `typicality` and `atypical` of a table of predictions, as far as a prediction has them."""
    named = {"typicality": prediction.typicality, "atypical": prediction.atypical}
    return {name: value for name, value in named.items() if value is not None}


def typicality_cells(prediction: "Prediction") -> tuple[str, ...]:
    """Return the same as cells for a terminal."""
    rank, atypical = prediction.typicality, prediction.atypical
    cells = () if rank is None else (f"typicality {rank:.3f}",)
    return cells if atypical is None else (*cells, f"{'atypical' if atypical else '':8}")
