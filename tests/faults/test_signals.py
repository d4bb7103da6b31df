"""A signal keeps what there is, tells the command to go on, and ends with the exit code of the signal."""

import json
import signal
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from conftest import Commands, Counts, Ended, Lab

pytestmark = pytest.mark.slow

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}

TRIALS = 5
"""Signals of a kind for each command."""

STARTED = {
    "train": "train -c {lab}/config.yaml -o {place}/out",
    "predict": "predict {lab}/run --file {lab}/texts.csv -o {place}/out.csv",
    "compare": "compare {lab}/rows.csv --methods head_only,bitfit -o {place}/out {SHORT}",
    "search": "search {lab}/rows.csv --trials 2 -o {place}/out {SHORT}",
    "export": "export {lab}/run --int8 -o {place}/out",
    "report": "report {lab}/run -o {place}/out.html",
    "reproduce": "reproduce {lab}/run -o {place}/out",
}
"""Commands that take their time."""

AGAIN = {
    "train": "train --resume {place}/out",
    "predict": f"{STARTED['predict']} --resume",
    "reproduce": "reproduce {lab}/run -o {place}/out-2",
}
"""Commands that are given again in other words."""

TELLS = ("train", "predict", "compare", "search")
"""Commands that name the one to go on with."""


@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
@pytest.mark.parametrize("name", STARTED)
def test_a_signal_keeps_what_there_is(
    name: str, number: signal.Signals, commands: "Commands", lab: "Lab", tmp_path: Path, counts: "Counts"
) -> None:
    first, again = STARTED[name], AGAIN.get(name, STARTED[name])
    whole = tmp_path / "whole"
    whole.mkdir()
    began = time.monotonic()
    ended = commands.run(*lab.spell(first, whole))
    assert ended.status == 0, str(ended)
    seconds = time.monotonic() - began
    for trial in range(TRIALS):
        rng, place = np.random.default_rng(zlib.crc32(f"{name} {number} {trial}".encode())), tmp_path / str(trial)
        place.mkdir()
        started = commands.start(*lab.spell(first, place))
        moment = rng.uniform(0.1, seconds)
        time.sleep(moment)
        started.send(number)
        ended = started.wait()
        outcome = judge(name, ended, number, place)
        counts.add(name, number.name, outcome, f"{moment:.2f} of {seconds:.2f} s: {ended}", good=outcome in GOOD)
        if outcome == "kept" and "when the export was complete" in ended.err:
            after = commands.run("predict", place / "out", "a text")
            counts.add(
                name, f"used after {number.name}", after.fault() or "complete", str(after), good=not after.status
            )
        elif outcome == "kept" and "The output is complete" in ended.err:
            same = (place / "out.csv").read_bytes() == (whole / "out.csv").read_bytes()
            counts.add(name, f"read after {number.name}", "complete" if same else "other", str(ended), good=same)
        elif outcome == "kept":
            words = first if name == "train" and not (place / "out" / "run.json").exists() else again
            after = commands.run(*lab.spell(words, place))
            if after.status == 2 and "is complete" in after.err:
                after = commands.run("report", place / "out")
            left = sorted(path.name for path in place.iterdir() if not path.name.startswith("out"))
            outcome = after.fault() or (f"status {after.status}" if after.status else f"left {left}" if left else "")
            counts.add(name, f"again after {number.name}", outcome or "complete", f"{ended}\n{after}", good=not outcome)
    assert counts.bad == [], counts.describe_bad()


GOOD = ("kept", "had ended", "not begun")


def judge(name: str, ended: "Ended", number: int, place: Path) -> str:
    """Say how a command took a signal."""
    if ended.status == 0 or (ended.status == -number and (ended.out or " written to " in ended.err)):
        return "had ended"  # where the process was stopped, and not its work, too
    if ended.status == -number and not any(place.iterdir()):
        return "not begun"  # Python was still importing
    if (bad := ended.fault()) is not None:
        return bad
    if ended.status != CODES[signal.Signals(number)]:
        return f"status {ended.status}"
    record = place / "out" / "run.json"
    if name == "train" and record.exists() and json.loads(record.read_bytes())["status"] == "running":
        return "its record says that it runs"
    last = ended.err.splitlines()[-1]
    is_told = any(words in last for words in ("lorafit ", "the same command and --resume", "The output is complete"))
    return "kept" if is_told or name not in TELLS or not any(place.iterdir()) else "no command to go on"
