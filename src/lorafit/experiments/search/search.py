"""Search for settings on validation rows; test rows are neither used for selection nor measured."""

import datetime
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from lorafit.config import JOURNAL, SQLITE, Config, load_config
from lorafit.errors import ConfigError, LorafitError, RunError
from lorafit.experiments.engine import RETRIES, Engine, Lost, find_obstacle, identify_material
from lorafit.experiments.keeping import keeping, write_command
from lorafit.experiments.search.page import render_page
from lorafit.experiments.search.records import SearchLayout, SearchRecord, TrialRow
from lorafit.experiments.search.space import read_space
from lorafit.experiments.search.study import (
    SURPLUS,
    list_trials,
    measure_importances,
    open_study,
    put_back,
    require_optuna,
)
from lorafit.experiments.search.trials import TrialFailedError, Trials
from lorafit.runs.folder import check_same_settings, find_free_name, suggest_name
from lorafit.system import hardware
from lorafit.system.atomic import write_atomic
from lorafit.system.digests import digest_files
from lorafit.system.locks import hold
from lorafit.system.notebook import progress_here
from lorafit.system.paths import expand_home
from lorafit.system.progress import Progress, Silent
from lorafit.system.text import format_duration, parse_duration
from lorafit.system.variables import defaults
from lorafit.training.planning.forecast import forecast_run, measure_workload
from lorafit.training.planning.schedule import complete_schedule
from lorafit.training.prepare import Material, collect_versions, load_material, prepare

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
    engine: Engine | None = None,
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
        engine: What trains the trials, such as `lorafit.cluster.engine.open_engine`; None for this process.
        progress: Receives the progress; None for a bar in a notebook, and silence elsewhere.

    Returns:
        The search.

    Raises:
        ConfigError: Fewer than one trial, a space or storage that cannot be used, or a budget too small for one trial.
        RunError: The folder holds something else, its store cannot be used, or no trial is complete.
        TrainingInterruptedError: It was interrupted; the message gives the command that resumes it.
        EnvironmentUnfitError: The machine lacks something; the message says how to go on.
    """
    require_optuna(config.search)
    progress, began = progress or progress_here(), time.perf_counter()
    seconds = _check(config, trials, budget)
    _check_storage(config, engine)
    config = config.model_copy(update={"data": config.data.holding_out()})
    suggestion = suggest_name("search", config.data.source, config.model.name)
    root = expand_home(output) if output else find_free_name(Path("runs") / suggestion)
    layout = SearchLayout(root.resolve())
    check_same_settings(layout.config, config.to_yaml(), kind="search")
    options = {} if engine is None else engine.options
    command = write_command("search", layout.config, trials=trials, budget=budget, **options)
    with (
        nullcontext() if engine is None else hold(layout.root, kind="search"),
        keeping(layout.config, command),
    ):
        objective = _settle(config, layout, load_material(config), progress)
        expected = None if layout.config.is_file() else _forecast(objective, seconds)
        with ExitStack() as stack:
            study = _begin(objective, config, engine, stack)
            control = _Control(study, objective, trials)
            if engine is not None:
                _put_back(study, objective, "the search was stopped")
            _read_trials(study, objective)
            if not control.is_done():
                expected = _forecast(objective, seconds) if expected is None else expected
                control.limit(None if seconds is None else began + seconds, expected)
                if engine is None:
                    _run_trials(study, objective, control, writes=True)
                else:
                    ends = None if seconds is None else time.time() + began + seconds - time.perf_counter()
                    _distribute(engine, study, objective, control, _Task(config, layout, trials, expected, ends))
            record = write_results(study, objective)
        _check_ending(record, layout, progress)
    return Search(layout.root, record)


def _settle(
    config: Config, layout: SearchLayout, material: Material, progress: Progress, worker: str | None = None
) -> Trials:
    settled = complete_schedule(config, len(material.splits.train))
    return Trials(settled, read_space(settled), layout, material, progress, worker)


def _begin(objective: Trials, config: Config, engine: Engine | None, stack: ExitStack) -> "optuna.Study":
    """Open the study; of processes that begin a search together, the first writes its settings, and the others wait."""
    from filelock import FileLock

    layout = objective.layout
    if not layout.config.is_file():
        with FileLock(layout.lock, is_singleton=True):
            if not layout.config.is_file():  # another process was first
                return _begin_new(objective, config, engine, stack)
    return _check_and_open(objective, config, engine, stack)


def _begin_new(objective: Trials, config: Config, engine: Engine | None, stack: ExitStack) -> "optuna.Study":
    """Write the settings and open the study; a search that cannot begin leaves nothing."""
    layout = objective.layout
    try:
        write_atomic(layout.config, config.to_yaml())
        return _check_and_open(objective, config, engine, stack)
    except LorafitError:
        for path in (layout.study_name, layout.config, layout.lock):  # who waits for the lock notices that it is gone
            path.unlink(missing_ok=True)
        with suppress(OSError):
            layout.root.rmdir()
        raise


def _check_and_open(objective: Trials, config: Config, engine: Engine | None, stack: ExitStack) -> "optuna.Study":
    if engine is not None:
        expected = identify_material(objective.material)
        engine.check(partial(find_obstacle, config, objective.layout.config, expected))
    return stack.enter_context(_open(objective))


def _open(objective: Trials) -> AbstractContextManager["optuna.Study"]:
    config = objective.config
    return open_study(objective.layout, config.search, _identify(objective), objective.space.encode(config))


@dataclass(frozen=True)
class _Task:
    """What every worker of an engine is told of a search.

    Attributes:
        config: The settings.
        layout: The folder.
        trials: How many there will be in all.
        expected: Seconds that a trial is expected to take.
        ends: By when trials are to end, as `time.time` counts; None for no limit.
        variables: Those of libpq, with a password perhaps.
    """

    config: Config
    layout: SearchLayout
    trials: int
    expected: float
    ends: float | None
    variables: Mapping[str, str] = field(
        default_factory=lambda: {name: value for name, value in os.environ.items() if name.startswith("PG")}, repr=False
    )


def _take_trials(task: _Task, worker: str, progress: Progress) -> None:
    """Train trials as a worker of an engine until no further one is to begin."""
    with defaults(task.variables):
        objective = _settle(task.config, task.layout, load_material(task.config), progress, worker)
        with _open(objective) as study:
            control = _Control(study, objective, task.trials)
            control.limit(None if task.ends is None else time.perf_counter() + task.ends - time.time(), task.expected)
            if not control.is_done():
                _run_trials(study, objective, control, writes=False)


def _distribute(engine: Engine, study: "optuna.Study", objective: Trials, control: "_Control", task: _Task) -> None:
    """Let the workers of an engine train the trials."""
    idle = 0

    def go_on(worker: str, reason: str) -> bool:
        """Put the trial of a worker back; whether there is to be another worker in its place."""
        nonlocal idle
        objective.progress.say(f"{worker}: {reason}")
        idle += not put_back(study, reason, worker=worker)
        return idle <= RETRIES and not control.is_done()

    left = task.trials - len(list_trials(study, objective.space))
    names = [f"worker {number}" for number in range(1, min(engine.workers, left) + 1)]
    listener, lost = _Listener(study, objective, task.trials), list[str]()
    work, parts = partial(_take_trials, task), {name: name for name in names}
    with closing(engine.run(work, parts, progress=listener, again=go_on)) as results:
        for worker, ended in results:
            if isinstance(ended, Lost):
                objective.progress.say(f"{worker} has ended: {ended.reason}")
                lost.append(ended.reason)
    listener.finish()
    _put_back(study, objective, "its process was killed")
    if not control.is_done():
        reason = f"No worker is left. The last one: {lost[-1]}" if lost else "A worker left a trial behind."
        raise RunError(f"{reason} The same command goes on.")


def _put_back(study: "optuna.Study", objective: Trials, reason: str) -> None:
    """Put the trials of all workers back, when none is at work."""
    put_back(study, reason, untagged=objective.config.search.storage == JOURNAL)


class _Listener(Silent):
    """Passes on what workers say, writes the results, and counts the trials that have ended."""

    def __init__(self, study: "optuna.Study", objective: Trials, total: int) -> None:
        self._study, self._objective, self._total, self._ended = study, objective, total, 0
        objective.progress.start("searching", total=total, unit="trial")

    def say(self, line: str) -> None:
        """Pass on a line, and look whether a trial has ended."""
        self._objective.progress.say(line)
        ended = sum(row.state != "running" for row in list_trials(self._study, self._objective.space))
        if ended != self._ended:
            self._ended = ended
            write_results(self._study, self._objective)
            self._objective.progress.update(min(self._total, ended))

    def finish(self, note: str = "") -> None:
        """End the count."""
        self._objective.progress.finish(note)


def _identify(objective: Trials) -> dict[str, Any]:
    """Return what must be the same for all trials of a study."""
    material = identify_material(objective.material)
    return {
        "space": objective.space.describe(),
        "settings": objective.config.model_dump(mode="json", exclude={"search"}),
        **material,
        "rows": {name: material["rows"][name] for name in ("train", "validation")},
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


def _check_storage(config: Config, engine: Engine | None) -> None:
    storage = config.search.storage
    if engine is None and storage == JOURNAL:
        raise ConfigError(
            "--storage journal keeps no signs of life, so that the trial of a killed process would be lost: give "
            "--engine ray with it, which notices. The processes of one machine share SQLite: leave --storage out."
        )
    if engine is not None and storage == SQLITE and engine.nodes > 1:
        raise ConfigError(
            f"The cluster has {engine.nodes} nodes, and the locks of SQLite do not hold between machines. Give "
            "--storage journal, or --storage postgresql://USER@HOST/DATABASE."
        )


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


def _run_trials(study: "optuna.Study", objective: Trials, control: "_Control", *, writes: bool) -> None:
    def keep(study: "optuna.Study", _: "optuna.trial.FrozenTrial") -> None:
        write_results(study, objective)

    try:
        study.optimize(control.train, catch=(TrialFailedError,), callbacks=[control, keep] if writes else [control])
    except ValueError as error:  # a trial's own are caught: this one is the study's, which does not take the result
        raise RunError(
            f"{objective.layout.root}: another process took up the trial of this one, which had given no sign of life "
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
        trials = _read_trials(study, objective)
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


def _read_trials(study: "optuna.Study", objective: Trials) -> list[TrialRow]:
    """Return the trials; refuse those that contradict the last record."""
    trials, layout = list_trials(study, objective.space), objective.layout
    if layout.record.is_file():
        SearchRecord.read(layout.record).check_study(layout, trials)
    return trials


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
