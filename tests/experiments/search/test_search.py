import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

import lorafit
from lorafit.config import Config, load_config
from lorafit.errors import ConfigError, RunError, TrainingInterruptedError
from lorafit.experiments.search import study as studies
from lorafit.experiments.search import trials as trial_module
from lorafit.experiments.search.page import rank_trials
from lorafit.experiments.search.records import SearchLayout, SearchRecord, TrialRow
from lorafit.experiments.search.results import _measure_importances
from lorafit.experiments.search.search import Search, _Control, search
from lorafit.experiments.search.space import read_space
from lorafit.experiments.search.trials import Trials
from lorafit.system.progress import Silent
from lorafit.training.prepare import load_material
from lorafit.training.stages import RunStages

BEGUN = r"trial \d+: (learning_rate|r) "
SPACE = "search.space={training.learning_rate: {low: 1e-5, high: 1e-2, log: true}, method.r: [2, 4]}"


@pytest.fixture(scope="module")
def overrides(build_encoder: Callable[..., Path], word_reviews: Path) -> list[str]:
    """Settings of trials of a second."""
    return [
        f"data.source={word_reviews}",
        "data.test_fraction=0.25",
        f"model.name={build_encoder('distilbert', initializer_range=0.1)}",
        "model.max_length=32",
        "method.layers=top1",
        "training.batch_size=16",
        "training.epochs=2",
        "training.learning_rate=5e-3",
        "training.threads=1",
        SPACE,
    ]


@pytest.fixture(scope="module")
def config(overrides: list[str]) -> Config:
    return load_config(overrides=overrides)


@pytest.fixture(scope="module")
def finished(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Search:
    return search(config, 6, output=tmp_path_factory.mktemp("search") / "all")


class Lines(Silent):
    """Remembers what was said, and presses Ctrl-C at a training step of a trial if told to."""

    def __init__(self, *, stop_in: int = 0) -> None:
        self.lines: list[str] = []
        self._stop_in = stop_in

    def say(self, line: str) -> None:
        self.lines.append(line)

    def update(self, _: int, **figures: float) -> None:
        begun = [line for line in self.lines if re.match(BEGUN, line)]
        if "loss" in figures and self._stop_in and begun[-1].startswith(f"trial {self._stop_in}:"):
            self._stop_in = 0
            signal.raise_signal(signal.SIGINT)


def test_the_first_trial_takes_the_settings_as_they_are(finished: Search) -> None:
    first = finished.record.trials[0]
    assert first.values["training.learning_rate"] == 5e-3
    assert first.state == "complete"


def test_the_winner_is_the_complete_trial_with_the_lowest_validation_loss(finished: Search) -> None:
    complete = [row for row in finished.record.trials if row.state == "complete"]
    assert len(finished.record.trials) == 6
    assert finished.record.best == min(complete, key=lambda row: row.loss or 0).number
    assert rank_trials(finished.record.trials)[0].number == finished.record.best


def test_the_winners_settings_give_its_loss_again(finished: Search, tmp_path: Path) -> None:
    winner = next(row for row in finished.record.trials if row.number == finished.record.best)
    config = load_config(SearchLayout(finished.path).best, overrides=["evaluation.cheap_baselines=false"])
    assert config.training.learning_rate == winner.values["training.learning_rate"]
    run = lorafit.train(config, output=tmp_path / "run")
    assert run.record.training is not None
    assert run.record.training.best_validation_loss == pytest.approx(winner.loss, rel=1e-5)


def test_test_rows_are_not_measured_and_nothing_but_results_is_kept(finished: Search) -> None:
    layout = SearchLayout(finished.path)
    assert set(finished.record.rows) == {"train", "validation"}
    assert not layout.prefix_cache.exists()
    kept = {path.name for path in layout.trial(0).root.iterdir()}
    assert kept == {"config.yaml", "history.jsonl"}
    assert SearchRecord.read(layout.record) == finished.record


def test_the_page_shows_every_trial_and_what_mattered(finished: Search) -> None:
    page = SearchLayout(finished.path).page.read_text(encoding="utf-8")
    assert all(f'<th scope="row">{row.number + 1}</th>' in page for row in finished.record.trials)
    assert "training.learning_rate" in page
    assert "at least 20 trials" in page


def test_importances_tell_what_mattered_from_twenty_trials_on() -> None:
    study = optuna.create_study()
    ranges = {name: optuna.distributions.FloatDistribution(0, 1) for name in ("strong", "weak")}
    rng, rows = np.random.default_rng(0), []
    for number in range(30):
        values = dict(zip(ranges, rng.random(2).tolist(), strict=True))
        loss = (values["strong"] - 0.3) ** 2 + 0.01 * values["weak"]
        study.add_trial(optuna.trial.create_trial(params=values, distributions=ranges, value=loss))
        rows.append(TrialRow(number=number, state="complete", values=values, loss=loss, score=None, seconds=1))
    assert _measure_importances(study, rows[:19]) == {}
    importances = _measure_importances(study, rows)
    assert list(importances) == ["strong", "weak"]
    assert importances["strong"] > 0.8
    same = [row.model_copy(update={"loss": 0.5}) for row in rows]
    assert _measure_importances(study, same) == {}


def test_a_search_goes_on_where_it_ended(finished: Search, config: Config) -> None:
    lines = Lines()
    longer = search(config, 7, output=finished.path, progress=lines)
    assert longer.record.trials[:6] == finished.record.trials
    assert len(longer.record.trials) == 7
    assert [line.partition(":")[0] for line in lines.lines if re.match(BEGUN, line)] == ["trial 7"]
    again = search(config, 7, output=finished.path)
    assert again.record.trials == longer.record.trials


def test_the_same_seed_draws_the_same_trials(config: Config, finished: Search, tmp_path: Path) -> None:
    again = search(config, 2, output=tmp_path / "again")
    assert [row.values for row in again.record.trials] == [row.values for row in finished.record.trials[:2]]
    assert [row.loss for row in again.record.trials] == [row.loss for row in finished.record.trials[:2]]


@pytest.mark.parametrize("stop_in", [1, 2])
def test_an_interrupted_trial_is_begun_again(config: Config, finished: Search, tmp_path: Path, stop_in: int) -> None:
    with pytest.raises(TrainingInterruptedError, match="Go on with the same command and --output") as caught:
        search(config, 2, output=tmp_path / "search", progress=Lines(stop_in=stop_in))
    assert caught.value.exit_code == 130
    whole = search(config, 2, output=tmp_path / "search")
    assert len(whole.record.trials) == 2
    assert {row.state for row in whole.record.trials} == {"complete"}
    uninterrupted = [(row.values, row.loss) for row in finished.record.trials[: 2 if stop_in == 2 else 1]]
    assert [(row.values, row.loss) for row in whole.record.trials][: len(uninterrupted)] == uninterrupted


def test_ctrl_c_in_a_validation_that_prunes_is_heard(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def see(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)
        raise optuna.TrialPruned

    monkeypatch.setattr(trial_module._Watch, "see", see)
    with pytest.raises(TrainingInterruptedError):
        search(config, 2, output=tmp_path / "search")


def test_values_that_were_tried_are_not_trained_again(overrides: list[str], tmp_path: Path) -> None:
    few = load_config(overrides=[*overrides[:-1], "search.space={method.r: [2]}"])
    lines = Lines()
    result = search(few, 3, output=tmp_path / "search", progress=lines)
    assert sum("is not repeated" in line for line in lines.lines) == 2
    assert len({row.loss for row in result.record.trials}) == 1
    assert result.record.best == 0


def test_a_hopeless_trial_is_pruned(overrides: list[str], tmp_path: Path) -> None:
    rates = "search.space={training.learning_rate: [5e-3, 4e-3, 3e-3, 2e-3, 1e-9, 2e-9, 3e-9, 4e-9]}"
    pruned = load_config(overrides=[*overrides[:-1], rates, "search.seed=1"])
    result = search(pruned, 14, output=tmp_path / "search")
    states = {row.values["training.learning_rate"]: row.state for row in result.record.trials}
    assert "pruned" in states.values()
    assert all(rate < 1e-8 for rate, state in states.items() if state == "pruned")


def test_a_trial_that_cannot_be_does_not_stop_the_others(overrides: list[str], tmp_path: Path) -> None:
    wide = load_config(overrides=[*overrides[:-1], "search.space={method.r: [4, 4096]}"])
    result = search(wide, 6, output=tmp_path / "search")
    failed = [row for row in result.record.trials if row.state == "failed"]
    assert failed
    assert all(row.values == {"method.r": 4096} and "4096" in str(row.error) for row in failed)


def test_what_failed_for_want_of_something_is_tried_again(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(RunStages, "fit", fail)
        with pytest.raises(RunError, match="OSError: No space left on device"):
            search(config, 5, output=tmp_path / "search")
    result = search(config, 5, output=tmp_path / "search")
    states = [row.state for row in result.record.trials]
    assert states == ["failed"] * 3 + ["complete"] * 2


def test_a_search_in_which_nothing_works_ends_early_with_the_reason(overrides: list[str], tmp_path: Path) -> None:
    wide = load_config(overrides=[*overrides[:-1], "method.r=8", "search.space={method.r: [2048, 4096, 8192]}"])
    with pytest.raises(RunError, match=r"No trial ended well\. The last one: .*larger"):
        search(wide, 50, output=tmp_path / "search")
    trials = SearchRecord.read(SearchLayout(tmp_path / "search").record).trials
    assert 3 <= len(trials) <= 10
    assert sum(row.same_as is None for row in trials) == 3, "what cannot be is not tried twice"


def test_two_processes_share_the_trials(overrides: list[str], tmp_path: Path) -> None:
    settings = [part for override in overrides for part in ("--set", override)]
    source = overrides[0].partition("=")[2]
    command = [sys.executable, "-m", "lorafit", "search", source, "--trials", "6", *settings, "--output", "shared"]
    two = [subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300)[1] for process in two]
    assert [process.returncode for process in two] == [0, 0], "\n".join(said)
    trials = SearchRecord.read(SearchLayout(tmp_path / "shared").record).trials
    assert [row.number for row in trials] == list(range(len(trials)))
    assert 6 <= len(trials) <= 7  # both may begin the last one at the same moment
    begun = [{line.split()[1] for line in text.splitlines() if re.match(BEGUN, line)} for text in said]
    assert all(begun), "one process did all"
    assert not begun[0] & begun[1]
    rates = {row.values["training.learning_rate"] for row in trials}
    assert len(rates) == len(trials), "the user's own values are tried once"


def test_another_space_is_refused(finished: Search, overrides: list[str]) -> None:
    other = load_config(overrides=[*overrides[:-1], "search.space={method.r: [2, 8]}"])
    with pytest.raises(RunError, match=r"holds a search with other settings \(search\.yaml there\).*--output"):
        search(other, 6, output=finished.path)


def test_a_store_from_another_space_is_refused(finished: Search, overrides: list[str], tmp_path: Path) -> None:
    other = load_config(overrides=[*overrides[:-1], "search.space={method.r: [2, 8]}"])
    layout = SearchLayout(tmp_path / "moved")
    layout.root.mkdir()
    layout.config.write_text(other.to_yaml(), encoding="utf-8")
    layout.study.write_bytes(SearchLayout(finished.path).study.read_bytes())
    with pytest.raises(RunError, match="holds a search with other space"):
        search(other, 6, output=layout.root)


def test_a_locked_store_is_named(finished: Search, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "_WAIT", 0.2)
    with sqlite3.connect(SearchLayout(finished.path).study, isolation_level=None) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(RunError, match=r"study\.db cannot be used .*locked.*close that"):
            search(config, 99, output=finished.path)
    holder.close()


def test_a_store_of_another_version_is_named(finished: Search, config: Config, tmp_path: Path) -> None:
    layout = SearchLayout(tmp_path / "old")
    layout.root.mkdir()
    layout.config.write_text(config.to_yaml(), encoding="utf-8")
    layout.study.write_bytes(SearchLayout(finished.path).study.read_bytes())
    with sqlite3.connect(layout.study) as store:
        store.execute("UPDATE alembic_version SET version_num = 'v1.3.0.a'")
    store.close()
    with pytest.raises(RunError, match="written by another version of Optuna"):
        search(config, 6, output=layout.root)


def test_a_folder_may_have_any_name(config: Config, tmp_path: Path) -> None:
    result = search(config, 1, output=tmp_path / "a?b {c} %41 #")
    assert SearchLayout(result.path).study.is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["a?b {c} %41 #"]


def test_repeats_and_failures_do_not_shorten_what_a_trial_is_expected_to_take(config: Config) -> None:
    def make(number: int, seconds: float, **more: Any) -> TrialRow:
        return TrialRow(number=number, values={}, loss=1, score=None, seconds=seconds, **more)

    objective = Trials(config, read_space(config), SearchLayout(Path()), load_material(config), Silent())
    control = _Control(optuna.create_study(), objective, 99)
    control.limit(time.perf_counter() + 100, expected=150)
    assert control._has_no_room([])
    rows = [make(0, 150, state="complete"), make(1, 0, state="complete", same_as=0), make(2, 0, state="failed")]
    assert control._has_no_room(rows)
    assert not control._has_no_room([*rows, make(3, 10, state="pruned")])


def test_a_damaged_store_is_named(finished: Search, config: Config, tmp_path: Path) -> None:
    layout = SearchLayout(tmp_path / "damaged")
    layout.root.mkdir()
    layout.config.write_text(config.to_yaml(), encoding="utf-8")
    layout.study.write_text("not a database, but long enough to be taken for one" * 100, encoding="utf-8")
    with pytest.raises(RunError, match="not a database"):
        search(config, 6, output=layout.root)


@pytest.mark.parametrize(
    ("trials", "budget", "words"),
    [(0, None, "--trials takes a number"), (1, "soon", "--budget takes a time"), (1, "0.01s", "one trial takes about")],
)
def test_what_cannot_be_done_is_refused_before_it_begins(
    config: Config, tmp_path: Path, trials: int, budget: str | None, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        search(config, trials, budget=budget, output=tmp_path / "search")
    assert not (tmp_path / "search").exists()


def test_a_runs_budget_is_refused(overrides: list[str]) -> None:
    with pytest.raises(ConfigError, match="time of the whole search"):
        search(load_config(overrides=[*overrides, "training.budget=1m"]), 1)


def test_a_folder_of_something_else_is_left_alone(config: Config, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(RunError, match="something else than a search"):
        search(config, 1, output=tmp_path)


def test_no_trial_begins_that_the_budget_has_no_room_for(config: Config, tmp_path: Path) -> None:
    lines = Lines()
    result = search(config, 500, budget="6s", output=tmp_path / "search", progress=lines)
    assert 1 <= len(result.record.trials) < 60
    assert any("no room for another trial" in line for line in lines.lines)


def test_trials_share_what_frozen_layers_give(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[Any] = []
    fit = RunStages.fit

    def watch(*arguments: Any, **named: Any) -> None:
        fit(*arguments, **named)
        folders.append(sorted(path.name for path in (tmp_path / "search" / "prefix_cache").glob("*.bin")))

    monkeypatch.setattr(RunStages, "fit", watch)
    search(config, 2, output=tmp_path / "search")
    assert len(folders[0]) == 2, "training and validation rows"
    assert folders[0] == folders[1]


def test_materials_are_read_once(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    monkeypatch.setattr(
        "lorafit.experiments.search.search.load_material", lambda given: reads.append(given) or load_material(given)
    )
    search(config, 2, output=tmp_path / "search")
    assert len(reads) == 1
    assert json.loads((tmp_path / "search" / "search.json").read_text(encoding="utf-8"))["best"] is not None


def test_a_killed_process_leaves_its_trial_to_others(overrides: list[str], config: Config, tmp_path: Path) -> None:
    settings = [part for override in overrides for part in ("--set", override)]
    command = [sys.executable, "-m", "lorafit", "search", config.data.source, "--trials", "2", *settings]
    process = subprocess.Popen([*command, "--output", "killed"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    next(line for line in process.stderr if line.startswith("trial 2: learning_rate"))
    layout = SearchLayout(tmp_path / "killed")
    beating = "SELECT 1 FROM trial_heartbeats JOIN trials USING (trial_id) WHERE number = 1"
    with sqlite3.connect(layout.study) as store:
        while not store.execute(beating).fetchall():  # a thread of its own gives the first sign of life
            time.sleep(0.01)
    store.close()
    process.kill()
    process.communicate()
    with sqlite3.connect(layout.study) as store:
        running = store.execute("SELECT trial_id, number FROM trials WHERE state = 'RUNNING'").fetchall()
        store.execute("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-10 minutes')")
    store.close()
    assert [number for _, number in running] == [1]
    whole = search(load_config(layout.config), 2, output=layout.root)
    assert [row.number for row in whole.record.trials] == [0, 2]
    assert not layout.prefix_cache.exists()
