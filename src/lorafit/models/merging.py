"""Go on from an adapter: merged into its base, it is an encoder with a head like any other."""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from lorafit.errors import ConfigError
from lorafit.models.adaptation import merge_adapter
from lorafit.models.cache import make_once
from lorafit.models.quiet import quiet_transformers
from lorafit.system.atomic import compute_digest

if TYPE_CHECKING:
    from peft import PeftModel

_SETTINGS = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_LABELS = "labels"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
_OUTPUT = re.compile(r"(?:^|\.)(?:classifier|score|classifier\.out_proj)\.weight$")
"""Names of the weights whose rows are the outputs, in adapters that save their head."""


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds a PEFT adapter."""
    return (folder / _SETTINGS).is_file()


def read_base(folder: Path) -> tuple[str, str | None]:
    """Read which model an adapter belongs to.

    Args:
        folder: The adapter's folder.

    Returns:
        Folder or Hub id of its base, and the revision on the Hub.

    Raises:
        ConfigError: The folder is not a complete adapter, or does not name its base.
    """
    settings = _read_settings(folder)
    if not (folder / _WEIGHTS).is_file():
        raise ConfigError(f"{folder} is an adapter without {_WEIGHTS}: save it again with PEFT's save_pretrained.")
    base = settings.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ConfigError(f"{folder / _SETTINGS} does not name its base: base_model_name_or_path is {base!r}.")
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
    files = [folder / name for name in (_SETTINGS, _WEIGHTS, f"{_LABELS}/config.json", *_TOKENIZER)]
    digests = [compute_digest(path) if path.is_file() else None for path in files]
    settings = _read_settings(folder)
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


def _read_settings(folder: Path) -> dict[str, Any]:
    path = folder / _SETTINGS
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is damaged: {error}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} is damaged: it holds no settings.")
    return settings


def _load(folder: Path, base: Path) -> "PeftModel":
    """Load an adapter onto its base with plain libraries; refuse one of which something would be left out."""
    import torch
    from peft import PeftModel, get_peft_model_state_dict
    from transformers import AutoConfig, AutoModelForSequenceClassification

    shapes = _read_shapes(folder / _WEIGHTS)
    options = {"trust_remote_code": False, "local_files_only": True}
    has_labels = (folder / _LABELS / "config.json").is_file()
    try:
        with quiet_transformers(), torch.random.fork_rng(devices=[]):
            config = AutoConfig.from_pretrained(folder / _LABELS if has_labels else base, **options)
            outputs = [shape[0] for name, shape in shapes.items() if _OUTPUT.search(name)]
            if not has_labels and outputs and outputs[-1] != config.num_labels:
                config.num_labels = outputs[-1]  # its labels get numbers for names
            model = AutoModelForSequenceClassification.from_pretrained(
                base,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # of a base with a head for other labels, which the adapter's replaces
                **options,
            )
            adapted: PeftModel = PeftModel.from_pretrained(model, folder, local_files_only=True)
    except Exception as error:  # peft, transformers and safetensors raise what they like
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(f"The adapter in {folder} cannot be loaded onto its base: {reason}") from error
    kind = adapted.active_peft_config
    if kind.is_prompt_learning:
        raise ConfigError(
            f"Training cannot go on from the adapter in {folder}: {kind.peft_type.value} cannot be merged into its "
            "base. Train on the base itself, or go on from a run of another method."
        )
    lost = sorted(set(shapes) - set(get_peft_model_state_dict(adapted, save_embedding_layers=False)))
    if lost:
        raise ConfigError(
            f"The adapter in {folder} is not one of a text classifier with this base: {len(lost)} of its "
            f"{len(shapes)} tensors have no place in it ({', '.join(lost[:2])}, …)."
        )
    return adapted


def _read_shapes(path: Path) -> Mapping[str, tuple[int, ...]]:
    try:
        with safe_open(path, framework="numpy") as weights:
            return {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118  no dict
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{path} is damaged: {error}") from error
