from typing import Any

import pytest
import torch
from peft import (
    AdaLoraConfig,
    FourierFTConfig,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    PeftConfig,
    PeftModel,
    RandLoraConfig,
    VeraConfig,
    get_peft_model,
)
from torch import nn

from lorafit.models.acceleration.composed_weight import can_be_composed, compose_weight
from lorafit.models.acceleration.lora_linear import LinearGroup, can_be_grouped

INPUTS, OUTPUTS = 24, {"query": 16, "key": 8, "value": 20}
TARGETS = list(OUTPUTS)
CONFIGS: dict[str, PeftConfig] = {
    "dora": LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS, use_dora=True),
    "dora on some": LoraConfig(r=4, lora_alpha=6, target_modules=["query", "value"], use_dora=True),
    "adalora": AdaLoraConfig(init_r=4, target_modules=TARGETS, total_step=10),
    "vera": VeraConfig(r=16, target_modules=TARGETS),
    "randlora": RandLoraConfig(r=4, target_modules=TARGETS),
    "loha": LoHaConfig(r=4, target_modules=TARGETS),
    "lokr": LoKrConfig(r=4, target_modules=TARGETS),
    "fourierft": FourierFTConfig(n_frequency=20, target_modules=TARGETS),
}


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def build(config: PeftConfig) -> PeftModel:
    """Three projections with an adapter on them, all of their numbers of size 0.3."""
    layers: Any = nn.ModuleDict({name: nn.Linear(INPUTS, size) for name, size in OUTPUTS.items()})
    layers.config = {"model_type": "custom"}
    model: PeftModel = get_peft_model(layers, config)
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            parameter.copy_(0.3 * draw(*parameter.shape, seed=index))
    return model.train()


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> PeftModel:
    return build(CONFIGS[request.param])


def layers_of(model: PeftModel) -> list[Any]:
    return list(model.get_base_model().values())


def multiply_plainly(model: PeftModel, x: torch.Tensor) -> torch.Tensor:
    """The twin: PEFT's own layers one after the other."""
    return torch.cat([layer(x) for layer in layers_of(model)], dim=-1)


def difference(tensor: torch.Tensor, reference: torch.Tensor) -> float:
    return float((tensor.float() - reference).detach().norm() / reference.detach().norm())


def differentiate(output: torch.Tensor, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(output, inputs, draw(*output.shape, seed=1).to(output.dtype))


def test_output_and_gradients_are_those_of_plain_peft(model: PeftModel) -> None:
    x = draw(3, 5, INPUTS).requires_grad_()
    output, exact = LinearGroup(*layers_of(model))(x), multiply_plainly(model, x)
    assert difference(output, exact) <= 1e-5
    inputs = [x, *(parameter for parameter in model.parameters() if parameter.requires_grad)]
    assert len(inputs) > 2
    for gradient, reference in zip(differentiate(output, inputs), differentiate(exact, inputs), strict=True):
        assert difference(gradient, reference) <= 1e-5


def test_bfloat16_differs_from_fp32_by_its_rounding_alone(model: PeftModel) -> None:
    x = draw(3, 5, INPUTS).bfloat16().requires_grad_()
    exact_x = x.detach().float().requires_grad_()
    output, exact = LinearGroup(*layers_of(model))(x), multiply_plainly(model, exact_x)
    assert output.dtype == torch.bfloat16
    assert difference(output, exact) < 5e-3
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    found, references = differentiate(output, trained), differentiate(exact, trained)
    assert {gradient.dtype for gradient in found} == {torch.float32}
    for gradient, reference in zip(found, references, strict=True):
        assert difference(gradient, reference) < 2e-2


def test_weight_that_is_kept_follows_every_change(model: PeftModel) -> None:
    group, x = LinearGroup(*layers_of(model)), draw(3, INPUTS)
    with torch.no_grad():
        before, kept = group(x), group._kept
        assert torch.equal(group(x), before)
        assert group._kept is kept
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.5)
                assert difference(group(x), multiply_plainly(model, x)) <= 1e-5
        with model.disable_adapter():
            assert difference(group(x), multiply_plainly(model, x)) <= 1e-5
        assert difference(group(x), multiply_plainly(model, x)) <= 1e-5
        model.merge_adapter()
        assert difference(group(x), multiply_plainly(model, x)) <= 1e-5


@pytest.mark.parametrize("name", ["dora", "vera", "randlora"])
def test_disabled_adapter_that_was_merged_is_taken_out_of_the_base(name: str) -> None:
    model, x = build(CONFIGS[name]), draw(3, INPUTS)
    with torch.no_grad(), model.disable_adapter():
        base = multiply_plainly(model, x)
    model.merge_adapter()
    with torch.no_grad(), model.disable_adapter():
        assert difference(LinearGroup(*layers_of(model))(x), base) <= 1e-5


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(r=4, target_modules=TARGETS, use_dora=True, lora_dropout=0.1),
        LoraConfig(r=4, target_modules=TARGETS, lora_bias=True),
        VeraConfig(r=16, target_modules=TARGETS, vera_dropout=0.1),
        RandLoraConfig(r=4, target_modules=TARGETS, randlora_dropout=0.1),
        LoHaConfig(r=4, target_modules=TARGETS, rank_dropout=0.1),
        LoKrConfig(r=4, target_modules=TARGETS, module_dropout=0.1),
        OFTConfig(oft_block_size=4, target_modules=TARGETS),
    ],
    ids=["dora, dropout", "lora, bias", "vera, dropout", "randlora, dropout", "loha, dropout", "lokr, dropout", "oft"],
)
def test_what_no_single_weight_stands_for_is_left_to_peft(config: PeftConfig) -> None:
    assert not any(can_be_grouped(layer) for layer in layers_of(build(config)))


def test_layer_whose_base_is_trained_is_left_to_peft() -> None:
    layer = layers_of(build(CONFIGS["dora"]))[0]
    assert can_be_composed(layer)
    layer.get_base_layer().weight.requires_grad_()
    assert not can_be_composed(layer)


def test_bare_layer_is_its_own_weight() -> None:
    layer = nn.Linear(3, 2).requires_grad_(requires_grad=False)
    assert can_be_composed(layer)
    assert torch.equal(compose_weight(layer), layer.weight)
    assert not can_be_composed(nn.Linear(3, 2))
    assert not can_be_composed(nn.LayerNorm(3))
