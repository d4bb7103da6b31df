"""Search for good settings on validation rows; test rows play no part."""

import shlex
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lorafit.atomic import write_atomic
from lorafit.config import Config
from lorafit.durations import format_duration, parse_duration
from lorafit.errors import ConfigError, RunError, TrainingInterruptedError
from lorafit.planning.forecast import forecast_run
from lorafit.preparation import Material, load_material, prepare
from lorafit.progress import Progress, Silent
from lorafit.run_folder import find_free_name, suggest_name
from lorafit.search.records import SearchLayout, SearchRecord
from lorafit.search.results import describe_trial, write_results
from lorafit.search.space import Space, read_space
from lorafit.search.study import open_study, require_optuna
from lorafit.search.trials import Trials

if TYPE_CHECKING:
    import optuna

__all__ = ["Search", "search"]

_MOST_FAILURES = 3
"""So many failures in a row, and none before that ended well, end a search."""


@dataclass(frozen=True)
class Search:
    """A finished search.

    Attributes:
        path: Its folder.
        record: The results.
    """

    path: Path
    record: SearchRecord


def search(
    config: Config,
    trials: int,
    *,
    budget: str | None = None,
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> Search:
    """Train with settings drawn from a space and keep those with the lowest validation loss.

    The first trial takes the settings as they are; Optuna's TPE sampler (Bergstra et al. 2011) draws the others.
    Started again with the same settings and folder, it goes on; started several times at once, the processes share the
    trials. Test rows are not looked at: measure the winner with `train`.

    Args:
        config: The settings that all trials share, with the space in `search.space`.
        trials: How many trials there will be, those of earlier starts and of other processes among them.
        budget: Time this start may take, such as 30m; no trial begins that would probably end later. None for no end.
        output: The folder; None takes a free name below `runs/`.
        progress: Told what is going on; None for silence.

    Returns:
        The search.

    Raises:
        ConfigError: Fewer than one trial, a space that cannot be used, or a budget too small for one trial.
        RunError: The folder holds something else, its store cannot be used, or no trial ended well.
        TrainingInterruptedError: It was interrupted; it can be gone on with.
    """
    require_optuna()
    progress, began = progress or Silent(), time.perf_counter()
    seconds = _check(config, trials, budget)
    space = read_space(config)
    suggestion = suggest_name("search", config.data.source, config.model.name)
    root = Path(output).expanduser() if output else find_free_name(Path("runs") / suggestion)
    layout = SearchLayout(root.resolve())
    _check_folder(layout, config)
    material = load_material(config)
    identity = {
        "space": space.describe(),
        "rows": {name: material.splits.by_name[name].fingerprint() for name in ("train", "validation")},
        "base model": material.encoder.digest(),
    }
    _forecast(config, space, material, trials, seconds, progress)
    layout.root.mkdir(parents=True, exist_ok=True)
    write_atomic(layout.config, config.to_yaml())
    with open_study(layout, config.search, identity, space.encode(config)) as study:
        objective = Trials(config, space, layout, material, progress, trials)
        _run_trials(study, objective, None if seconds is None else began + seconds)
        record = write_results(study, objective)
    if not any(row.state == "running" for row in record.trials):
        shutil.rmtree(layout.prefix_cache, ignore_errors=True)
    if record.best is None:
        cause = next((row.error for row in reversed(record.trials) if row.error), "the budget ended before the first")
        raise RunError(f"No trial ended well. The last one: {cause}")
    return Search(layout.root, record)


def _check(config: Config, trials: int, budget: str | None) -> float | None:
    """Return the budget in seconds."""
    if trials < 1:
        raise ConfigError(f"--trials takes a number of 1 or more, got {trials}.")
    if config.training.budget is not None:
        raise ConfigError("training.budget is for one run; give the time of the whole search with --budget.")
    seconds = None if budget is None else parse_duration(budget)
    if budget is not None and seconds is None:
        raise ConfigError(f"--budget takes a time such as 90s, 10m, 1h30m or 1h, got {budget!r}.")
    return seconds


def _check_folder(layout: SearchLayout, config: Config) -> None:
    """Let a folder pass that is free or holds this search."""
    if not layout.root.exists() or (layout.root.is_dir() and not any(layout.root.iterdir())):
        return
    free = shlex.quote(str(find_free_name(layout.root)))
    if not layout.config.is_file() or (layout.root / "run.json").exists():
        raise RunError(f"{layout.root} holds something else than a search. Choose another name: --output {free}")
    if layout.config.read_text(encoding="utf-8") != config.to_yaml():
        raise RunError(
            f"{layout.root} holds a search with another space or other settings (config.yaml there). Choose another "
            f"name: --output {free}"
        )


def _forecast(
    config: Config, space: Space, material: Material, trials: int, budget: float | None, progress: Progress
) -> None:
    """Say how long a trial with the settings as they are takes, and refuse a budget that has no room for it."""
    from lorafit.planning.measuring import measure_ground

    progress.start("forecasting time")
    plain = space.build_config(config, {})
    one = forecast_run(plain, measure_ground(prepare(plain, Silent(), material=material)))
    seconds = one.fit + one.stages.get("frozen layers", 0.0)
    progress.finish()
    progress.say(
        f"a trial with the settings as they are takes about {format_duration(seconds)}; {trials} trials about "
        f"{format_duration(trials * seconds)}, less where they are pruned"
    )
    if budget is not None and budget < seconds:
        raise ConfigError(
            f"--budget: one trial takes about {format_duration(seconds)}. Give more time, or make trials cheaper, for "
            "example with --set data.max_rows=2000 or --set method.layers=top3."
        )


def _run_trials(study: "optuna.Study", objective: Trials, deadline: float | None) -> None:
    control = _Control(study, objective.total, deadline, objective.progress)
    try:
        if not control.is_done():
            study.optimize(objective, catch=(Exception,), callbacks=[control, _keep_record(objective)])
    except KeyboardInterrupt as error:
        raise TrainingInterruptedError(
            "Interrupted; what was done is kept. Go on with the same command and --output "
            f"{shlex.quote(str(objective.layout.root))}",
            run=objective.layout.root,
        ) from error


class _Control:
    """Ends the study when all trials are done, when time is up, or when nothing works."""

    def __init__(self, study: "optuna.Study", total: int, deadline: float | None, progress: Progress) -> None:
        self._study = study
        self._total = total
        self._deadline = deadline
        self._progress = progress

    def __call__(self, study: "optuna.Study", trial: "optuna.trial.FrozenTrial") -> None:
        """Look at the study after a trial."""
        if trial.values and trial.state.name == "COMPLETE":
            best = study.best_trial
            self._progress.say(
                f"trial {trial.number + 1}: validation loss {trial.values[0]:.4f}; the lowest is {best.values[0]:.4f}, "
                f"of trial {best.number + 1}"
            )
        if self.is_done():
            study.stop()

    def is_done(self) -> bool:
        """Return whether no further trial is to begin."""
        rows = [describe_trial(trial, {}) for trial in self._study.get_trials(deepcopy=False)]
        counted = [row for row in rows if row is not None]
        ended = [row for row in counted if row.state != "running"]
        if len(counted) >= self._total:
            return True
        if len(ended) >= _MOST_FAILURES and all(row.state == "failed" for row in ended):
            return True
        times = [row.seconds for row in ended if row.seconds is not None]
        expected = sum(times) / len(times) if times else 0.0
        if self._deadline is not None and time.perf_counter() + expected > self._deadline:
            self._progress.say(f"the budget has no room for another trial of about {format_duration(expected)}")
            return True
        return False


def _keep_record(trials: Trials) -> "Callable[[optuna.Study, optuna.trial.FrozenTrial], None]":
    """Return a callback that keeps the results on disk up to date."""

    def keep(study: "optuna.Study", _: "optuna.trial.FrozenTrial") -> None:
        write_results(study, trials)

    return keep
