import numpy as np
import pytest

from lorafit.metrics.scores import softmax
from lorafit.metrics.selective import (
    NEVER,
    choose_accept_threshold,
    choose_set_threshold,
    conformal_sets,
    trace_risk,
)


def pair(confidence: list[float], right: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and two-class probabilities with these confidences, right (1) or wrong (0)."""
    probabilities = np.array([[value, 1 - value] for value in confidence])
    return 1 - np.array(right), probabilities


def test_risk_is_counted_from_the_most_confident_row_down() -> None:
    labels, probabilities = pair([0.6, 0.9, 0.8, 0.7], [0, 1, 1, 0])
    curve = trace_risk(labels, probabilities, points=10)
    assert [(point.threshold, point.accepted, point.errors) for point in curve] == [
        (0.9, 1, 0),
        (0.8, 2, 0),
        (0.7, 3, 1),
        (0.6, 4, 2),
    ]


def test_rows_of_one_confidence_are_accepted_together() -> None:
    labels, probabilities = pair([0.7, 0.9, 0.7, 0.7], [1, 1, 0, 1])
    assert [(point.accepted, point.errors) for point in trace_risk(labels, probabilities, points=10)] == [
        (1, 0),
        (4, 1),
    ]


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(2, size=5000), softmax(rng.normal(size=(5000, 2)))
    curve = trace_risk(labels, probabilities, points=100)
    assert len(curve) == 100
    assert curve[0].threshold == probabilities.max()
    assert (curve[-1].accepted, curve[-1].errors) == (5000, int((probabilities.argmax(axis=1) != labels).sum()))
    for point in curve[::10]:
        accepted = probabilities.max(axis=1) >= point.threshold
        assert point.accepted == accepted.sum()
        assert point.errors == (probabilities.argmax(axis=1) != labels)[accepted].sum()


def test_the_threshold_accepts_as_many_rows_as_the_target_allows() -> None:
    confidence = [0.99 - 0.001 * row for row in range(200)]
    right = [1] * 150 + [0, 1] * 25
    curve = trace_risk(*pair(confidence, right), points=1000)
    for target in (0.99, 0.95, 0.9):
        threshold = choose_accept_threshold(curve, target)
        allowed = [row + 1 for row in range(200) if (right[: row + 1].count(0) + 1) / (row + 2) <= 1 - target + 1e-9]
        assert threshold == (pytest.approx(confidence[allowed[-1] - 1]) if allowed else NEVER), target


def test_a_few_rows_without_a_mistake_do_not_prove_a_high_accuracy() -> None:
    curve = trace_risk(*pair([0.9] * 10, [1] * 10), points=10)
    assert choose_accept_threshold(curve, 0.99) == NEVER
    assert choose_accept_threshold(curve, 0.9) == 0.9


@pytest.mark.parametrize("target", [0, 1, 1.5, -0.1])
def test_a_target_out_of_range_is_refused(target: float) -> None:
    with pytest.raises(ValueError, match="target_accuracy"):
        choose_accept_threshold(trace_risk(*pair([0.9], [1]), points=10), target)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_sets_of_new_rows_hold_the_truth_as_often_as_asked(classes: int, coverage: float) -> None:
    rng, reached = np.random.default_rng(0), []
    for _ in range(200):
        logits = rng.normal(size=(700, classes)) * 2
        labels = (rng.random((700, 1)) > softmax(logits).cumsum(axis=1)).sum(axis=1).clip(max=classes - 1)
        probabilities = softmax(logits * 1.5)  # miscalibrated: coverage does not rest on calibration
        threshold = choose_set_threshold(labels[:300], probabilities[:300], coverage)
        sets = conformal_sets(probabilities[300:], threshold)
        reached.append(sets[np.arange(400), labels[300:]].mean())
    assert np.mean(reached) >= coverage - 0.005
    assert np.mean(reached) <= coverage + (0.1 if coverage < 0.9 else 0.02)  # the likeliest class is always inside


def test_the_set_threshold_is_the_quantile_of_the_true_class() -> None:
    probabilities = np.array([[value, 1 - value] for value in np.linspace(0.05, 0.95, 19)])
    labels = np.zeros(19, dtype=np.int64)
    assert choose_set_threshold(labels, probabilities, 0.9) == pytest.approx(0.1)  # the 18th of 19 from above
    assert choose_set_threshold(labels, probabilities, 0.95) == pytest.approx(0.05)
    assert choose_set_threshold(labels, probabilities, 0.96) == 0


def test_every_set_holds_the_most_probable_class() -> None:
    sets = conformal_sets([[0.4, 0.35, 0.25], [0.98, 0.01, 0.01], [0.34, 0.33, 0.33]], 0.345)
    assert sets.tolist() == [[True, True, False], [True, False, False], [True, False, False]]


@pytest.mark.parametrize("coverage", [0, 1, 2])
def test_a_coverage_out_of_range_is_refused(coverage: float) -> None:
    with pytest.raises(ValueError, match="coverage"):
        choose_set_threshold(np.array([0]), np.array([[0.5, 0.5]]), coverage)
