"""An export where nothing but `lorafit[onnx]` is installed: an environment of its own, made by pip."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lorafit
from lorafit.config import load_config
from lorafit.errors import MissingExtraError
from lorafit.training.pipeline import Run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
TEXTS = ["a superb film", "a dull, boring story", "Great great great!", "the end"]
ABSENT = ("torch", "transformers", "peft", "accelerate", "datasets", "pyarrow", "pandas", "sklearn", "scipy", "onnx")
FORMS = {"fp32": ("onnx", 1e-5), "int8": ("onnx-int8", 0.02)}
"""Folder, and how far a probability may be from this process's: int8 can round a value otherwise elsewhere."""

LOOK = """
import importlib.util, json, sys
import lorafit
found = [name for name in sys.argv[1:] if importlib.util.find_spec(name) is not None]
print(json.dumps({"lorafit": lorafit.__file__, "found": found}))
"""
PREDICT = """
import json, sys
import lorafit
print(json.dumps(lorafit.load(sys.argv[1]).predict_proba(json.loads(sys.argv[2])).tolist()))
"""


@pytest.fixture(scope="module")
def trained(build_encoder: Callable[..., Path], word_reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = load_config(
        overrides=[
            f"data.source={word_reviews}",
            "data.test_fraction=0.2",
            "data.validation_fraction=0.4",
            f"model.name={build_encoder('distilbert', initializer_range=0.1)}",
            "model.max_length=32",
            "training.batch_size=16",
            "training.epochs=3",
            "training.learning_rate=5e-3",
            "training.threads=1",
            "evaluation.report=false",
            "evaluation.cheap_baselines=false",
        ]
    )
    run = lorafit.train(config, output=tmp_path_factory.mktemp("alone") / "run")
    for form in FORMS:
        lorafit.export(run.path, int8=form == "int8")
    return run


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "-qq", "--no-input", "--disable-pip-version-check"]
    subprocess.run([*pip, f"{ROOT}[onnx]"], env=_clean_environment(), check=True)
    return folder / "bin"


def call(program: Path, *words: object) -> "subprocess.CompletedProcess[str]":
    command = [str(program), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=_clean_environment())


def answer(program: Path, *words: object) -> str:
    child = call(program, *words)
    assert child.returncode == 0, child.stderr
    return child.stdout


def test_nothing_else_is_installed(environment: Path) -> None:
    seen = json.loads(answer(environment / "python", "-c", LOOK, *ABSENT, "onnxruntime", "tokenizers"))
    assert Path(seen["lorafit"]).is_relative_to(environment.parent)
    assert seen["found"] == ["onnxruntime", "tokenizers"]


@pytest.mark.parametrize("form", FORMS)
def test_python_and_commands_say_what_is_said_here(environment: Path, trained: Run, tmp_path: Path, form: str) -> None:
    folder, near = FORMS[form]
    export = trained.path / folder
    here = lorafit.load(export)
    expected, labels = here.predict_proba(TEXTS), [one.label for one in here.predict(TEXTS)]
    assert set(labels) == {"neg", "pos"}
    got = json.loads(answer(environment / "python", "-c", PREDICT, export, json.dumps(TEXTS)))
    assert np.abs(np.array(got) - expected).max() < near

    (single,) = here.predict(TEXTS[:1])
    told = json.loads(answer(environment / "lorafit", "predict", export, TEXTS[0], "--json"))
    assert (told["text"], told["label"]) == (TEXTS[0], single.label)
    assert told["score"] == pytest.approx(single.score, abs=near)

    table, output = tmp_path / "texts.csv", tmp_path / "answers.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["number", "text"], *enumerate(TEXTS)])
    answer(environment / "lorafit", "predict", export, "--file", table, "--output", output)
    with output.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["number"], row["text"]) for row in rows] == [(str(row), text) for row, text in enumerate(TEXTS)]
    assert [row["label"] for row in rows] == labels


NEEDS_MORE = {
    "train": ("train", "train {data}"),
    "evaluate": ("train", "evaluate {run} {data}"),
    "predict with a run": ("train", "predict {run} text"),
    "predict into parquet": ("train", "predict {run}/onnx --file {data} --output {folder}/answers.parquet"),
    "export": ("export", "export {run}"),
}
"""Commands, and the extra that they miss."""


@pytest.mark.parametrize("what", NEEDS_MORE)
def test_a_command_that_needs_more_gives_the_pip_line(
    environment: Path, trained: Run, word_reviews: Path, tmp_path: Path, what: str
) -> None:
    extra, line = NEEDS_MORE[what]
    words = [word.format(run=trained.path, data=word_reviews, folder=tmp_path) for word in line.split()]
    child = call(environment / "lorafit", *words)
    assert child.returncode == MissingExtraError.exit_code
    assert child.stderr.rstrip().endswith(f"pip install 'lorafit[{extra}]'")
    assert "Traceback" not in child.stderr


def _clean_environment() -> dict[str, str]:
    """Return this process's variables without those that lead to its own packages."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV", "VIRTUAL_ENV"))}
