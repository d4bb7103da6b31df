"""Record what lorafit measures and predicts, so that a change of its structure can be held against it.

    python scripts/freeze_numbers.py freeze FOLDER    # trains three runs, compares, searches and diffs into FOLDER
    python scripts/freeze_numbers.py compare OLD NEW  # tables of what moved between two such folders

`freeze` runs the `lorafit` that is importable, each command in a process of its own, with fixed seeds and threads.
It needs `LORAFIT_DATA` with IMDb. Folders belong below runs/, which git ignores.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

MODEL = "builtin:distil-minilm"
SHORT = ["training.epochs=1", "model.max_length=64", "evaluation.report=false"]


def freeze(folder: Path) -> None:
    """Train, compare, search and diff into `folder`; what is there already is kept."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    numbers, labels = _write_imdb(folder)
    many = ["--task", "multi_label"]
    number = ["--task", "regression", "--label-column", "rating"]
    built_in = "builtin:rotten-tomatoes"
    _lorafit(folder, "single", "train", built_in, *_set("evaluation.report=false"), "--target-accuracy", "0.9")
    _lorafit(folder, "single-short", "train", built_in, *_set(*SHORT, "data.max_rows=2000"))
    _lorafit(folder, "regression", "train", numbers, *number, *_set(*SHORT), "--slice", "label")
    _lorafit(folder, "multi", "train", labels, *many, *_set(*SHORT))
    _lorafit(folder, "compare", "compare", built_in, "--methods", "lora,bitfit", *_set(*SHORT, "data.max_rows=1000"))
    _lorafit(folder, "search", "search", built_in, "--trials", "2", *_set(*SHORT, "data.max_rows=500"))
    out = folder / "diff.json"
    if not out.exists():
        out.write_text(_run("diff", folder / "single-short", folder / "single", "--json", "--quiet"), encoding="utf-8")


def _write_imdb(folder: Path) -> tuple[Path, Path]:
    """Write 500 reviews with ratings, and 1,500 with the labels that their rating and length give."""
    table = pq.read_table(Path(os.environ["LORAFIT_DATA"]) / "imdb" / "train.parquet")
    step = table.num_rows // 1500
    table = table.take(list(range(0, step * 1500, step)))
    numbers, labels = folder / "ratings.parquet", folder / "labels.jsonl"
    pq.write_table(table.take(list(range(0, 1500, 3))), numbers)
    with labels.open("w", encoding="utf-8") as file:
        for row in table.to_pylist():
            named = {
                "positive": row["label"] == 1,
                "strong": row["rating"] in {1, 10},
                "long": len(row["text"]) > 1500,
                "funny": "funny" in row["text"].lower(),
            }
            label = [name for name, has in named.items() if has]
            file.write(json.dumps({"text": row["text"], "label": label}) + "\n")
    return numbers, labels


def _set(*values: str) -> list[str]:
    return [word for value in (*values, "training.threads=2") for word in ("--set", value)]


def _lorafit(folder: Path, name: str, *words: object) -> None:
    if not (folder / name).exists():
        _run(*words, "--model", MODEL, "--output", folder / name, "--quiet")


def _run(*words: object) -> str:
    print("lorafit", *words, flush=True)
    command = [sys.executable, "-m", "lorafit", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def compare(old: Path, new: Path) -> int:
    """Print what differs by more than 1e-6 between two frozen folders; return how many numbers moved."""
    moved = 0
    for name in ("single", "single-short", "regression", "multi"):
        moved += _report(f"{name}/metrics.json", _read(old / name / "metrics.json"), _read(new / name / "metrics.json"))
        parts = ("adapter", "model")
        for part in parts:
            where = Path(name) / part / "calibration.json"
            if (old / where).exists():
                moved += _report(str(where), _read(old / where), _read(new / where))
        for path in sorted((old / name / "predictions").glob("*.parquet")):
            moved += _compare_tables(path, new / name / "predictions" / path.name)
    for path in ("compare/comparison.json", "search/search.json", "diff.json"):
        if (old / path).exists():
            moved += _report(path, _read(old / path), _read(new / path))
    print(f"{moved} numbers moved by more than 1e-6")
    return moved


def _read(path: Path) -> Any:  # noqa: ANN401 - JSON of any shape
    return json.loads(path.read_text(encoding="utf-8"))


def _compare_tables(old: Path, new: Path) -> int:
    one, other = pq.read_table(old), pq.read_table(new)
    moved = 0
    for name in one.column_names:
        first, second = one[name], other[name]
        if name.startswith(("probability_", "value")):
            difference = pc.max(pc.abs(pc.subtract(first, second))).as_py()
            same = difference <= 1e-6
        else:
            same = first.equals(second)
        if not same:
            print(f"{old.parent.parent.name}/{old.name}: {name} differs")
            moved += 1
    return moved


def _report(title: str, old: object, new: object) -> int:
    before, after = dict(_flatten(old)), dict(_flatten(new))
    moved = 0
    for name, value in before.items():
        other = after.get(name)
        if other is None:
            print(f"{title}: {name} {value:.6g} -> (not there)")
            moved += 1
        elif not math.isclose(value, other, abs_tol=1e-6, rel_tol=1e-6):
            print(f"{title}: {name} {value:.6g} -> {other:.6g}")
            moved += 1
    return moved


def _flatten(value: object, name: str = "") -> Iterator[tuple[str, float]]:
    """Yield every number of a record by its dotted place."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flatten(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _flatten(inner, f"{name}.{index}")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield name, float(value)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["freeze", "compare"])
    parser.add_argument("folders", type=Path, nargs="+")
    told = parser.parse_args()
    if told.action == "freeze":
        freeze(*told.folders)
    else:
        sys.exit(1 if compare(*told.folders) else 0)
