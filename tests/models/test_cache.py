"""A cache that cannot be used names the variable that moves it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lorafit.errors import EnvironmentUnfitError
from lorafit.models.cache import claim_cache, make_once

_SCRIPT = """
import os, sys
from pathlib import Path
import filelock
from lorafit.errors import EnvironmentUnfitError
from lorafit.models.cache import make_once
if os.getuid() == 0:
    os.setuid(12345)
try:
    make_once("one", lambda _: None)
except EnvironmentUnfitError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "This user has no home folder"),
        ({"HOME": "/proc"}, "lorafit's cache /proc/.cache/lorafit cannot be used: /proc cannot be written to."),
        ({"HOME": "/etc/passwd"}, "/etc/passwd is a file"),
        ({"XDG_CACHE_HOME": "/proc"}, "lorafit's cache /proc/lorafit cannot be used"),
        ({"LORAFIT_CACHE": "/proc/x"}, "lorafit's cache /proc/x cannot be used"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_another_user_without_a_home_is_told_of_the_variable(variables: dict[str, str], words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
    assert "LORAFIT_CACHE=FOLDER" in done.stdout


def test_a_cache_that_is_there_needs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAFIT_CACHE", str(tmp_path / "cache"))
    made = make_once("one", lambda folder: (folder / "file").touch())
    assert made == claim_cache("encoders/one")
    monkeypatch.setenv("LORAFIT_CACHE", str(made / "file"))
    with pytest.raises(EnvironmentUnfitError, match="is a file"):
        make_once("one", lambda _: None)
