"""Self-attention on a CPU: batched matrix products in bfloat16, torch's flash attention in fp32.

In bfloat16 that is products with a hand-written backward pass, a few texts at a time so that their scores fit the
cache: faster in training than torch's flash attention at every length from 32 to 512 (`benchmarks/attention.py`). In
fp32 torch's own is used. transformers knows it by the name `lorafit`, with a mask of its own.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface

from lorafit.models.acceleration.precision import PrecisionChoice

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ATTENTION = "lorafit"
"""Name in transformers' registries of attention functions and of mask functions."""

_SCORES = 1 << 21
"""Most attention scores worked on at a time: four megabytes in bfloat16."""


def attend(mask: torch.Tensor | None, *packed: torch.Tensor) -> torch.Tensor:
    """Compute softmax(q k^T / sqrt(d)) v for every head (Vaswani et al. 2017, arXiv:1706.03762).

    Args:
        mask: Shape (rows, keys), bool: which keys may be looked at, at least one a row; None for all.
        *packed: One to three tensors of shape (rows, length, parts, heads, d), parts adding up to three: query, key and
            value in this order. Their gradients come packed in the same way, so that the products before need no copy.

    Returns:
        Shape (rows, queries, heads, d).
    """
    query, key, value = _unpack(packed)
    if query.dtype != torch.bfloat16:
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        allowed = None if mask is None else mask[:, None, None, :]
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed).transpose(1, 2)
    output: torch.Tensor = _Attention.apply(mask, *packed)  # type: ignore[no-untyped-call]
    return output


class _Attention(torch.autograd.Function):
    """`attend` in parts; the probabilities are kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, mask: torch.Tensor | None, *packed: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - torch's context takes any attribute
        query, key, value = _unpack(packed)
        rows, queries, heads, width = query.shape
        output = query.new_empty(rows, queries, heads, width)
        kept = []
        for part in _parts(rows, heads * queries * key.shape[1]):
            q, k, v = (_head_major(tensor[part]) for tensor in (query, key, value))
            scores = torch.baddbmm(q.new_empty(()), q, k.transpose(1, 2), beta=0, alpha=1 / math.sqrt(width))
            if mask is not None and not bool(mask[part].all()):
                hidden = ~mask[part, None, None, :]
                scores.view(-1, heads, queries, key.shape[1]).masked_fill_(hidden, -math.inf)
            probabilities = torch.softmax(scores, dim=-1)
            output[part] = torch.bmm(probabilities, v).view(-1, heads, queries, width).transpose(1, 2)
            if any(ctx.needs_input_grad):
                kept.append(probabilities)
        ctx.save_for_backward(*packed, *kept)
        ctx.packed = len(packed)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401 - the same
        packed, kept = ctx.saved_tensors[: ctx.packed], ctx.saved_tensors[ctx.packed :]
        results = tuple(torch.empty_like(tensor) for tensor in packed)
        query, key, value = _unpack(packed)
        rows, queries, heads, width = query.shape
        scale = 1 / math.sqrt(width)
        parts = _parts(rows, heads * queries * key.shape[1])
        for part, probabilities in zip(parts, kept, strict=True):
            q, k, v, d_output = (_head_major(tensor[part]) for tensor in (query, key, value, gradients[0]))
            d_query, d_key, d_value = (tensor[part] for tensor in _unpack(results))
            d_probabilities = torch.bmm(d_output, v.transpose(1, 2))
            d_scores = torch._softmax_backward_data(d_probabilities, probabilities, -1, q.dtype)  # noqa: SLF001 - the
            # public softmax would have to run once more to be differentiated
            zero = q.new_empty(())
            _store(d_query, torch.baddbmm(zero, d_scores, k, beta=0, alpha=scale))
            _store(d_key, torch.baddbmm(zero, d_scores.transpose(1, 2), q, beta=0, alpha=scale))
            _store(d_value, torch.bmm(probabilities.transpose(1, 2), d_output))
        return None, *results


def _unpack(packed: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    return [part for tensor in packed for part in tensor.unbind(2)]


def _parts(rows: int, scores: int) -> Iterator[slice]:
    """Cut rows of so many scores each into parts as equal as can be, so that few shapes are multiplied."""
    parts = math.ceil(rows / max(1, _SCORES // scores))
    step = math.ceil(rows / parts)
    return (slice(start, start + step) for start in range(0, rows, step))


def _head_major(tensor: torch.Tensor) -> torch.Tensor:
    """Copy (rows, length, heads, d) to (rows * heads, length, d)."""
    return tensor.transpose(1, 2).reshape(-1, tensor.shape[1], tensor.shape[3])


def _store(target: torch.Tensor, head_major: torch.Tensor) -> None:
    rows, length, heads, width = target.shape
    target.copy_(head_major.view(rows, heads, length, width).transpose(1, 2))


def use_attention(model: "PreTrainedModel") -> None:
    """Let the encoder's attention be computed here.

    Args:
        model: The encoder with its head, changed in place.
    """
    AttentionInterface.register(ATTENTION, _attend_for_transformers)
    AttentionMaskInterface.register(ATTENTION, padding_mask)
    model.set_attn_implementation(ATTENTION)


@contextmanager
def attention_for_training(model: "PreTrainedModel", precision: PrecisionChoice) -> Iterator[None]:
    """Compute attention inside the block without torch's flash attention, whose backward pass is slow in bfloat16.

    A model that `use_attention` was called on stays as it is, and so does one that trains in fp32 or on a GPU; any
    other computes plain products.

    Args:
        model: The encoder with its head, changed in place.
        precision: What it trains in.
    """
    before = model.config._attn_implementation  # noqa: SLF001 - transformers offers a setter and no getter
    if before != ATTENTION and precision.name == "bf16" and model.device.type == "cpu":
        model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _attend_for_transformers(
    _module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Compute `attend` for tensors of shape (rows, heads, length, d)."""
    return attend(attention_mask, *(part.transpose(1, 2).unsqueeze(2) for part in (query, key, value))), None


def padding_mask(attention_mask: torch.Tensor | None = None, **_: Any) -> torch.Tensor | None:
    """Return a mask (1 = token, 0 = padding) of shape (rows, keys) as bool, or None where there is no padding."""
    return None if attention_mask is None or bool(attention_mask.all()) else attention_mask.bool()
