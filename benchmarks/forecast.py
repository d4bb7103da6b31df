"""How well the forecast holds: seconds foreseen and seconds needed, stage by stage.

Run: LORAFIT_DATA=… python benchmarks/forecast.py [imdb|rotten-tomatoes] [--budget 10m …] [--set section.key=value …]

Trains the built-in encoder once as asked and once for each budget. Writes benchmarks/results/forecast-DATA.json and
prints a table. An early stop makes a run shorter than foreseen, so there is none here.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from environment import describe_environment
from trials import run_fresh

from lorafit.cli.render.progress import PlainProgress
from lorafit.config import load_config
from lorafit.runs.records import RunRecord
from lorafit.training.pipeline import train

SOURCES = {"imdb": "imdb", "rotten-tomatoes": "builtin:rotten-tomatoes"}


def main() -> None:
    """Train, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=SOURCES, nargs="?", default="imdb")
    parser.add_argument("--budget", action="append", default=[], metavar="TIME")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    arguments = parser.parse_args()
    cases = {}
    for budget in [None, *arguments.budget]:
        record = run_fresh(run, SOURCES[arguments.data], budget, arguments.overrides)
        cases[budget or "as asked"] = record
        print_case(budget, record)
    results = Path(__file__).with_name("results") / f"forecast-{arguments.data}.json"
    content = {
        "environment": describe_environment(),
        "overrides": arguments.overrides,
        "runs": {name: record.model_dump(mode="json", exclude={"files"}) for name, record in cases.items()},
    }
    results.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def run(source: str, budget: str | None, overrides: Sequence[str]) -> RunRecord:
    """Train once and return the record."""
    flags = {
        "data.source": source,
        "model.name": "builtin:distil-minilm",
        "training.early_stopping_patience": 0,
        "training.budget": budget,
    }
    with tempfile.TemporaryDirectory() as folder:
        config = load_config(flags=flags, overrides=overrides)
        return train(config, output=Path(folder) / "run", progress=PlainProgress()).record


def print_case(budget: str | None, record: RunRecord) -> None:
    """Print a table of the stages."""
    forecast = record.forecast
    if forecast is None:
        raise RuntimeError("the run has no forecast")
    print(f"\n{'no budget' if budget is None else f'budget {budget}'}: {', '.join(forecast.given_up) or 'as asked'}\n")
    print("| stage | forecast, s | real, s | error |\n|---|---|---|---|")
    rows = [(name, forecast.seconds[name], seconds) for name, seconds in record.seconds.items()]
    rows.append(("all", sum(forecast.seconds.values()), sum(record.seconds.values())))
    for name, foreseen, real in rows:
        print(f"| {name} | {foreseen:.1f} | {real:.1f} | {foreseen / real - 1:+.0%} |")
    print(f"\nmemory: {forecast.peak_memory_bytes / 1e9:.2f} GB foreseen, {record.peak_memory_bytes / 1e9:.2f} GB real")


if __name__ == "__main__":
    main()
