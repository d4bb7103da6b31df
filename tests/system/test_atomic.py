import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Never

import pytest

from lorafit.system.atomic import (
    atomic_directory,
    compute_digest,
    create_directory,
    create_file,
    describe_obstacle,
    write_atomic,
)

MAKERS = ("replace_file", "create_file", "staging_folder", "atomic_directory", "create_directory")


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fail(*args: object) -> Never:
    raise OSError("no space left on device")


def test_the_digest_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"abc" * 100_000)
    assert compute_digest(tmp_path / "weights") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_files_are_written_whole_as_utf8_or_bytes(tmp_path: Path, umask: None) -> None:
    path = tmp_path / "a" / "b" / "text"
    write_atomic(path, "first")
    write_atomic(path, "schön\n")
    assert path.read_bytes() == "schön\n".encode()
    write_atomic(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert path.stat().st_mode & 0o777 == 0o640
    assert names_in(path.parent) == ["text"]


@pytest.mark.parametrize("stage", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    path = tmp_path / "record"
    write_atomic(path, "old")
    monkeypatch.setattr(os if stage == "fsync" else Path, stage, fail)
    with pytest.raises(OSError, match="no space left"):
        write_atomic(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    assert names_in(tmp_path) == ["record"]


def fill(folder: Path, content: str) -> None:
    with atomic_directory(folder) as staging:
        (staging / "labels").mkdir()
        (staging / "labels" / "config.json").write_text(content, encoding="utf-8")


def content_of(folder: Path) -> str:
    return (folder / "labels" / "config.json").read_text(encoding="utf-8")


def test_a_folder_appears_when_it_is_complete(tmp_path: Path, umask: None) -> None:
    path = tmp_path / "run" / "adapter"
    with atomic_directory(path) as staging:
        (staging / "golden.json").write_text("{}", encoding="utf-8")
        assert not path.exists()
        assert staging.parent == path.parent
    assert names_in(path) == ["golden.json"]
    assert path.stat().st_mode & 0o777 == 0o750
    assert names_in(path.parent) == ["adapter"]


def test_a_folder_is_replaced_only_when_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "adapter"
    fill(path, "old")
    (path / "left over").touch()
    with atomic_directory(path) as staging:
        (staging / "labels").mkdir()
        (staging / "labels" / "config.json").write_text("new", encoding="utf-8")
        assert content_of(path) == "old"
    assert content_of(path) == "new"
    assert names_in(path) == ["labels"]
    assert names_in(tmp_path) == ["adapter"]


@pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt()])
def test_a_failed_block_leaves_the_old_folder_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "adapter"
    fill(path, "old")

    def stop_half_way() -> None:
        with atomic_directory(path) as staging:
            (staging / "half").touch()
            raise error

    with pytest.raises(type(error)):
        stop_half_way()
    assert content_of(path) == "old"
    assert names_in(tmp_path) == ["adapter"]


def test_a_failed_renaming_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "adapter"
    fill(path, "old")
    renaming = Path.rename

    def rename(source: Path, target: Path) -> Path:
        if content_of(source) == "new":
            fail()
        return renaming(source, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OSError, match="no space left"):
        fill(path, "new")
    assert content_of(path) == "old"
    assert names_in(tmp_path) == ["adapter"]


@pytest.mark.parametrize("kind", ["file", "link", "dangling link"])
def test_a_file_or_link_in_the_way_is_replaced_and_what_it_names_is_kept(tmp_path: Path, kind: str) -> None:
    path, target = tmp_path / "run" / "adapter", tmp_path / "elsewhere"
    path.parent.mkdir()
    if kind == "file":
        path.touch()
    else:
        path.symlink_to(target)
    if kind == "link":
        fill(target, "kept")
    fill(path, "new")
    assert content_of(path) == "new"
    assert not path.is_symlink()
    assert names_in(path.parent) == ["adapter"]
    assert kind != "link" or content_of(target) == "kept"


def test_obstacles_are_found_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert describe_obstacle(tmp_path / "file" / "below") == f"{tmp_path / 'file'} is a file"
    assert describe_obstacle(tmp_path / "new" / "deep" / "run") is None
    assert describe_obstacle(tmp_path) is None


def test_a_made_file_appears_whole_and_replaces_none(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with create_file(path) as first, create_file(path) as second:
        first.write_bytes(b"first")
        second.write_bytes(b"second")
        assert not path.exists()
    assert path.read_bytes() == b"second", "the inner block ended first"
    assert names_in(tmp_path) == ["store"]


def test_a_file_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def write_half() -> None:
        with create_file(tmp_path / "store") as staging:
            staging.write_bytes(b"half")
            fail()

    with pytest.raises(OSError, match="no space left"):
        write_half()
    assert names_in(tmp_path) == []


def test_a_file_is_made_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "hardlink_to", fail)
    for content in (b"first", b"second"):
        with create_file(tmp_path / "store") as staging:
            staging.write_bytes(content)
    assert (tmp_path / "store").read_bytes() == b"first"
    assert names_in(tmp_path) == ["store"]


def test_folder_that_another_was_first_to_create_stays(tmp_path: Path) -> None:
    with create_directory(tmp_path / "d") as first, create_directory(tmp_path / "d") as second:
        (first / "first").touch()
        (second / "second").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["second"], "the inner block ended first"


def test_folder_is_not_created_when_the_block_fails(tmp_path: Path) -> None:
    def fill_half() -> None:
        with create_directory(tmp_path / "d") as staging:
            (staging / "half").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fill_half()
    assert list(tmp_path.iterdir()) == []


_AT_WORK = """
import os, signal, sys
from pathlib import Path
from lorafit.system import atomic
def stop(*_):
    print("stopped", flush=True)
    sys.stdin.read()
{setup}
with atomic.{function}(Path(sys.argv[1])) as staging:
    {work}
"""
"""A process that stops in the middle of a block."""


def stop_in(folder: Path, function: str, work: str = "stop()", setup: str = "") -> "subprocess.Popen[str]":
    """Start a process that makes something in a folder and stops half way."""
    script = _AT_WORK.format(function=function, work=work, setup=setup)
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder / "made")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "stopped\n"
    return process


def end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


@pytest.mark.parametrize("function", MAKERS)
def test_what_a_killed_process_left_goes_with_the_next_write_into_that_folder(tmp_path: Path, function: str) -> None:
    process = stop_in(tmp_path, function)
    assert len(names_in(tmp_path)) == 1
    end(process)
    write_atomic(tmp_path / "other", "x")
    assert names_in(tmp_path) == ["other"]


@pytest.mark.parametrize("function", MAKERS)
def test_what_a_process_is_making_stays(tmp_path: Path, function: str) -> None:
    process = stop_in(tmp_path, function)
    write_atomic(tmp_path / "other", "x")
    (part,) = (name for name in names_in(tmp_path) if name != "other")
    assert part.startswith(".made.")
    assert part.endswith(".lorafit-part")
    end(process)


def test_hidden_files_of_others_stay(tmp_path: Path) -> None:
    others = [".made.abcdefgh", ".lorafit-part", ".made.ABC.lorafit-part", ".made.abcdefgh.lorafit-part.mine"]
    for name in others[:2]:
        (tmp_path / name).mkdir()
    for name in others[2:]:
        (tmp_path / name).touch()
    (tmp_path / ".link.abcdefgh.lorafit-part").symlink_to(tmp_path / others[0])
    write_atomic(tmp_path / "made", "x")
    assert names_in(tmp_path) == sorted([*others, ".link.abcdefgh.lorafit-part", "made"])


def test_a_folder_killed_between_two_names_gets_its_own_back(tmp_path: Path) -> None:
    fill(tmp_path / "made", "old")
    setup = """
rename = Path.rename
def stop_after(path, target):
    rename(path, target)
    stop()
Path.rename = stop_after
"""
    process = stop_in(tmp_path, "atomic_directory", "(staging / 'new').touch()", setup)
    assert "made" not in names_in(tmp_path)
    write_atomic(tmp_path / "first", "x")
    assert "made" not in names_in(tmp_path), "the process is at work"
    end(process)
    write = "import sys; from lorafit.system.atomic import *; write_atomic(Path(sys.argv[1]), 'x')"
    subprocess.run([sys.executable, "-c", write, str(tmp_path / "second")], check=True)
    assert names_in(tmp_path) == ["first", "made", "second"]
    assert content_of(tmp_path / "made") == "old"


def test_a_file_keeps_the_permissions_of_the_one_that_it_replaces(tmp_path: Path) -> None:
    path = tmp_path / "private.csv"
    path.write_text("old")
    path.chmod(0o600)
    write_atomic(path, "new")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", 0o600)


def test_a_name_that_leaves_no_room_is_an_obstacle(tmp_path: Path) -> None:
    assert describe_obstacle(tmp_path / ("a" * 200)) is None
    assert describe_obstacle(tmp_path / ("a" * 201)) == "its name is longer than 200 bytes"
