"""What is no file is refused by name, at once, and no more is read than is allowed."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lorafit.errors import ConfigError, DataError, RunError
from lorafit.system.files import (
    check_file,
    describe_no_file,
    read_file,
    read_json,
    read_object,
    show_path,
    suggest_sibling,
)
from lorafit.system.limits import Limit, list_limits

SMALL = Limit("small", 10, "bytes", "a test needs a small one")


def test_a_plain_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"text\n")
    assert describe_no_file(path) is None
    assert read_file(path, DataError, SMALL) == b"text\n"


def test_a_link_to_a_file_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").symlink_to("a")
    assert read_file(tmp_path / "b", DataError) == b"1"


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        expected = {
            tmp_path / "pipe.csv": "is a pipe; a config is needed, .* cat .*pipe.csv > copy.csv",
            tmp_path / "s": "is a socket; a config is needed",
            tmp_path: "is a folder; a config is needed",
            tmp_path / "one": "is a link that leads back to itself",
            tmp_path / "none": "There is no file",
            tmp_path / "pipe.csv" / "below": "There is no file",
            Path("/dev/zero"): "is a device; a config is needed",
            Path("/proc/self/maps"): "is no file on a disk",
            Path("a\0b"): "is no path: it holds a NUL",
            Path("a" * 100_000): "is no path: it is too long",
        }
        for path, message in expected.items():
            with pytest.raises(ConfigError, match=message) as caught:
                read_file(path, ConfigError, what="a config")
            assert len(str(caught.value)) < 700


def test_no_more_is_read_than_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"x" * 11)
    message = r"large is larger than a record may be; allowed are 10 bytes \(LORAFIT_LIMIT_SMALL=NUMBER allows more\)\."
    with pytest.raises(RunError, match=message):
        read_file(path, RunError, SMALL, what="a record")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b'{"a": ', "is damaged: Expecting value"),
        (b"\xff\x00", "is damaged"),
        (b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}", "in each other beyond measure"),
        (b"[" * 300_000, "is damaged"),
        (b"[1]", "is no JSON object"),
    ],
    ids=["cut", "bytes", "deep", "endless", "list"],
)
def test_what_is_no_json_object_of_a_measure_is_refused(tmp_path: Path, content: bytes, fault: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(RunError, match=fault) as caught:
        read_object(path, RunError)
    assert str(path) in str(caught.value)
    path.write_text('{"a": [1]}')
    assert read_json(path, RunError) == read_object(path, RunError) == {"a": [1]}


def test_the_variable_raises_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"x" * 11)
    monkeypatch.setenv(SMALL.variable, "11")
    assert len(read_file(path, RunError, SMALL)) == 11


@pytest.mark.parametrize("value", ["", "0", "-1", "1e6", "many", "9" * 5000, "²"])
def test_a_limit_that_is_no_number_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SMALL.variable, value)
    with pytest.raises(ConfigError, match="LORAFIT_LIMIT_SMALL must be a whole number"):
        _ = SMALL.value


def test_limits_have_names_of_their_own_and_reasons() -> None:
    limits = list_limits()
    assert len({limit.name for limit in limits}) == len(limits) >= 10
    assert all(limit.reason and not limit.reason.endswith(".") for limit in limits)


def test_a_file_of_nearly_the_same_name_is_suggested(tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").touch()
    assert "Did you mean" in suggest_sibling(tmp_path / "review.csv")
    assert suggest_sibling(tmp_path / "zzz") == ""
    with pytest.raises(DataError, match=r"There is no file .*review\.csv\. Did you mean .*reviews\.csv\?"):
        check_file(tmp_path / "review.csv", DataError)


def test_paths_are_shown_cut_and_clean() -> None:
    assert len(show_path(Path("x" * 10_000))) < 250
    assert "\x1b" not in show_path(Path("a\x1b[31m.csv"))


def test_a_machine_without_room_for_more_open_files_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\n")
    script = """
import resource, sys
from pathlib import Path
from lorafit.errors import EnvironmentUnfitError, RunError
from lorafit.system.files import read_file
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
try:
    read_file(Path(sys.argv[1]), RunError)
except EnvironmentUnfitError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "rows.csv")], capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("Too many files are open at once"), done.stderr
