"""Puts a method on a model: what is trained, what is frozen, and what there is of both."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from lorafit.config import MethodConfig
from lorafit.errors import ConfigError
from lorafit.models.architectures import ARCHITECTURES, find_head, find_norms, find_targets
from lorafit.models.method_settings import complete_method
from lorafit.models.methods import METHODS, Method, find_method
from lorafit.models.peft_configs import Site
from lorafit.models.quiet import leave_sparse_tensors_unchecked, quiet_transformers
from lorafit.models.records import ParameterCounts

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class AdaptedModel:
    """A model that a method was put on.

    Attributes:
        model: PEFT's model, the base frozen, adapter and head trainable; or the model itself where that is trained.
        targets: Modules that carry the adapter, by full name.
        head: Modules that are trained in full, by full name.
        bottleneck: The settings of bottleneck adapters in AdapterHub's words; None for other methods.
    """

    model: "PeftModel | PreTrainedModel"
    targets: tuple[str, ...]
    head: tuple[str, ...]
    bottleneck: Mapping[str, Any] | None = None

    @property
    def is_adapter(self) -> bool:
        """Whether an adapter was put on the model, instead of training the model itself."""
        from peft import PeftModel

        return self.bottleneck is not None or isinstance(self.model, PeftModel)

    def is_head(self, parameter: str) -> bool:
        """Return whether a parameter of `model`, by its name there, belongs to the head."""
        return "modules_to_save." in parameter or any(parameter.startswith(f"{part}.") for part in self.head)


def base_of(model: "PeftModel | PreTrainedModel") -> Any:  # noqa: ANN401 - transformers' models share no typed base
    """Return the encoder with its head, without PEFT's model around it."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model


def reads_token_types(model: "PeftModel | PreTrainedModel") -> bool:
    """Return whether a model tells the two texts of a pair apart by the types of their tokens.

    PEFT ignores these types where a method puts learned tokens before the text.
    """
    if any(config.is_prompt_learning for config in getattr(model, "peft_config", {}).values()):
        return False
    base = base_of(model)
    types = getattr(base.config, "type_vocab_size", None) or 0
    return types > 1 and "token_type_ids" in inspect.signature(base.forward).parameters


def apply_method(
    model: "PreTrainedModel", config: MethodConfig, *, newly_initialised: Iterable[str] = (), seed: int = 0
) -> AdaptedModel:
    """Put a method on a model: freeze what it does not train, and leave the head trainable.

    Args:
        model: The encoder with its head; changed in place.
        config: The method and its settings; what is not given is the method's own default.
        newly_initialised: Parameters that the pre-trained weights did not have; their modules are trained.
        seed: Seed of the adapter's random weights.

    Returns:
        The adapted model.

    Raises:
        ConfigError: The method is unknown or cannot adapt this encoder, the targets match nothing, or `r` is larger
            than a layer.
    """
    method, settings = find_method(config.name), complete_method(config)
    head = find_head(model, newly_initialised)
    _check_encoder(model, method)
    if method.bottleneck is not None:
        return _put_bottlenecks(model, settings, head, seed)
    if method.build is None:
        adapted = AdaptedModel(model=model, targets=(), head=tuple(head))
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(adapted.is_head(name) or (method.trains is not None and method.trains(name)))
        if method.trains is not None and count_parameters(adapted).adapter == 0:
            raise ConfigError(
                f"method.name={method.name}: this {model.config.model_type} encoder has nothing that {method.title} "
                f"trains ({method.adapts}). Take another method, for example lora or ln_tuning."
            )
        _keep_names(model)
        return adapted
    targets = _find_places(model, method, settings)
    site = Site(model=model, targets=targets, down=_ending_feed_forward(model, targets), head=head)
    return AdaptedModel(_wrap(method, partial(method.build, settings, site), site, seed), tuple(targets), tuple(head))


def _put_bottlenecks(model: "PreTrainedModel", settings: MethodConfig, head: Sequence[str], seed: int) -> AdaptedModel:
    import torch

    from lorafit.models.bottleneck import put_bottlenecks

    top = None if settings.layers == "all" else int(settings.layers.removeprefix("top"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        targets, written = put_bottlenecks(
            model, settings.name, reduction_factor=settings.reduction_factor or 1, top=top
        )
    trained = tuple(f"{name}." for name in (*targets, *head))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(trained))
    _keep_names(model)
    return AdaptedModel(model, targets, tuple(head), written)


def _keep_names(model: "PreTrainedModel") -> None:
    """Let checkpoints keep the names that the model has, not those of old files, which the Trainer would pass over."""
    loaded: Any = model
    loaded._weight_conversions = None  # noqa: SLF001 - transformers has no other way to say so


def count_parameters(adapted: AdaptedModel) -> ParameterCounts:
    """Count what is trained and what there is.

    Args:
        adapted: From `apply_method`.

    Returns:
        Parameters of the adapter (or of the encoder, as far as it is trained), of the head and of the whole model; the
        head's frozen copy counts once.
    """
    adapter = trained_head = total = 0
    for name, parameter in adapted.model.named_parameters():
        if "original_module." in name:
            continue
        total += parameter.numel()
        if adapted.is_head(name):
            trained_head += parameter.numel()
        elif parameter.requires_grad:
            adapter += parameter.numel()
    return ParameterCounts(adapter=adapter, head=trained_head, total=total)


def merge_adapter(model: "PeftModel | PreTrainedModel") -> "PreTrainedModel":
    """Merge an adapter into its base and take the trained head out of its wrapper.

    Args:
        model: What was trained, of a method that can be merged; it is not to be used afterwards.

    Returns:
        A plain model; one without an adapter as it is.
    """
    from peft import PeftModel
    from peft.utils.other import AuxiliaryTrainingWrapper

    if not isinstance(model, PeftModel):
        return model
    merged: PreTrainedModel = model.merge_and_unload(safe_merge=True)
    for name, module in list(merged.named_modules()):  # peft leaves a head that is trained beside norms in its wrapper
        if isinstance(module, AuxiliaryTrainingWrapper):
            whole = module.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None)
            merged.set_submodule(name, whole)
    return merged


def _find_places(model: "PreTrainedModel", method: Method, settings: MethodConfig) -> list[str]:
    if method.place == "nothing":
        return []
    if method.place == "norms":
        return find_norms(model)
    targets = find_targets(model, settings.target_modules or "all-linear", layers=settings.layers)
    if settings.r is not None:
        _check_rank(model, targets, settings.r, method)
    return targets


def _wrap(method: Method, build_config: Callable[[], "PeftConfig"], site: Site, seed: int) -> "PeftModel":
    import torch
    from peft import get_peft_model

    leave_sparse_tensors_unchecked()
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(seed)
        try:
            adapted: PeftModel = get_peft_model(site.model, build_config())
        except (ValueError, TypeError, RuntimeError) as error:  # what PEFT says of a layer or an option
            raise ConfigError(f"{method.title} cannot be put on this encoder: {error}") from error
    _check_adapted(adapted, method, site.targets)
    if method.frozen:
        for name, parameter in adapted.named_parameters():
            if method.frozen in name:
                parameter.requires_grad_(False)
    return adapted


def _ending_feed_forward(model: "PreTrainedModel", targets: Sequence[str]) -> list[str]:
    architecture = ARCHITECTURES.get(model.config.model_type)
    if architecture is None:
        return []
    ends = {f"{layer}.{architecture.feed_forward[-1]}" for layer in architecture.name_layers(model)}
    return [name for name in targets if name in ends]


def suits(method: Method, model_type: str) -> bool:
    """Tell whether a method can adapt what transformers calls by this name: some cannot adapt decoders."""
    architecture = ARCHITECTURES.get(model_type)
    return architecture is None or not architecture.is_decoder or "decoder" not in method.limits


def _check_encoder(model: "PreTrainedModel", method: Method) -> None:
    if not suits(method, model.config.model_type):
        others = ", ".join(name for name, row in METHODS.items() if "decoder" not in row.limits)
        raise ConfigError(
            f"method.name={method.name}: {method.title} cannot adapt a decoder such as this {model.config.model_type}, "
            f"whose head reads the last token. Methods that can: {others}."
        )


def _check_rank(model: "PreTrainedModel", targets: Sequence[str], rank: int, method: Method) -> None:
    if method.shares_matrices:
        return  # random matrices that all layers share may have more rows than a layer
    for name in targets:
        module: Any = model.get_submodule(name)
        smallest = min(module.in_features, module.out_features)
        if rank > smallest:
            raise ConfigError(f"method.r={rank} is larger than the layer {name} allows (at most {smallest}).")


def _check_adapted(model: "PeftModel", method: Method, targets: Sequence[str]) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer

    base: Any = model.get_base_model()
    adapted = [name for name, module in base.named_modules() if isinstance(module, BaseTunerLayer)]
    if adapted != list(targets):
        raise ConfigError(
            f"{method.title} should adapt {len(targets)} modules, but {len(adapted)} carry an adapter "
            f"(differing: {sorted(set(adapted) ^ set(targets))[:5]})."
        )
