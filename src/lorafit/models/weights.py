"""Weights from safetensors files, checked before a model gets them: plain numbers, all of them finite."""

import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lorafit.errors import ConfigError
from lorafit.models.architectures import Pooling
from lorafit.models.vetting import check_place, opening, reading
from lorafit.system.files import check_file, read_object
from lorafit.system.limits import HEADER, NEW_NUMBERS, RECORD_BYTES
from lorafit.system.text import clean_text

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

WEIGHTS: Final = "model.safetensors"
INDEX: Final = f"{WEIGHTS}.index.json"

_LEARNED: Final = re.compile(r"(?:^|\.)(?:weight|bias)$")


def read_weights(folder: Path) -> dict[str, "torch.Tensor"]:
    """Read the weights of a model.

    Args:
        folder: In the Hub's layout: with `model.safetensors`, or several files and their index.

    Returns:
        The tensors by name, mapped from the files.

    Raises:
        ConfigError: There are none, a file is damaged or lies elsewhere, or a number is NaN or infinite.
    """
    check_place(folder)
    names = [WEIGHTS]
    if not (folder / WEIGHTS).is_file() and (folder / INDEX).is_file():
        listed = read_object(folder / INDEX, ConfigError, RECORD_BYTES).get("weight_map")
        names = sorted({str(name) for name in listed.values()}) if isinstance(listed, dict) else []
        strange = [name for name in names if not re.fullmatch(r"[\w.-]+\.safetensors", name)]
        if strange or not names:
            found = clean_text(repr(strange[0]), most=80) if strange else "no file"
            raise ConfigError(f"{folder / INDEX} names {found}; it may name .safetensors files beside it alone.")
    tensors: dict[str, torch.Tensor] = {}
    for name in names:
        tensors |= read_tensors(folder / name)
    return tensors


def read_names(path: Path) -> list[str]:
    """Return the names of the tensors in a safetensors file; a ConfigError says that it is damaged."""
    with _open(path, framework="numpy") as weights:
        return list(weights.keys())


def read_tensors(path: Path) -> dict[str, "torch.Tensor"]:
    """Read a safetensors file.

    Args:
        path: The file.

    Returns:
        Its tensors by name, mapped from the file.

    Raises:
        ConfigError: It is no plain file, damaged, or has weights that are whole numbers, NaN or infinite; the message
            names the tensor.
    """
    with _open(path, framework="pt") as weights:
        tensors = {name: weights.get_tensor(name) for name in weights.keys()}  # noqa: SIM118  no dict
    for name, tensor in tensors.items():
        if (wrong := _find_fault(name, tensor)) is not None:
            raise ConfigError(f"{path}: {clean_text(name, most=150)} {wrong}.")
    return tensors


@contextmanager
def _open(path: Path, *, framework: str) -> Iterator[Any]:
    """Open a safetensors file whose header is within the limit."""
    from safetensors import safe_open

    check_file(path, ConfigError)
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size < path.stat().st_size:  # else it is cut, or something else, of which safetensors tells
        HEADER.check(size, f"{path} has a header of {size:,} bytes", ConfigError)
    with reading(f"{path} is damaged"), safe_open(path, framework=framework) as weights:
        yield weights


def _find_fault(name: str, tensor: "torch.Tensor") -> str | None:
    """Say what is wrong with a tensor; None for nothing."""
    if not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        return f"is of type {kind}, where weights are fractions" if _LEARNED.search(name) else None
    if tensor.itemsize == 1:
        return "is of 8 bits, which cannot be fine-tuned here"
    if tensor.sum().isfinite():  # one look at every number: what is not finite leaves no finite sum
        return None
    wrong = int((~tensor.isfinite()).sum())  # a sum may be too large, too
    return f"has {wrong:,} of {tensor.numel():,} numbers that are NaN or infinite" if wrong else None


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
