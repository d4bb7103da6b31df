"""Bottleneck adapters: small networks inside an encoder's layers, saved as AdapterHub's `adapters` library saves them.

A layer computes f = feed_forward(x) and then norm(f + x). An adapter A is put behind f, so that the norm reads
f + A(f) + x (Houlsby et al. 2019, who put one behind attention, too); behind the norm, which then reads
f + A(norm(f + x)) + x (Pfeiffer et al. 2020); or beside the feed-forward network, f + A(x) + x (He et al. 2021).
PyTorch's forward hooks put it there, so no module of the encoder is replaced, and every parameter has the name that
`adapters` gives it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from torch import Tensor, nn

from lorafit.errors import ConfigError
from lorafit.models.architectures import ARCHITECTURES, AdapterPlaces, Architecture, BlockParts
from lorafit.models.methods import METHODS, Bottleneck
from lorafit.models.vetting import check_place
from lorafit.models.weights import SETTINGS, check_tensors, read_tensors
from lorafit.system.files import read_object

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WEIGHTS: Final = "adapter.safetensors"
HEAD_SETTINGS: Final = "head_config.json"
HEAD_WEIGHTS: Final = "model_head.safetensors"

_NAME = "lorafit"
_FORMAT = "adapters.1.3.0"
_ACTIVATIONS: Mapping[str, type[nn.Module]] = {"relu": nn.ReLU, "swish": nn.SiLU}
_DEVIATION = 0.02
"""Standard deviation of the first weights, as in BERT."""


class BottleneckAdapter(nn.Module):
    """Narrows what it reads, applies a function, widens it again, and scales it; `adapters` names its children so."""

    def __init__(self, width: int, narrow: int, shape: Bottleneck) -> None:
        super().__init__()
        down = nn.Linear(width, narrow)
        self.adapter_down = nn.Sequential(down, _ACTIVATIONS[shape.activation]())
        self.adapter_up = nn.Linear(narrow, width)
        self._scaling = shape.scaling
        for layer in (down, self.adapter_up):
            nn.init.normal_(layer.weight, std=_DEVIATION)
            nn.init.zeros_(layer.bias)
        if shape.reads == "input":
            nn.init.zeros_(self.adapter_up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Compute what is added to the layer's own output; of the same shape as x, (…, width)."""
        up: Tensor = self.adapter_up(self.adapter_down(x))
        return up * self._scaling


@dataclass(frozen=True, eq=False)
class _Behind:
    """Adds A(f) to the output f of a module."""

    adapter: BottleneckAdapter

    def __call__(self, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        total: Tensor = output + self.adapter(output)
        return total


@dataclass(frozen=True, eq=False)
class _AroundNorm:
    """Lets a norm read its own output through A, too: norm(s + A(norm(s)))."""

    adapter: BottleneckAdapter

    def __call__(self, norm: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        normed: Tensor = norm.forward(inputs[0] + self.adapter(output))
        return normed


@dataclass(frozen=True, eq=False)
class _Beside:
    """Adds A(x) to what a module makes of x."""

    adapter: BottleneckAdapter

    def __call__(self, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        total: Tensor = output + self.adapter(inputs[0])
        return total


@dataclass(frozen=True, eq=False)
class _BesideResidual:
    """Adds A(x) to the residual x that a module adds to its own output."""

    adapter: BottleneckAdapter

    def __call__(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, x = inputs
        return hidden, x + self.adapter(x)


def put_bottlenecks(
    model: "PreTrainedModel", method: str, *, reduction_factor: int, top: int | None = None
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Put adapters into the layers of an encoder; nothing else of the model changes.

    Args:
        model: The encoder with its head; changed in place.
        method: The name of a row of METHODS with a bottleneck.
        reduction_factor: How many times narrower than the encoder the adapters are.
        top: In how many of the last layers; None for all.

    Returns:
        The full names of the adapters, and the settings of them in AdapterHub's words.

    Raises:
        ConfigError: The architecture is not one that `adapters` knows in the same form, or the factor is too large.
    """
    architecture, places, parts = _find_places(model, METHODS[method].title)
    layers, width = architecture.name_layers(model), int(model.config.hidden_size)
    if reduction_factor > width:
        raise ConfigError(f"method.reduction_factor={reduction_factor}: this encoder is no more than {width} wide.")
    if top is not None and top > len(layers):
        raise ConfigError(f"method.layers=top{top}, but this encoder has {len(layers)} layers.")
    left_out = list(range(len(layers) - (len(layers) if top is None else top)))
    shape = _shape_of(method)
    for index, name in enumerate(layers):
        if index not in left_out:
            _put_into(model.get_submodule(name), shape, architecture, places, parts, width, width // reduction_factor)
    return list_bottlenecks(model), _write_shape(shape, reduction_factor, left_out)


def list_bottlenecks(model: nn.Module) -> tuple[str, ...]:
    """Return the full names of the bottleneck adapters in a model, or in a part of it."""
    return tuple(name for name, module in model.named_modules() if isinstance(module, BottleneckAdapter))


def save_bottlenecks(
    model: "PreTrainedModel",
    folder: Path,
    settings: Mapping[str, Any],
    *,
    head: Sequence[str],
    base: str,
    revision: str | None,
) -> None:
    """Write adapters and head as `adapters` does, for `model.load_adapter(folder)` of a model of the same class.

    Args:
        model: The trained model.
        folder: An existing folder.
        settings: From `put_bottlenecks`.
        head: Modules of the head, by full name.
        base: Hub id or folder of the base.
        revision: Its revision on the Hub.
    """
    from safetensors.torch import save_file

    common = {
        "hidden_size": model.config.hidden_size,
        "model_class": type(model).__name__,
        "model_name": base,
        "model_type": model.config.model_type,
        "version": _FORMAT,
    }
    own = {"base_model_name_or_path": base, "revision": revision}  # where lorafit looks for it; no word of AdapterHub's
    labels = {"label2id": model.config.label2id, "num_labels": model.config.num_labels}
    files = {
        SETTINGS: {**common, **own, "name": _NAME, "config": dict(settings)},
        HEAD_SETTINGS: {**common, **labels, "name": None, "config": None},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    state = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    adapters = list_bottlenecks(model)
    save_file(_select(state, adapters), folder / WEIGHTS, metadata={"format": "pt"})
    save_file(_select(state, head), folder / HEAD_WEIGHTS, metadata={"format": "pt"})


def load_bottlenecks(model: "PreTrainedModel", folder: Path) -> "PreTrainedModel":
    """Put saved adapters and their head into a base.

    Args:
        model: The base with a head for the adapter's labels; changed in place.
        folder: The adapter's folder.

    Returns:
        The model in evaluation mode, nothing of it trainable.

    Raises:
        ConfigError: The settings are not those of a method of lorafit, or the tensors are not those which the settings
            and the base ask for.
    """
    check_place(folder)
    settings = read_object(folder / SETTINGS, ConfigError)
    method, reduction_factor, left_out = _read_shape(settings.get("config"), folder / SETTINGS)
    layers = _find_places(model, METHODS[method].title)[0].name_layers(model)
    adapters, _ = put_bottlenecks(model, method, reduction_factor=reduction_factor, top=len(layers) - left_out)
    state = dict(model.state_dict())
    found = read_tensors(folder / WEIGHTS)
    check_tensors(found, _select(state, adapters), folder / WEIGHTS)
    head = read_tensors(folder / HEAD_WEIGHTS)
    wanted = {
        name: tensor
        for name, tensor in state.items()
        if not name.startswith(f"{model.base_model_prefix}.") or (".pooler." in name and name in head)
    }
    check_tensors(head, wanted, folder / HEAD_WEIGHTS)
    model.load_state_dict({**found, **head}, strict=False)
    model.requires_grad_(requires_grad=False)
    opened: Any = model
    opened.train(mode=False)
    return model


def _find_places(model: "PreTrainedModel", title: str) -> tuple[Architecture, AdapterPlaces, BlockParts]:
    architecture = ARCHITECTURES.get(model.config.model_type)
    if architecture is None or architecture.adapters is None or architecture.block is None:
        known = ", ".join(name for name, row in ARCHITECTURES.items() if row.adapters is not None)
        raise ConfigError(
            f"{title} adapters cannot be put into a {model.config.model_type} encoder: they are saved for the adapters "
            f"library, which knows them in the same form for {known}. Take another method, for example lora."
        )
    return architecture, architecture.adapters, architecture.block


def _put_into(
    layer: nn.Module,
    shape: Bottleneck,
    architecture: Architecture,
    places: AdapterPlaces,
    parts: BlockParts,
    width: int,
    narrow: int,
) -> None:
    """Put the adapters of one layer into it."""
    if shape.in_attention:
        adapter = _add(layer, places.attention, BottleneckAdapter(width, narrow, shape))
        layer.get_submodule(architecture.attention[-1]).register_forward_hook(_Behind(adapter))
    adapter = _add(layer, places.output, BottleneckAdapter(width, narrow, shape))
    if shape.reads == "output":
        layer.get_submodule(architecture.feed_forward[-1]).register_forward_hook(_Behind(adapter))
    elif shape.reads == "norm":
        layer.get_submodule(parts.output_norm).register_forward_hook(_AroundNorm(adapter))
    elif places.adds_residual:
        layer.get_submodule(places.feed_forward).register_forward_pre_hook(_BesideResidual(adapter))
    else:
        layer.get_submodule(places.feed_forward).register_forward_hook(_Beside(adapter))


def _add(layer: nn.Module, place: str, adapter: BottleneckAdapter) -> BottleneckAdapter:
    """Register an adapter where `adapters` keeps it, so that it has the same name there."""
    above, _, last = place.rpartition(".")
    owner = layer.get_submodule(above)
    if not hasattr(owner, last):
        owner.add_module(last, nn.Module())
    owner.get_submodule(last).add_module("adapters", nn.ModuleDict({_NAME: adapter}))
    return adapter


def _select(state: Mapping[str, Tensor], modules: Sequence[str]) -> dict[str, Tensor]:
    """Return the tensors of these modules."""
    return {name: tensor for name, tensor in state.items() if name.startswith(tuple(f"{one}." for one in modules))}


def _shape_of(method: str) -> Bottleneck:
    shape = METHODS[method].bottleneck
    if shape is None:
        raise ConfigError(f"method.name={method}: it puts no bottleneck adapters into a model.")
    return shape


def _write_shape(shape: Bottleneck, reduction_factor: int, left_out: Sequence[int]) -> dict[str, Any]:
    """Return the settings of adapters in AdapterHub's words."""
    return {
        "mh_adapter": shape.in_attention,
        "output_adapter": True,
        "reduction_factor": reduction_factor,
        "non_linearity": shape.activation,
        "original_ln_before": shape.reads == "norm",
        "original_ln_after": True,
        "residual_before_ln": True,
        "is_parallel": shape.reads == "input",
        "scaling": shape.scaling,
        "dropout": 0.0,
        "leave_out": list(left_out),
    }


def _read_shape(settings: object, path: Path) -> tuple[str, int, int]:
    """Return the method, the reduction factor, and how many of the lowest layers have no adapter."""
    given: dict[str, Any] = settings if isinstance(settings, dict) else {}
    factor, left_out = given.get("reduction_factor"), given.get("leave_out")
    if isinstance(factor, int) and factor >= 1 and isinstance(left_out, list):
        for name, method in METHODS.items():
            lowest = list(range(len(left_out)))
            if method.bottleneck is not None and given == _write_shape(method.bottleneck, factor, lowest):
                return name, factor, len(left_out)
    known = ", ".join(name for name, method in METHODS.items() if method.bottleneck is not None)
    raise ConfigError(
        f"{path} is not one that lorafit wrote for a method of {known}; it opens no other of AdapterHub's."
    )
