"""Choose the best settings that fit a time budget, and say what is given up for it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import ceil

from lorafit.config import Config
from lorafit.errors import ConfigError
from lorafit.models.methods import find_method
from lorafit.runs.records import ForecastRecord
from lorafit.system import hardware
from lorafit.system.text import format_duration, parse_duration
from lorafit.training.planning.forecast import Workload, forecast_run, frozen_layers


@dataclass(frozen=True)
class Rung:
    """What is given up together; a setting that is lower already stays.

    Attributes:
        tokens: `model.max_length`; None keeps it.
        epochs: `training.epochs`, or so many quarters of those asked for where that is more; None keeps it.
        half: Whether only the upper half of the layers is adapted.
    """

    tokens: int | None = None
    epochs: int | None = None
    half: bool = False


LADDER = (
    Rung(),
    Rung(tokens=512),
    Rung(tokens=512, epochs=2),
    Rung(tokens=256),
    Rung(tokens=256, epochs=2),
    Rung(tokens=256, epochs=2, half=True),
    Rung(tokens=256, epochs=1),
    Rung(tokens=128),
    Rung(tokens=128, epochs=2),
    Rung(tokens=256, epochs=1, half=True),
    Rung(tokens=128, epochs=2, half=True),
    Rung(tokens=128, epochs=1),
    Rung(tokens=128, epochs=1, half=True),
)
"""The settings tried, the best expected result first; the first that fits is taken.

Below the last rung the cheapest one gets fewer rows, or fewer steps where `training.max_steps` is set. The order is a
judgement: halving the tokens costs more than dropping the second epoch (`docs/explanation/defaults.md`), and the upper
layers learn most of the task.
"""

_RESERVE = 0.95
"""Share of the budget that a plan may take."""

_FEWEST_ROWS = 500
_FEWEST_STEPS = 15
_FEWER = 0.8
"""Rows or steps of each further attempt, as a share of the previous one."""

_FULL_MEMORY = 0.9
_LARGE_SHARE = 0.5


@dataclass(frozen=True)
class Plan:
    """The chosen settings and their forecast.

    Attributes:
        config: The settings asked for or, with a budget, the best that fit; without the budget, so that they repeat the
            run on any machine.
        record: The forecast, for the run's record.
        notes: Lines for the user.
    """

    config: Config
    record: ForecastRecord
    notes: tuple[str, ...]


def plan_run(
    config: Config,
    workload: Workload,
    *,
    preparation: float,
    spent: float = 0.0,
    peak_bytes: int = 0,
    forecast: Callable[[Config], dict[str, float]] | None = None,
    can_halve: bool | None = None,
) -> Plan:
    """Forecast a run and, where there is a budget, choose settings that fit it.

    Args:
        config: The settings asked for, which were measured.
        workload: The measurements.
        preparation: Seconds for preparing data and model again with other settings.
        spent: Seconds of the budget already spent.
        peak_bytes: Peak memory before it was counted anew.
        forecast: Forecasts seconds by stage for some settings; None forecasts one run.
        can_halve: Whether adapting only the upper layers is an option; None asks the method.

    Returns:
        The plan.

    Raises:
        ConfigError: Nothing fits the budget; the message says what would.
    """
    budget = parse_duration(config.training.budget) if config.training.budget else None
    asked = config.model_copy(deep=True)
    asked.training.budget = None
    if can_halve is None:
        can_halve = find_method(asked.method.name).takes_layers
    work = _Work(workload, forecast or partial(forecast_run, workload=workload), can_halve)
    chosen = asked if budget is None else _choose(asked, work, preparation, spent, budget)
    foreseen = work.forecast(chosen)
    given_up = describe_changes(asked, chosen, rows=workload.count("train"))
    record = ForecastRecord(
        seconds=foreseen,
        peak_memory_bytes=max(peak_bytes, hardware.peak_memory_bytes()),
        budget_seconds=budget,
        given_up=given_up,
    )
    return Plan(chosen, record, tuple(_describe(record, config)))


def needs_preparation(asked: Config, chosen: Config) -> bool:
    """Return whether two settings differ in more than epochs and steps, so that the run must be prepared again."""
    kept = {"epochs": True, "max_steps": True, "budget": True}
    first, second = (config.model_dump(exclude={"training": kept}) for config in (asked, chosen))
    return first != second


def describe_changes(asked: Config, chosen: Config, *, rows: int) -> list[str]:
    """Say what was given up.

    Args:
        asked: The settings asked for.
        chosen: Those that fit.
        rows: Number of training rows.

    Returns:
        A phrase for each setting that differs.
    """
    phrases = []
    if (now := chosen.data.max_rows) != asked.data.max_rows:
        phrases.append(f"{now:,} training rows instead of {rows:,}")
    if (epochs := chosen.training.epochs) != asked.training.epochs:
        phrases.append(f"{epochs} epoch{'' if epochs == 1 else 's'} instead of {asked.training.epochs}")
    if (steps := chosen.training.max_steps) != asked.training.max_steps:
        phrases.append(f"{steps:,} steps instead of {asked.training.max_steps:,}")
    if chosen.method.layers != asked.method.layers:
        top = chosen.method.layers.removeprefix("top")
        instead = "all" if asked.method.layers == "all" else f"the top {asked.method.layers.removeprefix('top')}"
        phrases.append(f"the top {top} layers instead of {instead}")
    if chosen.model != asked.model:
        phrases.append(f"{chosen.model.max_length} tokens instead of {asked.model.max_length}")
    return phrases


@dataclass(frozen=True)
class _Work:
    """What the settings are chosen for."""

    workload: Workload
    forecast: Callable[[Config], dict[str, float]]
    can_halve: bool


def _choose(asked: Config, work: _Work, preparation: float, spent: float, budget: float) -> Config:
    def forecast(config: Config) -> float:
        again = preparation if needs_preparation(asked, config) else 0.0
        return spent + again + sum(work.forecast(config).values())

    cheapest = asked
    for config in _climb_down(asked, work):
        if forecast(config) <= _RESERVE * budget:
            return config
        cheapest = min(cheapest, config, key=forecast)
    for config in _shrink(cheapest, work.workload):
        if forecast(config) <= _RESERVE * budget:
            return config
        cheapest = min(cheapest, config, key=forecast)
    raise ConfigError(_describe_refusal(cheapest, forecast(cheapest), budget, work))


def _climb_down(asked: Config, work: _Work) -> Iterator[Config]:
    """Yield the settings of each rung, without repetitions; then those of the last with half the epochs each time."""
    workload = work.workload
    costs, seen = workload.costs, list[Config]()
    longest = min(asked.model.max_length, max(int(part.max()) for part in workload.lengths.values()))
    half = ceil(costs.layers / 2)
    for rung in LADDER:
        config = asked.model_copy(deep=True)
        if rung.tokens is not None and rung.tokens < longest:
            config.model.max_length = rung.tokens
        if rung.epochs is not None and config.training.max_steps is None:
            epochs = config.training.epoch_count
            config.training.epochs = min(epochs, max(rung.epochs, ceil(rung.epochs * epochs / 4)))
        if (
            rung.half
            and costs.layers - half > frozen_layers(asked, costs)
            and work.can_halve
            and not isinstance(asked.method.target_modules, list)
        ):
            config.method.layers = f"top{half}"
        if config not in seen:
            seen.append(config)
            yield config
    while asked.training.max_steps is None and seen[-1].training.epoch_count > 1:
        config = seen[-1].model_copy(deep=True)
        config.training.epochs = ceil(seen[-1].training.epoch_count / 2)
        seen.append(config)
        yield config


def _shrink(config: Config, workload: Workload) -> Iterator[Config]:
    """Yield settings with fewer and fewer rows, or steps where `max_steps` is set, in round numbers."""
    steps = config.training.max_steps
    count, fewest = (workload.count("train"), _FEWEST_ROWS) if steps is None else (steps, _FEWEST_STEPS)
    while count > fewest:
        count = max(fewest, _round_down(int(_FEWER * count)))
        smaller = config.model_copy(deep=True)
        if steps is None:
            smaller.data.max_rows = count
        else:
            smaller.training.max_steps = count
        yield smaller


def _round_down(count: int) -> int:
    """Round down to two significant digits."""
    unit = int(10 ** max(0, len(str(count)) - 2))
    return count // unit * unit


def _describe(record: ForecastRecord, config: Config) -> Iterator[str]:
    stages = ", ".join(f"{name} {format_duration(seconds)}" for name, seconds in record.seconds.items())
    total, memory = sum(record.seconds.values()), record.peak_memory_bytes
    yield f"forecast: about {format_duration(total)}: {stages}; at least {memory / 1e9:.1f} GB of memory"
    if record.given_up:
        yield f"to fit {config.training.budget}: {', '.join(record.given_up)}"
    testing = record.seconds.get("before training", 0.0) + record.seconds["evaluation"]
    if record.budget_seconds is not None and testing > _LARGE_SHARE * total:
        yield _describe_testing(testing, config)
    available = hardware.memory_bytes()
    if available and memory > _FULL_MEMORY * available:
        yield (
            f"this machine has {available / 1e9:.1f} GB of memory, which may not be enough: "
            f"--set training.batch_tokens={max(8, config.training.batch_tokens // 2)} needs less"
        )


def _describe_testing(seconds: float, config: Config) -> str:
    hint = "; --set evaluation.before=false halves that" if config.evaluation.before else ""
    return f"measuring the test rows takes {format_duration(seconds)} of it{hint}"


def _describe_refusal(cheapest: Config, seconds: float, budget: float, work: _Work) -> str:
    stages = work.forecast(cheapest)
    testing = stages.get("before training", 0.0) + stages["evaluation"]
    text = (
        f"training.budget: {format_duration(budget)} is too short. The smallest plan needs about "
        f"{format_duration(seconds)}: give --budget {_round_up(seconds / _RESERVE * 1.05)}."
    )
    if testing <= _LARGE_SHARE * seconds:
        return text
    hint = _describe_testing(testing, cheapest)
    return f"{text} {hint[0].upper()}{hint[1:]}."


def _round_up(seconds: float) -> str:
    """Round seconds up to a budget, written like `training.budget`."""
    if seconds <= 120:
        return f"{5 * ceil(seconds / 5)}s"
    return f"{ceil(seconds / 60)}m"
