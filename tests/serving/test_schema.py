"""Schemathesis asks whatever the server's OpenAPI allows, and what it does not."""

import shutil
import subprocess
import venv
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.serving.conftest import OpenHere

CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance")


@pytest.fixture(scope="module")
def schemathesis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its command, in an environment of its own."""
    place = tmp_path_factory.mktemp("schemathesis") / "venv"
    venv.create(place, with_pip=True)
    subprocess.run([place / "bin" / "python", "-m", "pip", "install", "-q", "schemathesis==4.32.5"], check=True)
    return place / "bin" / "schemathesis"


@pytest.mark.slow
def test_every_answer_is_one_that_the_schema_names_and_none_is_a_fault(
    schemathesis: Path, open_here: "OpenHere", adapters: dict[str, Path], tmp_path: Path
) -> None:
    """Models are opened and put away meanwhile; one is pinned, so that there is always something to ask."""
    for name, folder in adapters.items():
        shutil.copytree(folder, tmp_path / "models" / name)
    with open_here({"pinned": adapters["tone"]}, adapters_dir=tmp_path / "models") as client:
        words = ["run", f"http://127.0.0.1:{client.port}/openapi.json", "--checks", ",".join(CHECKS), "--seed", "0"]
        told = subprocess.run(
            [schemathesis, *words, "--max-examples", "60", "--continue-on-failure", "--no-color"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert told.returncode == 0, told.stdout[-20_000:]
        assert client.get("/health").status == 200
