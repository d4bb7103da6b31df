"""What people read of a search: the page, and the table in the terminal, from written records."""

import io
import sys
from collections.abc import Callable
from typing import Any

import pytest
from markupsafe import escape
from rich.console import Console

from lorafit.cli.render.search import build_table
from lorafit.experiments.search.page import plot_history, plot_importances, rank_trials, render_page
from lorafit.experiments.search.records import SearchRecord, TrialRow
from lorafit.system.extras import install_line
from lorafit.system.records import FileRecord
from lorafit.tasks.registry import TASKS, get_task

TRIALS = [
    TrialRow(number=0, state="complete", values={"method.r": 4}, loss=0.4, score=0.8, seconds=12),
    TrialRow(number=1, state="pruned", values={"method.r": 8}, loss=0.5, score=0.7, seconds=5),
    TrialRow(number=2, state="failed", values={"method.r": 16}, loss=None, score=None, seconds=1, error="too large"),
    TrialRow(number=3, state="complete", values={"method.r": 2}, loss=0.3, score=0.9, seconds=100),
    TrialRow(number=4, state="complete", values={"method.r": 4}, loss=0.4, score=0.8, seconds=0, same_as=0),
]


def make_record(**changes: Any) -> SearchRecord:
    record = SearchRecord(
        created="2026-01-01T00:00:00+00:00",
        versions={"torch": "2.13.0"},
        cpu="a processor",
        task="single_label",
        source="/home/me/reviews.csv",
        base_model="tiny",
        rows={"train": 10, "validation": 5},
        fingerprints={},
        space={"method.r": [2, 4, 8, 16], "training.dropout": {"low": 0.0, "high": 0.5, "log": False}},
        best=3,
        importances={"method.r": 0.8, "training.dropout": 0.2},
        trials=TRIALS,
    )
    return record.model_copy(update=changes)


def print_table(record: SearchRecord, columns: int) -> str:
    console = Console(width=columns, file=io.StringIO())
    console.print(build_table(console, record))
    return console.file.getvalue()


@pytest.mark.parametrize("name", TASKS)
def test_scores_are_written_by_the_primary_metric_of_the_task(name: str) -> None:
    metric = next(iter(get_task(name).metrics.values()))
    record, written = make_record(task=name), metric.write_value(0.9)
    page = render_page(record)
    assert f'(validation {metric.title} <span class="number">{written}</span>)' in page
    assert f'<th scope="col">validation {metric.title}</th>' in page
    table = print_table(record, 80)
    assert metric.title in table
    assert written in table


def test_page_names_the_best_trial_and_how_the_others_ended() -> None:
    page = render_page(make_record())
    assert "Trial 4 has the lowest validation loss, 0.3000" in page
    assert "of 5 trials (3 complete, 1 pruned, 1 failed)" in page
    assert "Trial 3: too large" in page
    assert "same as trial 1" in page
    assert "/home/me" not in page


def test_complete_trials_are_ranked_by_loss_and_others_come_last() -> None:
    assert [row.number for row in rank_trials(TRIALS)] == [3, 0, 4, 1, 2]


def test_table_fits_a_narrow_terminal_by_leaving_out_what_matters_least() -> None:
    names = [f"training.setting_{number}_with_words" for number in range(8)]
    values = dict.fromkeys(names, "a value of some length")
    trials = [TrialRow(number=0, state="complete", values=values, loss=0.3, score=0.9, seconds=100)]
    record = make_record(
        space={name: [] for name in names}, importances={names[5]: 0.7, names[0]: 0.3}, trials=trials, best=0
    )
    narrow, wide = print_table(record, 80), print_table(record, 300)
    assert all(len(line) <= 80 for line in narrow.splitlines())
    assert "a value of some length" in narrow
    assert "no room for: time, accuracy" in narrow
    left_out = " ".join(narrow.partition("no room for: ")[2].split())
    assert "setting 0 with words" not in left_out
    assert "setting 5 with words" not in left_out
    assert "setting 1 with words" in left_out
    assert wide.count("a value of some length") == 8
    assert "no room" not in wide
    unmeasured = print_table(record.model_copy(update={"importances": {}}), 80)
    left_out = " ".join(unmeasured.partition("no room for: ")[2].split())
    assert "setting 7 with words" in left_out
    assert "setting 0 with words" not in left_out


def test_plot_shows_every_loss_and_the_lowest_so_far() -> None:
    (axes,) = plot_history(TRIALS).figure.axes
    drawn = {line.get_label(): [tuple(point) for point in line.get_xydata()] for line in axes.lines}
    assert drawn == {
        "complete": [(1, 0.4), (4, 0.3), (5, 0.4)],
        "lowest so far": [(1, 0.4), (4, 0.3), (5, 0.3), (5, 0.3)],
        "not complete": [(2, 0.5)],
    }


def test_plot_shows_the_importance_of_each_setting() -> None:
    plot = plot_importances({"method.r": 0.8, "training.dropout": 0.2})
    (axes,) = plot.figure.axes
    assert [bar.get_width() for bar in axes.patches] == [0.8, 0.2]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["method.r", "training.dropout"]
    assert plot.rows == [("method.r", "80 %"), ("training.dropout", "20 %")]


@pytest.mark.parametrize("trials", [[], TRIALS[2:3], [TRIALS[0].model_copy(update={"loss": float("inf")})]])
def test_search_without_a_loss_has_a_page(trials: list[TrialRow]) -> None:
    page = render_page(make_record(best=None, importances={}, trials=trials))
    assert "No trial has finished yet." in page
    assert "There is none yet." in page
    assert "at least 20 trials" in page
    assert "<svg" not in page


def test_without_matplotlib_the_page_says_how_to_get_the_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    with_plots = render_page(make_record())
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = render_page(make_record())
    assert with_plots.count("<svg") == 2
    assert "<svg" not in page
    assert str(escape(install_line("report", shared=True))) in page
    assert "<td>80 %</td>" in page, "importances are in a table"


def test_foreign_text_is_escaped(
    check_hostile_page: Callable[[Callable[[Any], str], FileRecord], None],
) -> None:
    check_hostile_page(render_page, make_record())
