"""Scores in order: cumulative logits, the median, and metrics that know how far off a score is."""

from typing import TYPE_CHECKING

import numpy as np
import pytest
import sklearn.metrics

from lorafit.errors import DataError
from lorafit.tasks.base import TargetScaler
from lorafit.tasks.evaluation import compare, estimate, judge
from lorafit.tasks.metrics import sigmoid
from lorafit.tasks.records import Resampling
from lorafit.tasks.registry import build_task, get_task

if TYPE_CHECKING:
    from conftest import BuildCase

NAMES = [
    ("0", "1"),
    ("1", "2", "3", "4", "5"),
    ("-2", "-1", "0", "1"),
    ("1", "3", "5"),
    ("1", "2", "10"),
    ("2019", "2021"),
]


@pytest.mark.parametrize("names", NAMES)
def test_logits_are_cumulative_and_probabilities_of_scores(names: tuple[str, ...], build_case: "BuildCase") -> None:
    case = build_case("ordinal", names)
    y, logits, _ = case.draw(50)
    values = case.task.activate(logits)
    assert case.task.output_names == tuple(f"at least {name}" for name in names[1:])
    assert logits.shape == (50, len(names) - 1)
    assert values.shape == (50, len(names))
    assert values.min() >= 0
    assert not np.signbit(values).any()
    np.testing.assert_allclose(values.sum(axis=1), 1)
    for row in range(50):
        reached = [min(sigmoid(logits[row, : place + 1])) for place in range(len(names) - 1)]
        np.testing.assert_allclose(values[row, ::-1].cumsum()[::-1][1:], reached, atol=1e-12)
    assert case.task.targets(y, TargetScaler()).tolist() == [
        [float(label > place) for place in range(len(names) - 1)] for label in y
    ]


def test_contradicting_logits_count_as_the_lower() -> None:
    task = build_task("ordinal", "123")
    np.testing.assert_allclose(task.activate([[-1.0, 3.0]]), [[1 - sigmoid(-1.0), 0, sigmoid(-1.0)]])
    np.testing.assert_allclose(task.activate([[3.0, -1.0]])[0, 1], sigmoid(3.0) - sigmoid(-1.0))


def test_the_prediction_is_the_median() -> None:
    task = build_task("ordinal", "12345")
    for values, label in (
        ([0.4, 0.1, 0.1, 0.1, 0.3], "2"),
        ([0.0, 0.0, 0.0, 0.0, 1.0], "5"),
        ([0.6, 0.0, 0.0, 0.0, 0.4], "1"),
        ([0.3, 0.1, 0.05, 0.15, 0.4], "4"),
        ([0.5, 0.0, 0.0, 0.0, 0.5], "1"),  # of two medians the lower
    ):
        predicted = task.predict(np.array(values))
        assert predicted.label == label
        assert predicted.score == values[int(label) - 1]
        absolute = [sum(chance * abs(score - place) for place, chance in enumerate(values)) for score in range(5)]
        assert absolute[int(label) - 1] == pytest.approx(min(absolute)), "it has the least expected error"


@pytest.mark.parametrize("names", NAMES)
def test_errors_are_in_scores(names: tuple[str, ...], build_case: "BuildCase") -> None:
    case = build_case("ordinal", names)
    y, _, values = case.draw_values(300)
    scores = np.array([int(name) for name in names])
    true, given = scores[y], scores[case.task.main_output(values)]
    found = case.task.compute(case.task.row_statistics(y, values).sum(axis=0))
    assert found["mae"] == pytest.approx(sklearn.metrics.mean_absolute_error(true, given))
    assert found["within_one"] == pytest.approx((np.abs(true - given) <= 1).mean())
    every = list(range(scores.min(), scores.max() + 1))  # so that places differ as scores do
    kappa = sklearn.metrics.cohen_kappa_score(true, given, weights="quadratic", labels=every)
    assert found["qwk"] == pytest.approx(kappa, abs=1e-9)


def test_agreement_by_chance_alone_is_none() -> None:
    task, y = build_task("ordinal", ("2019", "2020", "2021")), np.array([0, 1, 2, 1] * 25)
    for given in (0, 1, 2):
        constant = task.compute(task.row_statistics(y, np.eye(3)[np.full(100, given)]).sum(axis=0))
        assert constant["qwk"] == pytest.approx(0)
        same = np.full(100, given)
        weighted = np.random.default_rng(0).random(100) @ task.row_statistics(same, np.eye(3)[same])
        assert task.compute(weighted)["qwk"] == 0, "neither scores nor predictions differ"
    perfect = task.compute(task.row_statistics(y, np.eye(3)[y]).sum(axis=0))
    assert (perfect["qwk"], perfect["mae"], perfect["accuracy"]) == (1, 0, 1)


@pytest.mark.parametrize("names", [("2", "1"), ("1", "01"), ("1", "good"), ("1", "2.5"), ("a", "b"), ("1", "1e3")])
def test_names_that_are_no_scores_in_order_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="whole numbers in rising order"):
        build_task("ordinal", names)


def test_scores_are_ordered_by_their_size() -> None:
    assert get_task("ordinal").from_labels(["10", "9", "-1", "9"], "a.csv").label_names == ("-1", "9", "10")


def test_calibration_cools_logits_that_are_too_sharp(build_case: "BuildCase") -> None:
    rng, task = np.random.default_rng(0), build_task("ordinal", "12345")
    place = rng.normal(size=20_000) * 2
    logits = place[:, np.newaxis] - np.array([-1.5, -0.5, 0.5, 1.5])
    y = (rng.random((20_000, 1)) < sigmoid(logits)).sum(axis=1)  # one threshold of chance for all, as in ordered logit
    calibration = task.fit_calibration(y[:10_000], 2.5 * logits[:10_000], coverage=0.9)
    assert calibration.temperature == pytest.approx(2.5, rel=0.05)
    values = task.activate(2.5 * logits[10_000:], calibration)
    scores = task.calibration_scores(y[10_000:], values, calibration, Resampling(samples=100))
    assert scores.metrics["ece"].value < 0.02 < scores.raw["ece"].value
    assert scores.metrics["coverage"].value == pytest.approx(0.9, abs=0.02)
    sharp = task.activate(2.5 * logits[10_000:])
    np.testing.assert_allclose(task._undo_temperature(values, calibration.temperature), sharp, atol=1e-9)


def test_training_and_validation_measure_the_same_loss(build_case: "BuildCase") -> None:
    case = build_case("ordinal")
    y, _, logits = case.draw(100)
    measured = case.task.validation_metrics(y, logits, TargetScaler())
    targets = case.task.targets(y, TargetScaler())
    expected = sklearn.metrics.log_loss(targets.ravel(), sigmoid(logits).ravel())
    assert measured["loss"] == pytest.approx(expected)


def test_a_better_model_is_found_by_its_errors(build_case: "BuildCase") -> None:
    case = build_case("ordinal")
    y, before, after = case.draw_values(400)
    compared = compare(case.task, y, before, after, Resampling(samples=300))
    assert compared.differences["mae"].high < 0
    assert judge(case.task, compared, 0.95) == "better"
    scores = estimate(case.task, y, after, Resampling(samples=300)).metrics
    assert scores["within_one"].value > scores["accuracy"].value
    assert scores["mae"].low < scores["mae"].value < scores["mae"].high


def test_two_scores_are_two_classes(build_case: "BuildCase") -> None:
    """With two scores, it is the single-label task with one logit."""
    task, classes = build_task("ordinal", "01"), build_task("single_label", "01")
    logits = np.random.default_rng(0).normal(size=(200, 1)) * 2
    y = (np.random.default_rng(1).random(200) < sigmoid(logits[:, 0])).astype(np.int64)
    pair = np.concatenate([-logits / 2, logits / 2], axis=1)
    np.testing.assert_allclose(task.activate(logits), classes.activate(pair))
    first, second = task.fit_calibration(y, logits, coverage=0.9), classes.fit_calibration(y, pair, coverage=0.9)
    assert first.temperature == pytest.approx(second.temperature, rel=1e-6)
    assert first.set_threshold == pytest.approx(second.set_threshold)
    values = task.activate(logits)
    found, expected = (one.compute(one.row_statistics(y, values).sum(axis=0)) for one in (task, classes))
    assert found["accuracy"] == found["within_one"] - found["mae"] == expected["accuracy"]
    assert found["log_loss"] == pytest.approx(expected["log_loss"])
