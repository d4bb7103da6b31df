"""The methods of adaptation: one table, a row a method."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lorafit.errors import ConfigError
from lorafit.models.architectures import Pooling
from lorafit.models.peft_configs import (
    Build,
    build_adalora,
    build_divided,
    build_ia3,
    build_lora,
    build_plain,
    build_prompt,
    build_ranked,
)

Limit = Literal["merge", "mixed-batches", "fused-blocks", "decoder", "resume"]
"""What a method cannot do: be merged into the base, serve several adapters in one batch, be trained in lorafit's fused
blocks, adapt a decoder, go on from a checkpoint (which then begins anew)."""

Library = Literal["peft", "transformers", "adapters", "sentence-transformers"]
"""Where what a method saved is opened without lorafit."""


@dataclass(frozen=True)
class Bottleneck:
    """What bottleneck adapters look like.

    Attributes:
        reads: What an adapter reads: the output of the feed-forward network, the norm after it, or the network's input.
        activation: The function between its two layers.
        in_attention: Whether there is one behind attention, too.
        scaling: What its output is multiplied by.
    """

    reads: Literal["output", "norm", "input"]
    activation: Literal["relu", "swish"]
    in_attention: bool = False
    scaling: float = 1.0


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Attributes:
        name: As in `method.name`.
        title: Its name in prose.
        paper: Where it was introduced.
        adapts: What it changes, in prose.
        learning_rate: Peak learning rate unless one is given; None where there are no steps.
        head_learning_rate: That of the head; None for the same.
        defaults: The settings of the method section that it takes, with its own defaults.
        place: What is adapted: linear layers by name, norms by name, whole encoder layers, or nothing.
        build: Turns the settings and the place into PEFT's config; None for what PEFT does not know.
        bottleneck: The adapters that are put into the encoder's layers, or None.
        trains: Where the model itself is trained, which of the encoder's parameters, by name; None for none. The head
            always is.
        frozen: What the names of those adapter parameters hold that stay as they were drawn; empty for none.
        shares_matrices: Whether `r` is that of random matrices which all layers share.
        optimizer: Who steps.
        reallocates: Whether the ranks are dealt out anew while training goes on.
        library: What opens a folder that it saved.
        pooling: What the head reads of a text.
        objective: What the optimizer minimises: the loss of labels, that of pairs of texts, or nothing. Except with
            labels, the head is solved for, as a regression on the encoder's states.
        most_steps: Most optimizer steps where none are given; None for no bound.
        limits: What it cannot do.
    """

    name: str
    title: str
    paper: str
    adapts: str
    learning_rate: float | None
    head_learning_rate: float | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    place: Literal["linears", "norms", "layers", "nothing"] = "linears"
    build: Build | None = None
    bottleneck: Bottleneck | None = None
    trains: Callable[[str], bool] | None = None
    frozen: str = ""
    shares_matrices: bool = False
    optimizer: Literal["adamw", "lora_fa"] = "adamw"
    reallocates: bool = False
    library: Library = "peft"
    pooling: Pooling = "own"
    objective: Literal["labels", "pairs", "none"] = "labels"
    most_steps: int | None = None
    limits: frozenset[Limit] = frozenset()

    @property
    def is_adapter(self) -> bool:
        """Whether it is saved as an adapter, without the base."""
        return self.build is not None or self.bottleneck is not None

    @property
    def takes_layers(self) -> bool:
        """Whether it can be put into the top layers alone."""
        return self.place in {"linears", "layers"}


_LORA = {"r": 8, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"}
_LINEAR = {"target_modules": "all-linear"}
_PROMPT = {"virtual_tokens": 20}


_NOT_FUSED: frozenset[Limit] = frozenset({"fused-blocks"})
_MODEL: frozenset[Limit] = frozenset({"merge", "mixed-batches"})
_BOTTLENECK: frozenset[Limit] = frozenset({"merge", "mixed-batches", "fused-blocks", "decoder"})
_PROMPTED: frozenset[Limit] = frozenset({"merge", "mixed-batches", "decoder"})

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="lora",
            title="LoRA",
            paper="Hu et al. 2021, arXiv:2106.09685",
            adapts="linear layers, by a product of two low-rank matrices",
            learning_rate=1e-3,
            defaults=_LORA | {"loraplus_lr_ratio": 1.0},
            build=build_lora(),
        ),
        Method(
            name="rslora",
            title="rsLoRA",
            paper="Kalajdzievski 2023, arXiv:2312.03732",
            adapts="as LoRA, scaled by lora_alpha / sqrt(r)",
            learning_rate=2e-4,
            defaults=_LORA | {"loraplus_lr_ratio": 1.0},
            build=build_lora(use_rslora=True),
        ),
        Method(
            name="lora_plus",
            title="LoRA+",
            paper="Hayou et al. 2024, arXiv:2402.12354",
            adapts="as LoRA, its B at a higher learning rate",
            learning_rate=5e-4,
            defaults=_LORA | {"loraplus_lr_ratio": 4.0},
            build=build_lora(),
        ),
        Method(
            name="lora_fa",
            title="LoRA-FA",
            paper="Zhang et al. 2023, arXiv:2308.03303",
            adapts="as LoRA, its A frozen",
            learning_rate=1e-3,
            defaults=_LORA,
            build=build_lora(),
            frozen="lora_A",
            optimizer="lora_fa",
        ),
        Method(
            name="pissa",
            title="PiSSA",
            paper="Meng et al. 2024, arXiv:2404.02948",
            adapts="as LoRA, from the principal singular values of the weights",
            learning_rate=2e-4,
            defaults=_LORA,
            build=build_lora(init_lora_weights="pissa"),
        ),
        Method(
            name="olora",
            title="OLoRA",
            paper="Büyükakyüz 2024, arXiv:2406.01775",
            adapts="as LoRA, from an orthonormal basis of the weights",
            learning_rate=2e-4,
            defaults=_LORA,
            build=build_lora(init_lora_weights="olora"),
        ),
        Method(
            name="dora",
            title="DoRA",
            paper="Liu et al. 2024, arXiv:2402.09353",
            adapts="linear layers, by a magnitude and a low-rank change of direction",
            learning_rate=1e-3,
            defaults=_LORA,
            build=build_lora(use_dora=True),
            limits=frozenset({"mixed-batches"}),
        ),
        Method(
            name="adalora",
            title="AdaLoRA",
            paper="Zhang et al. 2023, arXiv:2303.10512",
            adapts="linear layers, by a singular value decomposition whose rank is dealt out where it helps",
            learning_rate=2e-3,
            head_learning_rate=5e-4,
            defaults=_LORA,
            build=build_adalora,
            reallocates=True,
            limits=frozenset({"mixed-batches", "resume"}),
        ),
        Method(
            name="loha",
            title="LoHa",
            paper="Hyeon-Woo et al. 2021, arXiv:2108.06098",
            adapts="linear layers, by a Hadamard product of two low-rank matrices",
            learning_rate=2e-3,
            head_learning_rate=5e-4,
            defaults={"r": 8, "lora_alpha": 16, **_LINEAR},
            build=build_ranked("LoHaConfig", alpha="alpha"),
            limits=frozenset({"mixed-batches"}),
        ),
        Method(
            name="lokr",
            title="LoKr",
            paper="Yeh et al. 2023, arXiv:2309.14859",
            adapts="linear layers, by a Kronecker product",
            learning_rate=2e-3,
            head_learning_rate=5e-4,
            defaults={"r": 8, "lora_alpha": 16, **_LINEAR},
            build=build_ranked("LoKrConfig", alpha="alpha"),
            limits=frozenset({"mixed-batches"}),
        ),
        Method(
            name="oft",
            title="OFT",
            paper="Qiu et al. 2023, arXiv:2306.07280",
            adapts="linear layers, by a block-diagonal rotation of their input",
            learning_rate=1e-3,
            head_learning_rate=5e-4,
            defaults=_LINEAR,
            build=build_plain("OFTConfig", oft_block_size=32),
            limits=_NOT_FUSED | {"mixed-batches"},
        ),
        Method(
            name="boft",
            title="BOFT",
            paper="Liu et al. 2023, arXiv:2311.06243",
            adapts="linear layers, by small rotations of their output (butterflies need PEFT's CUDA extension)",
            learning_rate=1e-3,
            head_learning_rate=5e-4,
            defaults={"target_modules": "query-value"},
            build=build_plain("BOFTConfig", boft_block_size=8),
            limits=_NOT_FUSED | {"mixed-batches"},
        ),
        Method(
            name="vera",
            title="VeRA",
            paper="Kopiczko et al. 2023, arXiv:2310.11454",
            adapts="linear layers, by scaling vectors between random matrices that all share",
            learning_rate=1e-2,
            head_learning_rate=5e-4,
            defaults={"r": 256, **_LINEAR},
            build=build_ranked("VeraConfig"),
            shares_matrices=True,
            limits=frozenset({"mixed-batches"}),
        ),
        Method(
            name="randlora",
            title="RandLoRA",
            paper="Albert et al. 2025, arXiv:2502.00987",
            adapts="linear layers, by scaled sums of random low-rank matrices that all share",
            learning_rate=1e-3,
            head_learning_rate=5e-4,
            defaults={"r": 32, "lora_alpha": 640, **_LINEAR},
            build=build_ranked("RandLoraConfig", alpha="randlora_alpha"),
            shares_matrices=True,
            limits=frozenset({"mixed-batches"}),
        ),
        Method(
            name="fourierft",
            title="FourierFT",
            paper="Gao et al. 2024, arXiv:2405.03003",
            adapts="linear layers, by a few coefficients of the update's Fourier transform",
            learning_rate=3e-2,
            head_learning_rate=1e-3,
            defaults=_LINEAR,
            build=build_plain("FourierFTConfig", n_frequency=1000, scaling=150.0, init_weights=True),
            limits=frozenset({"mixed-batches"}),
        ),
        Method(
            name="miss",
            title="MiSS",
            paper="Kang and Yin 2024, arXiv:2409.15371",
            adapts="linear layers, by one small matrix that all shards of the input share",
            learning_rate=1e-3,
            head_learning_rate=5e-4,
            defaults={"r": 16, **_LINEAR},
            build=build_ranked("MissConfig"),
            limits=_NOT_FUSED | {"mixed-batches"},
        ),
        Method(
            name="hra",
            title="HRA",
            paper="Yuan et al. 2024, arXiv:2405.17484",
            adapts="linear layers, by a chain of r Householder reflections of their input (r even)",
            learning_rate=1e-3,
            head_learning_rate=5e-4,
            defaults={"r": 8, **_LINEAR},
            build=build_ranked("HRAConfig"),
            limits=_NOT_FUSED | {"mixed-batches"},
        ),
        Method(
            name="shira",
            title="SHiRA",
            paper="Bhardwaj et al. 2024, arXiv:2406.13175",
            adapts="linear layers, by a sparse change at random places, as many as LoRA of rank r has parameters",
            learning_rate=1e-3,
            head_learning_rate=5e-4,
            defaults={"r": 8, **_LINEAR},
            build=build_ranked("ShiraConfig"),
            limits=_NOT_FUSED | {"mixed-batches"},
        ),
        Method(
            name="road",
            title="RoAd",
            paper="Liao et al. 2024, arXiv:2409.00119",
            adapts="linear layers, by a rotation and a factor for each pair of outputs",
            learning_rate=5e-3,
            head_learning_rate=1e-3,
            defaults=_LINEAR,
            build=build_divided("RoadConfig", "group_size", at_most=64),
            limits=_NOT_FUSED,
        ),
        Method(
            name="c3a",
            title="C3A",
            paper="Chen et al. 2024, arXiv:2407.19342",
            adapts="linear layers, by block-circulant matrices",
            learning_rate=2e-1,
            head_learning_rate=1e-3,
            defaults=_LINEAR,
            build=build_divided("C3AConfig", "block_size", at_most=128),
            limits=_NOT_FUSED | {"mixed-batches"},
        ),
        Method(
            name="vblora",
            title="VB-LoRA",
            paper="Li et al. 2024, arXiv:2405.15179",
            adapts="as LoRA, its factors mixed from a bank of vectors that all layers share",
            learning_rate=5e-3,
            head_learning_rate=1e-3,
            defaults={"r": 4, **_LINEAR},
            build=build_divided("VBLoRAConfig", "vector_length", at_most=256, num_vectors=90),
            limits=frozenset({"mixed-batches"}),
        ),
        Method(
            name="delora",
            title="DeLoRA",
            paper="Bini et al. 2025, arXiv:2503.18225",
            adapts="as LoRA, the strength of the change apart from its direction",
            learning_rate=1e-3,
            head_learning_rate=5e-4,
            defaults={"r": 8, **_LINEAR},
            build=build_ranked("DeloraConfig"),
            limits=frozenset({"mixed-batches"}),
        ),
        Method(
            name="gralora",
            title="GraLoRA",
            paper="Jung et al. 2025, arXiv:2505.20355",
            adapts="linear layers, by a LoRA for each of their blocks (r even)",
            learning_rate=1e-3,
            head_learning_rate=5e-4,
            defaults={"r": 8, "lora_alpha": 32, **_LINEAR},
            build=build_ranked("GraloraConfig", alpha="alpha"),
            limits=frozenset({"mixed-batches"}),
        ),
        Method(
            name="hira",
            title="HiRA",
            paper="Huang et al. 2025, openreview:TwJrTz9cRS",
            adapts="linear layers, by their own weights times a product of two low-rank matrices",
            learning_rate=5e-3,
            head_learning_rate=1e-3,
            defaults={"r": 32, **_LINEAR},
            build=build_ranked("HiraConfig"),
            limits=frozenset({"mixed-batches"}),
        ),
        Method(
            name="waveft",
            title="WaveFT",
            paper="Bilican et al. 2025, arXiv:2505.12532",
            adapts="linear layers, by a few coefficients of the update's wavelet transform",
            learning_rate=5e-4,
            defaults=_LINEAR,
            build=build_plain("WaveFTConfig", n_frequency=1000),
            limits=frozenset({"mixed-batches"}),
        ),
        Method(
            name="glora",
            title="GLoRA",
            paper="Chavan et al. 2023, arXiv:2306.07967",
            adapts="linear layers, by low-rank matrices that scale their weights and are added, and new biases",
            learning_rate=1e-3,
            head_learning_rate=5e-4,
            defaults={"r": 8, **_LINEAR},
            build=build_ranked("GloraConfig"),
            limits=_NOT_FUSED | {"mixed-batches"},
        ),
        Method(
            name="peanut",
            title="PEANuT",
            paper="Zhong et al. 2024, arXiv:2410.01870",
            adapts="linear layers, by what a small network makes of their own weights",
            learning_rate=1e-3,
            head_learning_rate=5e-4,
            defaults={"r": 32, **_LINEAR},
            build=build_ranked("PeanutConfig"),
            limits=_NOT_FUSED | {"mixed-batches"},
        ),
        Method(
            name="psoft",
            title="PSOFT",
            paper="Wu et al. 2025, arXiv:2505.11235",
            adapts="linear layers, by a rotation of their r principal directions and factors for these",
            learning_rate=1e-3,
            head_learning_rate=5e-4,
            defaults={"r": 32, "lora_alpha": 32, **_LINEAR},
            build=build_ranked("PsoftConfig", alpha="psoft_alpha"),
            limits=_NOT_FUSED | {"mixed-batches"},
        ),
        Method(
            name="unilora",
            title="Uni-LoRA",
            paper="Li et al. 2025, arXiv:2506.00799",
            adapts="as LoRA, its factors drawn from one vector that all layers share",
            learning_rate=5e-3,
            head_learning_rate=1e-3,
            defaults={"r": 4, **_LINEAR},
            build=build_ranked("UniLoraConfig"),
            limits=_NOT_FUSED | {"mixed-batches"},
        ),
        Method(
            name="beft",
            title="BEFT",
            paper="Huang et al. 2025, arXiv:2509.15974",
            adapts="the values of attention, by an added bias",
            learning_rate=5e-3,
            head_learning_rate=1e-3,
            defaults={"target_modules": "value"},
            build=build_plain("BeftConfig"),
            limits=_NOT_FUSED | {"mixed-batches"},
        ),
        Method(
            name="pvera",
            title="PVeRA",
            paper="Fillioux et al. 2025, arXiv:2512.07703",
            adapts="as VeRA, its vectors drawn about their mean while it is trained",
            learning_rate=1e-2,
            head_learning_rate=5e-4,
            defaults={"r": 256, **_LINEAR},
            build=build_ranked("PveraConfig"),
            shares_matrices=True,
            limits=_NOT_FUSED | {"mixed-batches"},
        ),
        Method(
            name="adamss",
            title="AdaMSS",
            paper="Zheng et al. 2025, openreview:8ZdWmpYxT0",
            adapts="linear layers, by small matrices in clusters of their principal directions",
            learning_rate=1e-3,
            head_learning_rate=5e-4,
            defaults={"r": 32, **_LINEAR},
            build=build_ranked("AdamssConfig"),
            limits=_NOT_FUSED | {"mixed-batches"},
        ),
        Method(
            name="deft",
            title="DEFT",
            paper="Kumar et al. 2025, arXiv:2509.22793",
            adapts="linear layers, by a low-rank part of their weights taken out and another put in",
            learning_rate=1e-3,
            head_learning_rate=5e-4,
            defaults={"r": 8, **_LINEAR},
            build=build_ranked("DeftConfig"),
            limits=_NOT_FUSED | {"mixed-batches"},
        ),
        Method(
            name="frod",
            title="FRoD",
            paper="Wan et al. 2025, arXiv:2512.23485",
            adapts="linear layers, by sparse rotations and factors in a full-rank basis that layers share",
            learning_rate=1e-3,
            head_learning_rate=5e-4,
            defaults=_LINEAR,
            build=build_plain("FrodConfig", progressbar=False),
            limits=_NOT_FUSED | {"mixed-batches"},
        ),
        Method(
            name="tinylora",
            title="TinyLoRA",
            paper="Morris et al. 2026, arXiv:2602.04118",
            adapts="linear layers, by 64 numbers each, spread by random matrices over their two principal directions",
            learning_rate=5e-3,
            head_learning_rate=1e-3,
            defaults={"r": 2, **_LINEAR},
            build=build_ranked("TinyLoraConfig"),
            limits=_NOT_FUSED | {"mixed-batches"},
        ),
        Method(
            name="supertuning",
            title="Super-Tuning",
            paper="Ilin et al. 2026, arXiv:2607.09287",
            adapts="linear layers, by a change of their largest weights, one in a hundred",
            learning_rate=1e-3,
            head_learning_rate=5e-4,
            defaults=_LINEAR,
            build=build_plain("SupertuningConfig"),
            limits=_NOT_FUSED | {"mixed-batches"},
        ),
        Method(
            name="ia3",
            title="IA3",
            paper="Liu et al. 2022, arXiv:2205.05638",
            adapts="keys, values and feed-forward activations, by a factor each",
            learning_rate=5e-3,
            head_learning_rate=1e-3,
            defaults={"target_modules": "key-value-down"},
            build=build_ia3,
            limits=_NOT_FUSED | {"mixed-batches"},
        ),
        Method(
            name="ln_tuning",
            title="LN tuning",
            paper="Zhao et al. 2023, arXiv:2312.11420",
            adapts="the norms' factors and offsets",
            learning_rate=2e-3,
            defaults={},
            place="norms",
            build=build_plain("LNTuningConfig"),
            limits=frozenset({"mixed-batches"}),
        ),
        Method(
            name="prompt_tuning",
            title="prompt tuning",
            paper="Lester et al. 2021, arXiv:2104.08691",
            adapts="the input, by learned tokens before it",
            learning_rate=1e-2,
            head_learning_rate=1e-3,
            defaults=_PROMPT,
            place="nothing",
            build=build_prompt("PromptTuningConfig"),
            limits=_PROMPTED,
        ),
        Method(
            name="p_tuning",
            title="P-tuning",
            paper="Liu et al. 2021, arXiv:2103.10385",
            adapts="the input, by learned tokens that a small network makes",
            learning_rate=2e-3,
            head_learning_rate=1e-3,
            defaults=_PROMPT,
            place="nothing",
            build=build_prompt("PromptEncoderConfig"),
            limits=_PROMPTED | {"resume"},
        ),
        Method(
            name="houlsby",
            title="Houlsby",
            paper="Houlsby et al. 2019, arXiv:1902.00751",
            adapts="each layer, by two bottleneck adapters: behind attention and behind the feed-forward network",
            learning_rate=1e-3,
            defaults={"reduction_factor": 16},
            place="layers",
            bottleneck=Bottleneck(reads="output", activation="swish", in_attention=True),
            library="adapters",
            limits=_BOTTLENECK,
        ),
        Method(
            name="pfeiffer",
            title="Pfeiffer",
            paper="Pfeiffer et al. 2020, arXiv:2005.00247",
            adapts="each layer, by one bottleneck adapter, behind the feed-forward network and the norm after it",
            learning_rate=1e-3,
            defaults={"reduction_factor": 16},
            place="layers",
            bottleneck=Bottleneck(reads="norm", activation="relu"),
            library="adapters",
            limits=_BOTTLENECK,
        ),
        Method(
            name="parallel",
            title="parallel",
            paper="He et al. 2021, arXiv:2110.04366",
            adapts="each layer, by one bottleneck adapter beside the feed-forward network",
            learning_rate=5e-4,
            defaults={"reduction_factor": 2},
            place="layers",
            bottleneck=Bottleneck(reads="input", activation="relu", scaling=4.0),
            library="adapters",
            limits=_BOTTLENECK,
        ),
        Method(
            name="bitfit",
            title="BitFit",
            paper="Ben Zaken et al. 2021, arXiv:2106.10199",
            adapts="the encoder's own biases",
            learning_rate=2e-3,
            place="nothing",
            trains=lambda name: name.endswith(".bias"),
            library="transformers",
            limits=_MODEL | _NOT_FUSED,
        ),
        Method(
            name="head_only",
            title="head only",
            paper="a linear probe where the head is one layer (Alain and Bengio 2016, arXiv:1610.01644)",
            adapts="nothing but the classification head",
            learning_rate=2e-3,
            place="nothing",
            library="transformers",
            limits=_MODEL,
        ),
        Method(
            name="full",
            title="full fine-tuning",
            paper="Devlin et al. 2018, arXiv:1810.04805",
            adapts="all weights",
            learning_rate=1e-4,
            place="nothing",
            trains=lambda _: True,
            library="transformers",
            limits=_MODEL | _NOT_FUSED,
        ),
        Method(
            name="setfit",
            title="SetFit",
            paper="Tunstall et al. 2022, arXiv:2209.11055",
            adapts="the encoder's layers, by pairs of texts; the head is a regression on the mean of its states",
            learning_rate=1e-4,
            place="nothing",
            trains=lambda name: ".embeddings." not in name,
            pooling="mean",
            objective="pairs",
            library="sentence-transformers",
            most_steps=400,
            limits=_MODEL | _NOT_FUSED | {"decoder"},
        ),
        Method(
            name="embedding",
            title="embeddings",
            paper="Conneau and Kiela 2018, arXiv:1803.05449",
            adapts="nothing; the head is a regression on the mean of the frozen encoder's states",
            learning_rate=None,
            place="nothing",
            pooling="mean",
            objective="none",
            library="sentence-transformers",
            limits=_MODEL | {"decoder"},
        ),
    )
}
"""Every method by name."""

_NO_PAST = "it hands every layer keys and values that stand before the text, which encoders take none of"

REFUSED: Mapping[str, str] = {
    "prefix_tuning": _NO_PAST,
    "p_tuning_v2": _NO_PAST,
    "cartridge": _NO_PAST,
    "adaption_prompt": "PEFT knows it for decoders like LLaMA alone",
    "cpt": "PEFT knows it for causal language models alone",
    "shadow": "PEFT knows it for decoders alone",
    "xlora": "it mixes adapters of causal language models that have been trained before",
    "multitask_prompt_tuning": "it needs prompts of several tasks, and a run has one",
    "poly": "it shares skills among several tasks, and a run has one",
    "lily": "its router takes the mean over all texts of a batch, so that an answer would depend on its neighbours",
    "osf": "it keeps one task from being forgotten while others follow, and a run has one",
    "trainable_tokens": "it trains the embeddings of tokens that were added, and lorafit adds none",
    "qlora": "its 4-bit weights need a GPU; on a CPU, lora costs the same without them",
}
"""Methods of PEFT that cannot classify texts with an encoder on a CPU, and why."""


AUTO = "auto"
"""In place of a method's name: the one that suits the data, which `training.choice` finds."""


def find_method(name: str) -> Method:
    """Look a method up.

    Args:
        name: As in `method.name`.

    Returns:
        Its row of the table.

    Raises:
        ConfigError: There is no such method, and the nearest names are given; or it cannot work here, and why.
    """
    if name in METHODS:
        return METHODS[name]
    if name == AUTO:
        raise ConfigError(
            f"method.name: {AUTO} is for `lorafit train`, which then chooses; here a method must be named."
        )
    if reason := REFUSED.get(name.lower().replace("-", "_")):
        raise ConfigError(f"method.name: {name} is not offered: {reason}. All that are: {', '.join(METHODS)}.")
    nearest = difflib.get_close_matches(name, METHODS, n=3) or sorted(METHODS)
    raise ConfigError(f"method.name: there is no method {name!r}. Did you mean: {', '.join(nearest)}?")
