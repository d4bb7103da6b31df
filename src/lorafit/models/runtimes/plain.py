"""Open a trained folder with nothing but peft and transformers, and print its logits.

Run as a script in a fresh process (`python -P plain.py FOLDER < texts.json`), it proves that the folder is complete for
every other tool: nothing of lorafit is imported.
"""

import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer


def compute_plain_logits(folder: Path, texts: list[str] | list[list[str]]) -> list[list[float]]:
    """Load base, head, adapter and tokenizer, or the whole model, as any user of these libraries would.

    Args:
        folder: The adapter's or the model's folder.
        texts: Texts to classify, or pairs of texts.

    Returns:
        One row of fp32 logits a text.
    """
    model = _load_adapter(folder) if (folder / "adapter_config.json").is_file() else _load_model(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    sides = [texts] if isinstance(texts[0], str) else [list(side) for side in zip(*texts, strict=True)]
    batch = tokenizer(*sides, truncation=True, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits: list[list[float]] = model.eval()(**batch).logits.tolist()
    return logits


def _load_adapter(folder: Path) -> torch.nn.Module:
    reference = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    base = AutoModelForSequenceClassification.from_pretrained(
        reference["base_model_name_or_path"],
        revision=reference["revision"] or "main",
        config=AutoConfig.from_pretrained(folder / "labels"),
        dtype=torch.float32,
        ignore_mismatched_sizes=True,  # of a base with a head for other labels, which the adapter's replaces
    )
    model: torch.nn.Module = PeftModel.from_pretrained(base, folder)
    return model


def _load_model(folder: Path) -> torch.nn.Module:
    model: torch.nn.Module = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    return model


if __name__ == "__main__":
    json.dump(compute_plain_logits(Path(sys.argv[1]), json.load(sys.stdin)), sys.stdout)
