"""Comparisons that train."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lorafit
from lorafit.cli import main
from lorafit.config import Config, load_config
from lorafit.data.tables import read_table
from lorafit.errors import ConfigError, NetworkUnavailableError, RunError, TrainingInterruptedError
from lorafit.experiments.compare.budget import fit_budget, set_method
from lorafit.experiments.compare.compare import Comparison, compare
from lorafit.experiments.compare.records import ComparisonLayout, ComparisonRecord
from lorafit.runs.records import RunRecord
from lorafit.system.records import SCHEMA_VERSION
from lorafit.tasks.records import MetricsRecord
from lorafit.tasks.registry import TASKS
from lorafit.training.planning.schedule import complete_schedule
from lorafit.training.prepare import load_material
from lorafit.training.stages import RunStages

METHODS = ["lora", "head_only"]
Settings = Callable[..., list[str]]
Listen = Callable[..., Any]


@pytest.fixture(scope="module")
def config(tiny_settings: Settings) -> Config:
    """Settings of cells of a second, with more time than they need."""
    return load_config(overrides=[*tiny_settings(), "training.budget=1h"])


@pytest.fixture(scope="module")
def finished(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Both methods with two seeds. Tests leave it as it is."""
    return compare(config, METHODS, seeds=2, output=tmp_path_factory.mktemp("comparison") / "all")


@pytest.fixture
def one_seed(config: Config) -> Config:
    """Settings without a budget, which needs no forecast."""
    plain = config.model_copy(deep=True)
    plain.training.budget = None
    return plain


def test_every_cell_is_a_run_of_its_own(finished: Comparison) -> None:
    layout = ComparisonLayout(finished.path)
    for method in METHODS:
        for seed in (0, 1):
            run = layout.cell(method, seed)
            record = RunRecord.read(run.record)
            assert (record.status, record.method, record.seed) == ("complete", method, seed)
            fingerprints = {name: split.fingerprint for name, split in record.data.splits.items()}
            assert fingerprints == finished.record.fingerprints
            assert not run.checkpoints.exists()
        assert lorafit.load(layout.cell(method, 0).root).predict(["a superb film"])[0].label in {"neg", "pos"}
    assert not layout.prefix_cache.exists()


def test_table_repeats_what_the_runs_hold(finished: Comparison) -> None:
    layout = ComparisonLayout(finished.path)
    record = ComparisonRecord.read(layout.record)
    assert record == finished.record
    assert [row.method for row in record.methods] == METHODS
    assert record.failed == []
    for row in record.methods:
        runs = [layout.cell(row.method, seed) for seed in row.seeds]
        scores = [MetricsRecord.read(run.metrics).after.metrics["accuracy"].value for run in runs]
        records = [RunRecord.read(run.record) for run in runs]
        assert row.seeds == [0, 1]
        assert row.score_by_seed == pytest.approx(scores)
        assert row.score.value == pytest.approx(np.mean(scores))
        assert row.training_seconds == pytest.approx(np.mean([run.seconds["training"] for run in records]))
        assert row.parameters == records[0].parameters
        weights = runs[0].trained / ("adapter_model.safetensors" if row.method == "lora" else "model.safetensors")
        assert row.bytes_on_disk == weights.stat().st_size
        assert row.peak_memory_bytes > 1e8
        assert row.texts_per_second > 0
    losses = {row.method: row.validation_loss for row in record.methods}
    assert record.best == min(losses, key=lambda method: losses[method])
    assert [row.name for row in record.baselines] == ["majority", "nb_svm", "tfidf", "embedding"]
    assert all(row.score.value > 0.9 for row in record.baselines[1:3])
    assert all(row.difference is not None for row in record.baselines)


def test_page_needs_nothing_from_outside_and_shows_every_method(finished: Comparison) -> None:
    page = ComparisonLayout(finished.path).page.read_text(encoding="utf-8")
    assert not re.search(r"<script|<link (?!rel=\"icon\" href=\"data:,\">)|https?://|url\((?!#)", page)
    assert all(title in page for title in ("LoRA", "head only", "NB-SVM"))
    assert page.count("<svg") == 1


@pytest.mark.parametrize(
    "task",
    [
        pytest.param(name, marks=pytest.mark.slow if name != "ordinal" else ())
        for name in TASKS
        if name != "single_label"
    ],
)
def test_every_task_is_compared_by_its_primary_metric(task: str, tiny_settings: Settings, tmp_path: Path) -> None:
    record = compare(load_config(overrides=tiny_settings(task)), ["head_only"], output=tmp_path / "methods").record
    (row,), layout = record.methods, ComparisonLayout(tmp_path / "methods")
    metrics = MetricsRecord.read(layout.cell("head_only", 0).metrics)
    primary = next(iter(metrics.after.metrics))
    assert row.score.model_dump() == pytest.approx(metrics.after.metrics[primary].model_dump())
    best = row.score.value
    assert all(
        one.difference is not None and one.difference.value == pytest.approx(one.score.value - best)
        for one in record.baselines
    )
    assert record.metric.title in layout.page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_cached_layers_are_shared_and_change_no_prediction(
    finished: Comparison, one_seed: Config, tmp_path: Path
) -> None:
    one_seed.training.prefix_cache = "never"
    apart = ComparisonLayout(compare(one_seed, METHODS, output=tmp_path / "apart").path)
    for method in METHODS:
        first, second = (
            read_table(of.cell(method, 0).predictions("test", "after")).columns
            for of in (ComparisonLayout(finished.path), apart)
        )
        assert first == second


@pytest.mark.parametrize(
    ("methods", "layers", "kept"),
    [(["lora", "dora"], "top1", True), (["lora"], "top1", False), (["lora", "ia3"], "all", False)],
)
def test_test_rows_are_cached_where_another_cell_reads_them(
    one_seed: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    methods: list[str],
    layers: str,
    kept: bool,
) -> None:
    files = []

    def look(stages: RunStages, **_: Any) -> None:
        files.append(sorted(path.name for path in (tmp_path / "x" / "prefix_cache").glob("*.bin")))
        raise ConfigError("enough is seen")

    monkeypatch.setattr(RunStages, "fit", look)
    one_seed.method.layers = layers
    one_seed.evaluation.baselines = False
    assert len(compare(one_seed, methods, output=tmp_path / "x").record.failed) == len(methods)
    assert files == [files[0]] * len(methods), "later cells read what the first wrote"
    assert len(files[0]) == (3 if kept else 2 if layers != "all" else 0)


def test_tracker_that_fails_at_the_end_leaves_a_finished_run(
    one_seed: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listen: Listen
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise NetworkUnavailableError("no answer")

    monkeypatch.setattr(RunStages, "track", fail)
    one_seed.evaluation.baselines = False
    lines = listen()
    compared = compare(one_seed, ["head_only"], output=tmp_path / "methods", progress=lines)
    assert (compared.record.failed, compared.record.baselines) == ([], [])
    assert not ComparisonLayout(compared.path).cell("head_only", 0).checkpoints.exists()
    assert "head_only, seed 0 is finished and not tracked to its end: no answer" in lines.lines


def test_called_again_it_trains_nothing_twice(finished: Comparison, config: Config, listen: Listen) -> None:
    lines = listen()
    again = compare(config, METHODS[:1], seeds=2, output=finished.path, progress=lines)
    assert sum("finished before" in line for line in lines.lines) == 4, "a method not asked for stays"
    assert any("settings chosen before" in line for line in lines.lines)
    assert again.record.methods == finished.record.methods
    assert again.record.baselines == finished.record.baselines


@pytest.mark.slow
def test_interrupted_comparison_resumes_where_it_was(
    finished: Comparison, one_seed: Config, tmp_path: Path, listen: Listen
) -> None:
    def stop(lines: list[str], step: int) -> bool:
        return step == 5 and any("2 of 2: head_only" in line for line in lines)

    path = tmp_path / "some"
    with pytest.raises(
        TrainingInterruptedError, match=rf"Resume with:\n  lorafit compare --config {path}\S* .*--output {path}"
    ):
        compare(one_seed, METHODS, output=path, progress=listen(stop))
    assert RunRecord.read(ComparisonLayout(path).cell("head_only", 0).record).status == "interrupted"
    lines = listen()
    again = compare(one_seed, METHODS, output=path, progress=lines)
    assert sum("finished before" in line for line in lines.lines) == 1
    for row, whole in zip(again.record.methods, finished.record.methods, strict=True):
        assert row.score_by_seed == whole.score_by_seed[:1]


@pytest.mark.slow
def test_cell_that_fails_stops_no_other_and_is_tried_again(
    one_seed: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = RunStages.fit

    def fail_for_lora(stages: RunStages) -> None:
        if stages.prepared.config.method.name == "lora":
            raise MemoryError("no room")
        fit(stages)

    with monkeypatch.context() as patch:
        patch.setattr(RunStages, "fit", fail_for_lora)
        record = compare(one_seed, METHODS, output=tmp_path / "some").record
    assert [row.method for row in record.methods] == ["head_only"]
    (cell,) = record.failed
    assert (cell.method, cell.seed) == ("lora", 0)
    assert cell.error.startswith("The memory is not enough.")
    again = compare(one_seed, METHODS, output=tmp_path / "some").record
    assert [row.method for row in again.methods] == METHODS
    assert again.failed == []


def test_comparison_in_which_every_cell_fails_has_a_record_and_a_page(one_seed: Config, tmp_path: Path) -> None:
    one_seed.method.r = 40
    record = compare(one_seed, ["lora"], output=tmp_path / "none").record
    assert (record.best, record.methods) == (None, [])
    assert "method.r=40 is larger than the layer" in str(record.failed[0].error)
    assert all(row.difference is None for row in record.baselines)
    assert "No method finished" in ComparisonLayout(tmp_path / "none").page.read_text()


def test_methods_take_the_settings_that_they_know() -> None:
    config = load_config(overrides=["method.r=16", "method.layers=top1", "training.learning_rate=1e-3"])
    lora, ia3, full = (set_method(config, name, 3) for name in ("lora", "ia3", "full"))
    assert (lora.method.r, lora.method.layers, lora.training.seed) == (16, "top1", 3)
    assert (ia3.method.r, ia3.method.layers, ia3.method.target_modules) == (None, "top1", "key-value-down")
    assert full.method.layers == "all"
    assert {cell.training.learning_rate for cell in (lora, ia3, full)} == {1e-3}


@pytest.mark.parametrize(
    ("methods", "seeds", "message"),
    [
        ([], 1, "Name at least one method to compare, of: lora"),
        (["lora", "banana"], 1, "there is no method 'banana'"),
        (["lora"], 0, "--seeds takes a number of 1 or more, got 0"),
    ],
)
def test_wrong_arguments_are_refused_before_any_work(
    one_seed: Config, tmp_path: Path, methods: list[str], seeds: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        compare(one_seed, methods, seeds=seeds, output=tmp_path / "x")
    one_seed.method.options = {"init_lora_weights": True}
    with pytest.raises(ConfigError, match=r"method\.options: they belong to one method"):
        compare(one_seed, ["lora"], output=tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [
        "chosen.yaml",
        "predictions/test.majority.parquet",
        "cells/lora-seed0/predictions/test.after.parquet",
        "cells/lora-seed0/adapter/adapter_model.safetensors",
    ],
)
def test_files_that_it_goes_on_with_are_as_they_were(
    finished: Comparison, config: Config, tmp_path: Path, name: str
) -> None:
    folder = Path(shutil.copytree(finished.path, tmp_path / "all"))
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(RunError, match=rf"{name} was altered after.*{'to train it again' if 'cells' in name else ''}"):
        compare(config, METHODS, seeds=2, output=folder)


def test_settings_that_the_manifest_does_not_name_are_none(tmp_path: Path) -> None:
    layout = ComparisonLayout(tmp_path)
    layout.chosen.write_text("seed: 0")
    assert not layout.is_kept(layout.chosen), "it was stopped before the manifest was written"
    layout.keep(layout.chosen)
    assert layout.is_kept(layout.chosen)
    assert not layout.is_kept(layout.predictions("majority"))
    layout.chosen.unlink()
    with pytest.raises(RunError, match=r"chosen\.yaml is missing"):
        layout.is_kept(layout.chosen)


def test_folder_of_something_else_is_left_alone(finished: Comparison, config: Config, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match=r"holds something else than a comparison.*--output \S+"):
        compare(config, ["lora"], output=tmp_path)
    other = config.model_copy(deep=True)
    other.training.epochs = 3
    with pytest.raises(RunError, match=r"holds a comparison with other settings .*--output \S+all-2"):
        compare(other, METHODS, output=finished.path)


@pytest.mark.slow
def test_one_budget_is_fitted_for_all_methods(finished: Comparison, one_seed: Config, listen: Listen) -> None:
    chosen = load_config(ComparisonLayout(finished.path).chosen)
    assert chosen == complete_schedule(one_seed, 100), "there is time enough"
    material = load_material(one_seed)
    one_seed.training.epochs, one_seed.training.budget = 500, "60s"
    one_seed, lines = complete_schedule(one_seed, 100), listen()
    shared = fit_budget(one_seed, METHODS, 2, material, lines)
    assert any(line.startswith("to fit 60s: ") for line in lines.lines)
    assert not any("report" in line for line in lines.lines), "cells have none"
    assert shared.training.epochs < 500
    assert (shared.training.budget, shared.evaluation.before) == (None, True)
    one_seed.training.budget = "1s"
    with pytest.raises(ConfigError, match=r"1 s is too short\. The smallest plan needs about .*: give --budget"):
        fit_budget(one_seed, METHODS, 2, material, listen())


def test_command_prints_the_table(finished: Comparison, config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    layout = ComparisonLayout(finished.path)
    words = ["compare", config.data.source, "--methods", ",".join(METHODS), "--seeds", "2"]
    words += ["--config", str(layout.config), "--output", str(finished.path)]
    with pytest.raises(SystemExit, match="0"):
        main(words)
    shown = capsys.readouterr().out
    assert "lowest validation loss; test rows choose nothing" in shown
    assert all(name in shown for name in (*METHODS, "NB-SVM", str(layout.page)))
    with pytest.raises(SystemExit, match="0"):
        main([*words, "--quiet"])
    assert capsys.readouterr().out.strip() == str(finished.path)
    assert json.loads(layout.record.read_text())["schema_version"] == SCHEMA_VERSION
