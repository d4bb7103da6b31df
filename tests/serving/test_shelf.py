"""Models come and go while a server runs."""

import json
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import lorafit
from lorafit.errors import RunError, UserInputError
from lorafit.inference.export.export import export
from lorafit.inference.remote import RemotePredictor
from lorafit.runs.folder import RunLayout
from lorafit.serving import shelf as shelves
from lorafit.serving.server import name_models
from lorafit.serving.shelf import OccupiedError, Shelf, UnknownModelError, Work

if TYPE_CHECKING:
    from tests.serving.conftest import OpenHere

TEXTS = ["superb film hours 1", "awful film minute", "boring dull film, to be honest"]


def ask(shelf: Shelf, name: str) -> np.ndarray[Any, Any]:
    """Return the values of the texts."""
    served = shelf.find(name)
    works = [Work(served, text, served.predictor.tokenize([text])) for text in TEXTS]
    outputs = served.engine.compute(works)
    logits = np.concatenate([logits for logits, _ in outputs])
    known = None if outputs[0][1] is None else np.concatenate([features for _, features in outputs])  # type: ignore[misc]
    return np.array([answer.values for answer in served.predictor.conclude(TEXTS, logits, known)])


@pytest.fixture
def folder(tmp_path: Path, adapters: dict[str, Path]) -> Path:
    """A folder of adapters, and beside it a model that is none of them."""
    for name, run in adapters.items():
        shutil.copytree(run, tmp_path / "adapters" / name)
    shutil.copytree(adapters["tone"], tmp_path / "secret")
    return tmp_path / "adapters"


def test_models_of_a_folder_are_opened_when_they_are_asked_for(folder: Path) -> None:
    shelf = Shelf(folder=folder, most=2, precision="fp32")
    assert shelf.list_waiting() == ["kinds", "points", "stars", "tone"]
    for name in ("kinds", "tone", "stars"):
        assert ask(shelf, name) == pytest.approx(
            lorafit.load(folder / name, precision="fp32").compute_values(TEXTS), abs=1e-4
        )
    assert [one.name for one in shelf] == ["stars", "tone"]  # kinds was asked for least lately
    shelf.find("tone")
    shelf.find("points")
    assert [one.name for one in shelf] == ["points", "tone"]


def test_a_model_makes_room_where_memory_is_short(folder: Path) -> None:
    shelf = Shelf(folder=folder, spare=2**60, precision="fp32")
    shelf.find("tone")
    shelf.find("points")
    assert [one.name for one in shelf] == ["points"]
    shelf.close("points")
    shelf.open("tone", folder / "tone", pinned=True)
    with pytest.raises(OccupiedError, match="Memory is short"):
        shelf.find("points")
    assert [one.name for one in Shelf(folder=folder, spare=0)] == []


def test_pinned_models_stay(folder: Path) -> None:
    shelf = Shelf(folder=folder, most=2, precision="fp32")
    for name in ("tone", "stars"):
        shelf.open(name, folder / name, pinned=True)
    with pytest.raises(OccupiedError, match="all of them are to stay"):
        shelf.find("kinds")
    with pytest.raises(OccupiedError, match="The model stars stays"):
        shelf.close("stars")
    assert [one.name for one in shelf] == ["stars", "tone"]


@pytest.mark.parametrize("path", ["../secret", "/etc", ".", "", "tone/../../secret", "link", "x" * 5000, "to\x00ne"])
def test_paths_stay_inside_the_folder(folder: Path, path: str) -> None:
    (folder / "link").symlink_to(folder.parent / "secret")
    shelf = Shelf(folder=folder, precision="fp32")
    with pytest.raises(UserInputError):
        shelf.open("new", shelf.locate(path))
    if path == "link":
        with pytest.raises(UnknownModelError):
            shelf.find("link")
    assert not len(shelf)


@pytest.mark.parametrize("name", ["", "Tone", "-tone", "../tone", "to ne", "x" * 65, "töne", "tone\n"])
def test_names_are_plain(folder: Path, name: str) -> None:
    shelf = Shelf(folder=folder, precision="fp32")
    with pytest.raises(UserInputError, match="small letters"):
        shelf.open(name, folder / "tone")
    with pytest.raises(UnknownModelError):
        shelf.find(name)


def test_a_damaged_adapter_is_refused_and_others_are_unharmed(folder: Path) -> None:
    layout = RunLayout(folder / "stars")
    weights = layout.adapter / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 255
    weights.write_bytes(content)
    shelf = Shelf(folder=folder, precision="fp32")
    before = ask(shelf, "tone")
    with pytest.raises(RunError, match="adapter_model"):
        shelf.find("stars")
    assert [one.name for one in shelf] == ["tone"]
    assert ask(shelf, "tone") == pytest.approx(before)


def test_what_cannot_be_opened_is_not_tried_again_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = RunLayout(folder / "stars").adapter / "adapter_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    shelf = Shelf(folder=folder, most=1, precision="fp32")
    shelf.find("tone")
    with pytest.raises(RunError):
        shelf.find("stars")
    assert [one.name for one in shelf] == ["tone"]  # which makes room for what can be opened alone
    weights.write_bytes(content)
    with pytest.raises(RunError, match="adapter_model"):
        shelf.find("stars")
    _, kept = shelf._failed["stars"]
    assert kept.__traceback__ is None or "open" not in list_frames(kept), "its frames would hold a model"
    monkeypatch.setattr(shelves, "_FORGIVE", 0.0)
    assert shelf.find("stars").name == "stars"
    assert [one.name for one in shelf] == ["stars"]
    assert not shelf._failed


def list_frames(error: BaseException) -> list[str]:
    """Return the names of the functions that an error's traceback holds."""
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads memory as Linux tells it")
def test_places_that_no_adapter_has_taken_cost_no_memory(folder: Path) -> None:
    def read_memory() -> int:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return 1024 * int(status.partition("VmRSS:")[2].split()[0])

    ask(Shelf(folder=folder, most=1, precision="fp32"), "tone")  # which loads libraries
    before = read_memory()
    shelf = Shelf(folder=folder, most=20_000, precision="fp32")
    ask(shelf, "tone")
    shared = shelf.find("tone").engine.shared
    assert shared is not None
    reserved = sum(part.nbytes for bank, _ in shared._banks.values() for part in (bank._down, bank._up))
    assert reserved > 5e8
    assert read_memory() - before < 1e8


def test_links_inside_a_model_do_not_lead_out(folder: Path) -> None:
    report = folder / "tone" / "report.html"
    report.unlink(missing_ok=True)
    report.symlink_to("/etc/hostname")
    (folder / "loop").symlink_to(folder / "loop")
    shelf = Shelf(folder=folder, precision="fp32")
    assert shelf.list_waiting() == ["kinds", "points", "stars"]
    with pytest.raises(UnknownModelError):
        shelf.find("tone")
    opened = shelf.open("tone", folder / "tone")
    assert opened.report is None
    assert opened.card is not None


def test_bases_without_adapters_are_let_go(folder: Path) -> None:
    shelf = Shelf(folder=folder, precision="fp32")
    first = shelf.find("tone").engine
    shelf.close("tone")
    assert shelf.find("stars").engine is not first


@pytest.mark.slow
def test_an_adapter_of_another_base_has_a_base_of_its_own(
    folder: Path, build_encoder: Callable[..., Path], train_run: Callable[..., Path]
) -> None:
    other = train_run("single_label", encoder=build_encoder("bert", initializer_range=0.1))
    shelf = Shelf(folder=folder, precision="fp32")
    first = shelf.open("tone", folder / "tone")
    second = shelf.open("other", other)
    assert first.alone is second.alone is None
    assert first.engine is not second.engine
    for name, path in (("tone", folder / "tone"), ("other", other)):
        assert ask(shelf, name) == pytest.approx(lorafit.load(path, precision="fp32").compute_values(TEXTS), abs=1e-4)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (["method.name=dora"], "DoRA is not computed beside other adapters"),
        pytest.param(["method.name=bitfit"], "BitFit has no adapter", marks=pytest.mark.slow),
        pytest.param(
            ["method.name=pfeiffer"], "Pfeiffer is not computed beside other adapters", marks=pytest.mark.slow
        ),
        pytest.param(["method.name=pissa"], "its method changes the weights of the base", marks=pytest.mark.slow),
        pytest.param(["method.options.use_dora=true"], "it is not plain LoRA", marks=pytest.mark.slow),
    ],
)
def test_what_cannot_share_a_base_is_served_alone(
    folder: Path, train_run: Callable[..., Path], settings: list[str], why: str
) -> None:
    run = train_run("single_label", *settings)
    shelf = Shelf(folder=folder, precision="fp32")
    served = shelf.open("other", run)
    assert served.alone == why
    assert served.engine is not shelf.find("tone").engine
    assert ask(shelf, "other") == pytest.approx(lorafit.load(run, precision="fp32").compute_values(TEXTS), abs=1e-4)


def test_ranks_and_places_differ(folder: Path, train_run: Callable[..., Path]) -> None:
    wide = train_run("single_label", "method.r=12", "method.target_modules=query-value")
    shelf = Shelf(folder=folder, most=2, precision="fp32")
    values = {"tone": ask(shelf, "tone")}
    shelf.open("wide", wide)
    values["wide"] = ask(shelf, "wide")
    assert values["wide"] == pytest.approx(lorafit.load(wide, precision="fp32").compute_values(TEXTS), abs=1e-4)
    shelf.close("wide")
    shelf.find("stars")  # which takes the place, at a lower rank
    assert ask(shelf, "stars") == pytest.approx(
        lorafit.load(folder / "stars", precision="fp32").compute_values(TEXTS), abs=1e-4
    )
    assert ask(shelf, "tone") == pytest.approx(values["tone"], abs=1e-6)


def test_exports_are_served(folder: Path) -> None:
    place = folder / "quick"
    export(folder / "tone", output=place)
    shelf = Shelf(folder=folder)
    assert shelf.find("quick").alone == "it is an export"
    assert ask(shelf, "quick") == pytest.approx(lorafit.load(place).compute_values(TEXTS), abs=1e-4)


def test_adapters_are_opened_and_closed_over_http(open_here: "OpenHere", folder: Path) -> None:
    with open_here({"tone": folder / "tone"}, adapters_dir=folder) as client:
        assert client.post("/adapters", {"name": "../secret"}).status == 422
        assert client.post("/adapters", {"name": "new", "path": "../secret"}).status == 422
        told = client.post("/adapters", {"name": "new", "path": "stars"})
        assert told.status == 201
        assert told.content["labels"] == ["1", "2", "3", "4", "5"]
        assert client.post("/adapters", {"name": "new", "path": "stars"}).status == 409
        assert client.post("/predict", {"inputs": "film", "model": "new"}).status == 200
        assert client.ask("DELETE", "/adapters/new").status == 204
        assert client.ask("DELETE", "/adapters/new").status == 404
        assert client.ask("DELETE", "/adapters/tone").status == 409
        assert client.post("/v1/unload_lora_adapter", {"lora_name": "tone"}).status == 409
        assert client.post("/predict", {"inputs": "film", "model": "new"}).status == 404
        assert client.post("/v1/load_lora_adapter", {"lora_name": "more", "lora_path": "kinds"}).status == 200
        assert client.post("/predict", {"inputs": "film", "model": "kinds"}).status == 200
        assert client.get("/adapters/nobody").status == 404
        told = client.get("/adapters").content
        assert [one["name"] for one in told["adapters"]] == ["kinds", "more", "tone"]
        assert told["waiting"] == ["points", "stars"]
        assert client.post("/v1/unload_lora_adapter", {"lora_name": "more"}).status == 200
        info = client.get("/info").content
        assert info["model_id"] == "kinds"
        assert list(info["model_type"]["classifier"]["id2label"].values()) == ["good", "long"]
        assert json.loads(client.get("/openapi.json").body)["info"]["title"] == "lorafit"
    with open_here({}, adapters_dir=folder) as client:
        assert "model_id" not in client.get("/info").content
        assert client.get("/adapters/stars").content["labels"] == ["1", "2", "3", "4", "5"]
        remote = RemotePredictor(client.serving.address, "points")  # which is opened when it is asked for
        assert remote.predict(["film"])[0] is not None
        assert [one["name"] for one in client.get("/adapters").content["adapters"]] == ["points", "stars"]
        assert client.post("/predict", {"inputs": "film"}).status == 404


def test_models_are_named_by_their_folders(tmp_path: Path) -> None:
    (tmp_path / "Tone").mkdir()
    (tmp_path / "a=b").mkdir()
    assert name_models([f"{tmp_path}/Tone", f"mine={tmp_path}/Tone"]) == {
        "tone": tmp_path / "Tone",
        "mine": tmp_path / "Tone",
    }
    with pytest.raises(UserInputError, match="NAME="):
        name_models([f"{tmp_path}/a=b"])
    with pytest.raises(UserInputError, match="Two models are named tone"):
        name_models([f"{tmp_path}/Tone", f"tone={tmp_path}/a=b"])
