"""What `train` and `evaluate` print fits the terminal, for every task: no line too long, nothing torn apart."""

import io
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from lorafit.cli.render.metrics import print_metrics
from lorafit.cli.render.run import show_run
from lorafit.reports.verdict import describe_verdict
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import ForecastRecord, RunRecord, TrainingRecord
from lorafit.tasks.base import Task
from lorafit.tasks.evaluation import FEW_ROWS, describe_changed_rows
from lorafit.tasks.records import ClassScores, Estimate, MetricsRecord, SliceScores
from lorafit.tasks.registry import TASKS
from lorafit.training.pipeline import Run, Sample

LONG = "a film that goes on and on and on, with a story nobody asked for and an ending that comes two hours late " * 3
EVIL = "[bold]<b>\x1b]0;evil\nname"
TRAINING = TrainingRecord(
    steps=40,
    epochs=2,
    best_step=20,
    best_validation_loss=0.4,
    stopped_early=True,
    seconds=12,
    tokens=1000,
    tokens_per_second=1234,
    padding_share=0.1,
    adapted_modules=12,
)
FORECAST = ForecastRecord(
    seconds={"training": 171.2}, peak_memory_bytes=1, budget_seconds=600, given_up=["1 epoch instead of 2"]
)

Finished = tuple[Task, MetricsRecord]


@pytest.fixture
def finish(write_run: Callable[..., Path]) -> Callable[..., Finished]:
    """A task with the metrics of a finished run."""

    def finish(task: str, **wishes: Any) -> Finished:
        layout = RunLayout(write_run(task, **wishes))
        return RunRecord.read(layout.record).build_task(), MetricsRecord.read(layout.metrics)

    return finish


TRUTHS: dict[str, Any] = {
    "single_label": "pos",
    "multi_label": ("bad", "odd"),
    "regression": 80.0,
    "ordinal": "3",
}
"""The true label of every sample, by task."""


@pytest.fixture
def finish_run(write_run: Callable[..., Path]) -> Callable[..., Run]:
    """A finished run of a task with three samples."""

    def finish_run(kind: str, **wishes: Any) -> Run:
        layout = RunLayout(write_run(kind, **wishes))
        record, metrics = RunRecord.read(layout.record), MetricsRecord.read(layout.metrics)
        task = record.build_task()
        values = task.activate(np.random.default_rng(0).normal(size=(6, len(task.output_names))))
        calibration = task.calibration_type.read(layout.calibration)
        texts = ("fine", LONG, "été 🎬 評論\nin two [bold]lines[/bold]")
        samples = tuple(
            Sample(text, TRUTHS[kind], task.predict(before), task.predict(after, calibration))
            for text, before, after in zip(texts, values[:3], values[3:], strict=True)
        )
        record = record.model_copy(update={"training": TRAINING, "forecast": FORECAST})
        return Run(layout.root, record, metrics, samples)

    return finish_run


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Shows a run on a terminal of so many columns, and gives back what was printed, escape codes left out."""

    def show(run: Run, columns: int, *, colour: bool = False) -> str:
        stream = Terminal()
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setattr("sys.stdout", stream)
        show_run(run, quiet=False)
        return stream.getvalue() if colour else re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())

    return show


def print_to(columns: int, task: Task, metrics: MetricsRecord, *, with_slices: bool = False) -> str:
    console = Console(file=io.StringIO(), width=columns, highlight=False, markup=False)
    print_metrics(console, task, metrics, with_slices=with_slices, balancing=[])
    shown: str = console.file.getvalue()  # type: ignore[attr-defined]
    return shown


def split_rows(shown: str) -> dict[str, list[str]]:
    """Return the cells of each line of a table by the first."""
    lines = (re.split(r"\s{2,}", line.strip()) for line in shown.splitlines() if "  " in line.strip())
    return {first: cells for first, *cells in lines}


def guess(value: float, width: float = 0.02) -> Estimate:
    return Estimate(value=value, low=value - width, high=value + width)


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("task", TASKS)
def test_what_is_printed_of_a_run_fits_the_terminal(
    finish_run: Callable[..., Run], show: Callable[..., str], task: str, columns: int
) -> None:
    run = finish_run(task, rows=200, columns={"shop": ["north", "south"]})
    shown = show(run, columns)
    tables, commands = shown.split("run folder")
    assert max(map(len, tables.splitlines())) <= columns
    for line in tables.partition("Test rows")[0].splitlines():
        assert line.count("[") == line.count("]"), "an interval is torn apart"
    assert "shop north" in tables
    assert f"lorafit evaluate {run.path}\n" in commands, "commands are never wrapped"
    assert "[bold]lines[/bold]" in " ".join(shown.split()), "texts are no markup"


@pytest.mark.parametrize("task", TASKS)
def test_every_metric_is_printed_before_and_after_with_its_difference(
    finish: Callable[..., Finished], task: str
) -> None:
    known, metrics = finish(task, rows=200)
    assert metrics.before is not None
    assert metrics.comparison is not None
    shown = print_to(200, known, metrics)
    rows = split_rows(shown)
    for name, metric in known.metrics.items():
        scores = (metrics.before, metrics.after)
        difference = metric.write_difference(metrics.comparison.differences[name])
        assert rows[metric.title] == [*(metric.write(one.metrics[name]) for one in scores), difference]
    for one in metrics.after.per_class:
        assert rows[f"recall {one.label}"][-1].startswith(f"{100 * one.recall.value:.1f} % [")
    assert shown.startswith("Measured on 200 rows of test (95 % intervals in brackets)\n")
    said = " ".join(shown.split())
    assert describe_verdict(known, metrics) in said
    assert f"Compared with before: {describe_changed_rows(known, metrics.comparison)}." in said
    for name, baseline in metrics.baselines.items():
        title = f"{known.baselines[name]} ({known.primary_metric.title} "
        assert f"Compared with {title}" in said
        assert f"{describe_changed_rows(known, baseline.comparison)}." in said
    assert metrics.calibration is not None
    assert all(sentence in said for sentence in known.describe_calibration(metrics.calibration))
    assert "are few" not in shown
    assert "by length of the text" not in shown


@pytest.mark.parametrize("task", TASKS)
def test_what_was_not_measured_is_not_printed(finish: Callable[..., Finished], task: str) -> None:
    known, metrics = finish(task, rows=30, before=False, baselines=False, calibration=False)
    shown = print_to(120, known, metrics)
    assert "30 rows are few: the intervals are wide." in shown
    for absent in ("before", "difference", "better", "Compared", "Calibration", "Intervals:"):
        assert absent not in shown, absent
    alone = print_to(120, known, metrics.model_copy(update={"rows": 1}))
    assert alone.startswith("Measured on 1 row of test")
    assert "1 row is very little" in alone
    enough = print_to(120, known, metrics.model_copy(update={"rows": FEW_ROWS}))
    assert "are wide" not in enough
    grouped = print_to(120, known, metrics.model_copy(update={"rows": FEW_ROWS, "groups": 12}))
    assert "12 groups are few: the intervals are wide." in grouped


def test_wide_terminals_have_value_and_interval_on_one_line(
    finish_run: Callable[..., Run], show: Callable[..., str]
) -> None:
    run = finish_run("single_label")
    wide, narrow = (show(run, columns) for columns in (140, 70))
    assert re.search(r"^ +accuracy +\d+\.\d % \[", wide, re.MULTILINE)
    assert not re.search(r"^ +accuracy +\d+\.\d % \[", narrow, re.MULTILINE)


def test_colours_are_left_out_where_they_are_not_wanted(
    finish_run: Callable[..., Run], show: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finish_run("single_label")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[32m" in show(run, 100, colour=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in show(run, 100, colour=True)


def test_cost_is_told_with_forecast_and_budget(finish_run: Callable[..., Run], show: Callable[..., str]) -> None:
    run = finish_run("single_label")
    shown = show(run, 120)
    assert re.search(r"training +2\.0 epochs, 40 steps, stopped early; kept: step 20, validation loss 0\.4000", shown)
    assert "speed       1,234 tokens/s in fp32 on 2 threads, padding 10.0%" in shown
    assert re.search(r"time +15 s \(forecast 171 s\): training 12 s, evaluation 3 s; peak memory 0\.0 GB", shown)
    assert re.search(r"given up +1 epoch instead of 2, to fit the budget of 10 min", shown)
    alone = run.record.hardware.model_copy(update={"threads": 1})
    plain = run.record.model_copy(update={"hardware": alone, "forecast": None})
    shown = show(replace(run, record=plain), 120)
    assert "on 1 thread, padding" in shown
    assert re.search(r"time +15 s: ", shown)


@pytest.mark.parametrize("columns", [80, 110])
def test_of_many_labels_those_with_the_most_rows_are_shown(finish: Callable[..., Finished], columns: int) -> None:
    known, metrics = finish("multi_label")
    labels = [
        ClassScores(label=f"label-{n}", precision=guess(0.5), recall=guess(0.5), f1=guess(0.5), support=n)
        for n in range(200)
    ]

    def show(count: int) -> str:
        scores = metrics.after.model_copy(update={"per_class": labels[:count]})
        return print_to(columns, known, metrics.model_copy(update={"before": scores, "after": scores}))

    shown = show(200)
    assert max(map(len, shown.splitlines())) <= columns
    assert "Of 200 labels the 20 with the most rows are shown, 180 are not." in " ".join(shown.split())
    assert re.findall(r"recall label-(\d+)", shown) == [str(number) for number in range(199, 179, -1)]
    table = shown.partition("Of 200")[0]
    assert [line for line in table.splitlines() if line.count("[") != line.count("]")] == []
    assert "are not" not in show(20)


def test_names_are_no_markup_and_do_not_steer_the_terminal(finish: Callable[..., Finished]) -> None:
    known, metrics = finish("multi_label", labels=[EVIL, "y" * 500])
    shown = print_to(160, known, metrics.model_copy(update={"split": EVIL}))
    assert "precision [bold]<b>" in shown
    assert "rows of [bold]<b>" in shown
    assert "\x1b" not in shown
    assert "y" * 50 not in shown


def build_slice(task: Task, column: str, value: str, level: float, change: float | None = None) -> SliceScores:
    return SliceScores(
        column=column,
        value=value,
        rows=1234,
        metrics={name: guess(level) for name in task.slice_metrics},
        differences={} if change is None else {name: guess(change) for name in task.slice_metrics},
        adjusted_p_value=1,
    )


@pytest.mark.parametrize("columns", [80, 110])
@pytest.mark.parametrize("name", TASKS)
def test_of_many_slices_the_weakest_are_shown_within_the_terminal(
    finish: Callable[..., Finished], name: str, columns: int
) -> None:
    task, metrics = finish(name)
    metric = task.primary_metric
    levels = {n: (1 - n / 60 if metric.higher_is_better else n / 60) for n in range(20, 50)}
    slices = [
        build_slice(task, "words", "1-15", 0.5, 0.1),
        build_slice(task, "[bold]shop", "undefined", math.nan, math.nan),
        *(build_slice(task, "[bold]shop", f"{n} {'x' * 30}\x1b]0;evil", level, 0.1) for n, level in levels.items()),
    ]
    metrics = metrics.model_copy(update={"slices": slices})
    assert "by length of the text" not in print_to(columns, task, metrics)
    shown = print_to(columns, task, metrics, with_slices=True)
    table = shown.partition(" by length of the text and by column")[2]
    assert max(map(len, table.splitlines())) <= columns
    value, change = metric.write(guess(0.5)), metric.write_difference(guess(0.1))
    assert re.search(rf"words 1-15 +1,234 +{re.escape(value)} +{re.escape(change)}", table)
    assert "Of [bold]shop the 12 weakest values are shown, 19 are not." in " ".join(shown.split())
    assert re.findall(r"shop (\d+)", table) == [str(number) for number in range(49, 37, -1)]
    assert "\x1b" not in shown


def test_undefined_slices_and_those_without_a_model_before_are_printed(finish: Callable[..., Finished]) -> None:
    task, metrics = finish("multi_label")
    slices = [build_slice(task, "shop", "north", math.nan)]
    shown = print_to(110, task, metrics.model_copy(update={"slices": slices}), with_slices=True)
    assert re.search(r"shop north +1,234 +undefined *\n", shown)
    assert "difference" not in shown.partition("by length of the text")[2]


def test_intervals_of_large_numbers_stand_below_them(finish: Callable[..., Finished]) -> None:
    task, metrics = finish("regression")
    slices = [build_slice(task, "shop", "north", 12_345_678.0, 12_345_678.0)]
    shown = print_to(80, task, metrics.model_copy(update={"slices": slices}), with_slices=True)
    lines = [line.split() for line in shown.splitlines()]
    place = lines.index(["shop", "north", "1,234", "12,345,678", "+12,345,678"])
    assert lines[place + 1] == ["[12,345,678,", "12,345,678]", "[+12,345,678,", "+12,345,678]"]


def test_samples_are_marked_right_or_wrong_where_that_is_a_question(
    finish_run: Callable[..., Run], show: Callable[..., str]
) -> None:
    for name in TASKS:
        run = finish_run(name, name=f"run {name}")
        table = show(run, 120).partition("Test rows drawn")[2].partition("trained")[0]
        predictions = [one for sample in run.samples for one in (sample.before, sample.after) if one is not None]
        right = [one.is_right(TRUTHS[name]) for one in predictions]
        assert (table.count("✓"), table.count("✗")) == (right.count(True), right.count(False))
        assert run.record.build_task().truth_column.replace("_", " ") in table
        assert run.record.build_task().describe_label(TRUTHS[name]) in " ".join(table.split())
    assert right.count(None) == 0
