"""Several labels a text, or a number: what changes from one run to another, against scikit-learn and counting."""

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
from numpy.typing import NDArray

from lorafit.config import load_config
from lorafit.data.checks import encode_labels, name_labels
from lorafit.data.rows import Split
from lorafit.data.sources import load_splits
from lorafit.data.tables import read_table
from lorafit.data.writing import write_table
from lorafit.errors import ConfigError, DataError, RunError
from lorafit.evidence import Estimate
from lorafit.experiments.diff.diff import diff
from lorafit.experiments.diff.gates import GATED
from lorafit.experiments.diff.records import TaskDiffRecord
from lorafit.experiments.diff.sides import open_side, read_answers, read_intervals
from lorafit.labels import LabelSet, Task
from lorafit.metrics.paired import adjust_p_values
from lorafit.metrics.uncertainty import mcnemar_exact, wilson_interval
from lorafit.runs.folder import RunLayout
from lorafit.system.progress import Silent

WriteValues = Callable[..., Path]
SEVERAL, NUMBER = LabelSet(("bad", "long", "odd"), "multi_label"), LabelSet(("value",), "regression")
TASKS: list[Task] = ["multi_label", "regression"]
ZERO = Estimate(value=0, low=0, high=0)


def draw_labels(rows: int = 200, *, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Marks of each row, and probabilities of two models, the second the better."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((rows, 3)) < [0.5, 0.3, 0.1]).astype(np.int64)
    logits = [(2 * truth - 1) * strength + rng.normal(size=truth.shape) for strength in (0.5, 1.5)]
    first, second = (1 / (1 + np.exp(-2 * values)) for values in logits)
    return truth, first, second


def draw_numbers(rows: int = 200, *, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """A number a row, and what two models say, the second the better."""
    rng = np.random.default_rng(seed)
    truth = 50 + 10 * rng.normal(size=rows)
    first, second = (truth[:, np.newaxis] + noise * rng.normal(size=(rows, 1)) for noise in (6, 3))
    return truth, first, second


@pytest.fixture
def write_pair(write_values: WriteValues) -> Callable[..., tuple[Path, Path]]:
    """Writes two runs of a task on the same rows, and what differs in both."""

    def write(task: Task, **changes: Any) -> tuple[Path, Path]:
        if task == "multi_label":
            truth, *said = draw_labels()
            return (
                write_values("a", SEVERAL, truth, said[0], **changes),
                write_values("b", SEVERAL, truth, said[1], texts_per_second=80.0, **changes),
            )
        truth, *said = draw_numbers()
        return (
            write_values("a", NUMBER, truth, said[0], half_width=10.0, **changes),
            write_values("b", NUMBER, truth, said[1], half_width=6.0, texts_per_second=80.0, **changes),
        )

    return write


def compare(a: Path, b: Path, **wishes: Any) -> TaskDiffRecord:
    record = diff(a, b, **wishes)
    assert isinstance(record, TaskDiffRecord)
    return record


def test_changes_of_several_labels_are_those_that_are_counted(write_pair: Callable[..., tuple[Path, Path]]) -> None:
    truth, first, second = draw_labels()
    was, now = first >= 0.5, second >= 0.5
    record = compare(*write_pair("multi_label"))
    assert (record.task, record.rows, record.labels) == ("multi_label", 200, ["bad", "long", "odd"])
    paired = record.comparison
    for average in ("micro", "macro"):
        before, after = (sklearn.metrics.f1_score(truth, said, average=average) for said in (was, now))
        assert record.a.scores.figures[f"{average}_f1"].value == pytest.approx(before)
        assert record.b.scores.figures[f"{average}_f1"].value == pytest.approx(after)
        assert paired.differences[f"{average}_f1"].value == pytest.approx(after - before)
    assert paired.differences["micro_f1"].low > 0
    wrong = [(said != truth).sum(axis=1) for said in (was, now)]
    gained, lost = int((wrong[1] < wrong[0]).sum()), int((wrong[1] > wrong[0]).sum())
    assert (paired.rows_gained, paired.rows_lost) == (gained, lost)
    assert paired.p_value == mcnemar_exact(gained, lost)
    flipped = int(((wrong[0] == 0) & (wrong[1] > 0)).sum())
    assert 0 < flipped < lost, "a text may get more labels wrong that had some wrong before"
    assert record.negative_flips == wilson_interval(flipped, 200, 0.95)
    assert record.churn == wilson_interval(int((was != now).any(axis=1).sum()), 200, 0.95)
    assert record.a.ece is not None
    assert record.b.ece is not None
    assert record.ece_difference == record.b.ece.value - record.a.ece.value
    assert (record.coverage_difference, record.half_width_difference, record.a.coverage) == (None, None, None)
    assert record.slowdown == 1.25


def test_changes_of_numbers_are_those_that_are_counted(write_pair: Callable[..., tuple[Path, Path]]) -> None:
    truth, first, second = draw_numbers()
    record = compare(*write_pair("regression"))
    assert (record.task, record.rows, record.labels) == ("regression", 200, ["value"])
    paired = record.comparison
    figures = {
        "mae": sklearn.metrics.mean_absolute_error,
        "rmse": sklearn.metrics.root_mean_squared_error,
        "r2": sklearn.metrics.r2_score,
    }
    for name, score in figures.items():
        before, after = score(truth, first[:, 0]), score(truth, second[:, 0])
        assert record.a.scores.figures[name].value == pytest.approx(before)
        assert record.b.scores.figures[name].value == pytest.approx(after)
        assert paired.differences[name].value == pytest.approx(after - before)
    assert paired.differences["mae"].high < 0
    errors = [np.abs(said[:, 0] - truth) for said in (first, second)]
    gained = int((errors[1] < errors[0]).sum())
    assert (paired.rows_gained, paired.rows_lost) == (gained, 200 - gained)
    held = [int((error <= width).sum()) for error, width in zip(errors, (10, 6), strict=True)]
    assert [record.a.coverage, record.b.coverage] == [wilson_interval(count, 200, 0.95) for count in held]
    assert record.coverage_difference is not None
    assert record.coverage_difference.value == pytest.approx((held[1] - held[0]) / 200)
    assert record.coverage_difference.low < record.coverage_difference.value < record.coverage_difference.high
    assert (record.a.half_width, record.b.half_width, record.half_width_difference) == (10, 6, -4)
    assert (record.a.coverage_asked, record.b.coverage_asked) == (0.9, 0.9)
    assert not any("asked for" in note for note in record.notes)
    assert (record.ece_difference, record.negative_flips, record.churn) == (None, None, None)


@pytest.mark.parametrize("task", TASKS)
def test_a_run_against_itself_changes_nothing(write_pair: Callable[..., tuple[Path, Path]], task: Task) -> None:
    run = write_pair(task)[0]
    record = compare(run, run, gate=",".join(f"{name}<=0" for name in GATED[task] if name != "slowdown"))
    assert all(difference == ZERO for difference in record.comparison.differences.values())
    assert (record.comparison.rows_gained, record.comparison.rows_lost, record.comparison.p_value) == (0, 0, 1)
    assert len(record.gates) == len(GATED[task]) - 1
    assert all(result.holds and result.value == 0 for result in record.gates)
    assert record.a == record.b
    assert TaskDiffRecord.model_validate_json(record.model_dump_json()) == record


@pytest.mark.parametrize("task", TASKS)
def test_every_gate_is_of_what_was_measured(write_pair: Callable[..., tuple[Path, Path]], task: Task) -> None:
    record = compare(*write_pair(task), gate=",".join(f"{name}<=99" for name in GATED[task]))
    found = {result.name: (result.value, result.interval) for result in record.gates}
    expected: dict[str, Any] = {name: (one.value, one) for name, one in record.comparison.differences.items()}
    if task == "multi_label":
        shares = {"negative_flips": record.negative_flips, "churn": record.churn}
        expected |= {name: (share.value, share) for name, share in shares.items() if share is not None}
        expected["ece"] = (record.ece_difference, None)
    else:
        assert record.coverage_difference is not None
        expected["coverage"] = (record.coverage_difference.value, record.coverage_difference)
        expected["half_width"] = (record.half_width_difference, None)
    assert found == {**expected, "slowdown": (1.25, None)}


@pytest.mark.parametrize(
    ("task", "gate", "allowed"),
    [
        ("multi_label", "accuracy>=0", "micro_f1, macro_f1, exact_match, hamming_loss, log_loss, ece, negative_flips"),
        ("multi_label", "mae<=0", "micro_f1, macro_f1"),
        ("regression", "churn<=0.1", "mae, rmse, r2, pearson, coverage, half_width, slowdown"),
        ("regression", "micro_f1>=0", "mae, rmse, r2"),
    ],
)
def test_a_gate_of_another_task_is_answered_with_those_of_this_one(
    write_pair: Callable[..., tuple[Path, Path]], task: Task, gate: str, allowed: str
) -> None:
    with pytest.raises(ConfigError, match=rf"\(task {task}\)\. Allowed: {allowed}.*Example: --gate"):
        diff(*write_pair(task), gate=gate)


def test_numbers_without_intervals_are_compared_and_not_held_to_them(write_values: WriteValues) -> None:
    truth, first, second = draw_numbers()
    a, b = write_values("a", NUMBER, truth, first, half_width=10.0), write_values("b", NUMBER, truth, second)
    record = compare(a, b)
    assert record.a.coverage is not None
    assert (record.b.coverage, record.b.half_width) == (None, None)
    assert (record.coverage_difference, record.half_width_difference) == (None, None)
    for gate in ("coverage>=-0.1", "half_width<=1"):
        with pytest.raises(RunError, match=rf"gate {gate} cannot be judged: the numbers of \S+a or of \S+b have no"):
            diff(a, b, gate=gate)


def test_intervals_that_were_asked_for_another_coverage_are_told(write_values: WriteValues) -> None:
    truth, first, second = draw_numbers()
    a = write_values("a", NUMBER, truth, first, half_width=10.0)
    b = write_values("b", NUMBER, truth, second, half_width=7.0, coverage=0.95)
    record = compare(a, b)
    assert (record.a.coverage_asked, record.b.coverage_asked) == (0.9, 0.95)
    (note,) = (note for note in record.notes if "asked for" in note)
    assert note.startswith("A was asked for intervals that hold the true number of 90 % of the rows, B for 95 %")


def test_slices_of_several_labels_are_the_texts_that_have_each(write_pair: Callable[..., tuple[Path, Path]]) -> None:
    truth, first, second = draw_labels()
    was, now = first >= 0.5, second >= 0.5
    record = compare(*write_pair("multi_label"))
    assert [(one.column, one.value) for one in record.slices] == [("label", name) for name in SEVERAL.names]
    raw = []
    for place, one in enumerate(record.slices):
        rows = truth[:, place] == 1
        assert one.rows == rows.sum()
        scores = [sklearn.metrics.f1_score(truth[rows], said[rows], average="micro") for said in (was, now)]
        assert one.leading == pytest.approx(tuple(scores))
        assert list(one.comparison.differences) == ["micro_f1"], "only what is told of slices is resampled"
        difference = one.comparison.differences["micro_f1"]
        assert difference.value == pytest.approx(scores[1] - scores[0])
        assert difference.low < difference.value < difference.high
        wrong = [(said != truth)[rows].sum(axis=1) for said in (was, now)]
        assert one.comparison.rows_gained == (wrong[1] < wrong[0]).sum()
        assert one.comparison.rows_lost == (wrong[1] > wrong[0]).sum()
        raw.append(mcnemar_exact(one.comparison.rows_gained, one.comparison.rows_lost))
    assert [one.adjusted_p_value for one in record.slices] == adjust_p_values(raw)


def test_a_label_that_no_row_has_is_no_slice(write_values: WriteValues) -> None:
    truth, first, second = draw_labels()
    truth[:, 2] = 0
    record = compare(write_values("a", SEVERAL, truth, first), write_values("b", SEVERAL, truth, second))
    assert [one.value for one in record.slices] == ["bad", "long"]


def write_rows(path: Path, task: Task, count: int) -> None:
    """Rows with a text of 3 or 23 words, a label or a number, and a column of kinds."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "kind"])
        for row in range(count):
            label = ("bad", "long,odd", "", "long")[row % 4] if task == "multi_label" else row % 7
            writer.writerow(
                [f"{'word ' * (20 if row % 4 < 2 else 0)}a film {row}", label, "book" if row < 30 else "film"]
            )


@pytest.mark.parametrize("task", TASKS)
def test_rows_are_told_apart_by_length_and_column_where_the_data_are_still_there(
    write_values: WriteValues, tmp_path: Path, task: Task
) -> None:
    write_rows(tmp_path / "train.csv", task, 40)
    write_rows(tmp_path / "test.csv", task, 120)
    flags = {
        "data.source": str(tmp_path / "train.csv"),
        "data.test": str(tmp_path / "test.csv"),
        "data.task": task,
        "data.slice_columns": ["kind"],
    }
    splits = load_splits(load_config(flags=flags).data)
    rows, labels = splits.test, splits.labels
    said = rows.labels * 0.8 + 0.1 if task == "multi_label" else rows.labels[:, np.newaxis] + 1
    worse = said.copy()
    worse[:10] = 1 - said[:10] if task == "multi_label" else said[:10] + 1
    wishes: dict[str, Any] = {"rows": rows, "fingerprint": rows.fingerprint(), "flags": flags}
    runs = [write_values(name, labels, rows.labels, one, **wishes) for name, one in (("a", said), ("b", worse))]
    record = compare(*runs)
    assert record.notes == []
    told = {(one.column, one.value): one for one in record.slices}
    assert [name for name in told if name[0] != "label"] == [
        ("words", "1-15"),
        ("words", "16-63"),
        ("kind", "film"),
        ("kind", "book"),
    ]
    assert any(column == "label" for column, _ in told) is (task == "multi_label")
    book = told["kind", "book"]
    assert (book.rows, book.comparison.rows_gained, book.comparison.rows_lost) == (30, 0, 10)
    assert told["kind", "film"].comparison.rows_lost == 0
    assert book.leading == pytest.approx((1.0, 1 + 10 / 30) if task == "regression" else (1.0, book.leading[1]))
    assert book.adjusted_p_value == pytest.approx(min(1, 2 / 2**10 * len(record.slices)))
    (tmp_path / "test.csv").unlink()
    record = compare(*runs)
    assert all(one.column == "label" for one in record.slices)
    assert any("cannot be read as it was" in note for note in record.notes)


@pytest.fixture
def turned(write_values: WriteValues, tmp_path: Path) -> tuple[Path, Path, Path]:
    """Runs A and B, and B with its labels in another order, all with the fingerprints of test.csv."""
    write_rows(tmp_path / "train.csv", "multi_label", 40)
    write_rows(tmp_path / "test.csv", "multi_label", 120)
    flags = {"data.source": str(tmp_path / "train.csv"), "data.test": str(tmp_path / "test.csv")}
    splits = load_splits(load_config(flags={**flags, "data.task": "multi_label"}).data)
    rows, labels = splits.test, splits.labels
    first, second = (np.random.default_rng(seed).random(rows.labels.shape) for seed in (0, 1))
    other = LabelSet(labels.names[::-1], "multi_label")
    others = Split(rows.ids, rows.texts, encode_labels(name_labels(rows.labels, labels), other))
    assert others.fingerprint() != rows.fingerprint()

    def write(name: str, labels: LabelSet, rows: Split, values: NDArray[np.float64]) -> Path:
        wishes: dict[str, Any] = {"rows": rows, "fingerprint": rows.fingerprint(), "flags": flags}
        return write_values(name, labels, rows.labels, values, **wishes)

    return (
        write("a", labels, rows, first),
        write("b", labels, rows, second),
        write("turned", other, others, second[:, ::-1]),
    )


def test_labels_in_another_order_are_aligned_by_name(turned: tuple[Path, Path, Path]) -> None:
    a, b, other = turned
    record, straight = compare(a, other), compare(a, b)
    assert record.comparison.differences["micro_f1"].value != 0
    assert record.labels == straight.labels
    assert record.comparison == straight.comparison
    assert record.slices == straight.slices
    assert record.notes == straight.notes == []


def test_labels_in_another_order_do_not_hide_other_test_rows(turned: tuple[Path, Path, Path], tmp_path: Path) -> None:
    a, _, other = turned
    path = RunLayout(other).record
    text = path.read_text(encoding="utf-8")
    fingerprint = open_side(other).test_fingerprint
    path.write_text(text.replace(fingerprint, open_side(a).test_fingerprint), encoding="utf-8")
    with pytest.raises(DataError, match="measured on different test rows"):
        diff(a, other)
    path.write_text(text, encoding="utf-8")
    write_rows(tmp_path / "test.csv", "multi_label", 80)
    with pytest.raises(DataError, match=r"labels in another order.*cannot be read as it was.*lorafit diff A B DATA"):
        diff(a, other)


def test_slices_without_any_label_are_undefined_and_told_as_they_are_measured(
    write_values: WriteValues, tmp_path: Path
) -> None:
    """Texts of the kind `bare` have no label; B gives one of them a label, A none."""
    for name in ("train", "test"):
        lines = [
            f"a film {name} {row},{'bad' if row % 2 else ''},{'book' if row % 2 else 'bare'}\n" for row in range(60)
        ]
        (tmp_path / f"{name}.csv").write_text("text,label,kind\n" + "".join(lines) + "one,odd,book\n", encoding="utf-8")
    flags = {
        "data.source": str(tmp_path / "train.csv"),
        "data.test": str(tmp_path / "test.csv"),
        "data.task": "multi_label",
        "data.slice_columns": ["kind"],
    }
    splits = load_splits(load_config(flags=flags).data)
    rows, labels = splits.test, splits.labels
    said = rows.labels * 0.8 + 0.1
    worse = said.copy()
    worse[0, 0] = 0.9
    wishes: dict[str, Any] = {"rows": rows, "fingerprint": rows.fingerprint(), "flags": flags}
    a, b = (write_values(name, labels, rows.labels, one, **wishes) for name, one in (("a", said), ("b", worse)))
    same, record, stages = compare(a, a), compare(a, b, progress=(progress := Stages())), progress.stages
    for one, expected in ((same, (math.nan, math.nan)), (record, (math.nan, 0.0))):
        bare = next(change for change in one.slices if change.value == "bare")
        assert bare.rows == 30
        assert bare.leading == pytest.approx(expected, nan_ok=True)
        difference = bare.comparison.differences["micro_f1"]
        assert all(math.isnan(number) for number in (difference.value, difference.low, difference.high))
    assert bare.comparison.rows_lost == 1
    read = TaskDiffRecord.model_validate_json(record.model_dump_json())
    assert math.isnan(next(change for change in read.slices if change.value == "bare").leading[0])
    assert ("comparing slices", len(record.slices)) in stages
    assert progress.done == len(record.slices)


class Stages(Silent):
    """A progress that remembers the stages with their lengths, and how far the last that was counted came."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int | None]] = []
        self.done = 0

    def start(self, stage: str, *, total: int | None = None, **_: object) -> None:
        self.stages.append((stage, total))

    def update(self, done: int, **_: object) -> None:
        self.done = done


def test_runs_of_different_tasks_are_refused_by_name(write_values: WriteValues) -> None:
    truth, said, _ = draw_labels()
    numbers, told, _ = draw_numbers()
    several = write_values("several", SEVERAL, truth, said)
    number = write_values("number", NUMBER, numbers, told)
    single = write_values(
        "single", LabelSet(SEVERAL.names), truth.argmax(axis=1), said / said.sum(axis=1)[:, np.newaxis]
    )
    with pytest.raises(RunError, match=r"same task: \S+several has multi_label, \S+number has regression"):
        diff(several, number)
    with pytest.raises(RunError, match=r"same task: \S+single has single_label, \S+several has multi_label"):
        diff(single, several, "other.csv")


def test_numbers_of_other_rows_are_refused(write_values: WriteValues) -> None:
    truth, first, second = draw_numbers()
    a, b = write_values("a", NUMBER, truth, first), write_values("b", NUMBER, truth[::-1], second)
    with pytest.raises(RunError, match=r"are of different rows.*one was altered"):
        diff(a, b)
    with pytest.raises(DataError, match="measured on different test rows"):
        diff(a, write_values("c", NUMBER, truth, second, fingerprint="other rows"))


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        ("multi_label", {"true_labels": [["bad"], ["bad"], []]}),
        ("multi_label", {"true_labels": [["new"], ["bad", "long"], []]}),
        ("multi_label", {"true_labels": ["bad", "long", "odd"]}),
        ("multi_label", {"probability_bad": [0.9, 0.9, 1.9]}),
        ("multi_label", {"probability_bad": [0.9, 0.9, float("nan")]}),
        ("multi_label", {"probability_bad": None}),
        ("multi_label", {"true_labels": None}),
        ("regression", {"value": [1.0, 2.0, float("inf")]}),
        ("regression", {"value": [1.0, 2.0, None]}),
        ("regression", {"value": [1.0, 2.0, 1e200]}),
        ("regression", {"true_value": [1.0, 2.0, float("nan")]}),
        ("regression", {"true_value": ["one", "two", "three"]}),
        ("regression", {"true_value": None}),
        ("regression", {"row_id": None}),
    ],
    ids=str,
)
def test_altered_predictions_are_refused(
    write_values: WriteValues, task: Task, changes: dict[str, list[object] | None]
) -> None:
    several = task == "multi_label"
    labels, truth = (
        (SEVERAL, np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]])) if several else (NUMBER, np.array([1.0, 2, 3]))
    )
    side = open_side(write_values("run", labels, truth, truth * 0.5 if several else truth[:, np.newaxis]))
    np.testing.assert_array_equal(read_answers(side, labels).truth, truth)
    path = RunLayout(side.root).predictions("test", "finetuned")
    columns = {**read_table(path).columns, **changes}
    write_table(path, {name: values for name, values in columns.items() if values is not None})
    with pytest.raises(RunError, match="does not fit the run's record"):
        read_answers(side, labels)


def test_numbers_that_lack_rows_are_refused(write_values: WriteValues) -> None:
    side = open_side(write_values("run", NUMBER, *draw_numbers()[:2]))
    path = side.root / "predictions" / "test.finetuned.parquet"
    write_table(path, {name: values[1:] for name, values in read_table(path).columns.items()})
    with pytest.raises(RunError, match="does not fit the run's record"):
        read_answers(side, NUMBER)


def test_an_altered_calibration_is_refused(write_values: WriteValues) -> None:
    side = open_side(write_values("run", NUMBER, *draw_numbers()[:2], half_width=3.0))
    intervals = read_intervals(side)
    assert intervals is not None
    assert (intervals.half_width, intervals.coverage) == (3, 0.9)
    side.calibration.write_text(side.calibration.read_text().replace("3.0", "300.0"))
    with pytest.raises(RunError, match=r"calibration\.json was altered"):
        read_intervals(side)
    side.calibration.unlink()
    with pytest.raises(RunError, match=r"calibration\.json is missing"):
        read_intervals(side)


def test_predictions_that_are_not_of_the_test_rows_are_refused(write_values: WriteValues, tmp_path: Path) -> None:
    """Both runs altered alike: the data, where they are still there, tell."""
    write_rows(tmp_path / "train.csv", "regression", 40)
    write_rows(tmp_path / "test.csv", "regression", 120)
    flags = {
        "data.source": str(tmp_path / "train.csv"),
        "data.test": str(tmp_path / "test.csv"),
        "data.task": "regression",
    }
    rows = load_splits(load_config(flags=flags).data).test
    wishes: dict[str, Any] = {"fingerprint": rows.fingerprint(), "flags": flags}
    easier = np.zeros(len(rows))
    runs = [write_values(name, NUMBER, easier, easier[:, np.newaxis], **wishes) for name in "ab"]
    with pytest.raises(RunError, match=r"\S+a are not of its test rows: they were altered"):
        diff(*runs)
