"""Convert pickled weights to safetensors: `python -m lorafit.models.pickled FOLDER COPY`.

A script for a process of its own: lorafit never opens a pickle. torch's `weights_only` takes tensors and plain
containers, and refuses whatever would run code.
"""

import argparse
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from lorafit.errors import ConfigError
from lorafit.models.vetting import describe_fault

_PATTERNS = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")
"""Names of pickled weights; the files of the first pattern that has any are read."""

_OTHERS = ("optimizer", "scheduler", "rng_state", "scaler", "training_args")
"""Begins of the names of files that a training leaves beside the weights."""

_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training frameworks keep the weights."""


def find_pickled(folder: Path) -> list[Path]:
    """Return the files with a folder's pickled weights, in order."""
    for pattern in _PATTERNS:
        if found := sorted(path for path in folder.glob(pattern) if not path.name.startswith(_OTHERS)):
            return found
    return []


def convert(folder: Path, copy: Path) -> int:
    """Write a copy of a folder whose weights are in `model.safetensors`.

    Args:
        folder: With pickled weights; it is not changed.
        copy: A folder that does not exist yet, or is empty.

    Returns:
        The number of tensors.

    Raises:
        ConfigError: There is nothing to convert, or the copy exists.
    """
    import torch
    from safetensors.torch import save_file

    if copy.exists() and any(copy.iterdir()):
        raise ConfigError(f"{copy} is there already")
    tensors: dict[str, torch.Tensor] = {}
    for path in find_pickled(folder):
        weights = torch.load(path, map_location="cpu", weights_only=True)
        for key in _WRAPPERS:
            if isinstance(weights, Mapping) and isinstance(weights.get(key), Mapping):
                weights = weights[key]
        if isinstance(weights, Mapping):  # tied weights are one tensor, of which safetensors takes no second name
            tensors |= {str(key): one.clone() for key, one in weights.items() if isinstance(one, torch.Tensor)}
    if not tensors:
        raise ConfigError(f"there are no pickled weights in {folder}")
    copy.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_file() and path.suffix in {".json", ".txt", ".model"} and ".bin.index" not in path.name:
            shutil.copyfile(path, copy / path.name)
    save_file({key: one.contiguous() for key, one in tensors.items()}, copy / "model.safetensors", {"format": "pt"})
    return len(tensors)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write a copy of a model whose pickled weights are in safetensors.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("copy", type=Path)
    given = parser.parse_args()
    try:
        count = convert(given.folder, given.copy)
    except Exception as error:  # noqa: BLE001  torch and pickle raise what they like
        sys.exit(f"{given.folder} cannot be converted: {describe_fault(error)}")
    sys.stdout.write(f"{count} tensors written to {given.copy / 'model.safetensors'}\n")
