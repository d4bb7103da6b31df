"""Which modules of an encoder carry adapters and which are the classification head.

Known architectures stand in a table. Any other encoder works too when its linear layers are named by the user; its head
is what lies outside the encoder itself.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lorafit.config import TargetGroup
from lorafit.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["ARCHITECTURES", "Architecture", "BlockParts", "disable_base_dropout", "find_head", "find_targets"]


@dataclass(frozen=True)
class BlockParts:
    """Names of the modules of one encoder block, from the block's point of view.

    Attributes:
        linears: Query, key, value and output of attention; first and second of the feed-forward network.
        attention_norm: The norm after attention and its residual.
        activation: The function between the two linear layers.
        output_norm: The norm after the feed-forward network and its residual.
    """

    linears: tuple[str, str, str, str, str, str]
    attention_norm: str
    activation: str
    output_norm: str


@dataclass(frozen=True)
class Architecture:
    """Names of the parts of one kind of encoder; linear layers are named from the encoder layer's point of view.

    Attributes:
        layers: Path of the list of encoder layers inside the model.
        query_value: The projections that LoRA's paper adapts.
        attention: All linear layers of self-attention.
        feed_forward: Linear layers of the feed-forward network.
        head: Top-level modules of the classification head.
        block: The parts of one block.
        base_dropout: Settings of the encoder's own dropout in the model's config; the head's is not among them.
    """

    layers: str
    query_value: tuple[str, ...]
    attention: tuple[str, ...]
    feed_forward: tuple[str, ...]
    head: tuple[str, ...]
    block: BlockParts
    base_dropout: tuple[str, ...]

    def group(self, name: TargetGroup) -> tuple[str, ...]:
        """Return the linear layers of a named group."""
        groups: dict[TargetGroup, tuple[str, ...]] = {
            "query-value": self.query_value,
            "attention": self.attention,
            "feed-forward": self.feed_forward,
            "all-linear": self.attention + self.feed_forward,
        }
        return groups[name]


ARCHITECTURES: dict[str, Architecture] = {
    "distilbert": Architecture(
        layers="distilbert.transformer.layer",
        query_value=("attention.q_lin", "attention.v_lin"),
        attention=("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"),
        feed_forward=("ffn.lin1", "ffn.lin2"),
        head=("pre_classifier", "classifier"),
        block=BlockParts(
            linears=(
                "attention.q_lin",
                "attention.k_lin",
                "attention.v_lin",
                "attention.out_lin",
                "ffn.lin1",
                "ffn.lin2",
            ),
            attention_norm="sa_layer_norm",
            activation="ffn.activation",
            output_norm="output_layer_norm",
        ),
        base_dropout=("dropout", "attention_dropout"),
    ),
    "bert": Architecture(
        layers="bert.encoder.layer",
        query_value=("attention.self.query", "attention.self.value"),
        attention=("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
        feed_forward=("intermediate.dense", "output.dense"),
        head=("classifier",),
        block=BlockParts(
            linears=(
                "attention.self.query",
                "attention.self.key",
                "attention.self.value",
                "attention.output.dense",
                "intermediate.dense",
                "output.dense",
            ),
            attention_norm="attention.output.LayerNorm",
            activation="intermediate.intermediate_act_fn",
            output_norm="output.LayerNorm",
        ),
        base_dropout=("hidden_dropout_prob", "attention_probs_dropout_prob"),
    ),
}
"""Known encoders by transformers' `model_type`."""


def find_targets(model: "PreTrainedModel", wanted: TargetGroup | list[str], *, layers: str = "all") -> list[str]:
    """Find the linear layers that get an adapter.

    Args:
        model: The encoder with its head.
        wanted: A named group (known architectures only), or names of linear layers: full, or their last parts.
        layers: `all`, or `top3` for those in the last three encoder layers (known architectures only).

    Returns:
        Full names of the modules, in the model's order.

    Raises:
        ConfigError: A name matches nothing, or a group or some layers are asked of an unknown architecture; the
            candidates are listed.
    """
    linears = _encoder_linears(model)
    found = _find_in_all_layers(model, linears, wanted)
    if layers == "all":
        return found
    top = _top_layers(model, int(layers.removeprefix("top")))
    within = [name for name in found if name.startswith(top)]
    if not within:
        raise ConfigError(f"method.layers={layers}: none of the modules in method.target_modules lies in these layers.")
    return within


def _find_in_all_layers(
    model: "PreTrainedModel", linears: dict[str, "nn.Module"], wanted: TargetGroup | list[str]
) -> list[str]:
    if not isinstance(wanted, str):
        return _match(linears, wanted, model)
    architecture = ARCHITECTURES.get(model.config.model_type)
    if architecture is None:
        raise ConfigError(
            f"method.target_modules={wanted!r} is not known for encoders of type {model.config.model_type!r} "
            f"(known: {', '.join(sorted(ARCHITECTURES))}). Name the linear layers yourself, for example "
            f"--set 'method.target_modules=[{', '.join(list(_last_parts(linears))[:2])}]'. "
            f"Candidates: {_candidates(linears)}."
        )
    parts = architecture.group(wanted)
    layers = len(model.get_submodule(architecture.layers))  # type: ignore[arg-type]  # a ModuleList has a length
    names = {f"{architecture.layers}.{layer}.{part}" for layer in range(layers) for part in parts}
    found = [name for name in linears if name in names]
    if len(found) != layers * len(parts):
        raise ConfigError(
            f"The encoder has {layers} layers, so {wanted!r} should match {layers * len(parts)} linear layers, but "
            f"{len(found)} were found. Candidates: {_candidates(linears)}."
        )
    return found


def _top_layers(model: "PreTrainedModel", count: int) -> tuple[str, ...]:
    """Return the prefixes of the module names in the last layers."""
    architecture = ARCHITECTURES.get(model.config.model_type)
    if architecture is None:
        raise ConfigError(
            f"method.layers=top{count} is not known for encoders of type {model.config.model_type!r} (known: "
            f"{', '.join(sorted(ARCHITECTURES))}). Name the modules yourself in method.target_modules."
        )
    layers = len(model.get_submodule(architecture.layers))  # type: ignore[arg-type]  # a ModuleList has a length
    if count > layers:
        raise ConfigError(f"method.layers=top{count}, but this encoder has {layers} layers.")
    return tuple(f"{architecture.layers}.{layer}." for layer in range(layers - count, layers))


def find_head(model: "PreTrainedModel", newly_initialised: Iterable[str] = ()) -> list[str]:
    """Find the modules of the classification head, which are trained in full.

    Args:
        model: The encoder with its head.
        newly_initialised: Names of parameters that the pre-trained weights did not have. What is random must be
            trained, so their modules join the head (for example BERT's pooler where a checkpoint lacks it).

    Returns:
        Full names of the modules, in the model's order, none inside another.
    """
    architecture = ARCHITECTURES.get(model.config.model_type)
    if architecture is not None:
        head = set(architecture.head)
    else:
        outside = (name for name, _ in model.named_children() if name != model.base_model_prefix)
        head = {name for name in outside if any(True for _ in model.get_submodule(name).parameters())}
    for parameter in newly_initialised:
        module = parameter.rpartition(".")[0]
        if not any(module == name or module.startswith(f"{name}.") for name in head):
            head.add(module)
    return [name for name, _ in model.named_modules() if name in head]


def disable_base_dropout(config: "PretrainedConfig") -> None:
    """Set the encoder's own dropout to zero in its config, before the model is built; the head keeps its own.

    A frozen encoder has nothing to regularise, and on a CPU the random masks cost up to half of the time.

    Args:
        config: The model's config, changed in place.
    """
    architecture = ARCHITECTURES.get(config.model_type)
    if architecture is not None:
        for name in architecture.base_dropout:
            setattr(config, name, 0.0)
        return
    for name, value in config.to_dict().items():
        is_rate = isinstance(value, float) and "dropout" in name
        if is_rate and not any(part in name for part in ("classif", "head")):
            setattr(config, name, 0.0)


def _encoder_linears(model: "PreTrainedModel") -> dict[str, "nn.Module"]:
    from torch import nn

    prefix = f"{model.base_model_prefix}."
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(prefix)
    }


def _match(linears: dict[str, "nn.Module"], wanted: Sequence[str], model: "PreTrainedModel") -> list[str]:
    found: set[str] = set()
    for part in wanted:
        hits = {name for name in linears if name == part or name.endswith(f".{part}")}
        if not hits:
            raise ConfigError(
                f"method.target_modules: {part!r} matches no linear layer of this {model.config.model_type} encoder. "
                f"Candidates: {_candidates(linears)}."
            )
        found |= hits
    return [name for name in linears if name in found]


def _last_parts(linears: Iterable[str]) -> Counter[str]:
    return Counter(name.rpartition(".")[2] for name in linears)


def _candidates(linears: Iterable[str]) -> str:
    return ", ".join(f"{name} ({count}x)" for name, count in _last_parts(linears).items())
