"""What Ray costs on one machine: `lorafit predict` of a file, alone and with `--engine ray`, on the same cores.

Run: python benchmarks/cluster.py EXPORT [--rows 20000 60000] [--cpus 2] [--kill]

EXPORT is the folder of an exported model. The texts are those of builtin:rotten-tomatoes, again and again, with ids, in
parquet files of 10,000 rows. Both commands run to their end in processes of their own, in turns. The seconds that a
row takes are those between the sizes, so that what a command takes to begin is given apart. With `--kill`, a second
node on this machine joins in, is killed midway, and the rows that were written are compared with those that were read.
Writes benchmarks/results/cluster.json.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from trials import RESULTS, write_results

from lorafit.data.builtin import load_rotten_tomatoes
from lorafit.data.writing import write_table

_PER_FILE = 10_000


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path)
    parser.add_argument("--rows", type=int, nargs=2, default=[20_000, 60_000])
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--kill", action="store_true")
    arguments = parser.parse_args()
    result: dict[str, Any] = {"cpus": arguments.cpus, "rows": arguments.rows}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds: dict[str, list[float]] = {"alone": [], "ray": []}
        for rows in arguments.rows:
            write_rows(folder / f"{rows}", rows)
            write_rows(folder / f"{rows}-whole", rows, per_file=rows)
            alone = ["--file", str(folder / f"{rows}-whole" / "0.parquet"), "--output", str(folder / f"{rows}.parquet")]
            shared = ["--file", str(folder / f"{rows}"), "--output", str(folder / f"{rows}-out"), "--id-column", "id"]
            engine = ["--engine", "ray", "--cpus-per-actor", str(arguments.cpus)]
            for side, words in (("alone", alone), ("ray", [*shared, *engine])):
                seconds[side].append(run(arguments.export, words))
                print(f"{side}, {rows:,} rows: {seconds[side][-1]:.1f} s", flush=True)
        result["seconds"] = seconds
        for side, (few, many) in seconds.items():
            per_row = (many - few) / (arguments.rows[1] - arguments.rows[0])
            result[side] = {"texts_per_second": 1 / per_row, "seconds_to_begin": few - arguments.rows[0] * per_row}
        result["overhead"] = result["alone"]["texts_per_second"] / result["ray"]["texts_per_second"] - 1
        if arguments.kill:
            result["killed"] = kill_a_node(arguments.export, folder / f"{arguments.rows[0]}", folder / "killed")
    write_results(RESULTS / "cluster.json", result)
    print(result)


def write_rows(folder: Path, rows: int, *, per_file: int = _PER_FILE) -> None:
    """Write short texts with ids into parquet files."""
    texts = load_rotten_tomatoes().train.texts
    folder.mkdir()
    for start in range(0, rows, per_file):
        ids = range(start, min(start + per_file, rows))
        columns = {"id": list(ids), "text": [str(texts[one % len(texts)]) for one in ids]}
        write_table(folder / f"{start // per_file}.parquet", columns)


def run(export: Path, words: list[str]) -> float:
    """Run `lorafit predict` and return the seconds that it took."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "lorafit", "predict", str(export), *words, "-q"], check=True)
    return time.perf_counter() - began


def kill_a_node(export: Path, files: Path, output: Path) -> dict[str, Any]:
    """Predict on two nodes, kill one when the first part is written, and count ids that are missing or there twice."""
    from pyarrow import parquet
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()

    def kill() -> None:
        while not list(output.glob("*.parquet")):
            time.sleep(0.1)
        cluster.remove_node(node, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    words = ["--file", str(files), "--output", str(output), "--id-column", "id", "--engine", "ray"]
    seconds = run(export, [*words, "--address", cluster.address, "--cpus-per-actor", "1"])
    killer.join()
    cluster.shutdown()
    found = Counter(parquet.read_table(output, columns=["id"])["id"].to_pylist())
    read = {
        one for path in files.glob("*.parquet") for one in parquet.read_table(path, columns=["id"])["id"].to_pylist()
    }
    return {
        "rows": len(read),
        "lost": len(read - found.keys()),
        "doubled": sum(found.values()) - len(found),
        "seconds": seconds,
    }


if __name__ == "__main__":
    main()
