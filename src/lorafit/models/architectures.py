"""Which modules of an encoder carry adapters and which are the classification head.

Known architectures stand in a table. Any other encoder works too when its linear layers are named by the user; its head
is what lies outside the encoder itself.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from lorafit.config import TargetGroup
from lorafit.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel


Pooling = Literal["own", "mean"]
"""What a classification head reads of a text: what the architecture's own head reads, which is one token, or the mean
of all tokens (`models.pooling`)."""


@dataclass(frozen=True)
class BlockParts:
    """Names of the modules of one encoder block that stand beside its linear layers, from the block's point of view.

    Attributes:
        attention_norm: The norm after attention and its residual.
        activation: The function between the two linear layers of the feed-forward network.
        output_norm: The norm after the feed-forward network and its residual.
    """

    attention_norm: str
    activation: str
    output_norm: str


@dataclass(frozen=True)
class AdapterPlaces:
    """Where the `adapters` library keeps and puts bottleneck adapters in an encoder layer, from its point of view.

    Attributes:
        attention: The module that holds the adapter behind attention; it is made where the layer has none such.
        output: That of the adapter of the feed-forward network.
        feed_forward: The module to put a parallel adapter on.
        adds_residual: Whether that module is called with the network's hidden states and its input, and adds the input
            to its own output; else it is called with the input alone.
    """

    attention: str
    output: str
    feed_forward: str
    adds_residual: bool


@dataclass(frozen=True)
class Architecture:
    """Names of the parts of one kind of encoder; linear layers are named from the encoder layer's point of view.

    Attributes:
        layers: Path of the list of encoder layers inside the model.
        attention: The projections to queries, keys and values, and the one after attention; where one product gives the
            first three, its name stands three times.
        feed_forward: What the feed-forward network begins with, and last of all what it ends with.
        head: Top-level modules of the classification head.
        block: The other parts of one block, where it is a BERT-like one that can be fused and the head reads nothing
            but the first token; else None.
        adapters: Places of bottleneck adapters; None where the `adapters` library does not know such an encoder, or
            builds it in another way.
        base_dropout: Settings of the encoder's own dropout in the model's config, the head's not among them; empty
            where they are known by their names.
        head_dropout: Setting of the head's dropout that, where it is absent, is the encoder's; empty if there is none.
        shares_layers: Whether all layers are one and the same.
        is_decoder: Whether it is a decoder, whose head reads the last token.
    """

    layers: str
    attention: tuple[str, str, str, str]
    feed_forward: tuple[str, ...]
    head: tuple[str, ...]
    block: BlockParts | None = None
    adapters: AdapterPlaces | None = None
    base_dropout: tuple[str, ...] = ()
    head_dropout: str = ""
    shares_layers: bool = False
    is_decoder: bool = False

    @property
    def linears(self) -> tuple[str, str, str, str, str, str]:
        """Query, key, value and output of attention; first and last of the feed-forward network."""
        return *self.attention, self.feed_forward[0], self.feed_forward[-1]

    def group(self, name: TargetGroup) -> tuple[str, ...]:
        """Return the linear layers of a named group, each once."""
        query, key, value, _ = self.attention
        groups: dict[TargetGroup, tuple[str, ...]] = {
            "query-value": (query, value),
            "value": (value,),
            "attention": self.attention,
            "feed-forward": self.feed_forward,
            "key-value-down": (key, value, self.feed_forward[-1]),
            "all-linear": self.attention + self.feed_forward,
        }
        return tuple(dict.fromkeys(groups[name]))

    def name_layers(self, model: "PreTrainedModel") -> list[str]:
        """Return the full names of a model's encoder layers, from the lowest up."""
        return [f"{self.layers}.{index}" for index, _ in model.get_submodule(self.layers).named_children()]


_BERT_BLOCK = BlockParts("attention.output.LayerNorm", "intermediate.intermediate_act_fn", "output.LayerNorm")


_BERT_ADAPTERS = AdapterPlaces("attention.output", "output", "output", adds_residual=True)


def _like_bert(prefix: str, *, head: tuple[str, ...] = ("classifier",), fused: bool = True) -> Architecture:
    return Architecture(
        layers=f"{prefix}.encoder.layer",
        attention=("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
        feed_forward=("intermediate.dense", "output.dense"),
        head=head,
        block=_BERT_BLOCK if fused else None,
        adapters=_BERT_ADAPTERS if fused else None,
        base_dropout=("hidden_dropout_prob", "attention_probs_dropout_prob"),
        head_dropout="classifier_dropout",
    )


_LIKE_LLAMA = Architecture(
    layers="model.layers",
    attention=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    feed_forward=("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    head=("score",),
    is_decoder=True,
)

ARCHITECTURES: dict[str, Architecture] = {
    "distilbert": Architecture(
        layers="distilbert.transformer.layer",
        attention=("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"),
        feed_forward=("ffn.lin1", "ffn.lin2"),
        head=("pre_classifier", "classifier"),
        block=BlockParts("sa_layer_norm", "ffn.activation", "output_layer_norm"),
        adapters=AdapterPlaces("attention_adapters", "output_adapters", "ffn", adds_residual=False),
        base_dropout=("dropout", "attention_dropout"),
    ),
    "bert": _like_bert("bert"),
    "roberta": _like_bert("roberta"),
    "xlm-roberta": _like_bert("roberta"),
    "camembert": replace(_like_bert("roberta"), adapters=None),
    "electra": _like_bert("electra"),
    "deberta-v2": replace(
        _like_bert("deberta", head=("pooler", "classifier"), fused=False),
        attention=(
            "attention.self.query_proj",
            "attention.self.key_proj",
            "attention.self.value_proj",
            "attention.output.dense",
        ),
        head_dropout="cls_dropout",
    ),
    "albert": Architecture(
        layers="albert.encoder.albert_layer_groups",
        attention=(
            "albert_layers.0.attention.query",
            "albert_layers.0.attention.key",
            "albert_layers.0.attention.value",
            "albert_layers.0.attention.dense",
        ),
        feed_forward=("albert_layers.0.ffn", "albert_layers.0.ffn_output"),
        head=("classifier",),
        shares_layers=True,
    ),
    "mpnet": replace(
        _like_bert("mpnet", fused=False),
        attention=("attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o"),
        head_dropout="",
    ),
    "modernbert": Architecture(
        layers="model.layers",
        attention=("attn.Wqkv", "attn.Wqkv", "attn.Wqkv", "attn.Wo"),
        feed_forward=("mlp.Wi", "mlp.Wo"),
        head=("head", "classifier"),
    ),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2"), _LIKE_LLAMA),
}
"""Known encoders, and decoders with a classification head, by transformers' `model_type`."""


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
    layers = architecture.name_layers(model)
    names = {f"{layer}.{part}" for layer in layers for part in parts}
    found = [name for name in linears if name in names]
    if len(found) != len(names):
        raise ConfigError(
            f"The encoder has {len(layers)} layers, so {wanted!r} should match {len(names)} linear layers, but "
            f"{len(found)} were found. Candidates: {_candidates(linears)}."
        )
    missed = [name for name in linears if name.startswith(f"{architecture.layers}.") and name not in names]
    if wanted == "all-linear" and missed:
        raise ConfigError(
            f"method.target_modules=all-linear would leave out {_candidates(missed)} of this {model.config.model_type} "
            "encoder. Name the linear layers yourself: --set 'method.target_modules=[…]'. "
            f"Candidates: {_candidates(linears)}."
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
    layers = architecture.name_layers(model)
    if architecture.shares_layers:
        raise ConfigError(f"method.layers=top{count}: all layers of this encoder share their weights.")
    if count > len(layers):
        raise ConfigError(f"method.layers=top{count}, but this encoder has {len(layers)} layers.")
    return tuple(f"{layer}." for layer in layers[-count:])


def find_norms(model: "PreTrainedModel") -> list[str]:
    """Find the norms of an encoder, those of its head left out.

    Args:
        model: The encoder with its head.

    Returns:
        Full names of the modules, in the model's order.
    """
    return [
        name
        for name, module in model.named_modules()
        if name.startswith(f"{model.base_model_prefix}.") and type(module).__name__.endswith(("LayerNorm", "RMSNorm"))
    ]


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
    if architecture is not None and pooling_of(model) == "own":
        head = set(architecture.head)
    else:
        outside = (name for name, _ in model.named_children() if name != model.base_model_prefix)
        head = {name for name in outside if any(True for _ in model.get_submodule(name).parameters())}
    for parameter in newly_initialised:
        module = parameter.rpartition(".")[0]
        if not any(module == name or module.startswith(f"{name}.") for name in head):
            head.add(module)
    return [name for name, _ in model.named_modules() if name in head]


def pooling_of(model: "PreTrainedModel") -> Pooling:
    """Return what a model's head reads of a text."""
    pooling: Pooling = getattr(model, "pooling", "own")
    return pooling


def disable_base_dropout(config: "PretrainedConfig") -> None:
    """Set the encoder's own dropout to zero in its config, before the model is built; the head keeps its own.

    A frozen encoder has nothing to regularise, and on a CPU the random masks cost up to half of the time.

    Args:
        config: The model's config, changed in place.
    """
    architecture = ARCHITECTURES.get(config.model_type)
    if architecture is not None and architecture.base_dropout:
        if architecture.head_dropout and getattr(config, architecture.head_dropout, None) is None:
            setattr(config, architecture.head_dropout, config.hidden_dropout_prob)
        names = architecture.base_dropout
    else:
        rates = [name for name, value in config.to_dict().items() if isinstance(value, float) and "dropout" in name]
        names = tuple(name for name in rates if "classif" not in name and "head" not in name)
    for name in names:
        setattr(config, name, 0.0)


def _encoder_linears(model: "PreTrainedModel") -> dict[str, "nn.Module"]:
    prefix = f"{model.base_model_prefix}."
    return {name: module for name, module in model.named_modules() if _is_linear(module) and name.startswith(prefix)}


def _match(linears: dict[str, "nn.Module"], wanted: Sequence[str], model: "PreTrainedModel") -> list[str]:
    found: set[str] = set()
    for part in wanted:
        hits = {name for name in linears if _ends_with(name, part)}
        if not hits and any(_ends_with(name, part) for name, module in model.named_modules() if _is_linear(module)):
            raise ConfigError(
                f"method.target_modules: {part!r} belongs to the classification head, which every method trains whole, "
                "since it begins with random numbers. PEFT refuses an adapter on a module that is saved whole, and "
                "without the whole module nobody could open the adapter. Leave the name out; --method head_only trains "
                "the head alone."
            )
        if not hits:
            raise ConfigError(
                f"method.target_modules: {part!r} matches no linear layer of this {model.config.model_type} encoder. "
                f"Candidates: {_candidates(linears)}."
            )
        found |= hits
    return [name for name in linears if name in found]


def _is_linear(module: "nn.Module") -> bool:
    from torch import nn

    return isinstance(module, nn.Linear)


def _ends_with(name: str, part: str) -> bool:
    return name == part or name.endswith(f".{part}")


def _last_parts(linears: Iterable[str]) -> Counter[str]:
    return Counter(name.rpartition(".")[2] for name in linears)


def _candidates(linears: Iterable[str]) -> str:
    return ", ".join(f"{name} ({count}x)" for name, count in _last_parts(linears).items())
