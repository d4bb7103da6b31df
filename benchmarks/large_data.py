"""Memory and time until training could begin on a csv file of millions of short rows.

Run: python benchmarks/large_data.py [--rows 2000000] [--folder FOLDER]

Writes the file, then, in a process of its own, reads, checks and cuts it as `lorafit train FILE` does, and tokenizes
the training rows. The labels follow from a word of the text, the texts are all different, and the tokenizer is the
built-in one. Nothing is trained. Writes benchmarks/results/large-data.json.
"""

import argparse
import csv
import tempfile
import time
from pathlib import Path

import numpy as np
from trials import BUILTIN, RESULTS, encoder_folder, run_fresh, write_results

from lorafit.config import load_config
from lorafit.data.loading import load_splits
from lorafit.models.load import load_tokenizer
from lorafit.models.tokenization import Truncation, tokenize
from lorafit.system import hardware

_WORDS = ["the", "film", "plot", "cast", "ending", "warm", "slow", "fine", "long", "quiet", "loud", "strange"]
_BLOCK = 100_000


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--folder", type=Path, help="where the file is put; a temporary one when absent")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / "rows.csv"
        write_rows(path, arguments.rows)
        result = {"rows": arguments.rows, "file_bytes": path.stat().st_size, **run_fresh(measure, path)}
    write_results(RESULTS / "large-data.json", result)
    print(
        f"{arguments.rows:,} rows: read, checked and cut in {result['read_seconds']:,.0f} s, "
        f"{result['train_rows']:,} training rows tokenized in {result['tokenize_seconds']:,.0f} s, "
        f"peak {result['peak_bytes'] / 1e9:.2f} GB"
    )


def write_rows(path: Path, rows: int) -> None:
    """Write texts of nine words and a number, with one of two labels."""
    rng = np.random.default_rng(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for start in range(0, rows, _BLOCK):
            drawn = rng.integers(len(_WORDS), size=(min(_BLOCK, rows - start), 9))
            for place, words in enumerate(drawn, start=start):
                label = "good" if words[0] % 2 else "bad"
                writer.writerow([f"{' '.join(_WORDS[word] for word in words)} {place}", label])


def measure(path: Path) -> dict[str, float]:
    """Read and tokenize in this process."""
    began = time.perf_counter()
    splits = load_splits(load_config(flags={"data.source": str(path)}).data)
    read = time.perf_counter() - began
    began = time.perf_counter()
    tokenizer, _ = load_tokenizer(encoder_folder(BUILTIN))
    tokens = tokenize(tokenizer, splits.train.texts, Truncation(128, "head", None))
    return {
        "read_seconds": round(read, 1),
        "tokenize_seconds": round(time.perf_counter() - began, 1),
        "train_rows": len(splits.train),
        "train_tokens": int(tokens.lengths.sum()),
        "peak_bytes": hardware.peak_memory_bytes(),
    }


if __name__ == "__main__":
    main()
