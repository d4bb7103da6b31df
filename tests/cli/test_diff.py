import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorafit.config import load_config
from lorafit.data.sources import load_splits
from lorafit.experiments.diff.records import DiffRecord
from lorafit.labels import LabelSet
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import RunRecord
from lorafit.training.evaluation import read_predictions, write_predictions

Call = Callable[..., Any]


@pytest.fixture
def worse(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run that takes the first test row, which it had right, for the other class."""
    layout = RunLayout(Path(shutil.copytree(trained, tmp_path / "worse")))
    labels, rows = LabelSet(("neg", "pos")), load_splits(load_config(layout.config).data).test
    path = layout.predictions("test", "finetuned")
    said = read_predictions(path, rows, labels)
    assert said is not None
    right = int(np.flatnonzero(said.argmax(axis=1) == rows.labels)[0])
    said[right] = said[right, ::-1]
    write_predictions(path, rows, labels, said)
    return layout.root


def test_table_shows_both_runs_the_difference_and_the_slices(call: Call, trained: Path, worse: Path) -> None:
    answer = call("diff", trained, worse)
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert lines[0].startswith("Measured on 12 rows of ")
    assert lines[0].endswith("(95 % interval in brackets)")
    assert lines[1].startswith(f"A  {trained} (lora on ")
    assert lines[2].startswith(f"B  {worse} (lora on ")
    table = ("accuracy", "F1 (macro)", "MCC", "log loss", "ECE", "texts/s", "trained", "label neg", "words 1-15")
    assert [name for name in table if not any(line.strip().startswith(name) for line in lines)] == []
    assert "0 rows put right by B, 1 made wrong (exact McNemar test, p = 1)." in answer.out
    assert "8.3 % [" in answer.out, "one of twelve"
    assert "note: 12 rows are few" in answer.out
    (row,) = (line for line in lines if line.strip().startswith("ECE"))
    assert not row.rstrip().endswith("]"), "a signed number without an interval"
    assert "gate" not in answer.out
    assert "\x1b" not in answer.out + answer.err


def test_gates_that_hold_are_said_and_end_with_0(call: Call, trained: Path, worse: Path) -> None:
    answer = call("diff", trained, worse, "--gate", "accuracy>=-0.1,negative_flips<=0.1", "--quiet")
    assert (answer.code, answer.err) == (0, "")
    assert "gate accuracy>=-0.1: holds, -0.083333 [" in answer.out
    assert "gate negative_flips<=0.1: holds, 0.083333 [" in answer.out
    assert answer.out.endswith("All gates hold.\n")


def test_a_broken_gate_ends_with_1_after_the_table(call: Call, trained: Path, worse: Path) -> None:
    answer = call("diff", trained, worse, "--gate", "accuracy>=-0.002,churn<=0.5", "--quiet")
    assert answer.code == 1
    assert answer.err.startswith("1 of 2 gates broken:\n  accuracy>=-0.002: -0.083333 [")
    assert "churn" not in answer.err
    assert "gate accuracy>=-0.002: BROKEN, " in answer.out
    assert "All gates hold" not in answer.out


def test_json_is_the_record_whatever_the_gates_say(call: Call, trained: Path, worse: Path) -> None:
    for gate, code in (("churn<=0.1", 0), ("churn<=0.01", 1)):
        answer = call("diff", trained, worse, "--gate", gate, "--json", "--quiet")
        assert answer.code == code
        record = DiffRecord.model_validate(json.loads(answer.out))
        assert record.comparison.rows_lost == 1
        assert [result.holds for result in record.gates] == [code == 0]


def test_other_data_with_other_columns(call: Call, trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "more.tsv"
    rows = "superb lovely film\tpos\ta\ndull boring story\tneg\tb\n"
    path.write_text(f"review\tmood\tkind\n{rows * 5}\tpos\ta\n")
    words = ["--text-column", "review", "--label-column", "mood", "--slice", "kind", "--drop-bad-rows", "--json"]
    answer = call("diff", trained, trained, path, *words)
    assert answer.code == 0
    record = json.loads(answer.out)
    assert record["rows"] == 10
    assert record["churn"]["value"] == 0
    assert {one["column"] for one in record["slices"]} == {"label", "words", "kind"}
    assert "measuring A: 10 texts" in answer.err


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--gate", "acc>=0"], ["--gate cannot limit 'acc'", "accuracy, macro_f1, mcc", "Example: --gate"]),
        (["--gate", "accuracy"], ["--gate takes name operator number", "got 'accuracy'"]),
        (["none.csv"], ["There is no file", "none.csv"]),
        (["--slice", "none"], ["has no column 'none'", "--slice"]),
    ],
)
def test_what_cannot_be_used_ends_with_2(call: Call, trained: Path, words: list[str], parts: list[str]) -> None:
    answer = call("diff", trained, trained, *words)
    assert (answer.code, answer.out) == (2, "")
    assert [part for part in parts if part not in answer.err] == [], answer.err


def test_what_is_no_run_and_other_test_rows_end_with_2(call: Call, trained: Path, worse: Path) -> None:
    assert call("diff", trained, "none").code == 2
    layout = RunLayout(worse)
    record = RunRecord.read(layout.record)
    split = record.data.splits["test"].model_copy(update={"fingerprint": "other rows"})
    data = record.data.model_copy(update={"splits": {"test": split}})
    record.model_copy(update={"data": data}).write(layout.record)
    answer = call("diff", trained, worse)
    assert answer.code == 2
    assert "lorafit diff A B DATA" in answer.err
