import hashlib
import os
from pathlib import Path

import pytest

from lorafit.errors import RunError
from lorafit.system.alterations import choose_about_altered, report_altered
from lorafit.system.digests import Manifest, check_files, confine, digest_file, digest_folder, find_faults

NAMES = {"a.json": b'{"a":\n1}\n', "b/c.bin": b"\x00\r\n\x01", "d.txt": b"one\ntwo\n"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "folder"
    for name, content in NAMES.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    return place


def find(folder: Path, digests: dict[str, str]) -> list[tuple[str, str]]:
    return [(path.name, fault) for path, fault in find_faults(folder, digests)]


def test_every_file_altered_cut_emptied_or_removed_is_found(folder: Path) -> None:
    digests = digest_folder(folder)
    assert set(digests) == set(NAMES)
    assert find(folder, digests) == []
    for name, content in NAMES.items():
        path = folder / name
        for other in (content[:-1], b"", bytes([content[0] ^ 1]) + content[1:], content + b" "):
            path.write_bytes(other)
            assert find(folder, digests) == [(path.name, "was altered")]
        path.unlink()
        assert find(folder, digests) == [(path.name, "is missing")]
        path.mkdir()
        assert find(folder, digests) == [(path.name, "is missing")]
        path.rmdir()
        path.write_bytes(content)


def test_line_ends_mean_nothing_in_text_and_all_in_other_files(folder: Path) -> None:
    digests = digest_folder(folder)
    for name, content in NAMES.items():
        (folder / name).write_bytes(content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    assert find(folder, digests) == []
    (folder / "b/c.bin").write_bytes(NAMES["b/c.bin"].replace(b"\r\n", b"\n"))
    assert find(folder, digests) == [("c.bin", "was altered")]


@pytest.mark.parametrize("before", [0, 2**20 - 1, 2**20, 2**20 + 1])
@pytest.mark.parametrize("end", [b"\r\n", b"\r\r\n", b"\r\r", b"\r"])
def test_a_line_end_across_two_blocks_is_one(tmp_path: Path, before: int, end: bytes) -> None:
    path, content = tmp_path / "a.txt", b"x" * before + end + b"y"
    path.write_bytes(content)
    assert digest_file(path) == hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../outside", "b/../../outside", "C:\\outside", "..\\outside", "", "a\0b", "link", "way/x"]
)
def test_names_that_lead_out_of_the_folder_are_refused(folder: Path, name: str) -> None:
    (folder.parent / "outside").write_text("secret")
    (folder / "link").symlink_to(folder.parent / "outside")
    (folder / "way").symlink_to(folder.parent)
    with pytest.raises(RunError, match="which leads out of that folder"):
        confine(folder, name)


def test_endless_links_are_refused_and_links_inside_are_taken(folder: Path) -> None:
    (folder / "endless").symlink_to(folder / "endless")
    with pytest.raises(RunError, match="which leads out of that folder"):
        confine(folder, "endless")
    (folder / "inside").symlink_to("a.json")
    assert confine(folder, "inside").read_bytes() == NAMES["a.json"]
    linked = folder.with_name("linked")
    linked.symlink_to(folder)
    assert find(linked, digest_folder(linked)) == [], "the folder itself may be a link"


def test_a_manifest_tells_whether_a_folder_is_whole(folder: Path) -> None:
    path = folder / "manifest.json"
    assert not Manifest.holds(path)
    Manifest.of(folder, leave_out=path.name).write(path)
    assert Manifest.holds(path)
    Manifest.of(folder, leave_out=path.name).write(path)
    assert Manifest.holds(path), "it does not count itself"
    for damage in (path.read_bytes()[:-9], path.read_bytes().replace(b"a.json", b"b.json"), b"", b"{}"):
        whole = path.read_bytes()
        path.write_bytes(damage)
        assert not Manifest.holds(path)
        path.write_bytes(whole)
    (folder / "d.txt").write_text("else")
    assert not Manifest.holds(path)


def test_a_manifest_of_nothing_or_of_files_elsewhere_holds_nothing(folder: Path) -> None:
    path = folder / "manifest.json"
    for files in ({}, {"../outside": "0" * 64}):
        Manifest(files=files).write(path)
        assert not Manifest.holds(path)


def test_a_pipe_is_missing_and_not_waited_for(folder: Path) -> None:
    digests = digest_folder(folder)
    (folder / "a.json").unlink()
    os.mkfifo(folder / "a.json")
    assert find(folder, digests) == [("a.json", "is missing")]


def test_what_was_altered_is_refused_and_the_option_named_where_there_is_one(folder: Path) -> None:
    digests = digest_folder(folder)
    (folder / "d.txt").write_text("else")

    def check() -> None:
        check_files(folder, digests, since="after training", source=folder / "run.json")

    expected = rf"d\.txt was altered after training: its digest is not the one in {folder / 'run.json'}\."
    with pytest.raises(RunError, match=expected + " .* inside `with lorafit.opening"):
        check()
    said: list[str] = []
    with choose_about_altered(accept=False, say=said.append), pytest.raises(RunError, match=expected + " .*--accept-"):
        check()
    with choose_about_altered(accept=True, say=said.append):
        check()
        check()
        with choose_about_altered(accept=False, say=said.append):
            check()
    assert said == [
        f"accepted, as was asked for: {folder / 'd.txt'} was altered after training: its digest is not "
        f"the one in {folder / 'run.json'}."
    ]
    (folder / "d.txt").unlink()
    with choose_about_altered(accept=True, say=said.append), pytest.raises(RunError, match=r"d\.txt is missing"):
        check()


def test_a_name_out_of_the_folder_is_not_accepted(folder: Path) -> None:
    with choose_about_altered(accept=True, say=print), pytest.raises(RunError, match="leads out"):
        check_files(folder, {"../x": ""}, since="", source=folder)


def test_acceptance_ends_with_the_block() -> None:
    with choose_about_altered(accept=True, say=print):
        report_altered("x was altered.")
    with pytest.raises(RunError, match=r"^x was altered\. If you know why, go on in Python"):
        report_altered("x was altered.")


def test_a_line_end_put_behind_a_last_line_without_one_is_harmless(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'{\n"a": 1\n}')
    (tmp_path / "b.json").write_bytes(b'{\r\n"a": 1\r\n}\r')
    assert digest_file(tmp_path / "a.json") == digest_file(tmp_path / "b.json")
