"""Training speed by how attention and the encoder's blocks are computed, side by side by text length.

Run: python benchmarks/attention.py [--lengths 32,64,128,256,512] [--repeats 3] [--compiled]

    sdpa      transformers' blocks with torch's flash attention
    eager     transformers' blocks with plain matrix products
    own       transformers' blocks with lorafit's attention (`use_attention`)
    fused     lorafit's blocks (`fuse_encoder`)
    compiled  these, with GELU, norms and the sums before them by `torch.compile`, which needs a C++ compiler

Full batches of 4,096 tokens of one length (at most 32 rows), adapters on all linear layers, the precision that `auto`
takes here. Interleaved repeats; the median counts. Writes benchmarks/results/attention.json.
"""

import argparse
import statistics
import time
from types import MethodType

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional
from trials import BUILTIN, RESULTS, write_results

from lorafit.config import MethodConfig, ModelConfig
from lorafit.models.acceleration.attention import use_attention
from lorafit.models.acceleration.encoder_block import FusedBlock, at_precision, fuse_encoder
from lorafit.models.acceleration.memory import keep_freed_memory
from lorafit.models.acceleration.precision import PrecisionChoice, choose_precision
from lorafit.models.adaptation import apply_method
from lorafit.models.load import load_with_head, locate_encoder
from lorafit.tasks.registry import build_task

TASK = build_task("single_label", ("no", "yes"))


def main() -> None:
    """Measure every length with every model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="32,64,128,256,512", help="comma-separated, in tokens")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--compiled", action="store_true")
    arguments = parser.parse_args()
    keep_freed_memory()
    precision = choose_precision("auto")
    models = build_models(compiled=arguments.compiled)
    results = {}
    for length in map(int, arguments.lengths.split(",")):
        rows = min(32, 4096 // length)
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(1000, 30000, (rows, length), generator=generator)
        batch = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "labels": torch.zeros(rows, dtype=torch.long),
        }
        seconds: dict[str, list[float]] = {name: [] for name in models}
        for repeat in range(arguments.repeats + 1):
            for name, model in models.items():
                passed = measure_step(model, batch, precision)
                if repeat:
                    seconds[name].append(passed)
        speed = {name: rows * length / statistics.median(times) for name, times in seconds.items()}
        results[length] = speed
        print(f"{length:4d} tokens x {rows:2d}: {', '.join(f'{name} {speed[name]:6,.0f}' for name in speed)} tokens/s")
    write_results(RESULTS / "attention.json", {"precision": precision.name, "tokens_per_second": results})


def build_models(*, compiled: bool) -> dict[str, PeftModel]:
    """Build one model for each way to compute, with the same weights."""
    models = {}
    for name in ("sdpa", "eager", "own", "fused", *(("compiled",) if compiled else ())):
        loaded = load_with_head(locate_encoder(ModelConfig(name=BUILTIN)), TASK)
        model = apply_method(loaded.model, MethodConfig(), newly_initialised=loaded.newly_initialised).model.train()
        if name == "own":
            use_attention(model.get_base_model())
        elif name in {"fused", "compiled"}:
            obstacle = fuse_encoder(model)
            if obstacle is not None:
                raise RuntimeError(f"the blocks cannot be fused: {obstacle}")
            if name == "compiled":
                compile_blocks(model)
        else:
            model.get_base_model().set_attn_implementation(name)
        models[name] = model
    return models


def compile_blocks(model: PeftModel) -> None:
    """Let compiled functions compute what is neither a product nor attention in fused blocks."""

    @torch.compile(dynamic=True)
    def activate(x: Tensor) -> Tensor:
        return functional.gelu(x)

    @torch.compile(dynamic=True)
    def normalise(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], weight.to(x.dtype), bias.to(x.dtype), eps)

    def compute_child(block: FusedBlock, name: str, x: Tensor) -> Tensor:
        child = block.get_submodule(name)
        if isinstance(child, nn.LayerNorm):
            return normalise(x, child.weight, child.bias, child.eps)
        return activate(x)

    for block in model.modules():
        if isinstance(block, FusedBlock):
            block._child = MethodType(compute_child, block)  # noqa: SLF001 - all else stays the same


def measure_step(model: PeftModel, batch: dict[str, torch.Tensor], precision: PrecisionChoice) -> float:
    """Return the seconds of a forward and a backward pass, on adapters that have just changed, as after a step."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(1e-6)
    began = time.perf_counter()
    with at_precision(model, precision):
        loss = model(**batch).loss
    loss.backward()
    model.zero_grad()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
