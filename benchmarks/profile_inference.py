"""Where the time of predictions goes, operator by operator: onnxruntime and OpenVINO, in int8 and without.

Run: LORAFIT_DATA=… python benchmarks/profile_inference.py RUN [--data imdb|rotten-tomatoes] [--rows 200]

RUN is exported for both engines, in int8 and without; each predicts test texts in lorafit's batches under its own
profiler, once to warm up and once to count, in a process of its own. Printed are the milliseconds of each kind of
operator for a thousand tokens without padding; what engines fuse is named by its main operator. Writes
benchmarks/results/profile-inference-DATA.json.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from inference import SOURCES, draw_rows
from trials import RESULTS, run_fresh, write_results

FORMS = {
    "onnxruntime": ("onnxruntime", False),
    "onnxruntime, int8": ("onnxruntime", True),
    "OpenVINO, bf16": ("openvino", False),
    "OpenVINO, int8": ("openvino", True),
}
KINDS = {
    "attention": ("Attention", "Softmax", "ScaledDotProduct"),
    "products": ("MatMul", "FullyConnected", "Gemm", "QGemm"),
    "GELU": ("Gelu",),
    "norms": ("LayerNorm", "MVN", "RMSNorm"),
    "to int8 and back": ("Quantize", "FakeQuantize", "Dequantize"),
    "embeddings": ("Gather",),
    "copies and casts": ("Reorder", "Cast", "Convert", "Transpose", "Reshape", "Concat", "Split", "Slice", "Squeeze"),
}
"""Parts of operators' names by kind; the first that fits counts, and else the operator is of the kind `other`."""


def main() -> None:
    """Export, profile, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", choices=SOURCES, default="imdb")
    parser.add_argument("--rows", type=int, default=200)
    arguments = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as name:
        for place, (form, how) in enumerate(FORMS.items()):
            folder = Path(name) / str(place)
            run_fresh(export_form, arguments.run, folder, *how)
            found[form] = run_fresh(profile, folder, how[0], SOURCES[arguments.data], arguments.rows)
    write_results(RESULTS / f"profile-inference-{arguments.data}.json", {"rows": arguments.rows, "forms": found})
    tables = {form: sum_by_kind(one) for form, one in found.items()}
    kinds = sorted({kind for table in tables.values() for kind in table}, key=lambda kind: -tables["onnxruntime"][kind])
    print("| ms for 1,000 tokens | " + " | ".join(tables) + " |\n|---" + "|---" * len(tables) + "|")
    for kind in kinds:
        print(f"| {kind} | " + " | ".join(f"{table[kind]:.1f}" for table in tables.values()) + " |")
    print("| all | " + " | ".join(f"{sum(table.values()):.1f}" for table in tables.values()) + " |")


def export_form(run: Path, folder: Path, runtime: Any, int8: bool) -> None:  # noqa: ANN401 - an engine's name
    """Export the run."""
    from lorafit.inference.export.export import export

    export(run, runtime=runtime, int8=int8, output=folder, allow_drift=True)


def profile(folder: Path, engine: str, source: str, rows: int) -> dict[str, Any]:
    """Predict under the engine's profiler in this process; return the seconds of each operator and the tokens."""
    import lorafit

    texts, _, _ = draw_rows(source, rows)
    predictor = lorafit.load(folder)
    watch = watch_onnxruntime if engine == "onnxruntime" else watch_openvino
    seconds, tokens = watch(predictor, folder, lambda: predictor.compute_logits(texts))
    return {"seconds": dict(seconds), "tokens": tokens}


def watch_onnxruntime(predictor: Any, folder: Path, ask: Callable[[], object]) -> tuple[Counter[str], int]:  # noqa: ANN401
    """Let the runtime of a predictor be profiled, ask twice, and return the seconds of the second time."""
    import onnxruntime

    from lorafit.system.hardware import available_cores

    (file,) = folder.glob("*.onnx")
    counted, seconds = 0, Counter[str]()
    for _ in range(2):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.enable_profiling = available_cores(), True
        options.profile_file_prefix = str(folder / "profile")
        runtime = predictor.runtime
        runtime._session = onnxruntime.InferenceSession(str(file), options)  # noqa: SLF001 - all else stays the same
        counted = count_tokens(runtime, ask)
        seconds.clear()
        events = json.loads(Path(runtime._session.end_profiling()).read_text(encoding="utf-8"))  # noqa: SLF001
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                seconds[event["args"]["op_name"]] += event["dur"] / 1e6
    return seconds, counted


def watch_openvino(predictor: Any, folder: Path, ask: Callable[[], object]) -> tuple[Counter[str], int]:  # noqa: ANN401
    """Let the runtime of a predictor be profiled, ask twice, and return the seconds of the second time."""
    import openvino

    from lorafit.system.hardware import available_cores

    runtime, seconds = predictor.runtime, Counter[str]()
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": available_cores(), "PERF_COUNT": True}
    settings |= {"INFERENCE_PRECISION_HINT": "bf16", "CPU_RUNTIME_CACHE_CAPACITY": 1000}
    runtime._model = openvino.Core().compile_model(str(folder / "openvino_model.xml"), "CPU", settings)  # noqa: SLF001
    outputs = runtime.outputs

    def watched(*given: Any, **named: Any) -> Any:  # noqa: ANN401 - whatever the runtime takes and gives
        found = outputs(*given, **named)
        for one in runtime._requests.own.get_profiling_info():  # noqa: SLF001 - the request of this thread
            seconds[one.node_type] += one.real_time.total_seconds()
        return found

    runtime._requests.__dict__.clear()  # noqa: SLF001 - requests of the model that was there
    runtime.outputs, runtime.wants_stream = watched, lambda _: False
    runtime.logits = lambda *given, **named: watched(*given, **named)[0]
    ask()
    seconds.clear()
    return seconds, count_tokens(runtime, ask)


def count_tokens(runtime: Any, ask: Callable[[], object]) -> int:  # noqa: ANN401 - any runtime
    """Ask, and return the tokens that the runtime read, padding left out."""
    counted, logits = [0], runtime.logits

    def counting(input_ids: Any, attention_mask: Any, **others: Any) -> Any:  # noqa: ANN401 - arrays
        counted[0] += int(np.asarray(attention_mask).sum())
        return logits(input_ids, attention_mask, **others)

    runtime.logits = counting
    try:
        ask()
    finally:
        runtime.logits = logits
    return counted[0]


def sum_by_kind(found: dict[str, Any]) -> Counter[str]:
    """Return milliseconds for a thousand tokens by kind of operator."""
    sums = Counter[str]()
    for name, seconds in found["seconds"].items():
        kind = next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "other")
        sums[kind] += 1e6 * seconds / found["tokens"]
    return sums


if __name__ == "__main__":
    main()
