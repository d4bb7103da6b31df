"""The methods of adaptation: one table, a row a method."""

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorafit.artifacts import ParameterCounts
from lorafit.config import MethodConfig
from lorafit.encoders.architectures import find_head, find_targets
from lorafit.encoders.load import quiet_transformers
from lorafit.errors import ConfigError

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel

__all__ = ["METHODS", "AdaptedModel", "Method", "apply_method", "count_parameters", "find_method"]


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Attributes:
        name: As in `method.name`.
        title: Its name in prose.
        paper: Where it was introduced.
        build_config: Turns the settings, the target modules and the head into PEFT's config.
        adapted_marker: Attribute that PEFT gives each adapted module; they are counted by it.
    """

    name: str
    title: str
    paper: str
    build_config: Callable[[MethodConfig, Sequence[str], Sequence[str]], "PeftConfig"]
    adapted_marker: str


@dataclass(frozen=True)
class AdaptedModel:
    """A model with an adapter on it.

    Attributes:
        model: PEFT's model: the base frozen, adapter and head trainable.
        targets: Modules that carry the adapter, by full name.
        head: Modules that are trained in full, by full name.
    """

    model: "PeftModel"
    targets: tuple[str, ...]
    head: tuple[str, ...]


def _build_lora(config: MethodConfig, targets: Sequence[str], head: Sequence[str]) -> "PeftConfig":
    from peft import LoraConfig, TaskType

    return LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=config.r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=list(targets),
        modules_to_save=list(head),
    )


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="lora",
            title="LoRA",
            paper="Hu et al. 2021, arXiv:2106.09685",
            build_config=_build_lora,
            adapted_marker="lora_A",
        ),
    )
}
"""Every method by name."""


def find_method(name: str) -> Method:
    """Look a method up.

    Args:
        name: As in `method.name`.

    Returns:
        Its row of the table.

    Raises:
        ConfigError: There is no such method; the nearest names are given.
    """
    if name in METHODS:
        return METHODS[name]
    nearest = difflib.get_close_matches(name, METHODS, n=3) or sorted(METHODS)
    raise ConfigError(f"method.name: there is no method {name!r}. Did you mean: {', '.join(nearest)}?")


def apply_method(
    model: "PreTrainedModel", config: MethodConfig, *, newly_initialised: Iterable[str] = (), seed: int = 0
) -> AdaptedModel:
    """Put an adapter on a model, freeze the base, and leave the head trainable.

    Args:
        model: The encoder with its head; changed in place.
        config: The method and its settings.
        newly_initialised: Parameters that the pre-trained weights did not have; their modules are trained.
        seed: Seed of the adapter's random weights.

    Returns:
        The adapted model.

    Raises:
        ConfigError: The method is unknown, the targets match nothing, or `r` is larger than a layer.
    """
    import torch
    from peft import get_peft_model

    method = find_method(config.name)
    targets = find_targets(model, config.target_modules, layers=config.layers)
    head = find_head(model, newly_initialised)
    _check_rank(model, targets, config.r)
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(seed)
        adapted = get_peft_model(model, method.build_config(config, targets, head))
    _check_adapted(adapted, method, targets)
    return AdaptedModel(model=adapted, targets=tuple(targets), head=tuple(head))


def count_parameters(model: "PeftModel") -> ParameterCounts:
    """Count what is trained and what there is.

    Args:
        model: A model from `apply_method`.

    Returns:
        Parameters of the adapter, of the head and of the whole model; the head's frozen copy counts once.
    """
    adapter = head = total = 0
    for name, parameter in model.named_parameters():
        if "original_module." in name:
            continue
        total += parameter.numel()
        if "modules_to_save." in name:
            head += parameter.numel()
        elif parameter.requires_grad:
            adapter += parameter.numel()
    return ParameterCounts(adapter=adapter, head=head, total=total)


def _check_rank(model: "PreTrainedModel", targets: Sequence[str], rank: int) -> None:
    for name in targets:
        module: Any = model.get_submodule(name)
        smallest = min(module.in_features, module.out_features)
        if rank > smallest:
            raise ConfigError(f"method.r={rank} is larger than the layer {name} allows (at most {smallest}).")


def _check_adapted(model: "PeftModel", method: Method, targets: Sequence[str]) -> None:
    base: Any = model.base_model.model
    adapted = [name for name, module in base.named_modules() if hasattr(module, method.adapted_marker)]
    if adapted != list(targets):
        raise ConfigError(
            f"{method.title} should adapt {len(targets)} modules, but {len(adapted)} carry an adapter "
            f"(differing: {sorted(set(adapted) ^ set(targets))[:5]})."
        )
