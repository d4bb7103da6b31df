from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorafit.reports.calibration_plots import plot_reliability, plot_risk
from lorafit.reports.contents import RunContents, read_run
from lorafit.reports.curves import rank_classes
from lorafit.reports.drawing import AFTER, THIRD, Plot
from lorafit.reports.plots import PLOTS, build_plots
from lorafit.reports.score_plots import (
    plot_confusion,
    plot_labels,
    plot_numbers,
    plot_precision_recall,
    plot_roc,
    plot_scores,
    plot_slices,
)
from lorafit.reports.training_plots import plot_learning, plot_loss
from lorafit.runs.records import TrainingRecord
from lorafit.tasks.format import write_estimate
from lorafit.tasks.records import Estimate, SliceScores
from lorafit.tasks.registry import TASKS

WriteRun = Callable[..., Path]
CLASSES = [
    *("loss", "learning", "confusion_before", "confusion_after", "reliability", "risk_coverage", "roc"),
    *("precision_recall", "slice1", "slice2"),
]
NAMES = {
    "single_label": ["accuracy", *CLASSES],
    "multi_label": ["micro_f1", "loss", "learning", "labels", "slice1", "slice2"],
    "regression": ["mae", "loss", "learning", "predicted", "slice1", "slice2"],
    "ordinal": [
        *("mae", "loss", "learning", "confusion_before", "confusion_after", "labels", "reliability", "risk_coverage"),
        *("slice1", "slice2"),
    ],
}
FUNCTIONS = {
    "loss": plot_loss,
    "learning": plot_learning,
    "confusion": plot_confusion,
    "labels": plot_labels,
    "predicted": plot_numbers,
    "reliability": plot_reliability,
    "risk_coverage": plot_risk,
    "roc": plot_roc,
    "precision_recall": plot_precision_recall,
    "slice": plot_slices,
}
"""By how the names of their plots begin; any other draws the scores."""

BARE = {"before": False, "baselines": False, "calibration": False, "history": False}


@pytest.fixture(autouse=True)
def style(house_style: None) -> None:
    """Every plot here is drawn as the report does."""


@pytest.fixture
def single(written_run: Callable[[str], Path]) -> RunContents:
    """The contents of a written run with two classes."""
    return read_run(written_run("single_label"))


def draw(contents: RunContents, name: str) -> Plot | None:
    function = next((draw for prefix, draw in FUNCTIONS.items() if name.startswith(prefix)), plot_scores)
    return {plot.name: plot for plot in function(contents)}.get(name)


def see(contents: RunContents, name: str) -> Plot:
    plot = draw(contents, name)
    assert plot is not None
    return plot


def test_every_task_has_its_plots() -> None:
    assert PLOTS.keys() == TASKS.keys()


def test_every_plot_has_words_and_a_table(contents: RunContents) -> None:
    plots = build_plots(contents)
    assert list(plots) == NAMES[contents.task.name]
    assert [name for name, plot in plots.items() if plot.name != name] == []
    for plot in plots.values():
        assert plot.label
        assert plot.caption
        assert plot.rows
        assert {len(row) for row in plot.rows} == {len(plot.titles)}


@pytest.mark.parametrize(
    ("wishes", "absent"),
    [
        ({"before": False}, ["confusion_before"]),
        ({"calibration": False}, ["reliability", "risk_coverage"]),
        ({"history": False}, ["loss", "learning"]),
        ({"labels": ["a", "b", "c"]}, ["precision_recall"]),
        (
            {"labels": [str(number) for number in range(13)]},
            ["confusion_before", "confusion_after", "precision_recall"],
        ),
        ({"y": np.zeros(60, dtype=np.int64)}, ["roc", "precision_recall"]),
    ],
)
def test_what_cannot_be_shown_has_no_plot(write_run: WriteRun, wishes: dict[str, Any], absent: list[str]) -> None:
    plots = build_plots(read_run(write_run(columns={"shop": ["a", "b"]}, **wishes)))
    assert list(plots) == [name for name in NAMES["single_label"] if name not in absent]


@pytest.mark.parametrize("task", TASKS)
def test_of_a_bare_run_little_is_drawn(write_run: WriteRun, task: str) -> None:
    plots = build_plots(read_run(write_run(task, rows=9, **BARE)))
    assert not plots.keys() & {"loss", "learning", "confusion_before", "reliability", "risk_coverage", "slice1"}
    assert [row[0] for row in next(iter(plots.values())).rows] == ["after"]


def test_scores_show_every_model_the_fine_tuned_one_last(contents: RunContents) -> None:
    metric = contents.task.primary_metric
    plot = see(contents, contents.task.primary)
    assert [row[0] for row in plot.rows] == ["before", *contents.task.baselines.values(), "after"]
    assert plot.rows[-1][1] == metric.write(contents.metrics.after.metrics[contents.task.primary])
    assert plot.label[1:].startswith(f"{metric.title[1:]} of each model with its 95 % interval: before ")
    assert ("Lower is better" in plot.caption) is not metric.higher_is_better


def test_confusion_matrix_shows_every_count(write_run: WriteRun) -> None:
    contents = read_run(write_run(labels=["a", "b", "c"], rows=30))
    plot = see(contents, "confusion_after")
    matrix = contents.metrics.after.confusion_matrix
    assert plot.rows == [[name, *map(str, row)] for name, row in zip("abc", matrix, strict=True)]
    (axes,) = plot.figure.axes
    assert [text.get_text() for text in axes.texts] == [str(count) for row in matrix for count in row]
    assert len(axes.patches) == 9


def test_of_many_labels_those_with_the_most_rows_are_drawn_weakest_first(write_run: WriteRun) -> None:
    labels = [f"label {number:02}" for number in range(40)]
    plot = see(read_run(write_run("multi_label", labels=labels, rows=30, **BARE)), "labels")
    assert len(plot.rows) == 29
    assert "with the most rows are drawn" not in plot.caption, "the others have no row"
    shares = [float(row[2].partition(" ")[0]) for row in plot.rows]
    assert shares == sorted(shares)
    plot = see(read_run(write_run("multi_label", name="more", labels=labels, rows=60, **BARE)), "labels")
    assert "Of 40 labels with rows, the 30 with the most rows are drawn." in plot.caption
    assert "39" not in " ".join(row[0] for row in plot.rows)


def build_slices(contents: RunContents, values: list[str], column: str, **changes: Any) -> list[SliceScores]:
    one = Estimate(value=0.5, low=0.4, high=0.6)
    metrics = dict.fromkeys(contents.task.slice_metrics, one)
    known: dict[str, Any] = {"rows": 1234, "metrics": metrics, "differences": metrics, "adjusted_p_value": 1.0}
    return [SliceScores(column=column, value=value, **{**known, **changes}) for value in values]


def with_slices(contents: RunContents, *slices: SliceScores) -> RunContents:
    return replace(contents, metrics=contents.metrics.model_copy(update={"slices": list(slices)}))


def test_slices_of_a_column_are_told_apart_from_those_of_others(contents: RunContents) -> None:
    column = "shop $x$"
    listed = build_slices(contents, ["<b>", "b"], column)
    sliced = with_slices(contents, *build_slices(contents, ["1-15"], "words", differences={}), *listed)
    plot, words = see(sliced, "slice2"), see(sliced, "slice1")
    assert (plot.title, words.title) == ("By column shop $x$", "By number of words")
    metrics = [contents.task.metrics[name] for name in contents.task.slice_metrics]
    one = listed[0].metrics[contents.task.primary]
    cells = ["1,234", *(metric.write(one) for metric in metrics)]
    assert plot.rows == [
        [name, *cells, *(metric.write_difference(one) for metric in metrics), "p = 1"] for name in ("<b>", "b")
    ]
    assert words.rows == [["1-15", *cells, "p = 1"]]
    assert f"1-15 (1,234 rows) {metrics[0].write(one)}" in words.label


def test_weak_slices_stand_out(contents: RunContents) -> None:
    weak = build_slices(contents, ["weak"], "shop", adjusted_p_value=0.01)
    plot = see(with_slices(contents, *build_slices(contents, ["fine"], "shop"), *weak), "slice1")
    colours = [line.get_color() for line in plot.figure.axes[0].lines]
    assert colours == [AFTER, AFTER, THIRD, THIRD]
    assert "another colour" in plot.caption
    assert "another colour" not in see(contents, "slice2").caption


def test_of_many_slices_all_are_in_the_table(single: RunContents) -> None:
    plot = see(with_slices(single, *build_slices(single, [str(number) for number in range(80)], "c")), "slice1")
    assert len(plot.rows) == 80
    assert len(plot.figure.axes[0].get_yticklabels()) == 50
    assert plot.label.endswith("and more.")


def test_slices_whose_names_look_alike_have_a_line_each(single: RunContents) -> None:
    names = [f"{'x' * 15}{letter}{'y' * 15}" for letter in "abcde"]
    plot = see(with_slices(single, *build_slices(single, names, "c")), "slice1")
    assert len(plot.figure.axes[0].get_yticks()) == 5


def test_an_undefined_slice_keeps_its_line(contents: RunContents) -> None:
    nothing = Estimate(value=float("nan"), low=float("nan"), high=float("nan"))
    metrics = dict.fromkeys(contents.task.slice_metrics, nothing)
    empty = build_slices(contents, ["empty"], "shop", metrics=metrics, differences={})
    plot = see(with_slices(contents, *empty), "slice1")
    assert plot.rows[0][2] == "undefined"
    assert len(plot.figure.axes[0].get_yticks()) == 1


def test_numbers_lie_about_the_line_of_right_ones(write_run: WriteRun) -> None:
    contents = read_run(write_run("regression", rows=100))
    plot = see(contents, "predicted")
    points, *lines = plot.figure.axes[0].lines
    assert points.get_xdata().tolist() == contents.y.tolist()
    assert points.get_ydata().tolist() == contents.after[:, 0].tolist()
    assert len(lines) == 3, "the right ones, and the ends of the intervals"
    assert "dashed" in plot.caption
    assert [row[0] for row in plot.rows] == ["0%", "5%", "25%", "50%", "75%", "95%", "100%"]
    assert plot.label.startswith("Predicted over true numbers of 100 rows: the true ones reach from ")


@pytest.mark.parametrize("y", [np.zeros(20), 1e9 * np.arange(20), np.full(20, -1e6)])
def test_numbers_of_any_size_can_be_drawn(write_run: WriteRun, y: Any) -> None:  # noqa: ANN401 - an array
    plot = see(read_run(write_run("regression", y=y, after=y[:, np.newaxis], calibration=False)), "predicted")
    assert len(plot.figure.axes[0].lines) == 2
    assert "dashed" not in plot.caption


def test_of_very_many_numbers_some_are_drawn(write_run: WriteRun) -> None:
    plot = see(read_run(write_run("regression", rows=3000, **BARE)), "predicted")
    assert len(plot.figure.axes[0].lines[0].get_xdata()) == 2000
    assert "2,000 of 3,000 rows are drawn, chosen at random." in plot.caption
    assert plot.rows[-1][0] == "100%"


def test_reliability_has_a_band_and_a_line_for_both(single: RunContents) -> None:
    plot, scores = see(single, "reliability"), single.metrics.calibration
    assert scores is not None
    (axes,) = plot.figure.axes
    lines = {str(line.get_label()): line for line in axes.lines}
    assert list(lines) == ["as confident as right", "uncalibrated", "calibrated"]
    assert lines["calibrated"].get_xdata().tolist() == [one.confidence for one in scores.reliability]
    assert len(axes.collections) == 2
    assert len(plot.rows) == len(scores.reliability) + len(scores.reliability_raw)
    assert f"{write_estimate('percent', scores.metrics['ece'])} calibrated" in plot.label


def test_risk_shows_the_operating_point(single: RunContents) -> None:
    plot, scores = see(single, "risk_coverage"), single.metrics.calibration
    assert scores is not None
    accepted, accuracy = scores.metrics["accepted_share"].value, scores.metrics["accepted_accuracy"].value
    curve, point = plot.figure.axes[0].lines
    last = scores.risk_coverage[-1]
    assert (curve.get_xdata()[-1], curve.get_ydata()[-1]) == (1, last.errors / last.accepted)
    assert (point.get_xdata(), point.get_ydata()) == ([accepted], [1 - accuracy])
    assert f"{accepted:.1%} are accepted" in plot.label
    assert plot.rows[-1][1] == "120 (100.0%)"
    assert 5 <= len(plot.rows) <= 21


@pytest.mark.parametrize("nobody", [True, False])
def test_risk_without_an_operating_point(single: RunContents, *, nobody: bool) -> None:
    scores = single.metrics.calibration
    assert scores is not None
    zero, nothing = Estimate(value=0, low=0, high=0.1), Estimate(value=float("nan"), low=0, high=1)
    metrics = {name: one for name, one in scores.metrics.items() if not name.startswith("accepted")}
    if nobody:
        metrics |= {"accepted_share": zero, "accepted_accuracy": nothing}
    changed = single.metrics.model_copy(update={"calibration": scores.model_copy(update={"metrics": metrics})})
    assert len(see(replace(single, metrics=changed), "risk_coverage").figure.axes[0].lines) == 1


def test_roc_of_two_classes_is_that_of_the_second(single: RunContents) -> None:
    plot = see(single, "roc")
    after = rank_classes(single.y, single.after)[1]
    assert after is not None
    assert f"after {after.roc_area:.4f}" in plot.label
    assert "of the label pos" in plot.caption
    assert plot.figure.axes[0].lines[2].get_ydata().tolist() == after.recall.tolist()
    assert len(plot.rows) <= 42


def test_roc_of_several_classes_is_their_mean_with_the_area_of_each(write_run: WriteRun) -> None:
    contents = read_run(write_run(labels=["a", "b", "c"], y=[0, 1] * 30))
    plot = see(contents, "roc")
    assert "mean of all labels" in plot.label
    first = rank_classes(contents.y, contents.after)[0]
    assert first is not None
    assert [row[0] for row in plot.rows] == ["a", "b", "c"]
    assert plot.rows[0][3:] == [f"{first.roc_area:.4f}", f"{first.average_precision:.4f}"]
    assert plot.rows[2][1:] == [""] * 4, "no row has the label"


def test_precision_and_recall_begin_with_the_first_row_found(single: RunContents) -> None:
    plot = see(single, "precision_recall")
    assert "Average precision: before 0." in plot.label
    assert plot.figure.axes[0].lines[1].get_xdata()[0] > 0


TRAINING = TrainingRecord(
    steps=200,
    epochs=2,
    best_step=100,
    best_validation_loss=0.25,
    stopped_early=False,
    seconds=1,
    tokens=1,
    tokens_per_second=1,
    padding_share=0,
    adapted_modules=1,
)
HISTORY = (
    {"step": 10.0, "loss": 0.7, "learning_rate": 1e-3, "epoch": 0.1},
    {"step": 100.0, "loss": 0.4, "learning_rate": 5e-4, "epoch": 1.0},
    {"step": 100.0, "eval_loss": 0.3, "eval_calibrated_loss": 0.25, "eval_accuracy": 0.9, "epoch": 1.0},
    {"train_runtime": 12.0},
)


def trained(contents: RunContents, history: Any, training: TrainingRecord | None = None) -> RunContents:  # noqa: ANN401
    record = contents.record.model_copy(update={"training": training})
    return replace(contents, history=tuple(history), record=record)


def test_loss_tells_both_losses_and_what_was_kept(single: RunContents) -> None:
    plot = see(trained(single, HISTORY, TRAINING), "loss")
    assert plot.titles == ("step", "training", "validation", "validation (calibrated)")
    assert plot.rows == [["10", "0.7000", "", ""], ["100", "0.4000", "0.3000", "0.2500"]]
    assert plot.label == (
        "Loss over the steps: training loss from 0.700 to 0.400, 2 values; validation loss from 0.300 to 0.300, 1 "
        "values; validation (calibrated) loss from 0.250 to 0.250, 1 "
        "values; kept is the checkpoint of step 100, validation loss 0.2500."
    )
    train, validation, calibrated, kept = plot.figure.axes[0].lines
    assert train.get_ydata().tolist() == [0.7, 0.4]
    assert calibrated.get_marker() == "o"
    assert [line.get_linestyle() for line in (train, validation, calibrated)] == ["-", "--", "-"]
    assert kept.get_xdata() == [100, 100]


def test_loss_and_score_are_those_of_the_task(contents: RunContents) -> None:
    wording, metric = contents.task.wording, contents.task.primary_metric
    history = [{"step": 1.0, "eval_loss": 0.5, f"eval_{contents.task.primary}": 0.25, "learning_rate": 0.1}]
    loss, learning = (see(trained(contents, history), name) for name in ("loss", "learning"))
    assert loss.figure.axes[0].get_ylabel() == wording.loss
    assert loss.caption.endswith(wording.loss_note or "where that is shown.")
    assert learning.titles[1] == f"validation {metric.title}"
    assert learning.rows == [["1", metric.write_value(0.25), "0.1"]]


def test_accuracy_and_rate_have_a_panel_each(single: RunContents) -> None:
    plot = see(trained(single, HISTORY), "learning")
    assert plot.rows == [["10", "", "0.001"], ["100", "90.0 %", "0.0005"]]
    assert len(plot.figure.axes) == 2
    assert see(trained(single, HISTORY[:2]), "learning").figure.axes[0].get_title(loc="left") == "learning rate"


def test_nothing_logged_gives_no_plot(single: RunContents) -> None:
    assert draw(trained(single, [], TRAINING), "loss") is None
    assert draw(trained(single, [{"train_runtime": 12.0}]), "learning") is None


def test_a_history_without_calibration_is_drawn_as_it_is(single: RunContents) -> None:
    plot = see(trained(single, [{"step": 1, "loss": 0.5}, {"step": 1, "eval_loss": 0.4}]), "loss")
    assert plot.titles == ("step", "training", "validation")
    assert [line.get_linestyle() for line in plot.figure.axes[0].lines] == ["-", "-"]


def test_without_validation_the_training_loss_stands_alone(single: RunContents) -> None:
    plot = see(trained(single, HISTORY[:2]), "loss")
    assert len(plot.figure.axes[0].lines) == 1
    assert "validation loss" not in plot.label


def test_a_long_history_is_shown_in_part_but_with_every_evaluation(single: RunContents) -> None:
    long = [{"step": step, "loss": 1 / step} for step in range(1, 5001)]
    long += [{"step": step, "eval_loss": 0.5} for step in (999, 1999, 2999)]
    plot = see(trained(single, long), "loss")
    assert len(plot.figure.axes[0].lines[0].get_xdata()) <= 400
    assert len(plot.rows) <= 65
    assert {"999", "1,999", "2,999"} <= {row[0] for row in plot.rows if row[2]}
