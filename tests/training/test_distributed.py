"""A run of two ranks, one of which is this process."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

import lorafit
from lorafit.config import Config, load_config, override_config
from lorafit.errors import RunError
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import RunRecord
from lorafit.training.distributed import agree_on, assist
from lorafit.training.ranks import ALONE, RankLostError, join_ranks, noticing_loss, read_ranks

if TYPE_CHECKING:
    from conftest import BuildEncoder

StartOther = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def config(build_encoder: "BuildEncoder", word_reviews: Path) -> Config:
    """A few steps without dropout, over frozen layers."""
    return load_config(
        overrides=[
            f"data.source={word_reviews}",
            "data.test_fraction=0.2",
            "data.validation_fraction=0.4",
            f"model.name={build_encoder('distilbert', seq_classif_dropout=0.0)}",
            "model.max_length=32",
            "method.lora_dropout=0",
            "method.layers=top1",
            "training.batch_size=8",
            "training.max_steps=25",
            "training.threads=2",
            "evaluation.before=false",
            "evaluation.baselines=false",
            "evaluation.report=false",
            "evaluation.bootstrap_samples=100",
        ]
    )


@pytest.fixture
def start_other(config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StartOther]:
    """Makes this process one of two ranks and starts the other one, with further words."""
    started: list[subprocess.Popen[str]] = []
    settings = tmp_path / "settings.yaml"
    settings.write_text(config.to_yaml(), encoding="utf-8")

    def start(own: int, *words: object) -> "subprocess.Popen[str]":
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        told = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "test"}
        told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
        other = str(1 - own)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "lorafit", "train", "-c", settings, "-q", *map(str, words)],
            env={**os.environ, **told, "RANK": other, "LOCAL_RANK": other, "TORCH_CPP_LOG_LEVEL": "ERROR"},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        started.append(process)
        for name, value in {**told, "RANK": str(own), "LOCAL_RANK": str(own)}.items():
            monkeypatch.setenv(name, value)
        return process

    yield start
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    for process in started:
        process.kill()
        process.communicate()


def losses(run: Path) -> list[float]:
    lines = map(json.loads, RunLayout(run).history.read_text().splitlines())
    return [line.get("loss", line.get("eval_loss")) for line in lines]


def test_rank_0_has_the_run_that_one_process_would_have(
    config: Config, start_other: StartOther, tmp_path: Path
) -> None:
    threads = torch.get_num_threads()
    alone = lorafit.train(config, output=tmp_path / "alone")
    helper = start_other(0)
    run = lorafit.train(config, output=tmp_path / "run")
    assert helper.wait(60) == 0
    np.testing.assert_allclose(losses(run.path), losses(alone.path), rtol=1e-4)
    training = run.record.training
    assert training is not None
    assert (training.processes, training.machines) == (2, 1)
    assert 0 < training.idle_share < 1
    assert run.record.hardware.threads == 1, "of two that the processes share"
    assert torch.get_num_threads() == threads
    assert (read_ranks(), torch.distributed.is_initialized()) == (ALONE, False), "what comes later is done alone"
    assert run.record.forecast is None
    assert "frozen layers" not in run.record.seconds, "they are not kept"
    assert "frozen layers" in alone.record.seconds


def test_the_other_rank_writes_nothing(
    config: Config, start_other: StartOther, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, place = start_other(1, "-o", tmp_path / "run"), tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    assist(config)
    _, err = leader.communicate(timeout=60)
    assert leader.returncode == 0, err
    assert not any(place.iterdir())
    assert RunRecord.read(RunLayout(tmp_path / "run").record).status == "complete"


def test_other_settings_are_refused_and_a_rank_that_has_gone_is_noticed(
    config: Config, start_other: StartOther
) -> None:
    other, ranks = start_other(0), join_ranks()
    with pytest.raises(RunError, match=r"not the same at all ranks:\n  training.max_steps: 5 at rank 0, 25 at rank 1$"):
        agree_on(override_config(config, {"training.max_steps": 5}), ranks)
    other.kill()
    with pytest.raises(RankLostError, match=r"has ended\. Go on\.$"), noticing_loss("Go on."):
        ranks.gather(0)
