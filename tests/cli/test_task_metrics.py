"""What is printed of several labels a text, and of numbers, fits the terminal and says no more than is shown."""

import io
import math
import re
from typing import Any

import pytest
from rich.console import Console

from lorafit.cli.render.tasks import print_task_metrics
from lorafit.evidence import ClassScores, Estimate
from lorafit.task_evidence import (
    TaskCheapBaseline,
    TaskComparison,
    TaskConfidence,
    TaskMetricsRecord,
    TaskScores,
    TaskSliceScores,
)


def guess(value: float, width: float = 0.02) -> Estimate:
    return Estimate(value=value, low=value - width, high=value + width)


def build_scores(task: str, level: float, names: list[str]) -> TaskScores:
    if task == "regression":
        return TaskScores(figures={"mae": guess(2 - level), "rmse": guess(3 - level), "r2": guess(level)})
    shares = ("micro_f1", "macro_f1", "exact_match", "hamming_loss")
    figures = {**{name: guess(level) for name in shares}, "log_loss": guess(1 - level)}
    per_class = [
        ClassScores(label=name, precision=guess(level), recall=guess(level), f1=guess(level), support=place)
        for place, name in enumerate(names)
    ]
    return TaskScores(figures=figures, per_class=per_class)


def build_metrics(task: str, *, names: list[str] | None = None, p: float = 0.001, **changes: Any) -> TaskMetricsRecord:
    names = ["sport", "politics"] if names is None else names
    leading, change = ("mae", -0.4) if task == "regression" else ("micro_f1", 0.4)
    paired = TaskComparison(differences={leading: guess(change)}, rows_gained=1200, rows_lost=10, p_value=p)
    values: dict[str, Any] = {
        "task": task,
        "split": "test",
        "rows": 2000,
        "confidence_level": 0.95,
        "bootstrap_samples": 100,
        "baseline": build_scores(task, 0.4, names),
        "finetuned": build_scores(task, 0.8, names),
        "comparison": paired,
    }
    return TaskMetricsRecord(**(values | changes))


def build_slice(column: str, value: str, figures: dict[str, float], change: float | None = None) -> TaskSliceScores:
    return TaskSliceScores(
        column=column,
        value=value,
        rows=1234,
        figures={name: guess(figure) for name, figure in figures.items()},
        differences={} if change is None else {name: guess(change) for name in figures},
        adjusted_p_value=1,
    )


def show(metrics: TaskMetricsRecord, columns: int = 120, *, with_slices: bool = False) -> str:
    console = Console(file=io.StringIO(), width=columns, highlight=False, markup=False)
    print_task_metrics(console, metrics, with_slices=with_slices)
    shown: str = console.file.getvalue()  # type: ignore[attr-defined]
    return shown


def test_figures_labels_and_verdicts_of_several_labels_are_printed() -> None:
    lines = [line.strip() for line in show(build_metrics("multi_label")).splitlines()]
    assert lines[0] == "Measured on 2,000 rows of test (95 % interval in brackets)"
    rows = {re.split(r"\s{2,}", line)[0]: re.split(r"\s{2,}", line)[1:] for line in lines if "  " in line}
    assert rows["F1 (micro)"] == ["40.0 % [38.0, 42.0]", "80.0 % [78.0, 82.0]", "+40.0 % [+38.0, +42.0]"]
    assert rows["log loss"] == ["0.600 [0.580, 0.620]", "0.200 [0.180, 0.220]"]
    assert rows["precision sport"] == ["40.0 % [38.0, 42.0]", "80.0 % [78.0, 82.0]"]
    assert {"exact match", "Hamming loss", "F1 (macro)", "recall politics"} <= set(rows)
    verdict = "Better than before: 1,200 rows with fewer wrong labels, 10 with more (exact sign test, p = 0.001)."
    assert lines[-1] == verdict


def test_numbers_are_printed_in_their_unit() -> None:
    confidence = TaskConfidence(
        calibration_rows=640, figures={"coverage": guess(0.94), "half_width": guess(1.25, 0)}, coverage_asked=0.95
    )
    shown = show(build_metrics("regression", confidence=confidence), 140)
    assert re.search(r"MAE +1\.600 \[1\.580, 1\.620\] +1\.200 \[1\.180, 1\.220\] +-0\.400 \[-0\.420, -0\.380\]", shown)
    assert re.search(r"R² +0\.400 \[", shown)
    assert "Better than before: 1,200 rows nearer to their number, 10 farther (exact sign test, p = 0.001)." in shown
    said = "Intervals of ±1.250 hold the true number in 94.0 % [92.0, 96.0] of rows; asked for: 95 % (from 640 rows)."
    assert said in shown
    assert "are few" not in shown


def test_cheap_baselines_have_verdicts_with_what_they_rest_on() -> None:
    worse = TaskComparison(differences={"mae": guess(0.1)}, rows_gained=10, rows_lost=500, p_value=1e-9)
    cheap = {"ridge": TaskCheapBaseline(scores=build_scores("regression", 0.9, []), comparison=worse)}
    shown = " ".join(show(build_metrics("regression", cheap_baselines=cheap), 200).split())
    assert (
        "Worse than TF-IDF and ridge regression: 10 rows nearer to their number, 500 farther (exact sign test, "
        "p < 0.000001). Its MAE: 1.100 [1.080, 1.120]; difference: +0.100 [+0.080, +0.120]." in shown
    )


@pytest.mark.parametrize(("p", "width"), [(0.2, 0.1), (0.001, 0.5)])
def test_better_is_said_only_where_interval_and_test_agree(p: float, width: float) -> None:
    paired = TaskComparison(differences={"micro_f1": guess(0.4, width)}, rows_gained=9, rows_lost=1, p_value=p)
    assert "\nNot shown to be better than before: " in show(build_metrics("multi_label", comparison=paired))


def test_calibration_is_told() -> None:
    confidence = TaskConfidence(calibration_rows=640, figures={"ece_raw": guess(0.08), "ece": guess(0.02)})
    said = (
        "Probabilities are off by 2.0 % [0.0, 4.0] on average over all decisions (expected calibration error; 8.0 % "
        "before calibration, from 640 rows)."
    )
    assert said in " ".join(show(build_metrics("multi_label", confidence=confidence)).split())


def test_few_rows_and_what_was_not_measured() -> None:
    bare = {"baseline": None, "comparison": None}
    shown = show(build_metrics("multi_label", rows=10, **bare))
    assert "10 rows are few: all of this is uncertain, and the intervals may be too narrow." in shown
    for absent in ("before", "difference", "better", "Probabilities"):
        assert absent not in shown.partition("Measured")[2].lower().replace("before calibration", ""), absent
    shown = show(build_metrics("regression", rows=1, **bare))
    assert shown.startswith("Measured on 1 row of test")
    assert "1 row is little" in shown


@pytest.mark.parametrize("columns", [80, 110])
def test_of_many_labels_those_with_the_most_rows_are_shown(columns: int) -> None:
    names = [f"label-{number}" for number in range(200)]
    shown = show(build_metrics("multi_label", names=names), columns)
    assert max(map(len, shown.splitlines())) <= columns
    assert "Of 200 labels the 20 with the most rows are shown, 180 are not." in " ".join(shown.split())
    assert re.findall(r"recall label-(\d+)", shown) == [str(number) for number in range(199, 179, -1)]
    table = shown.partition("Better than")[0].partition("Of 200")[0]
    assert [line for line in table.splitlines() if line.count("[") != line.count("]")] == []
    assert "are not" not in show(build_metrics("multi_label", names=names[:20]), columns)


def test_names_are_no_markup_and_do_not_steer_the_terminal() -> None:
    names = ["[bold]<script>\x1b]0;evil\nx", "y" * 500]
    shown = show(build_metrics("multi_label", names=names), 160)
    assert "[bold]<script>" in shown
    assert "\x1b" not in shown
    assert "y" * 50 not in shown


@pytest.mark.parametrize("columns", [80, 110])
def test_of_many_slices_the_weakest_are_shown_within_the_terminal(columns: int) -> None:
    values = [
        build_slice("[bold]shop", f"{number} {'x' * 30}\x1b]0;evil", {"micro_f1": number / 60, "exact_match": 0.5}, 0.1)
        for number in range(50, 20, -1)
    ]
    nothing = build_slice("[bold]shop", "undefined", {"micro_f1": math.nan, "exact_match": 1.0}, math.nan)
    short = build_slice("words", "1-15", {"micro_f1": 0.5, "exact_match": 0.4}, 0.1)
    metrics = build_metrics("multi_label", slices=[short, nothing, *values])
    assert "by length of the text" not in show(metrics, columns)
    shown = show(metrics, columns, with_slices=True).partition("F1 (micro) by length of the text and by column")[2]
    assert max(map(len, shown.splitlines())) <= columns
    assert re.search(r"words 1-15 +1,234 +50\.0 % \[48\.0, 52\.0\] +\+10\.0 % \[\+8\.0, \+12\.0\]", shown)
    assert "Of [bold]shop the 12 weakest values are shown, 19 are not." in " ".join(shown.split())
    assert re.findall(r"shop (\d+)", shown) == [str(number) for number in range(21, 33)]
    assert "\x1b" not in shown


def test_the_largest_errors_are_the_weakest_and_what_is_undefined_is_said() -> None:
    slices = [build_slice("shop", str(number), {"mae": float(number)}) for number in range(1, 21)]
    shown = show(build_metrics("regression", slices=slices), with_slices=True)
    assert re.findall(r"shop (\d+)", shown.partition("MAE by length")[2]) == list(map(str, range(20, 8, -1)))
    undefined = [build_slice("shop", "north", {"micro_f1": math.nan, "exact_match": 1.0})]
    shown = show(build_metrics("multi_label", slices=undefined), with_slices=True)
    assert re.search(r"shop north +1,234 +undefined *\n", shown)


def test_intervals_of_large_numbers_stand_below_them() -> None:
    slices = [build_slice("shop", "north", {"mae": 12_345_678.0}, 12_345_678.0)]
    lines = [
        line.split() for line in show(build_metrics("regression", slices=slices), 80, with_slices=True).splitlines()
    ]
    place = lines.index(["shop", "north", "1,234", "12,345,678", "+12,345,678"])
    ends = ["[12,345,678,", "12,345,678]", "[+12,345,678,", "+12,345,678]"]
    assert lines[place + 1] == ends
