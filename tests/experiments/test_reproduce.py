import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lorafit
from lorafit.config import load_config, override_config
from lorafit.errors import NotReproducedError, RunError, UserInputError
from lorafit.evidence import Estimate
from lorafit.experiments.diff.sides import Side
from lorafit.experiments.reproduce import (
    TOLERANCES,
    Change,
    RepeatedFigure,
    ReproductionRecord,
    _choose_tolerances,
    _compare_figure,
    _measure_unit,
    _read_figures,
    enforce_reproduction,
    reproduce,
)
from lorafit.labels import Task
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import RunRecord
from lorafit.system.progress import Silent
from lorafit.task_evidence import TaskMetricsRecord, TaskScores

GOOD, BAD = ("fine", "great", "lovely", "superb"), ("awful", "boring", "dull", "poor")


class Recorder(Silent):
    """A progress that remembers the stages."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def start(self, stage: str, **_: object) -> None:
        self.stages.append(stage)


def write_reviews(path: Path, count: int) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for row in range(count):
            writer.writerow([f"the film was {(BAD, GOOD)[row % 2][row // 2 % 4]} {row}", ("neg", "pos")[row % 2]])
    return path


@pytest.fixture(scope="module")
def run(build_encoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> RunLayout:
    folder = tmp_path_factory.mktemp("reproduction")
    base = shutil.copytree(build_encoder("distilbert", initializer_range=0.3), folder / "base")
    flags = {
        "data.source": str(write_reviews(folder / "reviews.csv", 120)),
        "data.test_fraction": 0.3,
        "model.name": str(base),
        "model.max_length": 32,
        "training.max_steps": 8,
        "training.learning_rate": 0.005,
        "training.precision": "fp32",
        "training.threads": 1,
        "evaluation.bootstrap_samples": 200,
        "evaluation.report": False,
        "evaluation.baseline": False,
        "evaluation.cheap_baselines": False,
    }
    return RunLayout(lorafit.train(load_config(flags=flags), output=folder / "run").path)


@pytest.fixture
def copy(run: RunLayout, tmp_path: Path) -> RunLayout:
    """A copy of the run, to be changed."""
    return RunLayout(Path(shutil.copytree(run.root, tmp_path / "copy")))


def change_settings(layout: RunLayout, **changes: Any) -> None:
    values = {name.replace("__", "."): value for name, value in changes.items()}
    layout.config.write_text(override_config(load_config(layout.config), values).to_yaml())


def assert_nothing_trained(recorder: Recorder, output: Path) -> None:
    assert recorder.stages == ["comparing data, base model, seed, method and truncation with those of the run"]
    assert not output.exists()


def test_a_run_is_reproduced_to_the_last_digit(run: RunLayout, tmp_path: Path) -> None:
    record = reproduce(run.root, output=tmp_path / "again", tolerance=0, log_loss_tolerance=0)
    assert (record.agrees, record.identical, record.largest_difference, record.rows_changed) == (True, True, 0, 0)
    assert (record.run, record.repetition, record.rows) == (str(run.root), str(tmp_path / "again"), 36)
    assert [figure.name for figure in record.figures] == ["accuracy", "log_loss"]
    assert all(figure.then == figure.now for figure in record.figures)
    assert record.changes == []
    enforce_reproduction(record)
    told = [RunRecord.read(RunLayout(Path(path)).record).files for path in (record.run, record.repetition)]
    assert told[0]["adapter_model.safetensors"] == told[1]["adapter_model.safetensors"]


def test_other_settings_give_other_numbers_which_are_said_with_what_else_differs(
    copy: RunLayout, tmp_path: Path
) -> None:
    change_settings(copy, training__learning_rate=0.1)
    old = RunRecord.read(copy.record)
    changes = {
        "versions": {**old.versions, "torch": "1.0"},
        "hardware": old.hardware.model_copy(update={"threads": 64}),
        "encoder_blocks": "stock: not recorded",
    }
    old.model_copy(update=changes).write(copy.record)
    record = reproduce(copy.root, output=tmp_path / "again")
    assert not record.agrees
    assert not record.identical
    assert record.largest_difference > 0.01
    with pytest.raises(NotReproducedError, match=r"copy is not reproduced:") as caught:
        enforce_reproduction(record)
    assert f"they may differ by {TOLERANCES['single_label']['log_loss']}" in str(caught.value)
    now = RunRecord.read(RunLayout(tmp_path / "again").record)
    assert record.changes == [
        Change(name="torch", then="1.0", now=now.versions["torch"]),
        Change(name="threads", then="64", now="1"),
        Change(name="encoder blocks", then="stock: not recorded", now=now.encoder_blocks),
    ]


@pytest.mark.parametrize(
    ("setting", "value", "was"),
    [
        ("data__task", "regression", "single_label"),
        ("training__seed", 7, "0"),
        ("method__name", "ia3", "lora"),
        ("model__truncation", "head", "head+tail"),
    ],
)
def test_an_altered_config_is_found_before_training(
    copy: RunLayout, tmp_path: Path, setting: str, value: object, was: str
) -> None:
    change_settings(copy, **{setting: value})
    recorder, name = Recorder(), setting.replace("__", ".")
    with pytest.raises(NotReproducedError) as caught:
        reproduce(copy.root, output=tmp_path / "again", progress=recorder)
    assert f"config.yaml was altered: {name} is {value}, the run was made with {was}." in str(caught.value)
    assert caught.value.exit_code == 1
    assert_nothing_trained(recorder, tmp_path / "again")


def test_changed_data_and_base_model_are_found_before_training(
    run: RunLayout, tmp_path: Path, build_encoder: Callable[..., Path]
) -> None:
    source, weights = run.root.parent / "reviews.csv", run.root.parent / "base" / "model.safetensors"
    before, recorder = (source.read_bytes(), weights.read_bytes()), Recorder()
    write_reviews(source, 122)
    shutil.copy(build_encoder("distilbert", initializer_range=0.4) / "model.safetensors", weights)
    try:
        with pytest.raises(NotReproducedError) as caught:
            reproduce(run.root, output=tmp_path / "again", progress=recorder)
    finally:
        source.write_bytes(before[0])
        weights.write_bytes(before[1])
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{run.root} cannot be repeated, and nothing was trained:"
    assert lines[1].startswith("  The data have changed: other rows in train, ")
    assert lines[2] == f"  The base model {weights.parent} has changed (SHA-256 of its weights)."
    assert_nothing_trained(recorder, tmp_path / "again")


def test_a_folder_that_is_taken_is_refused_without_overwrite(run: RunLayout) -> None:
    with pytest.raises(RunError, match=r"already exists, .*Choose another --output, for example \S+run-2") as caught:
        reproduce(run.root, output=run.root)
    assert "--overwrite" not in str(caught.value)


def test_other_labels_are_said(run: RunLayout, tmp_path: Path) -> None:
    source = run.root.parent / "reviews.csv"
    before = source.read_text()
    source.write_text(before.replace(",neg", ",bad"))
    try:
        with pytest.raises(NotReproducedError, match=r"have changed: \['bad', 'pos'\], were \['neg', 'pos'\]"):
            reproduce(run.root, output=tmp_path / "again")
    finally:
        source.write_text(before)


def test_runs_that_did_not_end_are_refused(copy: RunLayout) -> None:
    RunRecord.read(copy.record).model_copy(update={"status": "interrupted"}).write(copy.record)
    with pytest.raises(RunError, match="its status is 'interrupted'"):
        reproduce(copy.root)


def test_the_run_itself_is_never_replaced(run: RunLayout) -> None:
    before = run.record.read_bytes()
    with pytest.raises(RunError, match="already exists"):
        reproduce(run.root, output=run.root)
    assert run.record.read_bytes() == before


@pytest.mark.parametrize(
    ("accuracy", "log_loss", "broken"),
    [(0.902, 0.31, []), (0.898, 0.29, []), (0.9021, 0.3, ["accuracy"]), (0.9, 0.3101, ["log_loss"])],
)
def test_tolerance_is_the_largest_difference_that_agrees(accuracy: float, log_loss: float, broken: list[str]) -> None:
    then, now = {"accuracy": 0.9, "log_loss": 0.3}, {"accuracy": accuracy, "log_loss": log_loss}
    limits = TOLERANCES["single_label"]
    figures = [_compare_figure(name, then[name], now[name], limit) for name, limit in limits.items()]
    assert [figure.name for figure in figures if not figure.agrees] == broken


def test_tolerances_are_those_of_the_task() -> None:
    none = {"log_loss": None, "r2": None}
    assert _choose_tolerances("single_label", None, none) == TOLERANCES["single_label"]
    assert _choose_tolerances("multi_label", 0.1, none) == {"micro_f1": 0.1, "log_loss": 0.01}
    assert _choose_tolerances("regression", 0.0, {"log_loss": None, "r2": 0.5}) == {"mae": 0.0, "r2": 0.5}
    assert TOLERANCES["regression"] == {"mae": 0.01, "r2": 0.01}, "the table itself stays as it is"


@pytest.mark.parametrize(("name", "task"), [("log_loss", "regression"), ("r2", "multi_label")])
def test_a_tolerance_that_the_task_has_not_is_named_as_it_was_given(name: str, task: Task) -> None:
    flag = f"--{name.replace('_', '-')}-tolerance"
    with pytest.raises(UserInputError, match=f"{flag} cannot be kept: the task of the run is {task}"):
        _choose_tolerances(task, None, {name: 0.1})


def test_the_unit_of_an_error_is_the_spread_of_the_true_numbers_or_the_error_where_there_is_none() -> None:
    assert _measure_unit(np.array([1.0, 3.0]), 0.25) == 1
    for alike in (np.array([7.0]), np.full(3, 0.1)):
        assert _measure_unit(alike, 0.25) == 0.25
    figure = _compare_figure("mae", 0.25, 0.252, 0.01 * _measure_unit(np.array([7.0]), 0.25))
    assert figure.agrees
    assert not _compare_figure("mae", 0.25, 0.253, 0.01 * _measure_unit(np.array([7.0]), 0.25)).agrees


def test_a_tolerance_of_a_figure_that_is_not_compared_is_refused_before_training(
    run: RunLayout, tmp_path: Path
) -> None:
    with pytest.raises(UserInputError, match=r"--r2-tolerance .* is single_label, .* is accuracy and log_loss"):
        reproduce(run.root, output=tmp_path / "again", r2_tolerance=0.1)
    assert not (tmp_path / "again").exists()


def test_metrics_that_lack_a_figure_are_refused(run_record: RunRecord, tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    scores = TaskScores(figures={"mae": Estimate(value=1, low=0, high=2)})
    TaskMetricsRecord(
        task="regression",
        split="test",
        rows=10,
        confidence_level=0.95,
        bootstrap_samples=100,
        baseline=None,
        finetuned=scores,
        comparison=None,
    ).write(layout.metrics)
    with pytest.raises(RunError, match=r"metrics\.json was altered: it does not hold r2"):
        _read_figures(Side(layout, run_record.model_copy(update={"task": "regression"})))


def test_only_what_does_not_agree_is_said() -> None:
    figures = [
        RepeatedFigure(name="accuracy", then=0.9, now=0.8, tolerance=0.002, agrees=False),
        RepeatedFigure(name="log_loss", then=0.3, now=0.3, tolerance=0.01, agrees=True),
    ]
    record = ReproductionRecord(
        run="runs/a",
        repetition="runs/b",
        agrees=False,
        identical=False,
        rows=10,
        figures=figures,
        largest_difference=0.2,
        rows_changed=1,
    )
    with pytest.raises(NotReproducedError) as caught:
        enforce_reproduction(record)
    assert str(caught.value) == ("runs/a is not reproduced:\n  accuracy: 0.9 then, 0.8 now; they may differ by 0.002")
