"""What every task promises. A new one is tested by a row in each table here and in conftest.py."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from numpy.typing import ArrayLike, NDArray
from pydantic import TypeAdapter, ValidationError

from lorafit.errors import DataError, UserInputError
from lorafit.tasks.base import Array, TargetScaler, Task, Wording
from lorafit.tasks.baselines import EMBEDDING
from lorafit.tasks.evaluation import compare, cut_into_slices, estimate, find_mistakes, score_slices
from lorafit.tasks.labels import Label
from lorafit.tasks.records import BaselineScores, MetricsRecord, Resampling
from lorafit.tasks.registry import TASKS, TaskName, build_task, get_task

if TYPE_CHECKING:
    from conftest import BuildCase, Case

Measure = Callable[[Task, NDArray[Any], Array], float]


# Doubt


def test_doubt_is_the_entropy_of_what_is_predicted() -> None:
    shares = np.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
    whole = scipy.stats.entropy(shares, axis=1)
    binary = [sum(scipy.stats.entropy([one, 1 - one]) for one in row) for row in shares]
    expected = {"single_label": whole, "ordinal": whole, "multi_label": binary, "regression": np.zeros(2)}
    labels: dict[str, Any] = {"ordinal": "123", "regression": []}
    for name in TASKS:
        np.testing.assert_allclose(build_task(name, labels.get(name, "abc")).doubt(shares), expected[name], atol=1e-12)


# The registry


def test_tasks_are_found_by_their_names(case: "Case") -> None:
    task = case.task
    assert get_task(task.name) is type(task)
    assert TASKS[task.name].endswith(f":{type(task).__name__}")
    assert build_task(task.name, list(task.label_names)) == task
    assert TypeAdapter(TaskName).validate_python(task.name) == task.name


def test_unknown_task_is_refused_with_the_names_allowed() -> None:
    with pytest.raises(ValidationError, match=", ".join(TASKS)):
        TypeAdapter(TaskName).validate_python("multi")
    with pytest.raises(KeyError):
        get_task("multi")


# Labels


def test_labels_come_back_from_their_array(case: "Case") -> None:
    y = case.task.encode(case.labels)
    assert len(y) == len(case.labels)
    assert case.task.decode(y) == case.labels
    assert case.task.decode(case.task.encode([])) == ()


def test_task_is_built_from_the_labels_of_rows(case: "Case") -> None:
    assert type(case.task).from_labels(case.labels, "a.csv") == case.task


@pytest.mark.parametrize("name", TASKS)
def test_rows_all_with_one_label_are_refused(name: str, build_case: "BuildCase") -> None:
    label = build_case(name).labels[0]
    with pytest.raises(DataError, match=r"a\.csv: all 3 rows have the same label, '.*--label-column"):
        get_task(name).from_labels([label] * 3, "a.csv")


@pytest.mark.parametrize(
    ("name", "build"), [("single_label", str), ("multi_label", lambda number: (str(number),)), ("ordinal", str)]
)
def test_a_label_a_row_is_taken_for_the_wrong_column(name: str, build: Callable[[int], Label]) -> None:
    with pytest.raises(DataError, match=r"120 rows have 120 different labels.*--label-column"):
        get_task(name).from_labels([build(number) for number in range(120)], "a.csv")
    for labels, count in (([build(row // 2) for row in range(240)], 120), ([build(row) for row in range(100)], 100)):
        assert len(get_task(name).from_labels(labels, "a.csv").label_names) == count


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["pos", "neg", "pos"], ("neg", "pos")),
        (["10", "9", "-1", "9"], ("-1", "9", "10")),
        (["10", "9", "many"], ("10", "9", "many")),
        (["--1", "2"], ("--1", "2")),
        (["1", "01", "001"], ("001", "01", "1")),
        (["1.5", "10.5", "2"], ("1.5", "10.5", "2")),
        (["-", "+"], ("+", "-")),
        (["²", "1"], ("1", "²")),
        (["schön", "Gut", "gut"], ("Gut", "gut", "schön")),
    ],
)
def test_labels_are_ordered_as_numbers_or_by_the_alphabet(labels: list[str], names: tuple[str, ...]) -> None:
    for given in (labels, labels[::-1]):
        assert get_task("single_label").from_labels(given, "a.csv").label_names == names
        assert get_task("multi_label").from_labels([(name,) for name in given], "a.csv").label_names == names


@pytest.mark.parametrize("name", ["single_label", "multi_label", "ordinal"])
@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), r"at least two different labels, got 0\."),
        (("1",), r"got 1: '1'.*--label-column"),
        (("1", ""), "must not be empty"),
        (("1", "2", "1"), "must differ"),
    ],
)
def test_unusable_names_are_refused(name: str, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        build_task(name, names)


@pytest.mark.parametrize(
    ("name", "label", "unknown"),
    [
        ("single_label", "x", {"x"}),
        ("multi_label", ("a", "x", "y"), {"x", "y"}),
        ("regression", 1e9, set()),
        ("ordinal", "6", {"6"}),
    ],
)
def test_names_that_training_did_not_have_are_found(
    name: str, label: Label, unknown: set[str], build_case: "BuildCase"
) -> None:
    task = build_case(name).task
    assert task.unknown_names(label) == unknown
    for known in build_case(name).labels:
        assert task.unknown_names(known) == set()
    if unknown:
        with pytest.raises(KeyError):
            task.encode([label])


def test_published_names_give_the_order_of_those_that_rows_have(case: "Case") -> None:
    published = [*reversed(case.task.label_names), "never seen"]
    ordered, absent = case.task.reorder(published)
    if ordered == case.task:  # numbers, and scores, which have an order of their own
        assert absent == []
    else:
        assert (list(ordered.label_names), absent) == (published[:-1], ["never seen"])


def test_rows_are_counted_by_label_and_marked(case: "Case") -> None:
    task, y = case.task, case.task.encode(case.labels)
    counts, marks = task.count(y), task.mark_labels(y)
    assert list(counts) == (list(task.label_names) if counts else [])
    assert (marks.shape, marks.dtype) == ((len(y), len(counts)), np.bool_)
    assert marks.sum(axis=0).tolist() == list(counts.values())
    for name, count in counts.items():
        assert count == sum(name in ([label] if isinstance(label, str) else label) for label in case.labels)


def test_counts_are_described_in_a_line(case: "Case") -> None:
    line = case.task.describe_counts(case.task.encode(case.labels))
    assert (
        line
        == {
            "single_label": "a 2, b 1, c 1",
            "multi_label": "a 2, b 1, c 1, d 1; 1 row without any",
            "regression": "3 different numbers from -1 to 2.500, median 1.250",
            "ordinal": "1 1, 2 1, 3 1, 4 1, 5 1",
        }[case.task.name]
    )


def test_of_many_labels_the_most_frequent_are_described() -> None:
    task = build_task("single_label", [f"{'long ' * 20}{place:02}\x1b" for place in range(20)])
    line = task.describe_counts(np.repeat(np.arange(20), np.arange(3, 23)))
    assert line.startswith("long long")
    assert line.split(", ")[0].endswith("… 22")
    assert line.endswith(", … 8 more with 3 to 10 each")
    assert "\x1b" not in line


def test_every_row_is_in_a_stratum_that_has_a_name(case: "Case") -> None:
    y, *_ = case.draw(200)
    strata = case.task.strata(y)
    assert (strata.shape, strata.dtype) == ((200,), np.int64)
    assert np.unique(strata, return_counts=True)[1].min() >= (
        1 if case.task.name in {"single_label", "ordinal"} else 10
    )
    for stratum in np.unique(strata):
        name, each = case.task.describe_stratum(int(stratum))
        assert name[0].isupper()
        assert each
    assert len(case.task.strata(y[:1])) == 1


def test_strata_are_fifths_of_numbers_and_rarest_labels() -> None:
    numbers = np.repeat(np.arange(10.0), 20)
    assert np.bincount(build_task("regression", ["value"]).strata(numbers)).tolist() == [40] * 5
    marks = np.zeros((200, 3), dtype=np.int64)
    marks[:, 0], marks[:40, 1], marks[100:103, 2] = 1, 1, 1
    marks[150:, 0] = 0
    strata = build_task("multi_label", "abc").strata(marks)
    assert np.unique(strata, return_counts=True)[1].tolist() == [110, 40, 50], "three rows are too few for a stratum"


def test_labels_are_described_in_words(build_case: "BuildCase") -> None:
    described = {
        name: [build_case(name).task.describe_label(label) for label in build_case(name).labels] for name in TASKS
    }
    assert described == {
        "single_label": ["b", "a", "c", "a"],
        "multi_label": ["a, d", "(none)", "b, c", "a"],
        "regression": ["2.500", "-1", "2.500", "0"],
        "ordinal": ["4", "1", "5", "2", "3"],
    }


# Training


def test_targets_are_what_the_loss_takes(case: "Case") -> None:
    task, (y, *_) = case.task, case.draw(50)
    targets = task.targets(y, task.fit_scaler(y, has_bias=True))
    assert len(targets) == 50
    assert targets.dtype == (np.int64 if task.problem_type == "single_label_classification" else np.float32)
    assert targets.ndim == 1 or targets.shape == (50, len(task.output_names))


def test_marks_tell_how_alike_labels_are(case: "Case") -> None:
    y = case.draw(50)[0]
    marks = case.task.pair_marks(y)
    smaller, larger = (found(marks[:, None], marks).sum(axis=2) for found in (np.minimum, np.maximum))
    alike = smaller / larger
    labels = case.task.decode(y)
    assert (marks.min() >= 0, len(marks)) == (True, 50)
    assert ((alike >= 0) & (alike <= 1)).all()
    for one in range(50):
        assert alike[one, one] == 1
        same = np.array([label == labels[one] for label in labels])
        assert (alike[one][same] == 1).all()
        assert (alike[one][~same] < 1).all()
    assert np.isclose(alike.min(), 0), "some have nothing in common"


def test_scaler_standardises_numbers_alone(build_case: "BuildCase") -> None:
    for name in TASKS:
        y, *_ = build_case(name).draw(50)
        scaler = build_case(name).task.fit_scaler(y, has_bias=True)
        if name == "regression":
            assert scaler == TargetScaler(float(y.mean()), float(y.std()))
            assert build_case(name).task.targets(y, scaler).std() == pytest.approx(1, abs=1e-6)
            free = build_case(name).task.fit_scaler(y, has_bias=False)
            assert (free.mean, free.scale) == (0, pytest.approx(np.sqrt((y**2).mean())))
            np.testing.assert_allclose(scaler.undo(scaler.apply(y)), y)
            np.testing.assert_allclose(scaler.inverse.apply(scaler.apply(y)), y)
        else:
            assert scaler == TargetScaler()


def test_training_is_steered_by_both_losses_and_the_primary_metric(case: "Case") -> None:
    task, (y, _, logits) = case.task, case.draw()
    measured = task.validation_metrics(y, logits, TargetScaler())
    assert list(measured) == ["loss", "calibrated_loss", task.primary]
    point = task.compute(task.row_statistics(y, task.activate(logits)).sum(axis=0))[task.primary]
    assert measured[task.primary] == pytest.approx(float(point))
    assert measured["calibrated_loss"] <= measured["loss"] + 1e-3
    sharper = task.validation_metrics(y, 3 * logits, TargetScaler())
    if task.name != "regression":
        assert sharper["calibrated_loss"] == pytest.approx(measured["calibrated_loss"], abs=1e-4)


def test_regression_is_steered_in_its_own_unit(build_case: "BuildCase") -> None:
    y, _, values = build_case("regression").draw(100)
    task, scaler = build_case("regression").task, TargetScaler(5.0, 2.0)
    measured = task.validation_metrics(y, scaler.apply(values), scaler)
    assert measured["mae"] == pytest.approx(sklearn.metrics.mean_absolute_error(y, values[:, 0]))
    assert measured["loss"] == pytest.approx(sklearn.metrics.mean_squared_error(y, values[:, 0]) / 4)


def test_a_regression_of_equal_numbers_cannot_be_trained(build_case: "BuildCase") -> None:
    with pytest.raises(DataError, match=r"a\.csv: all 3 rows to train on have the same number, 2"):
        build_case("regression").task.check_trainable(np.full(3, 2.0), "a.csv")
    for name in TASKS:
        y, *_ = build_case(name).draw(20)
        build_case(name).task.check_trainable(y, "a.csv")


# Prediction


def test_logits_become_values_that_can_be_written_and_read(case: "Case") -> None:
    task, (_, logits, _) = case.task, case.draw(40)
    assert logits.shape == (40, len(task.output_names))
    assert list(task.id2label.values()) == list(task.output_names)
    values = task.activate(logits.astype(np.float32))
    assert (values.shape, values.dtype) == ((40, len(task.label_names)), np.float64)
    task.check_values(values)
    assert len(task.value_columns()) == len(task.label_names)
    for bad in (np.nan, np.inf):
        damaged = values.copy()
        damaged[2, 0] = bad
        with pytest.raises(ValueError, match="in row 3"):
            task.check_values(damaged)


def test_predictions_are_columns_of_a_table(case: "Case") -> None:
    task, (y, logits, _) = case.task, case.draw(60)
    for calibration in (None, task.fit_calibration(y, logits, coverage=0.9)):
        values = task.activate(logits, calibration)
        columns = task.prediction_columns(values)
        for row in range(5):
            predicted = task.predict(values[row], calibration)
            told = predicted.columns()
            assert [told[name] for name in task.value_columns()] == values[row].tolist()
            assert [str(told[name]) for name in columns] == [str(column[row]) for column in columns.values()]
            json.dumps(told)
            assert predicted.describe()
            assert len(predicted.cells()) == len(task.predict(values[0], calibration).cells())
            assert predicted.is_right(task.decode(y[row : row + 1])[0]) in {True, False, None}
            assert isinstance(predicted.describe_error(task.decode(y[row : row + 1])[0]), str)


def test_predictions_that_are_right_are_rows_without_an_error(case: "Case") -> None:
    task, (y, _, values) = case.task, case.draw_values(80)
    errors, labels = task.row_errors(y, values), task.decode(y)
    for row, label in enumerate(labels):
        is_right = task.predict(values[row]).is_right(label)
        assert is_right is None or is_right == (errors[row] == 0)


def test_calibration_comes_back_from_its_file(case: "Case", tmp_path: Path) -> None:
    task, (y, _, logits) = case.task, case.draw()
    calibration = task.fit_calibration(y, logits, coverage=0.9)
    assert isinstance(calibration, task.calibration_type)
    assert (calibration.task, calibration.rows) == (task.name, len(y))
    calibration.write(tmp_path / "calibration.json")
    assert task.calibration_type.read(tmp_path / "calibration.json") == calibration


@pytest.mark.parametrize("first", TASKS)
@pytest.mark.parametrize("second", TASKS)
def test_calibration_of_another_task_is_refused(
    first: str, second: str, build_case: "BuildCase", resampling: Resampling
) -> None:
    task, (y, values, _) = build_case(first).task, build_case(first).draw_values(30)
    other, (other_y, logits, _) = build_case(second).task, build_case(second).draw(30)
    calibration = other.fit_calibration(other_y, logits, coverage=0.9)
    if first != second:
        with pytest.raises(TypeError, match=f"of {second} does not fit"):
            task.calibration_scores(y, values, calibration, resampling)
        with pytest.raises(TypeError, match=f"of {second} does not fit"):  # one of the two needs it
            task.predict(task.activate(build_case(first).draw(1)[1], calibration)[0], calibration)


def test_one_row_calibrates(case: "Case", resampling: Resampling) -> None:
    task, (y, _, logits) = case.task, case.draw(1)
    calibration = task.fit_calibration(y, logits, coverage=0.9)
    scores = task.calibration_scores(y, task.activate(logits, calibration), calibration, resampling)
    assert scores.rows == 1
    assert task.fewest_calibration_rows(0.9) == (9 if task.name == "regression" else 1)


@pytest.mark.parametrize("name", TASKS)
def test_only_tasks_that_abstain_take_a_target_accuracy(name: str, build_case: "BuildCase") -> None:
    task = get_task(name)
    task.check_target_accuracy(None)
    if name in {"single_label", "ordinal"}:
        task.check_target_accuracy(0.98)
        for target in (0.0, 1.0, -1.0, 98.0):
            with pytest.raises(UserInputError, match="between 0 and 1"):
                task.check_target_accuracy(target)
        y, _, logits = build_case(name).draw(400)
        calibration = build_case(name).task.fit_calibration(y, logits, coverage=0.9)
        assert calibration.accept_threshold is None
        chosen = build_case(name).task.choose_operating_point(calibration, 0.7)
        assert chosen == build_case(name).task.fit_calibration(y, logits, coverage=0.9, target_accuracy=0.7)
        assert 0 < chosen.accept_threshold < 1
    else:
        with pytest.raises(UserInputError, match=f"one label; the task here is {name}"):
            task.check_target_accuracy(0.98)


def test_models_that_predict_the_same_are_told_row_by_row(case: "Case") -> None:
    task, (_, first, second) = case.task, case.draw_values(100)
    same = task.same_prediction(first, second)
    if same is None:
        assert task.name == "regression"
        return
    assert same.tolist() == [_name(task, one) == _name(task, two) for one, two in zip(first, second, strict=True)]
    assert task.same_prediction(first, first).all()


def _name(task: Task, values: Array) -> object:
    told = task.predict(values).columns()
    return told.get("label", told.get("labels"))


def test_contributions_rise_with_the_value_and_stay_finite(case: "Case") -> None:
    task, (_, values, _) = case.task, case.draw_values(50)
    for output in range(len(task.label_names)):
        added = task.contribution(values, output)
        assert added.shape == (50,)
        assert (np.argsort(added, kind="stable") == np.argsort(values[:, output], kind="stable")).all()
        assert all(isinstance(cell, str) for cell in task.contribution_columns(float(added[0])).values())
    certain = np.eye(len(task.label_names))[:1]
    assert np.isfinite([task.contribution(certain, output) for output in range(len(task.label_names))]).all()
    assert task.describe_value(task.label_names[0], 0.25)
    assert task.write_drop(-0.25)


def test_only_numbers_are_no_probabilities(case: "Case") -> None:
    if case.task.name == "regression":
        with pytest.raises(UserInputError, match="no probability"):
            case.task.require_probabilities()
    else:
        case.task.require_probabilities()


# Metrics: functions of sums over rows


def _classes(name: str) -> Measure:
    def measure(task: Task, y: NDArray[Any], values: Array) -> float:
        best = values.argmax(axis=1)
        if name == "macro_f1":
            return float(sklearn.metrics.f1_score(y, best, average="macro", zero_division=0))
        return float(
            {"accuracy": sklearn.metrics.accuracy_score, "mcc": sklearn.metrics.matthews_corrcoef}[name](y, best)
        )

    return measure


def _marks(name: str) -> Measure:
    def measure(task: Task, y: NDArray[Any], values: Array) -> float:
        given = values >= 0.5
        if name.endswith("f1"):
            return float(sklearn.metrics.f1_score(y, given, average=name[:-3], zero_division=np.nan))
        score = {"exact_match": sklearn.metrics.accuracy_score, "hamming_loss": sklearn.metrics.hamming_loss}[name]
        return float(score(y, given))

    return measure


def _median(values: Array) -> NDArray[np.int64]:
    """The first score that the text has at most, more likely than not."""
    return (values.cumsum(axis=1) >= 0.5).argmax(axis=1)


def _log_loss(task: Task, y: NDArray[Any], values: Array) -> float:
    return float(sklearn.metrics.log_loss(y, values, labels=range(len(task.label_names))))


def _numbers(score: Callable[..., float]) -> Measure:
    return lambda _, y, values: float(score(y, values[:, 0]))


def _scores(score: Callable[..., float]) -> Measure:
    return lambda _, y, values: float(score(y, _median(values)))


REFERENCE: Mapping[str, Mapping[str, Measure]] = {
    "single_label": {**{name: _classes(name) for name in ("accuracy", "macro_f1", "mcc")}, "log_loss": _log_loss},
    "multi_label": {
        **{name: _marks(name) for name in ("micro_f1", "macro_f1", "exact_match", "hamming_loss")},
        "log_loss": lambda _, y, values: float(sklearn.metrics.log_loss(y.ravel(), values.ravel(), labels=[0, 1])),
    },
    "regression": {
        "mae": _numbers(sklearn.metrics.mean_absolute_error),
        "rmse": _numbers(sklearn.metrics.root_mean_squared_error),
        "r2": _numbers(sklearn.metrics.r2_score),
        "pearson": _numbers(lambda y, given: scipy.stats.pearsonr(y, given).statistic),
    },
    "ordinal": {
        "mae": _scores(sklearn.metrics.mean_absolute_error),
        "qwk": _scores(lambda y, given: sklearn.metrics.cohen_kappa_score(y, given, weights="quadratic")),
        "within_one": _scores(lambda y, given: (np.abs(y - given) <= 1).mean()),
        "accuracy": _scores(sklearn.metrics.accuracy_score),
        "log_loss": _log_loss,
    },
}
"""scikit-learn's and SciPy's metrics, by task."""


def test_there_is_a_reference_for_every_metric(case: "Case") -> None:
    assert list(REFERENCE[case.task.name]) == list(case.task.metrics)


@pytest.mark.parametrize("seed", range(3))
def test_metrics_of_sums_are_scikit_learns_on_the_whole_and_on_parts(case: "Case", seed: int) -> None:
    task, (y, _, values) = case.task, case.draw_values(200, seed=seed)
    statistics = task.row_statistics(y, values)
    parts = [np.arange(200), np.arange(60), np.arange(1, 200, 2), np.random.default_rng(seed).integers(200, size=200)]
    together = task.compute(np.stack([statistics[rows].sum(axis=0) for rows in parts]).reshape(2, 2, -1))
    assert list(together) == list(task.metrics)
    for place, rows in enumerate(parts):
        for name, measure in REFERENCE[task.name].items():
            found = together[name].reshape(-1)[place]
            assert found == pytest.approx(measure(task, y[rows], values[rows])), (name, place)


def test_statistics_grow_with_the_labels_and_not_with_their_square(build_case: "BuildCase") -> None:
    for name in ("single_label", "multi_label", "ordinal"):
        few, many = (build_case(name, [str(number) for number in range(size)]) for size in (10, 20))
        sizes = [one.task.row_statistics(*one.draw_values(5)[:2]).shape[1] for one in (few, many)]
        assert sizes[1] - sizes[0] == 3 * 10


def test_shares_of_rows_are_successes_of_trials(case: "Case") -> None:
    task, (y, _, values) = case.task, case.draw_values(70)
    sums = task.row_statistics(y, values).sum(axis=0)
    for name, (successes, trials) in task.proportions(sums).items():
        assert trials == 70
        assert successes == np.rint(successes)
        assert task.compute(sums)[name] == pytest.approx(successes / trials)


def test_slices_are_scored_by_some_of_the_metrics(case: "Case") -> None:
    task, (y, _, values) = case.task, case.draw_values(90)
    statistics = task.row_statistics(y, values)
    few = task.slice_statistics(statistics)
    assert few.shape[1] <= 4
    found, whole = task.compute_slices(few.sum(axis=0)), task.compute(statistics.sum(axis=0))
    assert tuple(found) == task.slice_metrics
    for name in task.slice_metrics:
        assert found[name] == pytest.approx(whole[name])
    np.testing.assert_array_equal(task.slice_statistics(statistics[np.newaxis])[0], few)


def test_edges_are_a_worst_and_a_best_row(case: "Case") -> None:
    task, (y, _, values) = case.task, case.draw_values(90)
    edges = task.edge_statistics(y, values)
    assert edges.shape[1] == task.row_statistics(y, values).shape[1]
    if len(edges) == 0:
        assert task.name == "regression"
        return
    worst, best = edges
    shares = [task.proportions(edge) for edge in edges]
    for name in shares[0]:
        if name != "within_one":
            assert (shares[0][name], shares[1][name]) == ((0, 1), (1, 1))
    for name, metric in task.metrics.items():
        gain = float(task.compute(best)[name] - task.compute(worst)[name])
        assert gain * (1 if metric.higher_is_better else -1) >= 0, name


@pytest.mark.parametrize(
    ("name", "y", "values", "message"),
    [
        ("single_label", [], np.zeros((0, 3)), "at least one row"),
        ("single_label", [0, 3], np.full((2, 3), 1 / 3), r"between 0 and 2, got 3 in row 2 \(1 such"),
        ("single_label", [-1, 0], np.full((2, 3), 1 / 3), "got -1 in row 1"),
        ("single_label", [0.0, 1.0], np.full((2, 3), 1 / 3), "must be integers, got float64"),
        ("single_label", [[0, 1]], np.full((1, 3), 1 / 3), r"shape \(n,\), got \(1, 2\)"),
        ("single_label", [0, 1], np.full((1, 3), 1 / 3), r"shape \(2, 3\), got \(1, 3\)"),
        ("single_label", [0, 1], np.full((2, 2), 0.5), r"shape \(2, 3\), got \(2, 2\)"),
        ("single_label", [0, 1], [[0.5, 0.5, 0], [2.5, -1.5, 0]], r"got \[2\.5, -1\.5, 0\.0\] in row 2 \(1 such rows"),
        ("single_label", [0, 1], [[0.5, 0.5, 0], [np.nan, 0.5, 0]], r"between 0 and 1 .* got \[nan, 0\.5, 0\.0\]"),
        ("single_label", [0, 1], [[0.5, 0.2, 0], [0.5, 0.5, 0]], "sum to 1, got 0.7 in row 1"),
        ("multi_label", np.zeros((0, 4)), np.zeros((0, 4)), "at least one row"),
        ("multi_label", [0, 1, 0], np.full((3, 4), 0.5), r"shape \(n, 4\), got \(3,\)"),
        ("multi_label", np.full((3, 4), 2), np.full((3, 4), 0.5), r"0 or 1, got \[2, 2, 2, 2\] in row 1 \(3 such rows"),
        ("multi_label", np.full((3, 4), np.nan), np.full((3, 4), 0.5), "0 or 1"),
        ("multi_label", np.zeros((2, 4)), np.full((3, 4), 0.5), r"shape \(2, 4\), got \(3, 4\)"),
        (
            "multi_label",
            np.zeros((1, 4)),
            [[0.5, 1.1, 0, 0]],
            r"between 0 and 1 .* got \[0.5, 1.1, 0.0, 0.0\] in row 1",
        ),
        ("regression", [], np.zeros((0, 1)), "at least one row"),
        ("regression", [1.0, 2.0], np.ones((3, 1)), r"\(2,\), \(3, 1\)"),
        ("regression", [1.0, 2.0], np.ones((2, 2)), r"\(2,\), \(2, 2\)"),
        (
            "regression",
            [1.0, 2.0],
            [[1.0], [np.nan]],
            r"Predictions must be finite .* got nan in row 2 \(1 such rows\)",
        ),
        ("regression", [1.0, -np.inf], np.ones((2, 1)), "Labels must be finite .* got -inf in row 2"),
        ("regression", [1.0, 1e101], np.ones((2, 1)), r"at most 1e\+100 in size, got 1e\+101"),
        ("ordinal", [0, 5], np.full((2, 5), 0.2), "between 0 and 4, got 5 in row 2"),
        ("ordinal", [0, 1], np.full((2, 4), 0.25), r"shape \(2, 5\), got \(2, 4\)"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    name: str, y: ArrayLike, values: ArrayLike, message: str, build_case: "BuildCase"
) -> None:
    task, given = build_case(name).task, np.asarray(values, dtype=np.float64)
    for measure in (
        lambda: task.row_statistics(np.asarray(y), given),
        lambda: estimate(task, np.asarray(y), given, Resampling(samples=10)),
        lambda: compare(task, np.asarray(y), given, given, Resampling(samples=10)),
    ):
        with pytest.raises(ValueError, match=message):
            measure()


def test_rows_have_errors_and_the_worst_are_the_mistakes(case: "Case") -> None:
    task, (y, _, values) = case.task, case.draw_values(100)
    errors, severity = task.row_errors(y, values), task.mistake_severity(y, values)
    assert errors.shape == severity.shape == (100,)
    assert errors.min() >= 0
    np.testing.assert_array_equal(errors > 0, severity > 0)
    found = find_mistakes(task, y, values, most=1000).tolist()
    assert sorted(found) == np.flatnonzero(errors > 0).tolist()
    assert severity[found].tolist() == sorted(severity[found], reverse=True)
    assert find_mistakes(task, y, values).tolist() == found[:10]
    outputs = task.mistaken_output(y, values)
    assert ((outputs >= 0) & (outputs < len(task.label_names))).all()
    assert ((task.main_output(values) >= 0) & (task.main_output(values) < len(task.label_names))).all()


@pytest.mark.parametrize(
    ("name", "y", "values", "places"),
    [
        ("single_label", [0, 0, 0, 1], [[0.9, 0.1, 0], [0.4, 0.6, 0], [0.05, 0.95, 0], [0.6, 0.4, 0]], [2, 1, 3]),
        (
            "multi_label",
            [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]],
            [[0.9, 0.1, 0, 0], [0.45, 0.9, 0, 0], [0.5, 0.2, 0, 0], [0.85, 0.3, 0, 0], [0.3, 0.2, 0, 0]],
            [3, 4, 1, 2],
        ),
        ("regression", [1.0, 2.0, 3.0, 4.0], [[1.5], [2.0], [0.0], [4.5]], [2, 0, 3]),
        (
            "ordinal",
            [0, 4, 1, 1],
            [[0, 0, 0.6, 0.4, 0], [0, 0, 0, 0, 1], [0.3, 0, 0.7, 0, 0], [0, 0, 1, 0, 0]],
            [0, 3, 2],
        ),
    ],
)
def test_mistakes_come_worst_first_and_of_equal_ones_the_first(
    name: str, y: ArrayLike, values: ArrayLike, places: list[int], build_case: "BuildCase"
) -> None:
    task, truth, given = build_case(name).task, np.asarray(y), np.asarray(values, dtype=np.float64)
    assert find_mistakes(task, truth, given).tolist() == places
    assert find_mistakes(task, truth, given, most=1).tolist() == places[:1]
    twice = find_mistakes(task, np.repeat(truth, 2, axis=0), np.repeat(given, 2, axis=0)).tolist()
    assert twice == [2 * place + turn for place in places for turn in (0, 1)]


# Evidence


def test_what_is_said_of_metrics_fits_together(case: "Case") -> None:
    task = type(case.task)
    assert set(task.slice_metrics) <= set(task.metrics)
    assert task.slice_metrics[0] == case.task.primary
    assert set(task.parity_metrics) <= set(task.metrics)
    assert all(task.metrics[name].higher_is_better for name in task.parity_metrics)
    assert set(task.reproduction_tolerances) <= set(task.metrics)
    assert next(iter(task.reproduction_tolerances)) == case.task.primary
    assert task.baselines
    for metric in (*task.metrics.values(), *task.calibration_metrics.values(), *task.diff_metrics.values()):
        assert metric.title
        assert metric.meaning
        assert metric.write_value(0.5)
        assert metric.write_value(math.nan) == "undefined"
        assert metric.difference_title.startswith(metric.title)


def test_evidence_is_complete_and_comes_back_from_its_file(
    case: "Case", resampling: Resampling, tmp_path: Path
) -> None:
    task, (y, first, second) = case.task, case.draw(120)
    calibration = task.fit_calibration(y, second, coverage=0.9)
    before, after = task.activate(first), task.activate(second, calibration)
    scores, comparison = estimate(task, y, after, resampling), compare(task, y, before, after, resampling)
    measured = task.calibration_scores(y, after, calibration, resampling)
    slices = score_slices(
        task, y, after, before, list(cut_into_slices(("a",) * 120, {"s": tuple("xyz" * 40)})), resampling
    )
    assert list(scores.metrics) == list(comparison.differences) == list(task.metrics)
    assert set(measured.metrics) <= set(task.calibration_metrics)
    assert set(measured.raw) | set(measured.asked) <= set(task.calibration_metrics)
    assert [one.label for one in scores.per_class] == (list(task.count(y)))
    assert [one.support for one in scores.per_class] == list(task.count(y).values())
    for one in (*scores.metrics.values(), *comparison.differences.values()):
        assert one.low <= one.value <= one.high
    for one in slices:
        assert tuple(one.metrics) == tuple(one.differences) == task.slice_metrics
    record = MetricsRecord(
        task=task.name,
        split="test",
        rows=120,
        confidence_level=resampling.level,
        bootstrap_samples=resampling.samples,
        before=estimate(task, y, before, resampling),
        after=scores,
        comparison=comparison,
        baselines={"other": BaselineScores(scores=scores, comparison=comparison)},
        calibration=measured,
        slices=slices,
    )
    record.write(tmp_path / "metrics.json")
    again = MetricsRecord.read(tmp_path / "metrics.json")
    assert again.model_dump_json() == record.model_dump_json()
    assert all(sentence[0].isupper() and ":" in sentence for sentence in task.describe_calibration(measured))


def test_confusion_matrix_counts_what_was_taken_for_what(build_case: "BuildCase", resampling: Resampling) -> None:
    for name in TASKS:
        y, _, values = build_case(name).draw_values(100)
        matrix = estimate(build_case(name).task, y, values, resampling).confusion_matrix
        if name in {"multi_label", "regression"}:
            assert matrix == []
        else:
            best = values.argmax(axis=1) if name == "single_label" else _median(values)
            assert matrix == sklearn.metrics.confusion_matrix(y, best, labels=range(len(values[0]))).tolist()


def test_two_models_differ_by_flips_churn_and_calibration(case: "Case", resampling: Resampling) -> None:
    task, (y, first, second) = case.task, case.draw(150)
    calibrations = tuple(task.fit_calibration(y, logits, coverage=0.9) for logits in (first, second))
    before, after = (task.activate(*pair) for pair in zip((first, second), calibrations, strict=True))
    measured = task.measure_diff(y, before, after, calibrations, resampling)
    assert list(measured) == list(task.diff_metrics)
    if "churn" in measured:
        same, was_right = task.same_prediction(before, after), task.row_errors(y, before) == 0
        assert measured["churn"].value == pytest.approx((~same).mean())
        lost = was_right & (task.row_errors(y, after) > 0)
        assert measured["negative_flips"].value == pytest.approx(lost.mean())
    uncalibrated = task.measure_diff(y, before, after, (None, None), resampling)
    assert set(uncalibrated) <= set(task.diff_metrics)
    side = task.measure_side(y, after, calibrations[1], resampling)
    assert set(side) <= set(task.diff_metrics)
    assert set(task.measure_side(y, after, None, resampling)) <= set(side)
    nothing = task.measure_diff(y, before, before, (calibrations[0],) * 2, resampling)
    assert [one.value for one in nothing.values()] == [0] * len(nothing)


def test_flips_are_texts_that_no_longer_get_exactly_their_labels(resampling: Resampling) -> None:
    task = build_task("multi_label", "ab")
    y = np.array([[1, 0], [1, 1], [0, 0], [0, 1], [1, 0]])
    before = np.array([[1.0, 0], [1, 1], [0, 1], [1, 1], [0, 1]])
    after = np.array([[1.0, 1], [1, 1], [0, 0], [1, 0], [0, 1]])
    flips = task.measure_diff(y, before, after, (None, None), resampling)
    assert flips["negative_flips"].value == 1 / 5, "the first; the fourth was wrong before, too"
    assert flips["churn"].value == 3 / 5


def test_the_hub_gets_metrics_that_it_has_names_for(case: "Case", resampling: Resampling) -> None:
    task, (y, _, logits) = case.task, case.draw(100)
    calibration = task.fit_calibration(y, logits, coverage=0.9)
    values = task.activate(logits, calibration)
    scores, measured = (
        estimate(task, y, values, resampling),
        task.calibration_scores(y, values, calibration, resampling),
    )
    for results in (task.hub_results(scores, measured), task.hub_results(scores, None)):
        assert results
        for result in results:
            assert isinstance(result["type"], str)
            assert isinstance(result["name"], str)
            assert math.isfinite(result["value"])


@pytest.mark.parametrize("name", TASKS)
def test_baselines_learn_words(name: str, build_case: "BuildCase") -> None:
    task, y = build_case(name).task, build_case(name).draw(200)[0]
    words = [f"w{place}" for place in np.unique(y, axis=0, return_inverse=True)[1].reshape(-1) % 7]
    texts = [f"a {word} film" for word in words]
    for baseline in task.baselines.keys() - {EMBEDDING}:
        values = task.predict_baseline(baseline, texts, y, texts[:20])
        assert values.shape == (20, len(task.label_names))
        task.check_values(values)
        assert task.baseline_fits == (len(task.label_names) if name == "multi_label" else 1)


PLACEHOLDERS = {
    "gives": {"count", "labels"},
    "purpose": {"source"},
    "scored": {"value", "rows"},
    "fixed": {"count"},
    "broken": {"count"},
    "contribution_title": {"label"},
    "explained": {"label"},
}
"""What the fields of `Wording` may be completed with; the others are completed with nothing."""


def test_words_are_completed_with_what_their_fields_say(case: "Case") -> None:
    wording = case.task.wording
    for field in dataclasses.fields(Wording):
        text = getattr(wording, field.name)
        wanted = {name for _, name, _, _ in Formatter().parse(text) if name is not None}
        assert wanted <= PLACEHOLDERS.get(field.name, set()), field.name
        assert "{" not in text.format(**dict.fromkeys(PLACEHOLDERS.get(field.name, ()), "x"))
    empty = {field.name for field in dataclasses.fields(Wording) if not getattr(wording, field.name)}
    assert empty <= {"loss_note", "plain", "pipeline_options"}


def test_a_gate_that_words_give_as_an_example_is_of_a_metric(case: "Case") -> None:
    known = {*case.task.metrics, *case.task.diff_metrics, "slowdown"}
    for gate in case.task.wording.gate_example.split(","):
        assert gate.replace(">", "<").split("<")[0] in known


def test_tolerances_are_in_the_unit_of_the_metrics(case: "Case") -> None:
    task, (y, _, values) = case.task, case.draw_values()
    metrics = {name: float(value) for name, value in task.compute(task.row_statistics(y, values).sum(axis=0)).items()}
    scaled = task.scale_tolerances(task.reproduction_tolerances, y, metrics)
    assert list(scaled) == list(task.reproduction_tolerances)
    assert all(0 < tolerance < 1 for tolerance in scaled.values())
