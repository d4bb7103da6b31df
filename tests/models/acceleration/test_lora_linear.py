from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lorafit.models.acceleration import lora_linear
from lorafit.models.acceleration.lora_linear import LinearGroup, can_be_grouped

INPUTS, OUTPUTS = 24, {"query": 16, "key": 8, "value": 20}
"""Outputs of different sizes, so that a mistake about whose rows are whose is seen."""

ALL, QUERY_VALUE, NONE = ["query", "key", "value"], ["query", "value"], []

BF16_OUTPUT, BF16_GRADIENT = 5e-3, 1e-2
"""Relative difference of bfloat16 from fp32. One rounding is off by up to 2^-9 = 2e-3; an output has those of the
weight and of itself, a gradient also those of the product with the other factor and of the adapter."""

Build = Callable[..., PeftModel]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def fill(parameters: Iterator[nn.Parameter]) -> None:
    """Fill with numbers of size 0.3, as far from zero as a trained adapter and farther."""
    with torch.no_grad():
        for index, parameter in enumerate(parameters):
            parameter.copy_(0.3 * draw(*parameter.shape, seed=index))


@pytest.fixture
def build() -> Build:
    """Builds three projections with PEFT's LoRA on some of them; takes their names and settings of LoRA."""

    def build(targets: list[str] = ALL, **settings: Any) -> PeftModel:
        layers = nn.ModuleDict({name: nn.Linear(INPUTS, size) for name, size in OUTPUTS.items()})
        model = get_peft_model(layers, LoraConfig(**({"r": 4, "lora_alpha": 6, "target_modules": targets} | settings)))
        fill(model.parameters())
        return model.eval()

    return build


def layers_of(model: PeftModel) -> list[Any]:
    return list(model.get_base_model().values())


def multiply_plainly(model: PeftModel, x: torch.Tensor) -> torch.Tensor:
    """The twin: PEFT's own layers one after the other."""
    return torch.cat([layer(x) for layer in layers_of(model)], dim=-1)


def differentiate(output: torch.Tensor, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(output, inputs, draw(*output.shape, seed=1).to(output.dtype))


def trainable(model: PeftModel) -> list[torch.Tensor]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def difference(tensor: torch.Tensor, reference: torch.Tensor) -> float:
    return float((tensor.float() - reference).detach().norm() / reference.detach().norm())


def check_against_peft(group: LinearGroup, model: PeftModel, x: torch.Tensor) -> None:
    output, exact = group(x), multiply_plainly(model, x)
    assert difference(output, exact) <= 1e-5
    inputs = [x, *trainable(model)]
    for gradient, reference in zip(differentiate(output, inputs), differentiate(exact, inputs), strict=True):
        assert difference(gradient, reference) <= 1e-5


@pytest.mark.parametrize("targets", [ALL, QUERY_VALUE, ["key"]])
@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}], ids=["lora", "rslora"])
def test_output_and_gradients_are_those_of_plain_peft(
    build: Build, targets: list[str], settings: dict[str, Any]
) -> None:
    model = build(targets, **settings)
    assert len(trainable(model)) == 2 * len(targets)
    check_against_peft(LinearGroup(*layers_of(model)), model, draw(3, 5, INPUTS).requires_grad_())


@pytest.mark.parametrize("bias", [True, False])
def test_group_without_adapters_is_the_layers_themselves(bias: bool) -> None:
    layers = [nn.Linear(INPUTS, size, bias=bias).requires_grad_(requires_grad=False) for size in OUTPUTS.values()]
    x = draw(3, 5, INPUTS).requires_grad_()
    output, exact = LinearGroup(*layers)(x), torch.cat([layer(x) for layer in layers], dim=-1)
    assert difference(output, exact) <= 1e-6
    assert difference(differentiate(output, [x])[0], differentiate(exact, [x])[0]) <= 1e-6


@pytest.mark.parametrize("targets", [ALL, QUERY_VALUE])
def test_bfloat16_differs_from_fp32_by_its_rounding_alone(build: Build, targets: list[str]) -> None:
    model = build(targets)
    x = draw(3, 5, INPUTS).bfloat16().requires_grad_()
    exact_x = x.detach().float().requires_grad_()
    output, exact = LinearGroup(*layers_of(model))(x), multiply_plainly(model, exact_x)
    assert output.dtype == torch.bfloat16
    assert difference(output, exact) < BF16_OUTPUT
    found, references = (
        differentiate(result, [given, *trainable(model)]) for result, given in ((output, x), (exact, exact_x))
    )
    assert [gradient.dtype for gradient in found] == [torch.bfloat16] + [torch.float32] * 2 * len(targets)
    for gradient, reference in zip(found, references, strict=True):
        assert difference(gradient, reference) < BF16_GRADIENT


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_input_that_needs_no_gradient_costs_none(build: Build, dtype: torch.dtype) -> None:
    model = build()
    group, rows, counts = LinearGroup(*layers_of(model)), 6, []
    for needed in (True, False):
        output = group(draw(rows, INPUTS).to(dtype).requires_grad_(needed))
        with FlopCounterMode(display=False) as counter:
            output.backward(torch.ones_like(output))
        counts.append(counter.get_total_flops())
    assert counts[0] - counts[1] == 2 * rows * INPUTS * sum(OUTPUTS.values())


def measure_share(change: torch.Tensor, exact: torch.Tensor) -> float:
    """Return the share of an exact change that is found in another: 1 if it is there on average, 0 if not at all."""
    return float((change.double() * exact.double()).sum() / (exact.double() ** 2).sum())


@pytest.mark.parametrize("update", [1e-5, 1e-4])
@pytest.mark.parametrize(("size", "twins_share"), [(1.0, {1e-5: 0.0, 1e-4: 0.05}), (0.05, {1e-5: 0.08, 1e-4: 0.6})])
def test_updates_smaller_than_the_bases_rounding_reach_the_output(
    update: float, size: float, twins_share: dict[float, float]
) -> None:
    """Each weight changes by `update` up or down. A single one moves by a whole step of bfloat16 or not at all, so what
    counts is the change along the exact one, over a million weights and two million outputs."""
    width, x = 1024, draw(2048, 1024, seed=2).bfloat16()
    layer = nn.Linear(width, width, bias=False).requires_grad_(requires_grad=False)
    layer.weight.copy_(size * draw(width, width))
    base = layer.weight.clone()
    model = get_peft_model(nn.ModuleDict({"query": layer}), LoraConfig(r=1, lora_alpha=1, target_modules=["query"]))
    adapted: Any = model.get_base_model()["query"]
    with torch.no_grad():
        adapted.lora_A["default"].weight.copy_(draw(1, width, seed=3).sign())
        adapted.lora_B["default"].weight.copy_(update * draw(width, 1, seed=4).sign())
        change = adapted.lora_B["default"].weight @ adapted.lora_A["default"].weight
        exact = x.float() @ change.t()
        group = LinearGroup(adapted)
        with model.disable_adapter():
            before = group(x).float()
        found = measure_share(group(x).float() - before, exact)
        rounded_first = base.bfloat16() + change.bfloat16()
        of_the_twin = measure_share((x @ rounded_first.t()).float() - (x @ base.bfloat16().t()).float(), exact)
    assert found == pytest.approx(1, abs=0.1)
    assert of_the_twin == pytest.approx(twins_share[update], abs=0.1)


@pytest.mark.parametrize("context", [nullcontext, torch.no_grad, torch.inference_mode])
def test_steps_of_fused_adamw_are_seen(build: Build, context: Callable[[], AbstractContextManager[Any]]) -> None:
    """It changes tensors without counting up their version."""
    model, x = build(), draw(5, INPUTS)
    group = LinearGroup(*layers_of(model))
    for side in ("lora_A", "lora_B"):
        parameters = [parameter for name, parameter in model.named_parameters() if side in name]
        optimizer = torch.optim.AdamW(parameters, lr=0.01, fused=True)
        group(x).square().sum().backward()
        with context():
            before = group(x)
            optimizer.step()
            after = group(x)
            assert difference(after, before) > 1e-3
            assert difference(after, multiply_plainly(model, x)) <= 1e-5


def test_a_model_used_for_inference_can_still_be_trained(build: Build) -> None:
    model, x = build(), draw(5, INPUTS).requires_grad_()
    group = LinearGroup(*layers_of(model))
    with torch.inference_mode():
        exact = multiply_plainly(model, x)
        assert difference(group(x), exact) <= 1e-5
    check_against_peft(group, model, x)
    fill(parameter for parameter in model.parameters() if parameter.requires_grad)
    with torch.inference_mode():
        group(x)
    check_against_peft(group, model, x)


def test_either_dtype_may_follow_the_other(build: Build) -> None:
    model, x = build(), draw(5, INPUTS)
    group = LinearGroup(*layers_of(model))
    exact = multiply_plainly(model, x)
    for _ in range(2):
        assert difference(group(x), exact) <= 1e-5
        assert 1e-4 < difference(group(x.bfloat16()), exact) < 2 * BF16_OUTPUT


def test_disabled_adapters_do_not_count(build: Build) -> None:
    model, x = build(), draw(5, INPUTS).requires_grad_()
    group = LinearGroup(*layers_of(model))
    enabled = group(x)
    with model.disable_adapter():
        disabled = group(x)
        assert difference(disabled, multiply_plainly(model, x)) <= 1e-5
        assert difference(disabled, enabled) > 0.1
    check_against_peft(group, model, x)


def test_merged_adapters_count_once(build: Build) -> None:
    model, x = build(QUERY_VALUE), draw(5, INPUTS)
    group = LinearGroup(*layers_of(model))
    exact = group(x)
    model.merge_adapter()
    assert difference(group(x), exact) <= 1e-5
    assert difference(LinearGroup(*layers_of(model))(x), exact) <= 1e-5
    model.unmerge_adapter()
    assert difference(group(x), exact) <= 1e-5


def test_merging_is_seen_after_a_call_with_disabled_adapters(build: Build) -> None:
    model, x = build(), draw(5, INPUTS)
    group = LinearGroup(*layers_of(model))
    with model.disable_adapter():
        group(x)
    model.merge_adapter()
    assert difference(group(x), multiply_plainly(model, x)) <= 1e-5


def test_merging_is_seen_after_a_call_with_dropout(build: Build) -> None:
    model, x = build(lora_dropout=0.5).train(), draw(5, INPUTS)
    group = LinearGroup(*layers_of(model))
    group(x)
    model.eval().merge_adapter()
    assert difference(group(x), multiply_plainly(model, x)) <= 1e-5


def test_merging_another_adapter_is_seen(build: Build) -> None:
    model, x = build(), draw(5, INPUTS)
    model.add_adapter("other", LoraConfig(r=2, target_modules=ALL))
    fill(parameter for name, parameter in model.named_parameters() if "lora_" in name and "other" in name)
    group = LinearGroup(*layers_of(model))
    for name in ("default", "other"):
        model.set_adapter(name)
        model.merge_adapter()
        assert difference(group(x), multiply_plainly(model, x)) <= 1e-5
        model.unmerge_adapter()


def test_adapters_merged_and_then_disabled_do_not_count(build: Build) -> None:
    model, x = build(), draw(5, INPUTS)
    group = LinearGroup(*layers_of(model))
    with model.disable_adapter():
        exact = multiply_plainly(model, x)
    model.merge_adapter()
    with model.disable_adapter():
        assert difference(group(x), exact) <= 1e-5


def test_the_active_one_of_two_adapters_counts(build: Build) -> None:
    model, x = build(), draw(5, INPUTS).requires_grad_()
    model.add_adapter("other", LoraConfig(r=2, lora_alpha=10, target_modules=QUERY_VALUE))
    fill(parameter for name, parameter in model.named_parameters() if "lora_" in name)
    group = LinearGroup(*layers_of(model))
    outputs = []
    for name in ("default", "other", "default"):
        model.set_adapter(name)
        check_against_peft(group, model, x)
        outputs.append(group(x))
    assert torch.equal(outputs[0], outputs[2])
    assert difference(outputs[0], outputs[1]) > 0.1


def test_two_active_adapters_add_up(build: Build) -> None:
    model, x = build(), draw(5, INPUTS).requires_grad_()
    model.add_adapter("other", LoraConfig(r=2, lora_alpha=10, target_modules=QUERY_VALUE))
    fill(parameter for name, parameter in model.named_parameters() if "lora_" in name)
    model.base_model.set_adapter(["default", "other"])
    assert len(trainable(model)) == 10
    check_against_peft(LinearGroup(*layers_of(model)), model, x)


@pytest.mark.parametrize("probability", [0.1, 0.25, 0.5])
def test_dropout_drops_the_expected_share(probability: float) -> None:
    torch.manual_seed(0)
    mask = lora_linear._draw_mask(torch.empty(1001, 999), probability)
    dropped = round(probability * 256) / 256
    assert abs(dropped - probability) <= 1 / 512
    assert mask.shape == (1001, 999)
    assert mask.unique().tolist() == [0, 1]
    for part in (mask, mask[:, ::2], mask[::2], mask[-100:], mask.flatten()[7::8]):
        assert float((part == 0).float().mean()) == pytest.approx(dropped, abs=5 * 0.5 / part.numel() ** 0.5)


@pytest.mark.parametrize(
    "probability",
    [
        0.0,
        0.998,
        0.9999,
    ],
)
def test_dropout_may_be_anything_below_one(build: Build, probability: float) -> None:
    model = build(lora_dropout=probability).train()
    outputs = [LinearGroup(*layers_of(model))(draw(50, INPUTS)) for _ in range(20)]
    assert torch.stack(outputs).isfinite().all()


def test_what_dropout_leaves_is_scaled_up(build: Build) -> None:
    model, x = build(lora_dropout=0.5).train(), draw(5, INPUTS)
    mean = torch.stack([LinearGroup(*layers_of(model))(x) for _ in range(2000)]).mean(dim=0)
    assert difference(mean, LinearGroup(*layers_of(model.eval()))(x)) < 0.1


@pytest.mark.parametrize(
    ("dtype", "output_bound", "gradient_bound"),
    [(torch.float32, 1e-5, 1e-5), (torch.bfloat16, 2 * BF16_OUTPUT, 2 * BF16_GRADIENT)],
)
def test_dropout_is_the_same_forward_and_backward(
    build: Build, dtype: torch.dtype, output_bound: float, gradient_bound: float
) -> None:
    probability = 0.25
    model = build(lora_dropout=probability).train()
    x = draw(3, 5, INPUTS).to(dtype).requires_grad_()
    torch.manual_seed(7)
    output = LinearGroup(*layers_of(model))(x)
    torch.manual_seed(7)
    exact_x, outputs = x.detach().float().requires_grad_(), []
    for layer in layers_of(model):
        masked = exact_x * lora_linear._draw_mask(exact_x, probability) / (1 - probability)
        low = masked @ layer.lora_A["default"].weight.t()
        outputs.append(layer.base_layer(exact_x) + low @ layer.lora_B["default"].weight.t() * layer.scaling["default"])
    exact = torch.cat(outputs, dim=-1)
    assert difference(output, exact) <= output_bound
    found, references = (
        differentiate(result, [given, *trainable(model)]) for result, given in ((output, x), (exact, exact_x))
    )
    for gradient, reference in zip(found, references, strict=True):
        assert difference(gradient, reference) <= gradient_bound


def test_dropout_is_drawn_anew_in_training_alone(build: Build) -> None:
    model, x = build(lora_dropout=0.5), draw(5, INPUTS).requires_grad_()
    group = LinearGroup(*layers_of(model))
    check_against_peft(group, model, x)
    model.train()
    assert difference(group(x), group(x)) > 0.01
    model.eval()
    check_against_peft(group, model, x)


def test_layers_with_and_without_dropout_go_together(build: Build) -> None:
    model, x = build(lora_dropout=0.5).train(), draw(5, INPUTS)
    query = layers_of(model)[0]
    query.lora_dropout["default"] = nn.Identity()
    assert difference(LinearGroup(*layers_of(model))(x)[:, : OUTPUTS["query"]], query(x)) <= 1e-5


def test_frozen_linear_layers_can_be_grouped_bare_and_with_plain_lora(build: Build) -> None:
    model = build(["query"], lora_dropout=0.1, use_rslora=True)
    assert [can_be_grouped(layer) for layer in layers_of(model)] == [True] * 3


@pytest.mark.parametrize("settings", [{"lora_bias": True}, {"bias": "all"}], ids=str)
def test_variants_of_lora_cannot_be_grouped(build: Build, settings: dict[str, Any]) -> None:
    assert not can_be_grouped(layers_of(build(["query"], **settings))[0])


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("name", ["weight", "bias"])
def test_layer_that_is_trained_itself_cannot_be_grouped(build: Build, adapted: bool, name: str) -> None:
    layer = layers_of(build(["query"] if adapted else ["key"]))[0]
    getattr(layer.get_base_layer() if adapted else layer, name).requires_grad_()
    assert not can_be_grouped(layer)


def test_other_layers_cannot_be_grouped() -> None:
    others = [
        nn.Identity(),
        nn.Embedding(4, 4),
        nn.LayerNorm(4),
        nn.modules.linear.NonDynamicallyQuantizableLinear(4, 4),
    ]
    assert not any(can_be_grouped(layer.requires_grad_(requires_grad=False)) for layer in others)


def test_threads_that_predict_side_by_side_get_the_same(build: Build) -> None:
    model, x = build(), draw(50, INPUTS)
    expected = LinearGroup(*layers_of(model))(x).detach()
    for _ in range(30):
        group = LinearGroup(*layers_of(model))
        with ThreadPoolExecutor(4) as pool:
            outputs = list(pool.map(lambda _, group=group: group(x).detach(), range(8)))
        assert all(torch.equal(output, expected) for output in outputs)


def test_model_loaded_under_inference_mode_works() -> None:
    with torch.inference_mode():
        layer, x = nn.Linear(4, 3), torch.ones(2, 4)
        assert torch.equal(LinearGroup(layer)(x), layer(x))
