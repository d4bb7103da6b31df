from pathlib import Path

import numpy as np
import pytest
import torch

from lorafit.config import MethodConfig, ModelConfig, TrainingConfig
from lorafit.labels import LabelSet
from lorafit.models.acceleration.encoder_block import fuse_encoder
from lorafit.models.acceleration.precision import PrecisionChoice
from lorafit.models.adaptation import AdaptedModel, apply_method
from lorafit.models.load import load_with_head, locate_encoder
from lorafit.models.runtimes.pytorch import TorchRuntime
from lorafit.models.tokenization import TokenizedTexts
from lorafit.training.inputs import TrainingRows
from lorafit.training.planning import costs as measuring
from lorafit.training.planning.costs import measure_costs

FP32 = PrecisionChoice("fp32", "asked for")


def build_adapted(folder: Path, *, fused: bool = True, **method: object) -> AdaptedModel:
    loaded = load_with_head(locate_encoder(ModelConfig(name=str(folder))), LabelSet(("bad", "good")))
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


@pytest.mark.parametrize("fused", [True, False])
def test_model_and_random_state_are_as_before(tiny_distilbert: Path, fused: bool) -> None:
    model = build_adapted(tiny_distilbert, fused=fused).model
    runtime = TorchRuntime(model, FP32)
    ids = np.arange(5, 25, dtype=np.int64)[None]
    logits = runtime.logits(ids, np.ones_like(ids))
    state, random = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    costs = measure_costs(model, build_rows(), TrainingConfig(epochs=50), FP32)
    assert costs.train.sum_over(np.array([(32, 64)])) > costs.forward.sum_over(np.array([(32, 64)])) > 0
    assert (costs.layers, costs.frozen) == ((2, 0) if fused else (0, 0))
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module.training for module in model.modules())
    assert np.array_equal(runtime.logits(ids, np.ones_like(ids)), logits)


def test_model_is_as_before_when_measuring_is_interrupted(
    tiny_distilbert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press_ctrl_c(*_: object) -> None:
        raise KeyboardInterrupt

    model = build_adapted(tiny_distilbert).model
    state = {name: value.clone() for name, value in model.state_dict().items()}
    monkeypatch.setattr(TorchRuntime, "logits", press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        measure_costs(model, build_rows(), TrainingConfig(), FP32)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_step_changes_the_adapter_so_that_merging_is_measured_too(tiny_distilbert: Path) -> None:
    model = build_adapted(tiny_distilbert).model
    before = [parameter.detach().clone() for parameter in model.parameters() if parameter.requires_grad]
    with measuring._kept_as_it_is(model, FP32) as step:
        step(measuring._build_batch(build_rows(), 8, 16))
        now = [parameter for parameter in model.parameters() if parameter.requires_grad]
        assert not all(map(torch.equal, before, now))


def test_frozen_layers_are_counted(tiny_distilbert: Path) -> None:
    costs = measure_costs(build_adapted(tiny_distilbert, layers="top1").model, build_rows(), TrainingConfig(), FP32)
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
    assert measuring._choose_shapes(np.array(lengths), TrainingConfig()) == shapes


def test_short_runs_are_measured_in_few_passes(tiny_distilbert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    forwards: list[int] = []
    step, logits = torch.optim.AdamW.step, TorchRuntime.logits

    def count_step(*arguments: object, **named: object) -> object:
        steps.append(1)
        return step(*arguments, **named)

    def count_forward(*arguments: object) -> object:
        forwards.append(1)
        return logits(*arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", count_step)
    monkeypatch.setattr(TorchRuntime, "logits", count_forward)
    measure_costs(build_adapted(tiny_distilbert).model, build_rows(8), TrainingConfig(max_steps=2), FP32)
    assert (len(steps), len(forwards)) == (2, 2)
    measure_costs(build_adapted(tiny_distilbert).model, build_rows(), TrainingConfig(max_steps=100_000), FP32)
    assert (len(steps), len(forwards)) == (2 + 10, 2 + 10)
