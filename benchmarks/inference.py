"""What predictions cost: transformers' pipeline against lorafit with torch, with onnxruntime and in int8.

Run: LORAFIT_DATA=… python benchmarks/inference.py RUN [--data imdb|rotten-tomatoes] [--rows 1000] [--pipeline-rows 300]

RUN is a run of `benchmarks/imdb.py --run RUN`, or any other. The rows are drawn from the test split with a seed; the
pipeline, which is slower, gets the first of them. Every form is a process of its own, warmed up on texts of its own;
tokenising is in the time, loading is not. The pipeline pads and runs in fp32, as it does by default, on the merged
model. Cold start is the whole of `lorafit predict FOLDER TEXT` and of a script with a pipeline, the best of three.
Parts are kept in benchmarks/results/inference-DATA.json and not measured again, unless with --again.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from trials import RESULTS, Ledger, run_fresh

SOURCES = {"imdb": "imdb", "rotten-tomatoes": "builtin:rotten-tomatoes"}
BATCHES = (1, 8, 32)
LENGTHS = (8, 32, 128, 512)
CALLS = 50
WARM_UP = 32
PIPELINE = """
import sys
from transformers import pipeline
print(pipeline("text-classification", model=sys.argv[1])(sys.argv[2]))
"""


def main() -> None:
    """Export the run, then measure every form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", choices=SOURCES, default="imdb")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--pipeline-rows", type=int, default=300)
    parser.add_argument("--lengths", default="256,512", help="the pipeline's max_length")
    parser.add_argument("--again", action="store_true", help="measure kept parts again")
    arguments = parser.parse_args()
    ledger = Ledger(RESULTS / f"inference-{arguments.data}.json", again=arguments.again)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_fresh(export_forms, arguments.run, folder)
        forms = {"lorafit, torch": arguments.run, "lorafit, onnx": folder / "fp32", "lorafit, int8": folder / "int8"}
        measure_throughput(arguments, ledger, folder, forms)
        measure_single_texts(ledger, folder, forms)
        measure_cold_starts(ledger, folder, forms)


def export_forms(run: Path, folder: Path) -> None:
    """Write the forms that are measured."""
    from lorafit.exporting.export import export, export_merged

    export(run, output=folder / "fp32")
    export(run, int8=True, output=folder / "int8")
    export_merged(run, output=folder / "merged")


def measure_throughput(arguments: argparse.Namespace, ledger: Ledger, folder: Path, forms: dict[str, Path]) -> None:
    """Measure texts a second of every form."""
    source, rows = SOURCES[arguments.data], arguments.rows
    print("| form | texts/s | tokens/s | accuracy | labels as torch in fp32 | peak memory |\n|---|---|---|---|---|---|")
    wanted = ledger.measure(
        "reference", {"rows": rows}, partial(run_fresh, ask_lorafit, forms["lorafit, torch"], source, rows, "fp32")
    )
    results = {
        name: ledger.measure(name, {"rows": rows}, partial(run_fresh, ask_lorafit, path, source, rows, "auto"))
        for name, path in forms.items()
    }
    for length in map(int, arguments.lengths.split(",")):
        for batch in BATCHES:
            name, few = f"pipeline, {length} tokens, batches of {batch}", arguments.pipeline_rows
            run = partial(run_fresh, ask_pipeline, folder / "merged", source, few, batch, length)
            results[name] = ledger.measure(name, {"rows": few}, run)
    for name, result in {"lorafit, torch in fp32": wanted, **results}.items():
        same = np.mean([one == other for one, other in zip(result["labels"], wanted["labels"], strict=False)])
        print(
            f"| {name} | {result['texts'] / result['seconds']:,.1f} | {result['tokens'] / result['seconds']:,.0f} | "
            f"{result['accuracy']:.2%} | {same:.2%} | {result['peak_memory_bytes'] / 1e9:.2f} GB |",
            flush=True,
        )


def draw_rows(source: str, count: int) -> tuple[list[str], list[str], list[str]]:
    """Return test texts with their labels, and other texts to warm up with."""
    from lorafit.config import load_config
    from lorafit.data.sources import load_splits

    splits = load_splits(load_config(overrides=[f"data.source={source}"]).data)
    test, names = splits.test, splits.labels.names
    chosen = np.random.default_rng(0).permutation(len(test.texts))[:count]
    labels = [names[test.labels[row]] for row in chosen]
    return [test.texts[row] for row in chosen], labels, list(splits.train.texts[:WARM_UP])


def ask_lorafit(path: Path, source: str, count: int, precision: str) -> dict[str, Any]:
    """Predict in this process."""
    import lorafit

    texts, labels, warm_up = draw_rows(source, count)
    predictor = lorafit.load(path, precision=precision)
    predictor.predict(warm_up)
    began = time.perf_counter()
    answers = [one.label for one in predictor.predict(texts)]
    return describe(time.perf_counter() - began, answers, labels, count_tokens(path, texts))


def ask_pipeline(folder: Path, source: str, count: int, batch: int, length: int) -> dict[str, Any]:
    """Predict with transformers' pipeline in this process."""
    from transformers import pipeline

    texts, labels, warm_up = draw_rows(source, count)
    classify = pipeline("text-classification", model=str(folder), truncation=True, max_length=length, batch_size=batch)
    classify(warm_up)
    began = time.perf_counter()
    answers = [one["label"] for one in classify(texts)]
    return describe(time.perf_counter() - began, answers, labels, count_tokens(folder, texts, length))


def count_tokens(folder: Path, texts: list[str], length: int | None = None) -> int:
    """Count the tokens that are read of the texts, special ones included."""
    from tokenizers import Tokenizer

    from lorafit.artifacts import RunLayout

    layout = RunLayout(folder)
    home = layout.trained if layout.trained.is_dir() else folder
    tokenizer = Tokenizer.from_file(str(home / "tokenizer.json"))
    tokenizer.no_truncation()
    settings = json.loads((home / "tokenizer_config.json").read_text(encoding="utf-8"))
    most = length or int(settings["model_max_length"])
    return sum(min(len(one.ids), most) for one in tokenizer.encode_batch(texts))


def describe(seconds: float, answers: list[str], labels: list[str], tokens: int) -> dict[str, Any]:
    """Return what is kept of a measurement."""
    from lorafit import hardware

    right = np.mean([one == other for one, other in zip(answers, labels, strict=True)])
    return {
        "texts": len(answers),
        "seconds": seconds,
        "tokens": tokens,
        "accuracy": float(right),
        "labels": answers,
        "peak_memory_bytes": hardware.peak_memory_bytes(),
    }


def measure_single_texts(ledger: Ledger, folder: Path, forms: dict[str, Path]) -> None:
    """Measure the time of one text, by its length."""
    print(
        "\n| one text, ms (median / 99th percentile) | " + " | ".join(f"{length} tokens" for length in LENGTHS) + " |"
    )
    print("|---|" + "---|" * len(LENGTHS))
    for name, path in {**forms, "pipeline": folder / "merged"}.items():
        times = ledger.measure(f"{name}, one text", {"calls": CALLS}, partial(run_fresh, time_single_texts, path))
        shown = (f"{1e3 * np.median(part):.1f} / {1e3 * np.quantile(part, 0.99):.1f}" for part in times.values())
        print(f"| {name} | {' | '.join(shown)} |", flush=True)


def time_single_texts(path: Path) -> dict[str, list[float]]:
    """Predict one text at a time in this process."""
    if path.name == "merged":
        from transformers import pipeline

        ask = pipeline("text-classification", model=str(path), truncation=True, max_length=512)
    else:
        import lorafit

        ask = lorafit.load(path).predict
    times = {}
    for length in LENGTHS:
        text = " ".join(["film"] * (length - 2))
        for _ in range(5):
            ask([text])
        times[str(length)] = [time_call(partial(ask, [text])) for _ in range(CALLS)]
    return times


def time_call(call: partial[Any]) -> float:
    """Return the seconds of a call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measure_cold_starts(ledger: Ledger, folder: Path, forms: dict[str, Path]) -> None:
    """Measure a command from its start to its end."""
    text = "What a lovely surprise."
    commands = {name: [sys.executable, "-m", "lorafit", "predict", str(path), text] for name, path in forms.items()}
    commands["pipeline"] = [sys.executable, "-c", PIPELINE, str(folder / "merged"), text]
    print("\n| cold start | s |\n|---|---|")
    for name, command in commands.items():
        run = partial(subprocess.run, command, capture_output=True, check=True)
        seconds = ledger.measure(
            f"{name}, cold", {}, lambda run=run: {"seconds": min(time_call(run) for _ in range(3))}
        )
        print(f"| {name} | {seconds['seconds']:.2f} |", flush=True)


if __name__ == "__main__":
    main()
