"""One writer of a folder, whatever it dies of."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lorafit.errors import RunError
from lorafit.system.locks import LOCK_SUFFIX, hold, is_held

_HOLDER = """
import sys, time
from pathlib import Path
from lorafit.system.locks import hold
with hold(Path(sys.argv[1]), kind="run"):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def held_elsewhere(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a folder."""
    with subprocess.Popen([sys.executable, "-c", _HOLDER, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_another_process_is_refused_and_told_who_until_the_holder_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with held_elsewhere(folder) as process:
        assert is_held(folder)
        with pytest.raises(RunError) as refusal, hold(folder, kind="comparison"):
            pytest.fail("held twice")
        message = str(refusal.value)
        assert f"{folder} is in use: process {process.pid} on " in message
        assert re.search(r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+00:00, is writing this comparison", message)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not is_held(folder)
        with hold(folder, kind="run"):
            assert is_held(folder)
    assert list(tmp_path.iterdir()) == []


def test_another_thread_is_refused_and_the_same_thread_is_not(tmp_path: Path) -> None:
    refused = []

    def write() -> None:
        try:
            with hold(tmp_path / "run", kind="run"):
                pass
        except RunError as error:
            refused.append(str(error))

    with hold(tmp_path / "run", kind="run"):
        with hold(tmp_path / "run", kind="run"):
            pass
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
        assert is_held(tmp_path / "run"), "the inner block has not let go of it"
    assert len(refused) == 1
    assert f"process {os.getpid()}" in refused[0]


def test_nothing_is_left_but_what_was_there(tmp_path: Path) -> None:
    with hold(tmp_path / "a/b/run", kind="run"):
        assert list(tmp_path.rglob("*lorafit-lock")) == [tmp_path / "a/b/.run.lorafit-lock"]
    assert list(tmp_path.iterdir()) == []
    with hold(tmp_path / "a/b/run", kind="run"):
        (tmp_path / "a/b/run").mkdir()
    assert list(tmp_path.rglob("*")) == [tmp_path / "a", tmp_path / "a/b", tmp_path / "a/b/run"]


def test_a_folder_and_a_link_to_it_are_one(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    with hold(tmp_path / "run", kind="run"):
        assert is_held(tmp_path / "link")


def test_the_folder_can_be_replaced_while_it_is_held(tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    with held_elsewhere(tmp_path / "export"):
        (tmp_path / "export").rename(tmp_path / "old")
        (tmp_path / "export").mkdir()
        with pytest.raises(RunError, match="is in use"), hold(tmp_path / "export", kind="export"):
            pytest.fail("held twice")


@pytest.mark.parametrize("content", [b"", b"[]", b'{"process": "\\u001b[31m"}', b"\xff" * 5000, b"[" * 900])
def test_a_lock_file_that_does_not_name_its_holder_still_holds(tmp_path: Path, content: bytes) -> None:
    with held_elsewhere(tmp_path / "run"):
        (tmp_path / ".run.lorafit-lock").write_bytes(content)
        with pytest.raises(RunError, match="another process is writing"), hold(tmp_path / "run", kind="run"):
            pytest.fail("held twice")


def test_many_processes_never_hold_at_once(tmp_path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from lorafit.errors import RunError
from lorafit.system.locks import hold
folder, got = Path(sys.argv[1]), 0
while got < 200:
    try:
        with hold(folder / "run", kind="run"):
            os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))
            os.unlink(folder / "inside")
            got += 1
    except RunError:
        pass
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]


def test_a_folder_whose_parent_cannot_be_written_to_holds_its_lock_itself(tmp_path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
import filelock
from lorafit.system.locks import hold, is_held
if os.getuid() == 0:
    os.setuid(65534)
folder = Path(sys.argv[1])
with hold(folder, kind="run"):
    assert is_held(folder)
    print([path.name for path in folder.iterdir()])
print([path.name for path in folder.iterdir()])
"""
    folder = tmp_path / "out"
    folder.mkdir()
    for place in tmp_path.parents:
        if place.stat().st_mode & 0o005 == 0:
            place.chmod(0o755)
    tmp_path.chmod(0o555)
    if os.getuid() == 0:
        os.chown(folder, 65534, 65534)
    done = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=False)
    tmp_path.chmod(0o755)
    assert (done.stdout.split("\n"), done.returncode) == (["['.lorafit-lock']", "[]", ""], 0), done.stderr


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_what_is_no_lock_in_its_place_is_named(tmp_path: Path, kind: str) -> None:
    folder, place = tmp_path / "run", tmp_path / f".run{LOCK_SUFFIX}"
    if kind == "link":
        place.symlink_to("/dev/zero")
    else:
        place.mkdir()
    with (
        pytest.raises(RunError, match=r"\.run\.lorafit-lock is no lock that lorafit made\. Remove it\."),
        hold(folder, kind="run"),
    ):
        pass
    assert os.path.lexists(place)
