"""Blends of an encoder and word models: how their weights are found, and when they are kept."""

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.stats import entropy

from lorafit.tasks.base import TargetScaler
from lorafit.tasks.baselines import ENCODER, fit_classes
from lorafit.tasks.blending import Blend, HeldOut, _assign_folds, _cross_fit, _fit_weights, compare_losses, fit_blend
from lorafit.tasks.metrics import softmax
from lorafit.tasks.registry import build_task

if TYPE_CHECKING:
    from conftest import Case


def test_values_and_logits_are_each_others_inverse(case: "Case") -> None:
    y, values, _ = case.draw_values()
    np.testing.assert_allclose(case.task.activate(case.task.deactivate(values)), values, rtol=1e-6, atol=1e-11)
    certain = np.tile(case.task.constant_values(y[:1]), (2, 1))
    logits = case.task.deactivate(certain)
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(case.task.activate(logits), certain, atol=1e-10)


def test_losses_of_rows_are_what_training_minimises(case: "Case") -> None:
    y, logits, _ = case.draw()
    expected = case.task.validation_metrics(y, logits, TargetScaler())["loss"]
    losses = case.task.logit_losses(y, logits)
    assert losses.shape == (len(y),)
    np.testing.assert_allclose(losses.mean(), expected)


def test_blend_of_two_that_know_different_things_is_kept(case: "Case") -> None:
    y, first, second = case.draw(400)
    record, pooled = fit_blend(case.task, HeldOut(y, first, {"words": second}), seed=0)
    assert record.kept
    assert (record.members, list(record.weights), record.rows) == (["words"], [ENCODER, "words"], 400)
    assert record.encoder_loss is not None
    assert record.blend_loss is not None
    assert record.difference is not None
    assert record.difference.high < 0
    np.testing.assert_allclose(record.blend_loss - record.encoder_loss, record.difference.value)
    np.testing.assert_allclose(record.blend_loss, case.task.logit_losses(y, pooled).mean())
    assert record.blend_loss <= case.task.logit_losses(y, first).mean()


def test_words_that_know_nothing_are_left_out(case: "Case") -> None:
    y, first, _ = case.draw(400)
    middle = first.mean() if case.task.name == "regression" else 0  # the labels' frequencies would be knowledge
    words = middle + np.random.default_rng(1).normal(size=first.shape) * first.std()
    record, _ = fit_blend(case.task, HeldOut(y, first, {"words": words}), seed=0)
    assert not record.kept
    assert "not shown" in record.reason
    assert record.weights["words"] < 0.2 * record.weights[ENCODER]


def test_encoder_alone_is_not_punished_for_its_temperature() -> None:
    task = build_task("single_label", "abc")
    logits = np.random.default_rng(0).normal(size=(400, 3))
    y = np.array([np.random.default_rng(row).choice(3, p=softmax(one)) for row, one in enumerate(logits)])
    record, _ = fit_blend(task, HeldOut(y, 5 * logits, {"same": logits}), seed=0)
    assert not record.kept


def test_weights_are_those_that_rows_were_drawn_with() -> None:
    rng, task = np.random.default_rng(0), build_task("single_label", "abc")
    logits = rng.normal(size=(2, 5000, 3))
    chances = softmax(0.5 * logits[0] + 1.5 * logits[1]).cumsum(axis=1)
    y = (rng.random((5000, 1)) > chances).sum(axis=1)
    np.testing.assert_allclose(_fit_weights(task, y, logits), [0.5, 1.5], atol=0.1)


@pytest.mark.parametrize(("unit", "zero"), [(1, 0), (1e-4, 0), (1, 1e6)])
def test_numbers_are_averaged_on_any_scale(unit: float, zero: float) -> None:
    rng, task = np.random.default_rng(0), build_task("regression", ["value"])
    y = rng.normal(size=2000)
    logits = np.stack([(y + spread * rng.normal(size=2000))[:, np.newaxis] for spread in (1.0, 0.5)])
    weights = _fit_weights(task, zero + unit * y, zero + unit * logits)
    np.testing.assert_allclose(weights / weights.sum(), [0.2, 0.8], atol=0.03)


def test_row_is_pooled_with_weights_fitted_without_it(case: "Case") -> None:
    y, first, _ = case.draw(100)
    noise = np.random.default_rng(1).normal(size=(2, *first.shape))
    folds, logits = np.arange(100) % 5, first + noise
    other = y.copy()
    other[folds == 2] = y[folds == 2][::-1]
    before, after = (_cross_fit(case.task, labels, logits, folds) for labels in (y, other))
    np.testing.assert_array_equal(before[folds == 2], after[folds == 2])
    assert not np.array_equal(before[folds != 2], after[folds != 2])


def test_rows_of_a_group_are_in_one_fold_and_labels_in_all() -> None:
    units, strata = np.arange(100) // 4, np.arange(100) // 50
    folds = _assign_folds(strata, units, 0)
    assert all(len(set(folds[units == unit])) == 1 for unit in range(25))
    assert Counter(_assign_folds(strata, np.arange(100), 0)[strata == 1]) == dict.fromkeys(range(5), 10)


def test_few_rows_or_groups_show_nothing(case: "Case") -> None:
    y, first, second = case.draw(40)
    for held_out in (
        HeldOut(y[:19], first[:19], {"words": second[:19]}),
        HeldOut(y, first, {"words": second}, np.arange(40) % 10),
    ):
        record, logits = fit_blend(case.task, held_out, seed=0)
        assert (record.kept, record.weights, record.difference) == (False, {}, None)
        assert "too few" in record.reason
        np.testing.assert_array_equal(logits, held_out.logits)


def test_blend_pools_texts_in_their_order() -> None:
    task = build_task("single_label", "ab")
    model = fit_classes("nb_svm", ["good film", "bad film"] * 5, np.arange(10) % 2, classes=2)
    blend = Blend({ENCODER: 2.0, "nb_svm": 0.5}, {"nb_svm": model})
    texts, logits = ["a bad one", "", "good"], np.array([[1.0, 0], [0, 3], [-1, 0]])
    expected = 2 * logits + 0.5 * np.log(model.score(texts))
    np.testing.assert_allclose(blend.pool(task, logits, blend.read(texts)), expected)
    assert blend.pool(task, np.empty((0, 2)), blend.read([])).shape == (0, 2)


def test_blend_doubts_what_its_words_leave_open() -> None:
    task = build_task("single_label", "ab")
    model = fit_classes("nb_svm", ["good film", "bad film"] * 5, np.arange(10) % 2, classes=2)
    blend = Blend({ENCODER: 2.0, "nb_svm": 0.5}, {"nb_svm": model})
    doubts = blend.doubt(task, blend.read(["bad film", "zq vk", "good and bad"]))
    np.testing.assert_allclose(
        doubts, [entropy(values) for values in model.score(["bad film", "zq vk", "good and bad"])]
    )
    assert doubts[0] < doubts[1:].min()
    assert blend.doubt(task, blend.read([])).shape == (0,)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [30, 60, 100])
def test_useless_words_are_kept_as_rarely_as_the_interval_says(rows: int) -> None:
    task, kept = build_task("single_label", "ab"), 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        encoder, words = rng.normal(size=(2, rows, 2))
        y = (rng.random(rows) > softmax(encoder)[:, 0]).astype(np.int64)
        kept += fit_blend(task, HeldOut(y, encoder, {"words": words}), seed=seed)[0].kept
    assert kept <= 200 * 0.025


def test_another_model_is_better_where_it_is_and_only_then(case: "Case") -> None:
    y, known, _ = case.draw(400)
    middle = known.mean() if case.task.name == "regression" else 0
    noise = middle + np.random.default_rng(1).normal(size=known.shape) * known.std()
    found = compare_losses(case.task, HeldOut(y, noise, {}), known, seed=0)
    assert found is not None
    assert found.is_better
    np.testing.assert_allclose(found.other_loss - found.loss, found.difference.value)
    for own, other in ((known, noise), (known, known), (5 * known, known)):
        again = compare_losses(case.task, HeldOut(y, own, {}), other, seed=0)
        assert again is not None
        assert not again.is_better or case.task.name == "regression"  # where 5 times the number is another number
    assert compare_losses(case.task, HeldOut(y[:19], noise[:19], {}), known[:19], seed=0) is None
