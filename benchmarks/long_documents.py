"""Which part of a long text to read: accuracy by policy and by length.

Run: LORAFIT_DATA=… python benchmarks/long_documents.py [--rows 2000] [--seeds 0,1] [--max-length 128] [--steps N]
     [--policies head tail] [--output FILE]

The built-in encoder is trained for one epoch on so many rows of IMDb's train split, and measured on as many others of
it; IMDb's test rows play no part. The policies differ in nothing but what they read of a text: with `windows` all of
it, which takes as many more steps as there are more windows. With --steps every policy trains for so many steps
instead of one epoch, on batches of the same size. Results go to benchmarks/results/long-documents.json, unless
--output names another file.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from environment import describe_environment
from trials import cut_rows, name_rows

from lorafit.config import load_config
from lorafit.tasks.evaluation import LENGTH_COLUMN
from lorafit.training.pipeline import train

RESULTS = Path(__file__).with_name("results") / "long-documents.json"
POLICIES = ("head", "tail", "head+tail", "windows")
COMMON = [
    "model.name=builtin:distil-minilm",
    "data.calibration_fraction=0",
    "training.epochs=1",
    "training.evaluations_per_epoch=1",
    "evaluation.before=false",
    "evaluation.baselines=false",
    "evaluation.report=false",
]


def main() -> None:
    """Train with every policy and seed; print and write each result at once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2000, help="training rows, and test rows")
    parser.add_argument("--seeds", default="0", help="comma-separated")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--steps", type=int, help="optimiser steps of every policy; an epoch when absent")
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=POLICIES)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    counts = {"train": arguments.rows, "validation": max(100, arguments.rows // 10), "test": arguments.rows}
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        rows = cut_rows(Path(folder), counts)
        common = [*COMMON, f"model.max_length={arguments.max_length}"]
        if arguments.steps is not None:
            common.append(f"training.max_steps={arguments.steps}")
        for seed in map(int, arguments.seeds.split(",")):
            for policy in arguments.policies:
                settings = [*common, *name_rows(Path(folder)), f"training.seed={seed}", f"model.truncation={policy}"]
                results.append({"policy": policy, "seed": seed, **measure(settings, Path(folder) / f"{policy}-{seed}")})
                print(describe(results[-1]), flush=True)
                report = {"environment": describe_environment(), "rows": rows, "common": common, "results": results}
                arguments.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def measure(settings: list[str], folder: Path) -> dict[str, Any]:
    """Train once and return accuracy, over all test rows and by length in words, tokens and seconds."""
    run = train(load_config(overrides=settings), output=folder)
    record, metrics = run.record, run.metrics
    training = record.training
    if training is None:
        raise RuntimeError(f"{folder} was not trained")
    return {
        "accuracy": metrics.after.metrics["accuracy"].model_dump(),
        "by_words": {
            one.value: {"rows": one.rows, **one.metrics["accuracy"].model_dump()}
            for one in metrics.slices
            if one.column == LENGTH_COLUMN
        },
        "training_steps": training.steps,
        "training_tokens": training.tokens,
        "training_seconds": round(training.seconds, 1),
        "cut": record.data.splits["test"].truncated,
        "windows": record.data.splits["test"].windows,
    }


def describe(result: dict[str, Any]) -> str:
    """Return a line of the table."""
    lengths = ", ".join(f"{words} words {one['value']:.1%}" for words, one in result["by_words"].items())
    accuracy = result["accuracy"]
    return (
        f"{result['policy']:10s} seed {result['seed']}  accuracy {accuracy['value']:.1%} "
        f"[{accuracy['low']:.1%}, {accuracy['high']:.1%}]  {lengths}  {result['training_tokens']:,} tokens  "
        f"{result['training_seconds']:.0f} s"
    )


if __name__ == "__main__":
    main()
