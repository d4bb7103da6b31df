"""Linear layers with an adapter as one matrix product on the merged weight, forward and backward.

Plain PEFT multiplies base and adapter one after the other and converts the input back and forth between them. Here the
update is added to the fp32 base and rounded once, `round(W + s B A)`, which costs next to nothing at small ranks; the
gradients of A and B need only products with `r` columns. Other adapters have `acceleration.composed_weight` make their
weight, whose gradient is a product of its own, as in full fine-tuning.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from lorafit.models.acceleration.composed_weight import (
    base_linear,
    can_be_composed,
    compose_weight,
    list_counting,
    list_factors,
)


@dataclass(frozen=True)
class _Adapter:
    """One adapter of one layer of a group; `rows` are the layer's outputs among the group's."""

    layer: int
    rows: slice
    a: nn.Parameter
    b: nn.Parameter
    scaling: float
    dropout: float


@dataclass(frozen=True)
class _Merged:
    """Weight and bias of a group in the dtype computed in, and what they were built for and from."""

    built_for: tuple[object, ...]
    factors: list[torch.Tensor]
    weight: torch.Tensor
    bias: torch.Tensor


class LinearGroup:
    """Linear layers that read the same input, computed as one.

    The layers stay PEFT's and torch's own, with the parameters where they are; they are read anew at each call, so that
    disabled or merged adapters count as such. `beside` may add to what they give: it gets input and output.
    """

    def __init__(self, *layers: nn.Module) -> None:
        self._layers = layers
        self._bases: list[nn.Linear] = [base_linear(layer) for layer in layers]
        self._is_composed = not all(has_plain_lora(layer) for layer in layers)
        self._kept: _Merged | None = None
        self.beside: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply.

        Args:
            x: Shape (..., inputs); its dtype is the one computed in.

        Returns:
            Shape (..., outputs), the layers' outputs side by side.
        """
        output = self._multiply(x)
        return output if self.beside is None else self.beside(x, output)

    @property
    def sizes(self) -> tuple[int, list[int]]:
        """Size of the input, and the outputs of each layer."""
        return self._bases[0].in_features, [base.out_features for base in self._bases]

    def _multiply(self, x: torch.Tensor) -> torch.Tensor:
        if self._is_composed:
            return functional.linear(x, *self._compose(x.dtype))
        adapters = self._adapters()
        dropout = any(layer.training for layer in self._layers)
        apart = [adapter for adapter in adapters if dropout and adapter.dropout > 0]
        kept = self._merge(x.dtype, [] if apart else adapters)
        factors = [factor for adapter in adapters for factor in (adapter.a, adapter.b)]
        output: torch.Tensor = _LinearGroupFunction.apply(  # type: ignore[no-untyped-call]
            x, kept.weight, kept.bias, adapters, bool(apart), *factors
        )
        return output

    def _adapters(self) -> list[_Adapter]:
        adapters, start = [], 0
        for index, (layer, base) in enumerate(zip(self._layers, self._bases, strict=True)):
            rows = slice(start, start + base.out_features)
            start = rows.stop
            if isinstance(layer, LoraLinear):
                adapters += _read_adapters(layer, index, rows)
        return adapters

    def _merge(self, dtype: torch.dtype, adapters: Sequence[_Adapter]) -> _Merged:
        """Return weight and bias, built anew if they are for another dtype, or a base or an adapter has changed since.

        Adapters are compared by value: torch's fused optimisers change tensors without counting up their version. So
        does PEFT when it merges into the base, but it keeps a list of what it merged. What is kept is replaced as a
        whole, so that threads may predict side by side.
        """
        factors = [factor for adapter in adapters for factor in (adapter.a, adapter.b)]
        built_for = (*self._describe(dtype), [(adapter.rows, adapter.scaling) for adapter in adapters])
        kept = self._find(built_for, factors)
        if kept is not None:
            return kept
        with torch.inference_mode(mode=False), torch.no_grad():
            exact = [base.weight.detach() for base in self._bases]
            for adapter in adapters:
                exact[adapter.layer] = torch.addmm(exact[adapter.layer], adapter.b, adapter.a, alpha=adapter.scaling)
            weight = torch.cat([part.to(dtype) for part in exact]) if len(exact) > 1 else exact[0].to(dtype)
            bias = torch.cat([_bias(base) for base in self._bases]).to(dtype)
            copies = [factor.detach().clone() for factor in factors]
            self._kept = kept = _Merged(built_for, copies, weight, bias)
        return kept

    def _compose(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weight and bias, through which gradients reach the adapters; without gradients they are kept."""
        if torch.is_grad_enabled():
            self._kept = None  # it would be a whole weight that no step uses
            return self._build(dtype)
        factors = [factor for layer in self._layers for factor in list_factors(layer)]
        active = [tuple(getattr(layer, "active_adapters", ())) for layer in self._layers]
        disabled = [getattr(layer, "disable_adapters", False) for layer in self._layers]
        scales = [dict(getattr(layer, name, {})) for layer in self._layers for name in ("scaling", "fourierft_scaling")]
        built_for = (*self._describe(dtype), active, disabled, scales)
        kept = self._find(built_for, factors)
        if kept is None:
            with torch.inference_mode(mode=False), torch.no_grad():
                copies = [factor.detach().clone() for factor in factors]
                self._kept = kept = _Merged(built_for, copies, *self._build(dtype))
        return kept.weight, kept.bias

    def _build(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        weights = [compose_weight(layer).to(dtype) for layer in self._layers]
        return torch.cat(weights), torch.cat([_bias(base) for base in self._bases]).to(dtype)

    def _describe(self, dtype: torch.dtype) -> tuple[object, ...]:
        """Return what a weight is built for, apart from the adapters' values."""
        bases = [(base.weight.data_ptr(), _version(base.weight)) for base in self._bases]
        return dtype, bases, [tuple(getattr(layer, "merged_adapters", ())) for layer in self._layers]

    def _find(self, built_for: tuple[object, ...], factors: Sequence[torch.Tensor]) -> _Merged | None:
        kept = self._kept
        is_valid = kept is not None and built_for == kept.built_for and all(map(torch.equal, factors, kept.factors))
        return kept if is_valid else None


class _LinearGroupFunction(torch.autograd.Function):
    """y = x W^T + b, and the gradients of x and of the adapters' factors; the base gets none.

    With `apart`, W is the base alone and the adapters are added to the output, each behind its own dropout.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's context takes any attribute
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        adapters: list[_Adapter],
        apart: bool,
        *factors: torch.Tensor,
    ) -> torch.Tensor:
        output = functional.linear(x, weight, bias)
        masks = [_draw_mask(x, adapter.dropout) for adapter in adapters] if apart else []
        for adapter, mask in zip(adapters, masks, strict=False):
            low = functional.linear(x * mask, adapter.a.to(x.dtype))
            output[..., adapter.rows] += functional.linear(low, (adapter.b * _scale(adapter, apart)).to(x.dtype))
        ctx.adapters, ctx.apart = adapters, apart
        ctx.save_for_backward(x, weight, *factors, *masks)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401 - the same
        adapters: list[_Adapter] = ctx.adapters
        x, weight, *rest = ctx.saved_tensors
        masks = rest[2 * len(adapters) :]
        d_output = gradients[0].reshape(-1, weight.shape[0])
        inputs = x.reshape(-1, x.shape[-1])
        d_input = d_output @ weight if ctx.needs_input_grad[0] else None
        d_factors: list[torch.Tensor | None] = []
        for index, adapter in enumerate(adapters):
            a, b = (factor.to(x.dtype) for factor in rest[2 * index : 2 * index + 2])
            d_rows, scale = d_output[:, adapter.rows], _scale(adapter, ctx.apart)
            masked = inputs * masks[index].reshape(inputs.shape) if masks else inputs
            d_low = d_rows @ b
            trained_a, trained_b = ctx.needs_input_grad[5 + 2 * index : 7 + 2 * index]
            d_factors.append((d_low.t() @ masked).float() * scale if trained_a else None)
            d_factors.append(((masked @ a.t()).t() @ d_rows).t().float() * scale if trained_b else None)
            if masks and d_input is not None:
                d_input += (d_low @ a) * masks[index].reshape(inputs.shape) * scale
        return None if d_input is None else d_input.view(x.shape), None, None, None, None, *d_factors


def can_be_grouped(layer: nn.Module) -> bool:
    """Return whether a layer is a frozen `nn.Linear`, bare or with an adapter on it that is known here."""
    return has_plain_lora(layer) or can_be_composed(layer)


def has_plain_lora(layer: nn.Module) -> bool:
    """Return whether a layer is a frozen `nn.Linear`, bare or with LoRA on it, in none of its variants."""
    if type(layer) is LoraLinear:
        if layer.lora_variant or any(layer.lora_bias.values()) or layer.fan_in_fan_out:
            return False
        layer = layer.get_base_layer()
    return type(layer) is nn.Linear and not any(parameter.requires_grad for parameter in layer.parameters())


def _read_adapters(layer: LoraLinear, index: int, rows: slice) -> list[_Adapter]:
    """Return the adapters that count."""
    adapters = []
    for name in list_counting(layer):
        a: Any = layer.lora_A[name].weight
        b: Any = layer.lora_B[name].weight
        dropout = getattr(layer.lora_dropout[name], "p", 0.0)
        adapters.append(_Adapter(index, rows, a, b, layer.scaling[name], dropout))
    return adapters


def _bias(base: nn.Linear) -> torch.Tensor:
    return base.weight.new_zeros(base.out_features) if base.bias is None else base.bias


def _version(tensor: torch.Tensor) -> int:
    """Return how often a tensor was changed, as far as torch counts it."""
    return 0 if tensor.is_inference() else tensor._version  # noqa: SLF001 - torch's own count has no other name


def _dropped(probability: float) -> int:
    """Return a dropout probability in 256ths, below 1."""
    return min(round(probability * 256), 255)


def _scale(adapter: _Adapter, apart: bool) -> float:
    """Return what an adapter's output is multiplied by; behind dropout, what is left stands for all."""
    return adapter.scaling / (1 - _dropped(adapter.dropout) / 256) if apart else adapter.scaling


def _draw_mask(x: torch.Tensor, probability: float) -> torch.Tensor:
    """Draw a dropout mask of ones and zeros from whole random bytes.

    On CPUs that is many times faster than one number an element; the probability is rounded to 1/256.
    """
    count = x.numel()
    words = torch.empty((count + 7) // 8, dtype=torch.int64, device=x.device).random_(-(2**63), None)
    return (words.view(torch.uint8)[:count].view(x.shape) >= _dropped(probability)).to(x.dtype)
