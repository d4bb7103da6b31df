import itertools
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from lorafit.config import load_config
from lorafit.data.rows import Split
from lorafit.data.writing import write_table
from lorafit.errors import RunError, UserInputError
from lorafit.evidence import ClassScores, Estimate
from lorafit.labels import LabelSet
from lorafit.metrics.multi_label import score_multi_label
from lorafit.metrics.regression import score_regression
from lorafit.reports.page import write_report
from lorafit.reports.task_page import write_task_report
from lorafit.reports.task_plots import plot_labels, plot_numbers, plot_task_slices
from lorafit.reports.training_plots import plot_learning, plot_loss
from lorafit.reports.verdict import describe_task_verdict
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import DataRecord, RunRecord, SplitRecord
from lorafit.task_evidence import (
    TaskCheapBaseline,
    TaskComparison,
    TaskConfidence,
    TaskMetricsRecord,
    TaskScores,
    TaskSliceScores,
)
from lorafit.training.evaluation import write_predictions

BuildRun = Callable[..., Path]
TakeApart = Callable[[str], Any]
ATTACK = "</title><img src=x onerror=\"alert('1')\">"
SCRIPT = '"><script>alert(2)</script></svg></style></main><!-- ]]> $x$ \N{RIGHT-TO-LEFT OVERRIDE}'
LABELS = ["sport", "politics", "health"]


def guess(value: float, width: float = 0.02) -> Estimate:
    return Estimate(value=value, low=value - width, high=value + width)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def build_scores(names: list[str], level: float, error: float | None = None) -> TaskScores:
    """Build scores of several labels, or of numbers where there is an error."""
    if error is not None:
        figures = {"mae": guess(error), "rmse": guess(1.3 * error), "r2": guess(level), "pearson": guess(level)}
        return TaskScores(figures=figures)
    shares = {name: guess(level) for name in ("micro_f1", "macro_f1", "exact_match")}
    figures = {**shares, "hamming_loss": guess(0.1), "log_loss": guess(1 - level)}
    per_class = [
        ClassScores(
            label=name, precision=guess(level), recall=guess(level), f1=guess(level - 0.001 * place), support=place
        )
        for place, name in enumerate(names)
    ]
    return TaskScores(figures=figures, per_class=per_class)


def compare(after: TaskScores, before: TaskScores, *, p: float = 0.001) -> TaskComparison:
    differences = {name: guess(after.figures[name].value - before.figures[name].value) for name in after.figures}
    return TaskComparison(differences=differences, rows_gained=120, rows_lost=10, p_value=p)


def build_metrics(
    names: list[str], rows: int, error: float | None = None, *, bare: bool = False, **changes: Any
) -> TaskMetricsRecord:
    before = build_scores(names, 0.3, None if error is None else error + 0.5)
    cheap = build_scores(names, 0.7, None if error is None else error + 0.1)
    after = build_scores(names, 0.8, error)
    if error is None:
        confidence = TaskConfidence(calibration_rows=64, figures={"ece_raw": guess(0.09), "ece": guess(0.03)})
    else:
        figures = {"coverage": guess(0.94), "half_width": guess(3 * error, 0)}
        confidence = TaskConfidence(calibration_rows=64, figures=figures, coverage_asked=0.95)
    one = TaskCheapBaseline(scores=cheap, comparison=compare(after, cheap))
    values: dict[str, Any] = {
        "task": "multi_label" if error is None else "regression",
        "split": "test",
        "rows": rows,
        "confidence_level": 0.95,
        "bootstrap_samples": 100,
        "baseline": None if bare else before,
        "finetuned": after,
        "comparison": None if bare else compare(after, before),
        "cheap_baselines": {} if bare else {"nb_svm" if error is None else "ridge": one},
        "confidence": None if bare else confidence,
    }
    return TaskMetricsRecord(**(values | changes))


def mark_decisions(rows: int, labels: int) -> NDArray[np.bool_]:
    """Mark the first ten of every twenty decisions as true."""
    return (np.arange(rows * labels) % 20 < 10).reshape(rows, labels)


def say_labels(rows: int, labels: int) -> list[NDArray[np.float64]]:
    """Build probabilities with an F1 (micro) of 30 % and of 80 % over every twenty of `mark_decisions`."""
    turn = (np.arange(rows * labels) % 20).reshape(rows, labels)
    return [np.where((turn < right) | (turn >= 10 + right), 0.9, 0.1) for right in (3, 8)]


def measure(scores: TaskScores, labels: NDArray[Any], said: NDArray[np.float64]) -> TaskScores:
    """Put in the figures that predictions must give again."""
    real = score_regression(labels, said[:, 0]) if "mae" in scores.figures else score_multi_label(labels, said)
    held = {name: guess(real[name]) for name in ("mae", "micro_f1", "log_loss") if name in real}
    return scores.model_copy(update={"figures": scores.figures | held})


def build_slice(column: str, value: str, figures: dict[str, float], change: float | None = None) -> TaskSliceScores:
    return TaskSliceScores(
        column=column,
        value=value,
        rows=1234,
        figures={name: guess(figure) for name, figure in figures.items()},
        differences={} if change is None else {name: guess(change) for name in figures},
        adjusted_p_value=1,
    )


def add_slices(run: Path, *slices: TaskSliceScores) -> None:
    layout = RunLayout(run)
    TaskMetricsRecord.read(layout.metrics).model_copy(update={"slices": list(slices)}).write(layout.metrics)


@pytest.fixture
def build_task_run(run_record: RunRecord, tmp_path: Path) -> BuildRun:
    """Builds the folder of a finished run of several labels, or of numbers where `numbers` is true."""

    def build(
        *,
        names: list[str] | None = None,
        rows: int = 400,
        numbers: bool = False,
        truth: Callable[[int], float] | None = None,
        bare: bool = False,
    ) -> Path:
        names = ["value"] if numbers else LABELS if names is None else names
        layout = RunLayout(tmp_path / "run")
        layout.root.mkdir()
        task: Literal["multi_label", "regression"] = "regression" if numbers else "multi_label"
        layout.config.write_text(load_config(flags={"data.source": "/data/mails.csv"}).to_yaml(), encoding="utf-8")
        error: float | None = None
        before, after = say_labels(rows, len(names))
        labels: NDArray[Any] = mark_decisions(rows, len(names)).astype(np.int64)
        if numbers:
            rng = np.random.default_rng(0)
            labels = np.array([truth(row) for row in range(rows)]) if truth else rng.normal(3, 1, size=rows)
            after = (labels + rng.normal(0, 0.5, size=rows))[:, np.newaxis]
            error = float(np.abs(after[:, 0] - labels).mean())
            before = labels[:, np.newaxis] + error + 0.5
        metrics = build_metrics(names, rows, error, bare=bare)
        split = Split(np.arange(1, rows + 1), ("a text",) * rows, labels)
        for model, said in {"finetuned": after, **({} if bare else {"baseline": before})}.items():
            write_predictions(layout.predictions("test", model), split, LabelSet(tuple(names), task), said)
            scores = measure(getattr(metrics, model), labels, said)
            metrics = metrics.model_copy(update={model: scores})
        metrics.write(layout.metrics)
        if not bare:
            score = "eval_mae" if numbers else "eval_micro_f1"
            lines: list[dict[str, float]] = [
                {"step": step, "loss": 1 / step, "learning_rate": 1e-3 / step} for step in range(10, 200, 10)
            ]
            lines += [
                {"step": 100 * n, "eval_loss": 0.5 / n, "eval_calibrated_loss": 0.5 / n, score: 0.4 * n} for n in (1, 2)
            ]
            layout.history.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        counts = {} if numbers else dict.fromkeys(names, 7)
        split = SplitRecord(rows=rows, label_counts=counts, fingerprint="f", tokens=10 * rows, truncated=1)
        data = DataRecord(source="/data/mails.csv", splits={"train": split, "test": split})
        changes = {"task": task, "labels": names, "data": data, "seconds": {"training": 12.0}}
        run_record.model_copy(update=changes).write(layout.record)
        return layout.root

    return build


def test_report_of_several_labels_opens_with_the_verdict_and_holds_every_part(
    build_task_run: BuildRun, take_apart: TakeApart
) -> None:
    run = build_task_run()
    path = write_report(run)
    assert path == RunLayout(run).report
    page = read(path)
    assert "<h1>mails.csv: LoRA on m</h1>\n" in page
    assert (
        '</h1>\n<p class="lead">Better than before: it reaches an F1 (micro) of 80.0 % on 400 test rows, 50.0 points '
        "[48.0, 52.0] more, and is better than NB-SVM (+10.0 points [+8.0, +12.0]).</p>" in page
    )
    parts = take_apart(page)
    assert parts.open == []
    links = [attributes["href"] for attributes in parts.named("a")]
    assert links == [
        "#before-and-after", "#sample-predictions", "#labels", "#training", "#confidence", "#most-confident-mistakes",
        "#data", "#method-and-settings", "#cost", "#how-to-reproduce",
    ]  # fmt: skip
    ids = [attributes["id"] for _, attributes in parts.elements if "id" in attributes]
    assert len(ids) == len(set(ids)), "every id stands for one element"
    assert "<td>80.0 % [78.0, 82.0]</td>" in page
    assert "off by 3.0 % [1.0, 5.0] on average, and by 9.0 % [7.0, 11.0] as the model gives them" in parts.text
    assert "No test row has the label sport: how well it is found is not known." in parts.text
    assert "validation F1 (micro)" in parts.text
    assert "lorafit reproduce" not in parts.text, "that command knows no such run"
    assert "lorafit evaluate run" in parts.text


def test_report_of_numbers_shows_what_was_predicted(build_task_run: BuildRun, take_apart: TakeApart) -> None:
    page = read(write_report(build_task_run(numbers=True)))
    parts = take_apart(page)
    assert parts.open == []
    assert 'class="lead">Better than before: on 400 test rows it is off by 0.4' in page
    assert "on average, 0.500 [0.480, 0.520] less, and is better than TF-IDF and ridge regression (-0.100 [" in page
    assert [attributes["id"] for attributes in parts.named("section")] == [
        "before-and-after", "sample-predictions", "training", "predictions", "confidence", "largest-errors", "data",
        "method-and-settings", "cost", "how-to-reproduce",
    ]  # fmt: skip
    labels = [attributes["aria-label"] for attributes in parts.named("svg")]
    assert [label for label in labels if label.startswith("Predicted over true numbers of 400 rows: the true ones ")]
    assert "hold it for 94.0 % [92.0, 96.0], which agrees with what was asked for." in parts.text
    assert "Rows of each label" not in parts.text
    assert "rows nearer" in parts.text
    assert "of 400 rows are drawn" not in parts.text
    for name in ("MAE", "RMSE", "R²", "Pearson's r", "validation MAE", "p (sign test)"):
        assert name in parts.text


@pytest.mark.parametrize("numbers", [False, True])
def test_every_figure_has_words_and_a_table(build_task_run: BuildRun, take_apart: TakeApart, *, numbers: bool) -> None:
    parts = take_apart(read(write_report(build_task_run(numbers=numbers))))
    figures = parts.named("svg")
    assert len(figures) == len(parts.named("figure")) == 3
    assert [figure for figure in figures if figure["role"] != "img" or not figure["aria-label"]] == []
    assert parts.text.count("The figure as a table") == 3
    regions = [attributes for attributes in parts.named("div") if attributes.get("role") == "region"]
    assert len(regions) == len(parts.named("table"))
    levels = [int(tag[1]) for tag, _ in parts.elements if tag in {"h1", "h2", "h3"}]
    assert levels[0] == 1
    assert [pair for pair in itertools.pairwise(levels) if pair[1] > pair[0] + 1] == []


def test_nothing_from_outside_becomes_an_element(build_task_run: BuildRun, take_apart: TakeApart) -> None:
    run = build_task_run(names=[ATTACK, SCRIPT, "<script>alert(3)</script>", "a'b\"c&amp;d"])
    layout = RunLayout(run)
    record = RunRecord.read(layout.record)
    data = record.data.model_copy(update={"source": f"/data/{ATTACK}.csv", "notes": [SCRIPT, ATTACK]})
    record.model_copy(update={"data": data, "versions": {ATTACK: SCRIPT}}).write(layout.record)
    page = read(write_report(run))
    parts = take_apart(page)
    assert parts.named("script", "img", "iframe", "image", "foreignobject", "object", "embed") == []
    attributes = [pair for _, found in parts.elements for pair in found.items()]
    assert [name for name, _ in attributes if name.startswith("on") or name in {"src", "xlink:href"}] == []
    assert (len(parts.named("title")), len(parts.named("style")), len(parts.named("main"))) == (1, 1, 1)
    assert "<script>alert(3)</script>" in parts.text
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in page
    assert parts.open == []


@pytest.mark.parametrize(
    "wishes",
    [
        {"rows": 10},
        {"rows": 10, "bare": True},
        {"rows": 10, "numbers": True, "bare": True},
        {"rows": 1, "numbers": True},
        {"rows": 20, "numbers": True, "truth": lambda _: 0.0},
        {"rows": 20, "numbers": True, "truth": lambda row: 1e9 * row},
        {"rows": 20, "numbers": True, "truth": lambda _: -1e6},
        {"names": ["1", "2", "中文", "🎬", "e\u0301", "$\\frac{1}{2}$", "_hidden", "x" * 500]},
    ],
)
def test_unusual_runs_give_a_page(build_task_run: BuildRun, take_apart: TakeApart, wishes: dict[str, Any]) -> None:
    page = read(write_report(build_task_run(**wishes)))
    assert take_apart(page).open == []
    assert ">nan" not in page
    assert ("rows, so the intervals are wide" in page) == (wishes.get("rows", 400) in {10, 20})
    assert ("This is only 1 row" in page) == (wishes.get("rows") == 1)
    if wishes.get("bare"):
        assert "the model before training was not measured.</p>" in page
        assert "This run was not calibrated" in page


def test_two_hundred_labels_stay_readable(build_task_run: BuildRun, take_apart: TakeApart) -> None:
    path = write_report(build_task_run(names=[f"label {number}" for number in range(200)]))
    parts = take_apart(read(path))
    assert "Scores of each label after training (200)" in parts.text
    assert "Of 199 labels with rows, the 30 with the most rows are drawn." in parts.text
    assert path.stat().st_size < 300_000


def test_many_rows_give_a_small_file_soon(build_task_run: BuildRun, tmp_path: Path) -> None:
    run = build_task_run(numbers=True, rows=50_000)
    began = time.process_time()
    path = write_report(run, plots=tmp_path / "plots")
    assert time.process_time() - began < 10
    assert path.stat().st_size < 600_000
    page = read(path)
    assert "2,000 of 50,000 rows are drawn, chosen at random." in page
    assert {place.name for place in (tmp_path / "plots").iterdir()} == {
        f"{name}.{form}" for name in ("loss", "learning", "predicted") for form in ("png", "svg")
    }
    assert read(write_report(run)) == page, "the same run gives the same page"


def test_a_run_that_is_unfinished_or_of_one_label_is_refused(build_task_run: BuildRun, tmp_path: Path) -> None:
    layout = RunLayout(build_task_run())
    record = RunRecord.read(layout.record)
    record.model_copy(update={"status": "interrupted"}).write(layout.record)
    for write in (write_report, write_task_report):
        with pytest.raises(RunError, match="is not a finished run: its status is 'interrupted'"):
            write(layout.root)
    record.model_copy(update={"task": "single_label"}).write(layout.record)
    with pytest.raises(RunError, match="was altered: it does not hold the figures of a run with the task single_label"):
        write_task_report(layout.root)
    with pytest.raises(RunError, match="is damaged"):
        write_report(layout.root)
    with pytest.raises(RunError, match="is missing"):
        write_task_report(tmp_path / "none")
    record.write(layout.record)
    with pytest.raises(UserInputError, match="is a folder; --output takes a file"):
        write_report(layout.root, output=tmp_path)


def test_figures_that_a_verdict_needs_must_be_there(build_task_run: BuildRun) -> None:
    layout = RunLayout(build_task_run())
    metrics = TaskMetricsRecord.read(layout.metrics)
    empty = TaskComparison(differences={}, rows_gained=1, rows_lost=1, p_value=1)
    metrics.model_copy(update={"comparison": empty}).write(layout.metrics)
    with pytest.raises(RunError, match="was altered"):
        write_task_report(layout.root)


@pytest.mark.parametrize("numbers", [False, True])
def test_slices_have_a_figure_a_column_with_a_table(
    build_task_run: BuildRun, take_apart: TakeApart, *, numbers: bool
) -> None:
    run = build_task_run(numbers=numbers)
    assert "Length and slices" not in read(write_report(run))
    known, unknown = ({"mae": 0.75}, {"mae": math.nan})
    if not numbers:
        known, unknown = ({"micro_f1": 0.75, "exact_match": 0.5}, {"micro_f1": math.nan, "exact_match": 1.0})
    add_slices(
        run,
        build_slice("words", "1-15", known, 0.1),
        build_slice(SCRIPT, ATTACK, known, 0.1),
        build_slice(SCRIPT, "nothing", unknown, math.nan),
    )
    page = read(write_report(run))
    parts = take_apart(page)
    assert parts.open == []
    assert parts.named("script", "img") == []
    assert "length-and-slices" in [attributes["id"] for attributes in parts.named("section")]
    assert "By number of words" in parts.text
    assert len(parts.named("figure")) == 5
    figure = "0.750 [0.730, 0.770]" if numbers else "75.0 % [73.0, 77.0]"
    assert f"<td>1,234</td><td>{figure}</td>" in page
    assert f"<td>{'+0.100 [+0.080, +0.120]' if numbers else '+10.0 [+8.0, +12.0]'}</td>" in page
    assert "<td>undefined</td>" in page
    assert "nan" not in re.sub(r"\W", " ", parts.text).split()


def test_slices_without_the_leading_figure_are_refused(build_task_run: BuildRun) -> None:
    run = build_task_run()
    add_slices(run, build_slice("words", "1-15", {"exact_match": 0.5}))
    with pytest.raises(RunError, match="was altered"):
        write_task_report(run)


@pytest.mark.parametrize("change", ["values", "rows", "columns", "texts", "nan", "none"])
def test_predictions_that_were_altered_are_refused(build_task_run: BuildRun, change: str) -> None:
    layout = RunLayout(build_task_run(numbers=True, rows=20))
    path = layout.predictions("test", "finetuned")
    true, said = [0.0] * 20, [float(row) for row in range(20)]
    columns: dict[str, dict[str, Any]] = {
        "values": {"row_id": [1] * 20, "true_value": true, "value": said},
        "rows": {"row_id": [1], "true_value": [0.0], "value": [0.0]},
        "columns": {"row_id": [1] * 20, "value": said},
        "texts": {"row_id": [1] * 20, "true_value": true, "value": ["x"] * 20},
        "nan": {"row_id": [1] * 20, "true_value": true, "value": [math.nan] * 20},
    }
    if change == "none":
        path.unlink()
    else:
        write_table(path, columns[change])
    with pytest.raises(RunError, match=r"was altered|cannot be read"):
        write_task_report(layout.root)


def test_no_model_library_is_imported(build_task_run: BuildRun) -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'transformers', 'peft', 'sklearn')));"
        "from lorafit.reports.page import write_report; write_report(sys.argv[1])"
    )
    run = build_task_run(numbers=True)
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(run)], capture_output=True, text=True, check=False
    )
    assert (answer.returncode, answer.stderr) == (0, "")


def test_verdict_says_what_is_not_shown_and_what_is_worse() -> None:
    metrics = build_metrics(LABELS, 1000)
    small = TaskComparison(differences={"micro_f1": guess(0.01)}, rows_gained=9, rows_lost=8, p_value=0.5)
    assert describe_task_verdict(metrics.model_copy(update={"comparison": small})) == (
        "Not shown to be better than before: it reaches an F1 (micro) of 80.0 % on 1,000 test rows, a change of +1.0 "
        "points [-1.0, +3.0], but is better than NB-SVM (+10.0 points [+8.0, +12.0])."
    )
    worse = TaskComparison(differences={"mae": guess(0.2)}, rows_gained=9, rows_lost=80, p_value=0.001)
    numbers = build_metrics(["value"], 1000, 1.0, comparison=worse, cheap_baselines={})
    assert describe_task_verdict(numbers) == (
        "Worse than before: on 1,000 test rows it is off by 1.000 on average, 0.200 [0.180, 0.220] more."
    )
    alone = build_metrics(["value"], 1, 1.0, bare=True)
    assert describe_task_verdict(alone) == (
        "On 1 test row it is off by 1.000 on average; the model before training was not measured."
    )


@pytest.mark.usefixtures("house_style")
class TestPlots:
    def test_numbers_lie_about_the_diagonal_between_the_ends_of_their_intervals(self) -> None:
        true, predicted = np.array([0.0, 1.0, 2.0]), np.array([0.5, 1.0, 1.0])
        plot = plot_numbers(true, predicted, 0.25, seed=0)
        points, diagonal, lower, upper = plot.figure.axes[0].lines
        assert points.get_xdata().tolist() == [0.0, 1.0, 2.0]
        assert points.get_ydata().tolist() == [0.5, 1.0, 1.0]
        assert diagonal.get_xdata().tolist() == diagonal.get_ydata().tolist()
        assert (lower.get_ydata() - diagonal.get_ydata()).tolist() == pytest.approx([-0.25, -0.25])
        assert (upper.get_ydata() - diagonal.get_ydata()).tolist() == pytest.approx([0.25, 0.25])
        assert plot.rows[0] == ["0%", "0.000", "0.500", "0.000"]
        assert plot.rows[3] == ["50%", "1.000", "1.000", "0.500"]
        assert plot.label.endswith("from 0.500 to 1.000; half of the rows are off by at most 0.500.")

    @pytest.mark.parametrize("width", [None, math.inf])
    def test_without_intervals_there_are_no_dashes(self, width: float | None) -> None:
        plot = plot_numbers(np.arange(3.0), np.ones(3), width, seed=0)
        assert len(plot.figure.axes[0].lines) == 2
        assert "dashed" not in plot.caption

    def test_of_many_rows_the_same_ones_are_drawn_each_time(self) -> None:
        numbers = np.arange(5000.0)
        first, second, other = (
            plot_numbers(numbers, numbers, None, seed=seed).figure.axes[0].lines[0].get_xdata().tolist()
            for seed in (1, 1, 2)
        )
        assert len(set(first)) == 2000
        assert first == second != other

    def test_labels_are_drawn_weakest_first_and_those_without_rows_not(self) -> None:
        plot = plot_labels(build_scores(LABELS, 0.8).per_class)
        assert plot is not None
        assert [row[0] for row in plot.rows] == ["health", "politics"]
        assert plot.label == ("F1 of 2 labels: from health 79.8 % [77.8, 81.8] to politics 79.9 % [77.9, 81.9].")
        assert plot_labels(build_scores(LABELS[:1], 0.8).per_class) is None

    def test_names_that_shorten_alike_have_a_line_each(self) -> None:
        names = [f"{'x' * 40}{number}{'y' * 40}" for number in range(5)]
        plot = plot_labels(build_scores(names, 0.8).per_class)
        assert plot is not None
        assert len(plot.figure.axes[0].get_yticks()) == 4

    def test_slices_of_numbers_are_drawn_in_their_unit_and_undefined_figures_are_not(self) -> None:
        errors = {"north": 250.0, "south": math.nan, "east": 100.0}
        slices = [build_slice("shop", name, {"mae": error}) for name, error in errors.items()]
        plot = plot_task_slices(slices, "shop", "regression")
        (axes,) = plot.figure.axes
        assert [label.get_text() for label in axes.get_yticklabels()] == [f"{name} (1,234)" for name in errors]
        assert axes.get_xlim()[1] > 250
        assert axes.get_xlabel() == "MAE"
        assert plot.titles == ("shop", "rows", "MAE")
        assert [row[2] for row in plot.rows] == ["250.0 [250.0, 250.0]", "undefined", "100.0 [100.0, 100.0]"]
        assert plot.label.startswith(
            "MAE by column shop: north (1,234 rows) 250.0 [250.0, 250.0]; south (1,234 rows) und"
        )

    def test_slices_of_several_labels_have_f1_drawn_and_exact_matches_in_the_table(self) -> None:
        slices = [build_slice("words", "1-15", {"exact_match": 0.25, "micro_f1": 0.5}, 0.1)]
        plot = plot_task_slices(slices, "words", "multi_label")
        assert plot.titles == (
            "words", "rows", "F1 (micro)", "exact match", "change of F1 (micro) (points)",
            "change of exact match (points)",
        )  # fmt: skip
        assert plot.rows[0][2:4] == ["50.0 % [48.0, 52.0]", "25.0 % [23.0, 27.0]"]
        assert plot.figure.axes[0].lines[1].get_xdata().tolist() == [0.5]
        nothing = [build_slice("words", "1-15", {"micro_f1": math.nan, "exact_match": 1.0})]
        assert plot_task_slices(nothing, "words", "multi_label").rows[0][2] == "undefined"

    def test_loss_and_score_of_each_task_have_their_names(self) -> None:
        history = [
            {"step": 1, "loss": 1.0, "learning_rate": 0.1},
            {"step": 1, "eval_loss": 0.5, "eval_calibrated_loss": 0.5, "eval_mae": 1234.5},
        ]
        loss, learning = plot_loss(history, None, "regression"), plot_learning(history)
        assert loss is not None
        assert learning is not None
        assert loss.figure.axes[0].get_ylabel() == "loss (squared error)"
        assert loss.titles == ("step", "training", "validation"), "a calibrated loss that is the same is not drawn"
        assert "standardised" in loss.caption
        assert (learning.title, learning.titles[1]) == ("MAE and learning rate", "validation MAE")
        assert learning.rows == [["1", "1,234", "0.1"]]
        several = plot_learning([{"step": 1, "eval_micro_f1": 0.5}])
        assert several is not None
        assert (several.title, several.rows) == ("F1 (micro) and learning rate", [["1", "50.0%", ""]])
        nats = plot_loss(history, None, "multi_label")
        assert nats is not None
        assert nats.figure.axes[0].get_ylabel() == "loss (nats)"
