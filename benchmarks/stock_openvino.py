"""Predict with OpenVINO as its documentation says, without lorafit; `inference.py` runs this in another environment.

Reads `given.json` in the folder that is named: a model that transformers opens, texts in the order of the answers,
texts to warm up with, texts by which NNCF sees what is usual, and whether int8 is wanted. The model is exported by
Optimum Intel, quantized by NNCF for transformers, and compiled for throughput, in bf16 where the CPU has it;
batches are sorted by length and of so many tokens as a budget allows, all of them in flight at once. Writes
`found.json`: labels and seconds of the budget that is quickest, tokenising included, and of single texts, compiled for
latency, the seconds by length.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

BUDGETS = (512, 1024, 2048, 4096)
CALLS = 50
CODE_CACHE = 1000
"""Shapes whose code is kept, so that none is compiled twice while it is timed."""


def main() -> None:
    """Convert, quantize, time."""
    import openvino
    from optimum.intel import OVModelForSequenceClassification
    from transformers import AutoTokenizer

    folder = Path(sys.argv[1])
    given = json.loads((folder / "given.json").read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(given["model"])
    longest = tokenizer.model_max_length
    exported = OVModelForSequenceClassification.from_pretrained(given["model"], export=True, compile=False)
    names, graph = [*exported.config.id2label.values()], exported.model
    if given["int8"]:
        graph = quantize(graph, tokenizer, given["samples"])

    def encode(texts: list[str]) -> Any:  # noqa: ANN401 - transformers' BatchEncoding
        return tokenizer(texts, truncation=True, max_length=longest, padding=True, return_tensors="np")

    core = openvino.Core()
    common = {"CPU_RUNTIME_CACHE_CAPACITY": CODE_CACHE}
    if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        common["INFERENCE_PRECISION_HINT"] = "bf16"
    quick = core.compile_model(graph, "CPU", {**common, "PERFORMANCE_HINT": "THROUGHPUT"})
    found: dict[str, Any] = {"seconds": float("inf")}
    for budget in BUDGETS:
        ask(quick, tokenizer, given["warm_up"], budget)
        seconds, places = float("inf"), []
        for _ in range(2):  # the first compiles code for shapes
            began = time.perf_counter()
            places = ask(quick, tokenizer, given["texts"], budget)
            seconds = min(seconds, time.perf_counter() - began)
        if seconds < found["seconds"]:
            found = {"seconds": seconds, "budget": budget, "labels": [names[place] for place in places]}
    single = core.compile_model(graph, "CPU", {**common, "PERFORMANCE_HINT": "LATENCY"})
    words = {length: " ".join(["film"] * (length - 2)) for length in given["lengths"]}
    found["single"] = {
        str(length): time_calls(lambda text=text: single(dict(encode([text])))) for length, text in words.items()
    }
    found["versions"] = {name: version(name) for name in ("openvino", "nncf", "optimum-intel", "transformers")}
    (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")


def quantize(graph: Any, tokenizer: Any, samples: list[str]) -> Any:  # noqa: ANN401 - openvino's model
    """Quantize a graph by NNCF, its ranges those of the samples."""
    import nncf

    longest = tokenizer.model_max_length
    rows = [dict(tokenizer([text], truncation=True, max_length=longest, return_tensors="np")) for text in samples]
    return nncf.quantize(graph, nncf.Dataset(rows), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(rows))


def ask(model: Any, tokenizer: Any, texts: list[str], budget: int) -> list[int]:  # noqa: ANN401 - openvino's model
    """Return the place of the label of every text, the texts in batches of at most so many tokens."""
    import numpy as np
    import openvino

    tokens = tokenizer(texts, truncation=True, max_length=tokenizer.model_max_length)["input_ids"]
    answers = [0] * len(texts)

    def keep(request: Any, rows: list[int]) -> None:  # noqa: ANN401 - openvino's request
        for row, place in zip(rows, request.get_output_tensor(0).data.argmax(axis=1).tolist(), strict=True):
            answers[row] = place

    queue = openvino.AsyncInferQueue(model)
    queue.set_callback(keep)
    for rows in plan(tokens, budget):
        longest = max(len(tokens[row]) for row in rows)
        ids = np.full((len(rows), longest), tokenizer.pad_token_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, : len(tokens[row])] = tokens[row]
            mask[place, : len(tokens[row])] = 1
        queue.start_async({"input_ids": ids, "attention_mask": mask}, rows)
    queue.wait_all()
    return answers


def plan(tokens: list[list[int]], budget: int) -> Iterator[list[int]]:
    """Yield rows of batches, the longest texts first, each with its padding within the budget."""
    rows: list[int] = []
    for row in sorted(range(len(tokens)), key=lambda row: -len(tokens[row])):
        if rows and (len(rows) + 1) * len(tokens[rows[0]]) > budget:
            yield rows
            rows = []
        rows.append(row)
    yield rows


def time_calls(call: Callable[[], object]) -> list[float]:
    """Return the seconds of calls, after five to warm up."""
    times = []
    for place in range(CALLS + 5):
        began = time.perf_counter()
        call()
        if place >= 5:
            times.append(time.perf_counter() - began)
    return times


if __name__ == "__main__":
    main()
