import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from lorafit.errors import RunError
from lorafit.models.records import BaseModelRecord, ParameterCounts
from lorafit.runs import folder as files
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import DataRecord, HardwareRecord, RunRecord, SplitRecord, TrainingRecord
from lorafit.system.records import SCHEMA_VERSION, FileRecord
from lorafit.tasks.records import ClassScores, Comparison, Estimate, MetricsRecord, Scores

EditRecord = Callable[..., None]

HALF = Estimate(value=0.5, low=0.4, high=0.6)


def make_metrics() -> MetricsRecord:
    scored = ClassScores(label="pos", precision=HALF, recall=HALF, f1=HALF, support=3)
    return MetricsRecord(
        task="single_label",
        split="test",
        rows=10,
        confidence_level=0.95,
        bootstrap_samples=2000,
        before=None,
        after=Scores(metrics={"accuracy": HALF}, per_class=[scored], confusion_matrix=[[1, 2], [3, 4]]),
        comparison=Comparison(differences={"accuracy": HALF}, rows_fixed=2, rows_broken=1, p_value=1.0),
    )


def make_run(**changes: Any) -> RunRecord:
    split = SplitRecord(rows=2, label_counts={"pos": 1, "neg": 1}, fingerprint="f", tokens=9, truncated=0)
    fields = {
        "status": "complete",
        "created": "2025-01-01T00:00:00Z",
        "versions": {"lorafit": "0.1.0"},
        "seed": 0,
        "method": "lora",
        "task": "single_label",
        "labels": ["neg", "schön"],
        "max_length": 256,
        "truncation": "head",
        "data": DataRecord(source="builtin:rotten-tomatoes", splits={"train": split}),
        "base_model": BaseModelRecord(name="m", revision=None, digest="d", architecture="distilbert"),
        "hardware": HardwareRecord(
            cpu="c", cores=2, threads=2, memory_bytes=1, precision="fp32", precision_reason="no bf16 unit"
        ),
        "encoder_blocks": "fused",
        "parameters": ParameterCounts(adapter=10, head=10, total=80),
        **changes,
    }
    return RunRecord(**fields)


TRAINING = TrainingRecord(
    steps=1,
    epochs=0.5,
    best_step=1,
    best_validation_loss=math.inf,
    stopped_early=False,
    seconds=1.5,
    tokens=100,
    tokens_per_second=66.7,
    padding_share=0.1,
    adapted_modules=36,
)


def test_the_layout_names_every_file_once_and_inside_the_run() -> None:
    layout = RunLayout(Path("runs/a"))
    values = [getattr(layout, name) for name, value in vars(RunLayout).items() if isinstance(value, property)]
    named = [value for value in values if isinstance(value, Path)]
    for split in ("validation", "test"):
        named += [layout.predictions(split, "before"), layout.predictions(split, "after")]
    named.remove(layout.trained)  # is another name for the adapter's or the model's folder
    assert len(set(named)) == len(named)
    assert all(path.is_relative_to(layout.root) and path != layout.root for path in named)
    assert layout.predictions("test", "before") == Path("runs/a/predictions/test.before.parquet")
    assert {layout.golden, layout.labels / "config.json"} <= {layout.adapter / name for name in files.ADAPTER_FILES}


def test_processes_are_told_where_there_were_several() -> None:
    assert TRAINING.describe_processes() == ""
    shared = TRAINING.model_copy(update={"processes": 4, "idle_share": 0.125})
    assert shared.describe_processes() == ", in 4 processes, each idle for 12.5% of the steps"
    shared = shared.model_copy(update={"machines": 2})
    assert shared.describe_processes().startswith(", in 4 processes on 2 machines, each idle")


@pytest.mark.parametrize("record", [make_run(), make_run(training=TRAINING, seconds={"fit": 1.5}), make_metrics()])
def test_records_survive_the_way_through_a_file(tmp_path: Path, record: FileRecord) -> None:
    path = tmp_path / "new" / "record.json"
    record.write(path)
    assert type(record).read(path) == record
    assert json.loads(path.read_text(encoding="utf-8"))["schema_version"] == SCHEMA_VERSION
    assert [file.name for file in path.parent.iterdir()] == ["record.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "colour"),
        ({"status": "lost"}, "status"),
        ({"seed": None}, "seed"),
        ({"base_model": {"name": "m"}}, r"base_model\.revision"),
    ],
)
def test_sealed_records_that_are_none_are_refused(
    tmp_path: Path, edit_record: EditRecord, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "run.json"
    make_run().write(path)
    edit_record(path, **change)
    with pytest.raises(RunError, match=rf"run\.json is damaged: .*{message}"):
        RunRecord.read(path)


@pytest.mark.parametrize("version", [SCHEMA_VERSION - 1, SCHEMA_VERSION + 1, "new"])
def test_a_record_of_another_version_is_refused_with_what_to_do(tmp_path: Path, version: object) -> None:
    content = json.loads(make_run().model_dump_json())
    del content["encoder_blocks"]
    (tmp_path / "run.json").write_text(json.dumps({**content, "colour": "red", "schema_version": version}))
    with pytest.raises(RunError) as caught:
        RunRecord.read(tmp_path / "run.json")
    assert str(caught.value) == (
        f"{tmp_path / 'run.json'} was written by another version of lorafit (schema {version}; this one reads "
        f"{SCHEMA_VERSION}): use that version, or create it again with this one."
    )


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", make_run().model_dump_json().encode()[:-40]])
def test_damaged_records_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(RunError, match=r"run\.json is damaged"):
        RunRecord.read(tmp_path / "run.json")


@pytest.mark.parametrize(
    "content",
    [
        b'{"schema_version":' + b"[" * 100_000,
        b'{"schema_version": 3, "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"schema_version": 3, "seed": ' + b"9" * 5_000 + b"}",
    ],
)
def test_what_json_cannot_take_is_one_short_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(RunError, match=r"run\.json is damaged: it is not a JSON object") as caught:
        RunRecord.read(tmp_path / "run.json")
    assert len(str(caught.value)) < 200 + len(str(tmp_path))


def test_a_field_of_any_name_and_value_is_told_in_one_short_line(tmp_path: Path, edit_record: EditRecord) -> None:
    path = tmp_path / "run.json"
    make_run().write(path)
    edit_record(path, **{"\x1b[31m" + "a" * 10_000: ["b" * 10_000]})
    with pytest.raises(RunError, match=r"run\.json is damaged") as caught:
        RunRecord.read(path)
    told = str(caught.value).removeprefix(str(path))
    assert len(told) < 300
    assert told.isprintable()


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    make_run(training=TRAINING).write(path)
    content = path.read_bytes()
    for place in range(0, len(content), 11):
        for bit in (0, 3, 5):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(RunError, match=r"run\.json"):
                RunRecord.read(path)


@pytest.mark.parametrize(
    "change",
    [
        {"labels": ["schön", "neg"]},
        {"max_length": 257},
        {"truncation": "tail"},
        {"seal": "0" * 64},
        {"seal": None},
        {"colour": "red"},
    ],
)
def test_a_record_edited_by_hand_is_altered(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "run.json"
    make_run().write(path)
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **change}), encoding="utf-8")
    with pytest.raises(RunError, match=r"run\.json was altered after it was written"):
        RunRecord.read(path)


def test_a_record_without_a_seal_is_altered(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(make_run().model_dump_json(), encoding="utf-8")
    with pytest.raises(RunError, match=r"run\.json was altered after it was written"):
        RunRecord.read(tmp_path / "run.json")


def test_line_ends_indentation_and_order_of_a_record_mean_nothing(tmp_path: Path) -> None:
    path, record = tmp_path / "run.json", make_run(training=TRAINING)
    record.write(path)
    text = path.read_text(encoding="utf-8")
    for same in (
        text.replace("\n", "\r\n"),
        json.dumps(json.loads(text)),
        json.dumps(json.loads(text), sort_keys=True, indent=8, ensure_ascii=False),
        "\ufeff" + text,
    ):
        path.write_bytes(same.encode())
        assert RunRecord.read(path) == record


def test_missing_records_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run\.json is missing: .* is not a complete run folder"):
        RunRecord.read(tmp_path / "run.json")
    with pytest.raises(RunError, match=r"is a folder; a record is needed"):
        RunRecord.read(tmp_path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.json")
    with pytest.raises(RunError, match=r"run\.json is a pipe; a record is needed"):
        RunRecord.read(tmp_path / "run.json")


def test_records_cannot_be_changed() -> None:
    record = make_run()
    with pytest.raises(ValidationError, match="frozen"):
        record.seed = 1  # type: ignore[misc]  # what the test is about


def test_the_trainable_share_counts_adapter_and_head() -> None:
    assert make_run().parameters.trainable_share == 0.25
