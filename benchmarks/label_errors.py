"""Flipped labels of IMDb: how many of them are found, and what correcting them is worth.

Run: LORAFIT_DATA=… python benchmarks/label_errors.py [--rows 25000] [--seeds 101 102] [--models nb_svm tfidf encoder]
     [--accuracy nb_svm] [--set section.key=value …] [--cache FOLDER] [--output FILE]

Flips 5 % of the labels of training reviews, predicts all of them out of fold by each model, and lets
`Task.suspect_labels` judge by each model and by means of several: precision and recall against the flips. Real errors
among IMDb's own labels count as false alarms. Then a reviewer sets right what is wrong among the labels that the mean
of all models finds, and the models of --accuracy are trained on flipped, corrected and original labels and measured on
the 25,000 test reviews. Cleanlab's method and the plain mean of the baselines were chosen on seed 100, which is none of
the defaults; that the encoder joins the mean was fixed before it was measured. With --cache, predictions are kept, and
an interrupted benchmark goes on from there.
"""

import argparse
import json
from collections.abc import Callable
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from cleanlab.filter import find_label_issues
from environment import describe_environment
from numpy.typing import NDArray

from lorafit.cli.render.progress import PlainProgress
from lorafit.config import Config, load_config
from lorafit.data.imdb import IMDB_LABELS, load_imdb
from lorafit.data.rows import RawRows, Split
from lorafit.tasks.base import Array, Task, share
from lorafit.tasks.baselines import EMBEDDING
from lorafit.tasks.evaluation import score_models
from lorafit.tasks.records import Resampling
from lorafit.tasks.registry import build_task
from lorafit.training.folds import (
    assign_folds,
    build_material,
    predict_baseline_folds,
    predict_embedding_folds,
    predict_encoder_folds,
)
from lorafit.training.label_errors import ENCODER

RESULTS = Path(__file__).with_name("results") / "label-errors.json"
FLIPPED = 0.05
FOLDS = 5
LEVEL = 0.95
METHODS = ("confident_learning", "prune_by_noise_rate", "predicted_neq_given")
"""Methods of cleanlab; the first is the one that `suspect_labels` takes, the others are measured beside it."""

Ids = NDArray[np.int64]


def main() -> None:
    """Flip, find, correct, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=25_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102])
    parser.add_argument("--models", nargs="+", default=["nb_svm", "tfidf", ENCODER])
    parser.add_argument("--accuracy", nargs="*", default=["nb_svm"])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    config = load_config(
        flags={"data.source": "imdb", "model.name": "builtin:distil-minilm"}, overrides=arguments.overrides
    )
    task, raw = build_task("single_label", IMDB_LABELS), load_imdb()
    train, test = encode(raw.train, task), encode(raw.test, task)
    trials = [measure(config, task, train, test, seed, arguments) for seed in arguments.seeds]
    result = {
        "environment": describe_environment() | {name: version(name) for name in ("cleanlab", "scikit-learn")},
        "rows": arguments.rows,
        "flipped": FLIPPED,
        "folds": FOLDS,
        "overrides": arguments.overrides,
        "trials": trials,
    }
    arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for trial in trials:
        print(f"seed {trial['seed']}")
        for name, found in trial["found"].items():
            precision, recall = found["precision"], found["recall"]
            print(f"| {name} | {write(precision)} | {write(recall)} | {found['suspect']:,} |")
        for name, scores in trial["accuracy"].items():
            print(f"| {name} | " + " | ".join(f"{key} {write(value)}" for key, value in scores.items()) + " |")


def measure(
    config: Config, task: Task, train: Split, test: Split, seed: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Flip labels with one seed, find them, and correct them."""
    rng = np.random.default_rng(seed)
    drawn = train.select(np.sort(rng.permutation(len(train))[: arguments.rows]))
    flipped = np.zeros(len(drawn), dtype=bool)
    flipped[rng.choice(len(drawn), round(FLIPPED * len(drawn)), replace=False)] = True
    rows = Split(drawn.ids, drawn.texts, np.where(flipped, 1 - drawn.y, drawn.y))
    folds = assign_folds(rows, task, FOLDS, seed=seed)
    values: dict[str, Array] = {}
    for name in arguments.models:
        predict = build_prediction(name, config, task, rows, folds)
        values[name] = keep(arguments.cache, f"{name}-{len(rows)}-{seed}", predict)
    found = {}
    for size in range(1, len(values) + 1):
        for names in combinations(values, size):
            mean = np.mean([values[name] for name in names], axis=0)
            suspect = task.suspect_labels(rows.y, mean)
            found[" + ".join(names)] = count(suspect, flipped) | {
                "right": float((mean.argmax(axis=1) == drawn.y).mean()),
                "methods": {
                    method: count(find_label_issues(rows.y, mean, filter_by=method, n_jobs=1), flipped)
                    for method in METHODS
                },
            }
    reviewed = Split(rows.ids, rows.texts, np.where(suspect, drawn.y, rows.y))
    sides = {"flipped": rows, "corrected": reviewed, "original": drawn}
    accuracy = {}
    for name in arguments.accuracy:
        predicted = {
            side: keep(
                arguments.cache,
                f"{name}-{len(rows)}-{seed}-{side}",
                lambda part=part, name=name: task.predict_baseline(name, part.texts, part.y, test.texts),
            )
            for side, part in sides.items()
        }
        accuracy[name] = compare(task, test, predicted)
    return {"seed": seed, "found": found, "accuracy": accuracy}


def build_prediction(name: str, config: Config, task: Task, rows: Split, folds: Ids) -> Callable[[], Array]:
    """Return what predicts all rows out of fold."""
    progress = PlainProgress()
    by_encoder = {ENCODER: predict_encoder_folds, EMBEDDING: predict_embedding_folds}
    if name in by_encoder:
        return lambda: by_encoder[name](config, build_material(config, task, rows), folds, progress)
    return lambda: predict_baseline_folds(name, rows, task, folds, progress)


def keep(folder: Path | None, name: str, compute: Callable[[], Array]) -> Array:
    """Return values from the cache, or compute them and put them there."""
    path = None if folder is None else folder / f"{name}.npy"
    if path is not None and path.is_file():
        return np.asarray(np.load(path))
    values = compute()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, values)
    return values


def count(suspect: NDArray[np.bool_], flipped: NDArray[np.bool_]) -> dict[str, Any]:
    """Return precision and recall with Wilson intervals."""
    hits = int((suspect & flipped).sum())
    return {
        "suspect": int(suspect.sum()),
        "precision": share(hits, int(suspect.sum()), LEVEL).model_dump(),
        "recall": share(hits, int(flipped.sum()), LEVEL).model_dump(),
    }


def compare(task: Task, test: Split, predicted: dict[str, Array]) -> dict[str, Any]:
    """Return the test accuracy by training labels, and what correction changes of it, with intervals."""
    others = {name: values for name, values in predicted.items() if name != "corrected"}
    own, scored = score_models(task, test.y, predicted["corrected"], others, Resampling(LEVEL, 2000, 0))
    return {
        "flipped": scored["flipped"].scores.metrics["accuracy"].model_dump(),
        "corrected": own.metrics["accuracy"].model_dump(),
        "original": scored["original"].scores.metrics["accuracy"].model_dump(),
        "corrected - flipped": scored["flipped"].comparison.differences["accuracy"].model_dump(),
        "corrected - original": scored["original"].comparison.differences["accuracy"].model_dump(),
    }


def encode(rows: RawRows, task: Task) -> Split:
    """Encode rows of IMDb, which need no check."""
    return Split(np.arange(1, len(rows.texts) + 1), tuple(map(str, rows.texts)), task.encode(list(rows.labels)))


def write(estimate: dict[str, float]) -> str:
    """Write a share with its interval."""
    return f"{estimate['value']:.4f} [{estimate['low']:.4f}, {estimate['high']:.4f}]"


if __name__ == "__main__":
    main()
