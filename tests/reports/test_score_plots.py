from collections.abc import Callable
from pathlib import Path

import pytest

from lorafit.evidence import Estimate, SliceScores
from lorafit.reports.reading import read_run
from lorafit.reports.score_plots import MOST_CLASSES_IN_MATRIX, plot_accuracies, plot_confusion, plot_slices

ACCURACY = Estimate(value=0.9, low=0.85, high=0.95)


@pytest.fixture(autouse=True)
def style(house_style: None) -> None:
    """Every figure here is drawn as the report does."""


def test_accuracy_shows_every_model_measured(build_run: Callable[..., Path]) -> None:
    plot = plot_accuracies(read_run(build_run()).metrics)
    assert [row[0] for row in plot.rows] == ["before", "NB-SVM", "TF-IDF and logistic regression", "after"]
    assert plot.label.startswith("Accuracy of each model with its 95 % interval: before ")
    assert plot.label.count("[") == 4


def test_accuracy_of_one_model_alone_is_shown(build_run: Callable[..., Path]) -> None:
    plot = plot_accuracies(read_run(build_run(baseline=False, cheap=False)).metrics)
    assert [row[0] for row in plot.rows] == ["after"]


def test_confusion_matrix_shows_every_count(build_run: Callable[..., Path]) -> None:
    contents = read_run(build_run(names=["a", "b", "c"], rows=30))
    plot = plot_confusion(contents.metrics.finetuned, contents.names, "after")
    assert plot is not None
    matrix = contents.metrics.finetuned.confusion_matrix
    assert plot.rows == [[name, *map(str, row)] for name, row in zip("abc", matrix, strict=True)]
    (axes,) = plot.figure.axes
    assert [text.get_text() for text in axes.texts] == [str(count) for row in matrix for count in row]
    assert len(axes.patches) == 9


def test_confusion_matrix_of_many_classes_is_not_drawn(build_run: Callable[..., Path]) -> None:
    names = [f"class {number}" for number in range(MOST_CLASSES_IN_MATRIX + 1)]
    contents = read_run(build_run(names=names, rows=50))
    assert plot_confusion(contents.metrics.finetuned, contents.names, "after") is None
    few = contents.metrics.finetuned.model_copy(
        update={"confusion_matrix": [row[:12] for row in contents.metrics.finetuned.confusion_matrix[:12]]}
    )
    assert plot_confusion(few, contents.names[:12], "after") is not None


def test_slices_of_a_column_are_told_apart_from_those_of_others() -> None:
    slices = [
        SliceScores(column=column, value=value, rows=1234, accuracy=ACCURACY, difference=difference)
        for column, value, difference in (
            ("words", "1-15", None),
            ("shop $x$", "<b>", ACCURACY),
            ("shop $x$", "b", None),
        )
    ]
    plot = plot_slices(slices, "shop $x$")
    assert (plot.name, plot.title) == ("slice2", "By column shop $x$")
    assert plot.rows == [
        ["<b>", "1,234", "90.0 % [85.0, 95.0]", "+90.0 [+85.0, +95.0]"],
        ["b", "1,234", "90.0 % [85.0, 95.0]", ""],
    ]
    assert plot_slices(slices, "words").title == "By number of words"
    assert "1-15 (1,234 rows) 90.0 % [85.0, 95.0]" in plot_slices(slices, "words").label


def test_of_many_slices_all_are_in_the_table() -> None:
    slices = [
        SliceScores(column="c", value=str(number), rows=10, accuracy=ACCURACY, difference=None) for number in range(80)
    ]
    plot = plot_slices(slices, "c")
    assert len(plot.rows) == 80
    assert len(plot.figure.axes[0].get_yticklabels()) == 50
    assert plot.label.endswith("and more.")


def test_slices_whose_names_look_alike_have_a_line_each() -> None:
    names = [f"{'x' * 15}{letter}{'y' * 15}" for letter in "abcde"]
    slices = [SliceScores(column="c", value=name, rows=10, accuracy=ACCURACY, difference=None) for name in names]
    assert len(plot_slices(slices, "c").figure.axes[0].get_yticks()) == 5
