"""The settings of one cell of a comparison."""

from lorafit.config import Config
from lorafit.methods import complete_settings, find_method

__all__ = ["set_method"]


def set_method(config: Config, method: str, seed: int) -> Config:
    """Return the settings of one cell: of the method section, what the method takes.

    Args:
        config: The settings that all share.
        method: The method's name.
        seed: The cell's seed.

    Returns:
        Settings for `preparation.prepare`.
    """
    row, cell = find_method(method), config.model_copy(deep=True)
    asked = cell.method.model_dump()
    taken = {name: asked[name] for name in row.defaults}
    layers = cell.method.layers if row.place == "linears" else "all"
    cell.method = type(cell.method)(name=method, layers=layers, **taken)
    cell.training.seed = seed
    cell.training.budget = None
    cell.evaluation.baseline = False
    cell.evaluation.cheap_baselines = False
    return complete_settings(cell)
