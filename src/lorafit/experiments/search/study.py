"""The study of a search: Optuna's store, which several processes may use at once.

It is an SQLite file, for the processes of one machine, or for several machines a journal file or a PostgreSQL database.
SQLite and PostgreSQL keep signs of life of each trial's process; Optuna's journal keeps none, so that whoever started
the processes must say that one has ended (`put_back`).
"""

import json
import math
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorafit.config import JOURNAL, SQLITE, SearchConfig
from lorafit.errors import RunError
from lorafit.experiments.engine import RETRIES
from lorafit.experiments.search.records import SearchLayout, TrialRow
from lorafit.experiments.search.space import Plain, Space
from lorafit.system.atomic import create_file, write_atomic
from lorafit.system.extras import require
from lorafit.system.faults import find_fault

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage, RDBStorage
    from sqlalchemy.engine import URL, Connection, Engine


SCORE, ERROR, SAME_AS, INTERRUPTED, SURPLUS = "score", "error", "same_as", "interrupted", "surplus"
"""Names under which the study keeps of a trial its primary metric on the validation rows, why it failed, the trial with
the same settings, whether it was interrupted, and whether it was one more than there were to be."""

WORKER = "worker"
"""Name under which the study keeps which worker of an engine trains a trial."""

_NAME = "lorafit"
_IDENTITY = "identity"
_WAIT = 60
"""Seconds to wait while another process writes."""

_PATIENCE = 10
"""Seconds until a database that does not answer counts as none."""

_PAUSE = 2
"""Seconds until tables are there that another process makes in a database at the same time."""

_HEARTBEAT = 60
"""Seconds between the heartbeats of a process; without one for twice as long, its trial is begun again by another."""

_WARM_UP = 4
"""Complete trials that there must be, with a loss at the same share of their steps, before any is pruned."""

_FEWEST_FOR_IMPORTANCES = 20
_GOOD = 0.25
"""Share of the trials that count as good for the importances: five of twenty."""


def require_optuna(config: SearchConfig) -> None:
    """Refuse to begin without Optuna, or the driver of the database.

    Args:
        config: Where the study lies.

    Raises:
        MissingExtraError: It is not installed; the message gives the pip line.
    """
    require("optuna", extra="search", purpose="lorafit search")
    if config.has_database:
        require("psycopg", extra="cluster", purpose="--storage postgresql://…")


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
        RunError: The store is locked, damaged, not there, or holds a search of something else.
    """
    import optuna
    from optuna.exceptions import ExperimentalWarning, StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)  # lorafit reports what happens
    try:
        with warnings.catch_warnings(), ExitStack() as stack:
            warnings.simplefilter("ignore", ExperimentalWarning)  # heartbeats, and the sampler for several processes
            if config.storage == SQLITE:
                _create_file(layout, identity, first)
            study = _load(layout, config, identity, first, stack)
            _check_identity(study, layout, config, identity)
            optuna.storages.fail_stale_trials(study)
            yield study
    except (StorageInternalError, SQLAlchemyError) as error:
        if find_fault(error) is not None:
            raise  # a full disk: no fault of the file
        cause = str(error.__cause__ or error).splitlines()[0]
        remedy = _find_remedy(config, error.__cause__ if isinstance(error, StorageInternalError) else error)
        raise RunError(f"{_name(layout, config)} cannot be used ({cause}). {remedy}") from error
    finally:
        optuna.logging.set_verbosity(verbosity)


def put_back(study: "optuna.Study", reason: str, *, worker: str | None = None, untagged: bool = False) -> int:
    """Put the trials of workers that have ended back into the queue; one that was begun too often stays failed.

    Args:
        study: The study, from `open_study`.
        reason: Why they ended.
        worker: Name of the one that ended; None if none is at work.
        untagged: Whether trials that name no worker are put back, too.

    Returns:
        How many trials were under way.
    """
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.storages import RetryHeartbeatStaleTrialCallback
    from optuna.trial import TrialState

    begin_again, count = RetryHeartbeatStaleTrialCallback(max_retry=RETRIES), 0
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        its_worker = trial.user_attrs.get(WORKER)
        if its_worker != worker if worker else (its_worker is None and not untagged):
            continue
        if len(RetryHeartbeatStaleTrialCallback.retry_history(trial)) >= RETRIES:
            study.set_user_attr(f"{ERROR} {trial.number}", f"begun {RETRIES + 1} times; at last {reason}")
        try:
            ended = study.tell(trial.number, state=TrialState.FAIL)
        except (ValueError, UpdateFinishedTrialError):  # somebody else has put it back, or it has ended after all
            continue
        begin_again(study, ended)
        count += 1
    return count


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

    trials, reasons = study.get_trials(deepcopy=False), study.user_attrs
    begun_again = {number for one in trials for number in RetryHeartbeatStaleTrialCallback.retry_history(one)}
    return [
        _describe(trial, space.decode(trial.params), reasons.get(f"{ERROR} {trial.number}", "its process was killed"))
        for trial in trials
        if trial.state.name != "WAITING"
        and trial.number not in begun_again
        and not {INTERRUPTED, SURPLUS} & trial.user_attrs.keys()
    ]


def _describe(trial: "optuna.trial.FrozenTrial", values: dict[str, Any], killed: str) -> TrialRow:
    state = trial.state.name
    seen = [loss for loss in trial.intermediate_values.values() if math.isfinite(loss)]
    error = trial.user_attrs.get(ERROR, killed if state == "FAIL" else None)
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


def _create_file(layout: SearchLayout, identity: Mapping[str, Any], first: Mapping[str, Plain]) -> None:
    """Create the store under a temporary name, and rename it: of processes that start together, the first one wins."""
    if layout.study.exists():
        return
    with create_file(layout.study) as path, ExitStack() as stack:
        _create(_open_file(path, stack), _NAME, identity, first)


def _create(storage: "BaseStorage", name: str, identity: Mapping[str, Any], first: Mapping[str, Plain]) -> None:
    """Create the study, or what is missing of one whose process was killed while it did so."""
    import optuna

    if _is_whole(storage, name):
        return
    study = optuna.create_study(storage=storage, study_name=name, load_if_exists=True)
    if first:
        study.enqueue_trial(dict(first), skip_if_exists=True)
    study.set_user_attr(_IDENTITY, json.dumps(identity, sort_keys=True))


def _is_whole(storage: "BaseStorage", name: str) -> bool:
    import optuna

    known = optuna.get_all_study_names(storage)
    return name in known and _IDENTITY in optuna.load_study(storage=storage, study_name=name).user_attrs


def _load(
    layout: SearchLayout,
    config: SearchConfig,
    identity: Mapping[str, Any],
    first: Mapping[str, Plain],
    stack: ExitStack,
) -> "optuna.Study":
    import optuna
    from filelock import FileLock

    pruner = optuna.pruners.MedianPruner(n_startup_trials=_WARM_UP, n_min_trials=_WARM_UP)
    name = _name_study(layout) if config.has_database else _NAME
    try:
        storage = _open_storage(layout, config, stack)
        if config.storage != SQLITE and not _is_whole(storage, name):
            with FileLock(layout.lock, is_singleton=True):
                _create(storage, name, identity, first)
        return optuna.load_study(
            storage=storage,
            study_name=name,
            pruner=pruner if config.pruning else optuna.pruners.NopPruner(),
        )
    except RuntimeError as error:
        raise RunError(
            f"{_name(layout, config)} was written by another version of Optuna, or another program: {error} "
            f"Choose another {'database' if config.has_database else '--output'}."
        ) from error
    except KeyError as error:
        raise RunError(f"{_name(layout, config)} holds no search. Choose another --output.") from error


def _name_study(layout: SearchLayout) -> str:
    """Return the name of the folder's study in a database, made at the first call: it moves with the folder."""
    from filelock import FileLock

    if not layout.study_name.is_file():
        with FileLock(layout.lock, is_singleton=True):
            if not layout.study_name.is_file():  # another process was first
                write_atomic(layout.study_name, f"{_NAME}-{uuid.uuid4().hex}")
    return layout.study_name.read_text(encoding="utf-8")


def _name(layout: SearchLayout, config: SearchConfig) -> str:
    """Return how the store is called in messages."""
    if config.storage == SQLITE:
        return str(layout.study)
    return str(layout.journal) if config.storage == JOURNAL else config.storage


def _find_remedy(config: SearchConfig, error: BaseException | None) -> str:
    from sqlalchemy.exc import OperationalError

    if not config.has_database:
        return (
            "If another program holds it open, close that and give the same command again; if the file is damaged, "
            "choose another --output."
        )
    if not isinstance(error, OperationalError):
        return "Give a database of its own, in which the user may make tables; then give the same command again."
    return (
        "Start the server, make the database with createdb, and give the user's password in PGPASSWORD or ~/.pgpass; "
        "then give the same command again."
    )


def _open_storage(layout: SearchLayout, config: SearchConfig, stack: ExitStack) -> "BaseStorage":
    if config.storage == SQLITE:
        return _open_file(layout.study, stack)
    if config.storage == JOURNAL:
        return _open_journal(layout.journal)
    from sqlalchemy.engine import make_url

    url = make_url(config.storage).set(drivername="postgresql+psycopg")
    options = {"pool_pre_ping": True, "connect_args": {"connect_timeout": _PATIENCE}}
    return _open_database(url, options, stack)


def _open_journal(path: Path) -> "BaseStorage":
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    try:
        return JournalStorage(JournalFileBackend(str(path)))
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}). Choose another --output.") from error


def _open_file(path: Path, stack: ExitStack) -> "RDBStorage":
    from sqlalchemy.engine import URL

    storage = _open_database(URL.create("sqlite", database=str(path)), {"connect_args": {"timeout": _WAIT}}, stack)
    _lock_first(storage.engine)
    return storage


def _open_database(url: "URL", options: dict[str, Any], stack: ExitStack) -> "RDBStorage":
    from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
    from sqlalchemy.exc import IntegrityError, ProgrammingError

    def make() -> RDBStorage:
        return RDBStorage(
            url.render_as_string(),
            engine_kwargs=options,
            heartbeat_interval=_HEARTBEAT,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=RETRIES),
        )

    try:
        storage = make()
    except (IntegrityError, ProgrammingError):  # another process makes the same tables
        time.sleep(_PAUSE)
        storage = make()
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


def _check_identity(
    study: "optuna.Study", layout: SearchLayout, config: SearchConfig, identity: Mapping[str, Any]
) -> None:
    ours, known = json.loads(json.dumps(identity)), json.loads(study.user_attrs.get(_IDENTITY, "{}"))
    if known != ours:
        other = [name for name in ours if known.get(name) != ours[name]]
        raise RunError(
            f"{_name(layout, config)} holds a search with other {' and '.join(other) or 'parts'}. Choose another "
            "--output."
        )
