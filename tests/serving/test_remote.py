"""`lorafit predict http://…` gives what `lorafit predict RUN` gives."""

import csv
import json
import socket
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import lorafit
from lorafit.cli import main
from lorafit.errors import EnvironmentUnfitError, UserInputError
from lorafit.inference.remote import RemotePredictor
from lorafit.serving.server import Access
from lorafit.serving.service import Limits

if TYPE_CHECKING:
    from tests.serving.conftest import Client, OpenHere

KEY = "a-key-of-a-caller-1"


def run(*words: str) -> int:
    """Run a command, and return its exit code."""
    with pytest.raises(SystemExit) as end:
        main(list(words))
    return int(end.value.code or 0)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", ["tone", "kinds", "points", "stars"])
def test_predictions_are_those_of_the_model_here(client: "Client", adapters: dict[str, Path], name: str) -> None:
    texts = [f"{word} film {row}" for row in range(50) for word in ("superb", "awful", "dull")]
    here = lorafit.load(adapters[name], precision="fp32").predict(texts)
    there = RemotePredictor(client.serving.address, name).predict([*texts, ""], bad_rows="keep")
    assert there.pop() is None
    for one, other in zip(here, there, strict=True):
        assert type(other) is type(one)
        for field in fields(one):  # type: ignore[arg-type]  # all predictions are dataclasses
            value, told = getattr(one, field.name), getattr(other, field.name)
            if field.name == "typicality":  # a rank, which a rounding may move by one place
                assert told == pytest.approx(value, abs=0.05)
            elif isinstance(value, float | dict):
                assert told == pytest.approx(value, abs=1e-4)
            else:
                assert told == value


def test_a_file_is_predicted(client: "Client", tmp_path: Path) -> None:
    source, output = tmp_path / "new.csv", tmp_path / "out.csv"
    source.write_text("id,text\n" + "".join(f"{row},superb film {row}\n" for row in range(200)) + "200,\n")
    words = ["--adapter", "tone", "--file", str(source), "--bad-rows", "keep", "--quiet", "--output", str(output)]
    assert run("predict", client.serving.address, *words) == 0
    rows = read(output)
    assert [row["id"] for row in rows] == [str(row) for row in range(201)]
    assert rows[0].keys() > {"text", "label", "score", "typicality", "probability_neg", "fault"}
    assert (rows[-1]["label"], rows[-1]["fault"]) == ("", "an empty text")
    assert all(row["label"] in {"neg", "pos"} for row in rows[:-1])


def test_requests_are_as_small_as_a_server_takes_them(open_here: "OpenHere", adapters: dict[str, Path]) -> None:
    with open_here({"tone": adapters["tone"]}, limits=Limits(texts=5, body=2000)) as client:
        remote = RemotePredictor(client.serving.address)
        assert len(remote.predict([f"film {row} " + "é" * (30 * (row % 8)) for row in range(64)])) == 64
        with pytest.raises(UserInputError, match="413"):
            remote.predict(["film " * 1000])


def test_texts_are_told_as_they_are_here(
    client: "Client", adapters: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("predict", client.serving.address, "--adapter", "stars", "--json", "superb film", "awful film") == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["text"] for one in told] == ["superb film", "awful film"]
    assert run("predict", str(adapters["stars"]), "--json", "superb film", "awful film") == 0
    here = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one.keys() for one in told] == [one.keys() for one in here]
    assert [one["label"] for one in told] == [one["label"] for one in here]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--adapter", "nobody"], 2, "no model of that name"),
        ([], 2, "with --adapter: kinds, points, stars, tone"),
        (["--adapter", "tone", "--raw"], 2, "--raw is for folders"),
        (["--adapter", "tone", "--no-blend"], 2, "--no-blend is for folders"),
        (["--adapter", "tone@000000000000"], 2, "another digest"),
    ],
)
def test_mistakes_are_told(
    client: "Client", words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("predict", client.serving.address, *words, "superb film") == code
    assert said in capsys.readouterr().err


def test_an_adapter_is_of_a_server(adapters: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("predict", str(adapters["tone"]), "--adapter", "tone", "superb film") == 2
    assert "http://HOST:PORT" in capsys.readouterr().err


def test_keys_are_given_and_servers_may_be_gone(
    open_here: "OpenHere", adapters: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_here({"tone": adapters["tone"]}, access=Access((KEY,))) as client:
        address = client.serving.address
        with pytest.raises(UserInputError, match="API key"):
            RemotePredictor(address)
        remote = RemotePredictor(address, key=KEY)
        assert len(remote.predict(["superb film", ""], bad_rows="keep")) == 2
        with pytest.raises(UserInputError, match="cannot be predicted"):
            remote.predict(["superb film", ""])
    with pytest.raises(EnvironmentUnfitError, match="does not answer"):
        remote.predict(["superb film"])
    for wrong in ("http://", "ftp://127.0.0.1", "127.0.0.1"):
        with pytest.raises(UserInputError, match="http://HOST:PORT"):
            RemotePredictor(wrong)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        taken.close()
        with pytest.raises(EnvironmentUnfitError):
            RemotePredictor(address)
