"""What training costs by the number of rows, by their length and by threads: lorafit alone.

Run: LORAFIT_DATA=… python benchmarks/scaling.py [--only rows length threads] [--rows 1000,…] [--lengths 64,…]

One epoch on rows of IMDb's train split, each point in a process of its own, warmed up on other rows. Cost is the time
of the training steps for a thousand tokens, padding not counted. Points are kept in benchmarks/results/scaling.json as
soon as they are measured and not measured again, unless with --again.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from trials import BUILTIN, RESULTS, Ledger, cut_rows, measure_lorafit, name_rows, run_fresh

SERIES = ("rows", "length", "threads")
ALL_ROWS = 25_000
HELD_OUT = {"validation": 32, "test": 32, "warm-up": 48}


@dataclass(frozen=True)
class Point:
    """What one training varies."""

    rows: int
    length: int
    threads: int


def main() -> None:
    """Measure every point of the chosen series."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=SERIES, default=SERIES)
    parser.add_argument("--rows", default="1000,2500,5000,10000,25000", help="of the series of rows")
    parser.add_argument("--lengths", default="64,128,256,512", help="of the series of lengths")
    parser.add_argument("--threads", default="1,2", help="of the series of threads")
    parser.add_argument("--standard", default="2000,256,2", help="rows, length and threads where they are not varied")
    parser.add_argument("--model", default=BUILTIN)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--again", action="store_true", help="measure kept points again")
    parser.add_argument("--output", type=Path, default=RESULTS / "scaling.json")
    arguments = parser.parse_args()
    ledger = Ledger(arguments.output, again=arguments.again)
    print("| varied | rows | length | threads | s / 1,000 tokens | tokens/s | padding | peak memory |")
    print("|---|---|---|---|---|---|---|---|")
    for series in arguments.only:
        for point in list_points(series, arguments):
            settings = {**asdict(point), "model": arguments.model, "overrides": arguments.overrides}
            name = f"{point.rows} rows, {point.length} tokens, {point.threads} threads"
            print_row(series, point, ledger.measure(name, settings, partial(measure, point, arguments)))


def list_points(series: str, arguments: argparse.Namespace) -> Iterator[Point]:
    """Yield the points of a series."""
    rows, length, threads = map(int, arguments.standard.split(","))
    varied = {"rows": arguments.rows, "length": arguments.lengths, "threads": arguments.threads}[series]
    for value in map(int, varied.split(",")):
        yield Point(**{"rows": rows, "length": length, "threads": threads, series: value})


def measure(point: Point, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train once on fresh files and return the cost."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        most = ALL_ROWS - sum(HELD_OUT.values())
        run_fresh(cut_rows, folder, {**HELD_OUT, "train": min(point.rows, most)})
        settings = [
            f"model.name={arguments.model}",
            f"model.max_length={point.length}",
            "training.length_warmup=0",
            f"training.threads={point.threads}",
            "training.epochs=1",
            "training.evaluations_per_epoch=1",
            *name_rows(folder),
            *arguments.overrides,
        ]
        return run_fresh(measure_lorafit, settings, folder / "warm-up.parquet")


def print_row(series: str, point: Point, result: dict[str, Any]) -> None:
    """Print one point."""
    cost = 1000 * result["seconds"] / result["tokens"]
    print(
        f"| {series} | {result['rows']:,} | {point.length} | {point.threads} | {cost:.4f} | {1000 / cost:,.0f} | "
        f"{1 - result['tokens'] / result['positions']:.1%} | {result['peak_memory_bytes'] / 1e9:.2f} GB |",
        flush=True,
    )


if __name__ == "__main__":
    main()
