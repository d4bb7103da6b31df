"""Training speed with flash attention (sdpa) and with plain matrix products (eager), side by side by text length.

Run: python benchmarks/attention.py

Full batches of 4,096 tokens of one length (at most 32 rows), adapters on all linear layers, the precision that `auto`
takes here. Interleaved repeats; the median counts. Writes benchmarks/results/attention.json.
"""

import json
import statistics
import time
from pathlib import Path

import torch
from environment import describe_environment

from lorafit.acceleration.precision import autocast, choose_precision
from lorafit.config import MethodConfig, ModelConfig
from lorafit.encoders.load import load_with_head, locate_encoder
from lorafit.labels import LabelSet
from lorafit.methods import apply_method

RESULTS = Path(__file__).with_name("results") / "attention.json"
LENGTHS = (32, 64, 128, 256, 512)
REPEATS = 3


def main() -> None:
    """Measure every length with both implementations."""
    precision = choose_precision("auto")
    loaded = load_with_head(locate_encoder(ModelConfig(name="builtin:distil-minilm")), LabelSet(("no", "yes")))
    model = apply_method(loaded.model, MethodConfig(), newly_initialised=loaded.newly_initialised).model.train()
    results = {}
    for length in LENGTHS:
        rows = min(32, 4096 // length)
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(1000, 30000, (rows, length), generator=generator)
        batch = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "labels": torch.zeros(rows, dtype=torch.long),
        }
        seconds: dict[str, list[float]] = {"sdpa": [], "eager": []}
        for repeat in range(REPEATS + 1):
            for implementation, times in seconds.items():
                model.get_base_model().set_attn_implementation(implementation)
                began = time.perf_counter()
                with autocast(precision):
                    loss = model(**batch).loss
                loss.backward()
                model.zero_grad()
                if repeat:
                    times.append(time.perf_counter() - began)
        speed = {name: rows * length / statistics.median(times) for name, times in seconds.items()}
        results[length] = speed
        print(f"{length:4d} tokens x {rows:2d}: sdpa {speed['sdpa']:6,.0f}, eager {speed['eager']:6,.0f} tokens/s")
    report = {"environment": describe_environment(), "precision": precision.name, "tokens_per_second": results}
    RESULTS.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
