"""What predictions cost: transformers' pipeline and plain OpenVINO against lorafit's forms, with int8 and without.

Run: LORAFIT_DATA=… python benchmarks/inference.py RUN [--data imdb|rotten-tomatoes] [--rows 1000] [--pipeline-rows 300]
or: LORAFIT_DATA=… python benchmarks/inference.py --base-shape --rows 60 --pipeline-rows 16

RUN is a run of `benchmarks/imdb.py --run RUN`, or any other; `--base-shape` makes one of DistilBERT-base's shape with
random weights, whose predictions mean nothing. The rows are drawn from the test split with a seed; the pipeline, which
is slower, gets the first of them. Every form is a process of its own, warmed up on texts of its own; tokenising is in
the time, loading is not. The pipeline pads and runs in fp32, as it does by default, on the merged model. Plain OpenVINO
is what `stock_openvino.py` makes of the merged model, in an environment of its own, at its best token budget. The
quickest of some calls counts, of lorafit as of plain OpenVINO, and lorafit's first one is given beside it. The share of
the int8 ceiling counts what the encoder's linear layers execute, padding included, against the same products alone in
onnxruntime, 4,096 tokens at a time. Cold start is the whole of `lorafit predict FOLDER TEXT`, of a run with torch and
by its kept graph, and of a script with a pipeline, the best of three. Parts are kept in benchmarks/results/inference-
DATA.json and not measured again for the same run, unless with --again: after a change of lorafit all are to be.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ceiling import median_seconds
from numpy.typing import NDArray
from trials import RESULTS, Ledger, Shape, cut_rows, make_environment, name_rows, run_fresh, write_distilbert_base

from lorafit.runs.folder import RunLayout
from lorafit.system.atomic import compute_digest

SOURCES = {"imdb": "imdb", "rotten-tomatoes": "builtin:rotten-tomatoes"}
BATCHES = (1, 8, 32)
LENGTHS = (8, 32, 128, 512)
CALLS = 50
CALLS_OF_ALL = 3
"""Calls with all texts at least, of which the quickest counts, as of plain OpenVINO's: the first ones compile code."""

TOKENS_OF_ALL = 200_000
"""Tokens at least in these calls: lorafit arranges itself for many texts once it has seen that there are many."""

WARM_UP = 32
SAMPLES = 300
"""Training texts by which NNCF sees what is usual: as many as its documentation recommends."""

STOCK = {"OpenVINO": False, "OpenVINO, int8 by NNCF": True}
STOCK_PACKAGES = ["torch==2.13.0", "optimum-intel==2.2.0", "openvino==2026.4.1", "nncf==3.4.0"]
PIPELINE = """
import sys
from transformers import pipeline
print(pipeline("text-classification", model=sys.argv[1])(sys.argv[2]))
"""


def main() -> None:
    """Export the run, then measure every form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--base-shape", action="store_true")
    parser.add_argument("--data", choices=SOURCES, default="imdb")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--pipeline-rows", type=int, default=300)
    parser.add_argument("--lengths", default="256,512", help="the pipeline's max_length")
    parser.add_argument("--again", action="store_true", help="measure kept parts again")
    arguments = parser.parse_args()
    if (arguments.run is None) != arguments.base_shape:
        parser.error("name a run, or --base-shape")
    shape = "-base-shape" if arguments.base_shape else ""
    ledger = Ledger(RESULTS / f"inference-{arguments.data}{shape}.json", again=arguments.again)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = arguments.run or folder / "run"
        if arguments.base_shape:
            run_fresh(train_base_shape, folder)
        run_fresh(export_forms, run, folder)
        forms = {
            "lorafit, torch": run,
            "lorafit, onnx": folder / "fp32",
            "lorafit, int8": folder / "int8",
            "lorafit, openvino": folder / "openvino",
            "lorafit, openvino in int8": folder / "openvino-int8",
        }
        measure_throughput(arguments, ledger, folder, forms)
        measure_stock(arguments, ledger, folder, run)
        measure_single_texts(ledger, folder, forms)
        measure_cold_starts(ledger, folder, forms)


def train_base_shape(folder: Path) -> None:
    """Make a run of DistilBERT-base's shape, a step long, of texts up to 512 tokens."""
    from lorafit.config import load_config
    from lorafit.training.pipeline import train

    write_distilbert_base(folder / "base")
    cut_rows(folder, {"train": 64, "validation": 32, "test": 32})
    quiet = [f"evaluation.{name}=false" for name in ("report", "before", "baselines")]
    settings = [f"model.name={folder / 'base'}", "model.max_length=512", "training.max_steps=1"]
    train(load_config(overrides=[*quiet, *name_rows(folder), *settings]), output=folder / "run")


def export_forms(run: Path, folder: Path) -> None:
    """Write the forms that are measured, whether they agree or not: that is among what is measured."""
    import lorafit
    from lorafit.inference.export.export import export, export_merged, keep_graph

    keep_graph(run)
    if lorafit.load(run, runtime="auto").runtime.name == "torch":
        raise SystemExit(f"no graph is kept of {run}")
    export(run, output=folder / "fp32", allow_drift=True)
    export(run, int8=True, output=folder / "int8", allow_drift=True)
    for int8, name in ((False, "openvino"), (True, "openvino-int8")):
        export(run, int8=int8, runtime="openvino", output=folder / name, allow_drift=True)
    export_merged(run, output=folder / "merged")


def measure_throughput(arguments: argparse.Namespace, ledger: Ledger, folder: Path, forms: dict[str, Path]) -> None:
    """Measure texts a second of every form."""
    source, rows = SOURCES[arguments.data], arguments.rows
    print("| form | texts/s | first call | tokens/s | accuracy | labels as torch in fp32 | peak memory |")
    print("|---|---|---|---|---|---|---|")
    told = {"run": compute_digest(RunLayout(forms["lorafit, torch"]).record), "rows": rows}
    wanted = ledger.measure(
        "reference", told, partial(run_fresh, ask_lorafit, forms["lorafit, torch"], source, rows, "fp32")
    )
    alone = measure_encoder(arguments, ledger, forms["lorafit, torch"])
    results = {
        name: ledger.measure(name, told, partial(run_fresh, ask_lorafit, path, source, rows, "auto"))
        for name, path in forms.items()
    }
    for name in ("lorafit, openvino", "lorafit, openvino in int8"):  # what plain OpenVINO computes, no more
        ask = partial(run_fresh, ask_lorafit, forms[name], source, rows, "auto", blend=False)
        results[f"{name}, no blend"] = ledger.measure(f"{name}, no blend", told, ask)
    for length in map(int, arguments.lengths.split(",")):
        for batch in BATCHES:
            name, few = f"pipeline, {length} tokens, batches of {batch}", arguments.pipeline_rows
            run = partial(run_fresh, ask_pipeline, folder / "merged", source, few, batch, length)
            results[name] = ledger.measure(name, {**told, "rows": few}, run)
    for name, result in {"lorafit, torch in fp32": wanted, **results}.items():
        same = share_labels(result, alone if "no blend" in name or name.startswith("pipeline") else wanted)
        print(
            f"| {name} | {result['texts'] / result['seconds']:,.1f} | "
            f"{result['texts'] / result.get('first_seconds', result['seconds']):,.1f} | "
            f"{result['tokens'] / result['seconds']:,.0f} | "
            f"{result['accuracy']:.2%} | {same:.2%} | {result['peak_memory_bytes'] / 1e9:.2f} GB |",
            flush=True,
        )
    if json.loads((folder / "merged" / "config.json").read_text(encoding="utf-8"))["model_type"] == "distilbert":
        encoder, int8 = Shape.read(folder / "merged"), results["lorafit, int8"]
        most = ledger.measure("int8 ceiling", told, partial(run_fresh, measure_int8_ceiling, encoder.width))
        print_share(int8, encoder, most["gop_per_second"])


def measure_encoder(arguments: argparse.Namespace, ledger: Ledger, run: Path) -> dict[str, Any]:
    """Predict with the encoder of a run alone, in fp32: what forms without its word models are to agree with."""
    told = {"run": compute_digest(RunLayout(run).record), "rows": arguments.rows}
    ask = partial(run_fresh, ask_lorafit, run, SOURCES[arguments.data], arguments.rows, "fp32", blend=False)
    return ledger.measure("reference, no blend", told, ask)


def share_labels(result: dict[str, Any], other: dict[str, Any]) -> float:
    """Return the share of texts that get the same label, of those that both predicted."""
    pairs = zip(result["labels"].split(), other["labels"].split(), strict=False)
    return float(np.mean([one == two for one, two in pairs]))


def measure_stock(arguments: argparse.Namespace, ledger: Ledger, folder: Path, run: Path) -> None:
    """Measure OpenVINO without lorafit, many texts and single ones."""
    alone = measure_encoder(arguments, ledger, run)
    told = {"run": compute_digest(folder / "merged" / "model.safetensors"), "rows": arguments.rows}
    told["packages"] = STOCK_PACKAGES
    python = folder / "environment" / "bin" / "python"
    lengths = " | ".join(f"{length} tokens, ms" for length in LENGTHS)
    print(f"\n| form | texts/s | accuracy | labels as the encoder's in fp32 | {lengths} |")
    print("|---|---|---|---|" + "---|" * len(LENGTHS))
    for name, int8 in STOCK.items():

        def ask(int8: bool = int8) -> dict[str, Any]:
            if not python.is_file():
                make_environment(folder / "environment", STOCK_PACKAGES)
            return run_fresh(ask_stock, folder, SOURCES[arguments.data], arguments.rows, python, int8=int8)

        result = ledger.measure(name, told, ask)
        single = (f"{1e3 * np.median(part):.1f}" for part in result["single"].values())
        speed = result["texts"] / result["seconds"]
        same = share_labels(result, alone)
        print(f"| {name} | {speed:,.1f} | {result['accuracy']:.2%} | {same:.2%} | {' | '.join(single)} |", flush=True)


def ask_stock(folder: Path, source: str, count: int, python: Path, *, int8: bool) -> dict[str, Any]:
    """Predict with plain OpenVINO in a process of its environment."""
    texts, labels, warm_up = draw_rows(source, count)
    samples = draw_rows(source, count, train=SAMPLES)[2]
    given = {"model": str(folder / "merged"), "texts": texts, "warm_up": warm_up, "samples": samples, "int8": int8}
    given["lengths"] = LENGTHS
    (folder / "given.json").write_text(json.dumps(given), encoding="utf-8")
    script = Path(__file__).with_name("stock_openvino.py")
    subprocess.run([python, "-P", script, folder], check=True, stdout=sys.stderr)
    found = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    kept = describe(found.pop("seconds"), found.pop("labels"), labels, read_lengths(folder / "merged", texts))
    return kept | found | {"peak_memory_bytes": None}


def print_share(int8: dict[str, Any], encoder: Shape, most: float) -> None:
    """Print how near the linear layers come to what the machine can do, in GOP/s."""
    reached = encoder.inference_flop(int8["positions"], int8["texts"]) / 1e9 / int8["seconds"]
    print(f"\nint8: {reached:.0f} of {most:.0f} GOP/s, {reached / most:.0%} of the ceiling")


def measure_int8_ceiling(width: int) -> dict[str, float]:
    """Measure the products of one encoder block in int8 (uint8 by int8), the weights laid out beforehand."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    from lorafit.system.hardware import available_cores

    rng, tokens, operations, seconds = np.random.default_rng(0), 4096, 0, 0.0
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cores()
    for inputs, outputs, times in ((width, width, 4), (width, 4 * width, 1), (4 * width, width, 1)):
        weight = rng.integers(-127, 128, (inputs, outputs)).astype(np.int8)
        graph = helper.make_graph(
            [helper.make_node("MatMulInteger", ["x", "weight"], ["y"])],
            "product",
            [helper.make_tensor_value_info("x", TensorProto.UINT8, [tokens, inputs])],
            [helper.make_tensor_value_info("y", TensorProto.INT32, [tokens, outputs])],
            [numpy_helper.from_array(weight, "weight")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        x = {"x": rng.integers(0, 256, (tokens, inputs)).astype(np.uint8)}
        seconds += times * min(median_seconds(partial(session.run, None, x), 5) for _ in range(5))
        operations += times * 2 * tokens * inputs * outputs
    return {"gop_per_second": operations / 1e9 / seconds}


def draw_rows(source: str, count: int, train: int = WARM_UP) -> tuple[list[str], list[str], list[str]]:
    """Return test texts with their labels, and training texts."""
    from lorafit.config import load_config
    from lorafit.data.loading import load_splits

    splits = load_splits(load_config(overrides=[f"data.source={source}"]).data)
    test = splits.test.select(np.random.default_rng(0).permutation(len(splits.test))[:count])
    return list(test.texts), list(map(str, splits.task.decode(test.y))), list(splits.train.texts[:train])


def ask_lorafit(
    path: Path, source: str, count: int, precision: Literal["auto", "fp32"], *, blend: bool = True
) -> dict[str, Any]:
    """Predict in this process."""
    import lorafit

    texts, labels, warm_up = draw_rows(source, count)
    predictor = lorafit.load(path, precision=precision, blend=blend)
    predictor.predict(warm_up)
    seconds, predictions = list[float](), list[str]()
    lengths = read_lengths(path, texts)
    for _ in range(max(CALLS_OF_ALL, -(-TOKENS_OF_ALL // int(lengths.sum())))):
        began = time.perf_counter()
        predictions = [str(one.columns()["label"]) for one in predictor.predict(texts)]
        seconds.append(time.perf_counter() - began)
    return {
        **describe(min(seconds), predictions, labels, lengths),
        "first_seconds": seconds[0],
    }


def ask_pipeline(folder: Path, source: str, count: int, batch: int, length: int) -> dict[str, Any]:
    """Predict with transformers' pipeline in this process."""
    from transformers import pipeline

    texts, labels, warm_up = draw_rows(source, count)
    classify = pipeline("text-classification", model=str(folder), truncation=True, max_length=length, batch_size=batch)
    classify(warm_up)
    began = time.perf_counter()
    predictions = [one["label"] for one in classify(texts)]
    return describe(time.perf_counter() - began, predictions, labels, read_lengths(folder, texts, length))


def read_lengths(folder: Path, texts: list[str], length: int | None = None) -> NDArray[np.int64]:
    """Return the tokens that are read of each text, special ones included."""
    from tokenizers import Tokenizer

    layout = RunLayout(folder)
    home = layout.trained if layout.trained.is_dir() else folder
    tokenizer = Tokenizer.from_file(str(home / "tokenizer.json"))
    tokenizer.no_truncation()
    settings = json.loads((home / "tokenizer_config.json").read_text(encoding="utf-8"))
    most = length or int(settings["model_max_length"])
    return np.array([min(len(one.ids), most) for one in tokenizer.encode_batch(texts)])


def describe(seconds: float, predictions: list[str], labels: list[str], lengths: NDArray[np.int64]) -> dict[str, Any]:
    """Return what is kept of a measurement; positions are those of lorafit's batches."""
    from lorafit.inference.predictor import plan_prediction
    from lorafit.system import hardware

    right = np.mean([one == other for one, other in zip(predictions, labels, strict=True)])
    return {
        "texts": len(predictions),
        "seconds": seconds,
        "tokens": int(lengths.sum()),
        "positions": int(plan_prediction(lengths).shapes(lengths).prod(axis=1).sum()),
        "accuracy": float(right),
        "labels": " ".join(predictions),
        "peak_memory_bytes": hardware.peak_memory_bytes(),
    }


def measure_single_texts(ledger: Ledger, folder: Path, forms: dict[str, Path]) -> None:
    """Measure the time of one text, by its length."""
    print(
        "\n| one text, ms (median / 99th percentile) | " + " | ".join(f"{length} tokens" for length in LENGTHS) + " |"
    )
    print("|---|" + "---|" * len(LENGTHS))
    for name, path in {**forms, "pipeline": folder / "merged"}.items():
        told = {"calls": CALLS, "run": compute_digest(RunLayout(forms["lorafit, torch"]).record)}
        times = ledger.measure(f"{name}, one text", told, partial(run_fresh, time_single_texts, path))
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
    text, told = "What a lovely surprise.", {"run": compute_digest(RunLayout(forms["lorafit, torch"]).record)}
    predict = [sys.executable, "-m", "lorafit", "predict"]
    commands = {name: [*predict, str(path), text] for name, path in forms.items()}
    commands["lorafit, a run's kept graph"] = commands["lorafit, torch"]
    commands["lorafit, torch"] = [*commands["lorafit, torch"], "--runtime", "torch"]
    commands["pipeline"] = [sys.executable, "-c", PIPELINE, str(folder / "merged"), text]
    print("\n| cold start | s |\n|---|---|")
    for name, command in commands.items():
        run = partial(subprocess.run, command, capture_output=True, check=True)
        seconds = ledger.measure(
            f"{name}, cold", told, lambda run=run: {"seconds": min(time_call(run) for _ in range(3))}
        )
        print(f"| {name} | {seconds['seconds']:.2f} |", flush=True)


if __name__ == "__main__":
    main()
