"""What libraries are told through the environment, and that nothing of it stays."""

import os
import subprocess
import sys

import pytest

from lorafit.system.variables import describe_waiting, sharing_cores

SPINS = "GOMP_SPINCOUNT = '{}'"
"""A line that libgomp writes when it is loaded."""


def show_openmp(code: str, **variables: str) -> str:
    """What OpenMP's library says of its settings in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    child = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "OMP_DISPLAY_ENV": "verbose", **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return child.stderr


COMMAND = "import sys; from lorafit.cli import main; sys.argv[1:] = ['doctor', '--offline', '--json']; main()"


@pytest.mark.slow  # three processes with torch
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch computes with another OpenMP")
def test_a_commands_threads_spin_briefly() -> None:
    assert SPINS.format(10000) in show_openmp(COMMAND)
    assert SPINS.format(7) in show_openmp(COMMAND, GOMP_SPINCOUNT="7")
    assert SPINS.format(0) in show_openmp(COMMAND, OMP_WAIT_POLICY="passive")
    assert SPINS.format(300000) in show_openmp("import lorafit, torch"), "what is imported changes no environment"


def test_variables_are_set_inside_the_block_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert describe_waiting() is None
    with sharing_cores():
        assert describe_waiting() == "GOMP_SPINCOUNT=10000"
    assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    with sharing_cores():
        assert describe_waiting() == "OMP_WAIT_POLICY=passive"
        assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setenv("GOMP_SPINCOUNT", "5")
    with sharing_cores():
        assert os.environ["GOMP_SPINCOUNT"] == "5"
    assert os.environ["GOMP_SPINCOUNT"] == "5"
