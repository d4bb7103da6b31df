"""The head that came with an encoder: kept where it was trained for the same labels, else made anew."""

import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lorafit.models.adaptation import base_of
from lorafit.models.architectures import find_head
from lorafit.tasks.base import Task
from lorafit.tasks.labels import list_labels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedModel

_NAMELESS = re.compile(r"LABEL_\d+")
"""What transformers calls a label that nobody named."""

_SHOWN = 5
"""How many labels a note names."""


def read_labels(folder: Path) -> tuple[str, ...]:
    """Read the labels that a model was trained for; none where nobody named them.

    Args:
        folder: Of the model, with its `config.json`.

    Returns:
        Their names, in order.
    """
    try:
        named = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("id2label")
    except (OSError, ValueError, AttributeError):
        return ()
    if not isinstance(named, dict) or not all(str(key).isdigit() for key in named):
        return ()
    names = tuple(str(named[key]) for key in sorted(named, key=int))
    return () if all(map(_NAMELESS.fullmatch, names)) else names


def is_for(labels: Sequence[str], task: Task) -> bool:
    """Return whether labels are those of a task, in its order; capitals make no difference."""
    return [name.casefold() for name in labels] == [name.casefold() for name in task.output_names]


def find_output(model: "PreTrainedModel") -> list[str]:
    """Return the names of the parameters of the layer whose outputs are the logits."""
    from torch import nn

    layers = (
        f"{head}.{inner}".rstrip(".")
        for head in find_head(model)
        for inner, module in model.get_submodule(head).named_modules()
        if isinstance(module, nn.Linear)
    )
    *_, last = layers
    return [f"{last}.{name}" for name, _ in model.get_submodule(last).named_parameters()]


def find_output_layer(model: "PreTrainedModel | PeftModel") -> "nn.Module":
    """Return the layer whose outputs are the logits: that of the model, or the one that PEFT trains in its place."""
    base = base_of(model)
    *_, last = (layer for head in find_head(base) for layer in _list_linears(base.get_submodule(head)))
    return last


def _list_linears(module: "nn.Module") -> "Iterator[nn.Module]":
    """Yield the linear layers in use, those that carry an adapter as one with it."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import ModulesToSaveWrapper
    from torch import nn

    if isinstance(module, ModulesToSaveWrapper):
        (active,) = module.active_adapters
        yield from _list_linears(module.modules_to_save[active])
    elif isinstance(module, nn.Linear | BaseTunerLayer):
        yield module
    else:
        for child in module.children():
            yield from _list_linears(child)


def draw_output(model: "PreTrainedModel", names: Collection[str], seed: int) -> None:
    """Draw the layer whose outputs are the logits anew, as transformers draws it.

    Args:
        model: The model, changed in place.
        names: From `find_output`.
        seed: Seed of its random weights.
    """
    import torch

    spread = getattr(model.config, "initializer_range", None) or 0.02
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in names:
            parameter = model.get_parameter(name)
            if name.endswith("bias"):
                parameter.zero_()
            else:
                parameter.normal_(std=spread, generator=generator)


def describe_new_head(name: str, labels: Sequence[str], task: Task) -> str:
    """Say that a head was made anew.

    Args:
        name: The model, as the user named it.
        labels: Those that it was trained for, where they have names.
        task: What it is to be trained for.

    Returns:
        The note.
    """
    before = f" ({list_labels(labels, most=_SHOWN)})" if labels else ""
    own = list_labels(task.output_names, most=_SHOWN)
    return f"{name}: its head was trained for other labels{before} than {own} and is made anew"
