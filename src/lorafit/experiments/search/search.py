"""Search for settings on validation rows; test rows are neither used for selection nor measured."""

import datetime
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from lorafit.config import Config, load_config
from lorafit.errors import ConfigError, RunError
from lorafit.experiments.keeping import keeping, write_command
from lorafit.experiments.search.page import render_page
from lorafit.experiments.search.records import SearchLayout, SearchRecord, TrialRow
from lorafit.experiments.search.space import read_space
from lorafit.experiments.search.study import SURPLUS, list_trials, measure_importances, open_study, require_optuna
from lorafit.experiments.search.trials import TrialFailedError, Trials
from lorafit.runs.folder import check_same_settings, find_free_name, suggest_name
from lorafit.system import hardware
from lorafit.system.atomic import write_atomic
from lorafit.system.digests import digest_files
from lorafit.system.notebook import progress_here
from lorafit.system.paths import expand_home
from lorafit.system.progress import Progress, Silent
from lorafit.system.text import format_duration, parse_duration
from lorafit.training.planning.forecast import forecast_run, measure_workload
from lorafit.training.planning.schedule import complete_schedule
from lorafit.training.prepare import collect_versions, load_material, prepare

if TYPE_CHECKING:
    import optuna


_MOST_DISTINCT_FAILURES, _MOST_FAILURES = 3, 10
"""So many failures since the start, with different values or in all, end a search without a complete trial."""

_ANY_ROWS = 1
"""Number of rows by which the schedule is completed to check a space; what is allowed does not depend on it."""


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
    Called again with the same settings and folder, it resumes; in several processes at once, these share the trials.
    Test rows are never used for selection: measure the winner with `train`.

    Args:
        config: The settings that all trials share, with the space in `search.space`.
        trials: How many trials there will be, earlier ones and those of other processes included.
        budget: Time the call may take, such as 30m; no trial begins that would probably end later. None for no limit.
        output: The folder; None takes a free name below `runs/`.
        progress: Receives the progress; None for a bar in a notebook, and silence elsewhere.

    Returns:
        The search.

    Raises:
        ConfigError: Fewer than one trial, a space that cannot be used, or a budget too small for one trial.
        RunError: The folder holds something else, its store cannot be used, or no trial is complete.
        TrainingInterruptedError: It was interrupted; the message gives the command that resumes it.
        EnvironmentUnfitError: The machine lacks something; the message says how to go on.
    """
    require_optuna()
    progress, began = progress or progress_here(), time.perf_counter()
    seconds = _check(config, trials, budget)
    config = config.model_copy(update={"data": config.data.holding_out()})
    suggestion = suggest_name("search", config.data.source, config.model.name)
    root = expand_home(output) if output else find_free_name(Path("runs") / suggestion)
    layout = SearchLayout(root.resolve())
    check_same_settings(layout.config, config.to_yaml(), kind="search")
    with keeping(layout.config, write_command("search", layout.config, trials=trials, budget=budget)):
        material = load_material(config)
        settled = complete_schedule(config, len(material.splits.train))
        space = read_space(settled)
        objective = Trials(settled, space, layout, material, progress)
        expected = None if layout.study.is_file() else _forecast(objective, seconds)
        layout.root.mkdir(parents=True, exist_ok=True)
        if not layout.config.is_file():
            write_atomic(layout.config, config.to_yaml())
        with open_study(layout, config.search, _identify(objective), space.encode(settled)) as study:
            control = _Control(study, objective, trials)
            if not control.is_done():
                deadline = None if seconds is None else began + seconds
                control.limit(deadline, _forecast(objective, seconds) if expected is None else expected)
                _run_trials(study, objective, control)
            record = write_results(study, objective)
        _check_ending(record, layout, progress)
    return Search(layout.root, record)


def _identify(objective: Trials) -> dict[str, Any]:
    """Return what must be the same for all trials of a study."""
    material = objective.material
    return {
        "space": objective.space.describe(),
        "settings": objective.config.model_dump(mode="json", exclude={"search"}),
        "rows": {name: material.splits.by_name[name].fingerprint() for name in ("train", "validation")},
        "base model": material.encoder.digest(),
    }


def _check(config: Config, trials: int, budget: str | None) -> float | None:
    """Return the budget in seconds."""
    if trials < 1:
        raise ConfigError(f"--trials takes a number of 1 or more, got {trials}.")
    if config.training.budget is not None:
        raise ConfigError("training.budget is for one run; give the time of the whole search with --budget.")
    seconds = None if budget is None else parse_duration(budget)
    if budget is not None and seconds is None:
        raise ConfigError(f"--budget takes a time such as 90s, 10m, 1h30m or 1h, got {budget!r}.")
    read_space(complete_schedule(config, _ANY_ROWS))  # before any data are read
    return seconds


def _forecast(objective: Trials, budget: float | None) -> float:
    """Say how long a trial with the settings as they are takes, and refuse a budget that has no room for it."""
    progress = objective.progress
    progress.start("forecasting time")
    plain = objective.space.build_config(objective.config, {})
    one = forecast_run(plain, measure_workload(prepare(plain, Silent(), material=objective.material)))
    seconds = one["training"] + one.get("frozen layers", 0.0)
    progress.finish()
    progress.say(f"a trial with the settings as they are takes about {format_duration(seconds)}, less if it is pruned")
    if budget is not None and budget < seconds:
        raise ConfigError(
            f"--budget: one trial takes about {format_duration(seconds)}. Give more time, or make trials cheaper, for "
            "example with --set data.max_rows=2000 or --set method.layers=top3."
        )
    return seconds


def _run_trials(study: "optuna.Study", objective: Trials, control: "_Control") -> None:
    def keep(study: "optuna.Study", _: "optuna.trial.FrozenTrial") -> None:
        write_results(study, objective)

    try:
        study.optimize(control.train, catch=(TrialFailedError,), callbacks=[control, keep])
    except ValueError as error:  # a trial's own are caught: this one is the study's, which does not take the result
        raise RunError(
            f"{objective.layout.study}: another process took up the trial of this one, which had given no sign of life "
            "for two minutes. Give the same command again."
        ) from error


def write_results(study: "optuna.Study", objective: Trials) -> SearchRecord:
    """Write the record, the page, and the settings of the best trial.

    The study is read under the lock under which the results are written: of several processes, the last one to write
    has seen the trials of all.

    Args:
        study: The study.
        objective: What the trials share.

    Returns:
        The record.
    """
    from filelock import FileLock

    layout, splits = objective.layout, objective.material.splits
    parts = {name: splits.by_name[name] for name in ("train", "validation")}
    with FileLock(layout.lock):
        trials = list_trials(study, objective.space)
        if layout.record.is_file():
            SearchRecord.read(layout.record).check_study(layout, trials)
        trained = [row.number for row in trials if row.state == "complete" and row.same_as is None]
        losses = {row.number: row.loss for row in trials if row.state == "complete" and row.loss is not None}
        best = min(losses, key=lambda number: losses[number], default=None)
        record = SearchRecord(
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            versions={**collect_versions(), "optuna": version("optuna")},
            cpu=hardware.cpu_name(),
            task=splits.task.name,
            source=splits.source,
            base_model=objective.material.encoder.name,
            rows={name: len(split) for name, split in parts.items()},
            fingerprints={name: split.fingerprint() for name, split in parts.items()},
            space=objective.space.describe(),
            best=best,
            importances=measure_importances(study, trials),
            trials=trials,
            files=digest_files(layout.root, [layout.trial(number).config for number in trained]),
        )
        record.write(layout.record)
        write_atomic(layout.page, render_page(record))
        if best is not None:
            winner = load_config(layout.trial(best).config)
            winner.training.threads = None
            write_atomic(layout.best, winner.to_yaml())
    return record


def _check_ending(record: SearchRecord, layout: SearchLayout, progress: Progress) -> None:
    """Remove what is no longer needed; raise the reason if no trial is complete."""
    if running := sum(row.state == "running" for row in record.trials):
        progress.say(
            f"{running} trial(s) are under way in other processes; one that was killed leaves its trial to the same "
            "command, given again after two minutes"
        )
    else:
        shutil.rmtree(layout.prefix_cache, ignore_errors=True)
    if record.best is not None:
        return
    if running:
        raise RunError("No trial has ended yet; all are under way in other processes. Look again when they are done.")
    errors = [row.error for row in record.trials if row.error is not None]
    raise RunError(f"No trial is complete. The last one: {errors[-1] if errors else 'it was pruned'}")


def expect_seconds(trials: Sequence[TrialRow], forecast: float) -> float:
    """Return how long a trial takes: the mean of those that were trained, or the forecast where there are none."""
    trained = [row for row in trials if row.state in {"complete", "pruned"} and row.same_as is None]
    times = [row.seconds for row in trained if row.seconds is not None]
    return fmean(times) if times else forecast


class _Control:
    """Ends the study when all trials are done, when time is up, or when nothing works."""

    def __init__(self, study: "optuna.Study", objective: Trials, total: int) -> None:
        self._study = study
        self._objective = objective
        self._total = total
        self._deadline: float | None = None
        self._expected = 0.0
        self._failures: list[dict[str, Any]] = []

    def limit(self, deadline: float | None, expected: float) -> None:
        """Set the time by which trials are to end, on `perf_counter`, and how long one is expected to take."""
        self._deadline, self._expected = deadline, expected

    def train(self, trial: "optuna.Trial") -> float:
        """Train a trial, unless other processes have begun as many as there are to be in the meantime."""
        import optuna

        begun = sorted(row.number for row in list_trials(trial.study, self._objective.space))
        if trial.number not in begun[: self._total]:
            trial.set_user_attr(SURPLUS, value=True)
            trial.study.stop()
            raise optuna.TrialPruned
        return self._objective(trial)

    def __call__(self, study: "optuna.Study", trial: "optuna.trial.FrozenTrial") -> None:
        """Look at the study after a trial."""
        if trial.state.name == "FAIL":
            self._failures.append(trial.params)
        if trial.state.name == "COMPLETE" and trial.values:
            best = study.best_trial
            self._objective.progress.say(
                f"trial {trial.number + 1}: validation loss {trial.values[0]:.4f}; the lowest is {best.values[0]:.4f}, "
                f"of trial {best.number + 1}"
            )
        if self.is_done():
            study.stop()

    def is_done(self) -> bool:
        """Return whether no further trial is to begin."""
        rows = list_trials(self._study, self._objective.space)
        if len(rows) >= self._total:
            return True
        distinct = [params for place, params in enumerate(self._failures) if params not in self._failures[:place]]
        hopeless = len(distinct) >= _MOST_DISTINCT_FAILURES or len(self._failures) >= _MOST_FAILURES
        if hopeless and not any(row.state == "complete" for row in rows):
            return True
        return self._has_no_room(rows)

    def _has_no_room(self, rows: Sequence[TrialRow]) -> bool:
        expected = expect_seconds(rows, self._expected)
        if self._deadline is None or time.perf_counter() + expected <= self._deadline:
            return False
        self._objective.progress.say(
            f"the budget has no room for another trial, which would take about {format_duration(expected)}"
        )
        return True
