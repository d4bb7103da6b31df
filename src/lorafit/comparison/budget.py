"""The same settings for every method, so that all of them together fit a budget."""

import gc
import time
from collections.abc import Sequence

from lorafit.config import Config
from lorafit.planning.budget import plan_run
from lorafit.planning.costs import CostModel, Costs
from lorafit.planning.forecast import Ground
from lorafit.preparation import Material, prepare
from lorafit.progress import Progress, Silent

__all__ = ["fit_budget"]


def fit_budget(cells: Sequence[Config], config: Config, seeds: int, material: Material, progress: Progress) -> Config:
    """Measure some steps of each method and choose the settings with which all cells fit `training.budget`.

    Args:
        cells: The settings of each method.
        config: The settings that all share, with the budget.
        seeds: How often each method is trained.
        material: The rows and the encoder.
        progress: Told what is chosen.

    Returns:
        The settings that all share, without a budget; those given where there was none.

    Raises:
        ConfigError: Nothing fits; what would is said.
    """
    if config.training.budget is None:
        return config
    from lorafit.planning.measuring import measure_costs
    from lorafit.training.batching import TrainingRows

    began, measured, lengths, width, precision = time.perf_counter(), list[Costs](), {}, 0, ""
    progress.start("forecasting time", total=len(cells), unit="method")
    for number, cell in enumerate(cells, start=1):
        prepared = prepare(cell, Silent(), material=material)
        rows = TrainingRows(prepared.tokens["train"], prepared.splits.train.labels, prepared.pad_id)
        measured.append(measure_costs(prepared.adapted.model, rows, cell.training, prepared.precision))
        lengths = {name: texts.lengths for name, texts in prepared.tokens.items()}
        width, precision = prepared.adapted.model.config.hidden_size, prepared.precision.name
        del prepared, rows
        gc.collect()
        progress.update(number)
    progress.finish()
    ground = Ground(lengths, _add(measured, seeds), width, precision, characters=_count_characters(material))
    asked = config.model_copy(deep=True)
    asked.evaluation.baseline = False
    plan = plan_run(asked, ground, preparation=0.0, spent=time.perf_counter() - began)
    for note in plan.notes:
        progress.say(note)
    chosen = plan.config
    chosen.evaluation.baseline = config.evaluation.baseline
    return chosen


def _add(costs: Sequence[Costs], times: int) -> Costs:
    """Return what a batch of every method costs, each so many times."""

    def add(models: Sequence[CostModel]) -> CostModel:
        return CostModel(
            step=times * sum(model.step for model in models),
            per_token=times * sum(model.per_token for model in models),
            per_pair=times * sum(model.per_pair for model in models),
        )

    return Costs(
        train=add([cost.train for cost in costs]),
        forward=add([cost.forward for cost in costs]),
        layers=max(cost.layers for cost in costs),
        frozen=min(cost.frozen for cost in costs),
    )


def _count_characters(material: Material) -> int:
    splits = material.splits
    return sum(len(text) for part in (splits.train, splits.test) for text in part.texts)
