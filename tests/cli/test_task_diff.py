"""What `lorafit diff` prints and ends with where a text has several labels, or a number."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from lorafit.cli.render.diff import show_diff
from lorafit.config import load_config
from lorafit.data.sources import load_splits
from lorafit.experiments.diff.diff import diff
from lorafit.experiments.diff.records import TaskDiffRecord
from lorafit.labels import LabelSet, Task

Call = Callable[..., Any]
ROWS = 120


@pytest.fixture
def several(write_values: Callable[..., Path]) -> tuple[Path, Path]:
    """Two runs with several labels a text: B gives the first text one too many, A is always right."""
    labels, truth = LabelSet(("red", "tall"), "multi_label"), np.zeros((ROWS, 2), dtype=np.int64)
    truth[: ROWS // 2, 0] = truth[::3, 1] = 1
    truth[0] = (1, 0)
    said = truth * 0.8 + 0.1
    worse = said.copy()
    worse[0, 1] = 0.9
    return write_values("a", labels, truth, said), write_values("b", labels, truth, worse, texts_per_second=50.0)


@pytest.fixture
def numbers(write_values: Callable[..., Path]) -> tuple[Path, Path]:
    """Two runs with a number a text: A is off by 1, B by 1.5; both have intervals of 1.2 about their numbers."""
    labels, truth = LabelSet(("value",), "regression"), np.arange(ROWS) / 10
    paths = [
        write_values(name, labels, truth, truth[:, np.newaxis] + off, half_width=1.2)
        for name, off in (("a", 1.0), ("b", 1.5))
    ]
    return paths[0], paths[1]


def read_table(out: str) -> dict[str, str]:
    """Lines of the tables by how they begin."""
    return {line.strip().split("  ")[0]: line for line in out.splitlines() if "  " in line.strip()}


def test_tables_show_several_labels(call: Call, several: tuple[Path, Path]) -> None:
    answer = call("diff", *several)
    assert answer.code == 0, answer.err
    lines, table = answer.out.splitlines(), read_table(answer.out)
    assert lines[0].startswith("Measured on 120 rows of ")
    assert lines[1].startswith(f"A  {several[0]} (lora on m)")
    names = ["F1 (micro)", "F1 (macro)", "exact match", "Hamming loss", "log loss", "ECE", "texts/s", "trained"]
    assert [name for name in [*names, "label red", "label tall"] if name not in table] == []
    assert "99.2 % [" in table["exact match"], "119 of 120"
    assert not table["ECE"].rstrip().endswith("]"), "a signed number without an interval"
    assert table["texts/s"].rstrip().endswith("2.00 x the time")
    assert (
        "Neither is shown to be better: 0 rows with fewer wrong labels, 1 with more (exact sign test, p = 1)." in lines
    )
    said = " ".join(answer.out.split())
    assert "B no longer gives exactly their labels to 0.8 % [" in said
    assert "and gives other labels to 0.8 % [" in said
    assert table["F1 red"].split()[2:] == ["100.0", "%", "[100.0,", "100.0]", "100.0", "%", "[100.0,", "100.0]"]
    assert "98.7 % [" in table["F1 tall"], "what is given too often shows, too: 39 right, 1 too many"
    assert "cannot be read as it was" in answer.out
    assert "\x1b" not in answer.out + answer.err


def test_tables_show_numbers(call: Call, numbers: tuple[Path, Path]) -> None:
    answer = call("diff", *numbers)
    assert answer.code == 0, answer.err
    table = read_table(answer.out)
    assert [name for name in ("MAE", "RMSE", "R²", "Pearson's r", "coverage", "intervals") if name not in table] == []
    assert "1.000 [1.000, 1.000]" in table["MAE"]
    assert table["MAE"].rstrip().endswith("+0.500 [+0.500, +0.500]")
    assert "100.0 % [" in table["coverage"]
    assert table["coverage"].rstrip().endswith("-100.0 [-100.0, -100.0]")
    assert table["asked for"].split()[2:] == ["90", "%", "90", "%"]
    assert table["intervals"].split()[1:] == ["±1.200", "±1.200", "+0.000"]
    worse = "B is worse than A: 0 rows nearer to their number, 120 farther (exact sign test, p < 0.000001)."
    assert worse in answer.out
    for absent in ("churn", "ECE", "negative flips", "p adjusted"):
        assert absent not in answer.out


@pytest.mark.parametrize(
    ("task", "gate", "code"),
    [
        ("several", "micro_f1>=-0.01,negative_flips<=0.01,churn<=0.01", 0),
        ("several", "micro_f1>=-0.002,negative_flips<=0.01", 1),
        ("several", "exact_match>=0", 1),
        ("numbers", "mae<=0.51,slowdown<=1", 0),
        ("numbers", "mae<=0.4", 1),
        ("numbers", "coverage>=-0.1", 1),
        ("numbers", "churn<=0.1", 2),
        ("several", "mae<=0.1", 2),
    ],
)
def test_gates_end_with_their_code(call: Call, request: pytest.FixtureRequest, task: str, gate: str, code: int) -> None:
    answer = call("diff", *request.getfixturevalue(task), "--gate", gate, "--quiet")
    assert answer.code == code
    assert ("All gates hold." in answer.out) is (code == 0)
    assert ("gates broken" in answer.err) is (code == 1)
    assert ("Allowed: " in answer.err) is (code == 2)


@pytest.mark.parametrize("task", ["several", "numbers"])
def test_json_is_the_record(call: Call, request: pytest.FixtureRequest, task: str) -> None:
    answer = call("diff", *request.getfixturevalue(task), "--json", "--quiet")
    record = TaskDiffRecord.model_validate(json.loads(answer.out))
    assert answer.code == 0
    assert record.task == {"several": "multi_label", "numbers": "regression"}[task]
    assert record.comparison.rows_lost == {"several": 1, "numbers": ROWS}[task]


def test_runs_of_different_tasks_end_with_2(call: Call, write_values: Callable[..., Path]) -> None:
    truth = np.array([[1, 0], [0, 1]])
    single = write_values("single", LabelSet(("red", "tall")), truth.argmax(axis=1), truth * 1.0)
    several = write_values("several", LabelSet(("red", "tall"), "multi_label"), truth, truth * 1.0)
    answer = call("diff", single, several)
    assert answer.code == 2
    assert f"{single} has single_label, {several} has multi_label" in answer.err


def test_names_of_labels_do_not_steer_the_terminal(call: Call, write_values: Callable[..., Path]) -> None:
    labels, truth = LabelSet(("\x1b]0;evil", "[bold]x"), "multi_label"), np.array([[1, 0], [0, 1]] * 5)
    run = write_values("run", labels, truth, truth * 0.8 + 0.1)
    answer = call("diff", run, run)
    assert answer.code == 0
    assert "\x1b" not in answer.out
    assert "label [bold]x" in answer.out


def show(*told: Any, columns: int) -> str:
    console = Console(file=io.StringIO(), width=columns, highlight=False, markup=False)
    show_diff(diff(*told), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture(params=["single_label", "multi_label", "regression", "salaries"])
def sliced(write_values: Callable[..., Path], tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """Two runs of a task, the second worse, with slices by length and by a column with long values."""
    task: Task = request.param if request.param != "salaries" else "regression"
    scale = 60000 if request.param == "salaries" else 1
    for name in ("train", "test"):
        lines = ["text,label,department"]
        for row in range(ROWS):
            label = scale * (row + 1) if task == "regression" else ("good", "very bad")[row % 2]
            kind = ("public works", "health and human services")[row // 20 % 2]
            lines.append(f"{'word ' * (row % 3 * 10)}{name} {row},{label},{kind}")
        (tmp_path / f"{name}.csv").write_text("\n".join(lines), encoding="utf-8")
    flags = {
        "data.source": str(tmp_path / "train.csv"),
        "data.test": str(tmp_path / "test.csv"),
        "data.task": task,
        "data.slice_columns": ["department"],
    }
    splits = load_splits(load_config(flags=flags).data)
    rows, labels, rng = splits.test, splits.labels, np.random.default_rng(0)
    if task == "regression":
        values = [(rows.labels + scale * noise * rng.normal(size=ROWS))[:, np.newaxis] for noise in (1.2, 1.9)]
    else:
        said = np.eye(2)[rows.labels] if task == "single_label" else rows.labels
        flipped = [rng.random(ROWS) < share for share in (0.05, 0.4)]
        values = [np.where(wrong[:, np.newaxis], 1 - said, said) * 0.8 + 0.1 for wrong in flipped]
    wishes: dict[str, Any] = {"rows": rows, "fingerprint": rows.fingerprint(), "flags": flags}
    if task == "regression":
        wishes["half_width"] = 2.0 * scale
    a, b = (write_values(name, labels, rows.labels, one, **wishes) for name, one in zip("ab", values, strict=True))
    return a, b


@pytest.mark.parametrize("columns", [80, 110])
def test_tables_fit_the_terminal_and_cut_nothing(sliced: tuple[Path, Path], columns: int) -> None:
    shown = show(*sliced, columns=columns)
    lines = [line for line in shown.splitlines() if not line.startswith(("Measured", "A  ", "B  "))]
    assert max(map(len, lines)) <= columns
    assert "…" not in shown
    for line in lines:
        assert line.count("[") == line.count("]"), f"broken inside an interval: {line!r}"
    words = " ".join(shown.split())
    assert "department public" in words, "no names of less than a word"
    for part in ("services", "words 1-15", "p adjusted", "better", "worse", "trained"):
        assert part in words


def test_of_many_labels_those_with_most_rows_are_shown(write_values: Callable[..., Path]) -> None:
    labels = LabelSet(tuple(f"label {place}" for place in range(25)), "multi_label")
    truth = (np.arange(ROWS)[:, np.newaxis] % 30 <= np.arange(25)).astype(np.int64)
    run = write_values("run", labels, truth, truth * 0.8 + 0.1)
    shown = show(run, run, columns=110)
    assert [f"F1 label {place}" for place in range(25) if f"F1 label {place} " in shown] == [
        f"F1 label {place}" for place in range(5, 25)
    ]
    assert "Of 25 labels the 20 with the most rows are shown, 5 are not." in shown
