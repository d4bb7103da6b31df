"""PEFT's configs, built from the method section: how a row of the methods' table puts its method on a model."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorafit.config import MethodConfig
from lorafit.errors import ConfigError

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Site:
    """Where a method is put.

    Attributes:
        model: The encoder with its head.
        targets: Full names of the modules that are adapted; empty where the method adapts none by name.
        down: Those of them that end a feed-forward network.
        head: Full names of the modules that are trained in full.
    """

    model: "PreTrainedModel"
    targets: Sequence[str]
    down: Sequence[str]
    head: Sequence[str]


Build = Callable[[MethodConfig, Site], "PeftConfig"]
"""Turns settings and place into a config."""


def build_lora(**variant: Any) -> Build:
    """Return what builds LoRA's config, with these arguments of a variant."""

    def build(settings: MethodConfig, site: Site) -> "PeftConfig":
        lora = settings.model_dump(include={"r", "lora_alpha", "lora_dropout"})
        return _peft("LoraConfig")(**_common(settings, site), **lora, **variant)

    return build


def build_adalora(settings: MethodConfig, site: Site) -> "PeftConfig":
    """Build AdaLoRA's config: it begins with half as many ranks again as it ends with."""
    rank = settings.r or 0
    return _peft("AdaLoraConfig")(
        **_common(settings, site),
        **settings.model_dump(include={"lora_alpha", "lora_dropout"}),
        target_r=rank,
        init_r=rank + max(1, rank // 2),
        total_step=1,  # the schedule is known when training begins
    )


def build_ranked(name: str, *, alpha: str | None = None) -> Build:
    """Return what builds the config of a method with `r` and, where it scales by one, an alpha of that name."""

    def build(settings: MethodConfig, site: Site) -> "PeftConfig":
        scale = {} if alpha is None else {alpha: settings.lora_alpha}
        return _peft(name)(**_common(settings, site), r=settings.r, **scale)

    return build


def build_plain(name: str, **fixed: Any) -> Build:
    """Return what builds the config of a method with neither; these arguments are its own."""

    def build(settings: MethodConfig, site: Site) -> "PeftConfig":
        return _peft(name)(**{**fixed, **_common(settings, site)})

    return build


def build_divided(name: str, setting: str, *, at_most: int, **fixed: Any) -> Build:
    """Return what builds the config of a method whose `setting` has to divide the sizes of all layers."""

    def build(settings: MethodConfig, site: Site) -> "PeftConfig":
        layers: list[Any] = [site.model.get_submodule(target) for target in site.targets]
        common = math.gcd(*(size for layer in layers for size in (layer.in_features, layer.out_features)))
        size = max(part for part in range(1, at_most + 1) if common % part == 0)
        rank = {} if settings.r is None else {"r": settings.r}
        return _peft(name)(**{**fixed, setting: size, **rank, **_common(settings, site)})

    return build


def build_ia3(settings: MethodConfig, site: Site) -> "PeftConfig":
    """Build IA3's config."""
    return _peft("IA3Config")(**_common(settings, site), feedforward_modules=list(site.down))


def build_prompt(name: str) -> Build:
    """Return what builds the config of a method that learns tokens before the text."""

    def build(settings: MethodConfig, site: Site) -> "PeftConfig":
        config = site.model.config
        common = _common(settings, site)
        del common["target_modules"]
        return _peft(name)(
            **common,
            num_virtual_tokens=settings.virtual_tokens,
            token_dim=site.model.get_input_embeddings().embedding_dim,
            num_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
        )

    return build


def _common(settings: MethodConfig, site: Site) -> dict[str, Any]:
    return {
        "task_type": "SEQ_CLS",
        "target_modules": list(site.targets),
        "modules_to_save": list(site.head),
        **settings.options,
    }


def _peft(name: str) -> "Callable[..., PeftConfig]":
    import peft

    config: Callable[..., PeftConfig] | None = getattr(peft, name, None)
    if config is None:
        raise ConfigError(f"PEFT {peft.__version__} has no {name}: pip install --upgrade peft")
    return config
