"""Comparisons and searches on a cluster: what they give, and what they outlive."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

from lorafit.cli import main
from lorafit.cluster.engine import RayEngine, open_engine
from lorafit.config import Config, load_config
from lorafit.errors import EnvironmentUnfitError, TrainingInterruptedError, UserInputError
from lorafit.experiments.compare.compare import compare
from lorafit.experiments.compare.records import ComparisonLayout
from lorafit.experiments.engine import RETRIES, Lost, find_obstacle, identify_material
from lorafit.experiments.search.records import SearchLayout
from lorafit.experiments.search.search import search
from lorafit.system.progress import Progress, Silent
from lorafit.tasks.records import MetricsRecord
from lorafit.training.prepare import load_material

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray leaves files of its own processes open
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
METHODS = ["lora", "head_only"]
SPACE = "search.space={training.learning_rate: {low: 1e-5, high: 1e-2, log: true}, method.r: [2, 4]}"

Settings = Callable[..., list[str]]
Listen = Callable[..., Any]


@pytest.fixture
def config(tiny_settings: Settings) -> Config:
    return load_config(overrides=[*tiny_settings(), SPACE, "search.storage=journal", "evaluation.baselines=false"])


def test_cells_are_those_of_one_process(engine: RayEngine, config: Config, tmp_path: Path, listen: Listen) -> None:
    lines = listen()
    there = compare(config, METHODS, output=tmp_path / "there", engine=engine, progress=lines)
    here = compare(config, METHODS, output=tmp_path / "here")
    assert (there.record.failed, there.record.best) == ([], here.record.best)
    for ours, theirs in zip(there.record.methods, here.record.methods, strict=True):
        costs = {"training_seconds", "epoch_seconds", "peak_memory_bytes", "texts_per_second"}
        assert ours.model_dump(exclude=costs) == theirs.model_dump(exclude=costs)
        cells = [ComparisonLayout(one.path).cell(ours.method, 0) for one in (there, here)]
        first, second = (MetricsRecord.read(cell.metrics) for cell in cells)
        assert first.after.model_dump_json() == second.after.model_dump_json()
    assert any(line.startswith("lora, seed 0: ") for line in lines.lines)
    again = listen()
    compare(config, METHODS, output=tmp_path / "there", engine=engine, progress=again)
    assert sum("finished before" in line for line in again.lines) == 2


@pytest.mark.slow
def test_a_cell_that_fails_is_a_row_and_the_others_go_on(engine: RayEngine, config: Config, tmp_path: Path) -> None:
    config.method.r = 40
    record = compare(config, METHODS, output=tmp_path / "some", engine=engine).record
    assert [row.method for row in record.methods] == ["head_only"]
    assert [cell.method for cell in record.failed] == ["lora"]
    assert "method.r=40 is larger than the layer" in str(record.failed[0].error)


def test_one_worker_finds_what_one_process_finds(
    start_cluster: Callable[[int], Any], config: Config, tmp_path: Path
) -> None:
    with open_engine(f"127.0.0.1:{start_cluster(1).gcs_address.rpartition(':')[2]}") as engine:
        assert (engine.workers, engine.nodes) == (1, 1)
        there = search(config, 3, output=tmp_path / "there", engine=engine)
    config.search.storage = "sqlite"
    here = search(config, 3, output=tmp_path / "here")
    for ours, theirs in zip(there.record.trials, here.record.trials, strict=True):
        assert ours.model_dump(exclude={"seconds"}) == theirs.model_dump(exclude={"seconds"})
    assert there.record.best == here.record.best
    layout = SearchLayout(there.path)
    assert layout.journal.is_file()
    assert not layout.study.exists()
    assert layout.best.is_file()


@pytest.mark.slow
def test_a_search_on_a_cluster_goes_on(engine: RayEngine, config: Config, tmp_path: Path, listen: Listen) -> None:
    first = search(config, 2, output=tmp_path / "search", engine=engine)
    lines = listen()
    second = search(config, 4, output=tmp_path / "search", engine=engine, progress=lines)
    assert second.record.trials[:2] == first.record.trials
    assert [row.state for row in second.record.trials] == ["complete"] * 4
    assert any(line.startswith("worker 2: trial ") for line in lines.lines)


@pytest.mark.slow
def test_ctrl_c_leaves_no_trial_behind(engine: RayEngine, config: Config, tmp_path: Path, listen: Listen) -> None:
    class Impatient(Silent):
        def say(self, line: str) -> None:
            if ": epoch " in line:
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(
        TrainingInterruptedError,
        match=r"Resume with:\n  lorafit search --config \S+ --trials 4 --engine ray --address \S+ --cpus",
    ):
        search(config, 4, output=tmp_path / "search", engine=engine, progress=Impatient())
    lines = listen()
    whole = search(config, 4, output=tmp_path / "search", engine=engine, progress=lines)
    assert [row.state for row in whole.record.trials] == ["complete"] * 4
    assert not any("killed" in line for line in lines.lines)


def end_oneself(folder: Path, name: str, progress: Progress) -> str:
    """End this process the first time, or each time, after saying so."""
    (folder / f"{name}-{time.time_ns()}").touch()
    if name == "always" or len(list(folder.glob(f"{name}-*"))) == 1:
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
    return name.upper()


def test_a_part_whose_process_is_killed_is_begun_again_so_often(engine: RayEngine, tmp_path: Path) -> None:
    told = list[str]()

    def again(name: str, reason: str) -> bool:
        told.append(name)
        return told.count(name) <= RETRIES

    parts = {name: name for name in ("once", "always")}
    results = dict(engine.run(partial(end_oneself, tmp_path), parts, progress=Silent(), again=again))
    assert results == {"once": "ONCE", "always": Lost("its process was killed", was_killed=True)}
    assert (told.count("once"), told.count("always")) == (1, RETRIES + 1)
    assert len(list(tmp_path.glob("always-*"))) == RETRIES + 1


@pytest.mark.slow
def test_a_machine_without_memory_ends_a_part_with_the_reason(
    start_cluster: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = start_cluster(1)
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.001")  # which any machine has passed
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    told = list[str]()
    with open_engine(f"127.0.0.1:{cluster.gcs_address.rpartition(':')[2]}") as engine:
        ended = dict(
            engine.run(
                wait_long,
                dict.fromkeys(("first", "second"), "whole"),
                progress=Silent(),
                again=lambda _, reason: bool(told.append(reason)),
            )
        )
    lost = Lost("its machine ran out of memory, and Ray killed its process", was_killed=True)
    assert sorted(map(str, ended.values())) == sorted([str(lost), "whole"])
    assert told == [lost.reason]


def wait_long(part: str, progress: Progress) -> str:
    time.sleep(15)
    return part


@pytest.mark.slow
def test_a_node_that_dies_loses_no_cell(
    start_cluster: Callable[[int], Any], config: Config, tmp_path: Path, listen: Listen
) -> None:
    cluster = start_cluster(2)
    (node,) = cluster.worker_nodes
    config.training.max_steps = 300
    lines = listen()

    def kill() -> None:
        while len({line.partition(": epoch ")[0] for line in lines.lines if ": epoch " in line}) < 2:
            time.sleep(0.05)
        cluster.remove_node(node, allow_graceful=False)

    threading.Thread(target=kill, daemon=True).start()
    with open_engine(f"127.0.0.1:{cluster.gcs_address.rpartition(':')[2]}") as engine:
        record = compare(config, METHODS, output=tmp_path / "there", engine=engine, progress=lines).record
    assert [row.method for row in record.methods] == METHODS
    assert sum("its node died" in line or "its process was killed" in line for line in lines.lines) == 1


def test_a_node_that_lacks_something_is_named_with_the_remedy(
    engine: RayEngine, config: Config, tmp_path: Path
) -> None:
    kept, expected = tmp_path / "search.yaml", identify_material(load_material(config))
    with pytest.raises(UserInputError, match=r"2 of 2 nodes cannot .*choose an --output that all nodes share"):
        engine.check(partial(find_obstacle, config, kept, expected))
    kept.touch()
    engine.check(partial(find_obstacle, config, kept, expected))
    assert find_obstacle(config, kept, {**expected, "rows": {}}) == "not the same there: rows"
    config.data.source = "gone.csv"
    assert "gone.csv" in find_obstacle(config, kept, expected)


def test_ray_that_is_missing_gives_the_pip_line(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SystemExit) as stopped:
        main(["search", config.data.source, "--trials", "2", "--engine", "ray", "-q"])
    assert stopped.value.code == 3
    assert "--engine ray needs the package 'ray'" in (shown := capsys.readouterr().err)
    assert "pip install" in shown


def test_another_version_of_ray_is_named(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "__version__", "1.2.3")
    with (
        pytest.raises(EnvironmentUnfitError, match=r"(?s)1\.2\.3.*Install the cluster's versions here"),
        open_engine(address),
    ):
        pass


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--engine", "ray", "--address", "127.0.0.1:9"], "no Ray cluster answers there"),
        (["--address", "127.0.0.1:9"], "--address is for a cluster: give --engine ray with it"),
    ],
)
@pytest.mark.parametrize("command", [["search", "--trials", "2"], ["compare", "--methods", "lora"]])
def test_a_cluster_that_is_not_there_is_refused(
    config: Config, capsys: pytest.CaptureFixture[str], command: list[str], words: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*command, config.data.source, *words])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_more_cpus_than_a_node_has_are_refused(address: str) -> None:
    with (
        pytest.raises(UserInputError, match="--cpus-per-worker 64: the largest node has 1"),
        open_engine(address, cpus_per_worker=64),
    ):
        pass
