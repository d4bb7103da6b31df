import json
import re
from collections.abc import Callable, Sequence
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorafit.answers import Predicted
from lorafit.config import load_config
from lorafit.data.checks import count_labels
from lorafit.data.sources import load_splits
from lorafit.data.tables import read_table
from lorafit.data.writing import write_table
from lorafit.errors import RunError
from lorafit.reports.page import write_report
from lorafit.reports.reading import Texts, read_texts
from lorafit.reports.task_reading import TaskContents, read_task_run
from lorafit.reports.task_rows import render_task_mistakes, render_task_samples
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import RunRecord, SplitRecord
from lorafit.system.progress import Silent
from lorafit.task_evidence import IntervalCalibration
from lorafit.training.evaluation import build_metrics, write_predictions

BuildRows = Callable[..., Path]
TakeApart = Callable[[str], Any]
NAMES = ("health", "politics", "sport")
MAILS = [("a vote on hospitals", ["health", "politics"]), ("a quiet day", []), ("a match", ["sport"])]
SAID = [[0.021, 0.931, 0.602], [0.1, 0.2, 0.3], [0.1, 0.2, 0.3]]
FILMS = [("superb film", 80.0), ("awful film", 50.0), ("fine film", 2.5)]
GUESSES = [[78.9], [65.0], [2.5]]
SCRIPT = '"><script>alert(2)</script></svg></main><!-- ]]> $x$ \N{RIGHT-TO-LEFT OVERRIDE}'


def write_rows(path: Path, rows: Sequence[tuple[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps({'text': text, 'label': label})}\n" for text, label in rows), "utf-8")
    return path


@pytest.fixture
def build_rows(run_record: RunRecord, tmp_path: Path) -> BuildRows:
    """Builds a finished run without training: its test rows, and what the model said of them before and after.

    Rows of which the label is a number make a run with a number, others one with several of the `names`.
    """

    def build(
        rows: Sequence[tuple[str, Any]],
        finetuned: Sequence[Sequence[float]],
        baseline: Sequence[Sequence[float]] | None = None,
        *,
        names: Sequence[str] = NAMES,
        half_width: float | None = None,
        settings: dict[str, Any] | None = None,
    ) -> Path:
        is_number = isinstance(rows[0][1], float)
        labels = [float(row) if is_number else list(names[: row % (len(names) + 1)]) for row in range(60)]
        train = [(f"to train on {row}", label) for row, label in enumerate(labels)]
        flags = {
            "data.source": str(write_rows(tmp_path / "train.jsonl", train)),
            "data.test": str(write_rows(tmp_path / "test.jsonl", rows)),
            "data.task": "regression" if is_number else "multi_label",
            "data.calibration_fraction": 0,
            "evaluation.bootstrap_samples": 100,
        }
        config = load_config(flags={**flags, **(settings or {})})
        splits = load_splits(config.data)
        calibration = None
        if half_width is not None:
            calibration = IntervalCalibration(rows=99, coverage=0.9, half_width=half_width)
        predicted = Predicted(
            finetuned=np.array(finetuned),
            baseline=None if baseline is None else np.array(baseline),
            calibration=calibration,
        )
        layout = RunLayout(tmp_path / "run")
        layout.root.mkdir()
        layout.config.write_text(config.to_yaml(), encoding="utf-8")
        build_metrics("test", splits.test, splits.labels, config.evaluation, predicted).write(layout.metrics)
        for model, said in {"finetuned": predicted.finetuned, "baseline": predicted.baseline}.items():
            if said is not None:
                write_predictions(layout.predictions("test", model), splits.test, splits.labels, said)
        described = {
            name: SplitRecord(
                rows=len(split),
                label_counts=count_labels(split.labels, splits.labels),
                fingerprint=split.fingerprint(),
                tokens=10 * len(split),
                truncated=0,
            )
            for name, split in splits.by_name.items()
        }
        data = run_record.data.model_copy(update={"source": splits.source, "splits": described})
        changes = {"task": splits.labels.task, "labels": list(splits.labels.names), "data": data}
        run_record.model_copy(update={**changes, "seconds": {"training": 12.0}}).write(layout.record)
        return layout.root

    return build


def list_items(html: str) -> list[str]:
    """Return the text of each row of a list, without markup."""
    items = html.partition("<ul")[2].split("<li>")[1:]
    return [" ".join(unescape(re.sub("<[^>]*>", "", item)).split()) for item in items]


def show_samples(contents: TaskContents) -> list[str]:
    return list_items(" ".join(render_task_samples(contents, read_texts(contents))))


def show_mistakes(contents: TaskContents) -> list[str]:
    return list_items(" ".join(render_task_mistakes(contents, read_texts(contents))))


def test_samples_of_several_labels_say_what_is_true_and_what_was_given(build_rows: BuildRows) -> None:
    contents = read_task_run(build_rows(MAILS, SAID, [[0.5, 0.4, 0.4]] * 3))
    assert show_samples(contents) == [
        "Row 1, true labels health, politics a vote on hospitals before: health 50.0% ✗ wrong (missing: politics "
        "40.0%) after: politics 93.1%, sport 60.2% ✗ wrong (not true: sport; missing: health 2.1%)",
        "Row 2, no true label a quiet day before: health 50.0% ✗ wrong (not true: health) after: no label ✓ right",
        "Row 3, true label sport a match before: health 50.0% ✗ wrong (not true: health; missing: sport 40.0%) "
        "after: no label ✗ wrong (missing: sport 30.0%)",
    ]


def test_mistakes_of_several_labels_come_by_the_surest_wrong_decision(build_rows: BuildRows) -> None:
    contents = read_task_run(build_rows(MAILS[::-1], SAID[::-1]))
    shown = show_mistakes(contents)
    assert [item.partition(",")[0] for item in shown] == ["Row 3", "Row 1"]
    assert "before" not in " ".join(shown)


def test_samples_of_numbers_say_how_far_off_they_are_and_whether_the_interval_holds(build_rows: BuildRows) -> None:
    contents = read_task_run(build_rows(FILMS, GUESSES, [[60.0]] * 3, half_width=5.0))
    page = " ".join(render_task_samples(contents, read_texts(contents)))
    assert "with the number given and, after training, its interval.</p>" in page
    assert list_items(page) == [
        "Row 1, true number 80 superb film before: 60.00, 20.00 too low "
        "after: 78.90 [73.90, 83.90], 1.100 too low ✓ the interval holds the true number",
        "Row 2, true number 50 awful film before: 60.00, 10.00 too high "
        "after: 65.00 [60.00, 70.00], 15.00 too high ✗ the interval misses the true number",
        "Row 3, true number 2.500 fine film before: 60.00, 57.50 too high "
        "after: 2.500 [-2.500, 7.500], exactly right ✓ the interval holds the true number",
    ]


def test_largest_errors_come_first_and_exact_numbers_not_at_all(build_rows: BuildRows) -> None:
    shown = show_mistakes(read_task_run(build_rows(FILMS, GUESSES)))
    assert shown == [
        "Row 2, true number 50 awful film after: 65.00, 15.00 too high",
        "Row 1, true number 80 superb film after: 78.90, 1.100 too low",
    ]


@pytest.mark.parametrize(
    ("rows", "said", "none"),
    [
        (MAILS, [[0.9, 0.9, 0.1], [0.1, 0.1, 0.1], [0.1, 0.1, 0.9]], "every test row gets exactly its labels"),
        (FILMS, [[80.0], [50.0], [2.5]], "every number is exactly right"),
    ],
)
def test_a_model_without_mistakes_has_none_to_show(
    build_rows: BuildRows, rows: Sequence[tuple[str, Any]], said: list[list[float]], none: str
) -> None:
    contents = read_task_run(build_rows(rows, said))
    assert list(render_task_mistakes(contents, read_texts(contents))) == [f"<p>There are none: {none}.</p>"]


def test_of_twelve_rows_six_are_drawn_and_ten_mistakes_shown(build_rows: BuildRows) -> None:
    contents = read_task_run(build_rows([(f"film {row}", float(row)) for row in range(12)], [[20.0]] * 12))
    samples, mistakes = show_samples(contents), show_mistakes(contents)
    drawn = sorted(np.random.default_rng(0).choice(12, size=6, replace=False))
    assert [item.partition(",")[0] for item in samples] == [f"Row {row + 1}" for row in drawn]
    assert [item.partition(",")[0] for item in mistakes] == [f"Row {row + 1}" for row in range(10)]


def test_of_many_labels_the_surest_are_named_and_the_others_counted(build_rows: BuildRows) -> None:
    names = [f"label {number:02}" for number in range(20)]
    said = [[0.5 + number / 50 for number in range(20)]]
    (shown,) = show_mistakes(read_task_run(build_rows([("a text", names[:12])], said, names=names)))
    assert shown.startswith("Row 1, true labels label 00, label 01, ")
    assert "label 07 and 4 more a text after: label 19 88.0%, label 18 86.0%, " in shown
    assert "label 12 74.0% and 12 more ✗ wrong (not true: label 19, label 18, " in shown
    assert shown.endswith(" label 12)")


def test_texts_and_labels_are_escaped_and_cut(build_rows: BuildRows, take_apart: TakeApart) -> None:
    names = [SCRIPT, "<b>bold</b>", "x" * 200, "中文, 🎬"]
    texts = [f"{SCRIPT} {row} {'long ' * 300}" for row in range(4)]
    rows = [(text, [names[row]]) for row, text in enumerate(texts)]
    page = write_report(build_rows(rows, [[0.9] * 4] * 4, names=names)).read_text("utf-8")
    parts = take_apart(page)
    assert parts.open == []
    assert parts.named("script", "img", "iframe", "object") == []
    assert (len(parts.named("main")), len(parts.named("style"))) == (1, 1)
    shown = [attributes for attributes in parts.named("p") if attributes.get("class") == "text"]
    assert len(shown) == 8, "four samples, four mistakes"
    assert "<script>alert(2)</script>" in parts.text
    assert "true label 中文, 🎬" in parts.text
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in page
    assert "x" * 61 not in page.partition("sample-predictions-heading")[2].partition("</section>")[0]
    assert "long " * 40 in page
    assert "long " * 100 not in page


@pytest.mark.parametrize("settings", [{}, {"evaluation.report_texts": False}])
@pytest.mark.parametrize(("rows", "said"), [(MAILS, SAID), (FILMS, GUESSES)])
def test_texts_are_left_out_when_that_is_asked_for(
    build_rows: BuildRows, rows: Sequence[tuple[str, Any]], said: list[list[float]], settings: dict[str, Any]
) -> None:
    page = write_report(build_rows(rows, said, settings=settings), texts=bool(settings)).read_text("utf-8")
    assert [text for text, _ in rows if text in page] == []
    assert page.count("Texts are left out, as was asked for.") == 2
    assert "Row 1, true " in page


class Lines(Silent):
    """A progress that keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.mark.parametrize(("rows", "said"), [(MAILS, SAID), (FILMS, GUESSES)])
def test_texts_that_changed_are_left_out_with_the_reason(
    build_rows: BuildRows, rows: Sequence[tuple[str, Any]], said: list[list[float]], tmp_path: Path
) -> None:
    run, progress = build_rows(rows, said), Lines()
    splits = load_splits(load_config(RunLayout(run).config).data)
    write_rows(tmp_path / "test.jsonl", [(f"{text}!", label) for text, label in rows])
    page = write_report(run, progress=progress).read_text("utf-8")
    assert page.count("Texts are left out: the data have changed since the run.") == 2
    assert [text for text, _ in rows if text in page] == []
    assert str(tmp_path) not in page
    (tmp_path / "test.jsonl").unlink()
    assert "the data could not be read again" in write_report(run, progress=progress).read_text("utf-8")
    changed, missing = progress.lines
    assert "fingerprint" in changed
    assert "test.jsonl" in missing
    page = write_report(run, rows=splits.test).read_text("utf-8")
    assert [text for text, _ in rows if text not in page] == [], "rows at hand are not read again"


def test_without_texts_rows_are_named_by_their_number(build_rows: BuildRows) -> None:
    contents = read_task_run(build_rows(MAILS, SAID))
    page = "".join(render_task_samples(contents, Texts(None, "Because.")))
    assert "Because." in page
    assert "Row 3, true label <b>sport</b>" in page


def change(path: Path, **columns: object) -> None:
    write_table(path, {**read_table(path).columns, **columns})  # type: ignore[dict-item]


@pytest.mark.parametrize("model", ["finetuned", "baseline"])
@pytest.mark.parametrize(
    "columns",
    [
        {"true_labels": [["health"], [], ["sport"]]},
        {"true_labels": [["health", "politics"], [], ["music"]]},
        {"true_labels": ["health", "politics", "sport"]},
        {"true_labels": [None, [], ["sport"]]},
        {"probability_sport": [0.602, 0.3, 0.31]},
        {"probability_sport": [0.602, 0.3, 1.3]},
        {"probability_sport": ["a", "b", "c"]},
        {"row_id": [1, 2, None]},
    ],
)
def test_predictions_of_several_labels_that_were_altered_are_named(
    build_rows: BuildRows, model: str, columns: dict[str, object]
) -> None:
    run = build_rows(MAILS, SAID, SAID)
    change(RunLayout(run).predictions("test", model), **columns)
    with pytest.raises(RunError, match=rf"test\.{model}\.parquet was altered"):
        write_report(run)


@pytest.mark.parametrize("model", ["finetuned", "baseline"])
@pytest.mark.parametrize("columns", [{"value": [78.9, 65.0, 2.51]}, {"true_value": [80.0, None, 2.5]}])
def test_predictions_of_numbers_that_were_altered_are_named(
    build_rows: BuildRows, model: str, columns: dict[str, object]
) -> None:
    run = build_rows(FILMS, GUESSES, GUESSES)
    change(RunLayout(run).predictions("test", model), **columns)
    with pytest.raises(RunError, match=rf"test\.{model}\.parquet was altered"):
        write_report(run)


def test_predictions_before_training_must_be_there_and_of_the_same_rows(build_rows: BuildRows) -> None:
    run = build_rows(FILMS, GUESSES, GUESSES)
    path = RunLayout(run).predictions("test", "baseline")
    change(path, row_id=[3, 2, 1])
    with pytest.raises(RunError, match=r"test\.baseline\.parquet is of other rows"):
        write_report(run)
    path.unlink()
    with pytest.raises(RunError, match=r"cannot be read\. There is no file .*test\.baseline\.parquet"):
        write_report(run)
