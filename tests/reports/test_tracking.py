"""Tracking with the real TensorBoard and MLflow: one tiny run is trained, others are written, all are read back."""

import logging
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import lorafit
from lorafit.config import Config, load_config
from lorafit.errors import MissingExtraError, NetworkUnavailableError
from lorafit.experiments.compare.compare import compare
from lorafit.reports.tracking import open_trackers, require_trackers, track_results
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import RunRecord
from lorafit.system.extras import install_line
from lorafit.tasks.records import MetricsRecord
from lorafit.tasks.registry import TASKS

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow"),
    pytest.mark.filterwarnings(
        "ignore:The ``noload`` loader strategy:DeprecationWarning"
    ),  # MLflow asks SQLAlchemy for it
]

HERE = ("MLFLOW", "_MLFLOW", "TENSORBOARD")


def read_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(HERE)}


@dataclass(frozen=True)
class Tracked:
    """A run that was trained with both trackers.

    Attributes:
        layout: Its folder, with a space in its name.
        metrics: Its metrics.
        folder: The folder that was the current one.
        environment: The trackers' variables afterwards.
    """

    layout: RunLayout
    metrics: MetricsRecord
    folder: Path
    environment: dict[str, str]


@pytest.fixture(scope="module")
def flags(build_encoder: Callable[..., Path], word_reviews: Path) -> dict[str, Any]:
    return {
        "data.source": str(word_reviews),
        "data.validation_fraction": 0.1,
        "model.name": str(build_encoder("distilbert", initializer_range=0.1)),
        "model.max_length": 32,
        "training.max_steps": 12,
        "training.learning_rate": 0.01,
        "training.threads": 1,
        "evaluation.bootstrap_samples": 100,
        "evaluation.baselines": False,
        "training.track": ["tensorboard", "mlflow"],
    }


@pytest.fixture(scope="module")
def tracked(flags: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracked]:
    folder = tmp_path_factory.mktemp("here")
    with pytest.MonkeyPatch.context() as patch:
        for name in read_environment():
            patch.delenv(name)
        patch.chdir(folder)
        run = lorafit.train(load_config(flags=flags), output=tmp_path_factory.mktemp("runs") / "my run")
        yield Tracked(RunLayout(run.path), run.metrics, folder, read_environment())


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store without runs: MLflow takes seconds to make one. Tests copy it."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    open_store(path).search_experiments()
    return path


@pytest.fixture
def store(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An MLflow store of the user's own, which the environment names."""
    monkeypatch.chdir(tmp_path)  # MLflow puts files of a local store below the current folder
    path = Path(shutil.copy(empty_store, tmp_path / "mine.db"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    return path


def open_store(path: Path) -> Any:  # noqa: ANN401 - mlflow's client has a type of its own
    import mlflow

    return mlflow.MlflowClient(f"sqlite:///{path}")


def find_runs(client: Any) -> list[Any]:  # noqa: ANN401 - mlflow's client has a type of its own
    found: list[Any] = client.search_runs([client.get_experiment_by_name("lorafit").experiment_id])
    return found


def read_history(layout: RunLayout) -> list[dict[str, Any]]:
    import json

    return [json.loads(line) for line in layout.history.read_text().splitlines()]


@pytest.mark.slow
def test_tensorboard_holds_settings_curves_and_final_metrics(tracked: Tracked) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    events = EventAccumulator(str(tracked.layout.tracking)).Reload()
    texts = {
        tag: tensor_util.make_ndarray(events.Tensors(tag)[0].tensor_proto).item() for tag in events.Tags()["tensors"]
    }
    assert b'"max_steps": 12' in texts["args/text_summary"]
    assert b"name: lora" in texts["settings/text_summary"]
    logged = {line["step"]: line["loss"] for line in read_history(tracked.layout) if "loss" in line}
    assert {event.step: event.value for event in events.Scalars("train/loss")} == pytest.approx(logged, rel=1e-5)
    assert len(logged) >= 2
    assert len(events.Scalars("eval/loss")) >= 2
    (final,) = events.Scalars("test/finetuned/accuracy")
    assert (final.step, final.value) == (12, pytest.approx(tracked.metrics.after.metrics["accuracy"].value))
    (before,) = events.Scalars("test/baseline/log_loss")
    assert tracked.metrics.before is not None
    assert before.value == pytest.approx(tracked.metrics.before.metrics["log_loss"].value)


@pytest.mark.slow
def test_mlflows_store_holds_settings_curves_final_metrics_and_files(tracked: Tracked) -> None:
    client = open_store(tracked.layout.tracking / "mlflow.db")
    (run,) = find_runs(client)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "my run")
    parameters = {"method.name": "lora", "training.learning_rate": "0.01", "max_steps": "12", "data.seed": "0"}
    assert {name: run.data.params[name] for name in parameters} == parameters
    logged = [line["loss"] for line in read_history(tracked.layout) if "loss" in line]
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [point.value for point in sorted(history, key=lambda point: point.step)] == pytest.approx(logged)
    assert run.data.metrics["test/finetuned/accuracy"] == tracked.metrics.after.metrics["accuracy"].value
    assert run.data.metrics["cost/seconds"] > 0
    assert {one.path for one in client.list_artifacts(run.info.run_id)} == {
        "adapter", "config.yaml", "metrics.json", "report.html"
    }  # fmt: skip
    files = list((tracked.layout.tracking / "artifacts").rglob("adapter_model.safetensors"))
    assert [path.read_bytes() for path in files] == [
        (tracked.layout.adapter / "adapter_model.safetensors").read_bytes()
    ]


def test_no_text_of_the_data_is_tracked_and_nothing_is_written_elsewhere(tracked: Tracked) -> None:
    assert list(tracked.folder.iterdir()) == []
    assert tracked.environment == {}
    assert logging.getLogger("mlflow").level != logging.WARNING
    assert b"film 1" in tracked.layout.report.read_bytes(), "the report of the run itself has texts"
    files = [path for path in tracked.layout.tracking.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".db", ".html", ".safetensors"}
    for path in files:
        assert b" film 1" not in path.read_bytes(), path.name


BESIDE = {
    "single_label": {"finetuned/ece_raw", "finetuned/coverage", "finetuned/accuracy_low", "finetuned/accuracy_high"},
    "multi_label": {"finetuned/ece_raw", "finetuned/micro_f1_low"},
    "regression": {"finetuned/coverage", "finetuned/half_width", "finetuned/mae_high"},
    "ordinal": {"finetuned/ece", "finetuned/accept_threshold", "finetuned/mae_low"},
}
"""Some of what is tracked beside metrics and comparisons, by task."""


@pytest.mark.parametrize("task", TASKS)
def test_metrics_of_every_task_are_tracked(write_run: Callable[..., Path], store: Path, task: str) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    layout = RunLayout(write_run(task))
    config = load_config(layout.config, flags={"training.track": ["tensorboard", "mlflow"]})
    record, metrics = RunRecord.read(layout.record), MetricsRecord.read(layout.metrics)
    undefined = {"undefined": metrics.after.metrics[record.build_task().primary].model_copy(update={"value": math.nan})}
    after = metrics.after.model_copy(update={"metrics": {**metrics.after.metrics, **undefined}})
    with open_trackers(config, layout, record):
        pass
    track_results(config, layout, record, metrics.model_copy(update={"after": after}), None)

    (run,) = find_runs(open_store(store))
    values = {name.removeprefix("test/"): value for name, value in run.data.metrics.items()}
    assert metrics.before is not None
    assert metrics.comparison is not None
    models = {"finetuned": metrics.after, "baseline": metrics.before}
    models |= {name: one.scores for name, one in metrics.baselines.items()}
    expected = {
        f"{model}/{name}": one.value for model, scores in models.items() for name, one in scores.metrics.items()
    }
    assert {name: values[name] for name in expected} == expected
    assert set(models) == {"finetuned", "baseline", *record.build_task().baselines}
    assert values.keys() >= BESIDE[task]
    differences = metrics.comparison.differences
    assert {
        f"finetuned_minus_baseline/{name}": one.value for name, one in differences.items()
    }.items() <= values.items()
    assert values["finetuned_minus_baseline/rows_fixed"] == metrics.comparison.rows_fixed
    for name, one in metrics.baselines.items():
        assert values[f"finetuned_minus_{name}/p_value"] == one.comparison.p_value
    assert "finetuned/undefined" not in values
    scalars = EventAccumulator(str(layout.tracking)).Reload().Tags()["scalars"]
    assert sorted(name.removeprefix("test/") for name in scalars) == sorted(values)


@pytest.mark.slow
def test_every_run_of_a_comparison_is_tracked(flags: dict[str, Any], store: Path, tmp_path: Path) -> None:
    config = load_config(flags={**flags, "training.max_steps": 2, "training.track": ["mlflow"]})
    compared = compare(config, ["lora", "ia3"], output=tmp_path / "methods")
    runs = {run.data.params["method.name"]: run for run in find_runs(open_store(store))}
    assert set(runs) == {"lora", "ia3"}
    for row in compared.record.methods:
        assert runs[row.method].data.metrics["test/finetuned/accuracy"] == pytest.approx(row.score.value)


def test_run_that_goes_on_is_the_same_one_in_mlflow(tracked: Tracked, flags: dict[str, Any], tmp_path: Path) -> None:
    layout = RunLayout(Path(shutil.copytree(tracked.layout.root, tmp_path / "run")))
    config, record = load_config(flags=flags), RunRecord.read(layout.record)
    with pytest.raises(KeyboardInterrupt), open_trackers(config, layout, record):
        raise KeyboardInterrupt
    client = open_store(layout.tracking / "mlflow.db")
    assert sorted(run.info.status for run in find_runs(client)) == ["FAILED", "FINISHED"], "a copy is another run"
    with open_trackers(config, layout, record):
        import mlflow

        assert mlflow.active_run().data.params["method.name"] == "lora"
        mlflow.log_metrics({"loss": 0.25}, synchronous=False)
    assert sorted(run.info.status for run in find_runs(client)) == ["FINISHED", "FINISHED"]
    assert 0.25 in [run.data.metrics["loss"] for run in find_runs(client)]


def test_run_that_replaces_another_gets_a_store_of_its_own(
    flags: dict[str, Any], run_record: RunRecord, empty_store: Path, tmp_path: Path
) -> None:
    config, layout = load_config(flags=flags), RunLayout(tmp_path)
    for created in ("2025-01-01T00:00:00+00:00", "2025-01-01T00:00:07+00:00"):
        shutil.rmtree(layout.tracking, ignore_errors=True)
        layout.tracking.mkdir()
        shutil.copy(empty_store, layout.tracking / "mlflow.db")
        with open_trackers(config, layout, run_record.model_copy(update={"created": created})):
            pass
    assert len(find_runs(open_store(layout.tracking / "mlflow.db"))) == 1


def test_store_and_experiment_of_the_users_own_are_used(
    flags: dict[str, Any], run_record: RunRecord, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mails")
    layout = RunLayout(tmp_path / "run")
    layout.root.mkdir()
    import mlflow

    with mlflow.start_run(), open_trackers(load_config(flags=flags), layout, run_record):
        assert mlflow.active_run().info.run_name == "run", "inside a run of the user's own"
    assert os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{store}"
    assert not (layout.tracking / "mlflow.db").exists()
    client = open_store(store)
    found = client.search_runs([client.get_experiment_by_name("mails").experiment_id])
    assert [run.info.status for run in found if run.info.run_name == "run"] == ["FINISHED"]
    assert len(found) == 2
    with (
        pytest.raises(
            NetworkUnavailableError, match=r"mine\.db: it is gone\. What the run has written so far is kept in"
        ),
        open_trackers(load_config(flags=flags), layout, run_record),
    ):
        raise mlflow.exceptions.MlflowException("it is gone")


def test_server_that_does_not_answer_is_told(
    flags: dict[str, Any], run_record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with (
        pytest.raises(NetworkUnavailableError, match=r"MLflow cannot be used at http://127\.0\.0\.1:9: "),
        open_trackers(load_config(flags=flags), RunLayout(tmp_path), run_record),
    ):
        pass


@pytest.mark.parametrize(
    ("tracker", "module"), [("tensorboard", "tensorboard"), ("mlflow", "mlflow"), ("mlflow", "alembic")]
)
def test_missing_package_is_told_before_any_work(
    flags: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracker: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    config = load_config(flags=flags | {"training.track": [tracker], "data.source": "absent.csv"})
    with pytest.raises(MissingExtraError) as caught:
        lorafit.train(config, output=tmp_path / "run")
    assert str(caught.value) == (
        f"training.track=[{tracker}] needs the package '{module}', which is not installed. Install it with:\n"
        f"  {install_line('track')}"
    )
    assert not (tmp_path / "run").exists()
    if tracker == "mlflow":
        require_trackers(["tensorboard"])


def test_nothing_is_tracked_unless_asked_for(run_record: RunRecord, tmp_path: Path) -> None:
    before = dict(os.environ)
    with open_trackers(Config(), RunLayout(tmp_path), run_record):
        assert dict(os.environ) == before
    assert list(tmp_path.iterdir()) == []
