"""How is a model of few rows calibrated out of fold? By the number of folds, and by whether they share a penalty.

Run: LORAFIT_DATA=… python benchmarks/folds.py [--data NAME,NAME] [--per-class 16,64] [--draws 12] [--setfit]

The regression on frozen embeddings, as it takes no time to train, is fitted to so many rows of each class, drawn by a
seed, and calibrated on the same rows, each predicted by a regression on the other folds: with a penalty that each fold
chooses by cross-validation on its own rows, or with the one that all rows choose. Its log loss, and how often its
conformal sets of 95 % hold the label, are measured on 1,000 other rows; beside them stands the calibrated log loss of
the training rows out of fold. With `--setfit` it is SetFit that is trained, on each draw once and on five and on three
folds. All rows are of the train splits, cut at 128 tokens. Parts are kept in benchmarks/results/folds.json.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from few_rows import BUILTIN, SOURCES, draw
from numpy.typing import NDArray
from trials import RESULTS, Ledger, run_fresh

from lorafit.data.rows import Split
from lorafit.tasks.base import Task

POOL, SCORED, COVERAGE = 3000, 1000, 0.95
SETFIT_FOLDS = (5, 3)
WAYS = {"5 folds, a penalty each": (5, False), "5 folds, one penalty": (5, True), "3 folds, one penalty": (3, True)}


def main() -> None:
    """Measure every data set, and print a line for each size and number of folds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="rotten-tomatoes,imdb,r8")
    parser.add_argument("--per-class", default="16,64")
    parser.add_argument("--draws", type=int, default=12)
    parser.add_argument("--setfit", action="store_true")
    arguments = parser.parse_args()
    ways = [f"SetFit, {count} folds" for count in SETFIT_FOLDS] if arguments.setfit else [*WAYS]
    sizes = [*map(int, arguments.per_class.split(","))]
    ledger = Ledger(RESULTS / "folds.json", again=False)
    print(
        "| data | rows a class | calibrated by | log loss (most) | change, in pairs | coverage (least) | out of fold |"
    )
    print("|---|---|---|---|---|---|---|")
    for data in arguments.data.split(","):
        settings = {"per_class": sizes, "draws": arguments.draws, "ways": ways}
        work, name = (measure_setfit, f"{data} setfit {arguments.per_class}") if arguments.setfit else (measure, data)
        found = ledger.measure(name, settings, partial(run_fresh, work, data, sizes, arguments.draws))
        for size, way in product(sizes, ways):
            part, first = found[f"{size}, {way}"], found[f"{size}, {ways[0]}"]
            losses = np.array(part["losses"])
            change = losses - first["losses"]
            error = change.std(ddof=1) / np.sqrt(len(change))
            print(
                f"| {data} | {size} | {way} | {losses.mean():.3f} ({losses.max():.3f}) | "
                f"{change.mean():+.3f} ± {error:.3f} | {np.mean(part['coverage']):.1%} ({min(part['coverage']):.1%}) | "
                f"{np.mean(part['held_out']):.3f} |",
                flush=True,
            )


def measure(data: str, sizes: Sequence[int], draws: int) -> dict[str, dict[str, list[float]]]:
    """Return losses and coverage of each draw, by rows a class and way."""
    from lorafit.config import load_config
    from lorafit.data.splits import sample_rows
    from lorafit.models.load import load_tokenizer
    from lorafit.models.tokenization import Truncation, tokenize
    from lorafit.runs.bases import locate_base
    from lorafit.training.embedding_baseline import EmbeddingModel, FrozenBase, choose_penalty, predict_out_of_fold
    from lorafit.training.folds import assign_folds

    task, rows = SOURCES[data]()
    rows = sample_rows(rows, POOL, 0, task)
    config = load_config(overrides=[f"model.name={BUILTIN}", "model.max_length=128"])
    encoder = locate_base(config.model)
    tokenizer, pad_id = load_tokenizer(encoder.folder)
    base = FrozenBase.load(encoder, task, pad_id, config)
    states = base.embed(tokenize(tokenizer, rows.texts, Truncation(128, config.model.truncation)))
    place = {row: index for index, row in enumerate(rows.ids.tolist())}
    found: dict[str, dict[str, list[float]]] = {}
    for size, seed in product(sizes, range(draws)):
        train, others = draw(task, rows, {"per_class": size, "seed": seed, "scored": SCORED})
        own, scored = ([place[row] for row in part.ids.tolist()] for part in (train, others))
        strength = choose_penalty(task, states[own], train.y, seed=0)
        logits = EmbeddingModel.fit(task, states[own], train.y, strength=strength).compute_logits(states[scored])
        for way, (count, is_common) in WAYS.items():
            folds, penalty = assign_folds(train, task, count, seed=seed), strength if is_common else None
            held_out = task.deactivate(predict_out_of_fold(task, states[own], train.y, folds, strength=penalty))
            keep(found.setdefault(f"{size}, {way}", {}), score(task, train.y, held_out, others, logits))
    return found


def measure_setfit(data: str, sizes: Sequence[int], draws: int) -> dict[str, dict[str, list[float]]]:
    """Return of SetFit the same, by rows a class and number of folds, with the seconds of the folds."""
    from lorafit.config import load_config
    from lorafit.data.rows import Splits
    from lorafit.data.splits import sample_rows
    from lorafit.models.load import load_tokenizer
    from lorafit.runs.bases import locate_base
    from lorafit.runs.folder import RunLayout
    from lorafit.system.progress import Silent
    from lorafit.training.folds import assign_folds, cross_fit
    from lorafit.training.prepare import Material, prepare
    from lorafit.training.stages import RunStages

    task, rows = SOURCES[data]()
    rows = sample_rows(rows, POOL, 0, task)
    config = load_config(overrides=[f"model.name={BUILTIN}", "model.max_length=128", "method.name=setfit"])
    encoder = locate_base(config.model)
    found: dict[str, dict[str, list[float]]] = {}
    for size, seed in product(sizes, range(draws)):
        train, others = draw(task, rows, {"per_class": size, "seed": seed, "scored": SCORED})
        splits = Splits("rows", task, train, train.select(np.arange(0)), others)
        material = Material(splits, encoder, *load_tokenizer(encoder.folder))
        with tempfile.TemporaryDirectory() as folder:
            stages = RunStages.begin(prepare(config, Silent(), material=material), RunLayout(Path(folder)), Silent())
            out_of_fold = {}
            for count in SETFIT_FOLDS:
                began = time.perf_counter()
                out_of_fold[count] = cross_fit(stages, assign_folds(train, task, count, seed=seed), Silent())
                seconds = time.perf_counter() - began
                keep(found.setdefault(f"{size}, SetFit, {count} folds", {}), {"seconds": seconds})
            stages.fit(resumable=False)
            logits = stages.compute_logits("test")
        for count, held_out in out_of_fold.items():
            keep(found[f"{size}, SetFit, {count} folds"], score(task, train.y, held_out, others, logits))
    return found


def score(
    task: Task, y: NDArray[np.int64], held_out: NDArray[np.floating], others: Split, logits: NDArray[np.floating]
) -> dict[str, float]:
    """Return what logits of other rows give, calibrated on rows that are predicted out of fold."""
    calibration = task.fit_calibration(y, held_out, coverage=COVERAGE)
    values = task.activate(logits, calibration)
    sets = [task.predict(row, calibration).conformal_set for row in values]
    names = [task.label_names[label] for label in others.y]
    return {
        "losses": float(-np.log(values[np.arange(len(values)), others.y].clip(1e-12)).mean()),
        "coverage": float(np.mean([name in held for name, held in zip(names, sets, strict=True)])),
        "held_out": calibration.log_loss_after,
    }


def keep(part: dict[str, list[float]], values: Mapping[str, float]) -> None:
    """Add the values of a draw."""
    for name, value in values.items():
        part.setdefault(name, []).append(value)


if __name__ == "__main__":
    main()
