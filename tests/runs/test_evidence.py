"""What a run names in its record is used only as it was written, and what it does not name is not used."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorafit.config import load_config
from lorafit.errors import RunError
from lorafit.runs.evidence import (
    add_evidence,
    check_evidence,
    has_evidence,
    is_intact,
    read_metrics,
    read_settings,
)
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import RunRecord
from lorafit.system.alterations import choose_about_altered
from lorafit.system.digests import find_faults

WriteRun = Callable[..., Path]
EditRecord = Callable[..., None]
SignRun = Callable[[Path], None]


@pytest.fixture
def layout(write_run: WriteRun) -> RunLayout:
    return RunLayout(write_run(rows=20))


def read(layout: RunLayout) -> RunRecord:
    return RunRecord.read(layout.record)


def test_a_trained_run_names_every_file_that_something_rests_on(trained_of: Callable[[str], Path]) -> None:
    layout = RunLayout(trained_of("single_label"))
    record = read(layout)
    expected = {layout.config, layout.metrics, layout.history, *layout.predictions("test", "after").parent.iterdir()}
    assert {layout.root / name for name in record.evidence} == expected
    assert not any(find_faults(layout.root, record.evidence))
    found = {path.relative_to(layout.trained).as_posix() for path in layout.trained.rglob("*") if path.is_file()}
    assert set(record.files) == found - {layout.card.name}
    assert not any(find_faults(layout.trained, record.files))


def test_a_file_is_named_when_it_is_written_and_its_old_digest_replaced(layout: RunLayout) -> None:
    record = read(layout)
    assert not has_evidence(layout, record, layout.mistakes)
    assert not is_intact(layout, record, layout.mistakes)
    assert add_evidence(layout, record, layout.mistakes) == record.evidence, "what is not there is not named"
    layout.mistakes.write_text("{}")
    layout.history.write_text("{}")
    assert not is_intact(layout, record, layout.history)
    record = record.model_copy(update={"evidence": add_evidence(layout, record, layout.mistakes, layout.history)})
    assert is_intact(layout, record, layout.mistakes)
    assert is_intact(layout, record, layout.history)
    layout.mistakes.unlink()
    assert has_evidence(layout, record, layout.mistakes)
    assert not is_intact(layout, record, layout.mistakes)


def test_kept_predictions_that_were_altered_are_none(layout: RunLayout) -> None:
    path = layout.predictions("test", "before")
    assert is_intact(layout, read(layout), path)
    path.write_bytes(path.read_bytes()[:-1])
    assert not is_intact(layout, read(layout), path)


@pytest.mark.parametrize(
    ("key", "value", "setting"),
    [
        ("task", "ordinal", "data.task"),
        ("seed", 7, "training.seed"),
        ("method", "ia3", "method.name"),
        ("truncation", "tail", "model.truncation"),
        ("window_stride", 9, "model.window_stride"),
        ("pair", True, "data.text_pair_column"),
    ],
)
def test_settings_that_contradict_the_record_are_refused(
    layout: RunLayout, edit_record: EditRecord, key: str, value: object, setting: str
) -> None:
    assert read_settings(layout, read(layout)) == load_config(layout.config)
    edit_record(layout.record, **{key: value})
    with pytest.raises(RunError, match=rf"config\.yaml was altered: {setting} is "):
        read_settings(layout, read(layout))


def test_flags_differ_from_the_record_as_they_like(layout: RunLayout) -> None:
    assert read_settings(layout, read(layout), flags={"training.seed": 3}).training.seed == 3


def test_a_run_that_was_stopped_before_it_had_settings_says_what_to_do(
    layout: RunLayout, edit_record: EditRecord
) -> None:
    edit_record(layout.record, status="running", evidence={})
    with pytest.raises(RunError, match=r"was stopped before its settings were written.*--overwrite"):
        read_settings(layout, read(layout))


def test_settings_are_compared_before_they_are_read(layout: RunLayout) -> None:
    record = read(layout)
    layout.config.unlink()
    layout.config.symlink_to("/dev/zero")
    with pytest.raises(RunError, match="which leads out of that folder"):
        read_settings(layout, record)


def test_metrics_are_those_of_the_run(layout: RunLayout, edit_record: EditRecord, sign_run: SignRun) -> None:
    assert read_metrics(layout, read(layout)).rows == 20

    def raise_accuracy(metrics: dict[str, Any]) -> None:
        metrics["after"]["metrics"]["accuracy"]["value"] = 0.123

    edit_record(layout.metrics, raise_accuracy)
    with pytest.raises(RunError, match=r"metrics\.json was altered after the run wrote it"):
        read_metrics(layout, read(layout))
    edit_record(layout.metrics, task="ordinal")
    sign_run(layout.root)
    with pytest.raises(RunError, match=r"metrics\.json was altered: it does not hold the metrics of the task single"):
        read_metrics(layout, read(layout))


def test_what_the_record_does_not_name_may_be_accepted(layout: RunLayout, edit_record: EditRecord) -> None:
    edit_record(layout.record, lambda record: record["evidence"].clear())
    record, said = read(layout), []
    with pytest.raises(RunError, match=r"history\.jsonl was not there when \S+run\.json was written"):
        check_evidence(layout, record, layout.history)
    with choose_about_altered(accept=True, say=said.append):
        check_evidence(layout, record, layout.history)
    assert len(said) == 1
