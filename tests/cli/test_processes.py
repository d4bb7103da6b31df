"""`lorafit train --processes`: real processes that meet on this machine, or in two network namespaces."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from lorafit.config import load_config
from lorafit.errors import ConfigError, EnvironmentUnfitError
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import RunRecord
from lorafit.training.distributed import check_suits
from lorafit.training.launch import Launch, launch

if TYPE_CHECKING:
    from conftest import BuildEncoder

Call = Callable[..., Any]
Start = Callable[..., "subprocess.Popen[str]"]

PATIENCE = 240
STEPS = 300

TOLERANCE = 1e-3
"""Of losses and weights without dropout: sums of parts are rounded otherwise, and steps build on each other."""


@pytest.fixture
def settings(build_encoder: "BuildEncoder", word_reviews: Path, tmp_path: Path) -> Path:
    """Settings without dropout, so that one process and two can be compared."""
    encoder = build_encoder("distilbert", seq_classif_dropout=0.0)
    config = load_config(
        overrides=[
            f"data.source={word_reviews}",
            "data.test_fraction=0.2",
            "data.validation_fraction=0.4",
            f"model.name={encoder}",
            "model.max_length=32",
            "method.lora_dropout=0",
            "training.batch_size=8",
            "training.learning_rate=1e-4",
            f"training.max_steps={STEPS}",
            "training.evaluations_per_epoch=1",
            "training.early_stopping_patience=0",
            "evaluation.before=false",
            "evaluation.baselines=false",
            "evaluation.report=false",
            "evaluation.bootstrap_samples=100",
        ]
    )
    path = tmp_path / "settings.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    return path


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a command, which is killed at the end of the test with what it has started."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: object, before: Sequence[str] = (), cwd: Path | None = None) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [*before, sys.executable, "-P", "-m", "lorafit", *map(str, words)],
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
        process.communicate()


def find_rank(agent: "subprocess.Popen[str]", rank: int) -> psutil.Process:
    """Return a rank among the processes that an agent has started."""
    children = psutil.Process(agent.pid).children()
    return next(child for child in children if child.environ().get("RANK") == str(rank))


def wait_for_checkpoint(run: Path, agent: "subprocess.Popen[str]") -> None:
    until = time.monotonic() + PATIENCE
    while not any(run.glob("checkpoints/checkpoint-*/complete.json")):
        assert agent.poll() is None, agent.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)


def end(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def losses(run: Path) -> list[tuple[int, float]]:
    lines = map(json.loads, RunLayout(run).history.read_text().splitlines())
    return [(line["step"], line.get("loss", line.get("eval_loss"))) for line in lines]


def assert_same_training(run: Path, other: Path) -> None:
    np.testing.assert_allclose(losses(run), losses(other), rtol=TOLERANCE)
    one, two = (load_file(path / "adapter" / "adapter_model.safetensors") for path in (run, other))
    for name, weight in one.items():
        np.testing.assert_allclose(weight, two[name], atol=TOLERANCE)


@pytest.mark.slow
def test_two_processes_train_what_one_does_and_a_killed_one_is_made_good(
    settings: Path, start: Start, tmp_path: Path
) -> None:
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    code, _, err = end(start("train", "-c", settings, "-o", alone, "-q"))
    assert code == 0, err
    agent = start("train", "-c", settings, "-o", shared, "--processes", 2)
    wait_for_checkpoint(shared, agent)
    find_rank(agent, 1).kill()
    code, _, err = end(agent)
    assert code == 3, err
    assert "Of 2 processes that trained together, rank 1 was killed by SIGKILL." in err, err
    assert f"lorafit train --resume {shared}" in err
    assert "Traceback" not in err
    assert RunRecord.read(RunLayout(shared).record).status == "failed"
    for processes in (1, 2):
        run = shutil.copytree(shared, tmp_path / f"resumed with {processes}")
        code, _, err = end(start("train", "--resume", run, "--processes", processes))
        assert code == 0, err
        assert_same_training(run, alone)
        training = RunRecord.read(RunLayout(run).record).training
        assert training is not None
        assert (training.processes, training.machines, training.idle_share is None) == (processes, 1, processes == 1)


@pytest.mark.slow
def test_rank_0_may_be_killed(settings: Path, start: Start, tmp_path: Path) -> None:
    run = tmp_path / "run"
    agent = start("train", "-c", settings, "-o", run, "--processes", 2)
    wait_for_checkpoint(run, agent)
    find_rank(agent, 0).kill()
    code, _, err = end(agent)
    assert code == 3, err
    assert f"rank 0 was killed by SIGKILL. What was saved is kept; go on with:\n  lorafit train --resume {run}" in err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_a_checkpoint_of_this_step(
    settings: Path, start: Start, tmp_path: Path, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    agent = start("train", "-c", settings, "-o", run, "--processes", 2)
    wait_for_checkpoint(run, agent)
    agent.send_signal(number)
    code, _, err = end(agent)
    assert code == 128 + number, err
    assert f"Go on with:\n  lorafit train --resume {run}" in err
    assert err.count("Interrupted") == 1, "rank 0 alone says so"
    last = max(int(path.name.partition("-")[2]) for path in (run / "checkpoints").iterdir())
    assert last == losses(run)[-1][0]
    assert last < STEPS
    assert RunRecord.read(RunLayout(run).record).status == "interrupted"


def test_ranks_that_disagree_train_nothing(settings: Path, start: Start, tmp_path: Path) -> None:
    place = f"127.0.0.1:{free_port()}"
    words = ["train", "-c", settings, "--machines", 2, "--rendezvous", place]
    first = start(*words, "--rank", 0, "-o", tmp_path / "run", "--set", "training.epochs=3")
    second = start(*words, "--rank", 1, "--set", "training.epochs=4")
    for code, _, err in (end(first), end(second)):
        assert code == 2
        assert "because the settings are not the same at all ranks:\n  training.epochs: 3 at rank 0, 4 at rank 1" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_ranks_with_other_data_train_nothing(settings: Path, word_reviews: Path, start: Start, tmp_path: Path) -> None:
    lines = word_reviews.read_text().splitlines()
    for name, rows in (("one", lines), ("two", [*lines[:-1], "a changed film,pos"])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.csv").write_text("\n".join(rows))
    words = ["train", "rows.csv", "-c", settings, "--machines", 2, "--rendezvous", f"127.0.0.1:{free_port()}"]
    first = start(*words, "--rank", 0, "-o", tmp_path / "run", cwd=tmp_path / "one")
    second = start(*words, "--rank", 1, cwd=tmp_path / "two")
    for code, _, err in (end(first), end(second)):
        assert code == 2
        assert "because data, model or libraries are not the same at all ranks:\n  train rows: " in err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_what_one_rank_lacks_is_told_by_rank_0(
    settings: Path, word_reviews: Path, start: Start, tmp_path: Path
) -> None:
    (tmp_path / "one").mkdir()
    shutil.copy(word_reviews, tmp_path / "one" / "rows.csv")
    words = ["train", "rows.csv", "-c", settings, "--machines", 2, "--rendezvous", f"127.0.0.1:{free_port()}"]
    first = start(*words, "--rank", 0, "-o", tmp_path / "run", cwd=tmp_path / "one")
    second = start(*words, "--rank", 1, cwd=tmp_path)
    said = [end(first), end(second)]
    assert [code for code, _, _ in said] == [2, 2]
    assert "Nothing was trained, because rank 1 cannot: There is no file rows.csv" in said[0][2]
    assert said[1][2].startswith("There is no file rows.csv")


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        how = Launch(machines=2, rank=0, rendezvous=place, patience=5)
        with pytest.raises(EnvironmentUnfitError, match=r"Port \d+ is taken on this machine"):
            launch(how, ["train"], None, output=tmp_path)


@pytest.mark.parametrize(
    ("rank", "fault"), [(0, "The other machines did not come to 127.0.0.1"), (1, "Nobody answers at 127.0.0.1")]
)
def test_machines_that_do_not_come_are_told(rank: int, fault: str, tmp_path: Path) -> None:
    how = Launch(machines=2, rank=rank, rendezvous=f"127.0.0.1:{free_port()}", patience=1)
    with pytest.raises(EnvironmentUnfitError, match=fault):
        launch(how, ["train"], None, output=tmp_path)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--processes", "0"], "--processes and --machines are at least 1"),
        (["--rank", "1"], "--rank and --rendezvous are for several machines"),
        (["--rendezvous", "127.0.0.1:1"], "--rank and --rendezvous are for several machines"),
        (["--machines", "2"], "--machines needs --rendezvous HOST:PORT"),
        (["--machines", "2", "--rank", "2", "--rendezvous", "127.0.0.1:1"], "--rank numbers the machines from 0 to 1"),
        (["--machines", "2", "--rendezvous", "127.0.0.1"], "--rendezvous takes HOST:PORT"),
        (["--machines", "2", "--rendezvous", "127.0.0.1:http"], "--rendezvous takes HOST:PORT"),
    ],
)
def test_options_that_do_not_fit_are_refused(call: Call, words: list[str], fault: str, word_reviews: Path) -> None:
    answer = call("train", word_reviews, *words)
    assert answer.code == 2
    assert fault in answer.err


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("method.name=auto", "one process tries methods one after another"),
        ("method.name=setfit", "it learns by the pairs of a whole batch"),
        ("method.name=embedding", "it makes no steps that could be shared"),
        ("training.budget=10m", "what steps of several processes take is not foreseen"),
        ("training.on_divergence=retry", "only a single process begins again by itself"),
    ],
)
def test_what_several_processes_cannot_do_is_refused(setting: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        check_suits(load_config(overrides=[setting]))


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Two network namespaces with an address each, joined by a cable: what there is between two machines."""
    names, cable = [f"lorafit-{os.getpid()}-{side}" for side in "ab"], f"lf{os.getpid()}"
    steps = [f"ip link add {cable}a type veth peer name {cable}b"]
    for side, name in enumerate(names):
        steps.append(f"ip netns add {name}")
        steps.append(f"ip link set {cable}{'ab'[side]} netns {name}")
        steps.append(f"ip -n {name} addr add 10.231.77.{side + 1}/24 dev {cable}{'ab'[side]}")
        steps += [f"ip -n {name} link set {device} up" for device in (f"{cable}{'ab'[side]}", "lo")]
    try:
        for step in steps:
            subprocess.run(step.split(), check=True)
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None,
    reason="root makes the network namespaces, on Linux with iproute2",
)
def test_two_hosts_train_what_one_process_does(hosts: list[str], settings: Path, start: Start, tmp_path: Path) -> None:
    run, alone = tmp_path / "run", tmp_path / "alone"
    words = ["train", "-c", settings, "--machines", 2, "--rendezvous", f"10.231.77.1:{free_port()}"]
    first = start(*words, "--rank", 0, "-o", run, before=["ip", "netns", "exec", hosts[0]])
    second = start(*words, "--rank", 1, cwd=tmp_path, before=["ip", "netns", "exec", hosts[1]])
    for code, _, err in (end(second), end(first)):
        assert code == 0, err
    assert end(start("train", "-c", settings, "-o", alone, "-q"))[0] == 0
    assert_same_training(run, alone)
    training = RunRecord.read(RunLayout(run).record).training
    assert training is not None
    assert (training.processes, training.machines) == (2, 2)
    assert not (tmp_path / "runs").exists(), "the second host writes nothing"
