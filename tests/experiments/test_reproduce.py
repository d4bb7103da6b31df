"""Repeated runs. Runs written by hand stand in for training; `tests/cli/test_reproduce.py` repeats a real one."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lorafit.config import load_config, override_config
from lorafit.data.tables import read_table
from lorafit.data.writing import write_table
from lorafit.errors import NotReproducedError, RunError, UserInputError
from lorafit.experiments.reproduce import Change, ReproductionRecord, enforce_reproduction, reproduce
from lorafit.models.load import locate_encoder
from lorafit.models.records import BaseModelRecord
from lorafit.runs.folder import RunLayout
from lorafit.runs.predictions import parse_predictions
from lorafit.runs.records import RunRecord
from lorafit.system.progress import Silent
from lorafit.tasks.records import MetricsRecord
from lorafit.tasks.registry import TASKS, get_task

WriteRun = Callable[..., RunLayout]
EditRecord = Callable[..., None]
SignRun = Callable[[Path], None]
Repeat = Callable[..., ReproductionRecord]
STAGE = "comparing data and base model with those of the run"


class Recorder(Silent):
    """A progress that remembers the stages."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def start(self, stage: str, **_: object) -> None:
        self.stages.append(stage)


@pytest.fixture
def base(tiny_distilbert: Path, tmp_path: Path) -> Path:
    """A base model that may be changed."""
    return Path(shutil.copytree(tiny_distilbert, tmp_path / "base"))


@pytest.fixture
def write_repeatable(write_run: Callable[..., Path], base: Path) -> WriteRun:
    """Writes a run that nothing keeps from being repeated."""
    flags = {"model.name": str(base), "model.truncation": "head"}
    digest = locate_encoder(load_config(flags=flags).model).digest()
    model = BaseModelRecord(name="base", revision=None, digest=digest, architecture="distilbert")

    def write(task: str = "single_label", **wishes: Any) -> RunLayout:
        few = {"baselines": False, "before": False, "base_model": model}
        return RunLayout(write_run(task, flags=flags, **few, **wishes))

    return write


@pytest.fixture
def repeat(tmp_path: Path, edit_record: EditRecord, sign_run: SignRun, monkeypatch: pytest.MonkeyPatch) -> Repeat:
    """Reproduces a run, where training gives the same run but for values predicted, metrics, and its record."""

    def repeat(
        run: RunLayout,
        *,
        change: Callable[[NDArray[np.float64]], NDArray[np.float64]] = np.asarray,
        metrics: Mapping[str, float] | None = None,
        record: Mapping[str, Any] | None = None,
        **wishes: Any,
    ) -> ReproductionRecord:
        again = RunLayout(Path(shutil.copytree(run.root, tmp_path / "again")))
        old = RunRecord.read(again.record)
        old.model_copy(update=dict(record or {})).write(again.record)
        task, path = old.build_task(), again.predictions("test", "after")
        values = dict(zip(task.value_columns(), change(read_values(again)).T.tolist(), strict=True))
        write_table(path, {**read_table(path).columns, **values})
        for name, value in (metrics or {}).items():
            edit_record(again.metrics, lambda new, at=name, to=value: new["after"]["metrics"][at].update(value=to))
        sign_run(again.root)
        monkeypatch.setattr("lorafit.experiments.reproduce.train", lambda *_, **__: SimpleNamespace(path=again.root))
        return reproduce(run.root, **wishes)

    return repeat


def read_values(run: RunLayout) -> NDArray[np.float64]:
    task = RunRecord.read(run.record).build_task()
    return parse_predictions(read_table(run.predictions("test", "after")).columns, task)[2]


def read_metrics(run: RunLayout) -> dict[str, float]:
    return {name: one.value for name, one in MetricsRecord.read(run.metrics).after.metrics.items()}


GUESSES: dict[str, Callable[[NDArray[np.float64]], NDArray[Any]]] = {
    "single_label": lambda values: values.argmax(axis=1),
    "multi_label": lambda values: values >= 0.5,
    "ordinal": lambda values: (np.cumsum(values, axis=1) >= 0.5).argmax(axis=1),
}
"""What each row is predicted, by task; a number hardly ever comes out the same."""


@pytest.mark.parametrize("task", TASKS)
def test_the_same_numbers_are_reproduced_to_the_last_digit(
    write_repeatable: WriteRun, repeat: Repeat, task: str
) -> None:
    run = write_repeatable(task)
    record, own = repeat(run, tolerance=0), read_metrics(run)
    assert (record.task, record.agrees, record.identical, record.largest_difference) == (task, True, True, 0)
    assert record.rows_changed == (0 if task in GUESSES else None)
    assert (record.run, record.repetition) == (str(run.root), str(run.root.with_name("again")))
    names = list(get_task(task).reproduction_tolerances)
    assert [(one.name, one.then, one.now) for one in record.metrics] == [(name, own[name], own[name]) for name in names]
    assert names[0] == next(iter(own)), "the primary metric is compared"
    assert (record.metrics[0].tolerance, record.changes) == (0, [])
    enforce_reproduction(record)
    assert ReproductionRecord.model_validate_json(record.model_dump_json()) == record


@pytest.mark.parametrize("task", TASKS)
def test_other_numbers_are_said_and_rows_counted(write_repeatable: WriteRun, repeat: Repeat, task: str) -> None:
    run = write_repeatable(task)
    own, (first, *_) = read_metrics(run), get_task(task).reproduction_tolerances
    values = read_values(run)
    others = np.roll(values, 1, axis=0)
    record = repeat(run, change=lambda _: others, metrics={first: own[first] + 1})
    assert (record.agrees, record.identical, record.rows) == (False, False, 60)
    assert record.largest_difference == np.abs(values - others).max() > 0
    if task in GUESSES:
        differs = (GUESSES[task](values) != GUESSES[task](others)).reshape(60, -1).any(axis=1)
        assert record.rows_changed == differs.sum() > 0
    with pytest.raises(NotReproducedError) as caught:
        enforce_reproduction(record)
    opening, line, *rest = str(caught.value).splitlines()
    assert opening == f"{run.root} is not reproduced:"
    assert line.startswith(f"  {first}: {own[first]:.6g} then, {own[first] + 1:.6g} now; they may differ by ")
    assert rest == [], "only what does not agree is said"


@pytest.mark.parametrize(
    ("task", "changes", "broken"),
    [
        ("single_label", {"accuracy": 0.002, "log_loss": -0.01}, []),
        ("single_label", {"accuracy": -0.0021}, ["accuracy"]),
        ("single_label", {"log_loss": 0.0101}, ["log_loss"]),
        ("multi_label", {"micro_f1": 0.0019, "log_loss": 0.0101}, ["log_loss"]),
        ("regression", {"r2": -0.01}, []),
        ("regression", {"r2": 0.0101}, ["r2"]),
    ],
)
def test_tolerance_is_the_largest_difference_that_agrees(
    write_repeatable: WriteRun, repeat: Repeat, task: str, changes: dict[str, float], broken: list[str]
) -> None:
    run = write_repeatable(task)
    own = read_metrics(run)
    record = repeat(run, metrics={name: own[name] + change for name, change in changes.items()})
    assert [one.name for one in record.metrics if not one.agrees] == broken
    assert record.agrees is (broken == [])


@pytest.mark.parametrize(
    ("task", "y", "unit"),
    [
        ("regression", [1.0, 3.0] * 10, 1.0),
        ("regression", [7.0] * 20, None),
        ("ordinal", [0, 4] * 10, 2.0),
        ("ordinal", [2] * 20, None),
    ],
)
def test_the_tolerance_of_an_error_is_a_share_of_the_spread_of_the_labels(
    write_repeatable: WriteRun, repeat: Repeat, task: str, y: list[float], unit: float | None
) -> None:
    """Where they do not differ, it is a share of the error itself."""
    values = np.full((20, 1), 6.0) if task == "regression" else np.tile([0.1, 0.1, 0.1, 0.6, 0.1], (20, 1))
    run = write_repeatable(task, y=np.array(y), after=values)
    error = read_metrics(run)["mae"]
    assert error > 0
    limit = 0.01 * (error if unit is None else unit)
    near = repeat(run, metrics={"mae": error + 0.99 * limit})
    shutil.rmtree(near.repetition)
    far = repeat(run, metrics={"mae": error + 1.01 * limit})
    assert near.metrics[0].tolerance == pytest.approx(limit)
    assert (near.metrics[0].agrees, far.metrics[0].agrees) == (True, False)


def test_an_undefined_metric_is_reproduced_by_an_undefined_one(write_repeatable: WriteRun, repeat: Repeat) -> None:
    run = write_repeatable("multi_label", y=np.zeros((20, 3), dtype=np.int64), after=np.full((20, 3), 0.1))
    same = repeat(run)
    assert np.isnan(same.metrics[0].then)
    assert same.agrees
    shutil.rmtree(same.repetition)
    assert not repeat(run, metrics={"micro_f1": 0.5}).agrees


def test_tolerances_may_be_given(write_repeatable: WriteRun, repeat: Repeat) -> None:
    run = write_repeatable("single_label")
    own = read_metrics(run)
    other = {"accuracy": own["accuracy"] - 0.2, "log_loss": own["log_loss"] + 0.2}
    record = repeat(run, metrics=other, tolerance=0.3, tolerances={"log_loss": 0.1})
    assert [(one.tolerance, one.agrees) for one in record.metrics] == [(0.3, True), (0.1, False)]


@pytest.mark.parametrize(
    ("task", "name", "compared"),
    [
        ("single_label", "r2", r"accuracy \(--tolerance\) and log_loss \(--log-loss-tolerance\)"),
        ("multi_label", "accuracy", r"micro_f1 \(--tolerance\) and log_loss \(--log-loss-tolerance\)"),
        ("regression", "log_loss", r"mae \(--tolerance\) and r2 \(--r2-tolerance\)"),
        ("ordinal", "r2", r"mae \(--tolerance\) and log_loss \(--log-loss-tolerance\)"),
    ],
)
def test_a_tolerance_of_what_is_not_compared_is_refused_before_training(
    write_repeatable: WriteRun, tmp_path: Path, task: str, name: str, compared: str
) -> None:
    run = write_repeatable(task)
    with pytest.raises(UserInputError, match=rf"tolerance of {name} .* is {task}, and what is compared is {compared}"):
        reproduce(run.root, output=tmp_path / "again", tolerances={name: 0.1})
    assert not (tmp_path / "again").exists()


def test_what_else_differs_is_listed(write_repeatable: WriteRun, repeat: Repeat, run_record: RunRecord) -> None:
    run = write_repeatable(versions={"torch": "1.0", "numpy": "2.0"}, encoder_blocks="stock: not recorded")
    hardware = run_record.hardware.model_copy(update={"threads": 64})
    now = {"versions": {"torch": "2.0", "numpy": "2.0"}, "hardware": hardware, "encoder_blocks": "fused"}
    assert repeat(run, record=now).changes == [
        Change(name="torch", then="1.0", now="2.0"),
        Change(name="threads", then="2", now="64"),
        Change(name="encoder blocks", then="stock: not recorded", now="fused"),
    ]


# What cannot be repeated


def assert_nothing_trained(recorder: Recorder, output: Path) -> None:
    assert recorder.stages == [STAGE]
    assert not output.exists()


@pytest.mark.parametrize(
    ("setting", "value", "was"),
    [
        ("data.task", "regression", "single_label"),
        ("training.seed", 7, "0"),
        ("method.name", "ia3", "lora"),
        ("model.truncation", "head+tail", "head"),
    ],
)
def test_an_altered_config_is_found_before_training(
    write_repeatable: WriteRun, sign_run: SignRun, tmp_path: Path, setting: str, value: object, was: str
) -> None:
    run, recorder = write_repeatable(), Recorder()
    run.config.write_text(override_config(load_config(run.config), {setting: value}).to_yaml())
    with pytest.raises(RunError, match=r"config\.yaml was altered after the run wrote it"):
        reproduce(run.root, output=tmp_path / "again", progress=recorder)
    sign_run(run.root)
    with pytest.raises(RunError) as caught:
        reproduce(run.root, output=tmp_path / "again", progress=recorder)
    assert f"config.yaml was altered: {setting} is {value}, the run was made with {was}." in str(caught.value)
    assert not recorder.stages
    assert not (tmp_path / "again").exists()


def test_changed_data_and_base_model_are_found_before_training(
    write_repeatable: WriteRun, base: Path, build_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    run, recorder = write_repeatable(), Recorder()
    with (tmp_path / "run.jsonl").open("a") as file:
        file.write('{"text": "a new film", "label": "pos"}\n')
    shutil.copy(build_encoder("distilbert", initializer_range=0.4) / "model.safetensors", base)
    with pytest.raises(NotReproducedError) as caught:
        reproduce(run.root, output=tmp_path / "again", progress=recorder)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{run.root} cannot be repeated, and nothing was trained:"
    assert lines[1].startswith("  The data have changed: other rows in train")
    assert lines[2] == f"  The base model {base} has changed (SHA-256 of its weights)."
    assert_nothing_trained(recorder, tmp_path / "again")


def test_other_labels_are_said(write_repeatable: WriteRun, tmp_path: Path) -> None:
    run = write_repeatable()
    for path in (tmp_path / "run.jsonl", tmp_path / "run-test.jsonl"):
        path.write_text(path.read_text().replace('"label": "neg"', '"label": "bad"'))
    with pytest.raises(NotReproducedError, match=r"have changed: \['bad', 'pos'\], were \['neg', 'pos'\]"):
        reproduce(run.root, output=tmp_path / "again")


def test_a_folder_that_is_taken_is_refused_and_left_alone(
    write_repeatable: WriteRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_repeatable()
    monkeypatch.setenv("HOME", str(run.root.parent))
    before = run.record.read_bytes()
    for taken in (run.root, "~/run"):
        with pytest.raises(
            RunError, match=r"already exists, .*Choose another, for example --output \S+run-2"
        ) as caught:
            reproduce("~/run", output=taken)
        assert "--overwrite" not in str(caught.value)
    assert run.record.read_bytes() == before


def test_runs_that_did_not_end_are_refused(write_repeatable: WriteRun) -> None:
    with pytest.raises(RunError, match="its status is 'interrupted'"):
        reproduce(write_repeatable(status="interrupted").root)


def test_metrics_that_lack_what_is_compared_are_refused(
    write_repeatable: WriteRun, edit_record: EditRecord, sign_run: SignRun
) -> None:
    run = write_repeatable("regression")
    edit_record(run.metrics, lambda content: content["after"]["metrics"].pop("r2"))
    sign_run(run.root)
    with pytest.raises(RunError, match=r"metrics\.json was altered: it does not hold r2"):
        reproduce(run.root)
