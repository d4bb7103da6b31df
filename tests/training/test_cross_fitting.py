"""Few rows: all train, and out-of-fold predictions calibrate."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lorafit
from lorafit.config import Config, load_config
from lorafit.data.rows import Split
from lorafit.errors import ConfigError, TrainingDivergedError, TrainingInterruptedError
from lorafit.experiments.reproduce import reproduce
from lorafit.reports.page import write_report
from lorafit.runs.evidence import read_settings
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import RunRecord
from lorafit.system import hardware
from lorafit.system.progress import Silent
from lorafit.tasks.registry import TASKS, build_task, get_task
from lorafit.training import folds as out_of_fold
from lorafit.training import pipeline
from lorafit.training.evaluation import evaluate
from lorafit.training.folds import assign_held_out_folds, cross_fit, predict_baseline_folds
from lorafit.training.pipeline import Run, resume
from lorafit.training.prepare import prepare, restoring_threads, use_threads
from lorafit.training.stages import RunStages

LABELS: dict[str, Callable[[int, int], object]] = {
    "single_label": lambda good, _: ("neg", "pos")[good],
    "multi_label": lambda good, long: [name for name, has in (("good", good), ("long", long)) if has],
    "regression": lambda good, long: 50 + 10 * good + 5 * long,
    "ordinal": lambda good, long: 1 + good + long,
}


class Lines(Silent):
    """A progress that remembers lines, and presses Ctrl-C at a line once."""

    def __init__(self, stop: str = "") -> None:
        self.lines: list[str] = []
        self.stop = stop

    def say(self, line: str) -> None:
        self.lines.append(line)
        if self.stop and line.startswith(self.stop):
            self.stop = ""
            raise KeyboardInterrupt


class Stages(Silent):
    """A progress that remembers how much each stage has to do."""

    def __init__(self) -> None:
        self.totals: list[int | None] = []

    def start(self, stage: str, *, total: int | None = None, unit: str = "", seconds: float | None = None) -> None:
        del stage, unit, seconds
        self.totals.append(total)


@pytest.fixture(scope="module")
def build_config(build_encoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Config]:
    """Settings of a run of some seconds on 80 rows, 60 of which train."""
    encoder, folder = build_encoder("distilbert", initializer_range=0.1), tmp_path_factory.mktemp("rows")

    def build(task: str = "single_label", **settings: Any) -> Config:
        path = folder / f"{task}.jsonl"
        places = [(row % 2, row // 2 % 2, row) for row in range(80)]
        rows = [
            {
                "text": f"{('poor', 'superb')[good]} film {('minute', 'hours')[long]} {row}",
                "label": LABELS[task](good, long),
            }
            for good, long, row in places
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        flags = {
            "data.source": str(path),
            "data.task": task,
            "data.test_fraction": 0.25,
            "model.name": str(encoder),
            "model.max_length": 32,
            "training.learning_rate": 1e-2,
            "training.epochs": 2,
            "training.threads": 1,
            "training.precision": "fp32",
            "evaluation.before": False,
            "evaluation.baselines": False,
            "evaluation.report": False,
            "evaluation.bootstrap_samples": 100,
        }
        return load_config(flags=flags | {name.replace("__", "."): value for name, value in settings.items()})

    return build


@pytest.fixture(scope="module")
def run(build_config: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Run:
    return lorafit.train(build_config(), output=tmp_path_factory.mktemp("crossed") / "run")


def test_all_rows_train_and_calibrate(run: Run) -> None:
    layout, record = RunLayout(run.path), run.record
    assert {name: part.rows for name, part in record.data.splits.items()} == {"train": 60, "test": 20}
    assert record.cross_fitted_folds == 5
    assert record.training is not None
    assert (record.training.best_step, record.training.best_validation_loss) == (8, None)
    assert not record.training.stopped_early
    calibration = json.loads(layout.calibration.read_text(encoding="utf-8"))
    assert calibration["rows"] == 60
    assert list(record.seconds)[:3] == ["save check", "training", "cross-fitting"]
    assert record.forecast is not None
    assert record.forecast.seconds["cross-fitting"] > 2 * record.forecast.seconds["training"]
    assert not layout.cross_fitting.exists()
    history = [json.loads(line) for line in layout.history.read_text(encoding="utf-8").splitlines()]
    assert not any(name.startswith("eval_") for entry in history for name in entry)


def test_settings_of_the_run_say_what_was_resolved_and_measure_the_same_rows(run: Run) -> None:
    settings = read_settings(RunLayout(run.path), run.record)
    assert settings.data.validation_fraction == 0
    assert (settings.training.batch_size, settings.training.evaluations_per_epoch) == (16, 2)
    again = evaluate(run.path)
    assert again.after.metrics["accuracy"].value == run.metrics.after.metrics["accuracy"].value


@pytest.mark.slow
def test_report_and_reproduction_work_without_validation_rows(run: Run, tmp_path: Path) -> None:
    page = write_report(run.path).read_text(encoding="utf-8")
    assert "no rows validated" in page
    assert "out of fold" in page
    found = reproduce(run.path, output=tmp_path / "again")
    assert found.identical


def test_an_interrupted_cross_fitting_goes_on_after_its_folds(
    run: Run, build_config: Callable[..., Config], tmp_path: Path
) -> None:
    layout = RunLayout(tmp_path / "run")
    with pytest.raises(TrainingInterruptedError, match="lorafit train --resume"):
        lorafit.train(build_config(), output=layout.root, progress=Lines("fold 3"))
    assert RunRecord.read(layout.record).status == "interrupted"
    assert len(list(layout.cross_fitting.iterdir())) == 2
    progress = Lines()
    resumed = resume(layout.root, progress=progress)
    assert "going on after 2 of 5 folds that are done" in progress.lines
    assert [line for line in progress.lines if line.startswith("fold ")] == [f"fold {fold} of 5" for fold in (3, 4, 5)]
    first, second = (RunLayout(one.path).calibration.read_bytes() for one in (run, resumed))
    assert first == second


@pytest.mark.slow
@pytest.mark.parametrize("task", sorted(set(TASKS) - {"single_label"}))
def test_every_task_is_calibrated_by_cross_fitting(
    task: str, build_config: Callable[..., Config], tmp_path: Path
) -> None:
    run = lorafit.train(build_config(task), output=tmp_path / "run")
    assert run.record.cross_fitted_folds == 5
    assert get_task(run.record.task).calibration_type.read(RunLayout(run.path).calibration)


def test_without_calibration_no_further_model_is_trained(build_config: Callable[..., Config], tmp_path: Path) -> None:
    run = lorafit.train(build_config(data__calibration_fraction=0.0, training__epochs=1), output=tmp_path / "run")
    assert run.record.cross_fitted_folds == 0
    assert "cross-fitting" not in run.record.seconds
    assert not RunLayout(run.path).calibration.exists()


def build_rows(y: list[int], texts: list[str] | None = None, groups: tuple[str, ...] | None = None) -> Split:
    texts = texts or [f"text {row}" for row in range(len(y))]
    return Split(np.arange(len(y)), tuple(texts), np.array(y), groups=groups)


def test_every_row_is_held_out_once_and_labels_are_in_every_training() -> None:
    task, rows = build_task("single_label", ("a", "b", "c")), build_rows([0] * 30 + [1] * 20 + [2] * 2)
    folds = assign_held_out_folds(rows, task, seed=0)
    assert np.unique(folds).tolist() == [0, 1, 2, 3, 4]
    for fold in range(5):
        assert set(rows.y[folds != fold]) == {0, 1, 2}


@pytest.mark.parametrize("count", [2, 3])
def test_one_of_several_labels_is_never_held_out_as_a_whole(count: int) -> None:
    task = build_task("multi_label", tuple("abcdefghijk"))
    marks = np.zeros((200, 11), dtype=np.int64)
    marks[:, 0] = 1
    for label in range(1, 11):
        marks[label * 10 : label * 10 + count, label] = 1
    rows = Split(np.arange(200), tuple(f"text {row}" for row in range(200)), marks)
    for seed in range(10):
        folds = assign_held_out_folds(rows, task, seed=seed)
        assert (folds >= 0).sum() >= 190
        for fold in range(5):
            assert marks[folds != fold].any(axis=0).all()


def test_a_label_of_groups_that_come_with_another_is_never_held_out_as_a_whole() -> None:
    task = build_task("single_label", ("a", "b", "c"))
    groups = (*(f"g{row % 10}" for row in range(50)), "g4", "g7")
    rows = build_rows([0] * 25 + [1] * 25 + [2] * 2, groups=groups)
    for seed in range(20):
        folds = assign_held_out_folds(rows, task, seed=seed)
        assert all(2 in rows.y[folds != fold] for fold in range(5))
        for group in set(groups):
            assert len({fold for fold, name in zip(folds, groups, strict=True) if name == group}) == 1


def test_a_label_of_one_text_or_group_is_always_trained_on() -> None:
    task = build_task("single_label", ("a", "b", "c"))
    alone = assign_held_out_folds(build_rows([0] * 30 + [1] * 20 + [2]), task, seed=0)
    assert alone[-1] == -1
    assert (alone[:-1] >= 0).all()
    repeated = build_rows([0] * 30 + [1] * 20 + [2] * 3, [f"text {row}" for row in range(50)] + ["the same"] * 3)
    assert assign_held_out_folds(repeated, task, seed=0)[-3:].tolist() == [-1] * 3
    groups = (*(f"g{row % 10}" for row in range(50)), "one", "one")
    grouped = build_rows([0] * 25 + [1] * 25 + [2] * 2, groups=groups)
    folds = assign_held_out_folds(grouped, task, seed=0)
    assert folds[-2:].tolist() == [-1, -1]
    for group in set(groups):
        assert len({fold for fold, name in zip(folds, groups, strict=True) if name == group}) == 1


def test_nothing_of_a_text_or_group_that_is_always_trained_on_is_held_out() -> None:
    task = build_task("single_label", ("a", "b", "c"))
    texts = [f"text {row}" for row in range(50)]
    disputed = build_rows([0] * 30 + [1] * 20 + [2], [*texts, "text 3"])
    assert np.flatnonzero(assign_held_out_folds(disputed, task, seed=0) < 0).tolist() == [3, 50]
    groups = (*(f"g{row % 10}" for row in range(50)), "g4")
    folds = assign_held_out_folds(build_rows([0] * 25 + [1] * 25 + [2], groups=groups), task, seed=0)
    assert np.flatnonzero(folds < 0).tolist() == [4, 14, 24, 34, 44, 50]


def test_words_are_read_out_of_fold_of_dealt_rows_alone() -> None:
    task, words = build_task("single_label", ("a", "b")), ("poor", "good")
    rows = build_rows([row % 2 for row in range(42)], [f"{words[row % 2]} film {row}" for row in range(42)])
    folds = np.array([*(row // 2 % 5 for row in range(40)), -1, -1])
    progress = Stages()
    values = predict_baseline_folds("nb_svm", rows, task, folds, progress)
    assert progress.totals == [5]
    assert (values.argmax(axis=1) == rows.y[:40]).all()
    for fold in (0, 3):
        model = task.fit_words(
            "nb_svm", [rows.texts[row] for row in np.flatnonzero(folds != fold)], rows.y[folds != fold]
        )
        held_out = np.flatnonzero(folds == fold)
        np.testing.assert_array_equal(values[held_out], model.score([rows.texts[row] for row in held_out]))


@pytest.mark.parametrize("task", ["single_label", pytest.param("multi_label", marks=pytest.mark.slow)])
def test_embeddings_of_one_reading_are_those_that_every_fold_would_read(
    task: str, build_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, progress = prepare(build_config(task, method__name="embedding"), Silent()), Lines()
    stages = RunStages.begin(prepared, RunLayout(tmp_path), progress)
    held_out = assign_held_out_folds(prepared.splits.train, prepared.task, seed=0)
    quick = cross_fit(stages, held_out, progress)
    assert not any(line.startswith("fold ") for line in progress.lines)
    monkeypatch.setattr(out_of_fold, "predicts_from_embeddings", lambda _: False)
    slow = cross_fit(stages, held_out, progress)
    assert progress.lines.count("fold 5 of 5") == 1
    np.testing.assert_allclose(*(prepared.task.activate(logits) for logits in (quick, slow)), atol=1e-3)


def test_training_leaves_threads_as_they_were_and_takes_those_it_is_left(
    build_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    torch.set_num_threads(2)
    lorafit.train(build_config(training__max_steps=1, data__calibration_fraction=0.0), output=tmp_path / "run")
    assert torch.get_num_threads() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    config = build_config(training__threads=None)
    with restoring_threads():
        assert use_threads(config) == torch.get_num_threads() == 1
        with hardware.use_threads(2):
            assert use_threads(config) == torch.get_num_threads() == 2
    assert torch.get_num_threads() == 2


def test_a_fold_that_diverges_leaves_a_trained_run_uncalibrated(
    build_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*_: object) -> None:
        raise TrainingDivergedError("the loss is not a number any more")

    monkeypatch.setattr(pipeline, "cross_fit", diverge)
    progress = Lines()
    run = lorafit.train(build_config(training__epochs=1), output=tmp_path / "run", progress=progress)
    assert run.record.status == "complete"
    assert not RunLayout(run.path).calibration.exists()
    (event,) = run.record.events
    assert event.startswith("a fold could not be trained, so predictions stay as the model gives them")
    assert event in progress.lines


@pytest.mark.slow
def test_few_rows_are_blended_with_words_that_are_named(build_config: Callable[..., Config], tmp_path: Path) -> None:
    settings = {"training__blend": "nb_svm,tfidf", "training__max_steps": 1, "evaluation__baselines": True}
    run = lorafit.train(build_config(**settings), output=tmp_path / "run")
    blend, layout = run.record.blend, RunLayout(run.path)
    assert blend is not None
    assert (blend.kept, blend.members, blend.rows) == (True, ["nb_svm", "tfidf"], 60)
    told = layout.card.read_text(encoding="utf-8") + write_report(run.path).read_text(encoding="utf-8")
    assert "cross-fitted on 60 held-out rows" in told
    assert "trained nothing" not in told
    assert "neither for training" not in told
    with pytest.raises(ConfigError, match=r"needs calibration rows.*give more rows, or leave"):
        lorafit.train(build_config(**settings, data__max_rows=12), output=tmp_path / "fewer")


def test_too_few_rows_or_labels_calibrate_nothing() -> None:
    task = build_task("single_label", ("a", "b"))
    assert (assign_held_out_folds(build_rows([0, 1] * 9), task, seed=0) == -1).all()
    assert (assign_held_out_folds(build_rows([0] * 30 + [1]), task, seed=0) == -1).all()
    same = build_rows([0, 1] * 20, ["the same"] * 40)
    assert (assign_held_out_folds(same, task, seed=0) == -1).all()


def test_rows_too_few_to_calibrate_are_said(build_config: Callable[..., Config], tmp_path: Path) -> None:
    progress = Lines()
    config = build_config(data__max_rows=12, training__epochs=1)
    run = lorafit.train(config, output=tmp_path / "run", progress=progress)
    assert run.record.cross_fitted_folds == 0
    assert any(line.startswith("12 rows are too few to calibrate with") for line in progress.lines)
