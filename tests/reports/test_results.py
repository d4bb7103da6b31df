from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorafit.reports.contents import RunContents, read_run
from lorafit.reports.results import (
    list_calibration,
    list_comparisons,
    list_confusions,
    list_labels,
    list_scores,
    list_weak_slices,
    name_absent_labels,
)
from lorafit.tasks.records import Estimate
from lorafit.tasks.registry import TASKS

WriteRun = Callable[..., Path]


def with_calibration(contents: RunContents, **changes: Any) -> RunContents:
    scores = contents.metrics.calibration
    assert scores is not None
    changed = {"calibration": scores.model_copy(update=changes)}
    return replace(contents, metrics=contents.metrics.model_copy(update=changed))


def test_every_model_has_a_row_of_every_metric(contents: RunContents) -> None:
    table, metrics = list_scores(contents), contents.task.metrics
    assert table.titles == ("", *(metric.title for metric in metrics.values()))
    assert [row[0] for row in table.rows] == ["before", "after", *contents.task.baselines.values()]
    after = contents.metrics.after.metrics
    assert table.rows[1][1:] == [metric.write(after[name]) for name, metric in metrics.items()]


def test_every_comparison_has_a_row(contents: RunContents) -> None:
    table, others = list_comparisons(contents), ["before", *contents.task.baselines.values()]
    assert table is not None
    assert [row[0] for row in table.rows] == others
    assert table.rows[0][1] == "better"
    assert contents.metrics.comparison is not None
    primary = contents.metrics.comparison.differences[contents.task.primary]
    assert table.rows[0][2] == contents.task.primary_metric.write_difference(primary)


@pytest.mark.parametrize("task", TASKS)
def test_a_model_that_did_not_change_is_not_shown_to_be_better(write_run: WriteRun, task: str) -> None:
    contents = read_run(write_run(task))
    table = list_comparisons(read_run(write_run(task, name="same", after=contents.after, before=contents.after)))
    assert table is not None
    assert table.rows[0][1] == "not shown to be better"


@pytest.mark.parametrize("task", TASKS)
def test_without_other_models_there_is_no_comparison(write_run: WriteRun, task: str) -> None:
    contents = read_run(write_run(task, rows=20, before=False, baselines=False))
    assert list_comparisons(contents) is None
    assert len(list_scores(contents).rows) == 1


def test_labels_have_scores_where_there_are_labels(contents: RunContents) -> None:
    table = list_labels(contents)
    if not contents.metrics.after.per_class:
        assert (contents.task.name, table) == ("regression", None)
        return
    assert table is not None
    assert tuple(row[0] for row in table.rows) == contents.task.label_names
    assert table.titles == ("label", "rows", "precision", "recall", "F1", "F1 before")
    assert {len(row) for row in table.rows} == {6}
    assert name_absent_labels(contents) == ""


def test_without_a_model_before_labels_are_not_compared(write_run: WriteRun) -> None:
    table = list_labels(read_run(write_run("multi_label", rows=20, before=False)))
    assert table is not None
    assert table.titles[-1] == "F1"


def test_labels_without_test_rows_are_named(write_run: WriteRun) -> None:
    assert name_absent_labels(read_run(write_run(labels=["a", "b", "<c>"], rows=2))) == "<c>"
    many = write_run(labels=[f"{number:02}" for number in range(40)], name="many", rows=5)
    assert name_absent_labels(read_run(many)).endswith("23, 24 and others")
    nothing = list_labels(read_run(write_run(labels=["a", "b", "c"], name="none", y=[0, 0], after=[[1.0, 0, 0]] * 2)))
    assert nothing is not None
    assert nothing.rows[1][2:5] == ["undefined"] * 3


def test_labels_taken_for_each_other_are_listed_with_those_before(write_run: WriteRun) -> None:
    names = [f"class {number}" for number in range(30)]
    contents = read_run(write_run(labels=names, rows=90))
    table = list_confusions(contents)
    assert table is not None
    assert 9 <= len(table.rows) <= 20
    true, predicted, rows, share, before = table.rows[0]
    place = names.index(true), names.index(predicted)
    assert contents.metrics.before is not None
    assert before == str(contents.metrics.before.confusion_matrix[place[0]][place[1]])
    assert (rows, share) == (str(contents.metrics.after.confusion_matrix[place[0]][place[1]]), f"{int(rows) / 3:.1%}")


@pytest.mark.parametrize("task", ["multi_label", "regression"])
def test_rows_without_one_label_are_not_confused(written_run: Callable[[str], Path], task: str) -> None:
    assert list_confusions(read_run(written_run(task))) is None


def test_calibration_stands_beside_the_uncalibrated_and_what_was_asked_for(contents: RunContents) -> None:
    table, scores = list_calibration(contents), contents.metrics.calibration
    assert table is not None
    assert scores is not None
    metrics = {name: metric for name, metric in contents.task.calibration_metrics.items() if name in scores.metrics}
    cells = {row[0]: dict(zip(table.titles[1:], row[1:], strict=True)) for row in table.rows}
    assert list(cells) == [metric.title for metric in metrics.values()]
    for name, metric in metrics.items():
        assert cells[metric.title]["calibrated"] == metric.write(scores.metrics[name])
        if scores.raw:
            assert cells[metric.title]["uncalibrated"] == (metric.write(scores.raw[name]) if name in scores.raw else "")
        if name in scores.asked:
            assert cells[metric.title]["asked for"].startswith(metric.write_value(scores.asked[name]))
    assert ("uncalibrated" in table.titles, "asked for" in table.titles) == (bool(scores.raw), bool(scores.asked))


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.9, 0.96, "95.0 %"), (0.9, 0.94, "95.0 %, not reached"), (0.96, 0.99, "95.0 %, exceeded")],
)
@pytest.mark.parametrize("task", ["single_label", "regression", "ordinal"])
def test_coverage_is_held_against_what_was_asked_for(
    written_run: Callable[[str], Path], task: str, low: float, high: float, said: str
) -> None:
    contents = read_run(written_run(task))
    scores = contents.metrics.calibration
    assert scores is not None
    metrics = {**scores.metrics, "coverage": Estimate(value=0.95, low=low, high=high)}
    table = list_calibration(with_calibration(contents, metrics=metrics))
    assert table is not None
    (row,) = [row for row in table.rows if row[0].startswith("coverage")]
    assert row[-1] == said


def test_accuracy_that_no_confidence_promises_is_undefined(written_run: Callable[[str], Path]) -> None:
    contents = read_run(written_run("single_label"))
    scores = contents.metrics.calibration
    assert scores is not None
    nothing = Estimate(value=float("nan"), low=float("nan"), high=float("nan"))
    table = list_calibration(with_calibration(contents, metrics={**scores.metrics, "accepted_accuracy": nothing}))
    assert table is not None
    (row,) = [row for row in table.rows if row[0] == "accuracy of accepted rows"]
    assert row[-2:] == ["undefined", "90.0 %"]


@pytest.mark.parametrize("task", TASKS)
def test_a_run_without_calibration_has_no_metrics_of_it(write_run: WriteRun, task: str) -> None:
    contents = read_run(write_run(task, rows=20, calibration=False))
    assert list_calibration(contents) is None


def test_weak_slices_are_named_the_weakest_first(contents: RunContents) -> None:
    assert list_weak_slices(contents) == []
    metric, slices = contents.task.primary_metric, contents.metrics.slices
    values = (0.2, 0.1) if metric.higher_is_better else (0.1, 0.2)
    weak = [
        one.model_copy(
            update={
                "metrics": {**one.metrics, contents.task.primary: Estimate(value=value, low=value, high=value)},
                "adjusted_p_value": 0.01,
            }
        )
        for one, value in zip(slices[-2:], values, strict=True)
    ]
    metrics = contents.metrics.model_copy(update={"slices": [*slices[:-2], *weak]})
    names = [one.value for one in slices[-2:]]
    assert list_weak_slices(replace(contents, metrics=metrics)) == [
        f"shop {name} ({metric.title} {metric.write_value(value)} on 40 rows)"
        for name, value in zip(names[::-1], values[::-1], strict=True)
    ]


def test_a_slice_that_is_worse_than_chance_is_found(write_run: WriteRun) -> None:
    y = np.arange(200) % 2
    after = np.eye(2)[np.where(np.arange(200) % 4 == 3, 1 - y, y)]
    contents = read_run(write_run(y=y, after=after, columns={"place": ["a", "b", "a", "c"]}))
    assert list_weak_slices(contents) == ["place c (accuracy 0.0 % on 50 rows)"]
