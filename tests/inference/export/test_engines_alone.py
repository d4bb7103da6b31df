"""Exports where nothing but `lorafit[onnx]` or `[openvino]` is installed: environments of their own, made by pip."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

import lorafit
from lorafit.errors import MissingExtraError
from lorafit.tasks.registry import TASKS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
TEXTS = ["a superb film", "a dull, boring story", "Great great great!", "the end"]
ABSENT = ("torch", "transformers", "peft", "accelerate", "datasets", "pyarrow", "pandas", "sklearn", "scipy", "onnx")
NEAR = {"fp32": 1e-5, "int8": 0.02}
"""How far a value, relative to its size, may be from this process's: int8 can round otherwise elsewhere."""

LOOK = """
import importlib.util, json, sys
import lorafit
found = [name for name in sys.argv[1:] if importlib.util.find_spec(name) is not None]
print(json.dumps({"lorafit": lorafit.__file__, "found": found}))
"""
PREDICT = """
import json, sys
import lorafit
predictor = lorafit.load(sys.argv[1])
texts = json.loads(sys.argv[2])
print(json.dumps([predictor.compute_values(texts).tolist(), [one.describe() for one in predictor.predict(texts)]]))
"""


@pytest.fixture(scope="module")
def exports(trained_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Exports of a run of each task in fp32, and of one in int8."""
    folder = tmp_path_factory.mktemp("exports")
    made = {task: lorafit.export(trained_of(task), output=folder / task).path for task in TASKS}
    for engine in ("onnxruntime", "openvino"):
        export = lorafit.export(trained_of("single_label"), int8=True, runtime=engine, output=folder / engine)
        made[f"int8, {engine}"] = export.path
    return made


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The programs of fresh environments, by what runs exports there."""
    found = {}
    for extra, engine in (("onnx", "onnxruntime"), ("openvino", "openvino")):
        folder = tmp_path_factory.mktemp(extra)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "-qq", "--no-input", "--disable-pip-version-check"]
        subprocess.run([*pip, f"{ROOT}[{extra}]"], env=_clean_environment(), check=True)
        found[engine] = folder / "bin"
    return found


def call(program: Path, *words: object) -> "subprocess.CompletedProcess[str]":
    command = [str(program), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=_clean_environment())


def answer(program: Path, *words: object) -> str:
    child = call(program, *words)
    assert child.returncode == 0, child.stderr
    return child.stdout


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_nothing_else_is_installed(environments: dict[str, Path], engine: str) -> None:
    programs, engines = environments[engine], ("onnxruntime", "openvino")
    seen = json.loads(answer(programs / "python", "-c", LOOK, *ABSENT, *engines, "tokenizers"))
    assert Path(seen["lorafit"]).is_relative_to(programs.parent)
    assert seen["found"] == [engine, "tokenizers"]


@pytest.mark.parametrize("form", [*TASKS, "int8, onnxruntime", "int8, openvino"])
def test_python_and_commands_predict_what_is_predicted_here(
    environments: dict[str, Path], exports: dict[str, Path], tmp_path: Path, form: str
) -> None:
    export, near = exports[form], NEAR["int8" if form.startswith("int8") else "fp32"]
    environment = environments["openvino" if form.endswith("openvino") else "onnxruntime"]
    here = lorafit.load(export)
    expected, predictions = here.compute_values(TEXTS), here.predict(TEXTS)
    values, described = json.loads(answer(environment / "python", "-c", PREDICT, export, json.dumps(TEXTS)))
    assert np.abs(np.array(values) - expected).max() < near * max(1, np.abs(expected).max())
    if not form.startswith("int8"):
        assert described == [one.describe() for one in predictions]

    shown = json.loads(answer(environment / "lorafit", "predict", export, TEXTS[0], "--json"))
    assert list(shown) == ["text", *asdict(predictions[0])]

    table, output = tmp_path / "texts.csv", tmp_path / "predictions.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["number", "text"], *enumerate(TEXTS)])
    answer(environment / "lorafit", "predict", export, "--file", table, "--output", output)
    with output.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["number"], row["text"]) for row in rows] == [(str(row), text) for row, text in enumerate(TEXTS)]
    assert list(rows[0]) == ["number", "text", *predictions[0].columns()]


NEEDS_MORE = {
    "train": ("train", "train {data}"),
    "evaluate": ("train", "evaluate {run} {data}"),
    "predict with a run": ("train", "predict {run} text --runtime torch"),
    "predict into parquet": ("train", "predict {export} --file {data} --output {folder}/predictions.parquet"),
    "predict with OpenVINO": ("openvino", "predict {openvino} text"),
    "export": ("export", "export {run}"),
    "diff": ("train", "diff {export} {export} {data}"),
}
"""Commands, and the extra that they miss."""


@pytest.mark.parametrize("what", NEEDS_MORE)
def test_a_command_that_needs_more_gives_the_pip_line(
    environments: dict[str, Path],
    trained: Path,
    exports: dict[str, Path],
    word_reviews: Path,
    tmp_path: Path,
    what: str,
) -> None:
    extra, line = NEEDS_MORE[what]
    onnx, openvino = (exports[f"int8, {engine}"] for engine in ("onnxruntime", "openvino"))
    places = {"run": trained, "export": onnx, "openvino": openvino, "data": word_reviews, "folder": tmp_path}
    words = [word.format(**places) for word in line.split()]
    child = call(environments["onnxruntime"] / "lorafit", *words)
    assert child.returncode == MissingExtraError.exit_code
    assert child.stderr.rstrip().endswith(f"[{extra}]'")
    assert "\n  pip install " in child.stderr
    assert "Traceback" not in child.stderr


def _clean_environment() -> dict[str, str]:
    """Return this process's variables without those that lead to its own packages."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV", "VIRTUAL_ENV"))}
