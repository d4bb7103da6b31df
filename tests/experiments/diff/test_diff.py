"""What changes from one run to another, on predictions known in advance."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binomtest

from lorafit.errors import ConfigError, DataError, RunError
from lorafit.experiments.diff.diff import diff
from lorafit.experiments.diff.gates import list_gates
from lorafit.experiments.diff.records import DiffRecord
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import RunRecord
from lorafit.system.progress import Silent
from lorafit.tasks.evaluation import judge
from lorafit.tasks.records import MetricsRecord
from lorafit.tasks.registry import build_task
from lorafit.tasks.statistics import adjust_p_values

Draw = Callable[..., SimpleNamespace]
WriteRun = Callable[..., Path]
EditRecord = Callable[..., None]
SignRun = Callable[[Path], None]
WritePair = Callable[..., tuple[Path, Path]]
TRUTH = ["neg", "pos"] * 100


def flip(guesses: list[str], *rows: int) -> list[str]:
    return [{"neg": "pos", "pos": "neg"}[one] if row in rows else one for row, one in enumerate(guesses)]


def read_slices(record: DiffRecord, column: str) -> dict[str, tuple[int, int, int]]:
    """Rows, rows fixed and rows broken of each slice of a column."""
    return {
        one.value: (one.rows, one.comparison.rows_fixed, one.comparison.rows_broken)
        for one in record.slices
        if one.column == column
    }


# What is measured


def test_scores_are_those_of_the_runs_and_differences_b_minus_a(models: SimpleNamespace, write_pair: WritePair) -> None:
    a, b = write_pair(models)
    record, task = diff(a, b), models.task
    own = [MetricsRecord.read(RunLayout(run).metrics).after for run in (a, b)]
    assert [record.a.scores, record.b.scores] == own
    assert (record.task, record.rows, record.labels) == (task.name, 200, list(task.label_names))
    assert list(record.comparison.differences) == list(task.metrics)
    pairs = [(record.comparison.differences[name], *(one.metrics[name] for one in own)) for name in task.metrics]
    pairs += [(record.diff_metrics[name], record.a.metrics[name], record.b.metrics[name]) for name in record.a.metrics]
    for difference, before, after in pairs:
        assert difference.value == pytest.approx(after.value - before.value)
        assert math.isnan(difference.low) or difference.low <= difference.value <= difference.high
    assert set(record.diff_metrics) == set(task.diff_metrics)
    assert judge(task, record.comparison, 0.95) == "better"
    assert record.slowdown == 1.25


def test_rows_fixed_and_broken_are_counted_and_tested_exactly(models: SimpleNamespace, write_pair: WritePair) -> None:
    paired = diff(*write_pair(models)).comparison
    was, now = (models.task.row_errors(models.y, values) for values in (models.before, models.after))
    fixed, broken = int((now < was).sum()), int((now > was).sum())
    assert (paired.rows_fixed, paired.rows_broken) == (fixed, broken)
    assert 0 < broken < fixed
    assert paired.p_value == pytest.approx(binomtest(fixed, fixed + broken).pvalue)


def test_a_run_against_itself_changes_nothing(models: SimpleNamespace, write_pair: WritePair) -> None:
    run = write_pair(models)[0]
    record = diff(run, run, gate=",".join(f"{name}<=0" for name in list_gates(models.task)[:-1]))
    assert all(one.value == 0 and one.low <= 0 <= one.high for one in record.comparison.differences.values())
    paired = record.comparison
    assert (paired.rows_fixed, paired.rows_broken, paired.p_value, record.slowdown) == (0, 0, 1, 1)
    assert len(record.gates) == len(list_gates(models.task)) - 1
    assert all(result.holds and result.value == 0 for result in record.gates)
    assert {one.adjusted_p_value for one in record.slices} == {1}
    assert record.a == record.b
    text = record.model_dump_json()
    assert DiffRecord.model_validate_json(text).model_dump_json() == text


def test_known_flips_are_counted(write_guesses: WriteRun) -> None:
    a = write_guesses("a", TRUTH, flip(TRUTH, 0, 1, 2, 3, 4))
    b = write_guesses("b", TRUTH, flip(TRUTH, 0, 1, 7, 9, 11, 13))
    record = diff(a, b)
    paired, flips = record.comparison, record.diff_metrics["negative_flips"]
    assert (paired.rows_fixed, paired.rows_broken) == (3, 4)
    assert paired.p_value == pytest.approx(1)
    assert paired.differences["accuracy"].value == pytest.approx(-1 / 200)
    assert (flips.value, record.diff_metrics["churn"].value) == (4 / 200, 7 / 200)
    assert flips.low < 4 / 200 < flips.high
    assert read_slices(record, "label") == {"neg": (100, 2, 0), "pos": (100, 1, 4)}
    turned = diff(b, a)
    assert (turned.comparison.rows_fixed, turned.comparison.rows_broken) == (4, 3)
    assert turned.diff_metrics["negative_flips"].value == 3 / 200


def test_a_row_with_several_labels_flips_once_they_are_not_exactly_right(
    draw_models: Draw, write_pair: WritePair
) -> None:
    models = draw_models("multi_label")
    record = diff(*write_pair(models))
    was, now = models.before >= 0.5, models.after >= 0.5
    right, wrong = (was == models.y).all(axis=1), (now != models.y).any(axis=1)
    assert record.diff_metrics["negative_flips"].value == (right & wrong).sum() / 200
    assert 0 < (right & wrong).sum() < record.comparison.rows_broken, "a row may get worse that was wrong before"
    assert record.diff_metrics["churn"].value == (was != now).any(axis=1).sum() / 200


def test_a_score_that_is_nearer_is_fixed_though_still_wrong(write_values: WriteRun) -> None:
    task, y = build_task("ordinal", ("1", "2", "3", "4", "5")), np.zeros(40, dtype=np.int64)
    guess = np.where(np.arange(40) < 10, 3, 0)
    a = write_values("a", task, y, np.eye(5)[guess])
    b = write_values("b", task, y, np.eye(5)[np.where(np.arange(40) < 10, 1, guess)])
    record = diff(a, b)
    assert (record.comparison.rows_fixed, record.comparison.rows_broken) == (10, 0)
    assert record.comparison.differences["mae"].value == pytest.approx(-20 / 40)
    assert record.comparison.differences["accuracy"].value == 0
    assert (record.diff_metrics["negative_flips"].value, record.diff_metrics["churn"].value) == (0, 10 / 40)


def test_intervals_of_numbers_are_measured_by_their_coverage_and_width(
    draw_models: Draw, write_pair: WritePair
) -> None:
    models = draw_models("regression")
    record = diff(*write_pair(models))
    sides = ((record.a, models.before, 10), (record.b, models.after, 6))
    held = [(np.abs(values[:, 0] - models.y) <= width).sum() for _, values, width in sides]
    assert [side.metrics["coverage"].value for side, *_ in sides] == [count / 200 for count in held]
    assert [side.metrics["half_width"].value for side, *_ in sides] == [10, 6]
    assert record.diff_metrics["half_width"].value == -4
    assert (record.a.asked, record.b.asked) == ({"coverage": 0.9}, {"coverage": 0.9})
    assert not any("calibrated for" in note for note in record.notes)


def test_models_without_a_calibration_are_compared_by_the_rest(draw_models: Draw, write_pair: WritePair) -> None:
    models = draw_models("regression")
    a, b = write_pair(models, calibration=False)
    record = diff(a, b)
    assert (record.a.metrics, record.a.asked, record.diff_metrics) == ({}, {}, {})
    for gate in ("coverage>=-0.1", "half_width<=1"):
        with pytest.raises(RunError, match=rf"gate {gate} cannot be judged: .* \S+a or \S+b has no calibration"):
            diff(a, b, gate=gate)


def test_calibrations_for_another_coverage_are_told(draw_models: Draw, write_values: WriteRun) -> None:
    models = draw_models("regression")
    first, second = models.calibrations
    a = write_values("a", models.task, models.y, models.before, calibration=first)
    other = second.model_copy(update={"coverage": 0.95})
    b = write_values("b", models.task, models.y, models.after, calibration=other)
    (note,) = (note for note in diff(a, b).notes if "calibrated for" in note)
    assert note.startswith("A was calibrated for a coverage of 90 %, B for 95 %")


def test_calibration_change_is_seen_where_no_label_changes(write_guesses: WriteRun) -> None:
    guesses = flip(TRUTH, *range(20))
    sure = write_guesses("sure", TRUTH, guesses, confidence=0.999)
    record = diff(sure, write_guesses("calibrated", TRUTH, guesses))
    assert record.diff_metrics["churn"].value == 0
    assert record.a.metrics["ece"].value == pytest.approx(0.099)
    assert record.b.metrics["ece"].value == pytest.approx(0)
    assert record.diff_metrics["ece"].value == pytest.approx(-0.099)
    assert record.comparison.differences["log_loss"].high < 0


def test_ten_rows_are_measured_and_called_few(write_guesses: WriteRun) -> None:
    a, b = write_guesses("a", TRUTH[:10], TRUTH[:10]), write_guesses("b", TRUTH[:10], flip(TRUTH[:10], 3))
    record = diff(a, b)
    assert record.rows == 10
    assert record.diff_metrics["negative_flips"].value == 0.1
    assert record.diff_metrics["negative_flips"].high > 0.4
    assert any(note.startswith("10 rows are few: the intervals are wide") for note in record.notes)
    assert not any("few" in note for note in diff(*(write_guesses(name, TRUTH, TRUTH) for name in "cd")).notes)


def test_a_class_without_test_rows_is_measured(write_guesses: WriteRun) -> None:
    truth, labels = ["neg", "pos"] * 20, ("neg", "neutral", "pos")
    a = write_guesses("a", truth, ["neutral", *truth[1:]], labels=labels)
    b = write_guesses("b", truth, [*truth[:-1], "neutral"], labels=labels)
    record = diff(a, b)
    assert (record.comparison.rows_fixed, record.comparison.rows_broken) == (1, 1)
    assert list(read_slices(record, "label")) == ["neg", "pos"]
    assert [one.support for one in record.a.scores.per_class] == [20, 0, 20]


def test_a_constant_predictor_is_measured(write_guesses: WriteRun) -> None:
    record = diff(write_guesses("a", TRUTH, ["neg"] * 200), write_guesses("b", TRUTH, ["pos"] * 200))
    assert (record.comparison.rows_fixed, record.comparison.rows_broken) == (100, 100)
    assert record.diff_metrics["churn"].value == 1
    assert record.comparison.differences["mcc"].value == 0
    assert record.comparison.differences["macro_f1"].value == 0


def test_speeds_under_different_conditions_are_called_so(write_guesses: WriteRun, run_record: RunRecord) -> None:
    hardware = run_record.hardware.model_copy(update={"threads": 1})
    a, b = write_guesses("a", TRUTH, TRUTH), write_guesses("b", TRUTH, TRUTH, hardware=hardware)
    (note,) = (note for note in diff(a, b).notes if "conditions" in note)
    assert note == "Speeds were measured under different conditions: A on c, 2 threads, fp32; B on c, 1 thread, fp32."


# Slices


class Recorder(Silent):
    """A progress that remembers the stages with their lengths, and how far the last that was counted came."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int | None]] = []
        self.done = 0

    def start(self, stage: str, *, total: int | None = None, **_: object) -> None:
        self.stages.append((stage, total))

    def update(self, done: int, **_: object) -> None:
        self.done = done


def test_slices_are_labels_lengths_and_columns_each_with_its_own_test(
    models: SimpleNamespace, write_pair: WritePair
) -> None:
    task, kinds = models.task, ["book", "film", "film", "film"]
    progress = Recorder()
    record = diff(
        *write_pair(models, columns={"kind": kinds}, texts=lambda row, _: f"{'word ' * (20 * (row % 2))}{row} film"),
        progress=progress,
    )
    assert record.notes == []
    marks = task.mark_labels(models.y)
    members = {("label", name): has for name, has in zip(task.label_names, marks.T, strict=False)}
    assert bool(members) is (task.count(models.y) != {})
    odd, book = np.arange(200) % 2 == 1, np.arange(200) % 4 == 0
    members |= {("words", "1-15"): ~odd, ("words", "16-63"): odd, ("kind", "film"): ~book, ("kind", "book"): book}
    assert [(one.column, one.value) for one in record.slices] == list(members)
    for one, rows in zip(record.slices, members.values(), strict=True):
        y, values = models.y[rows], (models.before[rows], models.after[rows])
        assert one.rows == rows.sum()
        points = [float(task.compute(task.row_statistics(y, given).sum(axis=0))[task.primary]) for given in values]
        assert [one.before[task.primary], one.after[task.primary]] == pytest.approx(points)
        assert list(one.comparison.differences) == list(task.slice_metrics), "nothing else is resampled"
        difference = one.comparison.differences[task.primary]
        assert difference.value == pytest.approx(points[1] - points[0])
        assert difference.low <= difference.value <= difference.high
        was, now = (task.row_errors(y, given) for given in values)
        assert (one.comparison.rows_fixed, one.comparison.rows_broken) == ((now < was).sum(), (now > was).sum())
    assert [one.adjusted_p_value for one in record.slices] == adjust_p_values(
        [one.comparison.p_value for one in record.slices]
    )
    assert progress.stages == [("comparing slices", len(members)), ("comparing", None)]
    assert progress.done == len(members)


def test_without_the_data_slices_are_labels_alone(models: SimpleNamespace, write_pair: WritePair) -> None:
    a, b = write_pair(models)
    (a.parent / "a-test.jsonl").write_text('{"text": "changed", "label": "1"}\n', encoding="utf-8")
    changed = diff(a, b)
    (a.parent / "a.jsonl").unlink()
    gone = diff(a, b)
    for record in (changed, gone):
        assert {one.column for one in record.slices} <= {"label"}
        (note,) = (note for note in record.notes if "cannot be read as it was" in note)
        assert note.startswith(str(a.parent / "a.jsonl"))
    with pytest.raises(DataError, match=r"a\.jsonl"):
        diff(a, b, flags={"data.slice_columns": ["kind"]})


def test_rows_of_a_group_are_resampled_together(models: SimpleNamespace, write_pair: WritePair) -> None:
    rows = np.repeat(np.arange(len(models.y)), 4)
    many = SimpleNamespace(**{**vars(models), "y": models.y[rows]})
    many.before, many.after = models.before[rows], models.after[rows]
    wishes = {"columns": {"author": [f"author {row}" for row in rows]}, "texts": lambda row, _: f"film {row}"}
    a, b = write_pair(many, **wishes)
    alone = diff(a, b)
    with pytest.raises(ConfigError, match=r"--group-column author is for other rows: lorafit diff A B DATA"):
        diff(a, b, flags={"data.group_column": "author"})
    for old in (a, b):
        shutil.rmtree(old)
    a, b = write_pair(many, **wishes, flags={"data.group_column": "author"})
    grouped = diff(a, b)
    assert (alone.comparison.grouped, grouped.comparison.grouped) == (False, True)
    assert all(one.comparison.grouped for one in grouped.slices if one.column == "label")
    primary = models.task.primary
    sides = [(record.comparison.differences[primary], record.b.scores.metrics[primary]) for record in (alone, grouped)]
    for one, other in zip(*sides, strict=True):
        assert other.value == pytest.approx(one.value)
        assert 1.4 < (other.high - other.low) / (one.high - one.low) < 2.9, "four times fewer rows: twice as wide"
    (a.parent / "a.jsonl").unlink()
    gone = diff(a, b)
    assert "Intervals take rows as independent, as the values of author cannot be had." in gone.notes


def test_a_label_that_no_row_has_is_no_slice(write_values: WriteRun) -> None:
    task, y = build_task("multi_label", ("bad", "long", "odd")), np.array([[1, 0, 0], [1, 1, 0]] * 20)
    a, b = (write_values(name, task, y, y * 0.8 + 0.1) for name in "ab")
    assert [one.value for one in diff(a, b).slices if one.column == "label"] == ["bad", "long"]


def test_slices_without_any_label_are_undefined(write_values: WriteRun) -> None:
    """Rows of the kind `bare` have no label; B gives one of them a label, A none."""
    task, y = build_task("multi_label", ("bad", "odd")), np.array([[0, 0], [1, 0]] * 30)
    values = y * 0.8 + 0.1
    worse = values.copy()
    worse[0, 0] = 0.9
    wishes = {"columns": {"kind": ["bare", "book"]}}
    a, b = (write_values(name, task, y, one, **wishes) for name, one in (("a", values), ("b", worse)))
    for record, expected in ((diff(a, a), math.nan), (diff(a, b), 0.0)):
        bare = next(change for change in record.slices if change.value == "bare")
        assert (bare.rows, bare.before["micro_f1"]) == (30, pytest.approx(math.nan, nan_ok=True))
        assert bare.after["micro_f1"] == pytest.approx(expected, nan_ok=True)
        assert math.isnan(bare.comparison.differences["micro_f1"].value)
        again = DiffRecord.model_validate_json(record.model_dump_json())
        assert math.isnan(next(change for change in again.slices if change.value == "bare").before["micro_f1"])
    assert bare.comparison.rows_broken == 1


# Labels in another order


@pytest.mark.parametrize("name", ["single_label", "multi_label"])
def test_labels_in_another_order_are_aligned_by_name(
    draw_models: Draw, write_pair: WritePair, write_values: WriteRun, edit_record: EditRecord, name: str
) -> None:
    models = draw_models(name)
    texts = {"texts": lambda row, _: f"film {row}"}
    a, b = write_pair(models, **texts)
    straight, task = diff(a, b), build_task(name, models.task.label_names[::-1])
    y = task.encode(models.task.decode(models.y))
    turned = write_values("turned", task, y, models.after[:, ::-1], **texts)
    record = diff(a, turned)
    assert record.labels == straight.labels
    assert record.comparison == straight.comparison
    assert record.slices == straight.slices
    assert [one.label for one in record.b.scores.per_class] == list(models.task.label_names)
    layout = RunLayout(turned)
    own, wrong = (RunRecord.read(RunLayout(run).record).data.splits["test"].fingerprint for run in (turned, a))
    assert own != wrong
    edit_record(layout.record, lambda record: record["data"]["splits"]["test"].update(fingerprint=wrong))
    with pytest.raises(DataError, match="measured on different test rows"):
        diff(a, turned)
    (a.parent / "a-test.jsonl").unlink()
    with pytest.raises(DataError, match=r"labels in another order.*cannot be read as it was.*lorafit diff A B DATA"):
        diff(a, turned)


# What cannot be compared


def test_other_labels_and_tasks_are_refused(draw_models: Draw, write_guesses: WriteRun, write_pair: WritePair) -> None:
    a = write_guesses("one", TRUTH, TRUTH)
    b = write_guesses("other", ["bad", "good"] * 5, ["bad", "good"] * 5, labels=("bad", "good"))
    with pytest.raises(RunError, match=r"same labels: \S+one has \['neg', 'pos'\], \S+other has \['bad', 'good'\]"):
        diff(a, b)
    numbers = write_pair(draw_models("regression"))[0]
    with pytest.raises(RunError, match=r"same task: \S+one has single_label, \S+a has regression"):
        diff(a, numbers, "other.csv")
    with pytest.raises(RunError, match=r"same task: \S+a has regression, \S+one has single_label"):
        diff(numbers, a)


def test_other_test_rows_are_refused_with_what_to_do(
    models: SimpleNamespace, write_pair: WritePair, write_values: WriteRun
) -> None:
    a, _ = write_pair(models)
    fewer = write_values("fewer", models.task, models.y[:-1], models.after[:-1])
    with pytest.raises(DataError, match=r"measured on different test rows.*lorafit diff A B DATA"):
        diff(a, fewer)


def test_predictions_of_other_rows_under_the_same_fingerprint_are_refused(
    models: SimpleNamespace, write_pair: WritePair, write_values: WriteRun, sign_run: SignRun
) -> None:
    """One altered, then both alike: then the data, where they are still there, tell."""
    a, b = write_pair(models)
    other = write_values("other", models.task, models.y[::-1], models.after[::-1])
    RunLayout(other).predictions("test", "after").replace(RunLayout(b).predictions("test", "after"))
    sign_run(b)
    with pytest.raises(RunError, match=r"are of different rows.*one was altered"):
        diff(a, b)
    with pytest.raises(RunError, match=r"\S+b are not of its test rows: they were altered"):
        diff(b, b)


def test_gates_are_read_before_any_row(write_guesses: WriteRun) -> None:
    run = write_guesses("run", TRUTH, TRUTH)
    with pytest.raises(ConfigError, match="cannot limit 'acc'"):
        diff(run, run, "none.csv", gate="acc>=0")


def test_a_folder_of_the_home_directory_is_found(write_guesses: WriteRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_guesses("run", TRUTH, TRUTH)
    monkeypatch.setenv("HOME", str(run.parent))
    assert diff("~/run", "~/run").a.run == str(run)
