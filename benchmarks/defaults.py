"""Evidence for the default settings, on validation rows only.

Run: LORAFIT_DATA=… python benchmarks/defaults.py rotten-tomatoes (or imdb, imdb-…) [--seeds 0,1] [--only NAME …]

Each variant differs from the defaults in what its name says, and in a linear schedule where it does not say one-cycle;
`imdb-steps` and `imdb-rates` have 128 tokens, and `imdb-length` has the default schedule. A run is judged by the lowest
calibrated validation loss it reached and by the validation accuracy at that point; test rows play no part. All
validation rows choose, none calibrates. Results go to benchmarks/results/.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from environment import describe_environment
from trials import cut_rows, name_rows

from lorafit.config import load_config
from lorafit.runs.folder import RunLayout
from lorafit.training.pipeline import train

RESULTS = Path(__file__).with_name("results")
COMMON = [
    "model.name=builtin:distil-minilm",
    "data.calibration_fraction=0",
    "evaluation.report=false",
    "evaluation.before=false",
    "evaluation.baselines=false",
    "training.early_stopping_patience=0",
]
LINEAR = ["training.schedule=linear", "training.warmup_ratio=0.06"]
STUDIES: dict[str, tuple[list[str], dict[str, list[str]]]] = {
    "rotten-tomatoes": (
        ["data.source=builtin:rotten-tomatoes", "training.epochs=2", *LINEAR],
        {
            "learning rate 5e-4": ["training.learning_rate=5e-4"],
            "learning rate 2e-4": ["training.learning_rate=2e-4"],
            "learning rate 1e-3": ["training.learning_rate=1e-3"],
            "5e-4, adapters on query and value": [
                "training.learning_rate=5e-4",
                "method.target_modules=query-value",
            ],
        },
    ),
    "imdb-steps": (
        [
            "training.epochs=2",
            "training.evaluations_per_epoch=1",
            "model.max_length=128",
            "model.truncation=head+tail",
        ],
        {
            "learning rate 5e-4": [*LINEAR, "training.learning_rate=5e-4"],
            "learning rate 1e-3": [*LINEAR, "training.learning_rate=1e-3"],
            "learning rate 2e-3": [*LINEAR, "training.learning_rate=2e-3"],
            "LoRA+: A at 5e-4, B at 2e-3": [*LINEAR, "training.learning_rate=5e-4", "method.loraplus_lr_ratio=4"],
            "LoRA+: A at 2e-4, B at 3.2e-3": [*LINEAR, "training.learning_rate=2e-4", "method.loraplus_lr_ratio=16"],
            "adapter at 1e-3, head at 4e-3": [
                *LINEAR,
                "training.learning_rate=1e-3",
                "training.head_learning_rate=4e-3",
            ],
            "one-cycle, learning rate 1e-3": [
                "training.learning_rate=1e-3",
                "training.schedule=cosine",
                "training.warmup_ratio=0.3",
            ],
            "one-cycle, learning rate 2e-3": [
                "training.learning_rate=2e-3",
                "training.schedule=cosine",
                "training.warmup_ratio=0.3",
            ],
            "learning rate 1e-3, r = 16": [
                *LINEAR,
                "training.learning_rate=1e-3",
                "method.r=16",
                "method.lora_alpha=64",
            ],
        },
    ),
    "imdb-rates": (
        ["training.epochs=1", "training.evaluations_per_epoch=1", "model.max_length=128"],
        {
            "learning rate 5e-4": ["training.learning_rate=5e-4"],
            "learning rate 1e-3": ["training.learning_rate=1e-3"],
        },
    ),
    "imdb-length": (
        ["training.epochs=2", "training.evaluations_per_epoch=1", "training.threads=1"],
        {
            f"{length} tokens{first}": [f"model.max_length={length}", f"training.length_warmup={warmup}"]
            for length in (256, 512)
            for warmup, first in ((0, ""), (128, ", 128 in the first epoch"))
        },
    ),
    "imdb": (
        ["training.epochs=2", "training.evaluations_per_epoch=1", "training.length_warmup=0", *LINEAR],
        {
            "128 tokens, head": ["model.max_length=128", "model.truncation=head"],
            "256 tokens, head": ["model.max_length=256", "model.truncation=head"],
            "256 tokens, head+tail": ["model.max_length=256", "model.truncation=head+tail"],
            "512 tokens, head": ["model.max_length=512", "model.truncation=head"],
        },
    ),
}
ROWS = {
    "imdb": {"train": 4000, "validation": 2000, "test": 100},
    "imdb-steps": {"train": 4000, "validation": 4000, "test": 100},
    "imdb-length": {"train": 6000, "validation": 4000, "test": 100},
    "imdb-rates": {"train": 20_000, "validation": 4_900, "test": 100},
}


def measure(settings: list[str], seed: int) -> dict[str, float]:
    """Train once and return what happened on the validation rows."""
    config = load_config(overrides=[*COMMON, *settings, f"training.seed={seed}"])
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        run = train(config, output=Path(folder) / "run")
        history = [json.loads(line) for line in RunLayout(run.path).history.read_text(encoding="utf-8").splitlines()]
    training = run.record.training
    if training is None:
        raise RuntimeError("the run has no training record")
    evaluations = {entry["step"]: entry for entry in history if "eval_loss" in entry}
    best = evaluations[training.best_step]
    return {
        "seed": seed,
        "calibrated_loss": best["eval_calibrated_loss"],
        "loss": best["eval_loss"],
        "accuracy": best["eval_accuracy"],
        "best_epoch": best["epoch"],
        "last_loss": evaluations[max(evaluations)]["eval_loss"],
        "training_seconds": training.seconds,
        "tokens_per_second": training.tokens_per_second,
        "seconds": time.perf_counter() - began,
    }


def main() -> None:
    """Run one study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("--seeds", default="0", help="comma-separated")
    parser.add_argument("--only", nargs="*", help="names of variants")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    arguments = parser.parse_args()
    common, variants = STUDIES[arguments.study]
    if arguments.only:
        variants = {name: settings for name, settings in variants.items() if name in arguments.only}
    with tempfile.TemporaryDirectory() as folder:
        data = []
        if arguments.study in ROWS:
            cut_rows(Path(folder), ROWS[arguments.study])
            data = name_rows(Path(folder))
        run_study(arguments, common, data, variants)


def run_study(
    arguments: argparse.Namespace, common: list[str], data: list[str], variants: dict[str, list[str]]
) -> None:
    """Train every variant with every seed; print and write each result at once, and repeat none that is written."""
    path = RESULTS / f"defaults-{arguments.study}.json"
    settings_for_all = [*COMMON, *common, *arguments.overrides]
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    results: dict[str, list[dict[str, float]]] = kept["results"] if kept.get("common") == settings_for_all else {}
    for seed in map(int, arguments.seeds.split(",")):
        for name, settings in variants.items():
            if any(result["seed"] == seed for result in results.get(name, [])):
                continue
            result = measure([*common, *data, *settings, *arguments.overrides], seed)
            results.setdefault(name, []).append(result)
            print(
                f"{name:30s} seed {seed}  calibrated loss {result['calibrated_loss']:.4f}  "
                f"loss {result['loss']:.4f}  accuracy {result['accuracy']:.4f}  "
                f"at epoch {result['best_epoch']:.2f}  last loss {result['last_loss']:.4f}  "
                f"{result['training_seconds']:.0f} s",
                flush=True,
            )
            report = {"environment": describe_environment(), "common": settings_for_all, "variants": variants}
            path.write_text(json.dumps({**report, "results": results}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
