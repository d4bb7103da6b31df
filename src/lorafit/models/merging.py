"""Go on from an adapter: merged into its base, it is an encoder with a head like any other."""

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorafit.errors import ConfigError
from lorafit.models.adaptation import merge_adapter
from lorafit.models.adapters import (
    WEIGHTS,
    is_of_adapterhub,
    load_adapter,
    read_adapter_weights,
    read_settings,
)
from lorafit.models.cache import make_once
from lorafit.models.classifiers import load_classifier
from lorafit.models.quiet import quiet_transformers
from lorafit.models.vetting import opening, read_config
from lorafit.models.weights import LABELS, SETTINGS
from lorafit.system.atomic import compute_digest

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
_OUTPUT = re.compile(r"(?:^|\.)(?:classifier|score|classifier\.out_proj)\.weight$")
"""Names of the weights whose rows are the outputs, in adapters that save their head."""


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds a PEFT adapter."""
    return (folder / SETTINGS).is_file()


def read_base(folder: Path) -> tuple[str, str | None]:
    """Read which model an adapter belongs to.

    Args:
        folder: The adapter's folder.

    Returns:
        Folder or Hub id of its base, and the revision on the Hub.

    Raises:
        ConfigError: The folder is not a complete adapter, or does not name its base.
    """
    settings = read_settings(folder)
    base = settings.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ConfigError(f"{folder / SETTINGS} does not name its base: base_model_name_or_path is {base!r}.")
    return base, settings.get("revision")


def merge_into_base(folder: Path, base: Path, base_digest: str) -> Path:
    """Merge an adapter into its base, once, in lorafit's cache.

    Args:
        folder: The adapter's folder; its own labels and tokenizer are used where it has them.
        base: Folder of its base, in the Hub's layout.
        base_digest: SHA-256 of the base's weights.

    Returns:
        A folder with a plain model, head and label names included.

    Raises:
        ConfigError: It is not an adapter of a text classifier with this base, or of a kind that cannot be merged.
    """
    if is_of_adapterhub(read_settings(folder)):
        raise ConfigError(
            f"Training cannot go on from the adapter in {folder}: bottleneck adapters cannot be merged into a base. "
            "Train on the base itself, or go on from a run of another method."
        )
    files = [folder / name for name in (SETTINGS, WEIGHTS, f"{LABELS}/config.json", *_TOKENIZER)]
    digests = [compute_digest(path) if path.is_file() else None for path in files]
    settings = read_settings(folder)
    settings = {
        key: value for key, value in settings.items() if key != "base_model_name_or_path"
    }  # a place, no content
    key = hashlib.sha256(json.dumps([1, base_digest, settings, digests[1:]]).encode()).hexdigest()[:16]

    def fill(copy: Path) -> None:
        merged: Any = merge_adapter(_load(folder, base))
        with quiet_transformers():
            merged.save_pretrained(copy)
        source = folder if (folder / _TOKENIZER[0]).is_file() else base
        for path in (source / name for name in _TOKENIZER):
            if path.is_file():
                shutil.copyfile(path, copy / path.name)

    return make_once(f"merged-{key}", fill)


def _load(folder: Path, base: Path) -> "PeftModel | PreTrainedModel":
    """Load an adapter onto its base."""
    import torch
    from transformers import AutoConfig

    outputs = [tensor.shape[0] for name, tensor in read_adapter_weights(folder).items() if _OUTPUT.search(name)]
    has_labels = (folder / LABELS / "config.json").is_file()
    named = folder / LABELS if has_labels else base
    read_config(named)
    what = f"The adapter in {folder} cannot be loaded onto its base"
    with opening(what), torch.random.fork_rng(devices=[]):
        config = AutoConfig.from_pretrained(named, trust_remote_code=False, local_files_only=True)
        if not has_labels and outputs and outputs[-1] != config.num_labels:
            config.num_labels = outputs[-1]  # its labels get numbers for names
        model, _ = load_classifier(base, config, str(base))
    adapted = load_adapter(model, folder)
    kind: Any = adapted.active_peft_config
    if kind.is_prompt_learning:
        raise ConfigError(
            f"Training cannot go on from the adapter in {folder}: {kind.peft_type.value} cannot be merged into its "
            "base. Train on the base itself, or go on from a run of another method."
        )
    return adapted
