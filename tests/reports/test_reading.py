import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lorafit.config import load_config
from lorafit.data.sources import load_evaluation_rows
from lorafit.data.tables import read_table
from lorafit.data.writing import write_table
from lorafit.errors import RunError
from lorafit.labels import LabelSet
from lorafit.reports.reading import read_run, read_texts
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import RunRecord

BuildRun = Callable[..., Path]


def test_a_run_is_read_as_it_was_written(build_run: BuildRun) -> None:
    run = build_run(rows=20)
    contents = read_run(run)
    assert contents.names == ["neg", "pos"]
    assert contents.labels.tolist() == [0, 1] * 10
    assert contents.row_ids.tolist() == list(range(1, 21))
    columns = read_table(RunLayout(run).predictions("test", "baseline")).columns
    assert contents.baseline is not None
    assert contents.baseline[:, 1].tolist() == columns["probability_pos"]
    assert contents.finetuned.shape == (20, 2)
    assert contents.history[0] == {"step": 10, "loss": 0.1, "learning_rate": 0.01, "grad_norm": 1.0}


def test_what_was_not_measured_is_none_or_empty(build_run: BuildRun) -> None:
    contents = read_run(build_run(baseline=False, history=False))
    assert contents.baseline is None
    assert contents.history == ()


def test_a_run_that_has_not_ended_is_refused(build_run: BuildRun) -> None:
    run = build_run()
    record = RunRecord.read(RunLayout(run).record)
    record.model_copy(update={"status": "interrupted"}).write(RunLayout(run).record)
    with pytest.raises(RunError, match="'interrupted'"):
        read_run(run)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a complete run folder"):
        read_run(tmp_path)


def change(path: Path, **columns: object) -> None:
    write_table(path, {**read_table(path).columns, **columns})  # type: ignore[dict-item]


@pytest.mark.parametrize("model", ["finetuned", "baseline"])
def test_predictions_that_give_other_scores_are_called_altered(build_run: BuildRun, model: str) -> None:
    run = build_run(rows=20)
    path = RunLayout(run).predictions("test", model)
    columns = read_table(path).columns
    change(path, probability_neg=columns["probability_pos"], probability_pos=columns["probability_neg"])
    with pytest.raises(RunError, match=f"test.{model}.parquet was altered: .*the scores in metrics.json"):
        read_run(run)


@pytest.mark.parametrize(
    "columns",
    [
        {"probability_neg": [0.7] * 20},
        {"probability_neg": ["a"] * 20},
        {"true_label": ["other"] * 20},
        {"row_id": [None] * 20},
        {"row_id": [2**80 / 3] * 20},
    ],
)
def test_predictions_that_are_none_are_called_altered(build_run: BuildRun, columns: dict[str, object]) -> None:
    run = build_run(rows=20)
    change(RunLayout(run).predictions("test", "finetuned"), **columns)
    with pytest.raises(RunError, match="was altered"):
        read_run(run)


def test_predictions_of_other_rows_before_and_after_are_called_altered(build_run: BuildRun) -> None:
    run = build_run(rows=20)
    change(RunLayout(run).predictions("test", "baseline"), row_id=list(range(20)))
    with pytest.raises(RunError, match="of other rows"):
        read_run(run)


def test_damaged_files_are_named(build_run: BuildRun) -> None:
    run = build_run()
    layout = RunLayout(run)
    layout.history.write_text("{")
    with pytest.raises(RunError, match=r"history\.jsonl cannot be read"):
        read_run(run)
    layout.history.unlink()
    layout.predictions("test", "finetuned").write_bytes(b"no parquet")
    with pytest.raises(RunError, match=r"test\.finetuned\.parquet is not a readable parquet file"):
        read_run(run)


def test_texts_are_read_from_the_source_again(build_run: BuildRun) -> None:
    texts = read_texts(read_run(build_run(rows=4)))
    assert texts.texts == ("neg film 0", "pos film 1", "neg film 2", "pos film 3")
    assert texts.reason == texts.detail == ""


def test_texts_at_hand_are_taken_without_the_source(build_run: BuildRun, tmp_path: Path) -> None:
    contents = read_run(build_run(rows=4))
    config = load_config(contents.layout.config).data
    rows = load_evaluation_rows(config.source, config, LabelSet(("neg", "pos")))
    (tmp_path / "reviews.csv").unlink()
    assert read_texts(contents, rows=rows).texts == rows.texts
    other = rows.select(np.array([1, 0]))
    assert read_texts(contents, rows=other).texts is None


@pytest.mark.parametrize("settings", [{}, {"evaluation.report_texts": False}])
def test_texts_are_left_out_when_that_is_asked_for(build_run: BuildRun, settings: dict[str, object]) -> None:
    contents = read_run(build_run(settings=settings))
    texts = read_texts(contents, wanted=bool(settings))
    assert (texts.texts, texts.reason) == (None, "Texts are left out, as was asked for.")


def test_texts_that_changed_are_left_out_with_the_reason(build_run: BuildRun, tmp_path: Path) -> None:
    contents = read_run(build_run(rows=4))
    test = tmp_path / "test.csv"
    test.write_text(test.read_text().replace("neg film 0", "neg film 9"))
    texts = read_texts(contents)
    assert texts.texts is None
    assert texts.reason == "Texts are left out: the data have changed since the run."
    assert "fingerprint" in texts.detail
    test.unlink()
    texts = read_texts(contents)
    assert texts.reason == "Texts are left out: the data could not be read again."
    assert str(test) in texts.detail
    assert str(test) not in texts.reason, "a page that is handed on names no paths"


def test_history_of_other_entries_is_read(build_run: BuildRun) -> None:
    run = build_run()
    lines = [{"step": 1, "loss": 2}, {"step": 2, "note": "a word"}, ["no object"]]
    RunLayout(run).history.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert read_run(run).history == ({"step": 1.0, "loss": 2.0}, {"step": 2.0})
