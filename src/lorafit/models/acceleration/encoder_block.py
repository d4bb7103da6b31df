"""Whole encoder blocks that keep the names of their children and compute them with as few products as there can be."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from lorafit.models.acceleration.attention import attend, use_attention
from lorafit.models.acceleration.composed_weight import DROPOUTS
from lorafit.models.acceleration.lora_linear import LinearGroup, can_be_grouped
from lorafit.models.acceleration.packing import current_packing
from lorafit.models.acceleration.precision import PrecisionChoice
from lorafit.models.adaptation import base_of
from lorafit.models.architectures import ARCHITECTURES, Architecture, BlockParts, pooling_of
from lorafit.models.bottleneck import list_bottlenecks

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

T = TypeVar("T")

_dtype: ContextVar[torch.dtype] = ContextVar("dtype of the products in fused blocks", default=torch.float32)
_OWN_BLOCKS = "the method changes more than the weights of frozen linear layers"
_prefix_alone: ContextVar[bool] = ContextVar("whether only the frozen prefix is computed", default=False)


class FusedBlock(nn.Module):
    """A block of a BERT-like encoder: attention and feed-forward network, each with a residual and a norm after it.

    Its children are those of the block it replaces, under the same names, so that parameters keep theirs. `height` is
    the number of layers above the lowest trained one; where it is below 0, the block is part of the frozen prefix.
    With `first_alone` only the first token is computed, as in the last layer below a head that reads no other. Inside
    `packed` the states from one block to the next are without padding.
    """

    def __init__(
        self,
        block: nn.Module,
        architecture: Architecture,
        parts: BlockParts,
        *,
        heads: int,
        first_alone: bool,
        height: int,
    ) -> None:
        super().__init__()
        for name, child in block.named_children():
            self.add_module(name, child)
        query, key, value, out, up, down = (block.get_submodule(name) for name in architecture.linears)
        self._parts = parts
        self._heads = heads
        self._first_alone = first_alone
        self.height = height
        self._inputs = (
            [LinearGroup(query), LinearGroup(key, value)] if first_alone else [LinearGroup(query, key, value)]
        )
        self._out, self._up, self._down = LinearGroup(out), LinearGroup(up), LinearGroup(down)
        inputs = [architecture.linears[:1], architecture.linears[1:3]] if first_alone else [architecture.linears[:3]]
        self.groups = [*zip(inputs, self._inputs, strict=True)]
        """The products of a forward pass, each with the names of its layers in the block."""
        self.groups += zip(zip(architecture.linears[3:]), (self._out, self._up, self._down), strict=True)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *_: Any,
        prefix_hidden_states: torch.Tensor | None = None,
        **__: Any,
    ) -> torch.Tensor:
        """Compute the block.

        Args:
            hidden_states: Shape (rows, length, width).
            attention_mask: Shape (rows, length), bool, or None, as `acceleration.attention` makes it.
            prefix_hidden_states: What `compute_prefix` gave for this batch: blocks of the prefix then do nothing, and
                the one above them reads it in place of `hidden_states`.

        Returns:
            Shape (rows, length, width) in the dtype computed in, inside `packed` (1, tokens, width); with `first_alone`
            (rows, 1, width) in fp32.
        """
        if self.height == 0 and _prefix_alone.get():
            raise _PrefixComputed(hidden_states)
        if prefix_hidden_states is not None:
            if self.height < 0:
                return hidden_states
            if self.height == 0:
                hidden_states = prefix_hidden_states
        if self.height < 0:  # above them may be blocks that run under autocast
            with torch.autocast(hidden_states.device.type, enabled=False):
                return self._compute(hidden_states, attention_mask)
        return self._compute(hidden_states, attention_mask)

    def _compute(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        x, packing = hidden_states.to(_dtype.get()), current_packing()
        if packing is not None and not packing.is_packed(x):
            x = packing.pack(x)
        first = x
        if self._first_alone:
            first = x[:, :1].contiguous() if packing is None else packing.take_first(x)
        projected = [group(part) for group, part in zip(self._inputs, (first, x), strict=False)]
        if packing is not None:
            projected = [packing.unpack(part) if packing.is_packed(part) else part for part in projected]
        by_head = (part.view(*part.shape[:2], -1, self._heads, x.shape[2] // self._heads) for part in projected)
        attended = attend(attention_mask, *by_head).flatten(2)
        if packing is not None and not self._first_alone:
            attended = packing.pack(attended)
        x = self._child(self._parts.attention_norm, self._out(attended) + first)
        inner = self._child(self._parts.activation, self._up(x))
        x = self._child(self._parts.output_norm, self._down(inner) + x)
        return x.float() if self._first_alone else x

    def _child(self, name: str, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.get_submodule(name)(x)
        return output


def fuse_encoder(model: "PreTrainedModel | PeftModel", *, depth: int | None = None) -> str | None:
    """Replace the encoder's blocks by fused ones: all of them, or, where a method needs its own, the frozen ones below.

    Fused blocks know neither `output_hidden_states` nor gradient checkpointing nor hooks on their linear layers.
    What replaces the blocks' linear layers later, as PEFT does when it unloads an adapter, is not seen: fuse again.

    Args:
        model: The encoder with its head, an adapter on it or not; changed in place.
        depth: How many of the lowest layers are the frozen prefix; None finds it by what is trained.

    Returns:
        None if all were replaced, else why not, for people.
    """
    base = base_of(model)
    architecture = ARCHITECTURES.get(base.config.model_type)
    obstacle = find_block_obstacle(model)
    if obstacle is not None or architecture is None or architecture.block is None:
        return obstacle
    blocks = base.get_submodule(architecture.layers)
    if any(_has_dropout(block) for block in blocks):
        return "the encoder's own dropout is on"
    use_attention(base)
    heads, last = base.config.num_attention_heads, len(blocks) - 1
    grouped = [
        all(can_be_grouped(block.get_submodule(name)) for name in architecture.linears) and not list_bottlenecks(block)
        for block in blocks
    ]
    if depth is None:
        depth = next((i for i, block in enumerate(blocks) if _is_trained(block) or not grouped[i]), last)
        if _is_trained(base.base_model.embeddings) or learns_tokens(model):
            depth = 0
    for index, block in enumerate(blocks):
        if all(grouped) or index < depth:
            blocks[index] = FusedBlock(
                block,
                architecture,
                architecture.block,
                heads=heads,
                first_alone=index == last and pooling_of(base) == "own",
                height=index - depth,
            )
        else:
            block.register_forward_pre_hook(_read_prefix if index == depth else _drop_prefix, with_kwargs=True)
    return None if all(grouped) else _OWN_BLOCKS


def read_block_input(block: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> torch.Tensor:
    """Return the hidden states that a block computes from, which may be those kept of the frozen prefix.

    Args:
        block: An encoder block, fused or not.
        inputs: What it is called with by place.
        named: What it is called with by name.

    Returns:
        Shape (rows, length, width).
    """
    kept = named.get("prefix_hidden_states") if isinstance(block, FusedBlock) and block.height == 0 else None
    states: torch.Tensor = kept if kept is not None else inputs[0] if inputs else named["hidden_states"]
    packing = current_packing()
    return packing.unpack(states) if packing is not None and packing.is_packed(states) else states


def find_block_obstacle(model: "PreTrainedModel | PeftModel") -> str | None:
    """Say why there are no fused blocks for an encoder, whatever the method, or return None."""
    base = base_of(model)
    architecture = ARCHITECTURES.get(base.config.model_type)
    if architecture is None or architecture.block is None or getattr(base.config, "is_decoder", False):
        return f"there are none for this {base.config.model_type} model"
    if not type(base).__name__.endswith("ForSequenceClassification"):
        return f"{type(base).__name__} reads more than the first token"
    return None


def frozen_depth(model: nn.Module) -> int:
    """Return how many of a model's lowest layers are a frozen prefix; 0 if its blocks are not fused."""
    return sum(block.height < 0 for block in _list_fused(model))


def is_fused(model: nn.Module) -> bool:
    """Return whether all of an encoder's blocks are fused."""
    blocks = _list_fused(model)
    return bool(blocks) and max(block.height for block in blocks) >= 0


def _list_fused(model: nn.Module) -> list[FusedBlock]:
    """Return the fused ones of an encoder's blocks; to look through all modules would take a short text's time."""
    base: Any = base_of(model)  # type: ignore[arg-type]  # of any other module it gives the module
    architecture = ARCHITECTURES.get(getattr(getattr(base, "config", None), "model_type", ""))
    blocks = () if architecture is None else base.get_submodule(architecture.layers).children()
    return [block for block in blocks if isinstance(block, FusedBlock)]


def learns_tokens(model: nn.Module) -> bool:
    """Return whether a method puts learned tokens before the text: nothing above them stays, nothing can be merged."""
    return any(config.is_prompt_learning for config in getattr(model, "peft_config", {}).values())


def compute_prefix(model: "PreTrainedModel | PeftModel", **inputs: torch.Tensor) -> torch.Tensor:
    """Compute what the frozen prefix gives to the layer above it.

    Args:
        model: From `fuse_encoder`, its `frozen_depth` above 0.
        **inputs: `input_ids` and `attention_mask` (1 = token, 0 = padding) of shape (rows, length), and what else the
            model reads.

    Returns:
        Shape (rows, length, width), in the dtype of the `at_precision` around the call.
    """
    base = base_of(model)
    try:
        with _holding(_prefix_alone, value=True):
            base.base_model(**inputs)
    except _PrefixComputed as computed:
        return computed.hidden_states
    raise RuntimeError("the model has no block above a frozen prefix")


def at_precision(model: nn.Module, precision: PrecisionChoice) -> ExitStack:
    """Return the context in which a model's forward pass runs at this precision.

    Fused blocks are told, and leave the head in fp32; everything above a fused prefix, and any other model, runs under
    autocast.
    """
    context = ExitStack()
    context.enter_context(_holding(_dtype, value=torch.bfloat16 if precision.name == "bf16" else torch.float32))
    if not is_fused(model):
        device = next(model.parameters()).device.type
        context.enter_context(torch.autocast(device, dtype=torch.bfloat16, enabled=precision.name == "bf16"))
    return context


@contextmanager
def _holding(variable: ContextVar[T], *, value: T) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


class _PrefixComputed(Exception):  # noqa: N818 - no error: it ends a forward pass where the prefix does
    def __init__(self, hidden_states: torch.Tensor) -> None:
        super().__init__()
        self.hidden_states = hidden_states


def _read_prefix(
    _block: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Hand a library's block above the prefix the states that are kept, where there are some."""
    if _prefix_alone.get():
        raise _PrefixComputed(inputs[0])
    kept = named.pop("prefix_hidden_states", None)
    return (inputs if kept is None else (kept, *inputs[1:])), named


def _drop_prefix(
    _block: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Keep from a library's block what it does not know."""
    named.pop("prefix_hidden_states", None)
    return inputs, named


def _is_trained(block: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in block.parameters())


def _has_dropout(block: nn.Module) -> bool:
    return any(
        isinstance(module, nn.Dropout) and module.p > 0
        for name, module in block.named_modules()
        if not any(own in name for own in DROPOUTS)
    )
