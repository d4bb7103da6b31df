"""Several labels a text: scikit-learn's figures, resampled texts against a slow twin, intervals against the truth."""

import time
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from lorafit.metrics import row_resampling
from lorafit.metrics.calibration import calibration_error
from lorafit.metrics.multi_label import (
    compare_multi_label,
    decide,
    decision_calibration_error,
    estimate_multi_label_flips,
    estimate_multi_label_scores,
    find_multi_label_mistakes,
    fit_multi_label_temperature,
    score_multi_label,
    sigmoid,
)
from lorafit.metrics.row_resampling import resample_row_sums
from lorafit.metrics.uncertainty import wilson_interval

Marks = NDArray[np.int64]
FloatArray = NDArray[np.float64]

FIGURES = ["micro_f1", "macro_f1", "exact_match", "hamming_loss", "log_loss"]


def make_rows(n_rows: int, n_labels: int, *, skill: float, seed: int) -> tuple[Marks, FloatArray]:
    """Labels of unequal frequency, and logits that lean towards the truth by `skill`."""
    rng = np.random.default_rng(seed)
    marks = (rng.random((n_rows, n_labels)) < np.linspace(0.1, 0.6, n_labels)).astype(np.int64)
    return marks, rng.normal(size=marks.shape) + skill * (2 * marks - 1)


def draw_linked(n_rows: int, n_labels: int, *, link: float, temperature: float, seed: int) -> tuple[Marks, FloatArray]:
    """Labels drawn from the chances of logits, right or wrong together in a text, and the logits made too sharp."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n_rows, n_labels)) * 2
    shared, own = rng.normal(size=(n_rows, 1)), rng.normal(size=(n_rows, n_labels))
    is_right = scipy.stats.norm.cdf(np.sqrt(link) * shared + np.sqrt(1 - link) * own) < sigmoid(np.abs(logits))
    return ((logits >= 0) == is_right).astype(np.int64), logits * temperature


def sklearn_figures(marks: Marks, probabilities: FloatArray) -> dict[str, float]:
    given = probabilities >= 0.5
    return {
        "micro_f1": sklearn.metrics.f1_score(marks, given, average="micro", zero_division=0),
        "macro_f1": sklearn.metrics.f1_score(marks, given, average="macro", zero_division=0),
        "exact_match": sklearn.metrics.accuracy_score(marks, given),
        "hamming_loss": sklearn.metrics.hamming_loss(marks, given),
        "log_loss": sklearn.metrics.log_loss(marks.ravel(), probabilities.ravel(), labels=[0, 1]),
    }


def draw_rows(n_rows: int, samples: int, seed: int) -> list[NDArray[np.int64]]:
    """The rows that the fast code draws, as row numbers."""
    rng = np.random.default_rng(seed)
    return [rng.integers(n_rows, size=n_rows) for _ in range(samples)]


@pytest.mark.parametrize("block", [1, 700, 2**18])
def test_sums_are_those_of_the_rows_drawn_whatever_the_block(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).normal(size=(37, 3))
    values[:, 2] = np.arange(37)
    monkeypatch.setattr(row_resampling, "_BLOCK", block)
    sums = resample_row_sums(values, 101, np.random.default_rng(2))
    np.testing.assert_allclose(sums, [values[drawn].sum(axis=0) for drawn in draw_rows(37, 101, 2)], atol=1e-12)
    assert (sums[:, 2] == np.rint(sums[:, 2])).all()


def test_two_thousand_resamples_of_25000_rows_take_seconds() -> None:
    values = np.random.default_rng(1).random((25_000, 30))
    began = time.perf_counter()
    assert resample_row_sums(values, 2000, np.random.default_rng(2)).shape == (2000, 30)
    assert time.perf_counter() - began < 5


def test_the_sigmoid_is_exact_and_does_not_overflow() -> None:
    logits = np.array([[-1e4, -700.0, -30.0, -1.0], [0.0, 1.0, 30.0, 1e4]])
    np.testing.assert_allclose(sigmoid(logits), scipy.special.expit(logits), rtol=1e-15)
    assert sigmoid(np.float32(0.3)).dtype == np.float64
    assert sigmoid(0.0) == 0.5


def test_labels_are_given_from_one_half_on() -> None:
    assert decide([0.5, np.nextafter(0.5, 0), 1.0, 0.0]).tolist() == [True, False, True, False]
    assert decide(np.full((2, 3), 0.7)).shape == (2, 3)


@pytest.mark.parametrize(("n_labels", "seed"), [(2, 1), (4, 2), (12, 3)])
def test_figures_are_scikit_learns_and_lie_inside_their_intervals(n_labels: int, seed: int) -> None:
    marks, logits = make_rows(400, n_labels, skill=1.0, seed=seed)
    probabilities, names = sigmoid(logits), [f"label {index}" for index in range(n_labels)]
    measured = estimate_multi_label_scores(marks, probabilities, names, samples=500)
    assert list(measured.figures) == FIGURES
    for name, value in sklearn_figures(marks, probabilities).items():
        estimate = measured.figures[name]
        assert estimate.value == pytest.approx(value)
        assert estimate.low < estimate.value < estimate.high
    table = [
        sklearn.metrics.precision_recall_fscore_support(of_label, said >= 0.5, average="binary", zero_division=0)[:3]
        for of_label, said in zip(marks.T, probabilities.T, strict=True)
    ]
    for position, scored in enumerate(measured.per_class):
        assert [scored.precision.value, scored.recall.value, scored.f1.value] == pytest.approx(table[position])
        assert (scored.label, scored.support) == (names[position], marks[:, position].sum())
        assert scored.f1.low < scored.f1.value < scored.f1.high


def test_a_single_label_is_scored_by_itself() -> None:
    marks, logits = make_rows(200, 1, skill=1.0, seed=1)
    measured = estimate_multi_label_scores(marks, sigmoid(logits), ["spam"], samples=100)
    alone = sklearn.metrics.f1_score(marks[:, 0], logits[:, 0] >= 0)
    for estimate in (measured.figures["micro_f1"], measured.figures["macro_f1"], measured.per_class[0].f1):
        assert estimate.value == pytest.approx(alone)
    assert measured.figures["exact_match"].value == pytest.approx(1 - measured.figures["hamming_loss"].value)


def test_intervals_are_those_of_scikit_learns_figures_of_resampled_texts() -> None:
    marks, logits = make_rows(60, 3, skill=0.8, seed=4)
    _, better = make_rows(60, 3, skill=1.5, seed=4)
    first, second = sigmoid(logits), sigmoid(better)
    drawn = draw_rows(60, 100, seed=9)
    old, new = ([sklearn_figures(marks[rows], said[rows]) for rows in drawn] for said in (first, second))
    measured = estimate_multi_label_scores(marks, first, "abc", samples=100, seed=9, confidence_level=0.9)
    compared = compare_multi_label(marks, first, second, samples=100, seed=9, confidence_level=0.9)
    for name in FIGURES:
        was, now = (np.array([figures[name] for figures in part]) for part in (old, new))
        estimate, difference = measured.figures[name], compared.differences[name]
        assert [estimate.low, estimate.high] == pytest.approx(np.quantile(was, [0.05, 0.95]).tolist())
        ends = np.quantile(now - was, [0.05, 0.95]).tolist()
        assert [difference.low, difference.high] == pytest.approx(ends, abs=1e-12)
    recalls = [sklearn.metrics.recall_score(marks[rows, 1], first[rows, 1] >= 0.5, zero_division=0.0) for rows in drawn]
    recall = measured.per_class[1].recall
    assert [recall.low, recall.high] == pytest.approx(np.quantile(recalls, [0.05, 0.95]).tolist())


def test_differences_are_those_of_the_scores_and_the_test_is_of_wrong_labels() -> None:
    marks, logits = make_rows(300, 4, skill=0.7, seed=5)
    _, better = make_rows(300, 4, skill=0.9, seed=5)
    before, after = sigmoid(logits), sigmoid(better)
    compared = compare_multi_label(marks, before, after, samples=100)
    first, second = (estimate_multi_label_scores(marks, said, "abcd", samples=100).figures for said in (before, after))
    assert list(compared.differences) == FIGURES
    for name, difference in compared.differences.items():
        assert difference.value == pytest.approx(second[name].value - first[name].value)
    was, now = (((said >= 0.5) != marks).sum(axis=1) for said in (before, after))
    assert (compared.rows_gained, compared.rows_lost) == (np.sum(now < was), np.sum(now > was))
    expected = scipy.stats.binomtest(compared.rows_gained, compared.rows_gained + compared.rows_lost).pvalue
    assert compared.p_value == pytest.approx(expected)


def test_scores_without_intervals_are_the_same() -> None:
    marks, logits = make_rows(100, 3, skill=0.5, seed=6)
    measured = estimate_multi_label_scores(marks, sigmoid(logits), "abc", samples=10).figures
    assert score_multi_label(marks, sigmoid(logits)) == {name: one.value for name, one in measured.items()}


def test_flips_are_texts_that_no_longer_get_exactly_their_labels() -> None:
    marks = np.array([[1, 0], [1, 1], [0, 0], [0, 1], [1, 0]])
    before = np.array([[1, 0], [1, 1], [0, 1], [1, 1], [0, 1]])
    after = np.array([[1, 1], [1, 1], [0, 0], [1, 0], [0, 1]])
    flips = estimate_multi_label_flips(marks, before, after, confidence_level=0.9)
    assert flips.negative == wilson_interval(1, 5, 0.9), "the first; the fourth was wrong before, too"
    assert flips.churn == wilson_interval(3, 5, 0.9)


def test_equal_models_do_not_differ() -> None:
    marks, logits = make_rows(80, 3, skill=1.0, seed=7)
    compared = compare_multi_label(marks, sigmoid(logits), sigmoid(logits), samples=100)
    for estimate in compared.differences.values():
        assert (estimate.low, estimate.value, estimate.high) == (0, 0, 0)
    assert compared.p_value == 1


def test_exact_match_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(8)
    covered = 0
    for number in range(1000):
        marks = rng.integers(2, size=(300, 2))
        is_hard = rng.random((300, 1)) < 0.4  # a text's decisions go wrong together
        is_wrong = rng.random((300, 2)) < np.where(is_hard, 0.5, 0.05)
        probabilities = np.where(marks ^ is_wrong, 0.8, 0.2)
        measured = estimate_multi_label_scores(marks, probabilities, "ab", samples=200, seed=number)
        exact = measured.figures["exact_match"]
        covered += exact.low <= 0.4 * 0.25 + 0.6 * 0.95**2 <= exact.high
    assert 930 <= covered <= 970


def test_the_seed_decides_the_intervals_and_nothing_else() -> None:
    marks, logits = make_rows(100, 3, skill=1.0, seed=10)
    said, other = sigmoid(logits), sigmoid(logits / 2 + 0.3)
    for measure in (
        lambda seed: estimate_multi_label_scores(marks, said, "abc", samples=100, seed=seed),
        lambda seed: compare_multi_label(marks, said, other, samples=100, seed=seed),
        lambda seed: decision_calibration_error(marks, said, samples=100, seed=seed),
    ):
        assert measure(3) == measure(3)
        assert measure(3) != measure(4)


def test_a_label_without_texts_is_scored_zero_and_counts_in_the_macro_f1() -> None:
    marks = np.array([[1, 0, 0], [0, 0, 0], [1, 0, 0], [1, 0, 0]])
    probabilities = np.array([[0.9, 0.1, 0.8], [0.2, 0.2, 0.1], [0.7, 0.3, 0.2], [0.6, 0.4, 0.3]])
    measured = estimate_multi_label_scores(marks, probabilities, "abc", samples=100)
    for absent in measured.per_class[1:]:
        assert absent.support == absent.precision.value == absent.recall.high == absent.f1.high == 0
    assert measured.figures["macro_f1"].value == pytest.approx(1 / 3)
    assert measured.figures["macro_f1"].value == pytest.approx(sklearn_figures(marks, probabilities)["macro_f1"])


def test_nothing_true_and_nothing_given_is_an_exact_match_without_an_f1() -> None:
    measured = estimate_multi_label_scores(np.zeros((5, 2)), np.full((5, 2), 0.1), "ab", samples=50)
    values = {name: estimate.value for name, estimate in measured.figures.items()}
    assert values == pytest.approx(
        {"micro_f1": 0, "macro_f1": 0, "exact_match": 1, "hamming_loss": 0, "log_loss": -np.log(0.9)}
    )


@pytest.mark.parametrize("certain", [0.0, 1.0])
def test_one_row_and_certain_mistakes_give_finite_numbers(certain: float) -> None:
    measured = estimate_multi_label_scores([[1, 0]], [[certain, certain]], "ab", samples=50)
    loss = measured.figures["log_loss"]
    assert loss.low == loss.value == loss.high == pytest.approx(-np.log(np.finfo(np.float64).tiny) / 2)
    assert measured.figures["hamming_loss"].value == 0.5
    error = decision_calibration_error([[1, 0]], [[certain, certain]], samples=50)
    assert (error.value, error.high) == (0.5, 0.5)


@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.float32])
def test_marks_may_be_of_any_type_that_holds_0_and_1(kind: type) -> None:
    marks, logits = make_rows(50, 3, skill=1.0, seed=11)
    expected = estimate_multi_label_scores(marks, sigmoid(logits), "abc", samples=20)
    assert estimate_multi_label_scores(marks.astype(kind), sigmoid(logits), "abc", samples=20) == expected


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_that_made_logits_too_sharp_is_found(temperature: float) -> None:
    marks, logits = draw_linked(5000, 4, link=0.3, temperature=temperature, seed=12)
    assert fit_multi_label_temperature(marks, logits) == pytest.approx(temperature, rel=0.05)


def test_the_temperature_is_the_one_a_general_optimiser_finds() -> None:
    marks, logits = draw_linked(1000, 3, link=0.0, temperature=2.0, seed=13)
    best = minimize_scalar(
        lambda log: (np.logaddexp(0, logits / np.exp(log)) - marks * logits / np.exp(log)).mean(),
        bounds=(-2, 2),
        method="bounded",
    )
    assert fit_multi_label_temperature(marks, logits) == pytest.approx(np.exp(best.x), rel=0.01)


def test_temperatures_of_rows_that_say_little_stay_in_their_bounds() -> None:
    marks, logits = make_rows(50, 2, skill=0.0, seed=14)
    sure = 3.0 * (2 * marks - 1)
    assert sigmoid(sure / fit_multi_label_temperature(marks, sure)).max() == pytest.approx(1 - 1 / 102, abs=1e-3)
    assert fit_multi_label_temperature(marks, -sure) == pytest.approx(20)
    assert fit_multi_label_temperature(marks, np.zeros_like(logits)) == 1
    assert fit_multi_label_temperature([[1]], [[1e6]]) == pytest.approx(20)
    assert 0.05 <= fit_multi_label_temperature(np.ones((3, 2)), np.ones((3, 2))) <= 20


def test_the_calibration_error_is_that_of_the_decisions_as_rows() -> None:
    marks, logits = make_rows(300, 5, skill=0.6, seed=15)
    probabilities = sigmoid(2 * logits)
    probabilities[:5] = 0.5  # which means that the label is given
    probabilities[5:10] = [0.0, 1.0, 1.0, 0.0, 0.6]
    said = np.stack([probabilities, 1 - probabilities], axis=-1).reshape(-1, 2)
    measured = decision_calibration_error(marks, probabilities, samples=100)
    assert measured.value == pytest.approx(calibration_error(1 - marks.ravel(), said), abs=1e-12)


def test_the_interval_of_the_ece_is_that_of_resampled_texts() -> None:
    marks, logits = draw_linked(200, 3, link=0.5, temperature=3.0, seed=16)
    probabilities = sigmoid(logits)
    said = np.stack([probabilities, 1 - probabilities], axis=-1)
    slow = [
        calibration_error(1 - marks[rows].ravel(), said[rows].reshape(-1, 2)) for rows in draw_rows(200, 300, seed=17)
    ]
    measured = decision_calibration_error(marks, probabilities, samples=300, seed=17)
    ends = 2 * measured.value - np.quantile(slow, [0.975, 0.025])
    assert [measured.low, measured.high] == pytest.approx(ends.tolist(), abs=1e-12)


@pytest.mark.parametrize(("link", "temperature"), [(0.0, 1.0), (0.7, 1.0), (0.0, 1.6), (0.7, 1.6), (0.7, 2.5)])
def test_the_interval_of_the_ece_holds_the_truth(link: float, temperature: float) -> None:
    steps = np.array([NormalDist().inv_cdf((place + 0.5) / 20_001) for place in range(20_001)]) * 2
    said = sigmoid(np.abs(steps) * temperature)
    bins = np.minimum((said * 15).astype(int), 14)
    truth = np.abs(np.bincount(bins, weights=sigmoid(np.abs(steps)) - said)).sum() / len(steps)
    held = 0
    for seed in range(200):
        marks, logits = draw_linked(300, 4, link=link, temperature=temperature, seed=seed)
        error = decision_calibration_error(marks, sigmoid(logits), samples=200, seed=seed)
        assert error.low <= error.value <= error.high
        held += error.low <= truth + 1e-12 <= error.high
    assert held >= 170


@pytest.mark.parametrize("link", [0.0, 0.7])
def test_the_interval_of_a_calibrated_models_ece_begins_at_0(link: float) -> None:
    lows = []
    for seed in range(200):
        marks, logits = draw_linked(300, 4, link=link, temperature=1.0, seed=seed)
        lows.append(decision_calibration_error(marks, sigmoid(logits), samples=200).low)
    assert lows.count(0) >= 186


HALVES = np.full((3, 2), 0.5)
MARKS = [[0, 1], [1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": np.zeros((0, 2)), "probabilities": np.zeros((0, 2))}, "at least one row"),
        ({"labels": [0, 1, 0]}, r"shape \(n, labels\), got \(3,\)"),
        ({"labels": np.zeros((3, 0))}, r"got \(3, 0\)"),
        ({"labels": [[0, 1], [0, 2], [0, 1]]}, r"0 or 1, got \[0, 2\] in row 2 \(1 such rows\)"),
        ({"labels": np.full((3, 2), np.nan)}, "0 or 1"),
        ({"labels": np.zeros((2, 2))}, r"labels \(2, 2\), probabilities \(3, 2\)"),
        ({"probabilities": HALVES + np.array([0, 0.6])}, r"between 0 and 1, got \[0.5, 1.1\] in row 1 \(3 such rows\)"),
        ({"probabilities": HALVES * np.nan}, "go through sigmoid first"),
        ({"label_names": ["a"]}, "2 columns, 1 names"),
        ({"samples": 0}, "samples must be at least 1, got 0"),
        ({"confidence_level": 1.0}, "between 0 and 1, got 1.0"),
    ],
)
def test_estimates_refuse_what_they_cannot_score(arguments: dict[str, Any], message: str) -> None:
    call = {"labels": MARKS, "probabilities": HALVES, "label_names": ["a", "b"], "samples": 10, **arguments}
    with pytest.raises(ValueError, match=message):
        estimate_multi_label_scores(**call)
    if "label_names" not in arguments:
        del call["label_names"]
        with pytest.raises(ValueError, match=message):
            decision_calibration_error(**call)
        before = call.pop("probabilities")
        with pytest.raises(ValueError, match=message):
            compare_multi_label(before=HALVES, after=before, **call)


@pytest.mark.parametrize("logits", [np.zeros((3, 1)), np.full((3, 2), np.inf), np.zeros(3)])
def test_logits_that_do_not_fit_are_refused(logits: FloatArray) -> None:
    with pytest.raises(ValueError, match=r"finite numbers of the shape \(3, 2\)"):
        fit_multi_label_temperature(MARKS, logits)


def test_mistakes_come_by_the_surest_wrong_decision_of_a_text() -> None:
    marks = [[1, 0], [1, 1], [0, 0], [0, 1], [0, 1]]
    probabilities = [[0.9, 0.1], [0.45, 0.9], [0.5, 0.2], [0.8, 0.3], [0.3, 0.2]]
    assert find_multi_label_mistakes(marks, probabilities).tolist() == [3, 4, 1, 2]
    assert find_multi_label_mistakes(marks, probabilities, most=2).tolist() == [3, 4]
    assert find_multi_label_mistakes(marks[:1], probabilities[:1]).tolist() == []
    with pytest.raises(ValueError, match="probabilities"):
        find_multi_label_mistakes(marks, probabilities[:1])
