"""Searches whose trials several machines share: on PostgreSQL, and what is refused."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import psutil
import pytest

from lorafit.cli import main
from lorafit.cluster.engine import RayEngine, open_engine
from lorafit.config import Config, load_config
from lorafit.errors import ConfigError, MissingExtraError, RunError
from lorafit.experiments.engine import RETRIES
from lorafit.experiments.search.records import SearchLayout, SearchRecord
from lorafit.experiments.search.search import search
from lorafit.experiments.search.space import Space
from lorafit.experiments.search.study import WORKER, list_trials, put_back

if TYPE_CHECKING:
    from conftest import Server

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray leaves files of its own processes open
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SPACE = "search.space={training.learning_rate: {low: 1e-5, high: 1e-2, log: true}, method.r: [2, 4]}"
PASSWORD = "s3cret-of-the-tests"  # noqa: S105  of a server that ends with the tests

Settings = Callable[..., list[str]]
Listen = Callable[..., Any]


@pytest.fixture
def config(tiny_settings: Settings) -> Config:
    return load_config(overrides=[*tiny_settings(), SPACE])


def list_files_with(folder: Path, word: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and word.encode() in path.read_bytes()]


@pytest.mark.slow
def test_of_four_workers_one_is_killed_and_no_trial_is_lost(
    postgres: "Server",
    start_cluster: Callable[[int], Any],
    config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    listen: Listen,
) -> None:
    config.search.storage = postgres.url
    config.search.pruning = False
    config.training.max_steps = 200
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    lines, killed = listen(), []

    def kill_one() -> None:
        while not any(": epoch " in line and line.startswith("worker 3: ") for line in lines.lines):
            time.sleep(0.01)
        for process in psutil.process_iter(["cmdline"]):
            if "ray::lorafit worker 3" in " ".join(process.info["cmdline"] or []):
                process.kill()
                killed.append(process.pid)

    threading.Thread(target=kill_one, daemon=True).start()
    with open_engine(f"127.0.0.1:{start_cluster(4).gcs_address.rpartition(':')[2]}") as engine:
        assert engine.workers == 4
        found = search(config, 10, output=tmp_path / "search", engine=engine, progress=lines)
    assert len(killed) == 1
    assert "worker 3: its process was killed" in lines.lines
    assert [row.state for row in found.record.trials] == ["complete"] * 10
    layout = SearchLayout(found.path)
    rows = postgres.query("SELECT number, state FROM trials ORDER BY number")
    assert [state for _, state in rows].count("COMPLETE") == 10, "none was lost, and none was trained twice"
    assert [state for _, state in rows].count("FAIL") == 1, "the one that was under way in the process"
    assert len(rows) == 11
    (lost,) = (number for number, state in rows if state == "FAIL")
    rates = [row.values["training.learning_rate"] for row in found.record.trials]
    assert len(set(rates)) == 10
    assert f"learning_rate: {rates[-1]}" in layout.trial(lost).config.read_text() or lost not in rates
    assert not list_files_with(layout.root, PASSWORD)
    assert not any(PASSWORD in line for line in lines.lines)
    assert search(config, 10, output=layout.root).record.trials == found.record.trials, "and one process goes on"


@pytest.mark.slow
def test_two_searches_share_a_database(
    postgres: "Server", config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.search.storage = postgres.url
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    first = search(config, 1, output=tmp_path / "first")
    second = search(config, 2, output=tmp_path / "second")
    assert [len(one.record.trials) for one in (first, second)] == [1, 2]
    layout = SearchLayout(second.path)
    other = config.model_copy(deep=True)
    other.search.space = {"method.r": [2, 8]}
    layout.config.write_text(other.to_yaml())
    with pytest.raises(RunError, match=r"trials holds a search with other space\. Choose another --output"):
        search(other, 3, output=layout.root)
    layout.config.write_text(config.to_yaml())
    layout.study_name.write_text("another")
    with pytest.raises(RunError, match=r"The study and \S+search\.json contradict each other: trial 1"):
        search(config, 3, output=layout.root)


TOGETHER = """
import sys, time
from pathlib import Path
import lorafit.experiments.search.search as module
from lorafit.config import load_config

begin, (name, ready, output, *overrides) = module._begin, sys.argv[1:]

def begin_together(*arguments):
    Path(ready, name).touch()
    while len(list(Path(ready).iterdir())) < 2:
        time.sleep(0.001)
    return begin(*arguments)

module._begin = begin_together
module.search(load_config(overrides=overrides), 3, output=output)
"""


@pytest.mark.slow
def test_processes_that_begin_a_search_together_share_it(
    postgres: "Server", tiny_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    layout, ready = SearchLayout(tmp_path / "search"), tmp_path / "ready"
    ready.mkdir()
    settings = [*tiny_settings(), SPACE, f"search.storage={postgres.url}"]
    together = [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER, name, str(ready), str(layout.root), *settings],
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "other")
    ]
    told = [one.communicate()[1] for one in together]
    assert [one.returncode for one in together] == [0, 0], told
    assert layout.config.is_file()
    assert layout.study_name.is_file()
    assert [row.state for row in SearchRecord.read(layout.record).trials] == ["complete"] * 3


def test_a_search_that_cannot_begin_leaves_nothing(config: Config, tmp_path: Path) -> None:
    config.search.storage = "postgresql://lorafit@127.0.0.1:9/trials"
    with pytest.raises(RunError, match=r"Connection refused.*Start the server, make the database with createdb"):
        search(config, 1, output=tmp_path / "search")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_database_that_cannot_be_used_is_named_with_the_remedy(
    postgres: "Server", config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(storage: str) -> str:
        config.search.storage = storage
        with pytest.raises(RunError) as caught:
            search(config, 1, output=tmp_path / "search")
        assert "createdb" in str(caught.value)
        assert PASSWORD not in str(caught.value)
        assert not (tmp_path / "search").exists(), "it can begin there when that is mended"
        return str(caught.value)

    monkeypatch.setenv("PGPASSWORD", "wrong")
    assert "password authentication failed" in fail(postgres.url)
    monkeypatch.delenv("PGPASSWORD")
    assert "no password supplied" in fail(f"{postgres.url}?passfile=/nowhere")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    assert 'database "nowhere" does not exist' in fail(postgres.url.replace("/trials", "/nowhere"))
    assert "Connection refused" in fail("postgresql://lorafit@127.0.0.1:9/trials")


@pytest.mark.slow
def test_a_journal_loses_no_trial_of_a_killed_worker(
    start_cluster: Callable[[int], Any], config: Config, tmp_path: Path, listen: Listen
) -> None:
    config.search.storage, config.search.pruning, config.training.max_steps = "journal", False, 200
    lines = listen()

    def kill_one() -> None:
        while not any(": epoch " in line and line.startswith("worker 2: ") for line in lines.lines):
            time.sleep(0.01)
        for process in psutil.process_iter(["cmdline"]):
            if "ray::lorafit worker 2" in " ".join(process.info["cmdline"] or []):
                process.kill()

    threading.Thread(target=kill_one, daemon=True).start()
    with open_engine(f"127.0.0.1:{start_cluster(2).gcs_address.rpartition(':')[2]}") as engine:
        found = search(config, 4, output=tmp_path / "search", engine=engine, progress=lines)
    assert "worker 2: its process was killed" in lines.lines
    assert [row.state for row in found.record.trials] == ["complete"] * 4


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_trials_of_ended_workers_are_put_back_three_times() -> None:
    study = optuna.create_study()
    study.enqueue_trial({"x": 0.5})
    for turn in range(RETRIES + 1):
        trial = study.ask()
        trial.set_user_attr(WORKER, "worker 1")
        trial.suggest_float("x", 0, 1)
        assert trial.params == {"x": 0.5}
        assert put_back(study, "it was killed", worker="worker 2") == 0
        assert put_back(study, "its node died", worker="worker 1" if turn % 2 else None) == 1
    (row,) = list_trials(study, Space(()))
    assert (row.number, row.state, row.error) == (RETRIES, "failed", "begun 4 times; at last its node died")
    trial = study.ask()
    assert put_back(study, "it was killed") == 0, "it may be trained by another process"
    assert put_back(study, "it was killed", untagged=True) == 1


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("mysql://root@db/trials", "give sqlite, journal or postgresql://USER@HOST/DATABASE"),
        ("postgresql://lorafit@db", "give sqlite, journal or postgresql://USER@HOST/DATABASE"),
        ("postgresql://[", "give sqlite, journal or postgresql://USER@HOST/DATABASE"),
        ("postgresql://lorafit:hush@db/trials", "leave the password out"),
        ("postgresql://lorafit@db/trials?password=hush", "leave the password out"),
        ("postgresql://lorafit@db/trials?sslpass%77ord=hush", "leave the password out"),
        ("postgresql://lorafit:hush/x@db/trials", "leave the password out"),
        ("postgresql:/lorafit:hush@db/trials", "leave the password out"),
        ("postgresql://lorafit@db:bad/trials", "give sqlite, journal or postgresql://USER@HOST/DATABASE"),
    ],
)
def test_a_storage_that_cannot_be_used_is_refused(
    storage: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["search", "rows.csv", "--trials", "2", "--storage", storage])
    shown = capsys.readouterr().err
    assert stopped.value.code == 2
    assert f"search.storage: {message}" in shown
    assert "hush" not in shown


def test_a_journal_needs_an_engine(config: Config, tmp_path: Path) -> None:
    config.search.storage = "journal"
    with pytest.raises(ConfigError, match=r"--storage journal keeps no signs of life.*--engine ray"):
        search(config, 1, output=tmp_path / "search")
    assert not (tmp_path / "search").exists()


def test_a_damaged_journal_is_named(engine: RayEngine, config: Config, tmp_path: Path) -> None:
    config.search.storage = "journal"
    layout = SearchLayout(tmp_path / "search")
    layout.root.mkdir()
    layout.config.write_text(config.model_copy(update={"data": config.data.holding_out()}).to_yaml())
    layout.journal.write_text("no journal\nof Optuna\n")
    with pytest.raises(RunError, match=r"study\.journal is damaged .*Choose another --output"):
        search(config, 1, output=layout.root, engine=engine)


def test_sqlite_is_refused_for_several_nodes(engine: RayEngine, config: Config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"The cluster has 2 nodes, and the locks of SQLite.*--storage journal"):
        search(config, 1, output=tmp_path / "search", engine=engine)
    assert not (tmp_path / "search").exists()


def test_a_driver_that_is_missing_gives_the_pip_line(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    config.search.storage = "postgresql://lorafit@db/trials"
    with pytest.raises(MissingExtraError, match=r"(?s)needs the package 'psycopg'.*pip install .*\[cluster\]"):
        search(config, 1)
