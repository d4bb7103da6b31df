"""What a billion texts and 10,000 adapters cost on paper: the tables of docs/explanation/scale.md.

Run: python benchmarks/scale.py

Measures nothing: it multiplies what others have measured and kept in benchmarks/results/. A core's time is the seconds
of all cores of the machine; what grows with the rows or the adapters is taken as growing evenly.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
TEXTS = 1_000_000_000
ADAPTERS = 10_000
MACHINES = 100
RECORDS = ("cluster", "inference-imdb", "job-memory", "large-data", "serving-avx2-adapters", "scaling")
ID_BYTES = 8
"""Of the hash of an id, of which the command that starts a cluster's job holds one a row."""


def main() -> None:
    """Print the tables."""
    print("\n".join(render_tables()))


def render_tables() -> list[str]:
    """Return the lines of the tables, as they stand on the page."""
    texts = ["| a billion texts | texts/s a core | core-hours | one machine | 100 machines |", "|---|---|---|---|---|"]
    adapters = ["| what grows | measured | a billion texts, 10,000 adapters | record |", "|---|---|---|---|"]
    records = ["| record | date | machine | torch |", "|---|---|---|---|"]
    return [*texts, *list_texts(), "", *adapters, *list_amounts(), "", *records, *list_records()]


def list_texts() -> Iterator[str]:
    """Yield what it takes to predict a billion texts."""
    cluster = read("cluster")
    cores = cluster["cpus"]
    alone, shared = (cores / cluster[side]["texts_per_second"] for side in ("alone", "ray"))
    reviews = read_inference("inference-imdb", "lorafit, int8")
    for name, seconds in (
        ("short ones, int8", alone),
        ("the same through Ray", shared),
        ("reviews of 207 tokens, int8", reviews),
        ("the same through Ray", reviews + shared - alone),
    ):
        hours = TEXTS * seconds / 3600
        one, many = f"{hours / cores / 24:,.0f} days", f"{hours / cores / MACHINES:,.1f} hours"
        yield f"| {name} | {1 / seconds:,.0f} | {hours:,.0f} | {one} | {many} |"


def list_amounts() -> Iterator[str]:
    """Yield what takes memory or time by the row or by the adapter."""
    rows = (*list_amounts_of_rows(), *list_amounts_of_adapters())
    return (f"| {what} | {measured} | {all_of_it} | {record} |" for what, measured, all_of_it, record in rows)


def list_amounts_of_rows() -> Iterator[tuple[str, str, str, str]]:
    """Yield what grows, what was measured, what a billion texts take, and the record."""
    job, large = read("job-memory"), read("large-data")
    over, row = job["peak_bytes"] - job["model_bytes"], large["peak_bytes"] / large["rows"]
    reading = (large["read_seconds"] + large["tokenize_seconds"]) / large["rows"]
    measured = f"{over / 1e6:.1f} MB for {job['rows'] / 1e6:.0f} million rows"
    yield "memory of `lorafit predict` over its model", measured, "the same: rows pass through", "`job-memory.json`"
    measured = f"{ID_BYTES} bytes a row where the command runs"
    needed = f"{ID_BYTES * TEXTS / 1e9:.0f} GB, twice that while they are compared"
    yield "memory of ids on a cluster", measured, needed, "by design"
    measured = f"at most {row:,.0f} bytes a row"
    yield "memory of training on them", measured, f"{row * TEXTS / 1e9:,.0f} GB", "`large-data.json`"
    measured = f"{reading * 1e6:.0f} s a million rows"
    yield "reading and tokenising them to train", measured, f"{reading * TEXTS / 3600:.0f} hours", "`large-data.json`"


def list_amounts_of_adapters() -> Iterator[tuple[str, str, str, str]]:
    """Yield what grows, what was measured, what 10,000 adapters take, and the record."""
    server, record = read("serving-avx2-adapters"), "`serving-avx2-adapters.json`"
    one, many = (server["measured"][f"{count} adapters, uniform, 64 clients"] for count in (1, 100))
    memory, speed = ([side[name] for side in (one, many)] for name in ("memory, MB", "requests a second"))
    adapter, room = (memory[1] - memory[0]) / 99, server["environment"]["memory_gb"]
    needed = f"{adapter * ADAPTERS / 1e3:.0f} GB; {room} GB hold {(room * 1e3 - memory[0]) / adapter:,.0f}"
    yield "memory of served adapters, fp32", f"{adapter:.1f} MB each", needed, record
    measured = f"{speed[0]:.0f} with 1 adapter, {speed[1]:.0f} with 100"
    yield "requests a second, 64 clients", measured, "no batch has more adapters than texts", record
    run = read("scaling")["parts"]["500 rows, 64 tokens, 2 threads"]["result"]["seconds"]
    needed = f"{run * ADAPTERS / 3600:.0f} hours on one machine"
    yield "training steps of an adapter, 500 rows of 64 tokens", f"{run:.1f} s on 2 cores", needed, "`scaling.json`"


def list_records() -> Iterator[str]:
    """Yield where and when each record was measured."""
    for name in RECORDS:
        told = read(name)["environment"]
        machine = f"{told['cores']} core{'s' * (told['cores'] > 1)} of an {told['cpu']}, {told['memory_gb']} GB"
        yield f"| `{name}.json` | {told['date']} | {machine} | {told['torch']} |"


def read_inference(record: str, part: str) -> float:
    """Return the seconds of a core that a text takes."""
    kept = read(record)["parts"][part]
    return float(kept["result"]["seconds"] / kept["result"]["texts"] * kept["environment"]["cores"])


def read(record: str) -> Any:  # noqa: ANN401 - each record has its own fields
    """Return what a benchmark has kept."""
    return json.loads((RESULTS / f"{record}.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
