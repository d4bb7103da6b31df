"""Open a saved adapter: its settings and tensors are checked one by one before PEFT gets them.

PEFT takes settings as patterns to search with, as sizes to reserve and as names of modules to import. Here a setting is
a number, a plain name, or a list of them, and every tensor must have its place.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lorafit.errors import ConfigError
from lorafit.models.pickled import find_pickled
from lorafit.models.quiet import leave_sparse_tensors_unchecked
from lorafit.models.vetting import check_place, opening
from lorafit.models.weights import SETTINGS, check_tensors, read_tensors
from lorafit.system.files import read_object
from lorafit.system.limits import ADAPTER_NAMES, ADAPTER_SIZE
from lorafit.system.text import clean_text

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel

WEIGHTS: Final = "adapter_model.safetensors"

PEFT_TYPES: Final = frozenset(
    {
        *("LORA", "ADALORA", "LOHA", "LOKR", "OFT", "BOFT", "VERA", "RANDLORA", "FOURIERFT", "IA3", "LN_TUNING"),
        *("MISS", "HRA", "SHIRA", "ROAD", "C3A", "VBLORA", "DELORA", "GRALORA", "HIRA", "WAVEFT"),
        *("GLORA", "PEANUT", "PSOFT", "UNILORA", "BEFT", "PVERA", "ADAMSS", "DEFT", "FROD", "TINYLORA"),
        *("SUPERTUNING", "PROMPT_TUNING", "P_TUNING"),
    }
)
"""Kinds of adapters that lorafit's methods train."""

_UNUSED: Final = frozenset(
    {
        *("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_type", "peft_version", "revision"),
        *("prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_kwargs", "tokenizer_name_or_path"),
    }
)
"""Settings that mean nothing for a saved adapter on a model that is loaded already; PEFT does not get them."""

_NAME: Final = re.compile(r"[\w.-]*")
_SIZE: Final = re.compile(r"(?:^|_)r$|rank|size|dim|num_|tokens|layers")


def load_adapter(model: "PreTrainedModel", folder: Path) -> "PeftModel | PreTrainedModel":
    """Load an adapter onto its base.

    Args:
        model: The base with a head for the adapter's labels; changed in place.
        folder: The adapter's folder.

    Returns:
        The model in evaluation mode, nothing of it trainable.

    Raises:
        ConfigError: The folder holds a pickle, settings that are no plain values or too large, or tensors that are not
            those which the settings and the base ask for.
    """
    from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    settings = read_settings(folder)
    if is_of_adapterhub(settings):
        from lorafit.models.bottleneck import load_bottlenecks

        return load_bottlenecks(model, folder)
    tensors = read_adapter_weights(folder)
    what = f"The adapter in {folder} cannot be loaded onto its base"
    config = _build_config(settings, folder, what, width=getattr(model.config, "hidden_size", None) or 0)
    leave_sparse_tensors_unchecked()
    with opening(what):
        adapted: PeftModel = get_peft_model(model, config)
        check_tensors(tensors, get_peft_model_state_dict(adapted, save_embedding_layers=False), folder / WEIGHTS)
        set_peft_model_state_dict(adapted, tensors)
    return adapted.eval()


def is_of_adapterhub(settings: Mapping[str, Any]) -> bool:
    """Return whether an `adapter_config.json` is one of AdapterHub's `adapters` library, and not PEFT's."""
    return "peft_type" not in settings and isinstance(settings.get("config"), dict)


def read_settings(folder: Path) -> dict[str, Any]:
    """Read an adapter's settings, and refuse a folder that comes with a pickle.

    Args:
        folder: The adapter's folder.

    Returns:
        The fields of `adapter_config.json`.

    Raises:
        ConfigError: They are damaged, or there is a pickle.
    """
    check_place(folder)
    if pickled := [*sorted(folder.glob("adapter_model*.bin")), *find_pickled(folder)]:
        raise ConfigError(
            f"{folder} holds {pickled[0].name}, a pickle, which can run code: lorafit opens no adapter that comes with "
            f"one. Remove it if {WEIGHTS} is the same in safetensors; else let its author save that."
        )
    return read_object(folder / SETTINGS, ConfigError)


def read_adapter_weights(folder: Path) -> dict[str, "torch.Tensor"]:
    """Read an adapter's tensors.

    Args:
        folder: The adapter's folder.

    Returns:
        They by name.

    Raises:
        ConfigError: They are missing, damaged, or not finite.
    """
    if not (folder / WEIGHTS).is_file():
        raise ConfigError(f"{folder} is an adapter without {WEIGHTS}: save it again with PEFT's save_pretrained.")
    return read_tensors(folder / WEIGHTS)


def _build_config(settings: Mapping[str, Any], folder: Path, what: str, *, width: int) -> "PeftConfig":
    """Return PEFT's config of checked settings."""
    import peft
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftType

    kind = settings.get("peft_type")
    if not isinstance(kind, str) or kind not in PEFT_TYPES:
        raise ConfigError(
            f"{what}: its peft_type is {clean_text(repr(kind), most=80)}, and lorafit loads "
            f"{', '.join(sorted(PEFT_TYPES))}."
        )
    if settings.get("task_type") not in ("SEQ_CLS", None):
        raise ConfigError(
            f"{what}: it is not one of a text classifier, but of {clean_text(repr(settings['task_type']), most=80)}."
        )
    if kind not in PeftType.__members__:
        raise ConfigError(f"{what}: PEFT {peft.__version__} has no {kind} yet: pip install --upgrade peft")
    built: type[PeftConfig] = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)]
    known = {field.name for field in fields(built)}
    kept = {name: value for name, value in settings.items() if name not in _UNUSED}
    for name, value in kept.items():
        if name not in known and value:
            raise ConfigError(f"{what}: PEFT has no setting {clean_text(name, most=80)!r} of {kind}.")
        _check_setting(name, value, folder / SETTINGS, width)
    with opening(what):
        config = built(**{name: value for name, value in kept.items() if name in known})
    config.inference_mode = True
    return config


def _check_setting(name: str, value: object, path: Path, width: int) -> None:
    """Refuse a setting that is no plain value, or is far beyond the base's own sizes."""
    begin = f"{path}: {clean_text(name, most=80)}"
    if value and (name == "layer_replication" or (isinstance(value, dict) and not name.endswith("_pattern"))):
        raise ConfigError(f"{begin} changes more than an adapter may; lorafit takes none with it.")
    if isinstance(value, list | dict):
        ADAPTER_NAMES.check(len(value), f"{begin} has {len(value):,}", ConfigError)
    for one in _list_values(value):
        if isinstance(one, str) and not _NAME.fullmatch(one):
            raise ConfigError(
                f"{begin} holds {clean_text(repr(one), most=80)}, which is no plain name. lorafit searches with no "
                "pattern of others: write the names of the modules as a list."
            )
        if isinstance(one, int | float) and _SIZE.search(name) and one > width:
            ADAPTER_SIZE.check(int(min(one, 10**18)), f"{begin} is {one:,}", ConfigError)


def _list_values(value: object) -> Iterator[object]:
    """Yield a value, or those in lists and dictionaries, the names of these included."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield key
            yield from _list_values(one)
    elif isinstance(value, list):
        for one in value:
            yield from _list_values(one)
    else:
        yield value
