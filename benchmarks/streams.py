"""Many texts in OpenVINO: all threads on one batch after another, against a batch a thread.

Run: LORAFIT_DATA=… python benchmarks/streams.py RUN [--data rotten-tomatoes|imdb] [--rows 1000] [--turns 4]

Exports RUN for OpenVINO, with int8 and without, and predicts the same test texts both ways in turns, so that whatever
else the machine does meets both. The first turn compiles code for the shapes and does not count. Parts are kept in
benchmarks/results/streams.json.
"""

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from inference import SOURCES, draw_rows
from trials import RESULTS, Ledger, run_fresh


def main() -> None:
    """Measure both ways, and print texts a second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", choices=SOURCES, default="rotten-tomatoes")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=4)
    arguments = parser.parse_args()
    ledger = Ledger(RESULTS / "streams.json", again=True)
    print("| data | arithmetic | one batch on all threads, texts/s | a batch a thread |\n|---|---|---|---|")
    for int8 in (False, True):
        settings = {"rows": arguments.rows, "turns": arguments.turns, "int8": int8}
        ask = partial(run_fresh, measure, arguments.run, SOURCES[arguments.data], arguments.rows, arguments.turns, int8)
        found = ledger.measure(f"{arguments.data}, {'int8' if int8 else 'float'}", settings, ask)
        one, many = (statistics.median(found[way]) for way in ("latency", "streams"))
        print(f"| {arguments.data} | {found['precision']} | {one:.1f} | {many:.1f} |", flush=True)


def measure(run: Path, source: str, rows: int, turns: int, int8: bool) -> dict[str, object]:
    """Return the texts a second of each turn, both ways."""
    import lorafit
    from lorafit.inference.export.export import export
    from lorafit.models.runtimes import openvino

    texts = draw_rows(source, rows)[0]
    found: dict[str, list[float]] = {"latency": [], "streams": []}
    with tempfile.TemporaryDirectory() as place:
        export(run, int8=int8, runtime="openvino", output=Path(place) / "export", allow_drift=True)
        predictor = lorafit.load(Path(place) / "export")
        for turn in range(turns):
            for way, worth in (("latency", 10**12), ("streams", 0)):
                openvino._WORTH_STREAMS = worth  # noqa: SLF001 - where it begins is what is compared
                began = time.perf_counter()
                predictor.predict(texts)
                if turn:
                    found[way].append(len(texts) / (time.perf_counter() - began))
        return {**found, "precision": predictor.runtime.precision}


if __name__ == "__main__":
    main()
