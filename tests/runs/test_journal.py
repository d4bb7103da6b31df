import errno
import time
from pathlib import Path

import pytest

from lorafit.errors import EnvironmentUnfitError, TrainingDivergedError, TrainingInterruptedError
from lorafit.runs.folder import RunLayout
from lorafit.runs.journal import Journal
from lorafit.runs.records import RunRecord
from lorafit.system.energy import EnergyMeter


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    return RunLayout(tmp_path / "run")


@pytest.fixture
def record(run_record: RunRecord) -> RunRecord:
    return run_record.model_copy(update={"seconds": {"training": 100.0}})


@pytest.fixture
def journal(layout: RunLayout, record: RunRecord) -> Journal:
    return Journal(layout, record)


def written(layout: RunLayout) -> RunRecord:
    return RunRecord.read(layout.record)


def test_run_is_running_from_the_start(journal: Journal, layout: RunLayout) -> None:
    assert written(layout).status == "running"
    assert written(layout) == journal.record


def test_every_change_is_written_at_once(journal: Journal, layout: RunLayout) -> None:
    journal.update(files={"adapter_config.json": "abc"})
    assert written(layout).files == {"adapter_config.json": "abc"}
    assert written(layout).peak_memory_bytes > 1_000_000


def test_work_done_to_the_end_is_complete(journal: Journal, layout: RunLayout) -> None:
    with journal.kept():
        assert written(layout).status == "running"
    assert written(layout).status == "complete"


@pytest.mark.parametrize("fault", [TrainingDivergedError("loss is nan"), ZeroDivisionError(), SystemExit(3)])
def test_work_that_fails_is_written_down_and_the_error_passed_on(
    journal: Journal, layout: RunLayout, fault: BaseException
) -> None:
    with pytest.raises(type(fault)) as caught, journal.kept():
        raise fault
    assert caught.value is fault
    assert written(layout).status == "failed"


def test_a_fault_of_the_machine_names_the_command_to_go_on(journal: Journal, layout: RunLayout) -> None:
    fault = OSError(errno.ENOSPC, "No space left on device", "model.bin")
    with pytest.raises(EnvironmentUnfitError) as caught, journal.kept():
        raise fault
    assert "No space is left on the disk of model.bin" in str(caught.value)
    assert f"lorafit train --resume {layout.root}" in str(caught.value)
    assert caught.value.__cause__ is fault
    assert written(layout).status == "failed"


def test_another_command_to_go_on_is_named_where_the_run_is_part_of_something(journal: Journal) -> None:
    with pytest.raises(TrainingInterruptedError) as caught, journal.kept("lorafit compare --output here"):
        raise KeyboardInterrupt
    assert str(caught.value).endswith("Go on with:\n  lorafit compare --output here")


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), TrainingInterruptedError("at step 3", run=Path("elsewhere"))])
def test_interrupted_work_names_the_command_to_go_on(journal: Journal, layout: RunLayout, stop: BaseException) -> None:
    with pytest.raises(TrainingInterruptedError) as caught, journal.kept():
        raise stop
    assert f"lorafit train --resume {layout.root}" in str(caught.value)
    assert caught.value.run == layout.root
    assert caught.value.__cause__ is stop
    assert written(layout).status == "interrupted"


def test_stage_is_timed(journal: Journal, layout: RunLayout) -> None:
    with journal.stage("before training"):
        time.sleep(0.05)
    assert 0.05 <= written(layout).seconds["before training"] < 5


def test_seconds_of_a_resumed_stage_add_up(journal: Journal, layout: RunLayout) -> None:
    with journal.stage("training"):
        time.sleep(0.02)
    assert 100.02 <= written(layout).seconds["training"] < 105


def test_stage_that_fails_is_timed_too(journal: Journal, layout: RunLayout) -> None:
    with pytest.raises(ZeroDivisionError), journal.stage("saving"):
        raise ZeroDivisionError
    assert "saving" in written(layout).seconds


def test_changes_inside_a_stage_are_kept(journal: Journal, layout: RunLayout) -> None:
    with journal.stage("saving"):
        journal.update(files={"a": "b"})
    assert written(layout).files == {"a": "b"}


def write_counter(root: Path, microjoules: int) -> None:
    zone = root / "sys" / "class" / "powercap" / "intel-rapl:0"
    zone.mkdir(parents=True, exist_ok=True)
    for name, value in (("name", "package-0"), ("energy_uj", microjoules), ("max_energy_range_uj", 10**12)):
        (zone / name).write_text(f"{value}\n")


def test_energy_adds_up_over_changes_and_over_a_resumption(
    layout: RunLayout, run_record: RunRecord, tmp_path: Path
) -> None:
    write_counter(tmp_path, 5_000_000)
    journal = Journal(layout, run_record, meter=EnergyMeter(tmp_path))
    write_counter(tmp_path, 7_000_000)
    journal.update(seconds={"training": 1.0})
    assert written(layout).energy_joules == 2
    resumed = Journal(layout, written(layout), meter=EnergyMeter(tmp_path))
    write_counter(tmp_path, 8_000_000)
    resumed.update()
    assert written(layout).energy_joules == 3


def test_energy_of_a_part_is_not_given_for_the_whole(layout: RunLayout, record: RunRecord, tmp_path: Path) -> None:
    write_counter(tmp_path, 5_000_000)
    journal = Journal(layout, record, meter=EnergyMeter(tmp_path))  # it was begun where nothing told
    journal.update()
    assert written(layout).energy_joules is None
