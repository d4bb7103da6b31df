"""Pages in a real browser: headless Chromium, spoken to over its DevTools pipe, without a driver in between."""

import itertools
import json
import os
import select
import shutil
import subprocess
import time
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",  # as root, which continuous integration often is
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nothing leaves this machine
)
PATIENCE_SECONDS = 60


@dataclass
class Visit:
    """What a browser saw of a page.

    Attributes:
        complaints: Errors and warnings of its console, exceptions and violations of the page's own policy.
        requests: Addresses it asked for beside the page itself.
    """

    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


class Chromium:
    """One tab of a headless browser."""

    def __init__(self, process: "subprocess.Popen[bytes]", commands: int, answers: int) -> None:
        self._process, self._commands, self._answers = process, commands, answers
        self._numbers, self._buffer = itertools.count(1), b""
        self._events: list[dict[str, Any]] = []
        self._session: str | None = None
        self._address = "about:blank"
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def open(self, page: Path | str, *, width: int, scheme: str = "light", medium: str = "screen") -> Visit:
        """Open a file or an address as a screen of `width` pixels shows it."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", media=medium, features=features)
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        self._events.clear()
        self._address = page if isinstance(page, str) else page.resolve().as_uri()
        self.send("Page.navigate", url=self._address)
        self._wait_for("Page.loadEventFired")
        self.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")
        return self.recall()

    def recall(self) -> Visit:
        """Return what was seen of the open page until now."""
        return Visit(
            complaints=[text for event in self._events if (text := _complaint(event))],
            requests=[url for event in self._events if (url := _request(event)) and url != self._address],
        )

    def evaluate(self, expression: str) -> Any:  # noqa: ANN401 - whatever the page gives
        """Return what a JavaScript expression gives in the page, its promise awaited."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def photograph(self, path: Path) -> None:
        """Write the whole page as a PNG file."""
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        image = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(b64decode(image["data"]))

    def send(self, method: str, **values: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol and return its result."""
        number = next(self._numbers)
        session = {"sessionId": self._session} if self._session else {}
        command = json.dumps({"id": number, "method": method, "params": values, **session}).encode() + b"\0"
        while command:
            command = command[os.write(self._commands, command) :]
        while (message := self._receive()).get("id") != number:
            self._events.append(message)
        assert "error" not in message, (method, message)
        return message["result"]  # type: ignore[no-any-return]

    def _wait_for(self, event: str) -> None:
        while not any(one.get("method") == event for one in self._events):
            self._events.append(self._receive())

    def _receive(self) -> dict[str, Any]:
        """Return the next message; they end with a zero byte each."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "Chromium does not answer"
            chunk = os.read(self._answers, 2**20)
            assert chunk, f"Chromium ended: {self._process.poll()}"
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """A browser with a fresh profile."""
    program = shutil.which("chromium")
    assert program, "Chromium is not installed: `make test-browser` installs Debian's"
    read_command, commands = os.pipe()
    answers, write_answer = os.pipe()
    # The protocol wants commands at descriptor 3 and gives answers at descriptor 4.
    shell = f'exec "$@" 3<&{read_command} 4>&{write_answer}'
    profile = tmp_path_factory.mktemp("profile")
    process = subprocess.Popen(
        ["bash", "-c", shell, "bash", program, *FLAGS, f"--user-data-dir={profile}"],
        pass_fds=(read_command, write_answer),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(read_command)
    os.close(write_answer)
    try:
        yield Chromium(process, commands, answers)
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(commands)
        os.close(answers)


def _complaint(event: dict[str, Any]) -> str:
    values = event.get("params", {})
    if event.get("method") == "Runtime.exceptionThrown":
        return str(values["exceptionDetails"])
    if event.get("method") == "Runtime.consoleAPICalled" and values["type"] in {"error", "warning", "assert"}:
        return str(values["args"])
    if event.get("method") == "Log.entryAdded" and values["entry"]["level"] in {"error", "warning"}:
        return str(values["entry"])
    return ""


def _request(event: dict[str, Any]) -> str:
    if event.get("method") != "Network.requestWillBeSent":
        return ""
    return str(event["params"]["request"]["url"])
