import numpy as np
import pytest

from lorafit.training.planning.costs import CostModel, Costs, Timing, fit_cost_model

TRUE = CostModel(step=0.02, per_token=5e-5, per_pair=1e-7)
SHAPES = [(16, 256), (32, 128), (32, 64)]


def time_batch(model: CostModel, rows: int, length: int) -> Timing:
    return Timing(rows, length, model.sum_over(np.array([(rows, length)])))


def test_seconds_of_batches_are_the_sum_of_the_terms() -> None:
    by_hand = sum(0.02 + 5e-5 * rows * length + 1e-7 * rows * length * length for rows, length in SHAPES)
    assert TRUE.sum_over(np.array(SHAPES)) == pytest.approx(by_hand)


def test_terms_are_found_again() -> None:
    fitted = fit_cost_model([time_batch(TRUE, *shape) for shape in SHAPES])
    assert [fitted.step, fitted.per_token, fitted.per_pair] == pytest.approx([0.02, 5e-5, 1e-7])


def test_noise_gives_no_term_below_zero_and_a_small_error() -> None:
    rng = np.random.default_rng(0)
    plan = np.array([(32, length) for length in range(16, 128)] + [(16, length) for length in range(128, 257)])
    for _ in range(50):
        timings = [time_batch(CostModel(0.0, 5e-5, 1e-8), *shape) for shape in SHAPES]
        noisy = [Timing(one.rows, one.length, one.seconds * rng.uniform(0.9, 1.1)) for one in timings]
        fitted = fit_cost_model(noisy)
        assert min(fitted.step, fitted.per_token, fitted.per_pair) >= 0
        assert fitted.sum_over(plan) == pytest.approx(CostModel(0.0, 5e-5, 1e-8).sum_over(plan), rel=0.12)


@pytest.mark.parametrize("count", [1, 2])
def test_few_measured_shapes_give_fewer_terms_that_still_fit(count: int) -> None:
    timings = [time_batch(TRUE, *shape) for shape in SHAPES[:count]]
    fitted = fit_cost_model(timings)
    assert fitted.step == 0
    assert fitted.per_token > 0
    for timing in timings:
        assert fitted.sum_over(np.array([(timing.rows, timing.length)])) == pytest.approx(timing.seconds, rel=0.01)


def test_fewer_adapted_layers_cost_less_and_kept_layers_nothing() -> None:
    shapes = np.array(SHAPES)
    costs = Costs(train=CostModel(0, 3e-5, 0), forward=CostModel(0, 1e-5, 0), layers=6, frozen=0)
    whole, forward = costs.sum_steps(shapes, frozen=0, kept=False), costs.sum_forward(shapes)
    assert whole == pytest.approx(3 * forward)
    below = 3 / 5.2  # the last of six layers counts a fifth
    assert costs.sum_steps(shapes, frozen=3, kept=True) == pytest.approx((1 - below) * whole)
    assert costs.sum_steps(shapes, frozen=3, kept=False) == pytest.approx((1 - below) * whole + below * forward)
    assert costs.sum_forward(shapes, kept=3) == pytest.approx((1 - below) * forward)


def test_costs_measured_with_frozen_layers_say_the_same() -> None:
    shapes = np.array(SHAPES)
    whole = Costs(train=CostModel(0, 3e-5, 0), forward=CostModel(0, 1e-5, 0), layers=6, frozen=0)
    part = whole.sum_steps(shapes, frozen=3, kept=False) / shapes.prod(axis=1).sum()
    measured = Costs(train=CostModel(0, part, 0), forward=whole.forward, layers=6, frozen=3)
    for frozen, kept in ((3, False), (3, True), (4, True)):
        assert measured.sum_steps(shapes, frozen=frozen, kept=kept) == pytest.approx(
            whole.sum_steps(shapes, frozen=frozen, kept=kept)
        )


def test_an_encoder_whose_layers_are_not_known_is_taken_whole() -> None:
    costs = Costs(train=TRUE, forward=TRUE, layers=0, frozen=0)
    assert costs.sum_steps(np.array(SHAPES), frozen=0, kept=False) == pytest.approx(TRUE.sum_over(np.array(SHAPES)))
