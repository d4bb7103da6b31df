"""Whenever a command is killed, the next one goes on to what it would have been.

Half of the kills come at a moment, half before one of the command's own changes to the disk, counted.
"""

import json
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load_file

if TYPE_CHECKING:
    from conftest import Commands, Counts, Ended, Lab

pytestmark = pytest.mark.slow

TRAININGS, JOBS, AT_ONCE = 50, 20, 10
"""Kills of trainings and of batch jobs, and how many of them are one test."""

TIMES = frozenset({"created", "peak_memory_bytes", "energy_joules", "forecast", "seal", "events"})
"""Fields of a record that differ between two runs of the same."""


def kill(
    commands: "Commands",
    rng: np.random.Generator,
    words: Sequence[object],
    *,
    seconds: float,
    events: int,
    **named: Any,
) -> "Ended":
    """Start a command and kill it at a random moment of its life, or before a random one of its disk events."""
    if rng.random() < 0.5:
        return commands.run(*words, kill_at=int(rng.integers(1, events + 1)), **named)
    started, moment = commands.start(*words, **named), rng.uniform(0, seconds)
    timer = threading.Timer(moment, started.send, [signal.SIGKILL])
    timer.start()
    ended = started.wait()
    timer.cancel()
    timer.join()
    return ended


def measure(commands: "Commands", words: Sequence[object], place: Path) -> tuple[float, int]:
    """Run a command to its end; return its seconds and the number of its disk events."""
    began = time.monotonic()
    ended = commands.run(*words, events=place / "events")
    assert ended.status == 0, str(ended)
    return time.monotonic() - began, int((place / "events").read_text())


def strip(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return JSON without times and speeds."""
    if isinstance(value, dict):
        kept = (key for key in value if key not in TIMES and "second" not in key and "runtime" not in key)
        return {key: strip(value[key]) for key in kept}
    return [strip(inner) for inner in value] if isinstance(value, list) else value


def read_run(folder: Path) -> dict[str, object]:
    """Return what a run has come to: its weights bit for bit, and its records but for times."""
    weights = load_file(folder / "adapter" / "adapter_model.safetensors")
    record = strip(json.loads((folder / "run.json").read_bytes()))
    evidence = record.pop("evidence", {})
    return {
        "weights": {name: array.tobytes() for name, array in weights.items()},
        "record": record,
        "evidence": {name: digest for name, digest in evidence.items() if "history" not in name},
        "metrics": strip(json.loads((folder / "metrics.json").read_bytes())),
        "calibration": strip(json.loads((folder / "adapter" / "calibration.json").read_bytes())),
        "history": [strip(json.loads(line)) for line in (folder / "history.jsonl").read_text().splitlines()],
        "predictions": {path.name: path.read_bytes() for path in sorted((folder / "predictions").iterdir())},
        "files": sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()),
    }


def go_on(commands: "Commands", folder: Path, training: Sequence[object]) -> "Ended":
    """Do what a user does with a killed run: resume it; start anew where nothing had begun; or write its report."""
    if not (folder / "run.json").exists():
        return commands.run(*training)
    ended = commands.run("train", "--resume", folder)
    if ended.status == 2 and "is complete" in ended.err:
        return commands.run("report", folder)
    if ended.status == 2 and "with --overwrite" in ended.err:
        return commands.run(*training, "--overwrite")
    return ended


@pytest.mark.parametrize("first", range(0, TRAININGS, AT_ONCE))
def test_a_killed_training_ends_as_if_it_had_not_been(
    first: int, commands: "Commands", lab: "Lab", tmp_path: Path, counts: "Counts"
) -> None:
    seconds, events = measure(commands, lab.spell("train -c {lab}/config.yaml -o {place}/whole", tmp_path), tmp_path)
    whole = read_run(tmp_path / "whole")
    for trial in range(first, first + AT_ONCE):
        rng, folder = np.random.default_rng(trial), tmp_path / f"run-{trial}"
        training = lab.spell("train -c {lab}/config.yaml -o {place}", folder)
        ended = kill(commands, rng, training, seconds=seconds, events=events)
        while ended.status == -signal.SIGKILL and rng.random() < 0.3:
            words = ["train", "--resume", folder] if (folder / "run.json").exists() else training
            ended = kill(commands, rng, words, seconds=seconds, events=events)
        if ended.fault() is None or ended.status == -signal.SIGKILL:
            ended = go_on(commands, folder, training)
        outcome = ended.fault() or (f"status {ended.status}" if ended.status else "")
        differs = "" if outcome else describe_difference(whole, read_run(folder))
        outcome = outcome or ("differs" if differs else "bit-identical")
        left = [path.name for path in tmp_path.iterdir() if path.name.startswith(f".{folder.name}.")]
        if outcome == "bit-identical" and left:
            outcome, differs = "left behind", str(left)
        counts.add("train", "kill -9", outcome, f"trial {trial}: {differs}\n{ended}", good=outcome == "bit-identical")
    assert counts.bad == [], counts.describe_bad()


def describe_difference(first: dict[str, Any], second: dict[str, Any]) -> str:
    """Name the parts in which two runs differ; empty where they are the same."""
    found = []
    for part, value, other in zip(first, first.values(), second.values(), strict=True):
        if value != other:
            was, now = (dict(enumerate(many)) if isinstance(many, list) else many for many in (value, other))
            keys = [key for key in {*was, *now} if was.get(key) != now.get(key)]
            shown = keys if part == "weights" else {key: (was.get(key), now.get(key)) for key in keys}
            found.append(f"{part}: {shown}"[:1500])
    return "; ".join(found)


@pytest.mark.parametrize("first", range(0, JOBS, AT_ONCE))
def test_a_killed_job_ends_with_the_same_bytes(
    first: int, commands: "Commands", lab: "Lab", tmp_path: Path, counts: "Counts"
) -> None:
    job = lab.spell("predict {lab}/run --file {lab}/texts.csv -o", tmp_path)
    seconds, events = measure(commands, [*job, tmp_path / "whole.csv"], tmp_path)
    whole = (tmp_path / "whole.csv").read_bytes()
    for trial in range(first, first + AT_ONCE):
        rng, output = np.random.default_rng(1000 + trial), tmp_path / f"{trial}" / "out.csv"
        output.parent.mkdir()
        ended = kill(commands, rng, [*job, output], seconds=seconds, events=events)
        while ended.status == -signal.SIGKILL and rng.random() < 0.3:
            ended = kill(commands, rng, [*job, output, "--resume"], seconds=seconds, events=events)
        if ended.status != 0:
            ended = commands.run(*job, output, "--resume")
            if ended.status == 2 and output.exists() and "exists" in ended.err:
                ended = commands.run(*job, output, "--overwrite")
        same = output.exists() and output.read_bytes() == whole and [*output.parent.iterdir()] == [output]
        outcome = ended.fault() or (f"status {ended.status}" if ended.status else "same bytes" if same else "differs")
        shown = f"trial {trial}: {sorted(path.name for path in output.parent.iterdir())}\n{ended}"
        counts.add("predict", "kill -9", outcome, shown, good=outcome == "same bytes")
    assert counts.bad == [], counts.describe_bad()
