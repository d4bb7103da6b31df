"""Record what lorafit measures and predicts, so that a change of its structure can be held against it.

    python scripts/freeze_numbers.py freeze FOLDER    # trains three runs, compares, searches and diffs into FOLDER
    python scripts/freeze_numbers.py compare OLD NEW  # what moved between two such folders; ends with 1 if a point did

`freeze` runs the `lorafit` that is importable, each command in a process of its own, with fixed seeds and threads.
It needs `LORAFIT_DATA` with IMDb. Folders belong below runs/, which git ignores.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

MODEL = "builtin:distil-minilm"
RENAMED = (
    ("cheap_baselines", "baselines"),
    ("finetuned", "after"),
    ("figures", "metrics"),
    (r"^baseline\b", "before"),
    (r"(^|\.)(after|before|scores)\.(accuracy|macro_f1|mcc|log_loss)\b", r"\1\2.metrics.\3"),
    (r"comparison\.(accuracy|log_loss)_difference", r"comparison.differences.\1"),
    (r"^(macro_f1|mcc)_difference", r"comparison.differences.\1"),
    ("rows_gained", "rows_fixed"),
    ("rows_lost", "rows_broken"),
    ("mcnemar_p_value", "p_value"),
    (r"^(slices\.\d+)\.accuracy\.(value|low|high)", r"\1.metrics.accuracy.\2"),
    (r"^(slices\.\d+)\.difference\b", r"\1.differences.accuracy"),
    (r"^confidence\.calibration_rows", "calibration.rows"),
    (r"^confidence\.abstention\.target_accuracy", "calibration.asked.accepted_accuracy"),
    (r"^confidence\.abstention\.accuracy", "calibration.metrics.accepted_accuracy"),
    (r"^confidence\.abstention\.accepted_share", "calibration.metrics.accepted_share"),
    (r"^confidence\.raw\.bins", "calibration.reliability_raw"),
    (r"^confidence\.calibrated\.bins", "calibration.reliability"),
    (r"^confidence\.(metrics\.ece_raw|raw)\b", "calibration.raw"),
    (r"^calibration\.raw\.(value|low|high)", r"calibration.raw.ece.\1"),
    (r"^confidence\.calibrated\b", "calibration.metrics"),
    (r"^confidence\.coverage\.", "calibration.metrics.coverage."),
    (r"^confidence\.coverage_asked", "calibration.asked.coverage"),
    (r"^confidence\.(set_sizes|risk_coverage)", r"calibration.\1"),
    (r"^confidence\.metrics", "calibration.metrics"),
    (r"(adaptive_ece|brier_reliability|brier_resolution|brier_uncertainty)$", r"\1.value"),
    (r"^ece_difference", "diff_metrics.ece.value"),
    (r"^(negative_flips|churn)\b", r"diff_metrics.\1"),
    (r"^([ab])\.ece\b", r"\1.metrics.ece"),
    (r"^(slices\.\d+)\.accuracy\.0$", r"\1.before.accuracy"),
    (r"^(slices\.\d+)\.accuracy\.1$", r"\1.after.accuracy"),
)
"""Places in records of the code before tasks were one object, as regular expressions, and where they are now."""

LEFT_OUT = re.compile(
    r"seconds|texts_per_second|memory|schema_version|bytes_on_disk|slowdown|half_width\.(low|high)"
    r"|confidence\.(temperature|abstention\.accept_threshold)"
)
"""What differs from run to run, is no number of the evaluation, or is in `calibration.json` alone now."""

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
    """Print what moved by more than 1e-6 between two frozen folders; return how many points or p-values did."""
    moved = 0
    for name in ("single", "single-short", "regression", "multi"):
        for path in ("metrics.json", "adapter/calibration.json", "model/calibration.json"):
            if (old / name / path).exists():
                moved += _compare_records(old / name / path, new / name / path)
        for path in sorted((old / name / "predictions").glob("*.parquet")):
            renamed = path.name.replace(".finetuned.", ".after.").replace(".baseline.", ".before.")
            moved += _compare_tables(path, new / name / "predictions" / renamed)
    for place in ("compare/comparison.json", "search/search.json", "diff.json"):
        moved += _compare_records(old / place, new / place)
    print(f"{moved} points, predictions or p-values moved by more than 1e-6")
    return moved


def _compare_tables(old: Path, new: Path) -> int:
    one, other = pq.read_table(old), pq.read_table(new)
    moved = 0
    for name in one.column_names:
        if name.startswith(("probability_", "value")):
            difference = pc.max(pc.abs(pc.subtract(one[name], other[name]))).as_py()
            same = difference <= 1e-6
        else:
            same = one[name].equals(other[name])
        if not same:
            print(f"{new}: {name} differs")
            moved += 1
    return moved


def _compare_records(old: Path, new: Path) -> int:
    before, after = (dict(_flatten(json.loads(path.read_text(encoding="utf-8")))) for path in (old, new))
    moved = 0
    for told, value in before.items():
        name = told
        for pattern, place in RENAMED:
            name = re.sub(pattern, place, name)
        if LEFT_OUT.search(name):
            continue
        now = after.get(name, after.get(told, math.nan))
        if not math.isclose(value, now, abs_tol=1e-6, rel_tol=1e-6):
            is_end = name.endswith((".low", ".high"))
            moved += not is_end
            print(f"{'end  ' if is_end else 'POINT'} {new.parent.name}/{new.name}: {name} {value:.6g} -> {now:.6g}")
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
    elif value == "NaN":
        yield name, math.nan


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["freeze", "compare"])
    parser.add_argument("folders", type=Path, nargs="+")
    told = parser.parse_args()
    if told.action == "freeze":
        freeze(*told.folders)
    else:
        sys.exit(1 if compare(*told.folders) else 0)
