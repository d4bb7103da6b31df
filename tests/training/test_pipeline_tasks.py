"""Whole runs of every task: what they learn, what plain libraries give, and how they go on after an interruption."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lorafit
from lorafit.config import load_config
from lorafit.data.loading import load_splits
from lorafit.data.tables import read_table
from lorafit.errors import DataError, TrainingInterruptedError, UserInputError
from lorafit.inference.export.export import export_merged
from lorafit.runs.folder import RunLayout
from lorafit.system.progress import Silent
from lorafit.tasks.evaluation import cut_into_slices
from lorafit.tasks.records import MetricsRecord
from lorafit.tasks.registry import TASKS
from lorafit.training.evaluation import evaluate
from lorafit.training.pipeline import resume

LEARNED = {"single_label": 0.75, "multi_label": 0.65, "regression": 10.0, "ordinal": 0.8}
"""What the primary metric reaches at least, or of an error at most."""

INTERRUPTED = {("regression", "epoch 2.00"), ("multi_label", "saving")}
"""What `make test` interrupts; the other tasks and moments take `make test-slow`."""


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest) -> str:
    return request.param


def test_a_run_learns_what_the_words_tell(task: str, trained_of: Callable[[str], Path]) -> None:
    record = MetricsRecord.read(RunLayout(trained_of(task)).metrics)
    metric = lorafit.load(trained_of(task)).task.primary_metric
    value = next(iter(record.after.metrics.values())).value
    assert value > LEARNED[task] if metric.higher_is_better else value < LEARNED[task]


PLAIN = """
import json, sys
from pathlib import Path
from transformers import AutoConfig, pipeline
from peft import AutoPeftModelForSequenceClassification as AutoPeftModel
answers = {}
for name, settings in json.loads(sys.argv[1]).items():
    folder = Path(name)
    config = AutoConfig.from_pretrained(folder / "labels")
    heads = {"num_labels": config.num_labels, "problem_type": config.problem_type}
    model = AutoPeftModel.from_pretrained(folder, id2label=config.id2label, **heads)
    classify = pipeline("text-classification", model=model, tokenizer=str(folder), truncation=True, **settings)
    (answers[name],) = classify(["superb film hours"])
print(json.dumps(answers))
"""


def test_adapters_of_every_task_open_in_plain_libraries(trained_of: Callable[[str], Path]) -> None:
    """The head gives numbers in their own unit; the outputs of the others go through softmax or sigmoid."""
    settings: dict[str, dict[str, Any]] = {
        "single_label": {"top_k": None},
        "multi_label": {"top_k": None, "function_to_apply": "sigmoid"},
        "regression": {"function_to_apply": "none"},
        "ordinal": {"top_k": None, "function_to_apply": "sigmoid"},
    }
    told = {str(trained_of(name) / "adapter"): settings[name] for name in TASKS}
    command = [sys.executable, "-W", "ignore", "-c", PLAIN, json.dumps(told)]
    answers = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    for name in TASKS:
        answer = answers[str(trained_of(name) / "adapter")]
        given = {one["label"]: one["score"] for one in (answer if isinstance(answer, list) else [answer])}
        model = lorafit.load(trained_of(name), raw=True, precision="fp32")
        values = model.compute_values(["superb film hours"])[0]
        if name == "ordinal":
            values = values[::-1].cumsum()[-2::-1]  # the chance of at least each score but the lowest
        expected = dict(zip(model.task.output_names, values.tolist(), strict=True))
        assert given.keys() == expected.keys()
        assert list(given.values()) == pytest.approx([expected[label] for label in given], rel=1e-3, abs=1e-4)


def test_a_target_accuracy_is_refused_before_training_where_nothing_abstains(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"film {row},{row}\n" for row in range(60)), encoding="utf-8")
    flags = {"data.source": str(path), "data.task": "regression", "evaluation.target_accuracy": 0.9}
    with pytest.raises(UserInputError, match="A target accuracy is for"):
        lorafit.train(load_config(flags=flags))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "moment"),
    [
        pytest.param(task, moment, marks=() if (task, moment) in INTERRUPTED else pytest.mark.slow)
        for task in TASKS
        for moment in ("epoch 2.00", "saving")
    ],
)
def test_an_interrupted_run_resumes_to_the_same_result(
    task: str, moment: str, trained_of: Callable[[str], Path], tmp_path: Path
) -> None:
    class Stop(Silent):
        def start(self, stage: str, **_: Any) -> None:  # type: ignore[override]
            if stage.startswith(moment):
                raise KeyboardInterrupt

        def say(self, line: str) -> None:
            if line.startswith(moment):
                signal.raise_signal(signal.SIGINT)

    config = load_config(RunLayout(trained_of(task)).config)
    with pytest.raises(TrainingInterruptedError):
        lorafit.train(config, output=tmp_path / "run", progress=Stop())
    resume(tmp_path / "run")
    resumed, straight = RunLayout(tmp_path / "run").metrics, RunLayout(trained_of(task)).metrics
    assert resumed.read_text(encoding="utf-8") == straight.read_text(encoding="utf-8")


@pytest.mark.parametrize("method", ["full", "head_only"])
def test_other_methods_learn_numbers_in_their_own_unit(train_run: Callable[..., Path], method: str) -> None:
    run = train_run("regression", f"method.name={method}")
    (prediction,) = lorafit.load(run).predict(["superb film hours"])
    assert 40 < prediction.columns()["value"] < 110  # type: ignore[operator]


@pytest.mark.slow
def test_a_head_that_knows_the_unit_begins_with_what_it_knows(
    train_run: Callable[..., Path], trained_of: Callable[[str], Path], tmp_path: Path
) -> None:
    """A model trained before, merged: it predicts as it did before training, and goes on from there."""
    merged = export_merged(trained_of("regression"), output=tmp_path / "merged")
    again = train_run("regression", "training.epochs=1", "evaluation.before=true", encoder=merged)
    before = MetricsRecord.read(RunLayout(again).metrics).before
    after = MetricsRecord.read(RunLayout(trained_of("regression")).metrics).after
    assert before is not None
    assert before.metrics["mae"].value == pytest.approx(after.metrics["mae"].value, rel=1e-3)


def test_slices_are_those_of_the_predictions(task: str, trained_of: Callable[[str], Path]) -> None:
    """The rows of a slice have the metrics of their own predictions."""
    layout = RunLayout(trained_of(task))
    model = lorafit.load(layout.root)
    metrics = evaluate(layout.root, flags={"data.slice_columns": ["label"]})
    rows = load_splits(load_config(layout.config, flags={"data.slice_columns": ["label"]}).data).test
    columns = read_table(layout.predictions("test", "after")).columns
    values = np.array([columns[name] for name in model.task.value_columns()], dtype=np.float64).T
    slicings = {slicing.column: slicing for slicing in cut_into_slices(rows.texts, rows.columns)}
    assert metrics.slices
    for one in metrics.slices:
        slicing = slicings[one.column]
        places = np.flatnonzero(slicing.places == list(slicing.values).index(one.value))
        expected = model.task.compute(model.task.row_statistics(rows.y[places], values[places]).sum(axis=0))
        assert one.rows == len(places)
        for name, estimate in one.metrics.items():
            assert estimate.value == pytest.approx(float(expected[name]), rel=1e-3, abs=1e-3, nan_ok=True)
        assert one.differences == {}, "an evaluation measures nothing before training"


def test_numbers_that_are_all_the_same_to_train_on_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"film {row},{int(row == 3)}\n" for row in range(60)), encoding="utf-8")
    config = load_config(overrides=[f"data.source={path}", "data.task=regression", "data.max_rows=5"]).data
    with pytest.raises(DataError, match="rows to train on have the same number"):
        load_splits(config)
