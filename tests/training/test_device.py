"""lorafit on a device that is not the CPU: its code runs there as it would on a GPU (`pretend_gpu.py`)."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lorafit
from lorafit.config import override_config

ROOT = Path(__file__).parents[2]
TEXTS = ["a great and lovely film", "boring", "awful and dull film 3", "superb film"]
STEPS = {"lora": 20, "setfit": 12, "embedding": None, "dora": 12, "vera": 12}


@pytest.mark.slow
@pytest.mark.parametrize("method", STEPS)
def test_a_run_on_a_gpu_is_that_on_the_cpu(
    method: str, build_encoder: Callable[..., Path], word_reviews: Path, tmp_path: Path
) -> None:
    settings = {
        "data.source": str(word_reviews),
        "model.name": str(build_encoder("distilbert", initializer_range=0.1)),
        "model.max_length": 32,
        "method.name": method,
        "training.precision": "fp32",
        "training.max_steps": STEPS[method],
        "training.batch_size": 16,
        "training.threads": 1,
        "evaluation.report": False,
        **({"method.lora_dropout": 0.0} if method in {"lora", "dora"} else {}),
        **({"method.r": 16} if method == "vera" else {}),
    }
    told = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("pretend_gpu.py")),
            json.dumps(settings),
            json.dumps(TEXTS),
            str(tmp_path / "gpu"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr[-3000:]
    run = lorafit.train(override_config(lorafit.Config(), settings), output=tmp_path / "cpu")
    logits = lorafit.load(run.path, precision="fp32").compute_logits(TEXTS)
    assert np.array(json.loads(told.stdout)["logits"]) == pytest.approx(logits, abs=2e-3)
    curves = [read_losses(tmp_path / place) for place in ("cpu", "gpu")]
    assert curves[1] == pytest.approx(curves[0], abs=2e-3)


def read_losses(run: Path) -> list[float]:
    """Return the training losses of a run."""
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def test_the_check_of_a_gpu_says_that_there_is_none() -> None:
    """It is skipped by no machine: where there is a GPU, `CUDA_VISIBLE_DEVICES` hides it."""
    told = subprocess.run(
        ["bash", str(ROOT / "scripts" / "check_gpu.sh")],
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHON": sys.executable,
            "PYTHONPATH": ":".join(sys.path),
            "CUDA_VISIBLE_DEVICES": "",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 3, told.stderr
    assert "training.device=cuda, but torch" in told.stderr


@pytest.mark.slow
def test_the_check_of_a_gpu_runs_on_the_cpu(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "check_gpu.py"), "--device", "cpu", "--steps", "20", "--rows", "600"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert "WRONG" not in told.stdout
    assert "8 of 8 checks agree" in told.stdout
