"""Seconds of training until the accuracy that the notebooks' recipe has after one epoch; and lorafit's own curve.

Run: LORAFIT_DATA=… python benchmarks/time_to_accuracy.py [--recipe-rates 2e-4,5e-4,1e-3] [--skip-recipe]
     LORAFIT_DATA=… python benchmarks/time_to_accuracy.py --curve

Without --curve: 4,000 training and 2,000 validation reviews of IMDb's train split, the rows of `defaults.py`; test rows
play no part. The recipe trains one epoch with the best of three learning rates (an hour on two cores). The rate is
chosen by validation loss on lorafit's engine, which takes the recipe's steps (adapter, batches of 16, 512 tokens,
linear decay from the first step) without the encoder's own dropout, in minutes each. lorafit, at its defaults,
trains with schedules of so many epochs and validates eight times in each; its time is that of the training steps up
to the first validation that reaches the recipe's accuracy. Validation is in neither time. With the schedule of one
epoch both can be compared after equal epochs.

With --curve: lorafit on all of IMDb, a run each for schedules of 1, 2 and 3 epochs: seconds of training and test
accuracy of the checkpoint that validation rows chose. The test rows choose nothing.

Parts are kept in benchmarks/results/time_to_accuracy.json as soon as they are there and not measured again, unless with
--again.
"""

import argparse
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from trials import (
    BUILTIN,
    RESULTS,
    Ledger,
    cut_rows,
    encoder_folder,
    name_rows,
    read_history,
    read_rows,
    run_fresh,
    step_seconds,
)

from lorafit.config import load_config
from lorafit.training.pipeline import train

ALONE = ["evaluation.before=false", "evaluation.baselines=false", "evaluation.report=false"]
TEST_ROWS = 100
"""Rows that lorafit measures at the end; nothing here reads that."""


def main() -> None:
    """Measure one of the two comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curve", action="store_true", help="lorafit on all of IMDb")
    parser.add_argument("--model", default=BUILTIN)
    parser.add_argument("--rows", type=int, help="training rows: 4,000; with --curve all of them")
    parser.add_argument("--validation-rows", type=int, default=2000)
    parser.add_argument(
        "--recipe-rates", default="2e-4,5e-4,1e-3", help="comma-separated learning rates to choose from"
    )
    parser.add_argument("--recipe-length", type=int, default=512, help="for trying this out: what the recipe pads to")
    parser.add_argument("--skip-recipe", action="store_true", help="lorafit alone")
    parser.add_argument("--epochs", help="lorafit's schedules: 1,2; with --curve 1,2,3")
    parser.add_argument("--seeds", default="0", help="comma-separated seeds of lorafit")
    parser.add_argument("--rates-only", action="store_true", help="try the recipe's learning rates and end")
    parser.add_argument("--evaluations", type=int, default=8, help="validations an epoch")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="for lorafit")
    parser.add_argument("--again", action="store_true", help="measure kept parts again")
    parser.add_argument("--output", type=Path, default=RESULTS / "time_to_accuracy.json")
    arguments = parser.parse_args()
    ledger = Ledger(arguments.output, again=arguments.again)
    if arguments.curve:
        trace_curve(arguments, ledger)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counts = {"train": arguments.rows or 4000, "validation": arguments.validation_rows, "test": TEST_ROWS}
        run_fresh(cut_rows, folder, counts)
        compare(arguments, ledger, folder)


def compare(arguments: argparse.Namespace, ledger: Ledger, folder: Path) -> None:
    """Measure the recipe with its best rate, then lorafit with every schedule and seed."""
    if arguments.rates_only:
        for rate in arguments.recipe_rates.split(","):
            try_recipe_rate(arguments, ledger, folder, rate)
        return
    best = None if arguments.skip_recipe else measure_recipe(arguments, ledger, folder)
    for epochs in map(int, (arguments.epochs or "1,2").split(",")):
        parts = [measure_schedule(arguments, ledger, folder, epochs, seed) for seed in arguments.seeds.split(",")]
        for part in parts:
            print_trace(epochs, part)
        if best is not None:
            print_verdict(best, parts, epochs)


def measure_recipe(arguments: argparse.Namespace, ledger: Ledger, folder: Path) -> dict[str, Any]:
    """Return the recipe's result with the rate that is best on validation rows."""
    rates = arguments.recipe_rates.split(",")
    losses = {rate: try_recipe_rate(arguments, ledger, folder, rate)["loss"] for rate in rates}
    rate = min(rates, key=lambda rate: losses[rate])
    settings = {**name_settings(arguments), "learning_rate": rate, "max_length": arguments.recipe_length}
    name = f"recipe, learning rate {rate}"
    result = ledger.measure(
        name, settings, partial(run_fresh, run_recipe, arguments.model, folder, float(rate), arguments.recipe_length)
    )
    print(f"{name}: validation accuracy {result['accuracy']:.4f}, {result['seconds']:.0f} s", flush=True)
    return result


def try_recipe_rate(arguments: argparse.Namespace, ledger: Ledger, folder: Path, rate: str) -> dict[str, Any]:
    """Return validation loss and accuracy after an epoch of the recipe's steps on lorafit's engine."""
    settings = {**name_settings(arguments), "learning_rate": rate, "max_length": arguments.recipe_length}
    overrides = [
        f"model.name={arguments.model}",
        f"model.max_length={arguments.recipe_length}",
        "method.r=8",
        "method.lora_alpha=32",
        "method.lora_dropout=0.1",
        "method.target_modules=query-value",
        "training.batch_size=16",
        "training.batch_tokens=8192",
        "training.schedule=linear",
        "training.warmup_ratio=0",
        "training.length_warmup=0",
        "training.epochs=1",
        "training.evaluations_per_epoch=1",
        f"training.learning_rate={rate}",
        *name_rows(folder),
    ]
    name = f"the recipe's steps, learning rate {rate}"
    validation = ledger.measure(name, settings, partial(run_fresh, run_schedule, overrides))["validations"][-1]
    print(f"{name}: validation loss {validation['loss']:.4f}, accuracy {validation['accuracy']:.4f}", flush=True)
    return dict(validation)


def name_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what decides the results of all parts of the comparison."""
    rows, validation = arguments.rows or 4000, arguments.validation_rows
    return {"model": arguments.model, "rows": rows, "validation_rows": validation}


def run_recipe(base: str, folder: Path, learning_rate: float, max_length: int) -> dict[str, Any]:
    """Train the recipe for an epoch in this process and measure it on the validation rows.

    Validation is outside the time, so its batches are sorted by length and nearly free of padding, in fp32: the same
    numbers as with padding to 512 tokens, much sooner.
    """
    import numpy as np
    from recipe import PaddedRows, build_model, fit_recipe

    from lorafit.inference.predictor import compute_logits
    from lorafit.models.acceleration.precision import PrecisionChoice
    from lorafit.models.load import load_tokenizer
    from lorafit.models.runtimes.pytorch import TorchRuntime
    from lorafit.models.tokenization import Truncation, tokenize
    from lorafit.tasks.base import TargetScaler
    from lorafit.tasks.registry import build_task

    encoder = encoder_folder(base)
    model = build_model(encoder)
    rows = PaddedRows(encoder, *read_rows(folder / "train.parquet"), max_length=max_length)
    seconds = fit_recipe(model, rows, output=folder / "recipe", learning_rate=learning_rate)
    texts, labels = read_rows(folder / "validation.parquet")
    tokenizer, pad_id = load_tokenizer(encoder)
    runtime = TorchRuntime(model, PrecisionChoice("fp32", "the recipe's"))
    tokens = tokenize(tokenizer, texts, Truncation(max_length))
    logits = compute_logits(runtime, tokens, pad_id, outputs=2)
    task = build_task("single_label", ("negative", "positive"))
    metrics = task.validation_metrics(np.array(labels), logits, TargetScaler())
    return {"seconds": seconds, "accuracy": metrics["accuracy"], "loss": metrics["loss"]}


def measure_schedule(
    arguments: argparse.Namespace, ledger: Ledger, folder: Path, epochs: int, seed: str
) -> dict[str, Any]:
    """Return validation results over time of one lorafit run."""
    chosen = [f"training.epochs={epochs}", f"training.seed={seed}", *arguments.overrides]
    settings = {**name_settings(arguments), "overrides": chosen, "evaluations": arguments.evaluations}
    overrides = [
        f"model.name={arguments.model}",
        f"training.evaluations_per_epoch={arguments.evaluations}",
        "training.early_stopping_patience=0",
        *name_rows(folder),
        *chosen,
    ]
    name = f"lorafit, {epochs} epochs, seed {seed}"
    return ledger.measure(name, settings, partial(run_fresh, run_schedule, overrides))


def run_schedule(overrides: list[str]) -> dict[str, Any]:
    """Train lorafit in this process and return its validations, of all validation rows."""
    config = load_config(overrides=[*ALONE, "data.calibration_fraction=0", *overrides])
    with tempfile.TemporaryDirectory() as folder:
        run = train(config, output=Path(folder) / "run")
        history = read_history(run)
    validations = [
        {
            "seconds": entry["step_seconds"],
            "epoch": entry["epoch"],
            "accuracy": entry["eval_accuracy"],
            "loss": entry["eval_loss"],
        }
        for entry in history
        if "eval_accuracy" in entry
    ]
    return {"seconds": step_seconds(run), "blocks": run.record.encoder_blocks, "validations": validations}


def print_trace(epochs: int, part: dict[str, Any]) -> None:
    """Print the validations of one run."""
    trace = ", ".join(f"{entry['accuracy']:.4f} at {entry['seconds']:.0f} s" for entry in part["validations"])
    print(f"lorafit, schedule of {epochs} epochs: {trace}", flush=True)


def print_verdict(recipe: dict[str, Any], parts: list[dict[str, Any]], epochs: int) -> None:
    """Print how much sooner lorafit was where the recipe was after its epoch."""
    target = recipe["accuracy"]
    last = statistics.median(part["validations"][-1]["accuracy"] for part in parts)
    reached = [
        next((entry["seconds"] for entry in part["validations"] if entry["accuracy"] >= target), float("inf"))
        for part in parts
    ]
    median = statistics.median(reached)
    print(
        f"| schedule of {epochs} epochs | recipe {target:.4f} after {recipe['seconds']:.0f} s | lorafit there after "
        f"{median:.0f} s (median of {len(parts)}) | {recipe['seconds'] / median:.1f} x | "
        f"lorafit at the end {last:.4f} |",
        flush=True,
    )


def trace_curve(arguments: argparse.Namespace, ledger: Ledger) -> None:
    """Train lorafit on all of IMDb with schedules of several lengths and print a row each."""
    print("| epochs | training steps | with validation | test accuracy | best at step |")
    print("|---|---|---|---|---|")
    for epochs in map(int, (arguments.epochs or "1,2,3").split(",")):
        chosen = [f"training.epochs={epochs}", *arguments.overrides]
        if arguments.rows:
            chosen.append(f"data.max_rows={arguments.rows}")
        settings = {"model": arguments.model, "overrides": chosen}
        overrides = ["data.source=imdb", f"model.name={arguments.model}", *chosen]
        name = f"curve, {epochs} epochs"
        result = ledger.measure(name, settings, partial(run_fresh, run_curve, overrides))
        accuracy = result["test_accuracy"]
        print(
            f"| {epochs} | {result['step_seconds']:.0f} s | {result['seconds']:.0f} s | "
            f"{100 * accuracy['value']:.2f} % [{100 * accuracy['low']:.2f}, {100 * accuracy['high']:.2f}] | "
            f"{result['best_step']} of {result['steps']} |",
            flush=True,
        )


def run_curve(overrides: list[str]) -> dict[str, Any]:
    """Train lorafit in this process and return time and test accuracy."""
    config = load_config(overrides=[*ALONE, *overrides])
    with tempfile.TemporaryDirectory() as folder:
        run = train(config, output=Path(folder) / "run")
    training = run.record.training
    if training is None:
        raise RuntimeError("the run has no training record")
    return {
        **training.model_dump(mode="json"),
        "step_seconds": step_seconds(run),
        "test_accuracy": run.metrics.after.metrics["accuracy"].model_dump(),
        "test_log_loss": run.metrics.after.metrics["log_loss"].model_dump(),
        "test_rows": run.metrics.rows,
        "peak_memory_bytes": run.record.peak_memory_bytes,
        "blocks": run.record.encoder_blocks,
    }


if __name__ == "__main__":
    main()
