"""Weights from safetensors files, checked before a model gets them: plain numbers, all of them finite."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lorafit.errors import ConfigError
from lorafit.models.vetting import check_place, reading
from lorafit.system.files import check_file, read_object
from lorafit.system.limits import HEADER, RECORD_BYTES
from lorafit.system.text import clean_text

if TYPE_CHECKING:
    import torch

WEIGHTS: Final = "model.safetensors"
INDEX: Final = f"{WEIGHTS}.index.json"

SETTINGS: Final = "adapter_config.json"
"""Settings of an adapter, in PEFT's format and in AdapterHub's."""

LABELS: Final = "labels"
"""The folder with the labels of an adapter or a pooled model, in a `config.json`."""

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


def check_tensors(found: "Mapping[str, torch.Tensor]", wanted: "Mapping[str, torch.Tensor]", path: Path) -> None:
    """Refuse tensors that have no place, another shape, or are missing.

    Args:
        found: Those of the file, by name.
        wanted: Those that the settings and the base ask for.
        path: The file, in an adapter's folder.

    Raises:
        ConfigError: They differ; the first that do are named.
    """
    if lost := sorted(set(found) - set(wanted)):
        listed = ", ".join(clean_text(name, most=150) for name in lost[:2])
        raise ConfigError(
            f"The adapter in {path.parent} is not one of a text classifier with this base: {len(lost)} of its "
            f"{len(found)} tensors have no place in it ({listed}{', …' if len(lost) > 2 else ''})."
        )
    for name, tensor in wanted.items():
        if name not in found:
            raise ConfigError(f"{path} has no tensor {name}, which the settings in {SETTINGS} ask for.")
        if found[name].shape != tensor.shape:
            raise ConfigError(
                f"{path}: {name} is of the shape {tuple(found[name].shape)}; base, labels and settings ask for "
                f"{tuple(tensor.shape)}."
            )
