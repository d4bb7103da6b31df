"""A model behind `lorafit serve`, asked over HTTP as if it were here."""

import http.client
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import fields, replace
from typing import Any, Final, cast
from urllib.parse import quote, urlsplit

import numpy as np

from lorafit.errors import EnvironmentUnfitError, LorafitError, RunError, UserInputError
from lorafit.inference.given_texts import AnyText, read_texts
from lorafit.inference.predictor import BadTexts
from lorafit.system.text import clean_text
from lorafit.tasks.base import Prediction, Task
from lorafit.tasks.registry import TASKS, build_task

SCHEMES: Final = ("http://", "https://")
"""How the address of a server begins."""

KEY_VARIABLE: Final = "LORAFIT_API_KEY"
"""Where the key of a server stands that asks for one."""

_CHUNK: Final = 64
_PATIENCE: Final = 120.0
"""Seconds until a server that does not answer counts as gone."""

_TOO_MUCH: Final = 413
_FAILED: Final = 424
_TOO_LATE: Final = 504
_BUSY: Final = 429
_TOKENLESS: Final = "tokenless"
_TIRELESS: Final = 100
"""How often a busy server is asked again."""

_EXAMPLE: Final = "film"
_MOST_CHARACTERS: Final = 300


class RemotePredictor:
    """A model of a server; `predict` gives what it would give here.

    Args:
        address: Where the server is, such as `http://127.0.0.1:8080`.
        model: Its name there; None for the only one.
        key: API key, or None.

    Raises:
        UserInputError: The address is none, there is no such model, or the key is wrong.
        EnvironmentUnfitError: The server does not answer.
    """

    def __init__(self, address: str, model: str | None = None, *, key: str | None = None) -> None:
        try:
            parts = urlsplit(address)
            is_address = bool(parts.hostname) and f"{parts.scheme}://" in SCHEMES and (parts.port or 1) > 0
        except ValueError:
            is_address = False
        if not is_address:
            raise UserInputError(f"{address} is no address of a server. Give http://HOST:PORT.")
        self.address, self._parts, self._key = address, parts, key
        described = self._describe(model)
        self._name = f"{described['name']}@{described['digest']}"
        self.fingerprint: str = f"{address} {self._name}"
        self.pair: bool = described["pair"]
        if described["task"] not in TASKS:
            raise RunError(f"The server's model is for a task that this lorafit does not know: {described['task']}.")
        self.task: Task = build_task(described["task"], described["labels"])

    def predict(
        self, texts: Iterable[AnyText], *, bad_rows: BadTexts = "stop", on_progress: Callable[[int], None] | None = None
    ) -> list[Prediction | None]:
        """Predict texts, as `Predictor.predict` does.

        Args:
            texts: As there.
            bad_rows: As there.
            on_progress: As there.

        Returns:
            As there.

        Raises:
            UserInputError: As there, or the server refuses the request.
            EnvironmentUnfitError: The server has gone, or stays too busy.
            RunError: The model failed.
        """
        given = read_texts(texts, pair=self.pair)
        if bad_rows == "stop":
            given.refuse_faults()
        usable = given.usable
        answers: list[Prediction | None] = [None] * len(given.texts)
        for start in range(0, len(usable), _CHUNK):
            places = usable[start : start + _CHUNK]
            for place, answer in zip(places, self._ask([given.texts[one] for one in places], bad_rows), strict=True):
                answers[place] = answer
            if on_progress is not None:
                on_progress(start + len(places))
        return answers

    def find_example(self) -> Prediction:
        """Return any prediction; it tells which columns predictions have."""
        (example,) = self._ask([(_EXAMPLE, _EXAMPLE) if self.pair else _EXAMPLE], "stop")
        if example is None:
            raise RunError("The server gives no predictions.")
        return example

    def _describe(self, model: str | None) -> dict[str, Any]:
        """Ask what a model is; one that waits to be asked for is opened."""
        status, told = self._send("GET", "/adapters" if model is None else f"/adapters/{quote(model, safe='@')}")
        if status != 200:
            raise self._describe_fault(status, told)
        if model is not None:
            return told
        listed: list[dict[str, Any]] = told["adapters"]
        if len(listed) != 1:
            names = ", ".join(one["name"] for one in listed[:10]) or "none"
            raise UserInputError(f"Name a model of the server at {self.address} with --adapter: {names}.")
        return listed[0]

    def _ask(self, texts: Sequence[Any], bad_rows: BadTexts) -> list[Prediction | None]:
        given = [list(text) if isinstance(text, tuple) else text for text in texts]
        status, told = self._send("POST", "/predictions", {"model": self._name, "texts": given})
        if status == 200:
            return [self._read(one) for one in told["predictions"]]
        is_empty = bad_rows == "keep" and told.get("error_type") == _TOKENLESS
        if is_empty and len(texts) == 1:
            return [None]
        if len(texts) > 1 and (is_empty or status in {_TOO_MUCH, _TOO_LATE}):
            half = len(texts) // 2
            return self._ask(texts[:half], bad_rows) + self._ask(texts[half:], bad_rows)
        raise self._describe_fault(status, told)

    def _read(self, told: dict[str, Any]) -> Prediction:
        """Build a prediction of what was told."""
        scores = {one["label"]: one["score"] for one in told["scores"]}
        prediction: Any = self.task.predict(np.array([scores[name] for name in self.task.label_names]))
        known = {field.name for field in fields(prediction)} - {"scores"}
        return cast(
            "Prediction", replace(prediction, **{name: _restore(told[name]) for name in known.intersection(told)})
        )

    def _send(self, method: str, path: str, content: object = None) -> tuple[int, dict[str, Any]]:
        """Ask the server, again where it is busy, and return status and JSON."""
        for _ in range(_TIRELESS):
            status, again, body = self._exchange(method, path, content)
            if status != _BUSY:
                break
            time.sleep(again)
        try:
            told = json.loads(body)
        except ValueError:
            told = {}
        return status, told if isinstance(told, dict) else {}

    def _describe_fault(self, status: int, told: Mapping[str, Any]) -> LorafitError:
        """Return the error that an answer stands for."""
        said = clean_text(str(told.get("error", "")), most=_MOST_CHARACTERS) or "nothing that lorafit knows"
        message = f"The server at {self.address} answered {status}: {said}"
        if status == _FAILED:
            return RunError(message)
        return UserInputError(message) if 400 <= status < 500 and status != _BUSY else EnvironmentUnfitError(message)

    def _exchange(self, method: str, path: str, content: object) -> tuple[int, float, bytes]:
        """Send a request, and return status, Retry-After and body."""
        headers = {"content-type": "application/json"}
        if self._key is not None:
            headers["authorization"] = f"Bearer {self._key}"
        body = None if content is None else json.dumps(content, ensure_ascii=False).encode()
        try:
            with closing(self._connect()) as connection:
                connection.request(method, f"{self._parts.path.rstrip('/')}{path}", body, headers)
                answer = connection.getresponse()
                again = answer.headers.get("retry-after", "1")
                return answer.status, float(again if again.isdecimal() else 1), answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise EnvironmentUnfitError(
                f"The server at {self.address} does not answer: {type(error).__name__}. Is it running?"
            ) from error

    def _connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        return kind(self._parts.hostname or "", self._parts.port, timeout=_PATIENCE)


def _restore(value: object) -> object:
    """Return a value as predictions hold it: lists as tuples, names of labels as text."""
    if isinstance(value, list):
        return tuple(map(str, value))
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value
