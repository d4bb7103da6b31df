"""TensorBoard and MLflow: parameters and learning curves while a run trains, metrics and files when it is done.

Learning curves come from the callbacks that transformers' Trainer has for both. Nothing is tracked unless
`training.track` says so, and no text of the data is ever passed on.
"""

import hashlib
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from lorafit.config import Config
from lorafit.errors import NetworkUnavailableError
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import RunRecord
from lorafit.system.extras import missing_modules, require, without_telemetry
from lorafit.tasks.records import MetricsRecord

_MODULES: Final = {"tensorboard": ("tensorboard",), "mlflow": ("mlflow", "sqlalchemy", "alembic")}
_RUN_TAG: Final = "lorafit.run"
_LONGEST_VALUE: Final = 500


def require_trackers(names: Sequence[str]) -> None:
    """Make sure that the packages of trackers are installed, without importing them.

    Args:
        names: Trackers, as in `training.track`.

    Raises:
        MissingExtraError: One is not; the message gives the pip line.
    """
    missing = set(missing_modules("track"))
    for name in names:
        for module in _MODULES[name]:
            if module in missing:
                require(module, extra="track", purpose=f"training.track=[{name}]")


@contextmanager
def open_trackers(config: Config, layout: RunLayout, record: RunRecord) -> Iterator[None]:
    """Let the Trainer's callbacks write to `tracking/` of the run, or where `MLFLOW_TRACKING_URI` says.

    Both find their place through environment variables, which are as before afterwards.

    Args:
        config: The settings, which become MLflow's parameters.
        layout: The run folder.
        record: The run's record, by which MLflow finds a resumed run again.

    Yields:
        Nothing; training runs inside.

    Raises:
        NetworkUnavailableError: MLflow's server or store cannot be reached.
    """
    with ExitStack() as stack:
        if config.training.track:
            layout.tracking.mkdir(exist_ok=True)
            stack.enter_context(_environment({"TENSORBOARD_LOGGING_DIR": str(layout.tracking)}))
        if "mlflow" in config.training.track:
            mlflow = stack.enter_context(_mlflow_run(layout, record))
            mlflow.log_params(_flatten(config))
        yield


def track_results(
    config: Config,
    layout: RunLayout,
    record: RunRecord,
    metrics: MetricsRecord,
    report: Path | None,
) -> None:
    """Log the metrics of a finished run to its trackers, and its files to MLflow.

    Args:
        config: The settings.
        layout: The run folder.
        record: The run's record.
        metrics: Its metrics.
        report: The report without texts, or None.

    Raises:
        NetworkUnavailableError: MLflow's server or store cannot be reached.
    """
    values = dict(_list_values(record, metrics))
    step = 0 if record.training is None else record.training.steps
    if "tensorboard" in config.training.track:
        _write_events(layout.tracking, config, values, step)
    if "mlflow" in config.training.track:
        with _mlflow_run(layout, record) as mlflow:
            mlflow.log_metrics(values, step=step)
            mlflow.log_artifacts(str(layout.trained), artifact_path=layout.trained.name)
            for path in (layout.config, layout.metrics, report):
                if path is not None:
                    mlflow.log_artifact(str(path))


def _write_events(folder: Path, config: Config, values: Mapping[str, float], step: int) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        writer.add_text("settings", "\n".join(f"    {line}" for line in config.to_yaml().splitlines()), step)
        for name, value in values.items():
            writer.add_scalar(name, value, step)


@contextmanager
def _mlflow_run(layout: RunLayout, record: RunRecord) -> Iterator[Any]:
    """Open this run in MLflow's store, the one begun before if there is one, and yield the mlflow module."""
    is_local = not os.environ.get("MLFLOW_TRACKING_URI")
    places = {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
    identity = hashlib.sha256(f"{record.created} {layout.root}".encode()).hexdigest()[:16]
    if is_local:
        places["MLFLOW_TRACKING_URI"] = _local_store(layout.tracking / "mlflow.db", identity)
    with _environment(places), without_telemetry():
        mlflow = require("mlflow", extra="track", purpose="training.track=[mlflow]")
        with _quiet("mlflow"):
            try:
                client = mlflow.MlflowClient()
                experiment = _find_experiment(client, layout.tracking / "artifacts" if is_local else None)
                begun = client.search_runs([experiment], f"tags.`{_RUN_TAG}` = '{identity}'", max_results=1)
                active = mlflow.start_run(
                    run_id=begun[0].info.run_id if begun else None,
                    experiment_id=experiment,
                    run_name=layout.root.name,
                    nested=mlflow.active_run() is not None,
                    tags={_RUN_TAG: identity},
                )
                with active:
                    try:
                        yield mlflow
                    finally:
                        mlflow.flush_async_logging()
            except mlflow.exceptions.MlflowException as error:
                raise NetworkUnavailableError(
                    f"MLflow cannot be used at {os.environ['MLFLOW_TRACKING_URI']}: {error}. "
                    f"What the run has written so far is kept in {layout.root}."
                ) from error


def _local_store(path: Path, identity: str) -> str:
    """Return the address of a SQLite store.

    MLflow keeps every store open under its address, that of a run that was overwritten since, too. So each run has an
    address of its own: its timeout, a minute in any case.
    """
    return f"sqlite:///{path.as_posix()}?timeout={60 + int(identity, 16) % 10**6 / 10**6:.6f}"


def _find_experiment(client: Any, artifacts: Path | None) -> str:  # noqa: ANN401  mlflow is optional
    """Return the experiment's id; one that lies in the run folder keeps its files there, too."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "lorafit")
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    return str(client.create_experiment(name, artifact_location=None if artifacts is None else artifacts.as_uri()))


def _flatten(config: Config) -> dict[str, str]:
    """Return every setting that has a value by its dotted name."""
    return {
        f"{section}.{name}": str(value)[:_LONGEST_VALUE]
        for section, values in config.model_dump(mode="json", exclude={"search"}).items()
        for name, value in values.items()
        if value is not None
    }


def _list_values(record: RunRecord, metrics: MetricsRecord) -> Iterator[tuple[str, float]]:
    """Yield what is tracked, `split/model/name` and `cost/name`; what is undefined is left out."""
    for name, value in _list_metrics(metrics, primary=record.build_task().primary):
        if math.isfinite(value):
            yield f"{metrics.split}/{name}", value
    yield "cost/seconds", sum(record.seconds.values())
    yield "cost/peak_memory_bytes", float(record.peak_memory_bytes)


def _list_metrics(metrics: MetricsRecord, *, primary: str) -> Iterator[tuple[str, float]]:
    models = {"finetuned": metrics.after, "baseline": metrics.before}
    for model, scores in {**models, **{name: one.scores for name, one in metrics.baselines.items()}}.items():
        if scores is not None:
            yield from ((f"{model}/{name}", estimate.value) for name, estimate in scores.metrics.items())
    interval = metrics.after.metrics[primary]
    yield from ((f"finetuned/{primary}_low", interval.low), (f"finetuned/{primary}_high", interval.high))
    comparisons = {"baseline": metrics.comparison, **{name: one.comparison for name, one in metrics.baselines.items()}}
    for model, comparison in comparisons.items():
        if comparison is not None:
            for name, difference in comparison.differences.items():
                yield f"finetuned_minus_{model}/{name}", difference.value
            yield f"finetuned_minus_{model}/rows_fixed", comparison.rows_fixed
            yield f"finetuned_minus_{model}/rows_broken", comparison.rows_broken
            yield f"finetuned_minus_{model}/p_value", comparison.p_value
    if metrics.calibration is not None:
        yield from ((f"finetuned/{name}", one.value) for name, one in metrics.calibration.metrics.items())
        yield from ((f"finetuned/{name}_raw", one.value) for name, one in metrics.calibration.raw.items())


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Let a library's logger pass warnings only."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
