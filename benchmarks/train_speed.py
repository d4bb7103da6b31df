"""Training speed of the notebooks' recipe and of lorafit, side by side: same base, same rows.

Run: LORAFIT_DATA=… python benchmarks/train_speed.py [--models …] [--sides …] [--rows 256] [--repeats 3]

The recipe (`recipe.py`) pads to 512 tokens, and is measured tuned, too, in batches of 8, 16 and 32; lorafit is measured
at 512 tokens with the recipe's adapter, at its defaults (256 tokens, all linear layers), and at 128 tokens for the
share of the ceiling there. Every side runs in a process of its own, in turns; after each turn the bf16 GEMM ceiling at
the encoder's width is measured in the same way. A few steps on other rows warm it up; reading, tokenisation, lorafit's
forecast, validation and saving are left out. Medians count. A ratio compares reviews a second with the recipe's. Tokens
are those of the texts, no padding; the share of the ceiling counts what the encoder's linear layers execute, padding
included.
Writes benchmarks/results/train_speed.json.
"""

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ceiling import measure_ceiling
from trials import (
    BUILTIN,
    RESULTS,
    Shape,
    cut_rows,
    encoder_folder,
    measure_lorafit,
    name_rows,
    read_rows,
    run_fresh,
    write_distilbert_base,
    write_results,
)

MODELS = (BUILTIN, "distilbert-base-shape")
RECIPE = "recipe"
TUNED = {f"recipe, tuned, batches of {size}": size for size in (8, 16, 32)}
SAME = "lorafit, 512 tokens, same adapter"
SIDES: dict[str, list[str]] = {
    SAME: ["model.max_length=512", "method.target_modules=query-value"],
    "lorafit, defaults": [],
    "lorafit, 128 tokens": ["model.max_length=128"],
}
"""lorafit's settings a side; the recipe is a side too."""


def main() -> None:
    """Measure every model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", choices=MODELS, default=MODELS)
    parser.add_argument("--sides", nargs="*", choices=(RECIPE, *TUNED, *SIDES), default=(RECIPE, *TUNED, *SIDES))
    parser.add_argument("--rows", type=int, default=256, help="for the built-in encoder; any other gets half of them")
    parser.add_argument("--warm-up-rows", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--recipe-length", type=int, default=512, help="for trying this out: what the recipe pads to")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="for lorafit")
    parser.add_argument("--output", type=Path, default=RESULTS / "train_speed.json")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model in arguments.models:
            base, part = model, 1 if model == BUILTIN else 2
            rows = {"train": arguments.rows // part, "warm-up": arguments.warm_up_rows // part}
            run_fresh(cut_rows, folder, {**rows, "validation": 32, "test": 32})
            if model != BUILTIN:
                base = str(folder / model)
                run_fresh(write_distilbert_base, Path(base))
            for turns in measure_model(base, arguments, folder):
                results[model] = summarise(turns, Shape.read(encoder_folder(base)))
                report = {"settings": SIDES, "overrides": arguments.overrides}
                write_results(arguments.output, {**report, "results": results})
            print_table(model, results[model])


def measure_model(base: str, arguments: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Measure all sides in turns.

    Args:
        base: The encoder.
        arguments: From the command line.
        folder: Holds the rows.

    Yields:
        After each repeat what was measured so far: a list of turns a side, and of ceilings.
    """
    width = Shape.read(encoder_folder(base)).width
    turns: dict[str, Any] = {side: [] for side in arguments.sides} | {"ceiling": []}
    for _ in range(arguments.repeats):
        for side in arguments.sides:
            if side == RECIPE:
                turn = run_fresh(run_recipe, base, folder, arguments.recipe_length)
            elif side in TUNED:
                turn = run_fresh(run_tuned, base, folder, TUNED[side])
            else:
                settings = [f"model.name={base}", *name_rows(folder), "training.epochs=1", *SIDES[side]]
                turn = run_fresh(measure_lorafit, [*settings, *arguments.overrides], folder / "warm-up.parquet")
            turns[side].append(turn)
            turns["ceiling"].append(run_fresh(measure_ceiling, width, "bf16"))
            print(f"{side:36s} {turn['rows'] / turn['seconds']:6.2f} reviews/s", flush=True)
        yield turns


def run_recipe(base: str, folder: Path, max_length: int) -> dict[str, Any]:
    """Measure the recipe in this process."""
    from recipe import measure_recipe

    return measure_recipe(
        encoder_folder(base),
        *read_rows(folder / "train.parquet"),
        warm_up=read_rows(folder / "warm-up.parquet"),
        output=folder / "recipe",
        max_length=max_length,
    )


def run_tuned(base: str, folder: Path, batch_size: int) -> dict[str, Any]:
    """Measure the tuned recipe in this process."""
    from recipe import measure_tuned

    return measure_tuned(
        encoder_folder(base),
        *read_rows(folder / "train.parquet"),
        warm_up=read_rows(folder / "warm-up.parquet"),
        output=folder / "tuned",
        batch_size=batch_size,
    )


def summarise(turns: dict[str, Any], shape: Shape) -> dict[str, Any]:
    """Turn what was measured into medians, shares and ratios."""
    ceiling = statistics.median(turns["ceiling"])
    sides = {side: summarise_side(repeats, shape, ceiling) for side, repeats in turns.items() if side != "ceiling"}
    if RECIPE in sides:
        for side in sides.values():
            side["ratio"] = side["reviews_per_second"] / sides[RECIPE]["reviews_per_second"]
    return {"bf16_ceiling_gflop_per_second": ceiling, "sides": sides, "turns": turns}


def summarise_side(repeats: list[dict[str, Any]], shape: Shape, ceiling: float) -> dict[str, Any]:
    """Return what is reported of one side."""
    first = repeats[0]
    seconds = statistics.median(repeat["seconds"] for repeat in repeats)
    flop = shape.training_flop(first["positions"], first["rows"], fused=first["blocks"] == "fused")
    return {
        "reviews_per_second": first["rows"] / seconds,
        "tokens_per_second": first["tokens"] / seconds,
        "padding_share": 1 - first["tokens"] / first["positions"],
        "gflop_per_second": flop / 1e9 / seconds,
        "share_of_bf16_ceiling": flop / 1e9 / seconds / ceiling,
        "peak_memory_bytes": max(repeat["peak_memory_bytes"] for repeat in repeats),
        "blocks": first["blocks"],
        "precision": first["precision"],
    }


def print_table(model: str, results: dict[str, Any]) -> None:
    """Print one model's table."""
    print(f"\n{model}; bf16 GEMM ceiling {results['bf16_ceiling_gflop_per_second']:.0f} GFLOP/s")
    print("| | reviews/s | tokens/s | ratio | of the ceiling | padding | peak memory | arithmetic |")
    print("|---|---|---|---|---|---|---|---|")
    for name, side in results["sides"].items():
        print(
            f"| {name} | {side['reviews_per_second']:.2f} | {side['tokens_per_second']:,.0f} | "
            f"{side.get('ratio', float('nan')):.1f} x | {side['share_of_bf16_ceiling']:.0%} | "
            f"{side['padding_share']:.1%} | {side['peak_memory_bytes'] / 1e9:.2f} GB | "
            f"{side['precision']}, {side['blocks'].partition(':')[0]} blocks |"
        )


if __name__ == "__main__":
    main()
