"""What tests of faults share: the command line in forked processes, folders to be damaged, and how an end is judged.

Where `LORAFIT_FAULTS` names a file, the counts of all ends are written there as JSON.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).parent

SHORT = "-c {lab}/config.yaml --set training.max_steps=4 --set evaluation.baselines=false"
"""Options of runs of four steps."""

ROOM = 4 << 30
"""Bytes that a command may take, so that one without a limit does not take the machine's."""

PATIENCE = 300.0
"""Seconds after which a command hangs."""

FOR_USERS = (0, 1, 2, 3, 129, 130, 143)
"""Exit codes that are promised."""


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        words: Its words.
        status: Its exit code, or minus the signal that ended it; None if it hung.
        out: Its standard output.
        err: Its standard error.
        seconds: Seconds of work, its own and the system's.
        memory: Most bytes in memory.
    """

    words: tuple[str, ...]
    status: int | None
    out: bytes
    err: str
    seconds: float
    memory: int

    def fault(self) -> str | None:
        """Say what no command may do, whatever it was given; None if it did not."""
        if self.status is None:
            return "hung"
        if "failed unexpectedly" in self.err:
            return "unexpected"
        if "Traceback (most recent call last)" in self.err:
            return "traceback"
        if "weights_only" in self.err:
            return "advice to load pickles"
        if self.status not in FOR_USERS:
            return f"status {self.status}"
        return None

    def __str__(self) -> str:
        out = self.out.decode(errors="replace")
        return f"lorafit {' '.join(self.words)}: {self.status}\n{out[-2000:]}{self.err[-4000:]}"


class Started:
    """A command at work."""

    def __init__(self, server: "Commands", words: tuple[str, ...], pid: int, began: float, place: Path) -> None:
        self._server = server
        self._words = words
        self.pid = pid
        self.began = began
        self._place = place

    def send(self, number: int) -> None:
        """Send a signal; nothing happens if it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def err(self) -> str:
        """Return what it has written to standard error by now."""
        path = self._place / "stderr"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def wait(self, patience: float = PATIENCE) -> Ended:
        """Wait for its end, and kill it if that does not come."""
        hangs, until, pause = False, time.monotonic() + patience, 0.002
        while (found := self._server.ask({"poll": self.pid})) is None:
            if time.monotonic() > until:
                hangs, until = True, time.monotonic() + 60
                self.send(signal.SIGKILL)
            time.sleep(pause)
            pause = min(pause * 1.2, 0.1)
        read = {
            name: (self._place / name).read_bytes() for name in ("stdout", "stderr") if (self._place / name).exists()
        }
        ended = Ended(
            words=self._words,
            status=None if hangs else found["status"],
            out=read.get("stdout", b""),
            err=read.get("stderr", b"").decode(errors="replace"),
            seconds=found["seconds"],
            memory=found["memory"],
        )
        shutil.rmtree(self._place, ignore_errors=True)
        return ended


class Commands:
    """Starts commands in processes that are forked from one that has imported the libraries."""

    def __init__(self, place: Path, env: Mapping[str, str]) -> None:
        self._place = place
        self._number = 0
        own = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "NO_COLOR": "1", "COLUMNS": "200", **env}
        self._process = subprocess.Popen(
            [sys.executable, "-P", HERE / "server.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **own},
        )
        assert self._read() == "ready"

    def ask(self, request: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
        """Send a request and return the answer."""
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._read()

    def _read(self) -> Any:  # noqa: ANN401 - JSON
        line = self._process.stdout.readline()
        assert line, "the process that forks has ended"
        return json.loads(line)

    def start(
        self,
        *words: object,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        without: Sequence[str] = (),
        stdin: Path | None = None,
        limits: Mapping[str, int] | None = None,
        kill_at: int = 0,
        events: Path | None = None,
    ) -> Started:
        """Start a command.

        Args:
            *words: What follows `lorafit`.
            cwd: Where it works.
            env: Variables that it has in addition.
            without: Variables that it lacks.
            stdin: Its standard input; None for an empty one.
            limits: Names of `resource`'s limits with their values.
            kill_at: The number of the disk event before which it is killed; 0 for none.
            events: Where to write how many disk events there were.

        Returns:
            The command at work.
        """
        self._number += 1
        place = self._place / f"{os.getpid()}-{self._number}"
        place.mkdir(parents=True)
        spoken = tuple(map(str, words))
        request = {
            "words": spoken,
            "cwd": str(cwd or self._place),
            "env": dict(env or {}),
            "without": list(without),
            "stdin": None if stdin is None else str(stdin),
            "stdout": str(place / "stdout"),
            "stderr": str(place / "stderr"),
            "limits": {"RLIMIT_AS": ROOM} | dict(limits or {}),
            "kill_at": kill_at,
            "events": None if events is None else str(events),
        }
        answer = self.ask({"start": request})
        return Started(self, spoken, answer["pid"], answer["began"], place)

    def run(self, *words: object, **settings: Any) -> Ended:
        """Start a command and wait for its end; `settings` are those of `start`."""
        return self.start(*words, **settings).wait()

    def close(self) -> None:
        """End the process that forks."""
        self._process.communicate()


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory, lorafit_cache: Path) -> Iterator[Commands]:
    """Runs commands as users do."""
    started = Commands(tmp_path_factory.mktemp("commands"), {"LORAFIT_CACHE": str(lorafit_cache)})
    yield started
    started.close()


Call = Callable[..., Ended]


@pytest.fixture
def call(capfdbinary: pytest.CaptureFixture[bytes]) -> Call:
    """Runs a command in this process."""
    from lorafit.cli import main

    def call(*words: object) -> Ended:
        capfdbinary.readouterr()
        spoken = tuple(map(str, words))
        with pytest.raises(SystemExit) as caught:
            main(spoken)
        said = capfdbinary.readouterr()
        return Ended(spoken, int(caught.value.code or 0), said.out, said.err.decode(errors="replace"), 0.0, 0)

    return call


@dataclasses.dataclass(frozen=True)
class Lab:
    """A folder with all that is damaged, made once for all workers. Tests copy from it.

    Attributes:
        root: The folder.
    """

    root: Path

    def spell(self, line: str, place: Path, **names: object) -> list[str]:
        """Return the words of a line in which `{lab}` is this folder, `{place}` another, and `{SHORT}` short runs."""
        return line.replace("{SHORT}", SHORT).format(lab=self.root, place=place, **names).split()

    def take(self, name: str, place: Path) -> Path:
        """Copy a folder or file to `place`, and return the copy."""
        source, copy = self.root / name, place / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, symlinks=True)
        else:
            shutil.copy2(source, copy)
        return copy


@pytest.fixture(scope="session")
def lab(commands: Commands, shared_folder: Callable[..., Path], build_encoder: Callable[..., Path]) -> Lab:
    """Runs, exports, checkpoints, a stopped job, a comparison and a search."""

    def fill(root: Path) -> None:
        encoder = build_encoder("distilbert", initializer_range=0.1)
        shutil.copytree(encoder, root / "encoder")
        write_rows(root / "rows.csv", 240, seed=0)
        write_rows(root / "texts.csv", 9000, seed=1)
        (root / "config.yaml").write_text(CONFIG.format(rows=root / "rows.csv", encoder=root / "encoder"))
        made = Lab(root)

        def must(line: str) -> None:
            ended = commands.run(*made.spell(line, root))
            assert ended.status == 0, str(ended)

        must("train -c {lab}/config.yaml -o {lab}/run")
        must("train -c {lab}/config.yaml -o {lab}/other --seed 1")
        must("export {lab}/run -o {lab}/onnx")
        must("export {lab}/run -o {lab}/onnx-int8 --int8")
        must("export {lab}/run -o {lab}/merged --merged")
        must("export {lab}/other -o {lab}/other-onnx")
        must("compare {lab}/rows.csv --methods head_only,bitfit -o {lab}/comparison {SHORT}")
        must("search {lab}/rows.csv --trials 2 -o {lab}/search {SHORT}")
        training = commands.start(*made.spell("train -c {lab}/config.yaml -o {lab}/stopped", root))
        stop_when(training, lambda: "epoch 2.00" in training.err())
        (root / "job").mkdir()
        job = made.spell("predict {lab}/run --file {lab}/texts.csv -o {lab}/job/out.csv", root)
        stop_when(commands.start(*job), lambda: len([*(root / "job").glob(".out.csv.*/0*")]) >= 2)

    return Lab(shared_folder("faults", fill))


CONFIG = """
data: {{source: {rows}, test_fraction: 0.2, validation_fraction: 0.3}}
model: {{name: {encoder}, max_length: 32}}
training: {{batch_size: 8, epochs: 3, learning_rate: 1.0e-2, threads: 1}}
evaluation: {{bootstrap_samples: 100}}
"""


def write_rows(path: Path, rows: int, *, seed: int) -> None:
    """Write texts whose words tell their label, but for every tenth."""
    rng = np.random.default_rng(seed)
    words = (("awful", "boring", "dull", "poor"), ("fine", "great", "lovely", "superb"))
    with path.open("w", encoding="utf-8") as file:
        file.write("text,label\n")
        for row in range(rows):
            sided = words[row % 2 if row % 10 else rng.integers(2)]
            file.write(f"{rng.choice(sided)} {rng.choice(sided)} film {row},{('neg', 'pos')[row % 2]}\n")


def stop_when(started: Started, happened: Callable[[], bool]) -> None:
    """Kill a command as soon as something has happened."""
    until = time.monotonic() + PATIENCE
    while not happened() and time.monotonic() < until:
        time.sleep(0.002)
    started.send(signal.SIGKILL)
    ended = started.wait()
    assert ended.status == -signal.SIGKILL, str(ended)


class Counts:
    """How commands ended, by command, fault and outcome; bad ends are kept to be shown."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.bad: list[str] = []

    def add(self, command: str, fault: str, outcome: str, shown: str = "", *, good: bool) -> None:
        """Count an end; one that is not good is shown at the end of the test."""
        self.counts[command, fault, outcome] += 1
        if not good:
            self.bad.append(f"[{command} on {fault}: {outcome}] {shown}")
            if path := os.environ.get("LORAFIT_FAULTS"):
                with Path(f"{path}.bad").open("a", encoding="utf-8") as file:
                    file.write(f"{self.bad[-1]}\n\n")

    def describe_bad(self) -> str:
        """Say how many ended badly, and how the first of them did."""
        return "\n\n".join([f"{len(self.bad)} of {self.counts.total()} ended badly:", *self.bad[:40]])


@pytest.fixture
def counts(request: pytest.FixtureRequest) -> Iterator[Counts]:
    """Counts ends, which `LORAFIT_FAULTS` takes."""
    group = request.module.__name__.rpartition("test_")[2]
    counted = Counts(group)
    yield counted
    if path := os.environ.get("LORAFIT_FAULTS"):
        with Path(f"{path}.{os.getpid()}.part").open("a", encoding="utf-8") as file:
            for (command, fault, outcome), number in counted.counts.items():
                file.write(json.dumps([group, command, fault, outcome, number]) + "\n")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Put the counts of all workers together."""
    path = os.environ.get("LORAFIT_FAULTS")
    if path is None or hasattr(session.config, "workerinput"):
        return
    total: Counter[tuple[str, ...]] = Counter()
    for part in Path(path).parent.glob(f"{Path(path).name}.*.part"):
        for line in part.read_text(encoding="utf-8").splitlines():
            *key, number = json.loads(line)
            total[tuple(key)] += number
        part.unlink()
    table: dict[str, Any] = {}
    for (group, command, fault, outcome), number in sorted(total.items()):
        table.setdefault(group, {}).setdefault(command, {}).setdefault(fault, {})[outcome] = number
    Path(path).write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
