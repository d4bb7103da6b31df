"""A model that is not trained any more, as fast as it can be: merged and in fused blocks, whatever the method."""

import copy
from typing import TYPE_CHECKING

from lorafit.acceleration.encoder_block import frozen_depth, fuse_encoder, is_fused, learns_tokens
from lorafit.adaptation import merge_adapter

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

__all__ = ["make_fast"]


def make_fast(model: "PreTrainedModel | PeftModel", *, in_place: bool) -> "PreTrainedModel | PeftModel":
    """Merge a trained model's adapter and fuse the encoder's blocks, as far as either is possible.

    Blocks that need a method's own layers in training need them no more once the adapter is merged. Kept hidden states
    of the frozen layers, which the model was trained on, serve what is returned as well.

    Args:
        model: What was trained, on a CPU.
        in_place: Whether the model may be changed; it is not to be used afterwards.

    Returns:
        A frozen model that gives the same logits, but for rounding; `model` itself where there is nothing to gain.
    """
    if is_fused(model) or learns_tokens(model):
        return model
    depth = frozen_depth(model)
    fast = merge_adapter(model if in_place else copy.deepcopy(model))
    fast.requires_grad_(requires_grad=False).train(mode=False)
    fuse_encoder(fast, depth=depth)
    return fast
