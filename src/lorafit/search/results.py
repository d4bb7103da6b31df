"""What a search found, written to its folder."""

import datetime
import math
from typing import TYPE_CHECKING, Any

from lorafit import hardware
from lorafit.atomic import write_atomic
from lorafit.preparation import collect_versions
from lorafit.search.page import render_page
from lorafit.search.records import SearchRecord, TrialRow
from lorafit.search.trials import ACCURACY, ERROR, Trials

if TYPE_CHECKING:
    import optuna

__all__ = ["describe_trial", "write_results"]

_FEWEST_FOR_IMPORTANCES = 5


def write_results(study: "optuna.Study", trials: Trials) -> SearchRecord:
    """Write record and page, and the settings of the best trial.

    Args:
        study: The study.
        trials: What the trials share.

    Returns:
        The record.
    """
    layout, material = trials.layout, trials.material
    rows = [describe_trial(trial, trials.space.decode(trial.params)) for trial in study.get_trials(deepcopy=False)]
    counted = [row for row in rows if row is not None]
    complete = [row for row in counted if row.state == "complete" and row.loss is not None]
    best = min(complete, key=lambda row: row.loss or 0.0, default=None)
    parts = {name: material.splits.by_name[name] for name in ("train", "validation")}
    record = SearchRecord(
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions=collect_versions(),
        cpu=hardware.cpu_name(),
        source=material.splits.source,
        base_model=material.encoder.name,
        rows={name: len(split) for name, split in parts.items()},
        fingerprints={name: split.fingerprint() for name, split in parts.items()},
        space=trials.space.describe(),
        best=None if best is None else best.number,
        importances=_measure_importances(study, len(complete)),
        trials=counted,
    )
    record.write(layout.record)
    write_atomic(layout.page, render_page(record))
    if best is not None:
        write_atomic(layout.best, layout.trial(best.number).config.read_text(encoding="utf-8"))
    return record


def describe_trial(trial: "optuna.trial.FrozenTrial", values: dict[str, Any]) -> TrialRow | None:
    """Return a trial as a row.

    Args:
        trial: The trial.
        values: What was tried, by setting.

    Returns:
        The row; None for a trial that waits, or was interrupted and begun again.
    """
    state, error = trial.state.name, trial.user_attrs.get(ERROR)
    if state == "WAITING" or (state == "FAIL" and error is None):
        return None
    seen = [loss for loss in trial.intermediate_values.values() if not math.isnan(loss)]
    loss = trial.values[0] if state == "COMPLETE" and trial.values else min(seen, default=None)
    return TrialRow(
        number=trial.number,
        state={"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}[state],
        values=values,
        loss=loss,
        accuracy=trial.user_attrs.get(ACCURACY),
        seconds=None if trial.duration is None else trial.duration.total_seconds(),
        error=error,
    )


def _measure_importances(study: "optuna.Study", complete: int) -> dict[str, float]:
    from optuna.importance import get_param_importances

    if complete < _FEWEST_FOR_IMPORTANCES:
        return {}
    try:
        return dict(get_param_importances(study))
    except (RuntimeError, ValueError):  # all trials alike, or no setting that all of them have
        return {}
