import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from lorafit.reports.curves import (
    average_roc,
    find_confusions,
    rank_class,
    rank_classes,
    thin,
)


@pytest.mark.parametrize("decimals", [1, 8], ids=["with ties", "without ties"])
@pytest.mark.parametrize("rows", [2, 10, 500])
def test_ranking_is_that_of_scikit_learn(rows: int, decimals: int) -> None:
    rng = np.random.default_rng(rows)
    is_class = np.arange(rows) % 2 == 0
    scores = np.round(rng.normal(size=rows) + is_class, decimals)
    ranking = rank_class(is_class, scores)
    assert ranking is not None
    assert ranking.roc_area == pytest.approx(roc_auc_score(is_class, scores))
    assert ranking.average_precision == pytest.approx(average_precision_score(is_class, scores))
    rates, recalls, _ = roc_curve(is_class, scores, drop_intermediate=False)
    np.testing.assert_allclose(ranking.false_positive_rate, rates)
    np.testing.assert_allclose(ranking.recall, recalls)
    assert ranking.precision[0] == 1
    assert ranking.precision[-1] == pytest.approx(is_class.mean())


def test_rows_of_one_probability_rank_by_chance() -> None:
    ranking = rank_class(np.array([True, False, False, True]), np.full(4, 0.5))
    assert ranking is not None
    assert (ranking.roc_area, ranking.average_precision) == (0.5, 0.5)


def test_a_class_of_no_row_or_of_all_cannot_be_ranked() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3]])
    first, second, third = rank_classes(np.array([0, 1]), probabilities)
    assert first is not None
    assert second is not None
    assert third is None
    assert rank_classes(np.array([0, 0]), probabilities[:, :2]) == [None, None]


def test_curves_of_classes_are_averaged() -> None:
    perfect = rank_class(np.array([True, False]), np.array([0.9, 0.1]))
    chance = rank_class(np.array([True, False]), np.array([0.5, 0.5]))
    rates, recalls = average_roc([perfect, None, chance], points=3)
    assert rates.tolist() == [0, 0.5, 1]
    np.testing.assert_allclose(recalls, [0.5, 0.75, 1])


@pytest.mark.parametrize("rows", [200, 201, 25_000])
def test_a_long_curve_keeps_its_ends_and_its_shape(rows: int) -> None:
    across = np.linspace(0, 1, rows) ** 6
    up = np.minimum(1, 50 * across)
    kept_across, kept_up = thin(across, up, most=200)
    assert len(kept_across) <= 200
    assert (kept_across[0], kept_across[-1]) == (0, 1)
    assert np.abs(np.interp(across, kept_across, kept_up) - up).max() < 0.02
    assert len(thin(across[:7], up[:7], most=200)[0]) == 7


def test_a_curve_that_stands_still_is_thinned() -> None:
    (kept,) = thin(np.zeros(1000), most=5)
    assert kept.tolist() == [0]


def test_confusions_come_by_their_number() -> None:
    matrix = [[5, 1, 0], [2, 0, 0], [0, 2, 6]]
    pairs = [(pair.true, pair.predicted, pair.rows, pair.share) for pair in find_confusions(matrix)]
    assert pairs == [(1, 0, 2, 1.0), (2, 1, 2, 0.25), (0, 1, 1, 1 / 6)]
    assert len(find_confusions(matrix, most=1)) == 1
    assert find_confusions([[3, 0], [0, 4]]) == []
