"""What stops an experiment says how to go on, in words that a shell takes."""

import errno
from pathlib import Path

import pytest

from lorafit.errors import (
    EnvironmentUnfitError,
    MissingExtraError,
    OutOfMemoryError,
    RunError,
    TrainingInterruptedError,
    UserInputError,
)
from lorafit.experiments.keeping import keeping, stops_all, write_command

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "my search" / "search.yaml"
    path.parent.mkdir()
    path.touch()
    return path


def test_the_command_is_quoted_and_leaves_out_what_was_not_given(config: Path) -> None:
    folder = config.parent
    assert write_command("search", config, trials=3, budget=None) == (
        f"lorafit search --config '{folder}/search.yaml' --trials 3 --output '{folder}'"
    )


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), TrainingInterruptedError("x", run=Path("cell"))])
def test_a_stop_names_the_command_and_the_folder(config: Path, stop: BaseException) -> None:
    named = pytest.raises(TrainingInterruptedError, match=r"Resume with:\n  lorafit search$")
    with named as caught, keeping(config, "lorafit search"):
        raise stop
    assert caught.value.run == config.parent
    assert caught.value.__cause__ is stop


def test_a_full_disk_names_the_command(config: Path) -> None:
    named = pytest.raises(EnvironmentUnfitError, match=r"(?s)No space is left.*go on with:\n  lorafit search$")
    with named, keeping(config, "lorafit search"):
        raise FULL


@pytest.mark.parametrize("error", [KeyboardInterrupt(), FULL])
def test_before_there_is_anything_errors_pass(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, keeping(tmp_path / "none.yaml", "lorafit search"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("error", [RunError("mine"), KeyError("a bug")])
def test_other_errors_pass(config: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, keeping(config, "lorafit search"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    ("error", "all_of_them"),
    [
        (FULL, True),
        (EnvironmentUnfitError("full"), True),
        (MemoryError(), False),
        (OutOfMemoryError("little"), False),
        (MissingExtraError("peft"), False),
        (UserInputError("method"), False),
        (ZeroDivisionError(), False),
    ],
)
def test_a_full_disk_stops_all_runs_and_other_errors_their_own(error: Exception, all_of_them: bool) -> None:
    assert stops_all(error) is all_of_them
