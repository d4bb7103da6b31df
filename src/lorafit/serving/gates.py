"""Who gets in, and with how much: hosts, origins, keys, rates, sizes and the queue, before anything is parsed."""

import asyncio
import hashlib
import hmac
import ipaddress
import json
import logging
import math
import os
import re
import time
import traceback
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO
from urllib.parse import urlsplit

from lorafit.errors import UserInputError
from lorafit.serving.batching import OverloadedError
from lorafit.serving.measures import Measures
from lorafit.serving.service import Limits

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

KEYS_VARIABLE: Final = "LORAFIT_API_KEYS"
"""Keys, with commas between them, where no file is named."""

OPEN_PATHS: Final = ("/health", "/v2/health/live", "/v2/health/ready", "/", "/page/app.js", "/page/style.css")
"""What needs no key: whether the server lives, and the page, which asks for a key itself."""

_ANSWERS: Final = re.compile(r"/(predict|predictions|classify|infinity/classify|v2/models/[^/]+/infer)")
"""Paths at which models answer: where too much waits for them already, a request is not even parsed."""

_SHORTEST_KEY: Final = 16
_SWALLOW_SECONDS: Final = 1.0
_LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "::1")
_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)

log = logging.getLogger("lorafit.serving")
"""A line of JSON a request, without texts, keys and addresses."""


def is_loopback(host: str) -> bool:
    """Return whether only programs of this machine reach a host."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_keys(file: Path | None) -> tuple[str, ...]:
    """Read API keys: one a line of a file, `#` before remarks, or from the environment.

    Args:
        file: The file; None for the variable.

    Returns:
        The keys; none where there are none.

    Raises:
        UserInputError: The file cannot be read or holds no key, or a key is too short to be a secret.
    """
    if file is None:
        found = [key.strip() for key in os.environ.get(KEYS_VARIABLE, "").split(",")]
    else:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeError) as error:
            raise UserInputError(f"--api-keys {file} cannot be read: {type(error).__name__}.") from error
        found = [line.strip() for line in lines if not line.lstrip().startswith("#")]
    keys = tuple(key for key in found if key)
    if file is not None and not keys:
        raise UserInputError(f"--api-keys {file} holds no key. Write one a line.")
    if any(len(key) < _SHORTEST_KEY or not key.isascii() for key in keys):
        raise UserInputError(
            f"An API key has {_SHORTEST_KEY} characters at least, all ASCII. Make one with:\n"
            '  python -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    return keys


@dataclass
class _Bucket:
    """Requests that a key may still make, filled up as time passes."""

    left: float
    since: float = field(default_factory=time.monotonic)

    def take(self, a_minute: int) -> float:
        """Take one, and return 0; or return the seconds until there is one."""
        now = time.monotonic()
        self.left = min(float(a_minute), self.left + (now - self.since) * a_minute / 60)
        self.since = now
        if self.left < 1:
            return (1 - self.left) * 60 / a_minute
        self.left -= 1
        return 0.0


class _Refused(Exception):  # noqa: N818 - no error of the server's
    """`is_passing`: the same connection may ask again, and be answered."""

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        headers: Mapping[str, str] | None = None,
        *,
        is_passing: bool = False,
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.headers = status, kind, message, headers or {}
        self.is_passing = is_passing


class Gate:
    """Stands before an application, and logs and counts what passes.

    Args:
        app: The application.
        hosts: Names that requests may be for; empty for any.
        keys: API keys; empty where none is needed.
        a_minute: Requests a key may make a minute, or None.
        limits: How large a body may be, and how long it may take to arrive.
        admit: Raises `OverloadedError` where a text would wait too long.
        measures: Where requests are counted.
    """

    def __init__(
        self,
        app: App,
        *,
        hosts: Collection[str],
        keys: Sequence[str],
        a_minute: int | None,
        limits: Limits,
        admit: Callable[[], None],
        measures: Measures,
    ) -> None:
        self._app, self._hosts, self._body, self._seconds = app, hosts, limits.body, limits.seconds
        self._keys = [_digest(key) for key in keys]
        self._a_minute, self._admit, self._measures = a_minute, admit, measures
        self.is_closing = False
        """Whether connections are to end with the next answer."""
        self._buckets = {key: _Bucket(float(a_minute or 0)) for key in self._keys}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or say why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                ending = [(b"connection", b"close")] if self.is_closing else []
                message["headers"] = [*message.get("headers", ()), *_HEADERS, *ending]
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, await self._read(receive), answer)
        except _Refused as refused:
            whole = await self._swallow(receive)
            await _refuse(refused, answer, close=not (whole and refused.is_passing))
        except Exception as error:  # noqa: BLE001 - the last place where it can become an answer
            # a traceback would end with a message, which may hold a text
            log.error(json.dumps({"error": type(error).__name__, "at": _name_place(error)}))  # noqa: TRY400 - as above
            if not status:
                await _refuse(_Refused(500, "internal", f"The server failed: {type(error).__name__}."), answer)
        finally:
            seconds = time.monotonic() - began
            route = getattr(scope.get("route"), "path", _name_answering(scope["path"]) or "other")
            self._measures.count_request(route, status, seconds)
            log.info(
                json.dumps({"method": scope["method"], "path": route, "status": status, "seconds": round(seconds, 4)})
            )

    def _check(self, scope: Scope) -> None:
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = _host_of(f"//{headers.get(b'host', '')}")
        if self._hosts and host not in self._hosts:
            raise _Refused(403, "forbidden", "This server does not answer for that host. Start it with --allow-host.")
        origin = headers.get(b"origin")
        if origin is not None and scope["method"] != "GET" and _host_of(origin) != host:
            raise _Refused(403, "forbidden", "Pages of other sites may not ask this server.")
        if self._keys and scope["path"] not in OPEN_PATHS:
            self._check_key(headers)
        length = headers.get(b"content-length", "")
        if length.isdecimal() and int(length) > self._body:
            raise self._too_large()
        if scope["method"] == "POST" and _name_answering(scope["path"]):
            try:
                self._admit()
            except OverloadedError as error:
                again = {"retry-after": str(error.seconds)}
                raise _Refused(429, "overloaded", str(error), again, is_passing=True) from None

    def _check_key(self, headers: Mapping[bytes, str]) -> None:
        scheme, _, given = headers.get(b"authorization", "").partition(" ")
        given = given.strip() if scheme.lower() == "bearer" else headers.get(b"x-api-key", "")
        digest, found = _digest(given), None
        for key in self._keys:  # all are compared, however soon one is the same
            if hmac.compare_digest(key, digest):
                found = key
        if found is None:
            raise _Refused(
                401, "unauthorized", "Give an API key: Authorization: Bearer KEY.", {"www-authenticate": "Bearer"}
            )
        if self._a_minute is not None and (seconds := self._buckets[found].take(self._a_minute)):
            again = {"retry-after": str(math.ceil(seconds))}
            raise _Refused(429, "overloaded", f"This key may make {self._a_minute} requests a minute.", again)

    async def _read(self, receive: Receive) -> Receive:
        """Read a body that is neither too large nor too slow, and return what gives it to the application."""
        parts, read, more = [], 0, True
        try:
            async with asyncio.timeout(self._seconds):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        break
                    parts.append(message.get("body", b""))
                    read += len(parts[-1])
                    more = message.get("more_body", False)
                    if read > self._body:
                        raise self._too_large()
        except TimeoutError:
            raise _Refused(408, "timeout", f"The request did not arrive within {self._seconds:g} s.") from None
        whole: list[Message] = [{"type": "http.request", "body": b"".join(parts), "more_body": False}]

        async def give() -> Message:
            return whole.pop() if whole else await receive()

        return give

    async def _swallow(self, receive: Receive) -> bool:
        """Read what a client still sends, within bounds, and return whether that was all of it.

        A client whose connection ends before may not see the answer.
        """
        read = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(_SWALLOW_SECONDS):
                while read <= self._body:
                    message = await receive()
                    read += len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return True
        return False

    def _too_large(self) -> _Refused:
        return _Refused(413, "validation", f"A request has at most {self._body:,} bytes.")


async def _refuse(refused: _Refused, send: Send, *, close: bool = True) -> None:
    """Say why a request is refused, and end its connection where more of it may come."""
    body = json.dumps({"error": refused.message, "error_type": refused.kind}).encode()
    own = {"content-type": "application/json", "content-length": str(len(body))}
    headers = {**own, **refused.headers, **({"connection": "close"} if close else {})}
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


def allowed_hosts(host: str, more: Sequence[str], *, keys: bool) -> frozenset[str]:
    """Return the names that requests may be for.

    A page of another site can let its own name lead to this machine ("DNS rebinding"): without keys, only names of the
    machine itself count.

    Args:
        host: What the server listens on.
        more: Names that were allowed.
        keys: Whether keys are needed.

    Returns:
        The names; none for any.
    """
    if keys and not more:
        return frozenset()
    return frozenset({*_LOOPBACK_NAMES, host, *more})


@contextmanager
def logging_to(stream: TextIO) -> Iterator[None]:
    """Inside the block write a line a request."""
    handler, level, spreads = logging.StreamHandler(stream), log.level, log.propagate
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = spreads


def _name_place(error: BaseException) -> str:
    """Return where an error was raised, without what it was about."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def _name_answering(path: str) -> str | None:
    """Return the route of a path at which models answer, without a client's own words; None for any other path."""
    if not _ANSWERS.fullmatch(path):
        return None
    return "/v2/models/{name}/infer" if path.startswith("/v2/") else path


def _host_of(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
