"""Open a trained folder with nothing but peft, adapters and transformers, and print its logits.

A folder of sentence-transformers is opened by that library where it is installed, else by transformers' `AutoModel` and
what its other modules say: a mean and a linear layer.

Run as a script in a fresh process (`python -P plain.py FOLDER < texts.json`), it proves that the folder is complete for
every other tool: nothing of lorafit is imported. The `adapters` library needs an older transformers than lorafit, so it
opens what it knows only where it is installed; elsewhere a short reader of its format does, on torch and transformers
alone (that the library agrees is shown by lorafit's own slow tests, in an environment made for it).
"""

import json
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

Adapter = Callable[[torch.Tensor], torch.Tensor]


def compute_plain_logits(folder: Path, texts: list[str] | list[list[str]]) -> list[list[float]]:
    """Load base, head, adapter and tokenizer, or the whole model, as any user of these libraries would.

    Args:
        folder: The adapter's or the model's folder.
        texts: Texts to classify, or pairs of texts.

    Returns:
        One row of fp32 logits a text.
    """
    if (folder / "modules.json").is_file():
        return _compute_pooled(folder, texts)
    model = _load_adapter(folder) if (folder / "adapter_config.json").is_file() else _load_model(folder)
    with torch.no_grad():
        logits: list[list[float]] = model.eval()(**_tokenize(folder, texts)).logits.tolist()
    return logits


def _tokenize(folder: Path, texts: list[str] | list[list[str]]) -> dict[str, torch.Tensor]:
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    sides = [texts] if isinstance(texts[0], str) else [list(side) for side in zip(*texts, strict=True)]
    batch: dict[str, torch.Tensor] = tokenizer(*sides, truncation=True, padding=True, return_tensors="pt")
    return batch


def _compute_pooled(folder: Path, texts: list[str] | list[list[str]]) -> list[list[float]]:
    if find_spec("sentence_transformers") is not None:
        sentences = import_module("sentence_transformers")
        found: list[list[float]] = sentences.SentenceTransformer(str(folder), device="cpu").encode(texts).tolist()
        return found
    batch, head = _tokenize(folder, texts), load_file(folder / "2_Dense" / "model.safetensors")
    with torch.no_grad():
        states = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(2)
        mean = (states * mask).sum(dim=1) / mask.sum(dim=1)
        logits: list[list[float]] = (mean @ head["linear.weight"].T + head["linear.bias"]).tolist()
    return logits


def _load_adapter(folder: Path) -> torch.nn.Module:
    settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    base = AutoModelForSequenceClassification.from_pretrained(
        settings["base_model_name_or_path"],
        revision=settings["revision"] or "main",
        config=AutoConfig.from_pretrained(folder / "labels"),
        dtype=torch.float32,
        ignore_mismatched_sizes=True,  # of a base with a head for other labels, which the adapter's replaces
    )
    if "peft_type" not in settings:
        return _load_bottlenecks(folder, base, settings["config"])
    from peft import PeftModel

    model: torch.nn.Module = PeftModel.from_pretrained(base, folder)
    return model


def _load_bottlenecks(folder: Path, base: PreTrainedModel, settings: dict[str, Any]) -> torch.nn.Module:
    """Let the `adapters` library load adapters and head, or read them."""
    try:
        import adapters
    except ImportError:
        base.load_state_dict(load_file(folder / "model_head.safetensors"), strict=False)
        tensors = load_file(folder / "adapter.safetensors")
        for name in sorted({key.partition(".adapter_")[0] for key in tensors}):
            adapter = _read_bottleneck({key: tensors[key] for key in tensors if key.startswith(f"{name}.")}, settings)
            _put_bottleneck(base, name.partition(".adapters.")[0], adapter, settings)
    else:
        adapters.init(base)
        base.load_adapter(str(folder), set_active=True, use_safetensors=True)
    return base


def _read_bottleneck(tensors: dict[str, torch.Tensor], settings: dict[str, Any]) -> Adapter:
    """Return the function that an adapter computes."""
    down, down_bias, up, up_bias = (
        next(tensor for key, tensor in tensors.items() if key.endswith(end))
        for end in ("adapter_down.0.weight", "adapter_down.0.bias", "adapter_up.weight", "adapter_up.bias")
    )
    activate = {"relu": torch.relu, "swish": torch.nn.functional.silu}[settings["non_linearity"]]

    def adapter(x: torch.Tensor) -> torch.Tensor:
        narrow = activate(x @ down.T + down_bias)
        scaled: torch.Tensor = settings["scaling"] * (narrow @ up.T + up_bias)
        return scaled

    return adapter


def _put_bottleneck(model: torch.nn.Module, place: str, adapter: Adapter, settings: dict[str, Any]) -> None:
    """Let the layer that a name speaks of compute with an adapter: of DistilBERT, or of BERT and its kin."""
    layer, _, last = place.rpartition(".")
    is_distilbert = last.endswith("_adapters")
    is_attention = last == "attention_adapters" or layer.endswith(".attention")
    linear = f"{layer}.{'attention.out_lin' if is_attention else 'ffn.lin2'}" if is_distilbert else f"{place}.dense"
    norm = f"{layer}.output_layer_norm" if is_distilbert else f"{place}.LayerNorm"
    find = model.get_submodule
    if settings["is_parallel"] and is_distilbert:
        find(f"{layer}.ffn").register_forward_hook(lambda _, inputs, output: output + adapter(inputs[0]))
    elif settings["is_parallel"]:
        find(place).register_forward_pre_hook(lambda _, inputs: (inputs[0], inputs[1] + adapter(inputs[1])))
    elif settings["original_ln_before"]:
        find(norm).register_forward_hook(lambda own, inputs, normed: own.forward(inputs[0] + adapter(normed)))
    else:
        find(linear).register_forward_hook(lambda _, __, output: output + adapter(output))


def _load_model(folder: Path) -> torch.nn.Module:
    model: torch.nn.Module = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    return model


if __name__ == "__main__":
    json.dump(compute_plain_logits(Path(sys.argv[1]), json.load(sys.stdin)), sys.stdout)
