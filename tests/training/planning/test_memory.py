import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lorafit.config import Config, load_config
from lorafit.data.writing import write_table
from lorafit.errors import OutOfMemoryError
from lorafit.system import hardware
from lorafit.system.progress import Silent
from lorafit.training.planning.memory import advise_on_memory, fit_to_memory
from lorafit.training.prepare import Prepared, prepare

MEGABYTE = 10**6


@pytest.fixture(scope="module")
def config(build_encoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Batches of 64 texts of 128 tokens, for an encoder wide enough that they are felt."""
    path = tmp_path_factory.mktemp("data") / "data.parquet"
    rows = range(200)
    texts = [f"{row} " + "a film of those " * 60 for row in rows]
    write_table(path, {"text": texts, "label": [row % 2 for row in rows]})
    encoder = build_encoder("distilbert", dim=192, hidden_dim=768, n_layers=4)
    return load_config(
        flags={
            "data.source": str(path),
            "data.validation_fraction": 0.1,
            "model.name": str(encoder),
            "model.max_length": 128,
            "training.batch_size": 64,
            "training.batch_tokens": 8192,
            "training.threads": 1,
            "training.precision": "fp32",
        }
    )


@pytest.fixture(scope="module")
def prepared(config: Config) -> Prepared:
    return prepare(config, Silent())


def test_with_room_nothing_is_changed(prepared: Prepared) -> None:
    plan = fit_to_memory(prepared, room=100_000 * MEGABYTE)
    assert plan.prepared is prepared
    assert plan.notes == ()
    assert plan.peak_bytes > 0


def test_batches_become_smaller_until_they_fit_and_that_is_said(prepared: Prepared) -> None:
    plan = fit_to_memory(prepared, room=600 * MEGABYTE)
    tokens = plan.prepared.config.training.batch_tokens
    assert tokens in {4096, 2048, 1024, 512, 256, 128}
    assert prepared.config.training.batch_tokens == 8192, "what was asked for stays as it was"
    (note,) = plan.notes
    assert note.startswith(f"batches of {tokens:,} tokens instead of 8,192, which would take about")
    assert note.endswith("0.6 GB are left")


def test_trial_steps_leave_the_model_as_it_was(prepared: Prepared) -> None:
    model = prepared.adapted.model
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    fit_to_memory(prepared, room=600 * MEGABYTE)
    assert all(bool((weight == before[name]).all()) for name, weight in model.named_parameters())


def test_what_can_never_fit_is_refused_before_any_step(prepared: Prepared) -> None:
    with pytest.raises(
        OutOfMemoryError, match=r"takes about 0\.5 GB more .* 0\.2 GB are left.* training\.batch_tokens="
    ):
        fit_to_memory(prepared, room=200 * MEGABYTE)


CHILD = """
import pickle, sys
from pathlib import Path
from lorafit.config import load_config
from lorafit.system import hardware
from lorafit.system.progress import Silent
from lorafit.models.acceleration.memory import release_freed_memory
from lorafit.training.planning import memory
from lorafit.training.prepare import prepare
from lorafit.training.inputs import build_rows
from lorafit.training.planning.costs import build_batch, kept_as_it_is

prepared = prepare(load_config(Path(sys.argv[1])), Silent())
needs = memory._measure(prepared, 10**12)
rows = build_rows(
    prepared.tokens["train"], prepared.task.targets(prepared.splits.train.y, prepared.scaler), prepared.pad_id
)
release_freed_memory()
hardware.reset_peak_memory()
before = hardware.peak_memory_bytes()
with kept_as_it_is(prepared.adapted.model, prepared.precision) as step:
    step(build_batch(rows, 64, 128))
print(needs.of(64), needs.per_row * 64, hardware.peak_memory_bytes() - before)
"""


@pytest.mark.slow
def test_forecast_holds_for_the_large_batch(config: Config, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    command = [sys.executable, "-c", CHILD, str(tmp_path / "config.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    forecast, rows, taken = map(float, done.stdout.split()[-3:])
    assert taken <= forecast
    assert 0.6 * taken <= rows <= 1.6 * taken, "the rows are what takes memory here"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("could not create a primitive"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        np._core._exceptions._ArrayMemoryError((10**6,), np.dtype("float64")),  # type: ignore[attr-defined]
    ],
)
def test_lack_of_memory_names_the_settings_that_take_less(error: Exception) -> None:
    with (
        pytest.raises(OutOfMemoryError, match=r"training\.batch_tokens=1024, .*\. Go on\.$"),
        advise_on_memory("Go on."),
    ):
        raise error


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match=r"^other$"), advise_on_memory():
        raise RuntimeError("other")


def test_room_is_the_least_that_anything_leaves(tmp_path: Path) -> None:
    def write(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")

    write("proc/self/status", "VmSize:\t 4000 kB\nVmRSS:\t 1 kB\n")
    machine = hardware.memory_room(tmp_path)
    assert machine == hardware.memory_bytes(tmp_path) - 1024
    write("proc/self/cgroup", "0::/app/worker\n")
    write("sys/fs/cgroup/app/worker/memory.max", "max\n")
    write("sys/fs/cgroup/app/worker/memory.current", "300\n")
    write("sys/fs/cgroup/app/memory.max", "5000\n")
    write("sys/fs/cgroup/app/memory.current", "4000\n")
    write("sys/fs/cgroup/app/memory.stat", "anon 1\ninactive_file 700\n")
    assert hardware.memory_room(tmp_path) == 1700, "file pages can be dropped"
    write("sys/fs/cgroup/app/memory.current", "9000\n")
    assert hardware.memory_room(tmp_path) == 0
    write("proc/self/cgroup", "4:memory:/box\n")
    write("sys/fs/cgroup/memory/box/memory.limit_in_bytes", "6000\n")
    write("sys/fs/cgroup/memory/box/memory.usage_in_bytes", "5000\n")
    write("sys/fs/cgroup/memory/box/memory.stat", "inactive_file 9\ntotal_inactive_file 20\n")
    assert hardware.memory_room(tmp_path) == 1020


def test_limit_of_the_address_space_counts() -> None:
    code = "from lorafit.system import hardware; print(hardware.memory_room())"
    command = ["prlimit", f"--as={2 * 10**9}", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 10**9 < int(done.stdout) < 2 * 10**9
