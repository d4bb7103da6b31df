"""Where the time of training goes: seconds by kind of operator, for lorafit alone.

Run: LORAFIT_DATA=… python benchmarks/profile_training.py [--rows 256] [--model NAME] [--set section.key=value …]

One epoch on rows of IMDb's train split, after a warm-up on others, under torch's profiler, which itself takes some of
the time of small operators. Counted is the Trainer's loop: steps, batching, logging, one validation of 32 rows. A
product with the adapter's rank, 8, as one of its sizes is the adapter's; the head's few are among the encoder's.
Writes benchmarks/results/profile_training.json.
"""

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trials import BUILTIN, RESULTS, cut_rows, name_rows, run_fresh, write_results

SETTINGS = ["training.epochs=1", "training.evaluations_per_epoch=1"]
QUIET = ["evaluation.report=false", "evaluation.before=false", "evaluation.baselines=false"]
RANK = 8
KINDS = {
    "attention": ("scaled_dot_product", "flash_attention", "softmax", "bmm", "masked_fill", "_Attention"),
    "products": ("aten::linear", "addmm", "aten::mm", "matmul"),
    "lorafit's own functions": ("_LinearGroup",),
    "GELU": ("gelu",),
    "norms": ("layer_norm",),
    "copies and casts": ("copy_", "aten::cat", "contiguous", "clone", "to_mkldnn", "reorder", "aten::to"),
    "optimizer": ("adam", "foreach", "lerp", "addcdiv", "addcmul", "optimizer"),
    "sums, products of elements": ("aten::add", "aten::mul", "aten::sub", "aten::sum", "aten::div"),
    "embeddings": ("embedding", "index_select", "aten::index"),
}
"""Parts of operators' names by kind; the first that fits counts."""


def main() -> None:
    """Profile, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--model", default=BUILTIN)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--output", type=Path, default=RESULTS / "profile_training.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_fresh(cut_rows, folder, {"train": arguments.rows, "warm-up": 64, "validation": 32, "test": 32})
        settings = [*QUIET, f"model.name={arguments.model}", *name_rows(folder), *SETTINGS]
        operators = run_fresh(profile, [*settings, *arguments.overrides], folder)
    seconds = sum_by_kind(operators)
    total = sum(seconds.values())
    longest = [{**one, "shapes": str(one["shapes"])} for one in operators if one["seconds"] > 0.01]
    write_results(
        arguments.output,
        {"settings": arguments.overrides, "rows": arguments.rows, "seconds": seconds, "operators": longest},
    )
    print("| kind | s | share |\n|---|---|---|")
    for kind, spent in sorted(seconds.items(), key=lambda item: -item[1]):
        print(f"| {kind} | {spent:.2f} | {spent / total:.1%} |")


def profile(settings: list[str], folder: Path) -> list[dict[str, Any]]:
    """Train in this process; return each operator's own seconds, the longest first."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as watch
    from transformers import Trainer

    from lorafit.config import load_config
    from lorafit.training.pipeline import train

    train(load_config(overrides=[*settings, f"data.source={folder / 'warm-up.parquet'}"]), output=folder / "warm-up")
    stock, watcher = Trainer.train, watch(activities=[ProfilerActivity.CPU], record_shapes=True)

    def train_watched(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - whatever the Trainer takes and gives
        with watcher:
            return stock(*arguments, **named)

    Trainer.train = train_watched
    train(load_config(overrides=settings), output=folder / "run")
    averages = watcher.key_averages(group_by_input_shape=True)
    operators = [
        {"name": one.key, "shapes": one.input_shapes, "calls": one.count, "seconds": one.self_cpu_time_total / 1e6}
        for one in averages
    ]
    return sorted(operators, key=lambda one: -one["seconds"])


def sum_by_kind(operators: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Add the seconds up."""
    seconds: dict[str, float] = defaultdict(float)
    for one in operators:
        kind = next((kind for kind, parts in KINDS.items() if any(part in one["name"] for part in parts)), "other")
        if kind == "products" and any(RANK in shape for shape in one["shapes"] if isinstance(shape, list)):
            kind = "products of the adapters"
        seconds[kind] += one["seconds"]
    return dict(seconds)


if __name__ == "__main__":
    main()
