"""Servers that run, and clients that ask them."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lorafit.serving.server import Plan, Serving, listen_at, open_server
from lorafit.serving.shelf import Work
from lorafit.tasks.base import Array

TASK_NAMES = {"tone": "single_label", "kinds": "multi_label", "points": "regression", "stars": "ordinal"}
"""Adapters on one base, by the task of each."""


@dataclass(frozen=True)
class Told:
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def content(self) -> Any:  # noqa: ANN401 - any JSON
        """The JSON of the answer."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Client:
    """Asks a server, each time on a connection of its own."""

    serving: Serving

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self.serving.listening.getsockname()[1]
        return port

    def get(self, path: str, **headers: str) -> Told:
        """Ask for a path."""
        return self.ask("GET", path, **headers)

    def post(self, path: str, content: object, **headers: str) -> Told:
        """Post JSON."""
        return self.ask("POST", path, json.dumps(content).encode(), **{"content-type": "application/json", **headers})

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Told:
        """Ask with any method and bytes; `_` in the names of headers stands for `-`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            return Told(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside the block nothing is computed."""
        engine = next(iter(self.serving.service.shelf)).engine
        compute, go = engine.compute, threading.Event()

        def wait(works: Sequence[Work]) -> list[tuple[Array, Array | None]]:
            go.wait()
            return compute(works)

        engine.compute = wait  # type: ignore[method-assign]
        try:
            yield
        finally:
            engine.compute = compute  # type: ignore[method-assign]
            go.set()

    def measure(self, name: str) -> float:
        """Return a measure's value, summed over its labels."""
        lines = self.get("/metrics").body.decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.partition("{")[0].split(" ")[0] == name)

    def wait_for(self, name: str, value: float) -> None:
        """Wait until a measure has a value at least."""
        until = time.monotonic() + 20
        while self.measure(name) < value:
            assert time.monotonic() < until, f"{name} stays below {value}"
            time.sleep(0.02)


OpenHere = Callable[..., AbstractContextManager[Client]]


@pytest.fixture(scope="session")
def open_here() -> OpenHere:
    """Opens a server in this process, as `Plan` takes it, on a free port, and lets it run in a thread."""

    @contextmanager
    def run(*args: Any, **options: Any) -> Iterator[Client]:
        plan = Plan(*args, port=0, warm_up_tokens=8, **{"precision": "fp32", **options})
        serving = open_server(plan, listen_at(plan))
        thread = threading.Thread(target=serving.run)
        thread.start()
        client = Client(serving)
        try:
            until = time.monotonic() + 60
            while client.get("/health").status != 200:
                assert time.monotonic() < until, "the server is not ready"
                time.sleep(0.02)
            yield client
        finally:
            serving.server.should_exit = True
            thread.join()

    return run


@pytest.fixture(scope="session")
def adapters(trained_of: Callable[[str], Path]) -> dict[str, Path]:
    """Trained runs of each task, all on the same base, by name."""
    return {name: trained_of(task) for name, task in TASK_NAMES.items()}


@pytest.fixture(scope="session")
def client(open_here: OpenHere, adapters: dict[str, Path]) -> Iterator[Client]:
    """Asks a server of all adapters, in fp32."""
    with open_here(adapters) as client:
        yield client
