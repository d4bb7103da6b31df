"""How is a regression on few rows calibrated out of fold? By the number of folds, and by whether they share a penalty.

Run: LORAFIT_DATA=… python benchmarks/folds.py [--data NAME,NAME] [--per-class 16,64] [--draws 12]

The regression on frozen embeddings, as it takes no time to train, is fitted to so many rows of each class, drawn by a
seed, and calibrated on the same rows, each predicted by a regression on the other folds: with a penalty that each fold
chooses by cross-validation on its own rows, or with the one that all rows choose. Its log loss, and how often its
conformal sets of 95 % hold the label, are measured on 1,000 other rows; beside them stands the calibrated log loss of
the training rows out of fold. All rows are of the train splits, cut at 128 tokens. Parts are kept in
benchmarks/results/folds.json.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from itertools import product

import numpy as np
from few_rows import BUILTIN, SOURCES, draw
from trials import RESULTS, Ledger, run_fresh

POOL, SCORED, COVERAGE = 3000, 1000, 0.95
WAYS = {"5 folds, a penalty each": (5, False), "5 folds, one penalty": (5, True), "3 folds, one penalty": (3, True)}


def main() -> None:
    """Measure every data set, and print a line for each size and number of folds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="rotten-tomatoes,imdb,r8")
    parser.add_argument("--per-class", default="16,64")
    parser.add_argument("--draws", type=int, default=12)
    arguments = parser.parse_args()
    sizes = [*map(int, arguments.per_class.split(","))]
    ledger = Ledger(RESULTS / "folds.json", again=False)
    print(
        "| data | rows a class | calibrated by | log loss (most) | change, in pairs | coverage (least) | out of fold |"
    )
    print("|---|---|---|---|---|---|---|")
    for data in arguments.data.split(","):
        settings = {"per_class": sizes, "draws": arguments.draws, "ways": list(WAYS)}
        found = ledger.measure(data, settings, partial(run_fresh, measure, data, sizes, arguments.draws))
        for size, way in product(sizes, WAYS):
            part, first = found[f"{size}, {way}"], found[f"{size}, {next(iter(WAYS))}"]
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
            calibration = task.fit_calibration(train.y, held_out, coverage=COVERAGE)
            values = task.activate(logits, calibration)
            sets = [task.predict(row, calibration).conformal_set for row in values]
            names = [task.label_names[label] for label in others.y]
            part = found.setdefault(f"{size}, {way}", {"losses": [], "coverage": [], "held_out": []})
            part["losses"].append(float(-np.log(values[np.arange(len(values)), others.y].clip(1e-12)).mean()))
            part["coverage"].append(float(np.mean([name in held for name, held in zip(names, sets, strict=True)])))
            part["held_out"].append(calibration.log_loss_after)
    return found


if __name__ == "__main__":
    main()
