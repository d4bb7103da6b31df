"""What a search found, written to its folder."""

import datetime
import math
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from lorafit.config import load_config
from lorafit.experiments.search.page import render_page
from lorafit.experiments.search.records import SearchRecord, TrialRow
from lorafit.experiments.search.space import Space
from lorafit.experiments.search.trials import ERROR, INTERRUPTED, SAME_AS, SCORE, Trials
from lorafit.system import hardware
from lorafit.system.atomic import write_atomic
from lorafit.training.prepare import collect_versions

if TYPE_CHECKING:
    import optuna

__all__ = ["list_trials", "write_results"]

_FEWEST_FOR_IMPORTANCES = 20
_GOOD = 0.25
"""Share of the trials that count as good for the importances: five of twenty."""


def write_results(study: "optuna.Study", trials: Trials) -> SearchRecord:
    """Write the record, the page, and the settings of the best trial.

    The study is read under the lock under which the results are written: of several processes, the last to write has
    seen the trials of all.

    Args:
        study: The study.
        trials: What the trials share.

    Returns:
        The record.
    """
    from filelock import FileLock

    with FileLock(trials.layout.lock):
        return _write_results(study, trials)


def _write_results(study: "optuna.Study", trials: Trials) -> SearchRecord:
    layout, material = trials.layout, trials.material
    counted = list_trials(study, trials.space)
    complete = [row for row in counted if row.state == "complete" and row.loss is not None]
    best = min(complete, key=lambda row: row.loss or 0.0, default=None)
    parts = {name: material.splits.by_name[name] for name in ("train", "validation")}
    record = SearchRecord(
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions={**collect_versions(), "optuna": version("optuna")},
        cpu=hardware.cpu_name(),
        task=material.splits.task.name,
        source=material.splits.source,
        base_model=material.encoder.name,
        rows={name: len(split) for name, split in parts.items()},
        fingerprints={name: split.fingerprint() for name, split in parts.items()},
        space=trials.space.describe(),
        best=None if best is None else best.number,
        importances=_measure_importances(study, complete),
        trials=counted,
    )
    record.write(layout.record)
    write_atomic(layout.page, render_page(record))
    if best is not None:
        winner = load_config(layout.trial(best.number).config)
        winner.training.threads = None
        write_atomic(layout.best, winner.to_yaml())
    return record


def list_trials(study: "optuna.Study", space: Space) -> list[TrialRow]:
    """List what was tried or is being tried.

    Args:
        study: The study.
        space: What is varied.

    Returns:
        The trials in order of their numbers, without those that wait, and those that were interrupted and begun again.
    """
    from optuna.storages import RetryHeartbeatStaleTrialCallback

    trials = study.get_trials(deepcopy=False)
    begun_again = {number for one in trials for number in RetryHeartbeatStaleTrialCallback.retry_history(one)}
    return [
        _describe(trial, space.decode(trial.params))
        for trial in trials
        if trial.state.name != "WAITING" and trial.number not in begun_again and INTERRUPTED not in trial.user_attrs
    ]


def _describe(trial: "optuna.trial.FrozenTrial", values: dict[str, Any]) -> TrialRow:
    state = trial.state.name
    seen = [loss for loss in trial.intermediate_values.values() if math.isfinite(loss)]
    error = trial.user_attrs.get(ERROR, "its process was killed" if state == "FAIL" else None)
    return TrialRow(
        number=trial.number,
        state={"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}[state],
        values=values,
        loss=trial.values[0] if state == "COMPLETE" and trial.values else min(seen, default=None),
        score=trial.user_attrs.get(SCORE),
        seconds=None if trial.duration is None else trial.duration.total_seconds(),
        error=error,
        same_as=trial.user_attrs.get(SAME_AS),
    )


def _measure_importances(study: "optuna.Study", complete: Sequence[TrialRow]) -> dict[str, float]:
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    trained = [row.loss for row in complete if row.same_as is None]
    if len(trained) < _FEWEST_FOR_IMPORTANCES or len(set(trained)) == 1:
        return {}
    return dict(get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=_GOOD)))
