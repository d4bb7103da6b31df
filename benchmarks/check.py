"""Measure `lorafit check`: on all of IMDb, on two million short rows, and its MinHash beside that of datasketch.

Run: LORAFIT_DATA=… python benchmarks/check.py [--datasketch PYTHON], with an interpreter that has datasketch.
Writes benchmarks/results/check.json.
"""

import argparse
import csv
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from environment import describe_environment
from trials import RESULTS, run_fresh

from lorafit.config import load_config
from lorafit.system import hardware
from lorafit.system.atomic import write_atomic

SHORT_ROWS = 2_000_000

DATASKETCH = """
import json, re, sys, time
from datasketch import MinHash, MinHashLSH
texts = json.load(open(sys.argv[1], encoding="utf-8"))
start, cpu = time.perf_counter(), time.process_time()
index, found = MinHashLSH(threshold=0.8, num_perm=128), 0
for place, text in enumerate(texts):
    words = re.findall(r"\\w+", text.lower())
    sketch = MinHash(num_perm=128)
    sketch.update_batch([f"{a} {b}".encode() for a, b in zip(words, words[1:])] or [b""])
    if index.query(sketch):
        found += 1
    else:
        index.insert(str(place), sketch)
import datasketch
print(json.dumps({"version": datasketch.__version__, "seconds": time.perf_counter() - start,
                  "cpu_seconds": time.process_time() - cpu, "repeated_rows": found}))
"""


def measure(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run something and return what it returns, with its time and the peak memory of this process."""
    start, cpu = time.perf_counter(), time.process_time()
    result = work()
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "peak_memory_gb": round(hardware.peak_memory_bytes() / 1e9, 2),
        **result,
    }


def measure_repeats() -> dict[str, Any]:
    """Find duplicates, near duplicates, leaks and contradictory labels in all reviews of IMDb, reading included."""
    from lorafit.data.quality.duplicates import find_conflicts, find_duplicates, group_equal, group_similar
    from lorafit.data.quality.label_spread import find_label_faults
    from lorafit.training.check import _read

    def work() -> dict[str, Any]:
        rows, _ = _read(load_config(flags={"data.source": "imdb"}).data)
        equal = group_equal(rows.texts)
        similar = group_similar(rows.texts, equal)
        found = [
            *find_duplicates(rows, equal),
            *find_duplicates(rows, equal, similar),
            *find_conflicts(rows, equal),
            *find_conflicts(rows, equal, similar),
            *find_label_faults(rows),
        ]
        return {"rows": len(rows.texts), "found": {f"{one.name} {one.split or 'all'}": one.count for one in found}}

    return measure(work)


def measure_check(source: str, *, all_rows: bool = False) -> dict[str, Any]:
    """Run a whole check with the built-in encoder's tokenizer."""
    from lorafit.training.check import check

    def work() -> dict[str, Any]:
        flags = {"data.source": source, "model.name": "builtin:distil-minilm"}
        report = check(load_config(flags=flags), all_rows=all_rows)
        return {
            "rows": sum(report.rows.values()),
            "found": {f"{one.name} {one.split or 'all'}": one.count for one in report.findings},
            "skipped": [one.what for one in report.skipped],
        }

    return measure(work)


def write_short_rows(path: Path) -> None:
    """Write rows of about ten words, a hundredth of them twice."""
    rng = random.Random(0)  # noqa: S311 - rows to measure with
    words = [f"{first}{second}{third}" for first in "bdfgklmnprstvz" for second in "aeiou" for third in "lmnrst"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        text = ""
        for row in range(SHORT_ROWS):
            text = text if row % 100 == 99 else " ".join(rng.choices(words, k=10))
            writer.writerow([text, row % 3])


def measure_datasketch(python: str) -> dict[str, Any]:
    """Find repeated rows by datasketch's MinHash, which is written in Python with numpy."""
    from lorafit.data.imdb import load_imdb

    raw = load_imdb()
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "texts.json"
        texts.write_text(json.dumps([*raw.train.texts, *(raw.test.texts if raw.test else ())]), encoding="utf-8")
        done = subprocess.run([python, "-c", DATASKETCH, str(texts)], check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main() -> None:
    """Measure everything, each in a process of its own, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasketch", metavar="PYTHON", help="an interpreter that has datasketch")
    options = parser.parse_args()
    results: dict[str, Any] = {
        "environment": describe_environment()
        | {name: version(name) for name in ("rensa", "ftfy", "py3langid")}
        | {"python": sys.version.split()[0]},
        "imdb_repeats": run_fresh(measure_repeats),
        "imdb": run_fresh(measure_check, "imdb"),
        "imdb_all_rows": run_fresh(measure_check, "imdb", all_rows=True),
        "rotten_tomatoes": run_fresh(measure_check, "builtin:rotten-tomatoes"),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "short.csv"
        write_short_rows(path)
        results["short_rows"] = run_fresh(measure_check, str(path))
    if options.datasketch:
        results["imdb_repeats_datasketch"] = measure_datasketch(options.datasketch)
    write_atomic(RESULTS / "check.json", json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
