"""Comparisons and searches on a cluster: what they give, and what they outlive."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from lorafit.cli import main
from lorafit.cluster.engine import RayEngine, open_engine
from lorafit.config import Config, load_config
from lorafit.errors import ConfigError, EnvironmentUnfitError, RunError, TrainingInterruptedError, UserInputError
from lorafit.experiments.compare.compare import compare
from lorafit.experiments.compare.records import ComparisonLayout
from lorafit.experiments.engine import RETRIES, Lost
from lorafit.experiments.search.records import SearchLayout
from lorafit.experiments.search.search import search
from lorafit.runs.records import RunRecord
from lorafit.system.progress import Progress, Silent
from lorafit.tasks.records import MetricsRecord

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


@pytest.fixture
def engine(address: str) -> Iterator[RayEngine]:
    with open_engine(address) as opened:
        yield opened


def find_worker(name: str) -> psutil.Process | None:
    """Return the process that does a part; Ray names it by its task."""
    for process in psutil.process_iter(["cmdline"]):
        if f"ray::lorafit {name}" in " ".join(process.info["cmdline"] or []):
            return process
    return None


def test_cells_are_those_of_one_process(engine: RayEngine, config: Config, tmp_path: Path, listen: Listen) -> None:
    lines = listen()
    there = compare(config, METHODS, seeds=2, output=tmp_path / "there", engine=engine, progress=lines)
    here = compare(config, METHODS, seeds=2, output=tmp_path / "here")
    assert (there.record.failed, there.record.best) == ([], here.record.best)
    for ours, theirs in zip(there.record.methods, here.record.methods, strict=True):
        costs = {"training_seconds", "epoch_seconds", "peak_memory_bytes", "texts_per_second"}
        assert ours.model_dump(exclude=costs) == theirs.model_dump(exclude=costs)
        for seed in ours.seeds:
            cells = [ComparisonLayout(one.path).cell(ours.method, seed) for one in (there, here)]
            first, second = (MetricsRecord.read(cell.metrics) for cell in cells)
            assert first.after == second.after
            assert RunRecord.read(cells[0].record).hardware.threads == 1
    assert any(line.startswith("lora, seed 1: ") for line in lines.lines)
    again = listen()
    compare(config, METHODS, seeds=2, output=tmp_path / "there", engine=engine, progress=again)
    assert sum("finished before" in line for line in again.lines) == 4


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

    with pytest.raises(TrainingInterruptedError, match=r"Resume with:\n  lorafit search --config"):
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
    from functools import partial

    told = list[str]()

    def again(name: str, reason: str) -> bool:
        told.append(name)
        return told.count(name) <= RETRIES

    parts = {name: name for name in ("once", "always")}
    results = dict(engine.run(partial(end_oneself, tmp_path), parts, progress=Silent(), again=again))
    assert results == {"once": "ONCE", "always": Lost("its process was killed")}
    assert (told.count("once"), told.count("always")) == (1, RETRIES + 1)
    assert len(list(tmp_path.glob("always-*"))) == RETRIES + 1
