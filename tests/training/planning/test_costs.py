from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lorafit.config import MethodConfig, ModelConfig, TrainingConfig
from lorafit.models.acceleration.encoder_block import fuse_encoder
from lorafit.models.acceleration.precision import PrecisionChoice
from lorafit.models.adaptation import AdaptedModel, apply_method
from lorafit.models.load import load_with_head, locate_encoder
from lorafit.models.runtimes.pytorch import TorchRuntime
from lorafit.models.tokenization import TokenizedTexts
from lorafit.tasks.registry import build_task
from lorafit.training.inputs import TrainingRows
from lorafit.training.planning import costs as measuring
from lorafit.training.planning.costs import CostModel, Costs, Timing, fit_cost_model, measure_costs

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


FP32 = PrecisionChoice("fp32", "asked for")


def build_adapted(folder: Path, *, fused: bool = True, **method: object) -> AdaptedModel:
    loaded = load_with_head(locate_encoder(ModelConfig(name=str(folder))), build_task("single_label", ("bad", "good")))
    config = MethodConfig(r=4, lora_dropout=0.1, **method)
    adapted = apply_method(loaded.model, config, newly_initialised=loaded.newly_initialised)
    if fused:
        assert fuse_encoder(adapted.model) is None
    return adapted


def build_rows(count: int = 120) -> TrainingRows:
    rng = np.random.default_rng(0)
    lengths = rng.integers(4, 65, size=count)
    ids = rng.integers(5, 75, size=lengths.sum()).astype(np.int32)
    texts = TokenizedTexts(ids=ids, offsets=np.cumsum([0, *lengths]), truncated=0)
    return TrainingRows(texts, labels=rng.integers(0, 2, size=count), pad_id=0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that only work moves: a forward pass takes a second a token, and an optimizer step three hours."""
    now, step, logits = 0.0, torch.optim.AdamW.step, TorchRuntime.logits

    def spend_on_step(*arguments: object, **named: object) -> object:
        nonlocal now
        now += 10_800
        return step(*arguments, **named)

    def spend_on_logits(*arguments: object, **named: NDArray[Any]) -> object:
        nonlocal now
        now += named["input_ids"].size
        return logits(*arguments, **named)

    monkeypatch.setattr(torch.optim.AdamW, "step", spend_on_step)
    monkeypatch.setattr(TorchRuntime, "logits", spend_on_logits)
    monkeypatch.setattr(measuring, "time", SimpleNamespace(perf_counter=lambda: now))


@pytest.mark.usefixtures("clock")
def test_what_a_step_and_a_forward_pass_take_is_told_apart(tiny_distilbert: Path) -> None:
    config = TrainingConfig(batch_size=32, max_steps=9999)
    costs = measure_costs(build_adapted(tiny_distilbert).model, build_rows(), config, FP32)
    assert costs.forward.sum_over(np.array([(32, 64), (8, 20)])) == pytest.approx(32 * 64 + 8 * 20)
    assert costs.train.sum_over(np.array([(32, 64)])) == pytest.approx(10_800)


@pytest.mark.parametrize("fused", [True, False])
def test_model_and_random_state_are_as_before(tiny_distilbert: Path, fused: bool) -> None:
    model = build_adapted(tiny_distilbert, fused=fused).model
    runtime = TorchRuntime(model, FP32)
    ids = np.arange(5, 25, dtype=np.int64)[None]
    logits = runtime.logits(ids, np.ones_like(ids))
    state, random = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    costs = measure_costs(model, build_rows(), TrainingConfig(epochs=50, batch_size=32), FP32)
    assert min(costs.train.sum_over(np.array([(32, 64)])), costs.forward.sum_over(np.array([(32, 64)]))) > 0
    assert (costs.layers, costs.frozen) == ((2, 0) if fused else (0, 0))
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module.training for module in model.modules())
    assert np.array_equal(runtime.logits(ids, np.ones_like(ids)), logits)


def test_model_is_as_before_when_measuring_is_interrupted(
    tiny_distilbert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press_ctrl_c(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    model = build_adapted(tiny_distilbert).model
    state = {name: value.clone() for name, value in model.state_dict().items()}
    monkeypatch.setattr(TorchRuntime, "logits", press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        measure_costs(model, build_rows(), TrainingConfig(epochs=2, batch_size=32), FP32)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_step_changes_the_adapter_so_that_merging_is_measured_too(tiny_distilbert: Path) -> None:
    model = build_adapted(tiny_distilbert).model
    before = [parameter.detach().clone() for parameter in model.parameters() if parameter.requires_grad]
    with measuring.kept_as_it_is(model, FP32) as step:
        step(measuring.build_batch(build_rows(), 8, 16))
        now = [parameter for parameter in model.parameters() if parameter.requires_grad]
        assert not all(map(torch.equal, before, now))


def test_frozen_layers_are_counted(tiny_distilbert: Path) -> None:
    costs = measure_costs(
        build_adapted(tiny_distilbert, layers="top1").model, build_rows(), TrainingConfig(epochs=2, batch_size=32), FP32
    )
    assert (costs.layers, costs.frozen) == (2, 1)


@pytest.mark.parametrize(
    ("lengths", "shapes"),
    [
        ([256] * 100, [(16, 256), (32, 128), (32, 64)]),
        ([512] + [30] * 99, [(8, 512), (16, 256), (32, 30)]),
        ([5] * 10, [(10, 5)]),
        ([20] * 5, [(5, 20), (5, 10), (5, 8)]),
    ],
)
def test_measured_shapes_are_those_of_the_plan(lengths: list[int], shapes: list[tuple[int, int]]) -> None:
    assert measuring._choose_shapes(np.array(lengths), TrainingConfig(epochs=2, batch_size=32)) == shapes


def test_short_runs_are_measured_in_few_passes(tiny_distilbert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    forwards: list[int] = []
    step, logits = torch.optim.AdamW.step, TorchRuntime.logits

    def count_step(*arguments: object, **named: object) -> object:
        steps.append(1)
        return step(*arguments, **named)

    def count_forward(*arguments: object, **named: object) -> object:
        forwards.append(1)
        return logits(*arguments, **named)

    monkeypatch.setattr(torch.optim.AdamW, "step", count_step)
    monkeypatch.setattr(TorchRuntime, "logits", count_forward)
    measure_costs(build_adapted(tiny_distilbert).model, build_rows(8), TrainingConfig(batch_size=32, max_steps=2), FP32)
    assert (len(steps), len(forwards)) == (2, 2)
    measure_costs(
        build_adapted(tiny_distilbert).model, build_rows(), TrainingConfig(batch_size=32, max_steps=100_000), FP32
    )
    assert (len(steps), len(forwards)) == (2 + 10, 2 + 10)
