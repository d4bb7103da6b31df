"""A model that is not trained any more, as fast as it can be: merged and in fused blocks, whatever the method."""

import copy
from typing import TYPE_CHECKING

from torch import nn

from lorafit.models.acceleration.encoder_block import (
    find_block_obstacle,
    frozen_depth,
    fuse_encoder,
    is_fused,
    learns_tokens,
)
from lorafit.models.acceleration.memory import release_freed_memory
from lorafit.models.adaptation import base_of, merge_adapter

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def make_fast(model: "PreTrainedModel | PeftModel") -> "PreTrainedModel | PeftModel":
    """Return a copy of a trained model with its adapter merged and the encoder's blocks fused.

    Blocks that need a method's own layers in training need them no more once the adapter is merged. Kept hidden states
    of the frozen layers, which the model was trained on, serve the copy as well. Frozen embeddings are shared.

    Args:
        model: What was trained, on a CPU; it stays as it is.

    Returns:
        A frozen model that gives the same logits, but for rounding. `model` itself where nothing is to be gained: its
        blocks are fused already, there are no fused ones for it, or its method cannot be merged.
    """
    if is_fused(model) or learns_tokens(model) or find_block_obstacle(model) is not None:
        return model
    release_freed_memory()
    embeddings = base_of(model).base_model.embeddings.parameters()
    shared = {id(weights): weights for weights in embeddings if not weights.requires_grad}
    depth = frozen_depth(model)
    try:
        fast = merge_adapter(copy.deepcopy(model, shared))
    except (RuntimeError, NotImplementedError, ValueError):  # what PEFT says of options that cannot be merged
        return model
    for module in fast.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    fast.requires_grad_(requires_grad=False).train(mode=False)
    fuse_encoder(fast, depth=depth)
    return fast
