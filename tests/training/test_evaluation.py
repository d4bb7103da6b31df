import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lorafit
from lorafit.config import Config, EvaluationConfig, load_config
from lorafit.data.loading import load_evaluation_rows, load_splits
from lorafit.data.rows import Split
from lorafit.errors import ConfigError, DataError, RunError
from lorafit.runs.folder import RunLayout
from lorafit.runs.predictions import read_predictions, write_predictions
from lorafit.tasks.evaluation import estimate
from lorafit.tasks.records import MetricsRecord
from lorafit.tasks.registry import TASKS, build_task
from lorafit.training.evaluation import Predicted, build_metrics, evaluate

TASK = build_task("single_label", ("neg", "pos"))
ROWS = Split(ids=np.array([7, 3, 12]), texts=("c", "a", "b"), y=np.array([0, 1, 1]))
PROBABILITIES = np.array([[0.9, 0.1], [0.2, 0.8], [0.75, 0.25]])


class Recorder:
    """A progress that remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def start(self, stage: str, *, total: int | None = None, unit: str = "") -> None:
        self.told.append(f"start {stage} {total} {unit}")

    def update(self, done: int, **metrics: float) -> None:
        self.told.append(f"update {done} {metrics}")

    def finish(self, note: str = "") -> None:
        self.told.append(f"finish {note}")

    def say(self, line: str) -> None:
        self.told.append(f"say {line}")


@pytest.fixture(params=TASKS)
def every_run(request: pytest.FixtureRequest, trained_of: Callable[[str], Path]) -> RunLayout:
    """A trained run of each task in turn, not to be changed."""
    return RunLayout(trained_of(request.param))


@pytest.fixture
def run(trained_of: Callable[[str], Path]) -> RunLayout:
    """A trained run with one label a text, not to be changed."""
    return RunLayout(trained_of("single_label"))


@pytest.fixture
def copy(run: RunLayout, tmp_path: Path) -> RunLayout:
    """A copy of it that the test may change."""
    return RunLayout(Path(shutil.copytree(run.root, tmp_path / "run")))


def read_settings(run: RunLayout) -> Config:
    return load_config(run.config)


def write_csv(path: Path, *rows: str, header: str = "text,label") -> Path:
    path.write_text("\n".join([header, *rows, ""]))
    return path


def test_rows_of_a_group_are_resampled_together_everywhere() -> None:
    """Each row four times over tells no more than once."""
    rng, rows = np.random.default_rng(0), np.repeat(np.arange(80), 4)
    y, after = rng.integers(2, size=80)[rows], rng.dirichlet((1, 1), 80)[rows]
    columns = {"shop": tuple("ab"[row % 2] for row in rows)}
    alone = Split(np.arange(1, 321), ("text",) * 320, y, columns)
    config, predicted = EvaluationConfig(bootstrap_samples=500), Predicted(after, rng.dirichlet((1, 1), 80)[rows])
    first, second = (
        build_metrics("test", split, TASK, config, predicted)
        for split in (alone, dataclasses.replace(alone, groups=tuple(map(str, rows))))
    )
    assert first.comparison is not None
    assert second.comparison is not None
    assert (first.comparison.grouped, second.comparison.grouped) == (False, True)
    pairs = [(one.metrics, other.metrics) for one, other in zip(first.slices, second.slices, strict=True)]
    for one, other in [(first.after.metrics, second.after.metrics), *pairs]:
        one_width, other_width = (metrics["accuracy"].high - metrics["accuracy"].low for metrics in (one, other))
        assert 1.5 < other_width / one_width < 2.7, "four times fewer rows: twice as wide"


def test_a_run_measured_again_gives_its_own_metrics(every_run: RunLayout) -> None:
    recorded, again = MetricsRecord.read(every_run.metrics), evaluate(every_run.root)
    assert again.before is again.comparison is None
    assert (again.task, again.split, again.rows) == (recorded.task, "test", recorded.rows)
    assert again.calibration is not None
    ours, theirs = again.model_dump(), recorded.model_dump()
    for part in ("after", "calibration", "slices"):
        assert flatten(ours[part]) == pytest.approx(flatten(theirs[part]), abs=1e-6, nan_ok=True), part
    assert again.exchangeability is not None
    assert recorded.exchangeability is not None
    assert again.exchangeability.p_value == pytest.approx(recorded.exchangeability.p_value, abs=0.02)


def flatten(part: object) -> list[float]:
    """Return all numbers in nested records."""
    if isinstance(part, dict | list):
        return [number for one in (part.values() if isinstance(part, dict) else part) for number in flatten(one)]
    return [float(part)] if isinstance(part, int | float) else []


def test_baselines_whose_predictions_were_kept_are_measured_again(
    copy: RunLayout, sign_run: Callable[[Path], None]
) -> None:
    assert list(evaluate(copy.root).baselines) == ["majority"]
    rows = load_splits(read_settings(copy).data).test
    write_predictions(copy.predictions("test", "nb_svm"), rows, TASK, np.full((len(rows), 2), 0.5))
    assert list(evaluate(copy.root).baselines) == ["majority"], "a file that the record does not name"
    sign_run(copy.root)
    metrics = evaluate(copy.root)
    assert list(metrics.baselines) == ["majority", "nb_svm"]
    scores, comparison = metrics.baselines["nb_svm"].scores, metrics.baselines["nb_svm"].comparison
    assert scores.metrics["log_loss"].value == pytest.approx(math.log(2))
    gain = metrics.after.metrics["accuracy"].value - scores.metrics["accuracy"].value
    assert comparison.differences["accuracy"].value == pytest.approx(gain)


def test_rows_of_one_class_have_intervals_that_are_intervals(run: RunLayout, tmp_path: Path) -> None:
    texts = [f"{word} film {row}" for row in range(60) for word in ("superb", "lovely")]
    predicted = lorafit.load(run.root, precision="fp32").predict(texts)
    right = [text for text, one in zip(texts, predicted, strict=True) if one.is_right("pos")][:40]
    path = write_csv(tmp_path / "one.csv", *(f"{text},pos" for text in right), header="text,label")
    metrics = evaluate(run.root, str(path))
    accuracy, loss = metrics.after.metrics["accuracy"], metrics.after.metrics["log_loss"]
    assert accuracy.value == 1
    assert 0.85 < accuracy.low < 0.97, "all of 40 may well be 95 %"
    assert loss.low < loss.value < loss.high
    absent, present = metrics.after.per_class
    assert math.isnan(absent.recall.value)
    assert (present.support, present.recall.value, present.recall.low) == (len(right), 1, accuracy.low)
    assert metrics.baselines == {}, "what was trained with the run was not measured on these rows"


def test_another_file_is_measured_on_all_of_its_rows(run: RunLayout, tmp_path: Path) -> None:
    texts = [f"{word} film {row}" for row in range(15) for word in ("awful", "superb", "of")]
    labels = [("neg", "pos")[row % 2] for row in range(len(texts))]
    lines = [f"{text},{label}" for text, label in zip(texts, labels, strict=True)]
    path = write_csv(tmp_path / "more.csv", *lines, header="review,mood")
    metrics = evaluate(run.root, str(path), flags={"data.text_column": "review", "data.label_column": "mood"})
    predictions = lorafit.load(run.root, precision="fp32").predict(texts)
    right = [prediction.is_right(label) for prediction, label in zip(predictions, labels, strict=True)]
    assert (metrics.split, metrics.rows) == ("more.csv", 45)
    assert metrics.after.metrics["accuracy"].value == pytest.approx(np.mean(right))  # type: ignore[arg-type]


def test_slices_are_those_of_the_columns_that_are_named(run: RunLayout, tmp_path: Path) -> None:
    rows = [f"{('awful', 'superb')[row % 2]} film {row},{('neg', 'pos')[row % 2]},{'ab'[row % 2]}" for row in range(40)]
    path = str(write_csv(tmp_path / "more.csv", *rows, header="text,label,shop"))
    assert {one.column for one in evaluate(run.root, path).slices} == {"words"}
    named = evaluate(run.root, path, flags={"data.slice_columns": ["shop"]}).slices
    assert [(one.column, one.value, one.rows) for one in named[1:]] == [("shop", "a", 20), ("shop", "b", 20)]


def test_rows_of_a_group_in_other_data_are_resampled_together_where_its_column_is_named(
    run: RunLayout, tmp_path: Path
) -> None:
    rng, words = np.random.default_rng(0), (("awful", "neg"), ("superb", "pos"))
    rows = [
        f"{words[row % 2][0]} film {row},{words[(row % 2) ^ wrong][1]},author {row}"
        for row, wrong in enumerate(rng.random(60) < 0.4)
        for _ in range(4)
    ]
    path, recorder = str(write_csv(tmp_path / "more.csv", *rows, header="text,label,author")), Recorder()
    alone = evaluate(run.root, path).after.metrics
    together = evaluate(run.root, path, flags={"data.group_column": "author"}, progress=recorder).after.metrics
    assert "say more.csv: intervals are those of whole groups (60 values of author)." in recorder.told
    for name in ("accuracy", "log_loss"):
        assert together[name].value == alone[name].value
        ratio = (together[name].high - together[name].low) / (alone[name].high - alone[name].low)
        assert 1.5 < ratio < 2.7, "four times fewer rows: twice as wide"


def test_own_rows_keep_the_groups_that_they_were_cut_by(run: RunLayout) -> None:
    for data in (None, read_settings(run).data.source):
        with pytest.raises(ConfigError, match=r"--group-column author is for other data.*cut by no groups"):
            evaluate(run.root, data, flags={"data.group_column": "author"})


def test_progress_is_told(run: RunLayout, tmp_path: Path) -> None:
    recorder = Recorder()
    path = write_csv(tmp_path / "more.csv", *(f"fine film {row},pos" for row in range(10)))
    evaluate(run.root, str(path), progress=recorder)
    first, *updates, last = recorder.told
    assert (first, last) == ("start measuring 10 text", "finish ")
    assert "update 10 {}" in updates
    assert any(line.startswith("start reading calibration rows") for line in updates)


def test_rows_that_the_run_was_trained_on_are_told_in_another_file(run: RunLayout, tmp_path: Path) -> None:
    rows = load_splits(read_settings(run).data).train.select(np.arange(3))
    seen = [f"{text.upper()},{('neg', 'pos')[row % 2]}" for row, text in enumerate(rows.texts)]
    path, recorder = write_csv(tmp_path / "more.csv", *seen, "never seen,pos", "nor this,neg"), Recorder()
    evaluate(run.root, str(path), progress=recorder)
    (note,) = (line for line in recorder.told if "was trained on" in line)
    assert f"{run.root} was trained on 3 of these 5 texts: scores on them are too good" in note
    recorder = Recorder()
    evaluate(run.root, progress=recorder)
    assert not any("was trained on" in line for line in recorder.told)


def test_rows_of_another_kind_than_the_calibration_rows_are_told_while_these_are_known(
    copy: RunLayout, tmp_path: Path, edit_record: Callable[..., None]
) -> None:
    lines = [f"wonderful wonderful story and a superb end {row % 7},{('neg', 'pos')[row % 2]}" for row in range(80)]
    path = write_csv(tmp_path / "more.csv", *lines)
    found = evaluate(copy.root, str(path)).exchangeability
    assert found is not None
    assert (found.rows, found.p_value) == (80, 1 / 1000)
    assert found.is_refuted
    edit_record(copy.record, lambda record: record["data"]["splits"]["calibration"].update(fingerprint="0" * 64))
    recorder = Recorder()
    assert evaluate(copy.root, str(path), progress=recorder).exchangeability is None
    assert "its calibration rows are not known any more" in recorder.told[-1]


def test_labels_that_training_did_not_have_are_refused_with_their_rows(run: RunLayout, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "more.csv", "fine,pos", "dull,meh", "poor,neg", "so,meh")
    with pytest.raises(DataError, match=r"labels that training did not have: \['meh'\] \(rows 2, 4\).*'neg', 'pos'"):
        evaluate(run.root, str(path))


def test_bad_rows_are_refused_or_left_out(run: RunLayout, tmp_path: Path) -> None:
    path = str(write_csv(tmp_path / "more.csv", "fine,pos", ",pos", "poor,neg"))
    with pytest.raises(DataError, match=r"1 of 3 rows cannot be used: an empty text \(row 2\)"):
        evaluate(run.root, path)
    assert evaluate(run.root, path, flags={"data.bad_rows": "drop"}).rows == 2


@pytest.mark.parametrize("named", ["", "file", "link"])
def test_the_own_test_rows_are_not_guessed_when_the_data_have_changed(
    run: RunLayout, copy: RunLayout, sign_run: Callable[[Path], None], tmp_path: Path, named: str
) -> None:
    source = Path(read_settings(run).data.source)
    rows = Path(shutil.copy(source, tmp_path))
    copy.config.write_text(copy.config.read_text().replace(str(source), str(rows)))
    sign_run(copy.root)
    assert evaluate(copy.root).rows == MetricsRecord.read(run.metrics).rows, "the same rows elsewhere"
    (tmp_path / "link.jsonl").symlink_to(rows)
    with rows.open("a") as file:
        for text, label in (("great once more", "pos"), ("dull once more", "neg")):
            file.write(json.dumps({"text": text, "label": label}) + "\n")
    data = {"": None, "file": str(rows), "link": str(tmp_path / "link.jsonl")}[named]
    with pytest.raises(DataError, match=r"\.jsonl has changed since training.*could now be among the test"):
        evaluate(copy.root, data)


def test_settings_of_another_task_are_refused(copy: RunLayout, sign_run: Callable[[Path], None]) -> None:
    copy.config.write_text(copy.config.read_text().replace("task: single_label", "task: multi_label"))
    sign_run(copy.root)
    with pytest.raises(RunError, match=r"config\.yaml was altered: data\.task is multi_label, .* with single_label"):
        evaluate(copy.root)


def test_predictions_of_a_run_stand_in_input_order(every_run: RunLayout) -> None:
    config = read_settings(every_run)
    splits = load_splits(config.data)
    assert splits.test.ids.tolist() == sorted(splits.test.ids.tolist())
    assert (
        load_evaluation_rows(config.data.source, config.data, splits.task).split.ids.tolist()
        == splits.test.ids.tolist()
    )
    values = read_predictions(every_run.predictions("test", "after"), splits.test, splits.task)
    assert values is not None
    expected = lorafit.load(every_run.root).compute_values(splits.test.texts)
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_metrics_compare_with_every_other_model_on_the_same_rows() -> None:
    config = EvaluationConfig(bootstrap_samples=100, confidence_level=0.9)
    even = np.full((3, 2), 0.5)
    predicted = Predicted(PROBABILITIES, before=even, baselines={"nb_svm": even})
    metrics = build_metrics("test", ROWS, TASK, config, predicted)
    assert (metrics.task, metrics.split, metrics.rows) == ("single_label", "test", 3)
    assert (metrics.confidence_level, metrics.bootstrap_samples) == (0.9, 100)
    for scores, values in (
        (metrics.after, PROBABILITIES),
        (metrics.before, even),
        (metrics.baselines["nb_svm"].scores, even),
    ):
        assert scores is not None
        assert scores.metrics.keys() == TASK.metrics.keys()
        expected = estimate(TASK, ROWS.y, values, config.resampling)
        for name, one in expected.metrics.items():
            assert scores.metrics[name].value == pytest.approx(one.value, nan_ok=True), name
        assert scores.confusion_matrix == expected.confusion_matrix
    assert metrics.comparison is not None
    assert metrics.comparison == metrics.baselines["nb_svm"].comparison
    assert metrics.comparison.differences["accuracy"].value == pytest.approx(1 / 3)
    assert (metrics.comparison.rows_fixed, metrics.comparison.rows_broken) == (1, 0)
    assert metrics.calibration is None
