"""Learning rates of the ten most used methods, compared on validation rows of the built-in reviews.

Run: python benchmarks/method_rates.py [--methods lora,full,…] [--factors 0.33,1,3] [--seeds 0,1] [--set key=value …]

Each method is trained for 150 steps of 128 tokens on rotten tomatoes, with its default rates times each factor, the
head's among them. A run is judged by the lowest calibrated validation loss it reached; test rows play no part. Each
cell is kept in benchmarks/results/method-rates.json as soon as it is measured, and not measured again. Prints a table
with a star at the best rate of a method.
"""

import argparse
from functools import partial

from defaults import COMMON, measure
from trials import RESULTS, Ledger, run_fresh

from lorafit.models.methods import METHODS

MOST_USED = ["lora", "lora_plus", "rslora", "pissa", "dora", "adalora", "ia3", "bitfit", "full", "houlsby"]
SETTINGS = [
    "data.source=builtin:rotten-tomatoes",
    "model.max_length=128",
    "training.max_steps=150",
    "training.evaluations_per_epoch=8",
]


def main() -> None:
    """Measure what is not kept, and print all that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(MOST_USED), help="comma-separated")
    parser.add_argument("--factors", default="0.33,1,3", help="comma-separated, of the default rates")
    parser.add_argument("--seeds", default="0", help="comma-separated")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    arguments = parser.parse_args()
    ledger = Ledger(RESULTS / "method-rates.json", again=False)
    factors, seeds = [float(one) for one in arguments.factors.split(",")], arguments.seeds.split(",")
    print("| method | rate | head | calibrated loss by seed | accuracy by seed |\n|---|---|---|---|---|")
    for method in arguments.methods.split(","):
        rows = {}
        for factor in factors:
            settings = [*SETTINGS, *name_rates(method, factor), *arguments.overrides]
            rows[factor] = [
                ledger.measure(
                    f"{method}, {factor:g}, seed {seed}",
                    {"settings": [*COMMON, *settings]},
                    partial(run_fresh, measure, settings, int(seed)),
                )
                for seed in seeds
            ]
        print_rows(method, rows)


def name_rates(method: str, factor: float) -> list[str]:
    """Return the settings of a method with its default rates times a factor."""
    row = METHODS[method]
    rates = {"learning_rate": row.learning_rate, "head_learning_rate": row.head_learning_rate}
    changed = [f"training.{name}={rate * factor:.3g}" for name, rate in rates.items() if rate is not None]
    return [f"method.name={method}", *changed]


def print_rows(method: str, rows: dict[float, list[dict[str, float]]]) -> None:
    """Print the rates of one method as lines of a Markdown table."""
    losses = {factor: sum(one["calibrated_loss"] for one in results) for factor, results in rows.items()}
    for factor, results in rows.items():
        star = " *" if losses[factor] == min(losses.values()) else ""
        rates = [setting.partition("=")[2] for setting in name_rates(method, factor)[1:]]
        head = rates[1] if len(rates) > 1 else "same"
        by_seed = ", ".join(f"{one['calibrated_loss']:.4f}" for one in results)
        accuracies = ", ".join(f"{one['accuracy']:.2%}" for one in results)
        print(f"| {method}{star} | {rates[0]} | {head} | {by_seed} | {accuracies} |", flush=True)


if __name__ == "__main__":
    main()
