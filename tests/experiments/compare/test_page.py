"""What people read of a comparison: the page, and the table in the terminal, from written records."""

import io
import sys
from collections.abc import Callable
from typing import Any

import pytest
from markupsafe import escape
from rich.console import Console

from lorafit.cli.render.comparison import build_table
from lorafit.experiments.compare.page import find_pareto, judge_baselines, plot_scores, render_page
from lorafit.experiments.compare.records import BaselineRow, Cell, ComparisonRecord, MethodRow
from lorafit.models.records import ParameterCounts
from lorafit.system.extras import install_line
from lorafit.system.records import FileRecord
from lorafit.tasks.evaluation import Verdict
from lorafit.tasks.records import Estimate
from lorafit.tasks.registry import TASKS, get_task

CheckPage = Callable[[Callable[[Any], str], FileRecord], None]
DIFFERENCE = Estimate(value=-0.1, low=-0.125, high=-0.05)


def make_row(method: str, score: float, seconds: float, /, **changes: Any) -> MethodRow:
    return MethodRow(
        **{
            "method": method,
            "seeds": [0],
            "validation_loss": 0.3,
            "score": Estimate(value=score, low=score - 0.02, high=score + 0.02),
            "score_by_seed": [score],
            "parameters": ParameterCounts(adapter=10, head=2, total=100),
            "bytes_on_disk": 100,
            "training_seconds": seconds,
            "epoch_seconds": seconds,
            "peak_memory_bytes": 10**9,
            "texts_per_second": 10,
            **changes,
        }
    )


def make_baseline(name: str, verdict: Verdict | None) -> BaselineRow:
    score = Estimate(value=0.8, low=0.78, high=0.82)
    return BaselineRow(name=name, score=score, difference=DIFFERENCE, verdict=verdict, seconds=1)


def make_record(**changes: Any) -> ComparisonRecord:
    record = ComparisonRecord(
        created="2026-01-01T00:00:00+00:00",
        versions={"torch": "2.13.0"},
        cpu="a processor",
        task="single_label",
        threads=1,
        precision="fp32",
        source="reviews.csv",
        base_model="tiny",
        settings={"model": {"max_length": 8, "truncation": "head"}, "training": {"epochs": 1}},
        fingerprints={},
        rows={"train": 10, "test": 5},
        confidence_level=0.95,
        best="lora",
        methods=[make_row("lora", 0.9, 20), make_row("ia3", 0.8, 30), make_row("head_only", 0.7, 10)],
        baselines=[],
        failed=[],
    )
    return record.model_copy(update=changes)


def print_table(record: ComparisonRecord, columns: int) -> str:
    console = Console(width=columns, file=io.StringIO())
    console.print(build_table(console, record))
    return console.file.getvalue()


@pytest.mark.parametrize("name", TASKS)
def test_scores_are_written_by_the_primary_metric_of_the_task(name: str) -> None:
    task = get_task(name)
    metric = next(iter(task.metrics.values()))
    other = make_row("ia3", 0.8, 30, difference=DIFFERENCE, p_value=0.5, verdict="inconclusive")
    baselines = [make_baseline(baseline, "worse") for baseline in task.baselines]
    record = make_record(task=name, methods=[make_row("lora", 0.9, 20), other], baselines=baselines)
    page, table = render_page(record), print_table(record, 160)
    better = "" if metric.higher_is_better else " (lower is better)"
    assert f'<th scope="col">{metric.title}{better}</th>' in page
    assert f'<th scope="col">{metric.difference_title} against the best</th>' in page
    assert f"<h2>{metric.title[0].upper()}{metric.title[1:]} against training time</h2>" in page
    assert metric.write(other.score) in page
    assert metric.write_difference(DIFFERENCE) in page
    assert f'<th scope="col">{task.wording.test}</th>' in page
    assert "<td>p = 0.5</td>" in page
    grouped = render_page(record.model_copy(update={"grouped": True}))
    assert (
        f'<th scope="col">{task.wording.test}, which takes rows as independent though they come in groups</th>'
        in grouped
    )
    assert ("(lower is better)" in table) == (not metric.higher_is_better)
    assert all(part in table for part in metric.write_difference(DIFFERENCE, separator="\n").splitlines())
    assert all(title in page and title in table for title in task.baselines.values())


@pytest.mark.parametrize(
    ("verdicts", "sentences"),
    [
        ({}, ""),
        ({"nb_svm": "better"}, "NB-SVM is better than LoRA."),
        ({"nb_svm": "inconclusive"}, "LoRA is not shown to be better than NB-SVM."),
        ({"nb_svm": "worse"}, "LoRA is better than NB-SVM."),
        (
            {"nb_svm": "better", "tfidf": "better"},
            "NB-SVM and TF-IDF and logistic regression are better than LoRA.",
        ),
        (
            {"nb_svm": "better", "tfidf": "worse"},
            "NB-SVM is better than LoRA. LoRA is better than TF-IDF and logistic regression.",
        ),
    ],
)
def test_baselines_are_judged_in_words(verdicts: dict[str, Verdict], sentences: str) -> None:
    record = make_record(baselines=[make_baseline(name, verdict) for name, verdict in verdicts.items()])
    assert judge_baselines(record) == sentences
    assert sentences in render_page(record)


def test_better_methods_are_told_from_those_that_are_not_shown_to_differ() -> None:
    def render(verdict: Verdict) -> str:
        other = make_row("ia3", 0.8, 30, difference=DIFFERENCE, verdict=verdict)
        return render_page(make_record(methods=[make_row("lora", 0.9, 20), other]))

    assert "Better than LoRA on the test rows: IA3." in render("better")
    assert "Not shown to differ from LoRA: IA3." in render("inconclusive")
    assert "IA3." not in render("worse")


@pytest.mark.parametrize(
    ("task", "score", "difference", "written"),
    [
        ("single_label", Estimate(value=0.9, low=0.88, high=0.92), DIFFERENCE, "[88.0, 92.0]"),
        (
            "regression",
            Estimate(value=58321.4, low=56102.9, high=60411.2),
            Estimate(value=0.9, low=-12345.6, high=23456.7),
            "[56,103, 60,411]",
        ),
    ],
)
def test_table_fits_a_narrow_terminal_with_whole_numbers(
    task: str, score: Estimate, difference: Estimate, written: str
) -> None:
    shared = {
        "score": score,
        "seeds": [0, 1],
        "score_by_seed": [score.low, score.high],
        "parameters": ParameterCounts(adapter=22_000_000, head=1_000_000, total=23_000_000),
    }
    rows = [
        make_row("lora", 0.9, 4000, **shared),
        make_row("prompt_tuning", 0.9, 4000, **shared, difference=difference),
    ]
    record = make_record(task=task, methods=rows)
    for columns in (80, 160):
        shown = print_table(record, columns)
        assert "…" not in shown
        assert "prompt_tuning" in shown
        assert written in shown
        assert ("no room for: memory, an epoch" in shown) == (columns == 80)
        assert all(len(line) <= columns for line in shown.splitlines())


def test_front_holds_what_no_other_method_beats_in_less_time() -> None:
    rows = make_record().methods
    assert [row.method for row in find_pareto(rows, higher_is_better=True)] == ["head_only", "lora"]
    assert [row.method for row in find_pareto(rows, higher_is_better=False)] == ["head_only"]


def test_plot_shows_every_method_at_its_time() -> None:
    record = make_record()
    (axes,) = plot_scores(record).figure.axes
    drawn = {tuple(point) for line in axes.lines for point in line.get_xydata()}
    assert drawn == {(row.training_seconds, row.score.value) for row in record.methods}
    assert {text.get_text() for text in axes.texts} == {"LoRA", "IA3", "head only"}
    assert [label.get_text() for label in axes.get_xticklabels()] == ["10 s", "20 s", "30 s"]


@pytest.mark.parametrize(
    ("seconds", "ticks"),
    [((61, 62), ["61 s", "62 s"]), ((0.1, 36_000), ["0.1 s", "2 s", "30 s", "10 min", "2 h"])],
)
def test_times_on_the_axis_are_few_and_round(seconds: tuple[float, float], ticks: list[str]) -> None:
    rows = [make_row(method, 0.9, time) for method, time in zip(("lora", "ia3"), seconds, strict=True)]
    (axes,) = plot_scores(make_record(methods=rows)).figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ticks


def test_undefined_score_is_called_so() -> None:
    nothing = float("nan")
    undefined = make_row("ia3", 0.8, 30, score=Estimate(value=nothing, low=nothing, high=nothing))
    page = render_page(make_record(task="multi_label", methods=[make_row("lora", 0.9, 20), undefined]))
    assert "<td>undefined</td>" in page


def test_without_matplotlib_the_page_says_how_to_get_the_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    with_plot = render_page(make_record())
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = render_page(make_record())
    assert "<svg" in with_plot
    assert "<svg" not in page
    assert str(escape(install_line("report", shared=True))) in page
    assert "90.0 % [88.0, 92.0]" in page


def test_comparison_without_a_result_lists_the_failures() -> None:
    failed = [Cell(method="dora", seed=0, error="it did not fit")]
    page = render_page(make_record(methods=[], best=None, failed=failed))
    assert "No method finished." in page
    assert "dora, seed 0: it did not fit" in page
    assert "<table" not in page


def test_columns_without_cells_are_left_out() -> None:
    page = render_page(make_record())
    assert ">by seed<" not in page
    assert "McNemar" not in page
    page = render_page(make_record(methods=[make_row("lora", 0.9, 20, score_by_seed=[0.9, 0.8])]))
    assert "<td>90.0 %; 80.0 %</td>" in page


def test_foreign_text_is_escaped(check_hostile_page: CheckPage) -> None:
    failed = [Cell(method="dora", seed=0, error="why")]
    check_hostile_page(render_page, make_record(baselines=[make_baseline("nb_svm", "better")], failed=failed))
