import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lorafit.system.digests import Manifest
from lorafit.training.checkpoints import ResumePoint, describe_damage, find_checkpoint, mark_complete

BEST = {2: 2, 9: 9, 10: 9}
"""The best step so far, by the step of each checkpoint."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Checkpoints 2, 9 and 10, all complete."""
    for step in (9, 10, 2):
        checkpoint = tmp_path / f"checkpoint-{step}"
        (checkpoint / "inner").mkdir(parents=True)
        (checkpoint / "weights.bin").write_bytes(b"w" * step)
        (checkpoint / "inner" / "state.json").write_text("{}")
        (checkpoint / "trainer_state.json").write_text(json.dumps({"best_global_step": BEST[step]}))
        mark_complete(checkpoint)
    return tmp_path


def test_newest_is_the_one_of_the_last_step(folder: Path) -> None:
    assert find_checkpoint(folder) == ResumePoint(folder / "checkpoint-10", {})
    assert list(find_checkpoint(folder).describe()) == []


def test_mark_holds_the_digest_of_every_file(folder: Path) -> None:
    digests = Manifest.read(folder / "checkpoint-2" / "complete.json").files
    assert sorted(digests) == ["inner/state.json", "trainer_state.json", "weights.bin"]


def test_mark_can_be_set_again(folder: Path) -> None:
    (folder / "checkpoint-10" / "weights.bin").write_bytes(b"new")
    mark_complete(folder / "checkpoint-10")
    assert find_checkpoint(folder) == ResumePoint(folder / "checkpoint-10", {})


def alter(checkpoint: Path) -> None:
    (checkpoint / "weights.bin").write_bytes(b"x" * 10)


def truncate(checkpoint: Path) -> None:
    (checkpoint / "weights.bin").write_bytes(b"w")


def lose_a_file(checkpoint: Path) -> None:
    (checkpoint / "inner" / "state.json").unlink()


def lead_elsewhere(checkpoint: Path) -> None:
    elsewhere = checkpoint.parent / "elsewhere.bin"
    (checkpoint / "weights.bin").rename(elsewhere)
    (checkpoint / "weights.bin").symlink_to(elsewhere)


def add_weights(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").write_bytes(b"the Trainer would load these instead")


def lose_the_mark(checkpoint: Path) -> None:
    (checkpoint / "complete.json").unlink()


def truncate_the_mark(checkpoint: Path) -> None:
    (checkpoint / "complete.json").write_text('{"weights.bin": "12')


def replace_the_mark(checkpoint: Path) -> None:
    (checkpoint / "complete.json").write_text("[]")


def empty_the_mark(checkpoint: Path) -> None:
    (checkpoint / "complete.json").write_text("{}")


def take_a_file_out_of_the_mark(checkpoint: Path) -> None:
    mark = checkpoint / "complete.json"
    content = json.loads(mark.read_text())
    del content["files"]["weights.bin"]
    mark.write_text(json.dumps(content))


def write_nonsense_as_state(checkpoint: Path) -> None:
    (checkpoint / "trainer_state.json").write_text('{"best_global_step": "ten"}')
    mark_complete(checkpoint)


SPOILERS = [
    alter,
    truncate,
    lose_a_file,
    lead_elsewhere,
    add_weights,
    lose_the_mark,
    truncate_the_mark,
    replace_the_mark,
    empty_the_mark,
    take_a_file_out_of_the_mark,
    write_nonsense_as_state,
]


@pytest.mark.parametrize("spoil", SPOILERS)
def test_checkpoint_that_cannot_be_trusted_is_passed_over(folder: Path, spoil: Callable[[Path], None]) -> None:
    spoil(folder / "checkpoint-10")
    point = find_checkpoint(folder)
    assert point.checkpoint == folder / "checkpoint-9"
    assert list(point.passed_over) == [folder / "checkpoint-10"]
    said, consequence = point.describe()
    assert said == f"checkpoint-10 is not used: {describe_damage(folder / 'checkpoint-10')}"
    assert consequence == "training goes on from checkpoint-9"


@pytest.mark.parametrize("spoil", [*SPOILERS, shutil.rmtree])
def test_checkpoint_whose_best_one_cannot_be_trusted_is_passed_over_too(
    folder: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(folder / "checkpoint-9")
    point = find_checkpoint(folder)
    assert point.checkpoint == folder / "checkpoint-2"
    assert "checkpoint-9, the best one until then, cannot be used" in point.passed_over[folder / "checkpoint-10"]
    point.discard_rest()
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-2"]


def test_fault_names_the_file(folder: Path) -> None:
    alter(folder / "checkpoint-10")
    lose_a_file(folder / "checkpoint-9")
    add_weights(folder / "checkpoint-2")
    faults = [describe_damage(folder / f"checkpoint-{step}") for step in (10, 9, 2)]
    assert faults == ["weights.bin was altered", "inner/state.json is missing", "model.safetensors was put into it"]


def test_no_whole_checkpoint_gives_none(folder: Path) -> None:
    for step in (2, 9, 10):
        lose_the_mark(folder / f"checkpoint-{step}")
    point = find_checkpoint(folder)
    assert point.checkpoint is None
    assert [path.name for path in point.passed_over] == ["checkpoint-10", "checkpoint-9", "checkpoint-2"]
    assert list(point.describe())[-1] == "training starts over"


def test_checkpoint_before_the_first_validation_has_no_best_one(folder: Path) -> None:
    for best in (None, 0):
        (folder / "checkpoint-10" / "trainer_state.json").write_text(json.dumps({"best_global_step": best}))
        mark_complete(folder / "checkpoint-10")
        shutil.rmtree(folder / "checkpoint-9", ignore_errors=True)
        assert find_checkpoint(folder) == ResumePoint(folder / "checkpoint-10", {})


def test_other_files_are_no_checkpoints(folder: Path) -> None:
    shutil.copytree(folder / "checkpoint-10", folder / "checkpoint-10-copy")
    shutil.copytree(folder / "checkpoint-10", folder / "old-checkpoint-11")
    (folder / "checkpoint-x").mkdir()
    assert find_checkpoint(folder) == ResumePoint(folder / "checkpoint-10", {})


def test_folder_that_does_not_exist_holds_none(tmp_path: Path) -> None:
    assert find_checkpoint(tmp_path / "nowhere") == ResumePoint(None, {})


@pytest.mark.parametrize("name", [".DS_Store", ".nfs0001", "notes.txt"])
def test_a_file_that_nothing_reads_costs_no_checkpoint(folder: Path, name: str) -> None:
    (folder / "checkpoint-10" / name).write_bytes(b"other")
    assert find_checkpoint(folder).checkpoint == folder / "checkpoint-10"
