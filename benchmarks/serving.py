"""How many requests a server answers, and how fast: lorafit's, and a plain one of FastAPI and transformers' pipeline.

Run: LORAFIT_DATA=… python benchmarks/serving.py RUN [--clients 1 8 64 256] [--adapters 1 10 100] [--seconds 10]
     [--sides …] [--data rotten-tomatoes|imdb] [--soak MINUTES]

RUN is a run of any task with a LoRA adapter. Each request has one text of the test split, each client one connection,
and asks again as soon as it is answered. The load comes from a process of its own, on the same cores. With several
adapters RUN is served under as many names, each with factors of its own in memory; requests choose one at random, or by
Zipf's law ("skewed"). The plain server answers each request by a call of the pipeline in a thread, on the merged model
in fp32. `--soak` opens and closes adapters under load for so many minutes and counts errors and memory. The cost of
PEFT's `adapter_names` is that of its forward pass alone, on the same texts in batches of 64. Writes
benchmarks/results/serving.json.
"""

import argparse
import asyncio
import contextlib
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from inference import SOURCES, draw_rows
from trials import RESULTS, run_fresh, write_results

LORAFIT, FP32, PLAIN = "lorafit", "lorafit, fp32", "FastAPI and pipeline"
SKEWED = "skewed"
HEAD = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
WARM_UP_SECONDS = 2.0
TEXTS = 500
PLAIN_SERVER = """
import sys
import uvicorn
from fastapi import FastAPI
from transformers import pipeline

classify = pipeline("text-classification", model=sys.argv[1], truncation=True, max_length=int(sys.argv[2]), top_k=None)
app = FastAPI()

@app.get("/health")
def health() -> dict[str, bool]:
    return {"ready": True}

@app.post("/predict")
def predict(asked: dict[str, str]) -> list[dict[str, object]]:
    return classify([asked["inputs"]])[0]

uvicorn.run(app, port=int(sys.argv[3]), log_level="error")
"""


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 8, 64, 256])
    parser.add_argument("--adapters", type=int, nargs="*", default=[1, 10, 100])
    parser.add_argument("--sides", nargs="*", choices=[LORAFIT, FP32, PLAIN], default=[LORAFIT, FP32, PLAIN])
    parser.add_argument("--data", choices=SOURCES, default="rotten-tomatoes")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES")
    parser.add_argument("--output", type=Path, default=RESULTS / "serving.json")
    arguments = parser.parse_args()
    texts = run_fresh(draw_texts, SOURCES[arguments.data], TEXTS)
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        merged = Path(place) / "merged"
        run_fresh(merge, arguments.run, merged)
        for side in arguments.sides:
            opened = serve_plain(merged) if side == PLAIN else serve(arguments.run, 1, fp32=side == FP32)
            with opened as (port, process):
                for clients in arguments.clients:
                    name = f"{side}, {clients} clients"
                    measured[name] = put_under_load(port, texts, clients, arguments.seconds) | read_memory(process)
                    print(name, measured[name], flush=True)
    for count in arguments.adapters:
        with serve(arguments.run, count) as (port, process):
            for law in ("uniform", SKEWED) if count > 1 else ("uniform",):
                name = f"{count} adapters, {law}, 64 clients"
                found = put_under_load(port, texts, 64, arguments.seconds, adapters=count, law=law)
                measured[name] = found | read_memory(process)
                print(name, measured[name], flush=True)
    for count in arguments.adapters:
        name = f"PEFT's adapter_names, {count} adapters"
        measured[name] = run_fresh(measure_peft, arguments.run, texts, count)
        print(name, measured[name], flush=True)
    if arguments.soak:
        with serve(arguments.run, 10) as (port, process):
            measured["soak"] = soak(port, process, texts, arguments.soak)
            print("soak", measured["soak"], flush=True)
    write_results(arguments.output, {"settings": {"data": arguments.data}, "measured": measured})


def draw_texts(source: str, count: int) -> list[str]:
    """Return texts of a test split."""
    return draw_rows(source, count)[0]


def merge(run: Path, folder: Path) -> None:
    """Write a run as a plain model."""
    from lorafit.inference.export.export import export_merged

    export_merged(run, output=folder)


@contextlib.contextmanager
def serve(run: Path, adapters: int, *, fp32: bool = False) -> Iterator[tuple[int, "subprocess.Popen[str]"]]:
    """Serve a run under so many names, and yield the port."""
    names = [f"a{number}={run.resolve()}" for number in range(adapters)]
    more = ["--precision", "fp32"] if fp32 else []
    words = [
        sys.executable,
        "-m",
        "lorafit",
        "serve",
        *names,
        "--port",
        "0",
        "--quiet",
        *more,
        "--max-adapters",
        "1100",
    ]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    try:
        if process.stderr is None:
            raise TypeError("standard error is a pipe")
        port = next(int(found[1]) for line in process.stderr if (found := re.match(r"http://[\d.]+:(\d+)", line)))
        wait_until_ready(port)
        yield port, process
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def serve_plain(merged: Path) -> Iterator[tuple[int, "subprocess.Popen[str]"]]:
    """Serve a plain model, and yield the port."""
    port = 18080
    process = subprocess.Popen([sys.executable, "-c", PLAIN_SERVER, str(merged), "256", str(port)], text=True)
    try:
        wait_until_ready(port)
        yield port, process
    finally:
        process.terminate()
        process.wait()


def wait_until_ready(port: int) -> None:
    """Wait until a server is ready."""
    import http.client

    until = time.monotonic() + 600
    while time.monotonic() < until:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nothing answers at {port}")


def put_under_load(
    port: int, texts: list[str], clients: int, seconds: float, *, adapters: int = 0, law: str = "uniform"
) -> dict[str, float]:
    """Ask from a process of its own."""
    return run_fresh(load, port, texts, clients, seconds, adapters, law)


def load(port: int, texts: list[str], clients: int, seconds: float, adapters: int, law: str) -> dict[str, float]:
    """Let clients ask for so long, and return requests a second and the percentiles of the latency."""
    latencies: list[float] = []
    refused = 0
    weights = [1 / (rank + 1) for rank in range(adapters)] if law == SKEWED else None

    async def client(number: int, until: float, counted: float) -> None:
        nonlocal refused
        draw = random.Random(number)  # noqa: S311 - nothing is kept secret
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (began := time.monotonic()) < until:
            asked = {"inputs": draw.choice(texts)}
            if adapters:
                asked["model"] = f"a{draw.choices(range(adapters), weights)[0]}"
            body = json.dumps(asked).encode()
            head = f"{HEAD}Content-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            size = int(re.search(rb"content-length: (\d+)", answer.lower())[1])  # type: ignore[index]
            await reader.readexactly(size)
            if began >= counted:
                if answer.split(b" ", 2)[1] == b"200":
                    latencies.append(time.monotonic() - began)
                else:
                    refused += 1
        writer.close()

    async def run() -> None:
        begin = time.monotonic()
        counted = begin + WARM_UP_SECONDS
        await asyncio.gather(*(client(number, counted + seconds, counted) for number in range(clients)))

    asyncio.run(run())
    cuts = statistics.quantiles(latencies, n=100)
    return {
        "requests a second": len(latencies) / seconds,
        **{f"p{share}, ms": 1000 * cuts[share - 1] for share in (50, 95, 99)},
        "refused": refused,
    }


def read_memory(process: "subprocess.Popen[str]") -> dict[str, float]:
    """Return the memory that a process holds."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    return {"memory, MB": int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024}  # type: ignore[index]


def measure_peft(run: Path, texts: list[str], count: int) -> dict[str, float]:
    """Measure texts a second of PEFT's mixed batches, tokenising left out; each adapter is RUN's, loaded again."""
    import torch
    from peft import AutoPeftModelForSequenceClassification
    from transformers import AutoTokenizer

    folder = run / "adapter"
    labels = json.loads((folder / "labels" / "config.json").read_text(encoding="utf-8"))["id2label"]
    model = AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=len(labels)).eval()
    names = ["default", *(f"a{number}" for number in range(1, count))]
    for name in names[1:]:
        model.load_adapter(folder, adapter_name=name)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    draw, done, began = random.Random(0), 0, 0.0  # noqa: S311 - the same
    batches = [texts[start : start + 64] for start in range(0, 320, 64)]
    with torch.inference_mode():
        for turn, batch in enumerate([batches[0], *batches]):
            if turn == 1:
                done, began = 0, time.monotonic()
            padded = tokenizer(batch, padding=True, truncation=True, return_tensors="pt")
            given = {"adapter_names": [draw.choice(names) for _ in batch]} if count > 1 else {}
            model(**padded, **given)
            done += len(batch)
    return {"texts a second": done / (time.monotonic() - began)}


def soak(port: int, process: "subprocess.Popen[str]", texts: list[str], minutes: float) -> dict[str, float]:
    """Put a server under load while memory is watched."""
    memory = [read_memory(process)["memory, MB"]]
    requests = 0.0
    for _ in range(max(1, round(minutes))):
        found = put_under_load(port, texts, 32, 58, adapters=10)
        requests += found["requests a second"] * 58
        memory.append(read_memory(process)["memory, MB"])
    return {
        "requests": requests,
        "memory before, MB": memory[0],
        "after a minute, MB": memory[1],
        "at the end, MB": memory[-1],
    }


if __name__ == "__main__":
    main()
