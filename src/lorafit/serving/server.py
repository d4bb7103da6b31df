"""Open models and answer over HTTP until told to stop."""

import asyncio
import math
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lorafit.errors import EnvironmentUnfitError, UserInputError
from lorafit.runs.hub import locate_run, name_model
from lorafit.serving.app import build_app
from lorafit.serving.gates import KEYS_VARIABLE, Gate, allowed_hosts, is_loopback
from lorafit.serving.measures import Measures
from lorafit.serving.service import Limits, Service
from lorafit.serving.shelf import NAME, Shelf
from lorafit.system.signals import listen

_BACKLOG: Final = 2048
_LONGEST_HEAD: Final = 65_536
"""Bytes of a request before its body."""

_KEEP_ALIVE: Final = 30
"""Seconds that a connection without requests stays open, or with half a head of one."""

_FAREWELL: Final = 1.0
"""Seconds at most for which connections that are open when the server is to end are waited for."""


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        keys: API keys; none are needed on loopback only.
        a_minute: Requests a key may make a minute, or None.
        hosts: Further names that requests may be for.
    """

    keys: Sequence[str] = ()
    a_minute: int | None = None
    hosts: Sequence[str] = ()


def name_models(words: Sequence[str]) -> dict[str, Path]:
    """Read what is to be served: folders, or NAME=FOLDER; a folder's own name in small letters is the model's.

    Args:
        words: The folders, or repositories of the Hub: `hub:owner/name`.

    Returns:
        Folders by name.

    Raises:
        UserInputError: A name stands twice, or is none that a model may have.
    """
    found: dict[str, Path] = {}
    for word in words:
        name, sign, folder = word.partition("=")
        is_named = bool(sign) and not Path(word).exists()
        given = folder if is_named else word
        name = name if is_named else name_model(given).lower()
        if not NAME.fullmatch(name):
            raise UserInputError(f"{word} has no name that a model may have. Give it one: NAME={given}")
        if name in found:
            raise UserInputError(f"Two models are named {name}. Give one another name: NAME={given}")
        found[name] = locate_run(given)
    return found


class _Protocol(HttpToolsProtocol):
    """A connection that is closed when nothing, or half a head, comes for too long, or when a head has no end."""

    _waiting: asyncio.TimerHandle | None = None
    _head = 0
    """Bytes of a head that has not ended."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own type
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._waiting = self.loop.call_later(_KEEP_ALIVE, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        super().data_received(data)
        self._head = 0 if self._waiting is None else self._head + len(data)
        if self._head > _LONGEST_HEAD:
            self.transport.abort()

    def on_message_begin(self) -> None:
        """Wait for the rest of a head that has begun."""
        super().on_message_begin()
        if self._waiting is None:
            self._waiting = self.loop.call_later(_KEEP_ALIVE, self.transport.abort)

    def on_headers_complete(self) -> None:
        """Wait for a head no longer: its body has a limit of its own."""
        self._stop_waiting()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


class _Server(uvicorn.Server):
    """Answers what has been sent before it ends, also on connections that nobody has taken from the system yet."""

    def __init__(self, config: uvicorn.Config, gate: Gate, service: Service, *, is_alone: bool) -> None:
        super().__init__(config)
        self._gate, self._service, self._is_alone = gate, service, is_alone

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Keep no connection alive any more, let next to none wait in the system, and end when those there are done."""
        self._gate.is_closing = True
        self._service.is_ending = True
        for listening in sockets or ():
            if self._is_alone:  # others may still answer what waits
                listening.listen(0)
        until = time.monotonic() + _FAREWELL
        while self.server_state.connections and time.monotonic() < until:
            await asyncio.sleep(_FAREWELL / 20)
        await super().shutdown(sockets)


@dataclass(frozen=True)
class Serving:
    """A server that listens.

    Attributes:
        server: Speaks HTTP; `should_exit` lets it end.
        listening: Where it listens.
        service: What answers; its `shelf` holds the models, and more may be opened and closed while it runs.
        warm_up_tokens: As in `Plan`.
    """

    server: uvicorn.Server
    listening: socket.socket
    service: Service
    warm_up_tokens: int

    @property
    def address(self) -> str:
        """Where it answers."""
        return tell_address(self.listening)

    def run(self) -> None:
        """Compute answers in this thread, and speak HTTP in another, until the server ends.

        What was taken is answered before this returns. In the main thread the first signal lets the server end.
        """

        def speak() -> None:
            try:
                self.server.run(sockets=[self.listening])
            finally:
                self.service.stop()

        speaking = threading.Thread(target=speak, name="http")
        try:
            with listen(self.stop):
                speaking.start()
                self.service.run(warm_up_tokens=self.warm_up_tokens)
        finally:
            self.stop()
            speaking.join()
            self.listening.close()

    def stop(self) -> None:
        """Let the server end."""
        self.server.should_exit = True


@dataclass(frozen=True)
class Plan:
    """What is to be served, and to whom.

    Attributes:
        models: Runs and exports by name; they stay open.
        adapters_dir: Folder of further models, opened when they are asked for.
        host: Address to listen on.
        port: Its port; 0 for a free one.
        most: Most models that are open.
        precision: Of runs, as `lorafit.load` has it.
        access: Who may ask.
        limits: What requests may ask for.
        warm_up_tokens: Length of the texts that are computed before it is ready; 0 for none.
        workers: Processes that answer. With several, none of them opens or puts away models by request.
    """

    models: Mapping[str, Path]
    adapters_dir: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    most: int = 100
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    access: Access = Access()
    limits: Limits = field(default_factory=Limits)
    warm_up_tokens: int = 128
    workers: int = 1


def listen_at(plan: Plan) -> socket.socket:
    """Listen where a plan says, if it can be served; connections wait until somebody answers.

    Args:
        plan: What is to be served.

    Returns:
        The socket, for `open_server`.

    Raises:
        UserInputError: Nothing is to be served, or the address or the rate needs keys.
        EnvironmentUnfitError: The address cannot be listened on.
    """
    if not plan.models and plan.adapters_dir is None:
        raise UserInputError("Name a run or an export to serve, or --adapters-dir.")
    if plan.adapters_dir is not None and not plan.adapters_dir.is_dir():
        raise UserInputError(f"--adapters-dir {plan.adapters_dir} is no folder.")
    if not plan.access.keys and not is_loopback(plan.host):
        raise UserInputError(
            f"Other machines reach {plan.host}, so that callers need a key. Write one a line into a file and give it "
            f"with --api-keys FILE, or set {KEYS_VARIABLE}; or listen on --host 127.0.0.1."
        )
    if plan.access.a_minute is not None and not plan.access.keys:
        raise UserInputError(f"--rate-limit counts the requests of a key: give --api-keys FILE, or {KEYS_VARIABLE}.")
    family = socket.AF_INET6 if ":" in plan.host else socket.AF_INET
    # asyncio sends small answers at once (TCP_NODELAY) where the protocol is named
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((plan.host, plan.port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise EnvironmentUnfitError(
            f"Nothing can be served at {plan.host}, port {plan.port}: {error.strerror or error}. Take another with "
            "--port, or 0 for a free one."
        ) from error
    return listening


def tell_address(listening: socket.socket) -> str:
    """Return where a socket answers."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def open_server(plan: Plan, listening: socket.socket, *, say: Callable[[str], None] = lambda _: None) -> Serving:
    """Open the models of a plan, to answer on a socket.

    Args:
        plan: What is to be served.
        listening: From `listen_at`; closed where a model cannot be opened. Several processes may answer on it.
        say: Called with lines for people.

    Returns:
        The server.

    Raises:
        UserInputError: A model's name is wrong.
        LorafitError: A model cannot be opened.
    """
    try:
        shelf = Shelf(folder=plan.adapters_dir, most=max(plan.most, len(plan.models)), precision=plan.precision)
        for name, folder in plan.models.items():
            served = shelf.open(name, folder, pinned=True)
            shared = "on the shared base" if served.alone is None else f"by itself: {served.alone}"
            say(f"{name}@{served.digest}: {shared}")
        measures = Measures()
        service = Service(shelf, plan.limits, measures)
        access = plan.access
        gate = Gate(
            build_app(service, is_alone=plan.workers == 1),
            hosts=allowed_hosts(plan.host, access.hosts, keys=bool(access.keys)),
            keys=access.keys,
            a_minute=access.a_minute,
            limits=plan.limits,
            admit=service.admit,
            measures=measures,
        )
    except BaseException:
        listening.close()
        raise
    config = uvicorn.Config(
        gate,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        http=_Protocol,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=math.ceil(plan.limits.seconds) + 1,
    )
    return Serving(_Server(config, gate, service, is_alone=plan.workers == 1), listening, service, plan.warm_up_tokens)
