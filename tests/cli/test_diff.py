"""What `lorafit diff` prints and ends with."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from lorafit.cli.render.diff import show_diff
from lorafit.experiments.diff.diff import diff
from lorafit.experiments.diff.records import DiffRecord
from lorafit.tasks.base import Task
from lorafit.tasks.registry import TASKS, build_task
from lorafit.tasks.regression import RegressionCalibration

Call = Callable[..., Any]
WriteRun = Callable[..., Path]
ROWS = 120


@pytest.fixture
def write_values(write_run: WriteRun) -> WriteRun:
    """Writes a run of known predictions: name, task, labels of the test rows, values, and what differs."""

    def write(name: str, task: Task, y: NDArray[Any], values: NDArray[Any], **wishes: Any) -> Path:
        alone = {"before": False, "baselines": False, "history": False, "calibration": False}
        return write_run(task, name=name, y=y, after=values, **{**alone, **wishes})

    return write


@pytest.fixture
def single(write_values: WriteRun) -> tuple[Path, Path]:
    """Two runs with one label a text: A is always right, B wrong about the first row."""
    task, y = build_task("single_label", ("neg", "pos")), np.arange(ROWS) % 2
    values = np.eye(2)[y] * 0.8 + 0.1
    worse = values.copy()
    worse[0] = values[0, ::-1]
    return write_values("a", task, y, values), write_values("b", task, y, worse)


@pytest.fixture
def several(write_values: WriteRun) -> tuple[Path, Path]:
    """Two runs with several labels a text: A is always right, B gives the first row one too many."""
    task, y = build_task("multi_label", ("red", "tall")), np.zeros((ROWS, 2), dtype=np.int64)
    y[: ROWS // 2, 0] = y[::3, 1] = 1
    y[0] = (1, 0)
    values = y * 0.8 + 0.1
    worse = values.copy()
    worse[0, 1] = 0.9
    return write_values("a", task, y, values), write_values("b", task, y, worse, texts_per_second=50.0)


@pytest.fixture
def numbers(write_values: WriteRun) -> tuple[Path, Path]:
    """Two runs with a number a text: A is off by 1, B by 1.5; both have intervals of 1.2 about their numbers."""
    task, y = build_task("regression", ("value",)), np.arange(ROWS) / 10
    calibration = RegressionCalibration(rows=50, coverage=0.9, half_width=1.2)
    a, b = (
        write_values(name, task, y, y[:, np.newaxis] + off, calibration=calibration)
        for name, off in (("a", 1.0), ("b", 1.5))
    )
    return a, b


@pytest.fixture
def scores(write_values: WriteRun) -> tuple[Path, Path]:
    """Two runs with a score a text: A is always right, B one off in the first row."""
    task, y = build_task("ordinal", ("1", "2", "3")), np.arange(ROWS) % 3
    return write_values("a", task, y, np.eye(3)[y]), write_values("b", task, y, np.eye(3)[[1, *y[1:]]])


def read_table(out: str) -> dict[str, str]:
    """Lines of the tables by how they begin, the first of each."""
    return {line.strip().split("  ")[0]: line for line in reversed(out.splitlines()) if "  " in line.strip()}


@pytest.mark.parametrize(
    ("runs", "names", "verdict"),
    [
        (
            "single",
            "accuracy, F1 (macro), MCC, log loss, calibration error, F1 neg, F1 pos, label neg, label pos",
            "Neither is shown to be better: 0 rows fixed, 1 broken (exact McNemar test, p = 1).",
        ),
        (
            "several",
            "F1 (micro), F1 (macro), exact match, Hamming loss, log loss, calibration error, F1 red, label tall",
            "Neither is shown to be better: 0 rows with fewer wrong labels, 1 with more (exact sign test, p = 1).",
        ),
        (
            "numbers",
            "MAE, RMSE, R², Pearson's r, coverage, asked for, half-width",
            "B is worse than A: 0 rows nearer to their number, 120 farther (exact sign test, p < 0.000001).",
        ),
        (
            "scores",
            "MAE, weighted kappa, within one, accuracy, log loss, calibration error, F1 1, label 3",
            "Neither is shown to be better: 0 rows nearer to their score, 1 farther (exact sign test, p = 1).",
        ),
    ],
)
def test_tables_show_both_the_difference_and_the_slices(
    call: Call, request: pytest.FixtureRequest, runs: str, names: str, verdict: str
) -> None:
    a, b = request.getfixturevalue(runs)
    answer = call("diff", a, b)
    assert answer.code == 0, answer.err
    lines, table = answer.out.splitlines(), read_table(answer.out)
    assert lines[0].startswith("Measured on 120 rows of ")
    assert lines[0].endswith("(95 % interval in brackets)")
    assert lines[1:3] == [f"A  {a} (lora on m)", f"B  {b} (lora on m)"]
    assert [name for name in [*names.split(", "), "texts/s", "trained", "words 1-15"] if name not in table] == []
    assert verdict in lines
    assert "gate" not in answer.out
    assert "\x1b" not in answer.out + answer.err


def test_labels_that_are_given_too_often_and_flips_are_shown(call: Call, several: tuple[Path, Path]) -> None:
    out = call("diff", *several).out
    table, text = read_table(out), " ".join(out.split())
    assert "99.2 % [" in table["exact match"], "119 of 120"
    assert table["F1 red"].count("100.0 % [") == 2
    assert "98.7 % [" in table["F1 tall"], "39 right, 1 too many"
    assert not table["calibration error"].rstrip().endswith("]"), "a signed number without an interval"
    assert table["texts/s"].rstrip().endswith("2.00 x the time")
    assert "Negative flips: 0.8 % [" in text
    assert "(share of rows that were right and are wrong). Churn: 0.8 % [" in text


def test_intervals_of_numbers_are_shown_with_what_was_asked(call: Call, numbers: tuple[Path, Path]) -> None:
    out = call("diff", *numbers).out
    table = read_table(out)
    assert "1.000 [1.000, 1.000]" in table["MAE"]
    assert "+0.500 [" in table["MAE"]
    assert "100.0 % [" in table["coverage"]
    assert "-100.0 [" in table["coverage"]
    assert table["asked for"].split()[2:] == ["90.0", "%", "90.0", "%"]
    assert table["half-width"].split()[1:] == ["1.200", "1.200", "+0.000"]
    for absent in ("Churn", "calibration error", "Negative flips", "label"):
        assert absent not in out


@pytest.mark.parametrize(
    ("runs", "gate", "code"),
    [
        ("single", "accuracy>=-0.1,negative_flips<=0.1", 0),
        ("single", "accuracy>=-0.002,churn<=0.5", 1),
        ("several", "micro_f1>=-0.01,negative_flips<=0.01,churn<=0.01", 0),
        ("several", "exact_match>=0", 1),
        ("several", "mae<=0.1", 2),
        ("numbers", "mae<=0.51,slowdown<=1", 0),
        ("numbers", "coverage>=-0.1", 1),
        ("numbers", "churn<=0.1", 2),
        ("scores", "mae<=0.01,within_one>=0", 0),
        ("scores", "qwk>=0", 1),
    ],
)
def test_gates_end_with_their_code(call: Call, request: pytest.FixtureRequest, runs: str, gate: str, code: int) -> None:
    answer = call("diff", *request.getfixturevalue(runs), "--gate", gate, "--quiet")
    assert answer.code == code
    assert ("All gates hold." in answer.out) is (code == 0)
    assert ("gates broken" in answer.err) is (code == 1)
    assert ("Allowed: " in answer.err) is (code == 2)


def test_each_gate_is_said_after_the_tables(call: Call, single: tuple[Path, Path]) -> None:
    answer = call("diff", *single, "--gate", "accuracy>=-0.002,churn<=0.5", "--quiet")
    assert answer.err.startswith("1 of 2 gates broken:\n  accuracy>=-0.002: -0.0083333 [")
    assert "churn" not in answer.err
    first, second = answer.out.splitlines()[-2:]
    assert first.startswith("gate accuracy>=-0.002: BROKEN, -0.0083333 [")
    assert second.startswith("gate churn<=0.5: holds, 0.0083333 [")


@pytest.mark.parametrize("gate", ["slowdown<=1", "slowdown<=0.5"])
@pytest.mark.parametrize("task", TASKS)
def test_json_is_the_record_whatever_the_gates_say(call: Call, write_run: WriteRun, task: str, gate: str) -> None:
    run = write_run(task)
    answer = call("diff", run, run, "--gate", gate, "--json", "--quiet")
    record = DiffRecord.model_validate(json.loads(answer.out))
    assert record.task == task
    assert [result.holds for result in record.gates] == [answer.code == 0] == [gate == "slowdown<=1"]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--gate", "acc>=0"], ["--gate cannot limit 'acc'", "accuracy, macro_f1, mcc", "Example: --gate"]),
        (["--gate", "accuracy"], ["--gate takes name operator number", "got 'accuracy'"]),
        (["none.csv"], ["There is no file", "none.csv"]),
        (["--slice", "none"], ["has no column 'none'", "--slice"]),
    ],
)
def test_what_cannot_be_used_ends_with_2(
    call: Call, single: tuple[Path, Path], words: list[str], parts: list[str]
) -> None:
    answer = call("diff", *single, *words)
    assert (answer.code, answer.out) == (2, "")
    assert [part for part in parts if part not in answer.err] == [], answer.err


def test_runs_that_cannot_be_compared_end_with_2(
    call: Call, single: tuple[Path, Path], write_run: WriteRun, tmp_path: Path
) -> None:
    assert call("diff", single[0], tmp_path / "none").code == 2
    other = write_run("multi_label", name="several")
    answer = call("diff", single[0], other)
    assert answer.code == 2
    assert f"{single[0]} has single_label, {other} has multi_label" in answer.err
    answer = call("diff", single[0], write_run(name="shorter", rows=20))
    assert answer.code == 2
    assert "lorafit diff A B DATA" in answer.err


def test_names_of_labels_do_not_steer_the_terminal(call: Call, write_values: WriteRun) -> None:
    task, y = build_task("multi_label", ("\x1b]0;evil", "[bold]x")), np.array([[1, 0], [0, 1]] * 5)
    run = write_values("run", task, y, y * 0.8 + 0.1)
    answer = call("diff", run, run)
    assert answer.code == 0
    assert "\x1b" not in answer.out
    assert "label [bold]x" in answer.out


def show(a: Path, b: Path, *, columns: int) -> str:
    console = Console(file=io.StringIO(), width=columns, highlight=False, markup=False)
    show_diff(diff(a, b), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("columns", [80, 110])
@pytest.mark.parametrize("kind", [*TASKS, "salaries"])
def test_tables_fit_the_terminal_and_cut_nothing(write_values: WriteRun, kind: str, columns: int) -> None:
    """Two runs, the second worse, with slices by length and by a column with long values."""
    name, scale = ("regression", 60000) if kind == "salaries" else (kind, 1)
    labels = {"single_label": ("good", "very bad"), "multi_label": ("good", "very bad"), "ordinal": ("1", "2", "3")}
    rng, options = np.random.default_rng(0), {}
    task = build_task(name, labels.get(name, ("value",)))
    if name == "regression":
        y = scale * (1.0 + np.arange(ROWS))
        values = [(y + scale * noise * rng.normal(size=ROWS))[:, np.newaxis] for noise in (1.2, 1.9)]
        options["calibration"] = RegressionCalibration(rows=50, coverage=0.9, half_width=2.0 * scale)
    else:
        y = np.arange(ROWS) % len(task.label_names)
        right = np.eye(len(task.label_names))
        values = [right[np.where(rng.random(ROWS) < share, (y + 1) % len(right), y)] for share in (0.05, 0.4)]
        y = right[y].astype(np.int64) if name == "multi_label" else y
    departments = [("public works", "health and human services")[row // 20 % 2] for row in range(ROWS)]
    options |= {"columns": {"department": departments}, "texts": lambda row, _: f"{'word ' * (row % 3 * 10)}text {row}"}
    shown = show(
        *(write_values(run, task, y, one, **options) for run, one in zip("ab", values, strict=True)), columns=columns
    )
    lines = [line for line in shown.splitlines() if not line.startswith(("Measured", "A  ", "B  "))]
    assert max(map(len, lines)) <= columns
    assert "…" not in shown
    for line in lines:
        assert line.count("[") == line.count("]"), f"broken inside an interval: {line!r}"
    words = " ".join(shown.split())
    assert "department public" in words, "no names of less than a word"
    for part in ("services", "words 1-15", "p adjusted", "fixed", "broken", "trained"):
        assert part in words


def test_of_many_labels_those_with_most_rows_are_shown(write_values: WriteRun) -> None:
    task = build_task("multi_label", tuple(f"label {place}" for place in range(25)))
    y = (np.arange(60)[:, np.newaxis] % np.arange(2, 27) == 0).astype(np.int64)
    run = write_values("run", task, y, y * 0.8 + 0.1)
    shown = show(run, run, columns=110)
    assert "F1 label 0 " in shown
    assert "F1 label 24" not in shown
    assert "Of 25 labels the 20 with the most rows are shown, 5 are not." in shown
    assert "more slices, whose p-values are not lower, are in --json." in shown


def test_other_data_with_other_columns_are_predicted(call: Call, trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "more.tsv"
    rows = "superb lovely film\tpos\ta\ndull boring story\tneg\tb\n"
    path.write_text(f"review\tmood\tkind\n{rows * 5}\tpos\ta\n")
    words = ["--text-column", "review", "--label-column", "mood", "--slice", "kind", "--bad-rows", "drop", "--json"]
    answer = call("diff", trained, trained, path, *words)
    assert answer.code == 0, answer.err
    record = DiffRecord.model_validate(json.loads(answer.out))
    assert (record.rows, record.diff_metrics["churn"].value) == (10, 0)
    assert {one.column for one in record.slices} == {"label", "words", "kind"}
    assert "measuring A: 10 texts" in answer.err
