import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lorafit.training.callbacks import find_latest_checkpoint, mark_complete


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Checkpoints 2, 9 and 10, all complete."""
    for step in (9, 10, 2):
        checkpoint = tmp_path / f"checkpoint-{step}"
        (checkpoint / "inner").mkdir(parents=True)
        (checkpoint / "weights.bin").write_bytes(b"w" * step)
        (checkpoint / "inner" / "state.json").write_text("{}")
        mark_complete(checkpoint)
    return tmp_path


def test_newest_is_the_one_of_the_last_step(folder: Path) -> None:
    assert find_latest_checkpoint(folder) == (folder / "checkpoint-10", [])


def test_mark_holds_the_digest_of_every_file(folder: Path) -> None:
    digests = json.loads((folder / "checkpoint-2" / "complete.json").read_text())
    assert sorted(digests) == ["inner/state.json", "weights.bin"]


def test_mark_can_be_set_again(folder: Path) -> None:
    (folder / "checkpoint-10" / "weights.bin").write_bytes(b"new")
    mark_complete(folder / "checkpoint-10")
    assert find_latest_checkpoint(folder) == (folder / "checkpoint-10", [])


def alter(checkpoint: Path) -> None:
    (checkpoint / "weights.bin").write_bytes(b"x" * 10)


def truncate(checkpoint: Path) -> None:
    (checkpoint / "weights.bin").write_bytes(b"w" * 9)


def lose_a_file(checkpoint: Path) -> None:
    (checkpoint / "inner" / "state.json").unlink()


def lose_the_mark(checkpoint: Path) -> None:
    (checkpoint / "complete.json").unlink()


def truncate_the_mark(checkpoint: Path) -> None:
    (checkpoint / "complete.json").write_text('{"weights.bin": "12')


def replace_the_mark(checkpoint: Path) -> None:
    (checkpoint / "complete.json").write_text("[]")


def empty_the_mark(checkpoint: Path) -> None:
    (checkpoint / "complete.json").write_text("{}")


@pytest.mark.parametrize(
    "spoil",
    [alter, truncate, lose_a_file, lose_the_mark, truncate_the_mark, replace_the_mark, empty_the_mark],
)
def test_checkpoint_that_cannot_be_trusted_is_passed_over(folder: Path, spoil: Callable[[Path], None]) -> None:
    spoil(folder / "checkpoint-10")
    assert find_latest_checkpoint(folder) == (folder / "checkpoint-9", [folder / "checkpoint-10"])


def test_no_whole_checkpoint_gives_none(folder: Path) -> None:
    for step in (2, 9, 10):
        lose_the_mark(folder / f"checkpoint-{step}")
    latest, passed_over = find_latest_checkpoint(folder)
    assert latest is None
    assert [path.name for path in passed_over] == ["checkpoint-10", "checkpoint-9", "checkpoint-2"]


def test_other_files_are_no_checkpoints(folder: Path) -> None:
    shutil.copytree(folder / "checkpoint-10", folder / "checkpoint-10-copy")
    shutil.copytree(folder / "checkpoint-10", folder / "old-checkpoint-11")
    (folder / "checkpoint-x").mkdir()
    assert find_latest_checkpoint(folder) == (folder / "checkpoint-10", [])


def test_folder_that_does_not_exist_holds_none(tmp_path: Path) -> None:
    assert find_latest_checkpoint(tmp_path / "nowhere") == (None, [])
