"""Memory of a long prediction job over that of its model: does it grow with the rows?

Run: python benchmarks/job_memory.py [--rows 10000000] [--folder FOLDER]

Writes a csv file of so many short texts, row by row, and classifies it as `lorafit predict --file` does, in a process
of its own, with an exported model. The model is tiny and knows nothing (one layer of width 32, random weights, the
built-in tokenizer): the rows are what is measured. The memory of the model is the largest that the process has while it
classifies the first 4,096 texts. Writes benchmarks/results/job-memory.json.
"""

import argparse
import csv
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from trials import BUILTIN, RESULTS, encoder_folder, run_fresh, write_results

from lorafit.cli.render.progress import PlainProgress
from lorafit.config import load_config
from lorafit.inference.batch import run_job
from lorafit.inference.export.export import export
from lorafit.inference.jobs import open_file
from lorafit.inference.loading import load
from lorafit.system import hardware
from lorafit.training.pipeline import train

_FIRST = 4096
_WORDS = ["the", "film", "plot", "cast", "ending", "great", "dull", "warm", "slow", "fine"]


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, help="where the files are put; a temporary one when absent")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        run_fresh(make_model, folder)
        write_rows(folder / "first.csv", _FIRST)
        write_rows(folder / "rows.csv", arguments.rows)
        result = run_fresh(measure, folder)
    write_results(RESULTS / "job-memory.json", {"rows": arguments.rows, **result})
    over = result["peak_bytes"] - result["model_bytes"]
    print(
        f"{arguments.rows:,} rows: {over / 1e6:,.0f} MB over the {result['model_bytes'] / 1e6:,.0f} MB of the model; "
        f"file {result['file_bytes'] / 1e9:.2f} GB, {result['seconds']:,.0f} s"
    )


def make_model(folder: Path) -> None:
    """Train a tiny encoder for one step and export it to `folder/export`."""
    from transformers import DistilBertConfig, DistilBertModel

    encoder = folder / "encoder"
    DistilBertModel(DistilBertConfig(dim=32, hidden_dim=64, n_layers=1, n_heads=2)).save_pretrained(encoder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(encoder_folder(BUILTIN) / name, encoder / name)
    settings = [
        "training.max_steps=1",
        "data.max_rows=200",
        "evaluation.report=false",
        "evaluation.baselines=false",
    ]
    config = load_config(overrides=["data.source=builtin:rotten-tomatoes", f"model.name={encoder}", *settings])
    run = train(config, output=folder / "run", progress=PlainProgress())
    export(run.path, output=folder / "export", progress=PlainProgress())


def write_rows(path: Path, rows: int) -> None:
    """Write texts of five words and a number."""
    rng = np.random.default_rng(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text"])
        for start in range(0, rows, _FIRST):
            drawn = rng.integers(len(_WORDS), size=(min(_FIRST, rows - start), 5))
            writer.writerows(
                [f"{' '.join(_WORDS[word] for word in words)} {start + place}"] for place, words in enumerate(drawn)
            )


def measure(folder: Path) -> dict[str, float]:
    """Classify the first rows, then all, in this process."""
    predictor = load(folder / "export")
    hardware.reset_peak_memory()  # loading takes more for a moment, which would hide what grows
    run_job(open_file(folder / "first.csv"), predictor, folder / "first-predictions.csv")
    model_bytes = hardware.peak_memory_bytes()
    hardware.reset_peak_memory()
    began = time.perf_counter()
    job = open_file(folder / "rows.csv", progress=PlainProgress())
    run_job(job, predictor, folder / "predictions.csv", progress=PlainProgress())
    seconds = time.perf_counter() - began
    with (folder / "predictions.csv").open(encoding="utf-8") as predictions:
        written = sum(1 for _ in predictions) - 1
    if written != job.rows:
        raise RuntimeError(f"{written:,} predictions for {job.rows:,} rows.")
    return {
        "model_bytes": model_bytes,
        "peak_bytes": hardware.peak_memory_bytes(),
        "file_bytes": (folder / "rows.csv").stat().st_size,
        "seconds": seconds,
    }


if __name__ == "__main__":
    main()
