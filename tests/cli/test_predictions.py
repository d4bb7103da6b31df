import datetime
import io
import json
import sys

import numpy as np
import pytest

from lorafit.cli.render.predictions import show_predictions
from lorafit.data.tables import Table
from lorafit.inference.batch import PredictedTable
from lorafit.tasks.base import Task
from lorafit.tasks.records import Calibration
from lorafit.tasks.registry import build_task
from lorafit.tasks.regression import RegressionCalibration
from lorafit.tasks.single_label import SingleLabelCalibration

EVIL = "[bold]evil\x1b[31m\n"
TEXTS = ["a superb film", "dull\nand\tboring \x1b[31m", "été 🎬"]


def show(
    capsys: pytest.CaptureFixture[str],
    task: Task,
    values: list[list[float]],
    *,
    calibration: Calibration | None = None,
    as_json: bool = False,
) -> list[str]:
    predictions = tuple(task.predict(np.array(row), calibration) for row in values)
    table = PredictedTable(Table({"text": TEXTS[: len(values)]}, "a test"), ("text",), predictions, predictions[0])
    show_predictions(task, table, json=as_json)
    return capsys.readouterr().out.splitlines()


def test_labels_and_confidence_stand_in_columns(capsys: pytest.CaptureFixture[str]) -> None:
    task = build_task("single_label", ("no", "positive", EVIL))
    assert show(capsys, task, [[0.05, 0.9, 0.05], [1, 0, 0], [0.2, 0.3, 0.5]]) == [
        "positive          90.0%  a superb film",
        "no               100.0%  dull and boring �[31m",
        "[bold]evil�[31m   50.0%  été 🎬",
    ]


def test_what_abstains_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    calibration = SingleLabelCalibration(
        rows=9,
        temperature=1,
        log_loss_before=1,
        log_loss_after=1,
        coverage=0.9,
        set_threshold=0.5,
        curve=[],
        target_accuracy=0.99,
        accept_threshold=0.95,
    )
    task = build_task("single_label", ("neg", "pos"))
    assert show(capsys, task, [[0.1, 0.9], [0.98, 0.02]], calibration=calibration) == [
        "pos   90.0%  abstain  a superb film",
        "neg   98.0%           dull and boring �[31m",
    ]


@pytest.mark.parametrize(
    ("name", "labels", "values", "lines"),
    [
        ("multi_label", ("a, b", EVIL), [[0.75, 0.6], [0.2, 0.1]], ["a, b 75.0%, [bold]evil�[31m 60.0%", "(none)"]),
        ("regression", ("value",), [[78.9], [-1234.5]], ["78.90  [75.40, 82.40]", "-1,234  [-1,238, -1,231]"]),
        ("ordinal", ("-1", "10"), [[0.25, 0.75], [1, 0]], ["10   75.0%", "-1  100.0%"]),
    ],
)
def test_other_tasks_stand_before_their_texts(
    capsys: pytest.CaptureFixture[str], name: str, labels: tuple[str, ...], values: list[list[float]], lines: list[str]
) -> None:
    task = build_task(name, labels)
    calibration = RegressionCalibration(rows=9, coverage=0.9, half_width=3.5) if name == "regression" else None
    shown = show(capsys, task, values, calibration=calibration)
    texts = ("a superb film", "dull and boring �[31m")
    assert [" ".join(line.split()) for line in shown] == [
        " ".join(f"{line} {text}".split()) for line, text in zip(lines, texts, strict=True)
    ]


def test_json_has_all_of_a_prediction(capsys: pytest.CaptureFixture[str]) -> None:
    (line, _) = show(capsys, build_task("multi_label", ("a", "b")), [[0.75, 0.6], [0, 0]], as_json=True)
    plain = {"text": "a superb film", "typicality": None, "atypical": None}
    assert json.loads(line) == plain | {"labels": ["a", "b"], "scores": {"a": 0.75, "b": 0.6}}
    (line,) = show(capsys, build_task("regression", ("value",)), [[1.5]], as_json=True)
    assert json.loads(line) == plain | {"value": 1.5, "low": None, "high": None}


@pytest.mark.parametrize("as_json", [False, True])
def test_a_row_without_a_prediction_says_why(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    task = build_task("single_label", ("neg", "pos"))
    example = task.predict(np.array([0.1, 0.9]))
    table = Table({"text": ["fine", None]}, "a test", {1: "no text"})
    predicted = PredictedTable(table, ("text",), (example, None), example, keeps_faults=True)
    show_predictions(task, predicted, json=as_json)
    lines = capsys.readouterr().out.splitlines()
    if not as_json:
        assert lines == ["pos   90.0%  fine", "no prediction: no text"]
        return
    whole, empty = map(json.loads, lines)
    about = ["label", "score", "scores", "abstain", "conformal_set", "typicality", "atypical"]
    assert list(whole) == list(empty) == ["text", *about, "fault"]
    assert (whole["label"], whole["fault"]) == ("pos", None)
    assert {name: value for name, value in empty.items() if value is not None} == {"fault": "no text"}


def test_a_pair_stands_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    task = build_task("single_label", ("neg", "pos"))
    table = Table({"a": ["it rains\n"], "b": ["it is wet"]}, "a test")
    example = task.predict(np.array([0.1, 0.9]))
    predicted = PredictedTable(table, ("a", "b"), (example,), example)
    show_predictions(task, predicted, json=False)
    assert capsys.readouterr().out == "pos   90.0%  it rains | it is wet\n"
    show_predictions(task, predicted, json=True)
    line = json.loads(capsys.readouterr().out)
    assert list(line)[:3] == ["text", "text_pair", "label"]
    assert (line["text"], line["text_pair"]) == ("it rains\n", "it is wet")


@pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "cp1252", "ascii", "utf-16", "latin-1", "koi8-r"])
def test_json_is_valid_in_every_encoding(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    task = build_task("single_label", ("neg", "größer 🎬"))
    example = task.predict(np.array([0.1, 0.9]))
    texts: list[object] = [
        "Great 🙂 film",
        "half \ud800",
        float("nan"),
        datetime.date(2020, 1, 2),
        {"a": [float("inf")]},
    ]
    faults = dict.fromkeys(range(2, 5), "no text")
    predictions = (example, example, None, None, None)
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    table = Table({"text": texts}, "a test", faults)
    show_predictions(task, PredictedTable(table, ("text",), predictions, example, keeps_faults=True), json=True)
    written = stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]  # of a BytesIO
    lines = [json.loads(line, parse_constant=pytest.fail) for line in written.splitlines()]
    assert [line["text"] for line in lines] == ["Great 🙂 film", "half \ud800", None, "2020-01-02", {"a": [None]}]
    assert lines[0]["label"] == "größer 🎬"
    assert ("🙂" in written) == (encoding.lower() in {"utf-8", "utf8"})
