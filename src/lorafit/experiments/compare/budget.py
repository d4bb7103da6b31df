"""The settings of the cells: the same for every method, chosen so that all of them together fit a budget."""

import gc
import time
from collections.abc import Mapping, Sequence
from functools import partial

from lorafit.config import Config
from lorafit.errors import ConfigError
from lorafit.models.method_settings import complete_method, select_settings
from lorafit.models.methods import find_method
from lorafit.system.progress import Progress, Silent
from lorafit.training.planning.budget import plan_run
from lorafit.training.planning.forecast import Workload, forecast_run, measure_workload
from lorafit.training.prepare import Material, prepare


def set_method(config: Config, method: str, seed: int) -> Config:
    """Return the settings of one cell.

    Args:
        config: The settings that all cells share.
        method: The cell's method, which takes of the method section what it knows.
        seed: The cell's seed.

    Returns:
        A copy of the settings.
    """
    cell = config.model_copy(deep=True)
    cell.method = complete_method(select_settings(cell.method, method))
    cell.training.seed = seed
    cell.training.budget = None
    cell.evaluation.before = False
    cell.evaluation.baselines = False
    cell.training.blend = "off"  # methods are compared, and they share their words
    return cell


def fit_budget(config: Config, methods: Sequence[str], seeds: int, material: Material, progress: Progress) -> Config:
    """Measure some steps of each method and choose the settings with which all cells fit `training.budget`.

    Args:
        config: The settings that all share, with the budget.
        methods: The methods.
        seeds: How often each is trained.
        material: The rows and the encoder.
        progress: Receives what is chosen.

    Returns:
        The settings that all share, without a budget; those given where there is no budget, or no method can be
        measured.

    Raises:
        ConfigError: Nothing fits; the message says what the smallest plan needs.
    """
    if config.training.budget is None:
        return config
    began, workloads = time.perf_counter(), dict[str, Workload]()
    progress.start("forecasting time", total=len(methods), unit="method")
    for number, method in enumerate(methods, start=1):
        try:
            cell = set_method(config, method, config.training.seed)
            workloads[method] = measure_workload(prepare(cell, Silent(), material=material))
        except ConfigError as error:
            progress.say(f"{method} is left out of the forecast: {error}")
        gc.collect()
        progress.update(number)
    progress.finish()
    if not workloads:
        return config
    asked = config.model_copy(deep=True)
    asked.evaluation.before = False
    plan = plan_run(
        asked,
        max(workloads.values(), key=lambda workload: workload.costs.layers),
        preparation=0.0,
        spent=time.perf_counter() - began,
        forecast=partial(_forecast_all, workloads=workloads, seeds=seeds),
        can_halve=any(find_method(method).takes_layers for method in workloads),
    )
    for note in plan.notes:
        progress.say(note)
    plan.config.evaluation.before = config.evaluation.before
    return plan.config


def _forecast_all(config: Config, *, workloads: Mapping[str, Workload], seeds: int) -> dict[str, float]:
    """Forecast every cell with its own costs; the baselines are trained once."""
    stages: dict[str, float] = {}
    baselines: dict[str, float] = {}
    for method, workload in workloads.items():
        cell = set_method(config, method, config.training.seed)
        cell.evaluation.baselines, cell.evaluation.report = config.evaluation.baselines, False
        for name, seconds in forecast_run(cell, workload).items():
            if name == "baselines":
                baselines = {name: seconds}
            else:
                stages[name] = stages.get(name, 0.0) + seeds * seconds
    return stages | baselines
