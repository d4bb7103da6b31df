"""The fast bootstrap against its slow, obvious twin: rows drawn one resample at a time."""

import time
from typing import Any

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from numpy.typing import NDArray

from lorafit.metrics import scores, uncertainty

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
Rows = tuple[IntArray, FloatArray]

SAMPLES = 3000


def make_rows(n_rows: int, n_classes: int, *, skill: float, seed: int) -> Rows:
    """Labels of unequal frequency, and probabilities that favour the true class by `skill` logits."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(n_classes, n_rows, p=np.arange(1, n_classes + 1) / np.arange(1, n_classes + 1).sum())
    logits = rng.normal(size=(n_rows, n_classes))
    logits[np.arange(n_rows), labels] += skill
    return labels, scores.softmax(logits)


def resample_rows(labels: IntArray, rng: np.random.Generator) -> IntArray:
    """The twin: row numbers drawn with replacement within each true class."""
    strata = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return np.concatenate([rng.choice(stratum, len(stratum)) for stratum in strata])


def assert_same_distribution(fast: FloatArray, slow: FloatArray) -> None:
    """Means, spreads and quantiles agree within about five standard errors of the resampling."""
    spread = slow.std()
    margin = 5 * spread * np.sqrt(2 / len(slow))
    assert abs(fast.mean() - slow.mean()) < margin
    assert abs(fast.std() - spread) < margin
    for share in (0.025, 0.25, 0.75, 0.975):
        assert abs(np.quantile(fast, share) - np.quantile(slow, share)) < 3 * margin


@pytest.fixture(scope="module")
def rows() -> Rows:
    return make_rows(150, 3, skill=1.0, seed=1)


@pytest.fixture(scope="module")
def drawn_rows(rows: Rows) -> list[IntArray]:
    rng = np.random.default_rng(2)
    return [resample_rows(rows[0], rng) for _ in range(SAMPLES)]


@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "mcc", "precision", "recall", "f1"])
def test_multinomial_draws_equal_resampled_rows(rows: Rows, drawn_rows: list[IntArray], name: str) -> None:
    labels, probabilities = rows
    predicted, score = scores.predict_labels(probabilities), getattr(scores, name)
    matrix = scores.confusion_matrix(labels, predicted, 3)
    fast = score(uncertainty.resample_confusion(matrix, SAMPLES, np.random.default_rng(3)))
    slow = np.array([score(scores.confusion_matrix(labels[drawn], predicted[drawn], 3)) for drawn in drawn_rows])
    for one_fast, one_slow in zip(fast.reshape(SAMPLES, -1).T, slow.reshape(SAMPLES, -1).T, strict=True):
        assert_same_distribution(one_fast, one_slow)


def test_resampled_means_equal_means_of_resampled_rows(rows: Rows, drawn_rows: list[IntArray]) -> None:
    labels, probabilities = rows
    losses = scores.row_log_losses(labels, probabilities)
    fast = uncertainty.resample_means(losses, labels, SAMPLES, np.random.default_rng(4))
    assert_same_distribution(fast, np.array([losses[drawn].mean() for drawn in drawn_rows]))


def test_resampling_in_small_blocks_fills_every_resample(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, probabilities = rows
    monkeypatch.setattr(uncertainty, "_BLOCK", 700)
    means = uncertainty.resample_means(np.ones(len(labels)), labels, 101, np.random.default_rng(0))
    np.testing.assert_allclose(means, np.ones(101))
    measured = uncertainty.estimate_scores(labels, probabilities, "abc", samples=101)
    assert measured.accuracy.low < measured.accuracy.value < measured.accuracy.high


def test_resampled_matrices_keep_the_support_and_take_leading_axes() -> None:
    matrices = np.array([[[5, 2, 0], [0, 0, 0], [1, 1, 8]], [[0, 0, 4], [3, 3, 3], [0, 9, 0]]])
    drawn = uncertainty.resample_confusion(matrices, 50, np.random.default_rng(0))
    assert drawn.shape == (50, 2, 3, 3)
    np.testing.assert_array_equal(drawn.sum(axis=-1), np.broadcast_to(matrices.sum(axis=-1), (50, 2, 3)))
    assert not drawn[:, matrices == 0].any()


def test_paired_intervals_equal_the_twins(rows: Rows, drawn_rows: list[IntArray]) -> None:
    labels, before = rows
    _, after = make_rows(150, 3, skill=2.0, seed=1)
    measured = uncertainty.compare_paired(labels, before, after, samples=SAMPLES, seed=5)
    right = [scores.predict_labels(values) == labels for values in (before, after)]
    losses = [scores.row_log_losses(labels, values) for values in (before, after)]
    for estimate, (first, second) in (
        (measured.accuracy_difference, right),
        (measured.log_loss_difference, losses),
    ):
        slow = np.array([second[drawn].mean() - first[drawn].mean() for drawn in drawn_rows])
        low, high = np.quantile(slow, [0.025, 0.975])
        assert estimate.value == pytest.approx(second.mean() - first.mean())
        assert estimate.low == pytest.approx(low, abs=0.25 * slow.std())
        assert estimate.high == pytest.approx(high, abs=0.25 * slow.std())
    assert measured.rows_gained == np.sum(~right[0] & right[1])
    assert measured.rows_lost == np.sum(right[0] & ~right[1])
    expected = scipy.stats.binomtest(measured.rows_gained, measured.rows_gained + measured.rows_lost).pvalue
    assert measured.mcnemar_p_value == pytest.approx(expected)


@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "mcc"])
def test_intervals_cover_the_truth_as_often_as_they_say(name: str) -> None:
    score = getattr(scores, name)
    rng = np.random.default_rng(6)
    truth = np.array([[0.40, 0.07, 0.03], [0.05, 0.22, 0.03], [0.02, 0.04, 0.14]])
    datasets = rng.multinomial(600, truth.ravel(), size=2000).reshape(2000, 3, 3)
    resampled = np.concatenate(
        [score(uncertainty.resample_confusion(part, 400, rng)) for part in np.split(datasets, 4)], axis=1
    )
    low, high = uncertainty.percentile_interval(resampled, 0.95)
    target = score(np.round(truth * 10_000).astype(np.int64))
    assert 0.93 <= np.mean((low <= target) & (target <= high)) <= 0.97


def test_accuracy_intervals_of_models_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(14)
    covered, shares, recalls = 0, np.array([0.3, 0.7]), np.array([0.75, 0.9])
    for number in range(1000):
        labels = rng.choice(2, 400, p=shares)
        is_right = rng.random(400) < recalls[labels]
        probabilities = np.where(np.eye(2)[np.where(is_right, labels, 1 - labels)] == 1, 0.8, 0.2)
        measured = uncertainty.estimate_scores(labels, probabilities, "ab", samples=200, seed=number).accuracy
        covered += measured.low <= shares @ recalls <= measured.high
    assert 930 <= covered <= 970


def test_two_thousand_resamples_of_imdbs_test_rows_take_seconds() -> None:
    labels, before = make_rows(25_000, 2, skill=1.0, seed=15)
    _, after = make_rows(25_000, 2, skill=2.0, seed=15)
    began = time.perf_counter()
    uncertainty.estimate_scores(labels, after, "ab", samples=2000)
    uncertainty.compare_paired(labels, before, after, samples=2000)
    assert time.perf_counter() - began < 5


def test_mean_weights_of_several_tables_equal_those_of_resampled_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(16)
    tables, labels, outcomes = (rng.integers(0, high, 400) for high in (3, 2, 4))
    counts, weights = np.zeros((3, 2, 4), dtype=np.int64), [-1.0, 0.0, 0.5, 2.0]
    np.add.at(counts, (tables, labels, outcomes), 1)
    whole = uncertainty.estimate_outcomes(counts, weights, SAMPLES, np.random.default_rng(1), 0.9)
    for table, estimate in enumerate(whole):
        of_table = tables == table
        worth = np.array(weights)[outcomes[of_table]]
        slow = np.array([worth[resample_rows(labels[of_table], rng)].mean() for _ in range(SAMPLES)])
        low, high = np.quantile(slow, [0.05, 0.95])
        assert estimate.value == pytest.approx(worth.mean())
        assert estimate.low == pytest.approx(low, abs=0.25 * slow.std())
        assert estimate.high == pytest.approx(high, abs=0.25 * slow.std())
    monkeypatch.setattr(uncertainty, "_BLOCK", 700)
    assert uncertainty.estimate_outcomes(counts, weights, SAMPLES, np.random.default_rng(1), 0.9) == whole


def test_paired_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(7)
    truth = np.array([[0.04, 0.40, 0.08], [0.03, 0.38, 0.07]])  # a row a class: lost, as before, gained
    datasets = rng.multinomial(500, truth.ravel(), size=2000).reshape(2000, 2, 3)
    drawn = uncertainty.resample_confusion(datasets, 400, rng)
    low, high = uncertainty.percentile_interval((drawn[..., 2] - drawn[..., 0]).sum(axis=-1) / 500, 0.95)
    assert 0.93 <= np.mean((low <= 0.08) & (high >= 0.08)) <= 0.97


def test_log_loss_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(8)
    labels = np.repeat([0, 1], [120, 180])
    covered = 0
    for _ in range(600):
        losses = rng.gamma(2.0, np.array([0.2, 0.3])[labels])
        low, high = uncertainty.percentile_interval(uncertainty.resample_means(losses, labels, 300, rng), 0.95)
        covered += low <= 0.4 * 0.4 + 0.6 * 0.6 <= high
    assert 0.93 <= covered / 600 <= 0.97


@pytest.mark.parametrize(
    ("gained", "lost"),
    [(0, 0), (1, 0), (0, 5), (5, 5), (6, 5), (17, 4), (140, 100), (4, 300), (12_600, 12_400), (60_000, 60_500)],
)
def test_mcnemar_equals_the_exact_binomial_test(gained: int, lost: int) -> None:
    expected = scipy.stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert uncertainty.mcnemar_exact(gained, lost) == pytest.approx(expected, rel=1e-8)
    assert uncertainty.mcnemar_exact(lost, gained) == uncertainty.mcnemar_exact(gained, lost)


def test_mcnemar_beyond_the_smallest_float_is_zero_and_negative_counts_are_refused() -> None:
    assert uncertainty.mcnemar_exact(10_000, 0) == 0
    with pytest.raises(ValueError, match="-1 gained and 2 lost"):
        uncertainty.mcnemar_exact(-1, 2)


def test_estimates_hold_scikit_learns_values_inside_their_intervals() -> None:
    labels, probabilities = make_rows(400, 4, skill=1.5, seed=9)
    names = ("poor", "fair", "good", "great")
    measured = uncertainty.estimate_scores(labels, probabilities, names, samples=500)
    predicted = probabilities.argmax(axis=1)
    expected = {
        "accuracy": sklearn.metrics.accuracy_score(labels, predicted),
        "macro_f1": sklearn.metrics.f1_score(labels, predicted, average="macro"),
        "mcc": sklearn.metrics.matthews_corrcoef(labels, predicted),
        "log_loss": sklearn.metrics.log_loss(labels, probabilities),
    }
    for name, value in expected.items():
        estimate = getattr(measured, name)
        assert estimate.value == pytest.approx(value)
        assert estimate.low < estimate.value < estimate.high
    table = np.array(sklearn.metrics.precision_recall_fscore_support(labels, predicted))
    for position, scored in enumerate(measured.per_class):
        values = [scored.precision.value, scored.recall.value, scored.f1.value, scored.support]
        assert values == pytest.approx(table[:, position].tolist())
        assert scored.label == names[position]
        assert scored.recall.low < scored.recall.value < scored.recall.high
    assert measured.confusion_matrix == sklearn.metrics.confusion_matrix(labels, predicted).tolist()


def test_a_higher_level_gives_a_wider_interval() -> None:
    labels, probabilities = make_rows(200, 2, skill=1.0, seed=10)
    narrow, wide = (
        uncertainty.estimate_scores(labels, probabilities, "ab", confidence_level=level, samples=500)
        for level in (0.8, 0.99)
    )
    for name in ("accuracy", "macro_f1", "mcc", "log_loss"):
        assert getattr(wide, name).low < getattr(narrow, name).low
        assert getattr(wide, name).high > getattr(narrow, name).high


def test_the_seed_decides_the_intervals_and_nothing_else() -> None:
    labels, before = make_rows(200, 3, skill=0.5, seed=11)
    _, after = make_rows(200, 3, skill=1.5, seed=11)
    for measure in (
        lambda seed: uncertainty.estimate_scores(labels, after, "abc", samples=200, seed=seed),
        lambda seed: uncertainty.compare_paired(labels, before, after, samples=200, seed=seed),
    ):
        assert measure(3) == measure(3)
        assert measure(3) != measure(4)


def test_classes_without_rows_are_scored_zero() -> None:
    labels = np.array([0, 0, 2, 2, 2, 0])
    probabilities = np.eye(5)[[0, 3, 2, 2, 0, 0]] * 0.9 + 0.02
    measured = uncertainty.estimate_scores(labels, probabilities, "abcde", samples=200)
    absent = measured.per_class[1]
    assert (absent.support, absent.recall.value, absent.recall.high, absent.f1.value) == (0, 0, 0, 0)
    assert measured.macro_f1.value == pytest.approx(
        sklearn.metrics.f1_score(labels, probabilities.argmax(axis=1), average="macro", zero_division=0)
    )
    compared = uncertainty.compare_paired(labels, np.full((6, 5), 0.2), probabilities, samples=200)
    assert (compared.rows_gained, compared.rows_lost) == (2, 1)


@pytest.mark.parametrize("label", [0, 1])
def test_one_row_and_a_constant_predictor_give_finite_numbers(label: int) -> None:
    measured = uncertainty.estimate_scores([label], [[1.0, 0.0]], "ab", samples=100)
    assert measured.accuracy.value == measured.accuracy.low == measured.accuracy.high == 1 - label
    assert measured.mcc.value == 0
    assert np.isfinite(measured.log_loss.high)


def test_equal_models_do_not_differ() -> None:
    labels, probabilities = make_rows(80, 2, skill=1.0, seed=12)
    compared = uncertainty.compare_paired(labels, probabilities, probabilities, samples=100)
    for estimate in (compared.accuracy_difference, compared.log_loss_difference):
        assert (estimate.low, estimate.value, estimate.high) == (0, 0, 0)
    assert compared.mcnemar_p_value == 1


HALVES = np.full((3, 2), 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": []}, "0 labels, 3 rows"),
        ({"labels": [], "probabilities": np.zeros((0, 2))}, "at least one row"),
        ({"labels": [0, 1]}, "2 labels, 3 rows"),
        ({"labels": [0, 1, 2]}, "between 0 and 1, got 2 in row 3"),
        ({"label_names": ["a"]}, "2 columns, 1 names"),
        ({"samples": 0}, "samples must be at least 1, got 0"),
        ({"confidence_level": 1.0}, "between 0 and 1, got 1.0"),
    ],
)
def test_estimate_refuses_what_it_cannot_score(arguments: dict[str, Any], message: str) -> None:
    call = {"labels": [0, 1, 0], "probabilities": HALVES, "label_names": ["a", "b"], "samples": 10, **arguments}
    with pytest.raises(ValueError, match=message):
        uncertainty.estimate_scores(**call)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"after": np.full((2, 2), 0.5)}, "3 labels, 2 rows"),
        ({"after": np.full((3, 4), 0.25)}, "2 and 4 columns"),
        ({"labels": [0, 1, 5]}, "got 5 in row 3"),
        ({"samples": 0}, "samples must be at least 1"),
    ],
)
def test_comparison_refuses_what_it_cannot_compare(arguments: dict[str, Any], message: str) -> None:
    call = {"labels": [0, 1, 0], "before": HALVES, "after": HALVES, "samples": 10, **arguments}
    with pytest.raises(ValueError, match=message):
        uncertainty.compare_paired(**call)
