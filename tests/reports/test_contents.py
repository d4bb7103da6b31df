import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorafit.config import load_config
from lorafit.data.loading import load_evaluation_rows
from lorafit.data.tables import read_table
from lorafit.data.writing import write_table
from lorafit.errors import RunError
from lorafit.inference.mistakes import ExplainedMistake, MistakesRecord
from lorafit.reports.contents import RunContents, read_run, read_texts
from lorafit.runs.folder import RunLayout
from lorafit.runs.predictions import read_predictions
from lorafit.runs.records import RunRecord
from lorafit.system.alterations import choose_about_altered
from lorafit.tasks.registry import TASKS

WriteRun = Callable[..., Path]
EditRecord = Callable[..., None]
SignRun = Callable[[Path], None]


def change(path: Path, **columns: object) -> None:
    write_table(path, {**read_table(path).columns, **columns})  # type: ignore[dict-item]


def test_a_run_is_read_as_it_was_written(contents: RunContents) -> None:
    data, layout = contents.config.data, contents.layout
    rows = load_evaluation_rows(data.source, data, contents.task).split
    assert contents.row_ids.tolist() == rows.ids.tolist() == list(range(1, 121))
    assert contents.y.tolist() == rows.y.tolist()
    assert contents.labels == contents.task.decode(rows.y)
    for model, values in contents.values.items():
        assert np.array_equal(values, read_predictions(layout.predictions("test", model), rows, contents.task))
    assert contents.calibration == contents.task.calibration_type.read(layout.calibration)
    assert contents.history[0] == {"step": 10, "loss": 0.1, "learning_rate": 0.01, "grad_norm": 1.0}
    assert contents.mistakes == {}


def test_models_come_by_their_names_for_people(contents: RunContents) -> None:
    titles = list(contents.task.baselines.values())
    assert list(contents.scores) == ["before", "after", *titles]
    assert list(contents.comparisons) == ["before", *titles]
    assert list(contents.predict(0)) == ["before", "after"]


@pytest.mark.parametrize("task", TASKS)
def test_what_was_not_measured_is_none_or_empty(write_run: WriteRun, task: str) -> None:
    run = write_run(task, rows=20, before=False, baselines=False, calibration=False, history=False)
    contents = read_run(run)
    assert (contents.before, contents.calibration, contents.history) == (None, None, ())
    assert list(contents.scores) == list(contents.values) == list(contents.predict(0)) == ["after"]
    assert contents.comparisons == {}
    assert read_texts(contents).texts is not None


def test_what_was_trained_may_have_been_moved_away(write_run: WriteRun) -> None:
    run = write_run("regression", rows=20)
    RunLayout(run).calibration.unlink()
    assert read_run(run).calibration is None


def test_explained_mistakes_are_found_by_row_once_the_record_names_them(write_run: WriteRun, sign_run: SignRun) -> None:
    run = write_run(rows=20)
    mistake = ExplainedMistake(row_id=7, label="pos", words=[], beats_chance=None)
    MistakesRecord(mistakes=[mistake]).write(RunLayout(run).mistakes)
    assert read_run(run).mistakes == {}
    sign_run(run)
    assert read_run(run).mistakes == {7: mistake}


def test_a_run_that_has_not_ended_is_refused(write_run: WriteRun) -> None:
    run = write_run(rows=20)
    record = RunRecord.read(RunLayout(run).record)
    record.model_copy(update={"status": "interrupted"}).write(RunLayout(run).record)
    with pytest.raises(RunError, match="'interrupted'"):
        read_run(run)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a complete run folder"):
        read_run(tmp_path)


@pytest.mark.parametrize("model", ["after", "before"])
@pytest.mark.parametrize("task", TASKS)
def test_predictions_that_give_other_scores_are_called_altered(
    write_run: WriteRun, sign_run: SignRun, task: str, model: str
) -> None:
    run = write_run(task, rows=20)
    path = RunLayout(run).predictions("test", model)
    columns = read_table(path).columns
    for name in read_run(run).task.value_columns():
        columns[name][0], columns[name][-1] = columns[name][-1], columns[name][0]
    write_table(path, columns)
    with pytest.raises(RunError, match=rf"test\.{model}\.parquet was altered after the run wrote it"):
        read_run(run)
    sign_run(run)
    with pytest.raises(RunError, match=rf"test\.{model}\.parquet was altered: .*the scores in metrics\.json"):
        read_run(run)


@pytest.mark.parametrize(
    ("task", "columns"),
    [
        ("single_label", {"probability_neg": [0.7] * 20}),
        ("single_label", {"probability_neg": ["a"] * 20}),
        ("single_label", {"true_label": ["other"] * 20}),
        ("single_label", {"row_id": [None] * 20}),
        ("single_label", {"row_id": [2**80 / 3] * 20}),
        ("multi_label", {"true_labels": [["bad"]] * 20}),
        ("multi_label", {"true_labels": [["music"]] * 20}),
        ("multi_label", {"true_labels": ["bad"] * 20}),
        ("multi_label", {"true_labels": [None] * 20}),
        ("multi_label", {"probability_bad": [1.3] * 20}),
        ("regression", {"true_value": [None] * 20}),
        ("regression", {"value": [float("inf")] * 20}),
        ("regression", {"value": [2.5] * 20}),
        ("ordinal", {"true_label": ["6"] * 20}),
        ("ordinal", {"probability_3": [-0.1] * 20}),
    ],
)
def test_predictions_that_are_none_are_called_altered(
    write_run: WriteRun, sign_run: SignRun, task: str, columns: dict[str, object]
) -> None:
    run = write_run(task, rows=20)
    change(RunLayout(run).predictions("test", "after"), **columns)
    sign_run(run)
    with pytest.raises(RunError, match=r"test\.after\.parquet was altered: "):
        read_run(run)


def test_predictions_before_training_must_be_there_and_of_the_same_rows(write_run: WriteRun, sign_run: SignRun) -> None:
    run = write_run(rows=20)
    path = RunLayout(run).predictions("test", "before")
    change(path, row_id=list(range(20)))
    sign_run(run)
    with pytest.raises(RunError, match=r"test\.before\.parquet is of other rows"):
        read_run(run)
    path.unlink()
    for _ in range(2):  # named by the record, and not
        with pytest.raises(RunError, match=r"test\.before\.parquet is missing"):
            read_run(run)
        sign_run(run)


@pytest.mark.parametrize("task", TASKS)
def test_metrics_of_another_task_are_called_altered(
    write_run: WriteRun, written_run: Callable[[str], Path], sign_run: SignRun, task: str
) -> None:
    other = next(name for name in TASKS if name != task)
    layout = RunLayout(write_run(task, rows=20))
    layout.metrics.write_bytes(RunLayout(written_run(other)).metrics.read_bytes())
    with pytest.raises(RunError, match=r"metrics\.json was altered after the run wrote it"):
        read_run(layout.root)
    sign_run(layout.root)
    with pytest.raises(RunError, match=rf"metrics\.json was altered: .* the task {task}"):
        read_run(layout.root)


@pytest.mark.parametrize("part", ["after", "comparison", "slices", "calibration"])
def test_metrics_that_lack_one_are_called_altered(
    write_run: WriteRun, edit_record: EditRecord, sign_run: SignRun, part: str
) -> None:
    layout = RunLayout(write_run(rows=20))

    def leave_out(values: dict[str, Any]) -> None:
        if part == "slices":
            values[part][0]["metrics"] = {}
        elif part == "calibration":
            values[part]["asked"]["luck"] = 1.0
        else:
            del values[part]["metrics" if part == "after" else "differences"]["accuracy"]

    edit_record(layout.metrics, leave_out)
    sign_run(layout.root)
    with pytest.raises(RunError, match=r"metrics\.json was altered: "):
        read_run(layout.root)


def test_damaged_files_are_named(write_run: WriteRun, sign_run: SignRun) -> None:
    layout = RunLayout(write_run(rows=20))
    layout.calibration.write_text("{}")
    with pytest.raises(RunError, match=r"calibration\.json was altered"):
        read_run(layout.root)
    layout.calibration.unlink()
    layout.history.write_text("{")
    sign_run(layout.root)
    with pytest.raises(RunError, match=r"history\.jsonl cannot be read"):
        read_run(layout.root)
    layout.history.unlink()
    layout.predictions("test", "after").write_bytes(b"no parquet")
    sign_run(layout.root)
    with pytest.raises(RunError, match=r"test\.after\.parquet is not a readable parquet file"):
        read_run(layout.root)


@pytest.mark.parametrize("name", ["config.yaml", "metrics.json", "history.jsonl", "predictions/test.after.parquet"])
@pytest.mark.parametrize("fault", ["flipped", "cut", "emptied", "removed"])
def test_no_file_that_a_report_rests_on_may_be_other_than_it_was(write_run: WriteRun, name: str, fault: str) -> None:
    run = write_run(rows=20)
    path, content = run / name, (run / name).read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    if fault == "removed":
        path.unlink()
    else:
        path.write_bytes({"flipped": bytes(flipped), "cut": content[:-9], "emptied": b""}[fault])
    with pytest.raises(RunError, match=rf"{name} (was altered after the run wrote it|is missing)"):
        read_run(run)


def test_files_that_no_report_reads_may_be_gone(write_run: WriteRun) -> None:
    run = write_run(rows=20)
    for path in (run / "predictions").iterdir():
        if path.name not in {"test.after.parquet", "test.before.parquet"}:
            path.unlink()
    assert read_run(run).history


def test_a_file_that_the_record_does_not_name_is_not_shown(write_run: WriteRun, edit_record: EditRecord) -> None:
    layout = RunLayout(write_run(rows=20))

    def forget(values: dict[str, Any]) -> None:
        del values["evidence"]["history.jsonl"], values["evidence"]["metrics.json"]

    edit_record(layout.record, forget)
    with pytest.raises(RunError, match=r"metrics\.json was not there when \S+run\.json was written"):
        read_run(layout.root)
    layout.metrics.unlink()
    with pytest.raises(RunError, match=r"metrics\.json is missing"):
        read_run(layout.root)


def test_what_was_altered_is_shown_once_it_is_accepted(write_run: WriteRun) -> None:
    run, said = write_run(rows=20), []
    with (run / "history.jsonl").open("a") as file:
        file.write("\n")
    with choose_about_altered(accept=True, say=said.append):
        assert read_run(run).history
    assert len(said) == 1
    assert "history.jsonl was altered" in said[0]


def test_history_of_other_entries_is_read(write_run: WriteRun, sign_run: SignRun) -> None:
    run = write_run(rows=20)
    lines = [{"step": 1, "loss": 2}, {"step": 2, "note": "a word"}, ["no object"]]
    RunLayout(run).history.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    sign_run(run)
    assert read_run(run).history == ({"step": 1.0, "loss": 2.0}, {"step": 2.0})


def test_texts_are_read_from_the_source_again(write_run: WriteRun) -> None:
    texts = read_texts(read_run(write_run(rows=4)))
    assert texts.texts == ("neg film 0", "pos film 1", "neg film 2", "pos film 3")
    assert texts.reason == texts.detail == ""


@pytest.mark.parametrize("task", TASKS)
def test_texts_at_hand_are_taken_without_the_source(write_run: WriteRun, tmp_path: Path, task: str) -> None:
    contents = read_run(write_run(task, rows=4))
    config = load_config(contents.layout.config).data
    rows = load_evaluation_rows(config.source, config, contents.task).split
    (tmp_path / "run.jsonl").unlink()
    assert read_texts(contents, rows=rows).texts == rows.texts
    other = rows.select(np.array([1, 0]))
    assert read_texts(contents, rows=other).texts is None


@pytest.mark.parametrize("flags", [{}, {"evaluation.report_texts": False}])
def test_texts_are_left_out_when_that_is_asked_for(write_run: WriteRun, flags: dict[str, object]) -> None:
    texts = read_texts(read_run(write_run(flags=flags)), wanted=bool(flags))
    assert (texts.texts, texts.reason) == (None, "Texts are left out, as was asked for.")


@pytest.mark.parametrize("task", TASKS)
def test_texts_that_changed_are_left_out_with_the_reason(write_run: WriteRun, tmp_path: Path, task: str) -> None:
    contents = read_run(write_run(task, rows=4))
    test = tmp_path / "run-test.jsonl"
    test.write_text(test.read_text().replace("film 0", "film 9"))
    texts = read_texts(contents)
    assert texts.texts is None
    assert texts.reason == "Texts are left out: the data have changed since the run."
    assert "fingerprint" in texts.detail
    test.unlink()
    texts = read_texts(contents)
    assert texts.reason == "Texts are left out: the data could not be read again."
    assert str(test) in texts.detail
    assert str(test) not in texts.reason, "a page that is handed on names no paths"
