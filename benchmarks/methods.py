"""Methods compared on IMDb with the built-in encoder; and what comparing saves against training each apart.

Run: LORAFIT_DATA=… python benchmarks/methods.py small|all|epoch|cost [--folder FOLDER] [--methods lora,full,…]
[--layers top3,all] [--set section.key=value …]

`small`: seven methods and the baselines with three seeds on 5,000 training, 1,000 validation and 2,000 held-out
reviews of IMDb's train split, two epochs. `all`: the same methods with one seed on all of IMDb, an epoch, measured on
its test split. Both are `lorafit compare` with its defaults, each method with its own rates; a comparison that is in
FOLDER already is resumed. Seconds in it are worth nothing if the machine did other work.

`epoch`: seconds that the steps of an epoch on 512 reviews take with each of the methods, after a warm-up on others,
each in a process of its own.

`cost`: eight methods on such rows, 5,000 of them held out, in the top three layers and in all of them, compared, and
each in a run and a process of its own, both without baselines. Writes benchmarks/results/methods-….json and prints the
table.
"""

import argparse
import json
import tempfile
import time
from functools import partial
from pathlib import Path

from environment import describe_environment
from trials import BUILTIN, RESULTS, Ledger, cut_rows, measure_lorafit, name_rows, run_fresh

from lorafit.cli.render.progress import PlainProgress
from lorafit.config import load_config
from lorafit.experiments.compare.compare import compare
from lorafit.experiments.compare.page import write_difference
from lorafit.experiments.compare.records import ComparisonRecord
from lorafit.system.atomic import write_atomic
from lorafit.training.pipeline import train

METHODS = ["lora", "full", "head_only", "bitfit", "ia3", "dora", "vera"]
ALIKE = ["lora", "rslora", "lora_plus", "dora", "pissa", "vera", "ia3", "lokr"]
ROWS = {
    "small": {"train": 5000, "validation": 1000, "test": 2000},
    "cost": {"train": 5000, "validation": 1000, "test": 5000},
    "epoch": {"train": 512, "warm-up": 64, "validation": 32, "test": 32},
}
WITHOUT_BASELINES = ["evaluation.before=false", "evaluation.baselines=false"]


def main() -> None:
    """Run one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=("small", "all", "epoch", "cost"))
    parser.add_argument("--folder", type=Path, help="where the runs are kept; a temporary one when absent")
    parser.add_argument("--methods", default=",".join(METHODS), help="which methods are compared")
    parser.add_argument("--layers", default="top3,all", help="which layers `cost` adapts")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = (arguments.folder or Path(name)).resolve()
        rows = ["data.source=imdb"]
        if arguments.study != "all":
            (folder / "rows").mkdir(parents=True, exist_ok=True)
            run_fresh(cut_rows, folder / "rows", ROWS[arguments.study])
            rows = name_rows(folder / "rows")
        settings = [f"model.name={BUILTIN}", *rows, *arguments.overrides]
        if arguments.study == "cost":
            measure_cost(settings, folder, arguments.layers.split(","))
        elif arguments.study == "epoch":
            measure_epochs([*settings, "training.epochs=1"], folder / "rows" / "warm-up.parquet", arguments.overrides)
        else:
            compare_methods(arguments.study, arguments.methods.split(","), settings, folder / arguments.study)


def compare_methods(study: str, methods: list[str], settings: list[str], folder: Path) -> None:
    """Compare the methods; write and print the record."""
    epochs, seeds = {"small": (2, 3), "all": (1, 1)}[study]
    settings = [f"training.epochs={epochs}", *settings]
    record = run_fresh(run_comparison, settings, methods, seeds, folder)
    content = {"environment": describe_environment(), "settings": settings, "record": record.model_dump(mode="json")}
    text = json.dumps(content, indent=2).replace(f"{folder.parent}/", "")
    write_atomic(RESULTS / f"methods-{study}.json", text + "\n")
    print_table(record)


def run_comparison(settings: list[str], methods: list[str], seeds: int, folder: Path) -> ComparisonRecord:
    """Compare in this process."""
    config = load_config(overrides=settings)
    return compare(config, methods, seeds=seeds, output=folder, progress=PlainProgress()).record


def print_table(record: ComparisonRecord) -> None:
    """Print the comparison as Markdown."""
    metric = record.metric
    print(f"| method | {metric.title} | by seed | against the best | validation loss | trained | an epoch | memory |")
    print("|---|---|---|---|---|---|---|---|")
    for row in record.methods:
        by_seed = ", ".join(map(metric.write_value, row.score_by_seed))
        print(
            f"| {row.method} | {metric.write(row.score)} | {by_seed} | {write_difference(metric, row) or 'best'} | "
            f"{row.validation_loss:.4f} | {row.parameters.adapter + row.parameters.head:,} | "
            f"{row.epoch_seconds:.0f} s | {row.peak_memory_bytes / 1e9:.1f} GB |"
        )
    for baseline in record.baselines:
        score, difference = metric.write(baseline.score), write_difference(metric, baseline)
        print(f"| {record.title_of(baseline)} | {score} | | {difference} | | | {baseline.seconds:.0f} s in all | |")


def measure_epochs(settings: list[str], warm_up: Path, overrides: list[str]) -> None:
    """Time the steps of one epoch with every method; print them beside those of full fine-tuning."""
    ledger = Ledger(RESULTS / "methods-epoch.json", again=False)
    results = {
        method: ledger.measure(
            method,
            {"overrides": overrides},
            partial(run_fresh, measure_lorafit, [*settings, f"method.name={method}"], warm_up),
        )
        for method in METHODS
    }
    print("| method | s an epoch | of full | peak memory |\n|---|---|---|---|")
    for method, result in results.items():
        share = result["seconds"] / results["full"]["seconds"]
        print(f"| {method} | {result['seconds']:.1f} | {share:.2f} | {result['peak_memory_bytes'] / 1e9:.2f} GB |")


def measure_cost(settings: list[str], folder: Path, layer_choices: list[str]) -> None:
    """Time the comparison and the runs apart; parts that were measured are kept."""
    ledger = Ledger(RESULTS / "methods-cost.json", again=False)
    for layers in layer_choices:
        common = [*settings, *WITHOUT_BASELINES, f"method.layers={layers}"]
        named = {"overrides": [setting for setting in common if str(folder) not in setting]}
        together = ledger.measure(f"compared, {layers}", named, partial(time_comparison, common))
        apart = [
            ledger.measure(f"{method} apart, {layers}", named, partial(time_run, common, method)) for method in ALIKE
        ]
        total = sum(part["seconds"] for part in apart)
        print(
            f"| {layers} | compared {together['seconds']:.0f} s | apart {total:.0f} s | "
            f"{together['seconds'] / total:.0%} |",
            flush=True,
        )


def time_comparison(settings: list[str]) -> dict[str, float]:
    """Compare the eight methods in a fresh process, its start included."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        run_fresh(run_comparison, settings, ALIKE, 1, Path(folder) / "methods")
        return {"seconds": time.perf_counter() - began}


def time_run(settings: list[str], method: str) -> dict[str, float]:
    """Train one method in a fresh process, its start included."""
    began = time.perf_counter()
    run_fresh(run_apart, [*settings, f"method.name={method}"])
    return {"seconds": time.perf_counter() - began}


def run_apart(settings: list[str]) -> None:
    """Train in this process."""
    with tempfile.TemporaryDirectory() as folder:
        train(load_config(overrides=settings), output=Path(folder) / "run", progress=PlainProgress())


if __name__ == "__main__":
    main()
