"""Load a model with a classification head from checked weights."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorafit.errors import ConfigError
from lorafit.models.architectures import Pooling
from lorafit.models.vetting import opening
from lorafit.models.weights import read_weights
from lorafit.system.limits import NEW_NUMBERS

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def load_classifier(
    folder: Path, config: "PretrainedConfig", name: str, pooling: Pooling = "own"
) -> tuple["PreTrainedModel", Mapping[str, Any]]:
    """Load a model with a classification head in fp32; what its weights lack is drawn from torch's random numbers.

    Args:
        folder: In the Hub's layout.
        config: Its config, with the labels.
        name: The model, as the user named it.
        pooling: What its head reads.

    Returns:
        The model, and transformers' account of keys that are missing or of another size.

    Raises:
        ConfigError: transformers cannot load it as a sequence classifier, its config speaks of a far larger model than
            its weights are, or these are not what `read_weights` takes.
    """
    import torch
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, MODEL_MAPPING

    what = f"transformers cannot load {name} as a text classifier"
    kinds = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING if pooling == "own" else MODEL_MAPPING
    kind: Any = kinds.get(type(config), None)
    if kind is None:
        raise ConfigError(f"{what}: there is none of the type {config.model_type!r}.")
    kind = kind[0] if isinstance(kind, tuple) else kind
    tensors = read_weights(folder)
    has_pooler = "add_pooling_layer" in inspect.signature(kind).parameters and pooling != "own"
    parts = {"add_pooling_layer": False} if has_pooler else {}  # its own pooler reads the first token
    with opening(what):
        with torch.device("meta"):
            empty = kind(config, **parts)
        planned = sum(one.numel() for one in (*empty.parameters(), *empty.buffers()))
        there = sum(one.numel() for one in tensors.values())
        NEW_NUMBERS.check(
            planned - 2 * there,
            f"{name}: its config.json speaks of {planned:,} numbers, and its weights have {there:,}",
            ConfigError,
        )
        model, account = kind.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            dtype=torch.float32,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # of a base with a head for other labels
            output_loading_info=True,
            **parts,
        )
        if pooling == "mean":
            from lorafit.models.pooling import pool

            model, account = pool(model, account, folder)
    model.name_or_path = model.config.name_or_path = str(folder)
    return model, account
