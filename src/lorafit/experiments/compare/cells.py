"""The settings of one cell of a comparison."""

from lorafit.config import Config
from lorafit.models.method_settings import complete_settings, select_settings

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
    cell = config.model_copy(deep=True)
    cell.method = select_settings(cell.method, method)
    cell.training.seed = seed
    cell.training.budget = None
    cell.evaluation.baseline = False
    cell.evaluation.cheap_baselines = False
    return complete_settings(cell)
