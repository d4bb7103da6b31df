"""The study of a search: Optuna's store in an SQLite file, which several processes may use at once."""

import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorafit.config import SearchConfig
from lorafit.errors import RunError
from lorafit.experiments.search.records import SearchLayout, TrialRow
from lorafit.experiments.search.space import Plain, Space
from lorafit.system.atomic import create_file
from lorafit.system.extras import require
from lorafit.system.faults import find_fault

if TYPE_CHECKING:
    import optuna
    from sqlalchemy.engine import Connection, Engine


SCORE, ERROR, SAME_AS, INTERRUPTED, SURPLUS = "score", "error", "same_as", "interrupted", "surplus"
"""Names under which the study keeps of a trial its primary metric on the validation rows, why it failed, the trial with
the same settings, whether it was interrupted, and whether it was one more than there were to be."""

_NAME = "lorafit"
_IDENTITY = "identity"
_WAIT = 60
"""Seconds to wait while another process writes."""

_HEARTBEAT = 60
"""Seconds between the heartbeats of a process; without one for twice as long, its trial is begun again by another."""

_WARM_UP = 4
"""Complete trials that there must be, with a loss at the same share of their steps, before any is pruned."""

_FEWEST_FOR_IMPORTANCES = 20
_GOOD = 0.25
"""Share of the trials that count as good for the importances: five of twenty."""


def require_optuna() -> None:
    """Refuse to begin without Optuna.

    Raises:
        MissingExtraError: It is not installed; the message gives the pip line.
    """
    require("optuna", extra="search", purpose="lorafit search")


@contextmanager
def open_study(
    layout: SearchLayout, config: SearchConfig, identity: Mapping[str, Any], first: Mapping[str, Plain]
) -> Iterator["optuna.Study"]:
    """Open or create the study of a folder; trials of killed processes are put back into the queue.

    Args:
        layout: The folder, which exists.
        config: Whether to prune.
        identity: What must be the same in every process: space, settings, rows, base model.
        first: Values of the first trial; those that are missing are drawn.

    Yields:
        The study.

    Raises:
        RunError: The file is locked, damaged, or holds a search of something else.
    """
    import optuna
    from optuna.exceptions import ExperimentalWarning, StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)  # lorafit reports what happens
    try:
        with warnings.catch_warnings(), ExitStack() as stack:
            warnings.simplefilter("ignore", ExperimentalWarning)  # heartbeats, and the sampler for several processes
            if not layout.study.exists():
                _create(layout, identity, first)
            study = _load(layout, config, stack)
            _check_identity(study, layout, identity)
            optuna.storages.fail_stale_trials(study)
            yield study
    except (StorageInternalError, SQLAlchemyError) as error:
        if find_fault(error) is not None:
            raise  # a full disk: no fault of the file
        cause = str(error.__cause__ or error).splitlines()[0]
        raise RunError(
            f"{layout.study} cannot be used ({cause}). If another program holds it open, close that and give the same "
            "command again; if the file is damaged, choose another --output."
        ) from error
    finally:
        optuna.logging.set_verbosity(verbosity)


def seed_sampler(study: "optuna.Study", seed: int) -> None:
    """Seed the sampler for the next trial: with a seed of its own, so that processes do not draw the same values.

    Args:
        study: The study.
        seed: The search's seed and the trial's number, added.
    """
    import optuna

    study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)


def list_trials(study: "optuna.Study", space: Space) -> list[TrialRow]:
    """List the trials of a study.

    Args:
        study: The study.
        space: What is varied.

    Returns:
        Those that have begun, in order of their numbers, without those that were interrupted and begun again, and those
        that were more than there were to be.
    """
    from optuna.storages import RetryHeartbeatStaleTrialCallback

    trials = study.get_trials(deepcopy=False)
    begun_again = {number for one in trials for number in RetryHeartbeatStaleTrialCallback.retry_history(one)}
    return [
        _describe(trial, space.decode(trial.params))
        for trial in trials
        if trial.state.name != "WAITING"
        and trial.number not in begun_again
        and not {INTERRUPTED, SURPLUS} & trial.user_attrs.keys()
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
        seconds=None if trial.duration is None else max(trial.duration.total_seconds(), 0.0),  # clocks are put back
        error=error,
        same_as=trial.user_attrs.get(SAME_AS),
    )


def measure_importances(study: "optuna.Study", trials: Sequence[TrialRow]) -> dict[str, float]:
    """Measure how much each setting contributes to a trial being among the best quarter (PED-ANOVA).

    Args:
        study: The study.
        trials: Its trials, from `list_trials`.

    Returns:
        Shares by setting, largest first; nothing with fewer than 20 trials that were trained to their end, or where all
        of these have the same loss.
    """
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    trained = [row.loss for row in trials if row.state == "complete" and row.same_as is None]
    if len(trained) < _FEWEST_FOR_IMPORTANCES or len(set(trained)) == 1:
        return {}
    return dict(get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=_GOOD)))


def _create(layout: SearchLayout, identity: Mapping[str, Any], first: Mapping[str, Plain]) -> None:
    """Create the store under a temporary name, and rename it: of processes that start together, the first one wins."""
    import optuna

    with create_file(layout.study) as path, ExitStack() as stack:
        study = optuna.create_study(storage=_open_storage(path, stack), study_name=_NAME)
        if first:
            study.enqueue_trial(dict(first))
        study.set_user_attr(_IDENTITY, json.dumps(identity, sort_keys=True))


def _load(layout: SearchLayout, config: SearchConfig, stack: ExitStack) -> "optuna.Study":
    import optuna

    pruner = optuna.pruners.MedianPruner(n_startup_trials=_WARM_UP, n_min_trials=_WARM_UP)
    try:
        return optuna.load_study(
            storage=_open_storage(layout.study, stack),
            study_name=_NAME,
            pruner=pruner if config.pruning else optuna.pruners.NopPruner(),
        )
    except RuntimeError as error:
        raise RunError(
            f"{layout.study} was written by another version of Optuna: {error} Choose another --output."
        ) from error
    except KeyError as error:
        raise RunError(f"{layout.study} holds no search. Choose another --output.") from error


def _open_storage(path: Path, stack: ExitStack) -> "optuna.storages.RDBStorage":
    from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
    from sqlalchemy.engine import URL

    storage = RDBStorage(
        URL.create("sqlite", database=str(path)).render_as_string(),
        engine_kwargs={"connect_args": {"timeout": _WAIT}},
        heartbeat_interval=_HEARTBEAT,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=3),
    )
    _lock_first(storage.engine)
    stack.callback(storage.engine.dispose)
    stack.callback(storage.remove_session)
    return storage


def _lock_first(engine: "Engine") -> None:
    """Let transactions begin with the lock; Python's driver takes it at the first write, after the reads.

    Otherwise two processes that read at the same time that a trial is waiting would both take it. Source: SQLAlchemy's
    documentation of SQLite, "Serializable isolation / Savepoints / Transactional DDL".
    """
    from sqlalchemy import event

    @event.listens_for(engine, "connect")
    def leave_transactions_to_us(connection: Any, _: object) -> None:  # noqa: ANN401 - a driver's connection
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def lock(connection: "Connection") -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # connections that were opened before


def _check_identity(study: "optuna.Study", layout: SearchLayout, identity: Mapping[str, Any]) -> None:
    ours, known = json.loads(json.dumps(identity)), json.loads(study.user_attrs.get(_IDENTITY, "{}"))
    if known != ours:
        other = [name for name in ours if known.get(name) != ours[name]]
        raise RunError(
            f"{layout.study} holds a search with other {' and '.join(other) or 'parts'}. Choose another --output."
        )
