"""What packages report about their use: nothing, unless the user wants it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lorafit.system.extras import TELEMETRY, require, without_telemetry

OPEN = "from lorafit.system.extras import require; require('onnxruntime', extra='onnx', purpose='A test')"
"""Import onnxruntime as lorafit does."""

LISTEN = """
import socket, sys, time
listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
listener.bind(("127.0.0.1", 53))
listener.settimeout(0.5)
print("ready", flush=True)
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    try:
        question, sender = listener.recvfrom(512)
    except TimeoutError:
        continue
    print(question[12:].partition(b"\\0")[0], flush=True)
    listener.sendto(question[:2] + b"\\x81\\x83" + question[4:6] + bytes(6) + question[12:], sender)
"""
"""A resolver that knows no name, and prints those it is asked for."""

ALONE = """
ip link set lo up
mount --bind "$1" /etc/resolv.conf
"$2" -c "$3" "$5" > "$6" &
while ! grep -q ready "$6"; do sleep 0.1; done
"$2" -c "$4; import time; time.sleep($5)"
wait
"""


def make_environment(home: Path, **variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in {*TELEMETRY, "CI", "XDG_CACHE_HOME"}}
    return kept | {"HOME": str(home)} | variables


def list_files(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("package", ["onnxruntime", "openvino"])
def test_nothing_is_left_in_the_home_folder(tmp_path: Path, package: str) -> None:
    code = OPEN.replace("onnxruntime", package)
    subprocess.run([sys.executable, "-c", code], env=make_environment(tmp_path), check=True)
    assert list_files(tmp_path) == []


def test_openvino_reports_where_lorafit_does_not_import_it(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", "import openvino"], env=make_environment(tmp_path), check=True)
    assert list_files(tmp_path)


def test_who_wants_telemetry_has_it(tmp_path: Path) -> None:
    environment = make_environment(tmp_path, ORT_DISABLE_TELEMETRY="0")
    subprocess.run([sys.executable, "-c", OPEN], env=environment, check=True)
    assert "deviceid" in list_files(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("variables", "asks"), [({}, False), ({"ORT_DISABLE_TELEMETRY": "0"}, True)])
def test_no_name_is_looked_up(tmp_path: Path, variables: dict[str, str], *, asks: bool) -> None:
    resolver, heard = tmp_path / "resolv.conf", tmp_path / "heard"
    resolver.write_text("nameserver 127.0.0.1\n")
    heard.touch()
    words = [str(resolver), sys.executable, LISTEN, OPEN, "30", str(heard)]
    subprocess.run(
        ["unshare", "--map-root-user", "--net", "--mount", "sh", "-c", ALONE, "sh", *words],
        env=make_environment(tmp_path, **variables),
        check=True,
    )
    assert ("telemetry" in heard.read_text() or "events" in heard.read_text()) is asks


def test_the_variables_are_as_before_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_DISABLE_TELEMETRY", raising=False)
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    before = dict(os.environ)
    with without_telemetry():
        assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
        assert os.environ["ORT_DISABLE_TELEMETRY"] == "0"
    require("json", extra="train", purpose="A test")
    assert dict(os.environ) == before


@pytest.mark.parametrize("module", ["lorafit.training.pipeline", "lorafit.inference.loading"])
def test_the_hub_is_told_nothing_however_lorafit_is_used(tmp_path: Path, module: str) -> None:
    name = {"lorafit.training.pipeline": "train", "lorafit.inference.loading": "load"}[module]
    script = (
        f"import lorafit; lorafit.{name}; from lorafit.system.extras import require; "
        "require('transformers', extra='train', purpose='A test'); import huggingface_hub.constants as hub; "
        "print(hub.HF_HUB_DISABLE_TELEMETRY)"
    )
    told = subprocess.run(
        [sys.executable, "-c", script], env=make_environment(tmp_path), capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "True"
