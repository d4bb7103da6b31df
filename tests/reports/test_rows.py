from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorafit.inference.mistakes import ExplainedMistake, MistakesRecord, SpanContribution
from lorafit.reports.contents import RunContents, Texts, read_run, read_texts
from lorafit.reports.rows import ShownRow, choose_samples, show_mistakes, show_samples
from lorafit.runs.folder import RunLayout
from lorafit.tasks.base import Task
from lorafit.tasks.registry import TASKS, build_task

WriteRun = Callable[..., Path]
NO_TEXTS = Texts(None, "Because.")


def write(row: ShownRow) -> list[str]:
    """Write each model's prediction in one line."""
    signs = {True: " ✓", False: " ✗", None: ""}
    return [
        f"{one.model}: {one.prediction}{signs[one.is_right]}{f' ({one.error})' if one.error else ''}"
        for one in row.predictions
    ]


def guess_right(task: Task, y: Any) -> Any:  # noqa: ANN401 - arrays
    """Return values that are right and sure."""
    return y[:, np.newaxis].astype(float) if task.name == "regression" else task.mark_labels(y) * 1.0


def test_samples_are_the_same_rows_each_time_in_order(contents: RunContents) -> None:
    rows = show_samples(contents, read_texts(contents))
    drawn = sorted(np.random.default_rng(0).choice(120, size=6, replace=False))
    assert drawn == choose_samples(120, seed=0).tolist()
    assert [row.row_id for row in rows] == [place + 1 for place in drawn]
    assert [row.text is not None and row.text.endswith(f" film {row.row_id - 1}") for row in rows] == [True] * 6
    assert [[one.model for one in row.predictions] for row in rows] == [["before", "after"]] * 6
    for row in rows:
        assert row.truth == contents.task.describe_label(contents.labels[row.row_id - 1])
        assert row.predictions[1].prediction == contents.predict(row.row_id - 1)["after"].describe()


def test_of_few_rows_all_are_shown(write_run: WriteRun) -> None:
    assert [row.row_id for row in show_samples(read_run(write_run(rows=4)), NO_TEXTS)] == [1, 2, 3, 4]


def test_without_texts_rows_have_none(contents: RunContents) -> None:
    assert {row.text for row in (*show_samples(contents, NO_TEXTS), *show_mistakes(contents, NO_TEXTS))} == {None}


@pytest.mark.parametrize(
    ("name", "labels", "y", "before", "after", "rows"),
    [
        (
            "single_label",
            ("neg", "pos"),
            [0, 1],
            [[0.5, 0.5], [0.6, 0.4]],
            [[0.07, 0.93], [0.2, 0.8]],
            [["before: neg 50.0% ✓", "after: pos 93.0% ✗"], ["before: neg 60.0% ✗", "after: pos 80.0% ✓"]],
        ),
        (
            "multi_label",
            ("health", "politics", "sport"),
            [[1, 1, 0], [0, 0, 0], [0, 0, 1]],
            [[0.5, 0.4, 0.4]] * 3,
            [[0.021, 0.931, 0.602], [0.1, 0.2, 0.3], [0.1, 0.2, 0.3]],
            [
                [
                    "before: health 50.0% ✗ (missing: politics 40.0%)",
                    "after: politics 93.1%, sport 60.2% ✗ (not true: sport; missing: health 2.1%)",
                ],
                ["before: health 50.0% ✗ (not true: health)", "after: (none) ✓"],
                [
                    "before: health 50.0% ✗ (not true: health; missing: sport 40.0%)",
                    "after: (none) ✗ (missing: sport 30.0%)",
                ],
            ],
        ),
        (
            "regression",
            ("value",),
            [80.0, 50.0, 2.5],
            [[60.0]] * 3,
            [[78.9], [65.0], [2.5]],
            [
                ["before: 60.00 (20.00 too low)", "after: 78.90  [73.90, 83.90] (1.100 too low, inside the interval)"],
                [
                    "before: 60.00 (10.00 too high)",
                    "after: 65.00  [60.00, 70.00] (15.00 too high, outside the interval)",
                ],
                [
                    "before: 60.00 (57.50 too high)",
                    "after: 2.500  [-2.500, 7.500] (exactly right, inside the interval)",
                ],
            ],
        ),
        (
            "ordinal",
            ("1", "2", "3"),
            [0, 2],
            [[0.4, 0.3, 0.3]] * 2,
            [[0.9, 0.1, 0.0], [0.1, 0.8, 0.1]],
            [["before: 2 30.0% ✗", "after: 1 90.0% ✓"], ["before: 2 30.0% ✗", "after: 2 80.0% ✗"]],
        ),
    ],
)
def test_predictions_stand_beside_the_true_label(
    write_run: WriteRun,
    name: str,
    labels: Sequence[str],
    y: list[object],
    before: list[list[float]],
    after: list[list[float]],
    rows: list[list[str]],
) -> None:
    task, calibration = build_task(name, labels), None
    if name == "regression":
        calibration = task.calibration_type.model_validate({"rows": 99, "coverage": 0.9, "half_width": 5.0})
    run = write_run(task, y=y, before=before, after=after, calibration=calibration or False)
    assert [write(row) for row in show_samples(read_run(run), NO_TEXTS)] == rows


@pytest.mark.parametrize(
    ("name", "y", "after", "worst"),
    [
        ("single_label", [0, 0, 0, 1], [[0.1, 0.9], [0.2, 0.8], [0.9, 0.1], [0.8, 0.2]], [1, 2, 4]),
        (
            "multi_label",
            [[0, 0, 1], [0, 0, 0], [1, 1, 0]],
            [[0.1, 0.2, 0.3], [0.1, 0.2, 0.3], [0.02, 0.9, 0.6]],
            [3, 1],
        ),
        ("regression", [80.0, 50.0, 2.5], [[78.9], [65.0], [2.5]], [2, 1]),
        ("ordinal", [0, 4, 1], [[0, 0, 0, 1, 0], [0, 0, 0, 1, 0], [0, 1, 0, 0, 0]], [1, 2]),
    ],
)
def test_the_worst_mistakes_come_first_and_right_rows_not_at_all(
    write_run: WriteRun, name: str, y: list[object], after: list[list[float]], worst: list[int]
) -> None:
    contents = read_run(write_run(name, y=y, after=after))
    assert [row.row_id for row in show_mistakes(contents, NO_TEXTS)] == worst


@pytest.mark.parametrize("name", TASKS)
def test_a_model_without_mistakes_has_none_to_show(
    write_run: WriteRun, written_run: Callable[[str], Path], name: str
) -> None:
    contents = read_run(written_run(name))
    run = write_run(contents.task, y=contents.y, after=guess_right(contents.task, contents.y))
    assert show_mistakes(read_run(run), NO_TEXTS) == []


def test_ten_mistakes_are_enough(write_run: WriteRun) -> None:
    run = write_run("regression", y=np.arange(12.0), after=[[20.0]] * 12)
    assert [row.row_id for row in show_mistakes(read_run(run), NO_TEXTS)] == list(range(1, 11))


@pytest.mark.parametrize(
    ("name", "labels", "listed"),
    [
        ("single_label", ("neg", "pos"), {"for": "“dull” +2.00", "against": "“<b>” -1.50"}),
        ("multi_label", ("neg", "pos"), {"for": "“dull” +2.00", "against": "“<b>” -1.50"}),
        ("regression", ("value",), {"raises": "“dull” +2.000", "lowers": "“<b>” -1.500"}),
        ("ordinal", ("1", "2"), {"for": "“dull” +2.00", "against": "“<b>” -1.50"}),
    ],
)
def test_the_words_behind_a_mistake_are_marked_and_listed(
    write_run: WriteRun, sign_run: Callable[[Path], None], name: str, labels: tuple[str, ...], listed: dict[str, str]
) -> None:
    task = build_task(name, labels)
    y = task.encode([{"regression": 1.0, "multi_label": ()}.get(name, labels[0])] * 2)
    run = write_run(
        task,
        y=y,
        after=1 - guess_right(task, y) if name != "regression" else [[9.0]] * 2,
        texts="dull <b> superb end {0}".format,
    )
    words = [
        SpanContribution(start=0, end=4, contribution=2.0),
        SpanContribution(start=5, end=8, contribution=-1.5),
        SpanContribution(start=9, end=15, contribution=0.1),
    ]
    mistake = ExplainedMistake(row_id=1, label=labels[-1], words=words, beats_chance=False)
    MistakesRecord(mistakes=[mistake]).write(RunLayout(run).mistakes)
    sign_run(run)
    contents = read_run(run)
    first, second = show_mistakes(contents, read_texts(contents))
    assert first.words is not None
    assert (first.words.label, first.words.listed, first.words.is_doubtful) == (labels[-1], listed, True)
    assert first.words.marks == [(0, 4, "for"), (5, 8, "against")], "weak words are left out"
    assert second.words is None
    assert show_mistakes(contents, NO_TEXTS)[0].words is None
