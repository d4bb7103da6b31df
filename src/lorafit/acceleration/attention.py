"""Which of transformers' attention implementations suits training on a CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["attention_for_training"]


@contextmanager
def attention_for_training(model: "PreTrainedModel") -> Iterator[None]:
    """Compute attention as plain matrix products inside the block, and as before after it.

    On CPUs the backward pass of torch's flash attention is slow in bfloat16 and for short texts; plain products train
    faster up to a few hundred tokens (`benchmarks/attention.py`). The forward pass alone is faster with flash
    attention, so prediction keeps it.

    Args:
        model: The encoder with its head, changed in place.
    """
    before = model.config._attn_implementation  # noqa: SLF001 - transformers offers a setter and no getter
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
