"""Searches that train."""

import errno
import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning

import lorafit
from lorafit.cli import main
from lorafit.config import Config, load_config
from lorafit.errors import ConfigError, EnvironmentUnfitError, RunError, TrainingInterruptedError
from lorafit.experiments.search import search as search_module
from lorafit.experiments.search import study as study_module
from lorafit.experiments.search.page import rank_trials
from lorafit.experiments.search.records import SearchLayout, SearchRecord, TrialRow
from lorafit.experiments.search.search import Search, expect_seconds, search, write_results
from lorafit.experiments.search.space import read_space
from lorafit.experiments.search.study import list_trials
from lorafit.experiments.search.trials import Trials
from lorafit.system.progress import Silent
from lorafit.tasks.registry import TASKS, get_task
from lorafit.training.prepare import load_material
from lorafit.training.stages import RunStages

BEGUN = r"trial (\d+): ((learning_rate|r) .*)"
SPACE = "search.space={training.learning_rate: {low: 1e-5, high: 1e-2, log: true}, method.r: [2, 4]}"

Settings = Callable[..., list[str]]
Listen = Callable[..., Any]


@dataclass
class Watched:
    """A finished search of 4 trials, and what was seen of it.

    Attributes:
        search: The search. Tests leave its folder as it is.
        reads: How often rows and tokenizer were read.
        cached: Files of hidden states after each training.
    """

    search: Search
    reads: int
    cached: list[list[str]]


@pytest.fixture(scope="module")
def overrides(tiny_settings: Settings) -> list[str]:
    return [*tiny_settings(), SPACE]


@pytest.fixture(scope="module")
def config(overrides: list[str]) -> Config:
    return load_config(overrides=overrides)


@pytest.fixture(scope="module")
def watched(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    folder, fit = tmp_path_factory.mktemp("search") / "all", RunStages.fit
    reads: list[Config] = []
    cached: list[list[str]] = []

    def fit_and_look(*arguments: Any, **named: Any) -> None:
        fit(*arguments, **named)
        cached.append(sorted(path.name for path in (folder / "prefix_cache").glob("*.bin")))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunStages, "fit", fit_and_look)
        patch.setattr(search_module, "load_material", lambda given: reads.append(given) or load_material(given))
        found = search(config, 4, output=folder)
    return Watched(found, len(reads), cached)


@pytest.fixture(scope="module")
def finished(watched: Watched) -> Search:
    return watched.search


@pytest.fixture
def copied(finished: Search, tmp_path: Path) -> SearchLayout:
    """A copy that a test may change."""
    return SearchLayout(Path(shutil.copytree(finished.path, tmp_path / "copied")))


def list_begun(lines: Iterable[str]) -> list[tuple[str, str]]:
    """Return number and values of every trial that was begun."""
    return [(match[1], match[2]) for line in lines if (match := re.match(BEGUN, line))]


def test_first_trial_takes_the_settings_as_they_are(finished: Search) -> None:
    first = finished.record.trials[0]
    assert first.values["training.learning_rate"] == 5e-3
    assert first.state == "complete"


def test_winner_is_the_complete_trial_with_the_lowest_validation_loss(finished: Search) -> None:
    complete = [row for row in finished.record.trials if row.state == "complete"]
    assert len(finished.record.trials) == 4
    assert finished.record.best == min(complete, key=lambda row: row.loss or 0).number
    assert rank_trials(finished.record.trials)[0].number == finished.record.best


@pytest.mark.slow
@pytest.mark.no_cover  # a training like any other
def test_settings_of_the_winner_give_its_loss_again(finished: Search, tmp_path: Path) -> None:
    winner = next(row for row in finished.record.trials if row.number == finished.record.best)
    config = load_config(SearchLayout(finished.path).best, overrides=["evaluation.baselines=false"])
    assert config.training.learning_rate == winner.values["training.learning_rate"]
    run = lorafit.train(config, output=tmp_path / "run")
    assert run.record.training is not None
    assert run.record.training.best_validation_loss == pytest.approx(winner.loss, rel=1e-5)


def test_test_rows_are_not_measured_and_nothing_but_results_is_kept(finished: Search) -> None:
    layout = SearchLayout(finished.path)
    assert set(finished.record.rows) == {"train", "validation"}
    assert not layout.prefix_cache.exists()
    assert {path.name for path in layout.trial(0).root.iterdir()} == {"config.yaml", "history.jsonl"}
    assert SearchRecord.read(layout.record) == finished.record


def test_rows_are_read_once_and_frozen_layers_are_computed_once(watched: Watched) -> None:
    assert watched.reads == 1
    assert len(watched.cached[0]) == 2, "training and validation rows"
    assert watched.cached == [watched.cached[0]] * 4


def test_what_is_gone_on_with_is_as_it_was(finished: Search, config: Config, tmp_path: Path) -> None:
    """Settings of a trial, its loss in the study, and the record itself."""
    layout = SearchLayout(Path(shutil.copytree(finished.path, tmp_path / "search")))
    settings, best = layout.trial(0).config, layout.best.read_bytes()
    whole = settings.read_bytes()
    settings.write_bytes(whole.replace(b"seed: 0", b"seed: 1"))
    with pytest.raises(RunError, match=r"0000/config\.yaml was altered after its trial"):
        search(config, 4, output=layout.root)
    settings.write_bytes(whole)
    with closing(sqlite3.connect(layout.study)) as study, study:
        ((loss,),) = study.execute("SELECT value FROM trial_values WHERE trial_id = 2").fetchall()
        study.execute("UPDATE trial_values SET value = value / 2 WHERE trial_id = 2")
    with pytest.raises(RunError, match=r"The study and \S+search\.json contradict each other: trial 2 is another"):
        search(config, 4, output=layout.root)
    with closing(sqlite3.connect(layout.study)) as study, study:
        study.execute("UPDATE trial_values SET value = ? WHERE trial_id = 2", (loss,))
    assert search(config, 4, output=layout.root).record.best == finished.record.best
    layout.record.write_text(layout.record.read_text(encoding="utf-8").replace('"best": ', '"best": 1'))
    with pytest.raises(RunError, match=r"search\.json was altered"):
        search(config, 4, output=layout.root)
    assert layout.best.read_bytes() == best


def test_page_shows_every_trial_and_the_settings_varied(finished: Search) -> None:
    page = SearchLayout(finished.path).page.read_text(encoding="utf-8")
    assert all(f'<th scope="row">{row.number + 1}</th>' in page for row in finished.record.trials)
    assert "training.learning_rate" in page
    assert "at least 20 trials" in page


def test_command_prints_the_winner_and_what_comes_next(
    finished: Search, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = SearchLayout(finished.path)
    words = ["search", config.data.source, "--trials", "4", "--config", str(layout.config)]
    words += ["--output", str(finished.path)]
    with pytest.raises(SystemExit, match="0"):
        main(words)
    shown = capsys.readouterr().out
    assert all(part in shown for part in ("4 complete", "accuracy", f"lorafit train --config {layout.best}"))
    with pytest.raises(SystemExit, match="0"):
        main([*words, "--quiet"])
    assert capsys.readouterr().out.strip() == str(layout.best)


@pytest.mark.parametrize(
    "task",
    [
        pytest.param(name, marks=pytest.mark.slow if name != "ordinal" else ())
        for name in TASKS
        if name != "single_label"
    ],
)
def test_trials_of_every_task_have_its_loss_and_primary_metric(
    task: str, tiny_settings: Settings, tmp_path: Path
) -> None:
    config = load_config(overrides=[*tiny_settings(task), SPACE])
    found = search(config, 1, output=tmp_path / "search")
    (row,), layout = found.record.trials, SearchLayout(found.path)
    primary = next(iter(get_task(task).metrics))
    history = layout.trial(0).history.read_text(encoding="utf-8").splitlines()
    measured = [line for line in map(json.loads, history) if f"eval_{primary}" in line]
    assert row.score in [line[f"eval_{primary}"] for line in measured]
    assert row.loss == min(line["eval_calibrated_loss"] for line in measured)
    assert found.record.metric.title in layout.page.read_text(encoding="utf-8")


def test_search_resumes_where_it_ended(copied: SearchLayout, finished: Search, config: Config, listen: Listen) -> None:
    lines = listen()
    longer = search(config, 5, output=copied.root, progress=lines)
    assert longer.record.trials[:4] == finished.record.trials
    assert len(longer.record.trials) == 5
    assert [number for number, _ in list_begun(lines.lines)] == ["5"]


@pytest.mark.slow
def test_same_seed_draws_the_same_trials_in_a_folder_of_any_name(
    config: Config, finished: Search, tmp_path: Path
) -> None:
    again = search(config, 2, output=tmp_path / "a?b {c} %41 #")
    assert [path.name for path in tmp_path.iterdir()] == ["a?b {c} %41 #"]
    assert SearchLayout(again.path).study.is_file()
    assert [(row.values, row.loss) for row in again.record.trials] == [
        (row.values, row.loss) for row in finished.record.trials[:2]
    ]


@pytest.mark.slow
def test_interrupted_trial_is_begun_again(config: Config, finished: Search, tmp_path: Path, listen: Listen) -> None:
    begun = []
    for number in ("1", "3"):
        lines = listen(lambda lines, _, number=number: list_begun(lines)[-1][0] == number)
        with pytest.raises(
            TrainingInterruptedError,
            match=r"Resume with:\n  lorafit search --config \S+search.yaml --trials 2 --output",
        ) as caught:
            search(config, 2, output=tmp_path / "search", progress=lines)
        assert caught.value.exit_code == 130
        begun += list_begun(lines.lines)
    lines = listen()
    whole = search(config, 2, output=tmp_path / "search", progress=lines)
    begun += list_begun(lines.lines)
    assert [number for number, _ in begun] == ["1", "2", "3", "4"]
    assert begun[0][1] == begun[1][1]
    assert begun[2][1] == begun[3][1]
    assert [row.state for row in whole.record.trials] == ["complete", "complete"]
    assert whole.record.trials[0].loss == finished.record.trials[0].loss


def test_ctrl_c_in_a_validation_that_prunes_is_heard(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prune(_: optuna.Trial) -> bool:
        signal.raise_signal(signal.SIGINT)
        return True

    monkeypatch.setattr(optuna.Trial, "should_prune", prune)
    with pytest.raises(TrainingInterruptedError):
        search(config, 2, output=tmp_path / "search")


@pytest.mark.slow
def test_same_settings_are_not_trained_twice(overrides: list[str], tmp_path: Path, listen: Listen) -> None:
    few = load_config(overrides=[*overrides[:-1], "search.space={method.r: [2]}"])
    lines = listen()
    result = search(few, 3, output=tmp_path / "search", progress=lines)
    assert sum("is not repeated" in line for line in lines.lines) == 2
    assert len({row.loss for row in result.record.trials}) == 1
    assert result.record.best == 0


@pytest.mark.slow
def test_hopeless_trial_is_pruned(overrides: list[str], tmp_path: Path) -> None:
    rates = [5e-3, 4e-3, 3e-3, 2e-3, 1e-9]
    space = f"search.space={{training.learning_rate: {rates}}}"
    seed = "search.seed=348"  # draws the rates in this order
    result = search(load_config(overrides=[*overrides[:-1], space, seed]), 5, output=tmp_path / "search")
    assert [row.values["training.learning_rate"] for row in result.record.trials] == rates
    assert [row.state for row in result.record.trials] == ["complete"] * 4 + ["pruned"]


def test_trial_that_fails_does_not_stop_the_others(overrides: list[str], tmp_path: Path) -> None:
    wide = load_config(overrides=[*overrides[:-1], "search.space={method.r: [4, 4096]}"])
    result = search(wide, 6, output=tmp_path / "search")
    failed = [row for row in result.record.trials if row.state == "failed"]
    assert failed
    assert all(row.values == {"method.r": 4096} and "4096" in str(row.error) for row in failed)
    assert sum(row.same_as is None for row in failed) == 1, "what its settings make impossible is not tried twice"


@pytest.mark.slow
def test_fault_of_the_machine_is_tried_again(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(RunStages, "fit", fail)
        with pytest.raises(EnvironmentUnfitError, match=r"(?s)No space is left .* go on with:\n  lorafit search "):
            search(config, 2, output=tmp_path / "search")
    result = search(config, 2, output=tmp_path / "search")
    assert [row.state for row in result.record.trials] == ["complete"] * 2


def test_a_trial_more_than_there_were_to_be_is_dropped(config: Config, tmp_path: Path) -> None:
    space = read_space(config)
    objective = Trials(config, space, SearchLayout(tmp_path), None, Silent())
    study = optuna.create_study()
    study.ask()  # by another process, which trains it
    control = search_module._Control(study, objective, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.optimize(control.train, n_trials=1)
        assert [row.number for row in list_trials(study, space)] == [0]
        assert control.is_done()


def test_search_in_which_every_trial_fails_ends_early_with_the_reason(overrides: list[str], tmp_path: Path) -> None:
    wide = load_config(overrides=[*overrides[:-1], "method.r=8", "search.space={method.r: [2048, 4096, 8192]}"])
    with pytest.raises(RunError, match=r"No trial is complete\. The last one: .*larger"):
        search(wide, 50, output=tmp_path / "search")
    trials = SearchRecord.read(SearchLayout(tmp_path / "search").record).trials
    assert 3 <= len(trials) <= 10


@pytest.mark.slow
def test_no_trial_begins_that_the_budget_has_no_room_for(config: Config, tmp_path: Path, listen: Listen) -> None:
    lines = listen()
    result = search(config, 500, budget="6s", output=tmp_path / "search", progress=lines)
    assert 1 <= len(result.record.trials) < 60
    assert any("no room for another trial" in line for line in lines.lines)


def test_trial_is_expected_to_take_as_long_as_those_that_were_trained() -> None:
    def make(number: int, seconds: float, state: str, **more: Any) -> TrialRow:
        return TrialRow(number=number, state=state, values={}, loss=1, score=None, seconds=seconds, **more)

    others = [make(0, 0, "complete", same_as=3), make(1, 0, "failed"), make(2, 7, "running")]
    assert expect_seconds(others, forecast=150) == 150
    assert expect_seconds([*others, make(3, 100, "complete"), make(4, 10, "pruned")], forecast=150) == 55


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_results_are_written_by_one_process_at_a_time_that_has_seen_every_trial(config: Config, tmp_path: Path) -> None:
    layout = SearchLayout(tmp_path)
    objective = Trials(config, read_space(config), layout, load_material(config), Silent())
    study, rate = optuna.create_study(), optuna.distributions.FloatDistribution(1e-5, 1e-2, log=True)

    def add(loss: float) -> None:
        layout.trial(len(study.trials)).root.mkdir(parents=True)
        layout.trial(len(study.trials)).config.write_text(config.to_yaml())
        params, distributions = {"training.learning_rate": 1e-3}, {"training.learning_rate": rate}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=loss))

    add(0.5)
    late = threading.Thread(target=write_results, args=(study, objective))
    with FileLock(layout.lock):  # another process writes
        late.start()
        time.sleep(0.1)
        assert not layout.record.exists()
        add(0.4)
    late.join()
    record = SearchRecord.read(layout.record)
    assert [row.loss for row in record.trials] == [0.5, 0.4]
    assert record.best == 1
    assert layout.best.is_file()


@pytest.mark.slow
def test_two_processes_share_the_trials(overrides: list[str], tmp_path: Path) -> None:
    settings = [part for override in overrides for part in ("--set", override)]
    source = overrides[0].partition("=")[2]
    command = [sys.executable, "-m", "lorafit", "search", source, "--trials", "6", *settings, "--output", "shared"]
    two = [subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate(timeout=300)[1] for process in two]
    assert [process.returncode for process in two] == [0, 0], "\n".join(errors)
    trials = SearchRecord.read(SearchLayout(tmp_path / "shared").record).trials
    assert [row.number for row in trials] == list(range(len(trials)))
    assert len(trials) == 6
    begun = [{number for number, _ in list_begun(text.splitlines())} for text in errors]
    assert all(begun), "one process did all"
    assert not begun[0] & begun[1]
    rates = {row.values["training.learning_rate"] for row in trials}
    assert len(rates) == len(trials), "the settings as they are are tried once"


@pytest.mark.slow
def test_killed_process_leaves_its_trial_to_others(overrides: list[str], config: Config, tmp_path: Path) -> None:
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


def test_folder_of_another_search_is_refused(finished: Search, overrides: list[str], copied: SearchLayout) -> None:
    other = load_config(overrides=[*overrides[:-1], "search.space={method.r: [2, 8]}"])
    with pytest.raises(RunError, match=r"holds a search with other settings \(search\.yaml there\).*--output"):
        search(other, 6, output=finished.path)
    copied.config.write_text(other.to_yaml(), encoding="utf-8")
    with pytest.raises(RunError, match="holds a search with other space"):
        search(other, 6, output=copied.root)


def test_locked_store_is_named(copied: SearchLayout, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_module, "_WAIT", 0.2)
    with sqlite3.connect(copied.study, isolation_level=None) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(RunError, match=r"study\.db cannot be used .*locked.*close that"):
            search(config, 99, output=copied.root)
    holder.close()


def test_store_of_another_version_is_named(copied: SearchLayout, config: Config) -> None:
    with sqlite3.connect(copied.study) as store:
        store.execute("UPDATE alembic_version SET version_num = 'v1.3.0.a'")
    store.close()
    with pytest.raises(RunError, match="written by another version of Optuna"):
        search(config, 6, output=copied.root)


def test_damaged_store_is_named(copied: SearchLayout, config: Config) -> None:
    copied.study.write_text("not a database, but long enough to be taken for one" * 100, encoding="utf-8")
    with pytest.raises(RunError, match="not a database"):
        search(config, 6, output=copied.root)


@pytest.mark.parametrize(
    ("trials", "budget", "words"),
    [(0, None, "--trials takes a number"), (1, "soon", "--budget takes a time"), (1, "0.01s", "one trial takes about")],
)
def test_wrong_arguments_are_refused_before_any_work(
    config: Config, tmp_path: Path, trials: int, budget: str | None, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        search(config, trials, budget=budget, output=tmp_path / "search")
    assert not (tmp_path / "search").exists()


def test_budget_of_a_run_is_refused(overrides: list[str]) -> None:
    with pytest.raises(ConfigError, match="time of the whole search"):
        search(load_config(overrides=[*overrides, "training.budget=1m"]), 1)


def test_folder_of_something_else_is_left_alone(config: Config, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(RunError, match="something else than a search"):
        search(config, 1, output=tmp_path)
