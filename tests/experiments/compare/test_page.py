import io
import sys
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from lorafit.cli.render.comparison import _build_table
from lorafit.evidence import Estimate
from lorafit.experiments.compare.page import find_pareto, judge_cheap_baselines, plot_scores, render_page
from lorafit.experiments.compare.records import Cell, CheapRow, ComparisonRecord, MethodRow
from lorafit.models.records import ParameterCounts
from lorafit.system.records import FileRecord

CheckPage = Callable[[Callable[[Any], str], FileRecord], None]
ACCURACY = Estimate(value=0.9, low=0.88, high=0.92)


def make_row(method: str, accuracy: float, seconds: float) -> MethodRow:
    return MethodRow(
        method=method,
        seeds=[0],
        validation_loss=0.3,
        score=Estimate(value=accuracy, low=accuracy - 0.02, high=accuracy + 0.02),
        score_by_seed=[accuracy],
        difference=None,
        p_value=None,
        parameters=ParameterCounts(adapter=10, head=2, total=100),
        bytes_on_disk=100,
        training_seconds=seconds,
        epoch_seconds=seconds,
        peak_memory_bytes=10**9,
        texts_per_second=10,
    )


def make_record(*differences: tuple[str, float, float], error: str = "") -> ComparisonRecord:
    cheap = [
        CheapRow(name=name, score=ACCURACY, difference=Estimate(value=(low + high) / 2, low=low, high=high), seconds=1)
        for name, low, high in differences
    ]
    return ComparisonRecord(
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
        cheap_baselines=cheap,
        failed=[Cell(method="dora", seed=0, error=error)] if error else [],
    )


@pytest.mark.parametrize(
    ("differences", "said"),
    [
        ((), ""),
        ((("nb_svm", 0.01, 0.03),), "NB-SVM is better than LoRA."),
        ((("nb_svm", -0.01, 0.03),), "LoRA is not shown to be better than NB-SVM."),
        ((("nb_svm", -0.03, -0.01),), "LoRA is better than NB-SVM."),
        (
            (("nb_svm", 0.01, 0.02), ("tfidf", -0.03, -0.01)),
            "NB-SVM is better than LoRA. LoRA is better than TF-IDF and logistic regression.",
        ),
    ],
)
def test_cheap_baselines_are_judged_by_the_intervals(
    differences: tuple[tuple[str, float, float], ...], said: str
) -> None:
    record = make_record(*differences)
    assert judge_cheap_baselines(record) == said
    assert said in render_page(record)


def test_verdict_tells_better_from_not_told_apart() -> None:
    def judge(low: float, high: float) -> str:
        other = make_row("ia3", 0.8, 30).model_copy(
            update={"difference": Estimate(value=(low + high) / 2, low=low, high=high)}
        )
        return render_page(make_record().model_copy(update={"methods": [make_row("lora", 0.9, 20), other]}))

    assert "Better than LoRA on the test rows: IA3." in judge(0.01, 0.03)
    assert "Not shown to differ from LoRA: IA3." in judge(-0.01, 0.03)
    assert "IA3." not in judge(-0.03, -0.01)


@pytest.mark.parametrize("task", ["single_label", "regression"])
def test_table_fits_a_narrow_terminal_with_whole_numbers(task: str) -> None:
    figure, change = ACCURACY, Estimate(value=-0.1, low=-0.125, high=-0.05)
    if task == "regression":
        figure = Estimate(value=58321.4, low=56102.9, high=60411.2)
        change = Estimate(value=0.9, low=-12345.6, high=23456.7)
    rows = [
        make_row(method, 0.9, 4000).model_copy(
            update={
                "score": figure,
                "difference": None if method == "lora" else change,
                "seeds": [0, 1],
                "score_by_seed": [figure.low, figure.high],
                "parameters": ParameterCounts(adapter=22_000_000, head=1_000_000, total=23_000_000),
            }
        )
        for method in ("lora", "prompt_tuning")
    ]
    record = make_record().model_copy(update={"task": task, "methods": rows})
    for columns in (80, 160):
        console = Console(width=columns, file=io.StringIO())
        console.print(_build_table(console, record))
        shown = console.file.getvalue()
        assert "…" not in shown
        assert "prompt_tuning" in shown
        assert ("memory" in shown) == (columns == 160)
        assert all(len(line) <= columns for line in shown.splitlines())
        if task == "regression":
            assert "(lower is better)" in shown
            assert "[56,103, 60,411]" in shown


def test_the_front_holds_what_no_other_beats_at_less_cost() -> None:
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
    (axes,) = plot_scores(make_record().model_copy(update={"methods": rows})).figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ticks


def test_without_matplotlib_the_page_says_how_to_get_the_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    with_plot = render_page(make_record())
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = render_page(make_record())
    assert "<svg" in with_plot
    assert "<svg" not in page
    assert "pip install &#39;lorafit[report]&#39;" in page
    assert "90.0 % [88.0, 92.0]" in page


def test_a_comparison_without_a_result_lists_the_failures() -> None:
    record = make_record(error="it did not fit").model_copy(update={"methods": [], "best": None})
    page = render_page(record)
    assert "No method finished." in page
    assert "dora, seed 0: it did not fit" in page
    assert "<table" not in page


def test_columns_that_say_nothing_are_left_out() -> None:
    page = render_page(make_record())
    assert ">by seed<" not in page
    assert ">p<" not in page
    rows = [make_row("lora", 0.9, 20).model_copy(update={"score_by_seed": [0.9, 0.8], "p_value": 0.5})]
    page = render_page(make_record().model_copy(update={"methods": rows}))
    assert "<td>90.0 %; 80.0 %</td>" in page
    assert "<td>0.5</td>" in page


def test_what_comes_from_outside_is_escaped(check_hostile_page: CheckPage) -> None:
    check_hostile_page(render_page, make_record(("nb_svm", 0.01, 0.03), error="why"))
