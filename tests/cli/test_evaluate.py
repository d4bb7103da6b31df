import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lorafit
from lorafit.runs.folder import RunLayout
from lorafit.tasks.records import MetricsRecord

Call = Callable[..., Any]


def test_own_test_rows_give_the_metrics_of_the_run(call: Call, trained: Path) -> None:
    answer = call("evaluate", trained, "--json", "--quiet")
    assert (answer.code, answer.err) == (0, "")
    recorded = MetricsRecord.read(RunLayout(trained).metrics).after.metrics
    again = MetricsRecord.model_validate(json.loads(answer.out)).after.metrics
    assert again["accuracy"] == recorded["accuracy"]
    assert again["log_loss"].value == pytest.approx(recorded["log_loss"].value, abs=1e-6)


def test_table_shows_one_model_with_intervals(call: Call, trained: Path) -> None:
    answer = call("evaluate", trained)
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert lines[0].startswith("Measured on 12 rows of ")
    assert lines[0].endswith("(95 % intervals in brackets)")
    assert [name for name in ("accuracy", "log loss", "recall pos") if not any(name in line for line in lines)] == []
    assert "before" not in lines[2]
    assert "measuring: 12 texts" in answer.err
    assert "\x1b" not in answer.out + answer.err


def test_other_data_with_other_columns_and_bad_rows(call: Call, trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "more.tsv"
    path.write_text("review\tmood\nsuperb lovely film\tpos\n\tpos\ndull boring story\tneg\n")
    words = ["evaluate", trained, path, "--text-column", "review", "--label-column", "mood", "--bad-rows", "drop"]
    answer = call(*words, "--json")
    assert answer.code == 0
    assert json.loads(answer.out)["rows"] == 2


def test_accuracy_by_length_is_shown_and_by_the_columns_named(call: Call, trained: Path, tmp_path: Path) -> None:
    assert "words 1-15" in call("evaluate", trained).out
    path = tmp_path / "more.csv"
    rows = [f"superb lovely film {row},pos,{('north', 'south')[row % 3 == 0]}" for row in range(45)]
    path.write_text("\n".join(["text,label,shop", *rows]) + "\n")
    answer = call("evaluate", trained, path, "--slice", "shop", "--slice", "label")
    assert answer.code == 0, answer.err
    lines = [line.strip() for line in answer.out.splitlines()]
    shown = [line.split()[:3] for line in lines if line.startswith(("shop ", "label ", "words "))]
    assert shown == [["words", "1-15", "45"], ["shop", "north", "30"], ["shop", "south", "15"], ["label", "pos", "45"]]
    slices = json.loads(call("evaluate", trained, path, "--slice", "shop", "--json").out)["slices"]
    assert [one["value"] for one in slices] == ["1-15", "north", "south"]
    refused = call("evaluate", trained, path, "--slice", "store")
    assert refused.code == 2
    assert "more.csv has no column 'store'. Its columns: ['text', 'label', 'shop']" in refused.err
    assert "--slice" in refused.err


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lorafit.export(trained, output=tmp_path_factory.mktemp("exported") / "model").path


def test_an_export_is_measured_as_its_run_is(call: Call, trained: Path, exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "more.csv"
    path.write_text("text,label\nsuperb lovely film,pos\ndull boring story,neg\ndull lovely film,neg\n")
    answers = [call("evaluate", folder, path, "--json", "--quiet") for folder in (trained, exported)]
    assert [answer.code for answer in answers] == [0, 0], answers
    run, export = (MetricsRecord.model_validate(json.loads(answer.out)) for answer in answers)
    assert (export.rows, export.split) == (3, "more.csv")
    assert export.after.metrics["accuracy"] == run.after.metrics["accuracy"]
    assert export.after.metrics["log_loss"].value == pytest.approx(run.after.metrics["log_loss"].value, abs=1e-2)
    table = call("evaluate", exported, path)
    assert table.out.splitlines()[0].startswith("Measured on 3 rows of more.csv")


def test_rows_of_a_group_are_resampled_together(call: Call, trained: Path, exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "more.csv"
    rows = [
        f"{('superb lovely', 'dull boring')[row % 2]} film,{('pos', 'neg')[row % 3 % 2]},{row}" for row in range(20)
    ]
    path.write_text("\n".join(["text,label,author", *rows, *rows, *rows, *rows]) + "\n")
    for folder in (trained, exported):
        wide, narrow = (
            MetricsRecord.model_validate(json.loads(call("evaluate", folder, path, "--json", *words).out)).after
            for words in (["--group-column", "author"], [])
        )
        widths = [scores.metrics["accuracy"].high - scores.metrics["accuracy"].low for scores in (wide, narrow)]
        assert 1.5 < widths[0] / widths[1] < 2.7, "four times fewer rows: twice as wide"


def test_an_export_needs_data(call: Call, exported: Path) -> None:
    answer = call("evaluate", exported)
    assert answer.code == 2
    assert answer.err.splitlines()[-1] == f"  lorafit evaluate {exported} DATA"


def test_an_export_is_not_measured_on_what_it_was_trained_on(call: Call, exported: Path, reviews: Path) -> None:
    answer = call("evaluate", exported, reviews)
    assert answer.code == 2
    assert "reviews.csv is what the model was trained on" in answer.err
