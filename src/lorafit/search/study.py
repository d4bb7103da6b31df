"""The store of a search: Optuna's study in an SQLite file, which several processes may work on."""

import json
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lorafit.config import SearchConfig
from lorafit.errors import RunError
from lorafit.extras import require
from lorafit.search.records import SearchLayout
from lorafit.search.space import Plain

if TYPE_CHECKING:
    import optuna

__all__ = ["open_study", "require_optuna"]

_NAME = "lorafit"
_IDENTITY = "identity"
_WAIT = 60
"""Seconds to wait for another process that writes."""

_HEARTBEAT = 60
"""Seconds between signs of life of a process; a trial without one for twice as long is begun again by another."""

_ATTEMPTS = 5
_WARM_UP = 4
"""Complete trials before any is pruned."""


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
    """Open the study of a folder, or make it.

    Args:
        layout: The folder, which exists.
        config: Seed and pruning.
        identity: What must be the same for every process that works on the study: space, rows, base model.
        first: What the first trial takes; the rest of it is drawn.

    Yields:
        The study.

    Raises:
        RunError: The file is locked, damaged, or holds a search of something else.
    """
    import optuna
    from optuna.exceptions import ExperimentalWarning, StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.CRITICAL)  # what happens is told by lorafit
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # heartbeats and the sampler for several processes
            study = _create(layout, config)
            _check_identity(study, layout, identity, first)
            yield study
    except (StorageInternalError, SQLAlchemyError) as error:
        cause = str(error.__cause__ or error).splitlines()[0]
        raise RunError(
            f"{layout.study} cannot be used ({cause}). If another program holds it open, close that and give the same "
            "command again; if the file is damaged, choose another --output."
        ) from error


def _create(layout: SearchLayout, config: SearchConfig) -> "optuna.Study":
    """Open the store; where another process is making its tables at this moment, try again."""
    import optuna
    from optuna.exceptions import StorageInternalError
    from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
    from sqlalchemy.exc import SQLAlchemyError

    for attempt in range(_ATTEMPTS):
        try:
            storage = RDBStorage(
                f"sqlite:///{layout.study}",
                engine_kwargs={"connect_args": {"timeout": _WAIT}},
                heartbeat_interval=_HEARTBEAT,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=3),
            )
            pruner = optuna.pruners.MedianPruner(n_startup_trials=_WARM_UP)
            study = optuna.create_study(
                storage=storage,
                study_name=_NAME,
                load_if_exists=True,
                pruner=pruner if config.pruning else optuna.pruners.NopPruner(),
            )
            count = len(study.get_trials(deepcopy=False))
            study.sampler = optuna.samplers.TPESampler(seed=config.seed + count, constant_liar=True)
        except (StorageInternalError, SQLAlchemyError) as error:
            if attempt == _ATTEMPTS - 1 or "locked" in str(error.__cause__ or error):
                raise
            time.sleep(0.2)
        else:
            return study
    raise AssertionError("the last attempt returns or raises")


def _check_identity(
    study: "optuna.Study", layout: SearchLayout, identity: Mapping[str, Any], first: Mapping[str, Plain]
) -> None:
    said, known = json.dumps(identity, sort_keys=True), study.user_attrs.get(_IDENTITY)
    if known is None:
        study.set_user_attr(_IDENTITY, said)
        if first:
            study.enqueue_trial(dict(first), skip_if_exists=True)
    elif known != said:
        other = [name for name, value in json.loads(known).items() if value != identity.get(name)]
        raise RunError(f"{layout.study} holds a search with another {' and '.join(other)}. Choose another --output.")
