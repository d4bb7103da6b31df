"""The weight that a linear layer and its adapter make together, for adapters whose update is a matrix.

PEFT multiplies the input by base and adapter one after the other. Where the adapter's factors are as large as the layer
(VeRA's random matrices, LoHa's and LoKr's products), or have to be normed with it (DoRA), one product with the weight
that they make together costs less, forward and backward; autograd carries the weight's gradient on to the factors.
"""

from typing import Any

import torch
from peft.tuners.adalora.layer import SVDLinear
from peft.tuners.delora.layer import DeloraLinear
from peft.tuners.fourierft.layer import FourierFTLinear
from peft.tuners.gralora.layer import Linear as GraloraLinear
from peft.tuners.hira.layer import Linear as HiraLinear
from peft.tuners.loha.layer import Linear as LohaLinear
from peft.tuners.lokr.layer import Linear as LokrLinear
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora.variants import DoraLinearVariant
from peft.tuners.randlora.layer import Linear as RandLoraLinear
from peft.tuners.vblora.layer import Linear as VBLoraLinear
from peft.tuners.vera.layer import Linear as VeraLinear
from peft.tuners.waveft.layer import WaveFTLinear
from torch import nn

_COMPOSED = (
    *(LoraLinear, SVDLinear, VeraLinear, RandLoraLinear, LohaLinear, LokrLinear, FourierFTLinear),
    *(DeloraLinear, GraloraLinear, HiraLinear, VBLoraLinear, WaveFTLinear),
)
"""PEFT's layers that add `get_delta_weight` to the base; DoRA scales the sum's rows, HiRA multiplies by the base."""

DROPOUTS = (
    *("lora_dropout", "vera_dropout", "randlora_dropout", "rank_dropout", "module_dropout"),
    *("delora_dropout", "gralora_dropout", "hira_dropout", "vblora_dropout"),
)
"""Where PEFT's layers keep dropout of their own."""


def base_linear(layer: Any) -> nn.Linear:  # noqa: ANN401 - PEFT's layers share no typed attributes
    """Return a linear layer without the adapter around it."""
    base: nn.Linear = layer if type(layer) is nn.Linear else layer.get_base_layer()
    return base


def can_be_composed(layer: Any) -> bool:  # noqa: ANN401 - PEFT's layers share no typed attributes
    """Return whether a layer is a frozen `nn.Linear`, bare or with an adapter that one weight can stand for."""
    if type(layer) is nn.Linear:
        return not any(parameter.requires_grad for parameter in layer.parameters())
    if type(layer) not in _COMPOSED or type(layer.get_base_layer()) is not nn.Linear:
        return False
    if isinstance(layer, LoraLinear):
        variants = layer.lora_variant.values()
        if any(layer.lora_bias.values()) or any(type(variant) is not DoraLinearVariant for variant in variants):
            return False
    is_trained = any(parameter.requires_grad for parameter in layer.get_base_layer().parameters())
    return not (is_trained or getattr(layer, "fan_in_fan_out", False) or _has_dropout(layer))


def compose_weight(layer: Any) -> torch.Tensor:  # noqa: ANN401 - PEFT's layers share no typed attributes
    """Add up base and adapters.

    Args:
        layer: A layer that `can_be_composed`.

    Returns:
        Shape (outputs, inputs), fp32; differentiable with respect to the factors of the adapters that count, which are
        the active ones that are neither disabled nor merged into the base already.
    """
    names = list_counting(layer)  # first: it may take a merged adapter out of the base
    base = base_linear(layer).weight.detach()
    weight: torch.Tensor = base
    for name in names:
        delta = layer.get_delta_weight(name)
        if isinstance(layer, LoraLinear) and name in layer.lora_variant:
            delta = _scale_rows(layer, name, base, delta)
        elif isinstance(layer, HiraLinear):
            delta = base * delta
        weight = weight + delta
    return weight


def list_factors(layer: nn.Module) -> list[torch.Tensor]:
    """Return all that an adapter's weight is made of and that training may change."""
    if type(layer) is nn.Linear:
        return []
    return [factor for name, factor in layer.named_parameters() if not name.startswith("base_layer.")]


def _scale_rows(layer: LoraLinear, name: str, base: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """Return DoRA's change: each row of the sum gets the learned magnitude; its norm counts as a constant."""
    total = base + delta
    magnitude: Any = layer.lora_magnitude_vector[name]
    scale: torch.Tensor = magnitude.weight / torch.linalg.vector_norm(total.detach(), dim=1)
    return scale.unsqueeze(1) * total - base


def list_counting(layer: Any) -> list[str]:  # noqa: ANN401 - PEFT's layers share no typed attributes
    """Return the names of a layer's adapters that count: active, not disabled, and not in the base's weight already."""
    if type(layer) is nn.Linear:
        return []
    if layer.disable_adapters and layer.merged:
        layer.unmerge()  # as PEFT's own forward does
    if layer.disable_adapters or layer.merged:
        return []
    known = {name for kind in layer.adapter_layer_names for name in getattr(layer, kind)}
    return [name for name in layer.active_adapters if name in known]


def _has_dropout(layer: nn.Module) -> bool:
    """Return whether an adapter's input or rank is dropped at random: the weight then differs from row to row."""
    for kind in DROPOUTS:
        for dropout in getattr(layer, kind, {}).values():
            if (dropout if isinstance(dropout, float) else getattr(dropout, "p", 0.0)) > 0:
                return True
    return False
