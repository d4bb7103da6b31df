"""One run on the whole of IMDb with the built-in encoder: accuracy before and after, time, speed, memory.

Run: LORAFIT_DATA=… python benchmarks/imdb.py [--set section.key=value …] [--output FILE] [--run FOLDER]

The test rows (25,000) are measured once, after everything was chosen on validation rows cut from train. Writes
benchmarks/results/imdb.json, or FILE, and prints the row for the README's table. The run is kept where --run says.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from environment import describe_environment
from trials import read_history

from lorafit.cli.render.progress import PlainProgress
from lorafit.config import load_config
from lorafit.training.pipeline import train

RESULTS = Path(__file__).with_name("results") / "imdb.json"


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--run", type=Path, help="where to keep the run folder")
    arguments = parser.parse_args()
    flags = {"data.source": "imdb", "model.name": "builtin:distil-minilm"}
    config = load_config(flags=flags, overrides=arguments.overrides)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = train(config, output=arguments.run or Path(folder) / "imdb", progress=PlainProgress())
        validations = [entry for entry in read_history(run) if "eval_loss" in entry]
    result = {
        "environment": describe_environment(),
        "overrides": arguments.overrides,
        "config": config.model_dump(mode="json"),
        "validations": validations,
        "record": run.record.model_dump(mode="json", exclude={"files"}),
        "metrics": run.metrics.model_dump(mode="json"),
        "total_seconds": time.perf_counter() - began,
    }
    arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    record, metrics = run.record, run.metrics
    if record.training is None:
        raise RuntimeError("the run is not complete")
    accuracy = run.record.build_task().metrics["accuracy"]
    before = "not measured" if metrics.before is None else accuracy.write(metrics.before.metrics["accuracy"])
    print(
        f"| {before} | {accuracy.write(metrics.after.metrics['accuracy'])} | "
        f"{metrics.after.metrics['log_loss'].value:.3f} | {record.training.epochs:.1f} epochs in "
        f"{record.training.seconds / 60:.0f} min | {record.training.tokens_per_second:,.0f} tokens/s | "
        f"{record.peak_memory_bytes / 1e9:.1f} GB |"
    )


if __name__ == "__main__":
    main()
