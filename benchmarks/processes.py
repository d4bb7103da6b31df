"""What several processes on one machine make of a training, and how far their losses are from those of one process.

Run: python benchmarks/processes.py [--processes 1 2] [--steps 80] [--seeds 0 1 2]

Trains builtin:rotten-tomatoes on builtin:distil-minilm at lorafit's defaults, with dropout in the head, by the command
itself, in turns; the same seeds for every number of processes. Figures are those of `run.json`; `seconds` are those of
the whole command, which measures nothing before training and writes no report; `load` is the machine's load when it
began, in processes: nothing else should run. Writes benchmarks/results/processes.json.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from trials import RESULTS, write_results

from lorafit.runs.folder import RunLayout
from lorafit.runs.records import RunRecord

SETTINGS = ("evaluation.before=false", "evaluation.baselines=false", "evaluation.report=false")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=RESULTS / "processes.json")
    arguments = parser.parse_args()
    trials = [
        measure(processes, seed, arguments.steps) for seed in arguments.seeds for processes in arguments.processes
    ]
    medians = {
        str(processes): {
            name: statistics.median(trial[name] for trial in trials if trial["processes"] == processes)
            for name in ("tokens_per_second", "padding_share", "idle_share", "validation_loss", "seconds")
        }
        for processes in arguments.processes
    }
    for processes, figures in medians.items():
        print(processes, {name: round(value, 4) for name, value in figures.items()})
    write_results(arguments.output, {"steps": arguments.steps, "medians": medians, "trials": trials})


def measure(processes: int, seed: int, steps: int) -> dict[str, Any]:
    """Train once and return what it came to."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["train", "builtin:rotten-tomatoes", "-m", "builtin:distil-minilm", "--blend", "off", "-q"]
        words += ["-o", f"{folder}/run", "--processes", str(processes), "--seed", str(seed)]
        words += [word for setting in (*SETTINGS, f"training.max_steps={steps}") for word in ("--set", setting)]
        load, began = os.getloadavg()[0], time.perf_counter()
        subprocess.run([sys.executable, "-m", "lorafit", *words], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
        training = RunRecord.read(RunLayout(Path(folder) / "run").record).training
    if training is None:
        raise SystemExit("nothing was trained")
    return {
        "processes": training.processes,
        "seed": seed,
        "tokens_per_second": training.tokens_per_second,
        "padding_share": training.padding_share,
        "idle_share": training.idle_share or 0.0,
        "validation_loss": training.best_validation_loss,
        "seconds": seconds,
        "load": load,
    }


if __name__ == "__main__":
    main()
