"""What an epoch and a second trial cost with adapters in the top layers, with and without the prefix cache.

Run: LORAFIT_DATA=… python benchmarks/prefix_cache.py [--rows 2000] [--layers top3]

`builtin:distil-minilm`, IMDb training rows, lorafit's defaults but for what a line says. Each run is a process of its
own. Seconds are those of the stages `frozen layers` and `training`: computing or checking the cache, steps,
checkpoints, and validation on 32 rows. A further epoch is the difference between a run of two epochs and one of one;
the cache is shared between the last runs, so the second of them is a further trial. Writes
benchmarks/results/prefix_cache.json.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from trials import BUILTIN, RESULTS, cut_rows, measure_stages, name_rows, run_fresh, write_results

EPOCH = ["training.epochs=1"]
EPOCHS = ["training.epochs=2", "training.early_stopping_patience=0"]


def main() -> None:
    """Measure every line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--layers", default="top3")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--output", type=Path, default=RESULTS / "prefix_cache.json")
    arguments = parser.parse_args()
    top, cached = [f"method.layers={arguments.layers}"], ["training.prefix_cache=shared"]
    plain = [*top, "training.prefix_cache=never"]
    lines = {
        "all layers, 1 epoch": EPOCH,
        "all layers, 2 epochs": EPOCHS,
        f"{arguments.layers}, 1 epoch": [*plain, *EPOCH],
        f"{arguments.layers}, 2 epochs": [*plain, *EPOCHS],
        f"{arguments.layers}, cache, 1 epoch": [*top, *cached, *EPOCH],
        f"{arguments.layers}, cache of the run before, 1 epoch": [*top, *cached, *EPOCH, "training.seed=1"],
        f"{arguments.layers}, cache of the run before, 2 epochs": [*top, *cached, *EPOCHS, "training.seed=2"],
    }
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_fresh(cut_rows, folder, {"train": arguments.rows, "validation": 32, "test": 32})
        common = [f"model.name={BUILTIN}", *name_rows(folder), "training.evaluations_per_epoch=1"]
        common += ["training.length_warmup=0"]
        for line, settings in lines.items():
            stages = run_fresh(measure_stages, [*common, *settings, *arguments.overrides], cache=folder / "cache")
            seconds[line] = stages["training"] + stages.get("frozen layers", 0.0)
            print(f"{line:45s} {seconds[line]:7.1f} s", flush=True)
    results = summarise(seconds)
    write_results(arguments.output, {"rows": arguments.rows, "seconds": seconds, **results})


def summarise(seconds: dict[str, float]) -> dict[str, Any]:
    """Print and return what a further epoch and a further trial cost, against all layers without the cache."""
    all_once, all_twice, top_once, top_twice, filled, again, again_twice = seconds.values()
    further = {
        "epoch, all layers": all_twice - all_once,
        "epoch, top layers": top_twice - top_once,
        "epoch, top layers, cache": again_twice - again,
        "trial of one epoch, all layers": all_once,
        "trial of one epoch, top layers, cache": again,
        "first run of one epoch, top layers, cache": filled,
    }
    reference = {"epoch": all_twice - all_once, "trial": all_once, "first": all_once}
    print("\n| a further | seconds | of all layers |\n|---|---|---|")
    for name, cost in further.items():
        print(f"| {name} | {cost:.1f} | {cost / reference[name.split()[0].rstrip(',')]:.0%} |")
    return {"further": further}


if __name__ == "__main__":
    main()
