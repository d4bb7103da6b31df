import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lorafit
from lorafit.config import Config, load_config
from lorafit.data.tables import read_table
from lorafit.errors import ConfigError, NetworkUnavailableError, RunError, TrainingInterruptedError
from lorafit.experiments.compare.budget import set_method
from lorafit.experiments.compare.compare import Comparison, compare
from lorafit.experiments.compare.records import ComparisonLayout, ComparisonRecord
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import RunRecord
from lorafit.system.progress import Silent
from lorafit.system.records import SCHEMA_VERSION
from lorafit.training.stages import RunStages

METHODS = ["lora", "ia3", "head_only"]


@pytest.fixture(scope="module")
def config(build_encoder: Callable[..., Path], word_reviews: Path) -> Config:
    """Settings of cells of a second or two."""
    return load_config(
        overrides=[
            f"data.source={word_reviews}",
            "data.test_fraction=0.25",
            f"model.name={build_encoder('distilbert', initializer_range=0.1)}",
            "model.max_length=32",
            "method.layers=top1",
            "training.batch_size=16",
            "training.epochs=2",
            "training.learning_rate=5e-3",
            "training.threads=1",
            "evaluation.bootstrap_samples=100",
            "evaluation.report=false",
        ]
    )


@pytest.fixture(scope="module")
def finished(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    return compare(config, METHODS, seeds=2, output=tmp_path_factory.mktemp("comparison") / "all")


class Lines(Silent):
    """Remembers what was said, and presses Ctrl-C at a training step of a cell if told to."""

    def __init__(self, *, stop_in: str = "", at: int = 0) -> None:
        self.lines: list[str] = []
        self._stop_in, self._at = stop_in, at

    def say(self, line: str) -> None:
        self.lines.append(line)

    def update(self, done: int, **figures: float) -> None:
        cell = next((line for line in reversed(self.lines) if re.match(r"\d+ of \d+: ", line)), "")
        if "loss" in figures and done == self._at and self._stop_in in cell:
            signal.raise_signal(signal.SIGINT)


def test_every_cell_is_a_run_of_its_own(finished: Comparison, config: Config) -> None:
    layout = ComparisonLayout(finished.path)
    for method in METHODS:
        for seed in (0, 1):
            run = layout.cell(method, seed)
            record = RunRecord.read(run.record)
            assert (record.status, record.method, record.seed) == ("complete", method, seed)
            assert lorafit.load(run.root).predict(["a superb film"])[0].label in {"neg", "pos"}
            assert not run.checkpoints.exists()
    assert not layout.prefix_cache.exists()
    fingerprints = {
        name: {RunRecord.read(layout.cell(method, 0).record).data.splits[name].fingerprint for method in METHODS}
        for name in ("train", "validation", "test")
    }
    assert {name: {value} for name, value in finished.record.fingerprints.items()} == fingerprints


def test_states_of_the_frozen_layers_are_shared_and_change_nothing(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods, kept = ["lora", "dora"], []
    evaluate = RunStages.evaluate

    def watch(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - what `evaluate` returns
        kept.append(sorted(path.name for path in (tmp_path / "shared" / "prefix_cache").glob("*.bin")))
        return evaluate(*arguments, **named)

    monkeypatch.setattr(RunStages, "evaluate", watch)
    shared = ComparisonLayout(compare(config, methods, output=tmp_path / "shared").path)
    assert kept[0] == kept[1]
    assert len(kept[0]) == 3, "training, validation and test rows; there are too few to calibrate"
    apart = config.model_copy(deep=True)
    apart.training.prefix_cache = "never"
    plain = ComparisonLayout(compare(apart, methods, output=tmp_path / "apart").path)
    for method in methods:
        first, second = (read_table(of.cell(method, 0).predictions("test", "finetuned")) for of in (shared, plain))
        assert first.columns == second.columns
        assert RunRecord.read(shared.cell(method, 0).record).texts_per_second > 0


def test_rows_that_no_other_run_reads_are_not_kept(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = []
    cache = RunStages.cache_frozen_layers

    def watch(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - a context manager
        wanted.append(named["with_test_rows"])
        return cache(*arguments, **named)

    monkeypatch.setattr(RunStages, "cache_frozen_layers", watch)
    compare(config, ["lora"], output=tmp_path / "one")
    everywhere = config.model_copy(deep=True)
    everywhere.method.layers = "all"
    compare(everywhere, ["lora", "ia3"], output=tmp_path / "all layers")
    assert wanted == [False, False, False]


def test_tracker_that_fails_at_the_end_leaves_a_finished_run(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise NetworkUnavailableError("no answer")

    monkeypatch.setattr(RunStages, "track", fail)
    lines = Lines()
    compared = compare(config, ["ia3"], output=tmp_path / "methods", progress=lines)
    assert compared.record.failed == []
    assert not ComparisonLayout(compared.path).cell("ia3", 0).checkpoints.exists()
    assert "ia3, seed 0 is finished and not tracked to its end: no answer" in lines.lines


def test_table_is_what_the_runs_say(finished: Comparison) -> None:
    record = ComparisonRecord.read(ComparisonLayout(finished.path).record)
    assert record == finished.record
    assert [row.method for row in record.methods] == METHODS
    assert record.failed == []
    right = {
        row.method: np.mean([read_right(finished, row.method, seed) for seed in (0, 1)], axis=0)
        for row in record.methods
    }
    losses = {row.method: row.validation_loss for row in record.methods}
    assert record.best == min(losses, key=lambda method: losses[method])
    for row in record.methods:
        assert row.seeds == [0, 1]
        assert row.score.value == pytest.approx(right[row.method].mean())
        assert row.score_by_seed == [read_right(finished, row.method, seed).mean() for seed in (0, 1)]
        assert row.score.low <= row.score.value <= row.score.high
        if row.method == record.best:
            assert row.difference is None
        else:
            assert row.difference is not None
            assert row.difference.value == pytest.approx((right[row.method] - right[record.best]).mean())
        assert row.p_value is None, "a test for one seed each"
        runs = [RunRecord.read(ComparisonLayout(finished.path).cell(row.method, seed).record) for seed in (0, 1)]
        assert row.training_seconds == pytest.approx(np.mean([run.seconds["training"] for run in runs]))
        assert row.parameters == runs[0].parameters
        assert row.bytes_on_disk > 1000
        assert row.peak_memory_bytes > 1e8
        assert row.texts_per_second > 0
    assert [row.name for row in record.cheap_baselines] == ["nb_svm", "tfidf"]
    assert all(row.score.value > 0.9 and row.difference is not None for row in record.cheap_baselines)


def read_right(finished: Comparison, method: str, seed: int) -> np.ndarray:
    path = ComparisonLayout(finished.path).cell(method, seed).predictions("test", "finetuned")
    columns = read_table(path).columns
    return np.array([true == said for true, said in zip(columns["true_label"], columns["label"], strict=True)], float)


def test_page_needs_nothing_from_outside_and_shows_every_method(finished: Comparison) -> None:
    page = ComparisonLayout(finished.path).page.read_text(encoding="utf-8")
    assert not re.search(r"<script|<link (?!rel=\"icon\" href=\"data:,\">)|https?://|url\((?!#)", page)
    for title in ("LoRA", "IA3", "head only", "NB-SVM"):
        assert title in page
    assert page.count("<svg") == 1


def test_one_seed_each_is_tested_by_mcnemar(config: Config, tmp_path: Path) -> None:
    record = compare(config, ["lora", "head_only"], output=tmp_path / "one").record
    other = next(row for row in record.methods if row.method != record.best)
    assert other.p_value is not None
    assert 0 < other.p_value <= 1


def test_started_again_nothing_is_trained_again(finished: Comparison, config: Config) -> None:
    lines = Lines()
    again = compare(config, METHODS, seeds=2, output=finished.path, progress=lines)
    assert sum("finished before" in line for line in lines.lines) == 6
    assert again.record.methods == finished.record.methods
    assert again.record.cheap_baselines == finished.record.cheap_baselines


def test_interrupted_comparison_goes_on_where_it_was(finished: Comparison, config: Config, tmp_path: Path) -> None:
    path = tmp_path / "all"
    with pytest.raises(TrainingInterruptedError, match=rf"Go on with the same command and --output {path}"):
        compare(config, METHODS, seeds=2, output=path, progress=Lines(stop_in="ia3, seed 0", at=5))
    layout = ComparisonLayout(path)
    assert RunRecord.read(layout.cell("ia3", 0).record).status == "interrupted"
    lines = Lines()
    again = compare(config, METHODS, seeds=2, output=path, progress=lines)
    assert sum("finished before" in line for line in lines.lines) == 1
    for row, whole in zip(again.record.methods, finished.record.methods, strict=True):
        assert row.score_by_seed == whole.score_by_seed
        assert row.validation_loss == whole.validation_loss


def test_method_that_fails_does_not_stop_the_others(config: Config, tmp_path: Path) -> None:
    wide = config.model_copy(deep=True)
    wide.method.r = 40
    record = compare(wide, ["lora", "head_only"], output=tmp_path / "some").record
    assert [row.method for row in record.methods] == ["head_only"]
    (failed,) = record.failed
    assert (failed.method, failed.seed) == ("lora", 0)
    assert "method.r=40 is larger than the layer" in str(failed.error)


def test_nothing_that_ends_well_is_said(config: Config, tmp_path: Path) -> None:
    wide = config.model_copy(deep=True)
    wide.method.r = 40
    record = compare(wide, ["lora"], output=tmp_path / "none").record
    assert (record.best, record.methods, len(record.failed)) == (None, [], 1)
    assert "No method finished" in ComparisonLayout(tmp_path / "none").page.read_text()


def test_fault_inside_a_library_is_a_failed_cell_too(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = RunStages.fit

    def fail_for_lora(stages: RunStages) -> None:
        if stages.prepared.config.method.name == "lora":
            raise MemoryError("no room")
        fit(stages)

    monkeypatch.setattr(RunStages, "fit", fail_for_lora)
    record = compare(config, ["lora", "head_only"], output=tmp_path / "some").record
    assert [cell.error for cell in record.failed] == ["MemoryError: no room"]
    monkeypatch.undo()
    assert compare(config, ["lora", "head_only"], output=tmp_path / "some").record.failed == []


def test_settings_are_given_to_those_that_take_them() -> None:
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
def test_what_cannot_be_compared_is_refused_before_any_work(
    config: Config, tmp_path: Path, methods: list[str], seeds: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        compare(config, methods, seeds=seeds, output=tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_folder_of_something_else_is_left_alone(finished: Comparison, config: Config, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match=r"holds something else than a comparison.*--output \S+"):
        compare(config, ["lora"], output=tmp_path)
    other = config.model_copy(deep=True)
    other.training.epochs = 3
    with pytest.raises(RunError, match=r"holds a comparison with other settings .*--output \S+all-2"):
        compare(other, METHODS, output=finished.path)


def test_budget_is_one_for_all(config: Config, tmp_path: Path) -> None:
    tight = config.model_copy(deep=True)
    tight.training.epochs, tight.training.budget = 500, "60s"
    lines = Lines()
    record = compare(tight, ["lora", "head_only"], output=tmp_path / "quick", progress=lines).record
    assert any(line.startswith("to fit 60s: ") for line in lines.lines)
    assert [line for line in lines.lines if "report" in line] == [], "cells have none"
    layout = ComparisonLayout(tmp_path / "quick")
    settings = [load_config(RunLayout(layout.cell(name, 0).root).config) for name in ("lora", "head_only")]
    assert settings[0].training.epochs == settings[1].training.epochs < 500
    assert record.failed == []
    impossible = tight.model_copy(deep=True)
    impossible.training.budget = "1s"
    with pytest.raises(ConfigError, match=r"1 s is too short\. The smallest plan needs about .*: give --budget"):
        compare(impossible, ["lora", "head_only"], output=tmp_path / "never")


def test_command_prints_the_table(finished: Comparison, config: Config) -> None:
    command = [sys.executable, "-m", "lorafit", "compare", config.data.source, "--methods", "lora,ia3,head_only"]
    command += ["--seeds", "2", "--config", str(ComparisonLayout(finished.path).config), "--output", str(finished.path)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "lowest validation loss; test rows choose nothing" in shown
    for method in METHODS:
        assert method in shown
    assert "NB-SVM" in shown
    assert str(ComparisonLayout(finished.path).page) in shown
    quiet = subprocess.run([*command, "--quiet"], capture_output=True, text=True, check=True).stdout
    assert quiet.strip() == str(finished.path)
    assert json.loads(ComparisonLayout(finished.path).record.read_text())["schema_version"] == SCHEMA_VERSION
