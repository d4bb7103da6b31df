"""What a server refuses, and that it goes on answering others."""

import asyncio
import http.client
import json
import logging
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from lorafit.errors import EnvironmentUnfitError, UserInputError
from lorafit.inference.predictor import Answer
from lorafit.serving import server
from lorafit.serving.batching import Ticket
from lorafit.serving.gates import log, read_keys
from lorafit.serving.server import Access, Plan, listen_at, open_server
from lorafit.serving.service import Limits
from lorafit.tasks.registry import build_task

if TYPE_CHECKING:
    from tests.serving.conftest import Client, OpenHere

KEY, OTHER_KEY = "a-key-of-a-caller-1", "a-key-of-a-caller-2"


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/predict", b'{"inputs": "fine"', 422, "JSON"),
        ("/predict", b"\xff\xfe", 422, "JSON"),
        ("/predict", b'{"inputs": "\x80", "model": "tone"}', 422, "UTF-8"),
        ("/predict", b"", 422, ""),
        ("/predict", b"[]", 422, ""),
        ("/predict", b'{"inputs": 7, "model": "tone"}', 422, "inputs"),
        ("/predict", b'{"inputs": [], "model": "tone"}', 422, "empty"),
        ("/predict", b'{"inputs": [[]], "model": "tone"}', 422, "inputs"),
        ("/predict", b'{"inputs": "  ", "model": "tone"}', 422, "empty text"),
        ("/predict", b'{"inputs": "\\ud800", "model": "tone"}', 422, "surrogate"),
        ("/predict", b'{"inputs": "fine", "model": "nobody"}', 404, "no model of that name"),
        ("/predict", b'{"inputs": "fine", "model": "../tone"}', 404, "no model of that name"),
        ("/predict", b'{"inputs": "fine", "model": "tone@000000000000"}', 404, "another digest"),
        ("/predict", b'{"inputs": "fine"}', 404, "Name the model"),
        ("/classify", b'{"input": [], "model": "tone"}', 422, "empty"),
        ("/infinity/classify", b'{"input": [], "model": "tone"}', 422, "empty"),
        ("/predictions", b'{"texts": ["fine", ""], "model": "tone"}', 422, "row 2"),
        ("/predictions", b'{"texts": ["fine", ""], "model": "tone"}', 422, "Leave them out of the request."),
        ("/predictions", b'{"texts": ["fine"], "model": "tone", "top_k": 0}', 422, "top_k"),
        ("/explanations", b'{"text": "", "model": "tone"}', 422, "empty text"),
        ("/adapters", b'{"name": "new"}', 422, "--adapters-dir"),
        ("/predict", b'{"inputs": [1, 2, 3], "model": "tone"}', 422, "inputs"),
        ("/predict", b'{"inputs": "fine", "truncate": null, "model": "tone@0"}', 404, "digest"),
        ("/v2/models/tone/infer", b'{"id": "\\ud800", "inputs": []}', 422, "id"),
        ("/nothing", b"{}", 404, "Not Found"),
    ],
)
def test_wrong_requests_are_told_what_is_wrong(
    client: "Client", path: str, body: bytes, status: int, said: str
) -> None:
    told = client.ask("POST", path, body, content_type="application/json")
    assert told.status == status
    assert told.content.keys() == {"error", "error_type"}
    assert said in told.content["error"]


def test_a_model_that_gives_no_numbers_harms_no_other(open_here: "OpenHere", adapters: dict[str, Path]) -> None:
    with open_here(adapters) as client:
        broken = client.serving.service.shelf.find("kinds")
        head = broken.engine.shared._find_head(broken.number)
        for parameter in head.model.parameters():
            parameter.fill_(float("nan"))
        with ThreadPoolExecutor(8) as pool:
            with client.held():
                asked = [
                    pool.submit(client.post, "/predict", {"inputs": f"film {turn}", "model": name})
                    for turn in range(4)
                    for name in ("tone", "kinds")
                ]
                time.sleep(0.3)
            told = [one.result() for one in asked]
        assert [one.status for one in told] == [200, 424] * 4
        assert told[1].content["error_type"] == "backend"
        assert "finite" in told[1].content["error"]


def test_who_was_put_away_answers_what_it_took(open_here: "OpenHere", adapters: dict[str, Path]) -> None:
    with open_here(adapters) as client, ThreadPoolExecutor(8) as pool:
        expected = {
            name: client.post("/predict", {"inputs": "fine film", "model": name}).content for name in ("kinds", "stars")
        }
        with client.held():
            first = pool.submit(client.post, "/predict", {"inputs": "film", "model": "tone"})
            time.sleep(0.3)
            asked = [
                pool.submit(client.post, "/predict", {"inputs": "fine film", "model": name})
                for name in ("kinds", "stars", "kinds")
            ]
            client.wait_for("lorafit_queue_tokens", 1)
            time.sleep(0.3)
            shelf = client.serving.service.shelf
            folder, shelf.find("kinds").pinned = shelf.find("kinds").folder, False
            shelf.close("kinds")
            shelf.open("points2", shelf.find("points").folder)  # which does not take its place
            shelf.open("kinds", folder)
        assert first.result().status == 200
        for name, one in zip(("kinds", "stars", "kinds"), asked, strict=True):
            assert one.result().status == 200
            assert [label["label"] for label in one.result().content] == [label["label"] for label in expected[name]]
        assert client.post("/predict", {"inputs": "fine film", "model": "kinds"}).status == 200


def test_explanations_and_batches_do_not_mix(client: "Client") -> None:
    def explain(_: int) -> list[float]:
        told = client.post("/explanations", {"model": "tone", "text": "superb film of hours, and dull at the end"})
        return [word["contribution"] for word in told.content["words"]]

    def ask(turn: int) -> float:
        score: float = client.post("/predict", {"inputs": ["fine", "film"][turn % 2], "model": "tone"}).content[0][
            "score"
        ]
        return score

    alone, scores = explain(0), [ask(0), ask(1)]
    with ThreadPoolExecutor(8) as pool:
        explained = [pool.submit(explain, turn) for turn in range(3)]
        asked = list(pool.map(ask, range(60)))
    assert asked == pytest.approx(scores * 30, abs=1e-6)
    assert [one.result() for one in explained] == [pytest.approx(alone, abs=1e-4)] * 3


def test_an_explanation_waits_like_any_text_and_ends_with_its_client(
    open_here: "OpenHere", adapters: dict[str, Path]
) -> None:
    body = json.dumps({"text": "fine film of hours " * 60}).encode()
    with open_here({"tone": adapters["tone"]}) as client, ThreadPoolExecutor(2) as pool:
        leaving = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)
        with client.held():
            first = pool.submit(client.post, "/predict", {"inputs": "film"})
            time.sleep(0.3)  # until it is being computed
            leaving.request("POST", "/explanations", body, {"content-type": "application/json"})
            client.wait_for("lorafit_queue_tokens", 1)
            assert client.measure("lorafit_queue_tokens") <= Limits().batch_tokens, "of 275 texts a batch waits"
            assert not first.done()
            leaving.close()
            time.sleep(0.3)  # until the server has seen it
        assert first.result().status == 200
        client.wait_for("lorafit_dropped_texts_total", 1)
        assert client.post("/predict", {"inputs": "film"}).status == 200
        assert client.measure("lorafit_texts_total") == 2

        explained = pool.submit(client.ask, "POST", "/explanations", body, content_type="application/json")
        answered = 0
        while not explained.done():
            answered += client.post("/predict", {"inputs": f"film {answered}"}).status == 200
        assert explained.result().status == 200
        assert answered > 2, "others are answered meanwhile"


def test_an_explanation_that_would_take_too_long_is_refused_at_once(
    open_here: "OpenHere", adapters: dict[str, Path]
) -> None:
    asked = {"text": "fine film of hours " * 15}
    with (
        open_here({"tone": adapters["tone"]}, limits=Limits(seconds=15, wait=15)) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        with client.held():
            first = pool.submit(client.post, "/predict", {"inputs": "film"})
            time.sleep(0.3)  # until it is being computed
            bulk = pool.submit(client.post, "/predict", {"inputs": [[f"film {row} " * 30] for row in range(100)]})
            client.wait_for("lorafit_queue_tokens", 1000)
            client.serving.service._batcher.rate = 1000
            told = client.post("/explanations", asked)
            assert told.status == 429
            assert int(told.headers["retry-after"]) > 5
            client.serving.service._batcher.rate = 50_000
        assert (first.result().status, bulk.result().status) == (200, 200)
        assert client.post("/explanations", asked).status == 200


def test_answers_are_kept_though_others_fail() -> None:
    kept: list[tuple[int, Answer]] = []
    answer = Answer(build_task("regression", ("points",)).predict(np.zeros(1), None), np.zeros(1), np.zeros(1))

    async def wait() -> None:
        ticket = Ticket(2, lambda *given: kept.append(given))
        ticket.deliver(1, answer)
        ticket.deliver(0, UserInputError("no"))
        await ticket.done

    with pytest.raises(UserInputError, match="no"):
        asyncio.run(wait())
    assert kept == [(1, answer)]


def test_connections_that_send_nothing_are_closed(
    open_here: "OpenHere", adapters: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_KEEP_ALIVE", 1)
    with open_here({"tone": adapters["tone"]}) as client:
        for sent in (b"", b"POST /predict HTTP/1.1\r\nHost: loc"):
            with socket.create_connection(("127.0.0.1", client.port), timeout=10) as slow:
                slow.sendall(sent)
                with suppress(ConnectionResetError):
                    assert slow.recv(100) == b""


def test_a_head_without_an_end_is_not_kept(client: "Client") -> None:
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as endless:
        endless.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        taken = 0
        with suppress(OSError):
            while taken < 2_000_000:
                endless.sendall(b"X-More: " + b"x" * 8000 + b"\r\n")
                taken += 8010
                time.sleep(0.01)
        assert 60_000 < taken < 2_000_000, "the connection is closed"
    assert client.post("/predict", {"inputs": "film", "model": "tone"}, X_More="x" * 30_000).status == 200


def test_a_text_with_nul_is_a_text(client: "Client") -> None:
    assert client.post("/predict", {"inputs": "fine\x00film", "model": "tone"}).status == 200


def test_the_digest_finds_its_model(client: "Client") -> None:
    digest = client.get("/adapters").content["adapters"][-1]["digest"]
    assert client.post("/predict", {"inputs": "fine", "model": f"tone@{digest}"}).status == 200
    assert client.post("/predict", {"inputs": "fine", "model": f"tone@{digest[:4]}"}).status == 404


def test_hosts_and_pages_of_others_are_refused(client: "Client") -> None:
    asked = {"inputs": "fine", "model": "tone"}
    assert client.post("/predict", asked, host="evil.example").status == 403
    assert client.get("/", host="evil.example:8080").status == 403
    assert client.post("/predict", asked, host=f"localhost:{client.port}").status == 200
    assert client.post("/predict", asked, origin="http://evil.example").status == 403
    assert client.post("/predict", asked, origin=f"http://127.0.0.1:{client.port}").status == 200
    told = client.ask("OPTIONS", "/predict", origin="http://evil.example", access_control_request_method="POST")
    assert told.status == 403
    assert not any(name.startswith("access-control") for name in told.headers)


def test_answers_say_how_they_are_to_be_read(client: "Client") -> None:
    headers = client.get("/health").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_more_than_a_request_may_have_is_refused_before_it_is_read(
    open_here: "OpenHere", adapters: dict[str, Path]
) -> None:
    limits = Limits(texts=3, characters=50, body=2000, seconds=1)
    with open_here({"tone": adapters["tone"]}, limits=limits) as client:
        assert client.post("/predictions", {"texts": ["fine"] * 3}).status == 200
        told = client.post("/predictions", {"texts": ["fine"] * 4})
        assert (told.status, told.content["error_type"]) == (413, "validation")
        assert client.post("/predictions", {"texts": ["fine " * 11]}).status == 413
        told = client.post("/predictions", {"texts": ["fine " * 1000]})
        assert told.status == 413
        assert "2,000 bytes" in told.content["error"]

        connection = http.client.HTTPConnection("127.0.0.1", client.port)
        connection.request(
            "POST",
            "/predictions",
            iter([b"x" * 1500] * 3),
            encode_chunked=True,
            headers={"Transfer-Encoding": "chunked"},
        )
        assert connection.getresponse().status == 413
        connection.close()

        with socket.create_connection(("127.0.0.1", client.port)) as slow:
            slow.sendall(b"POST /predictions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
            assert slow.recv(100).startswith(b"HTTP/1.1 408")


ANSWERING = ("/predict", "/predictions", "/classify", "/infinity/classify", "/v2/models/tone/infer")


def test_who_would_wait_too_long_is_refused_at_once(open_here: "OpenHere", adapters: dict[str, Path]) -> None:
    with open_here({"tone": adapters["tone"]}, limits=Limits(wait=0)) as client, ThreadPoolExecutor(1) as pool:
        with client.held():
            asked = pool.submit(client.post, "/predict", {"inputs": "film one"})
            time.sleep(0.3)  # until it is being computed
            told = client.post("/predict", {"inputs": "film two"})
            assert (told.status, told.content["error_type"]) == (429, "overloaded")
            assert int(told.headers["retry-after"]) >= 1
            for path in ANSWERING:
                assert client.ask("POST", path, b"{not parsed").status == 429
            assert client.get("/health").status == client.get("/adapters").status == 200
        assert asked.result().status == 200
        assert client.post("/predict", {"inputs": "film two"}).status == 200
        counted = client.get("/metrics").body.decode()
        assert 'lorafit_requests_total{path="/v2/models/{name}/infer",status="429"} 1.0' in counted
        assert 'lorafit_requests_total{path="/predict",status="429"} 2.0' in counted


def test_one_models_many_texts_refuse_no_other_models(open_here: "OpenHere", adapters: dict[str, Path]) -> None:
    with open_here(adapters, limits=Limits(wait=0.02)) as client, ThreadPoolExecutor(3) as pool:
        with client.held():
            first = pool.submit(client.post, "/predict", {"inputs": "film", "model": "tone"})
            time.sleep(0.3)  # until it is being computed
            many = [[f"film {row} of hours and hours"] for row in range(64)]
            bulk = pool.submit(client.post, "/predict", {"inputs": many, "model": "tone"})
            client.wait_for("lorafit_queue_tokens", 64)
            assert client.post("/predict", {"inputs": "film", "model": "tone"}).status == 429
            other = pool.submit(client.post, "/predict", {"inputs": "film", "model": "stars"})
            time.sleep(0.3)
            assert not other.done(), "it waits for its turn"
        assert [one.result().status for one in (first, bulk, other)] == [200] * 3


def test_more_than_can_be_computed_in_time_is_refused_at_once(open_here: "OpenHere", adapters: dict[str, Path]) -> None:
    with open_here({"tone": adapters["tone"]}, limits=Limits(seconds=0.5)) as client:
        next(iter(client.serving.service.shelf)).engine.rate = 50
        told = client.post("/predict", {"inputs": [["fine film of hours"]] * 2 + [["film " * 60]]})
        assert (told.status, told.content["error_type"]) == (413, "validation")
        assert "to compute, and an answer may take 0.5 s. Ask for less at once." in told.content["error"]
        assert client.post("/explanations", {"text": "fine film " * 20}).status == 413
        assert client.post("/predict", {"inputs": "film " * 60}).status in {200, 504}, "one text is tried"


def test_a_connection_outlives_a_refusal_that_passes(open_here: "OpenHere", adapters: dict[str, Path]) -> None:
    body = json.dumps({"inputs": "fine"}).encode()
    with open_here({"tone": adapters["tone"]}, limits=Limits(wait=0)) as client, ThreadPoolExecutor(1) as pool:
        connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)
        with client.held():
            asked = pool.submit(client.post, "/predict", {"inputs": "film"})
            time.sleep(0.3)  # until it is being computed
            for _ in range(2):
                connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                assert (answer.status, answer.getheader("connection")) == (429, None)
                answer.read()
            with socket.create_connection(("127.0.0.1", client.port)) as slow:
                slow.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
                told = slow.recv(1000)
                assert told.startswith(b"HTTP/1.1 429")
                assert b"connection: close" in told
        assert asked.result().status == 200
        connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
        assert connection.getresponse().status == 200
        connection.close()


def test_who_has_no_key_is_told_so_first_and_what_may_be_known_is_looked_at(
    open_here: "OpenHere", adapters: dict[str, Path]
) -> None:
    access, limits = Access(keys=[KEY]), Limits(wait=0, cache=1)
    with open_here({"tone": adapters["tone"]}, access=access, limits=limits) as client, ThreadPoolExecutor(1) as pool:
        known = {"inputs": "fine"}
        assert client.post("/predict", known, x_api_key=KEY).status == 200
        with client.held():
            asked = pool.submit(client.post, "/predict", {"inputs": "film"}, x_api_key=KEY)
            time.sleep(0.3)  # until it is being computed
            assert client.post("/predict", {"inputs": "film two"}).status == 401
            assert client.post("/predict", {"inputs": "film two"}, x_api_key=KEY).status == 429
            assert client.post("/predict", known, x_api_key=KEY).status == 200
        assert asked.result().status == 200


def test_answers_that_come_too_late_are_given_up(open_here: "OpenHere", adapters: dict[str, Path]) -> None:
    with open_here({"tone": adapters["tone"]}, limits=Limits(seconds=0.3)) as client:
        with client.held(), ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(client.post, "/predict", {"inputs": "film"})]
            time.sleep(0.2)  # until it is being computed
            asked += [pool.submit(client.post, "/predict", {"inputs": f"film {turn}"}) for turn in range(3)]
            assert {one.result().status for one in asked} == {504}
        client.wait_for("lorafit_dropped_texts_total", 3)
        assert client.post("/predict", {"inputs": "film"}).status == 200


def test_what_nobody_waits_for_is_not_computed(open_here: "OpenHere", adapters: dict[str, Path]) -> None:
    body = json.dumps({"inputs": "a fine film"}).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    with open_here({"tone": adapters["tone"]}) as client, ThreadPoolExecutor(1) as pool:
        with client.held():
            first = pool.submit(client.post, "/predict", {"inputs": "film"})
            time.sleep(0.3)
            with socket.create_connection(("127.0.0.1", client.port)) as gone:
                gone.sendall(f"{head}\r\n\r\n".encode() + body)
                client.wait_for("lorafit_queue_tokens", 1)
            time.sleep(0.3)
        assert first.result().status == 200
        client.wait_for("lorafit_dropped_texts_total", 1)
        assert client.measure("lorafit_texts_total") == 1


def test_a_text_that_waits_already_is_not_computed_twice(open_here: "OpenHere", adapters: dict[str, Path]) -> None:
    with open_here({"tone": adapters["tone"]}, limits=Limits(cache=2)) as client, ThreadPoolExecutor(8) as pool:
        with client.held():
            asked = [pool.submit(client.post, "/predict", {"inputs": "film"})]
            time.sleep(0.3)
            asked += [pool.submit(client.post, "/predict", {"inputs": "a fine film"}) for _ in range(5)]
            client.wait_for("lorafit_queue_tokens", 1)
            time.sleep(0.3)
        answers = [one.result().content for one in asked]
        assert answers[1:] == [answers[1]] * 5
        assert client.measure("lorafit_texts_total") == 2

        assert client.post("/predict", {"inputs": "film"}).content == answers[0]
        assert client.measure("lorafit_cached_texts_total") == 1
        for text in ("film three", "film four"):
            client.post("/predict", {"inputs": text})
        client.post("/predict", {"inputs": "film"})  # forgotten by now
        assert client.measure("lorafit_texts_total") == 5


def test_keys_are_asked_for_and_counted(open_here: "OpenHere", adapters: dict[str, Path]) -> None:
    access = Access((KEY, OTHER_KEY), a_minute=2)
    with open_here({"tone": adapters["tone"]}, host="127.0.0.1", access=access) as client:
        asked = {"inputs": "fine"}
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {KEY}"}, {"x_api_key": "é"}):
            told = client.post("/predict", asked, **headers)
            assert (told.status, told.content["error_type"]) == (401, "unauthorized")
            assert told.headers["www-authenticate"] == "Bearer"
        assert client.get("/health").status == client.get("/").status == 200
        assert client.get("/metrics").status == client.get("/openapi.json").status == 401
        given = {"authorization": f"Bearer {KEY}", "host": "tone.example"}
        assert [client.post("/predict", asked, **given).status for _ in range(3)] == [200, 200, 429]
        assert client.post("/predict", asked, x_api_key=OTHER_KEY).status == 200
        assert int(client.post("/predict", asked, **given).headers["retry-after"]) <= 30


def test_keys_come_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# of the team\n{KEY}\n\n{OTHER_KEY}\n")
    assert read_keys(path) == (KEY, OTHER_KEY)
    assert read_keys(None) == ()
    monkeypatch.setenv("LORAFIT_API_KEYS", f"{KEY}, {OTHER_KEY}")
    assert read_keys(None) == (KEY, OTHER_KEY)
    for content, said in (("short", "16 characters"), ("é" * 20, "ASCII"), ("# none\n", "holds no key")):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(UserInputError, match=said):
            read_keys(path)
    with pytest.raises(UserInputError, match="cannot be read"):
        read_keys(tmp_path / "none")


def test_what_cannot_be_served_is_said_before_anything_listens(adapters: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="--api-keys FILE"):
        listen_at(Plan(adapters, host="0.0.0.0"))  # noqa: S104 - it is refused
    with pytest.raises(UserInputError, match="run or an export"):
        listen_at(Plan({}))
    with pytest.raises(UserInputError, match="--rate-limit"):
        listen_at(Plan(adapters, access=Access(a_minute=5)))
    with pytest.raises(UserInputError, match="is no folder"):
        listen_at(Plan({}, adapters_dir=tmp_path / "none"))
    with pytest.raises(UserInputError, match="is not a complete run folder"):
        open_server(Plan({"none": tmp_path}, port=0), listen_at(Plan({"none": tmp_path}, port=0)))
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(EnvironmentUnfitError, match="--port"):
        listen_at(Plan(adapters, port=taken.getsockname()[1]))


@contextmanager
def logging_heard() -> Iterator[list[logging.LogRecord]]:
    """Give what any logger says inside the block."""
    records: list[logging.LogRecord] = []
    root, handler = logging.getLogger(), logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    levels = {one: one.level for one in (root, log)}
    root.addHandler(handler)
    for one in levels:
        one.setLevel(logging.INFO)
    try:
        yield records
    finally:
        root.removeHandler(handler)
        for one, level in levels.items():
            one.setLevel(level)


def test_neither_logs_nor_measures_hold_texts(client: "Client") -> None:
    before = client.measure("lorafit_requests_total")
    with logging_heard() as records:
        client.post("/predict", {"inputs": "xylophone", "model": "tone"})
        client.post("/predict", {"inputs": {"xylophone": 1}, "model": "xylophone"})
        client.get("/xylophone?xylophone")
        client.wait_for("lorafit_requests_total", before + 3)
        time.sleep(0.2)  # a request is logged after it is counted
    lines = [json.loads(record.getMessage()) for record in records if record.name == log.name]
    told = [(line["path"], line["status"]) for line in lines if line["path"] != "/metrics"]
    assert told == [("/predict", 200), ("/predict", 422), ("other", 404)]
    form = logging.Formatter()  # with tracebacks
    assert not [record for record in records if "xylophone" in form.format(record)]
    assert b"xylophone" not in client.get("/metrics").body


def test_many_clients_at_once_are_all_answered(client: "Client") -> None:
    def ask(turn: int) -> int:
        status: int = client.post("/predict", {"inputs": f"film {turn}", "model": "tone"}).status
        return status

    with ThreadPoolExecutor(32) as pool:
        assert set(pool.map(ask, range(128))) == {200}
