"""How many requests a server answers, and how fast: lorafit's, and a plain one of FastAPI and transformers' pipeline.

Run: LORAFIT_DATA=… python benchmarks/serving.py RUN [--clients 1 8 64 256] [--adapters 1 10 100] [--seconds 10]
     [--sides …] [--data rotten-tomatoes|imdb] [--overload TIMES] [--soak MINUTES] [--workers N]

RUN is a run of any task with a LoRA adapter. Each request has one text of the test split, each client one connection,
and asks again as soon as it is answered. The load comes from a process of its own, on the same cores. With several
adapters RUN is served under as many names, each with factors of its own in memory; requests choose one at random, or by
Zipf's law ("skewed"). The plain server answers each request by a call of the pipeline in a thread, on the merged model
in fp32; LitServe has the same pipeline, batches of at most 64 after 3 ms, and an environment of its own. `--overload`
finds the most clients of whom none is refused, and then asks so many times as often, whatever comes back, the load on
one core and the server on another.
`--soak` lets 32 clients ask 10 adapters for so many minutes while one after the other is put away and opened again. The
cost of PEFT's `adapter_names` is that of its forward pass alone, on the same texts in batches of 64. Writes
benchmarks/results/serving.json.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from inference import SOURCES, draw_rows
from trials import RESULTS, make_environment, run_fresh, write_results

LORAFIT, FP32, PLAIN, LITSERVE = "lorafit", "lorafit, fp32", "FastAPI and pipeline", "LitServe"
SIDES = [LORAFIT, FP32, PLAIN, LITSERVE]
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

LITSERVE_PACKAGES = ["torch==2.13.0", "transformers>=5", "litserve==0.2.17"]
LITSERVE_SERVER = """
import sys
import litserve
from transformers import pipeline

class Classify(litserve.LitAPI):
    def setup(self, device):
        longest = int(sys.argv[2])
        self.model = pipeline("text-classification", model=sys.argv[1], truncation=True, max_length=longest, top_k=None)

    def decode_request(self, request):
        return request["inputs"]

    def predict(self, texts):
        return self.model(list(texts), batch_size=64)

    def encode_response(self, output):
        return output

if __name__ == "__main__":
    api = Classify(max_batch_size=64, batch_timeout=0.003)
    litserve.LitServer(api, accelerator="cpu").run(port=int(sys.argv[3]), log_level="error", generate_client_file=False)
"""


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 8, 64, 256])
    parser.add_argument("--adapters", type=int, nargs="*", default=[1, 10, 100])
    parser.add_argument("--sides", nargs="*", choices=SIDES, default=SIDES)
    parser.add_argument("--data", choices=SOURCES, default="rotten-tomatoes")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--overload", type=float, default=0.0, metavar="TIMES")
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS / "serving.json")
    arguments = parser.parse_args()
    texts = run_fresh(draw_texts, SOURCES[arguments.data], TEXTS)
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        merged = Path(place) / "merged"
        run_fresh(merge, arguments.run, merged)
        for side in arguments.sides:
            with open_side(side, arguments, merged, Path(place)) as (port, process):
                for clients in arguments.clients:
                    name = f"{side}, {clients} clients"
                    measured[name] = put_under_load(port, texts, clients, arguments.seconds) | read_memory(process)
                    print(name, measured[name], flush=True)
    for count in arguments.adapters:
        with serve([f"a{number}={arguments.run.resolve()}" for number in range(count)]) as (port, process):
            for law in ("uniform", SKEWED) if count > 1 else ("uniform",):
                name = f"{count} adapters, {law}, 64 clients"
                found = put_under_load(port, texts, 64, arguments.seconds, adapters=count, law=law)
                measured[name] = found | read_memory(process)
                print(name, measured[name], flush=True)
    for count in arguments.adapters:
        name = f"PEFT's adapter_names, {count} adapters"
        measured[name] = run_fresh(measure_peft, arguments.run, texts, count)
        print(name, measured[name], flush=True)
    if arguments.overload:
        with serve([f"a0={arguments.run.resolve()}"], core=1) as (port, process):
            name = f"overload, {arguments.overload:g} times"
            measured[name] = overload(port, texts, arguments.seconds, arguments.overload)
            print(name, measured[name], flush=True)
    if arguments.soak:
        measured["soak"] = soak(arguments.run, texts, arguments.soak)
        print("soak", measured["soak"], flush=True)
    settings = {name: getattr(arguments, name) for name in ("data", "seconds", "workers")}
    write_results(arguments.output, {"settings": settings, "measured": measured})


def draw_texts(source: str, count: int) -> list[str]:
    """Return texts of a test split."""
    return draw_rows(source, count)[0]


def merge(run: Path, folder: Path) -> None:
    """Write a run as a plain model."""
    from lorafit.inference.export.export import export_merged

    export_merged(run, output=folder)


def open_side(
    side: str, arguments: argparse.Namespace, merged: Path, place: Path
) -> contextlib.AbstractContextManager[tuple[int, "subprocess.Popen[str]"]]:
    """Begin a server that is to be compared."""
    if side == PLAIN:
        return serve_by(sys.executable, PLAIN_SERVER, merged)
    if side == LITSERVE:
        python = make_environment(place / "litserve", LITSERVE_PACKAGES)
        return serve_by(str(python), LITSERVE_SERVER, merged)
    more = ["--precision", "fp32"] if side == FP32 else []
    return serve([f"a0={arguments.run.resolve()}", "--workers", str(arguments.workers), *more])


@contextlib.contextmanager
def serve(words: list[str], *, core: int | None = None) -> Iterator[tuple[int, "subprocess.Popen[str]"]]:
    """Serve what these words of the command line name, on all cores or on one of them, and yield the port."""
    pinned = [] if core is None else ["taskset", "-c", str(core)]
    command = [*pinned, sys.executable, "-m", "lorafit", "serve", *words, "--port", "0", "--quiet"]
    process = subprocess.Popen([*command, "--max-adapters", "1100"], stderr=subprocess.PIPE, text=True)
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
def serve_by(python: str, script: str, merged: Path) -> Iterator[tuple[int, "subprocess.Popen[str]"]]:
    """Serve a plain model by a script, and yield the port."""
    port = 18080
    path = merged.parent / "server.py"
    path.write_text(script, encoding="utf-8")
    process = subprocess.Popen([python, path, str(merged), "256", str(port)], text=True, start_new_session=True)
    try:
        wait_until_ready(port)
        yield port, process
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # LitServe has processes of its own
        process.wait()


def wait_until_ready(port: int) -> None:
    """Wait until a server is ready."""
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


def load(
    port: int, texts: list[str], clients: int, seconds: float, adapters: int, law: str, *, core: int | None = None
) -> dict[str, float]:
    """Let clients ask for so long, and return requests a second and the percentiles of the latency."""
    if core is not None:
        os.sched_setaffinity(0, {core})
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
    """Return the memory that a process and those it began hold, what they share counted once."""
    pids, held = [process.pid], 0
    for pid in pids:
        with contextlib.suppress(OSError):  # one that has ended meanwhile
            pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split())
            told = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
            held += int(re.search(r"Pss:\s+(\d+)", told)[1])  # type: ignore[index]
    return {"memory, MB": held / 1024}


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
    cuts = [texts[start : start + 64] for start in range(0, 320, 64)]
    batches = [(len(cut), tokenizer(cut, padding=True, truncation=True, return_tensors="pt")) for cut in cuts]
    with torch.inference_mode():
        for turn, (rows, padded) in enumerate([batches[0], *batches]):
            if turn == 1:
                done, began = 0, time.monotonic()
            given = {"adapter_names": [draw.choice(names) for _ in range(rows)]} if count > 1 else {}
            model(**padded, **given)
            done += rows
    return {"texts a second": done / (time.monotonic() - began)}


def overload(port: int, texts: list[str], seconds: float, times: float) -> dict[str, float]:
    """Find the most clients of whom none is refused, 2 to 128, then ask so many times as often, from another core."""
    capacity: dict[str, float] = {}
    for clients in (2, 4, 8, 16, 32, 64, 128):
        found = {"clients": clients, **run_fresh(load, port, texts, clients, seconds, 0, "uniform", core=0)}
        print("capacity?", found, flush=True)
        if found["refused"] and capacity:
            break
        capacity = found
    rate = times * capacity["requests a second"]
    return {
        "clients at capacity": capacity["clients"],
        "capacity, requests a second": capacity["requests a second"],
        "p99 at capacity, ms": capacity["p99, ms"],
        **run_fresh(pour, port, texts, rate, seconds),
    }


def pour(port: int, texts: list[str], rate: float, seconds: float) -> dict[str, float]:
    """Ask at a steady rate, each time on a connection of its own, and tell who is answered and who is refused."""
    os.sched_setaffinity(0, {0})
    told: dict[int, list[float]] = {}
    lost, asking = 0, 0.0

    async def ask(text: str) -> None:
        nonlocal lost
        body, began = json.dumps({"inputs": text}).encode(), time.monotonic()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"{HEAD}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            answer = await reader.read()
            writer.close()
            told.setdefault(int(answer.split(b" ", 2)[1]), []).append(time.monotonic() - began)
        except (OSError, IndexError, ValueError):
            lost += 1

    async def run() -> None:
        nonlocal asking
        draw, began = random.Random(0), time.monotonic()  # noqa: S311 - nothing is kept secret
        async with asyncio.TaskGroup() as group:
            for turn in range(round(rate * seconds)):
                await asyncio.sleep(max(0.0, began + turn / rate - time.monotonic()))
                group.create_task(ask(draw.choice(texts)))
            asking = time.monotonic() - began
        asking = max(asking, seconds)

    asyncio.run(run())
    share = {status: 1000 * statistics.quantiles(times, n=100)[98] for status, times in told.items() if len(times) > 1}
    return {
        "asked a second": round(rate * seconds) / asking,
        "answered": len(told.get(200, [])),
        "seconds of asking": asking,
        "refused": len(told.get(429, [])),
        **{f"p99 of {what}, ms": share[one] for one, what in ((200, "answers"), (429, "refusals")) if one in share},
        "other answers": sum(len(times) for status, times in told.items() if status not in {200, 429}),
        "lost": lost,
    }


def soak(run: Path, texts: list[str], minutes: float) -> dict[str, float]:
    """Let clients ask ten adapters while one after the other is put away and opened again; watch errors and memory."""
    import shutil

    requests = errors = changes = 0
    memory: list[float] = []
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(1) as pool:
        for number in range(10):
            shutil.copytree(run, f"{place}/a{number}")
        with serve(["--adapters-dir", place]) as (port, process):
            for turn in range(max(2, round(minutes))):
                done = pool.submit(put_under_load, port, texts, 32, 58, adapters=10)
                while not done.done():
                    told = change(port, f"a{changes % 10}")
                    changes += 1
                    # it may not be open yet, and a client's request may have opened it again first
                    errors += told not in {(204, 201), (204, 409), (404, 201), (404, 409)}
                found = done.result()
                requests += round(found["requests a second"] * 58)
                errors += round(found["refused"])
                memory.append(read_memory(process)["memory, MB"])
                print(f"minute {turn + 1}: {found}, {memory[-1]:.0f} MB", flush=True)
    return {
        "requests": requests,
        "errors": errors,
        "adapters put away and opened": changes,
        "after a minute, MB": memory[0],
        "after half the time, MB": memory[len(memory) // 2],
        "at the end, MB": memory[-1],
    }


def change(port: int, name: str) -> tuple[int, ...]:
    """Put a model away and open it again; return both statuses."""
    statuses = []
    for method, path in (("DELETE", f"/adapters/{name}"), ("POST", "/adapters")):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        body = json.dumps({"name": name}) if method == "POST" else None
        connection.request(method, path, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        statuses.append(answer.status)
        connection.close()
    time.sleep(1.0)
    return tuple(statuses)


if __name__ == "__main__":
    main()
