"""What training and prediction keep of their speed on a busy machine.

Run: LORAFIT_DATA=… python benchmarks/contention.py [--neighbours 0 1 2 4 6] [--sides …] [--rows 96] [--seconds 5]
     [--repeats 2]

A neighbour is a process that computes without end on one core. Beside n of them a program of c threads on c cores has a
fair share of c / (c + n) of the cores, but only if its threads, which wait for each other, let go of a core while they
do. Sides with "own waiting" leave that to the libraries: to libgomp, as a Python program does that imports lorafit, and
to onnxruntime. Training is lorafit at its defaults, and Trainer and PEFT (`recipe.py`, 256 tokens); prediction is of
the same texts, tokenising included, by the run in torch and by its int8 exports, in one call after the other or in
calls of eight threads at once, each for its part of the texts. Every measurement is a process of its own after a
warm-up, in turns; medians count. Nothing else may run. Writes benchmarks/results/contention.json.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from trials import (
    BUILTIN,
    RESULTS,
    cut_rows,
    encoder_folder,
    measure_lorafit,
    name_rows,
    read_rows,
    run_fresh,
    write_results,
)

from lorafit.system.hardware import available_cores
from lorafit.system.variables import defaults, sharing_cores

LORAFIT, OWN, PEER = "lorafit", "lorafit, libgomp's own waiting", "Trainer and PEFT"
TORCH, OPENVINO, INT8, INT8_OWN = "torch", "openvino in int8", "int8", "int8, onnxruntime's own waiting"
CALLERS = 8
TORCH_MANY, INT8_MANY = f"torch, called by {CALLERS} threads", f"int8, called by {CALLERS} threads"
TRAINING, PREDICTION = (LORAFIT, OWN, PEER), (TORCH, TORCH_MANY, OPENVINO, INT8, INT8_MANY, INT8_OWN)
LENGTH = 256
NEIGHBOUR = """
import os, sys

while os.getppid() == int(sys.argv[1]):  # however that one ends
    for _ in range(10**6):
        pass
"""


def main() -> None:
    """Measure all sides beside each number of neighbours."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neighbours", type=int, nargs="*", default=[0, 1, 2, 4, 6])
    parser.add_argument("--sides", nargs="*", choices=[*TRAINING, *PREDICTION], default=[*TRAINING, *PREDICTION])
    parser.add_argument("--rows", type=int, default=96, help="to train on; Trainer and PEFT get a third of them")
    parser.add_argument("--seconds", type=float, default=5.0, help="of prediction")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULTS / "contention.json")
    arguments = parser.parse_args()
    speeds: dict[str, dict[int, list[float]]] = {side: {} for side in arguments.sides}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counts = {"train": arguments.rows, "warm-up": 32, "validation": 64, "test": 200}
        run_fresh(cut_rows, folder, counts)
        if set(PREDICTION) & set(arguments.sides):
            run_fresh(make_models, folder)
        for _ in range(arguments.repeats):
            for count, side in product(arguments.neighbours, arguments.sides):
                with neighbours(count):
                    speed = measure(side, folder, arguments.seconds)
                speeds[side].setdefault(count, []).append(speed)
                print(f"{side:34s} beside {count}: {speed:8.1f} texts/s", flush=True)
            medians = {
                side: {count: statistics.median(found) for count, found in of_side.items()}
                for side, of_side in speeds.items()
            }
            write_results(arguments.output, {"threads": available_cores(), "texts_per_second": medians})
    print_table(medians)


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Keep so many processes busy inside the block."""
    busy = [subprocess.Popen([sys.executable, "-c", NEIGHBOUR, str(os.getpid())]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def make_models(folder: Path) -> None:
    """Train a run for one step, and export it in int8: how well it predicts does not matter here."""
    import lorafit
    from lorafit.config import load_config

    quiet = [f"evaluation.{name}=false" for name in ("report", "before", "baselines")]
    settings = [f"model.name={BUILTIN}", *name_rows(folder), "training.max_steps=1", *quiet]
    lorafit.train(load_config(overrides=settings), output=folder / "run")
    for runtime, name in (("onnxruntime", INT8), ("openvino", OPENVINO)):
        lorafit.export(folder / "run", int8=True, runtime=runtime, output=folder / name, allow_drift=True)


def measure(side: str, folder: Path, seconds: float) -> float:
    """Return texts a second of a side."""
    with sharing_cores() if side not in {OWN, PEER, INT8_OWN} else defaults({}):
        if side == PEER:
            found = run_fresh(run_recipe, folder)
        elif side in TRAINING:
            settings = [f"model.name={BUILTIN}", *name_rows(folder), "training.epochs=1"]
            found = run_fresh(measure_lorafit, settings, folder / "warm-up.parquet")
        else:
            return run_fresh(predict, side, folder, seconds)
    return float(found["rows"] / found["seconds"])


def run_recipe(folder: Path) -> dict[str, Any]:
    """Measure Trainer and PEFT in this process."""
    from recipe import measure_recipe

    texts, labels = read_rows(folder / "train.parquet")
    return measure_recipe(
        encoder_folder(BUILTIN),
        texts[: len(texts) // 3],
        labels[: len(texts) // 3],
        warm_up=tuple(part[:16] for part in read_rows(folder / "warm-up.parquet")),
        output=folder / "recipe",
        max_length=LENGTH,
    )


def predict(side: str, folder: Path, seconds: float) -> float:
    """Predict the test rows again and again in this process; return texts a second."""
    import lorafit

    texts, _ = read_rows(folder / "test.parquet")
    places = {TORCH: "run", TORCH_MANY: "run", INT8_MANY: INT8, INT8_OWN: INT8}
    predictor = lorafit.load(folder / places.get(side, side))
    if side == INT8_OWN:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = available_cores()
        session = onnxruntime.InferenceSession(str(folder / INT8 / "model_quantized.onnx"), options)
        predictor.runtime._session = session  # noqa: SLF001 - all else stays the same
    callers = CALLERS if side in {TORCH_MANY, INT8_MANY} else 1
    parts = [texts[caller::callers] for caller in range(callers)]
    with ThreadPoolExecutor(callers) as pool:
        ask = partial(pool.map, predictor.predict_proba, parts)
        list(ask())
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            done += sum(map(len, ask()))
        return done / (time.perf_counter() - began)


def print_table(medians: dict[str, dict[int, float]]) -> None:
    """Print texts a second, and the share of the speed beside nothing."""
    counts = list(next(iter(medians.values())))
    cores = available_cores()
    print(f"| | {' | '.join(f'beside {count}' for count in counts)} |\n|---{'|---' * len(counts)}|")
    print(f"| fair share | {' | '.join(f'{cores / (cores + count):.0%}' for count in counts)} |")
    for side, found in medians.items():
        alone = found.get(0, float("nan"))
        print(f"| {side} | {' | '.join(f'{found[count]:.1f} ({found[count] / alone:.0%})' for count in counts)} |")


if __name__ == "__main__":
    os.environ.pop("GOMP_SPINCOUNT", None)
    main()
