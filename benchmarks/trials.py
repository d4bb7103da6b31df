"""What the measuring scripts share: rows, trainings in fresh processes, executed FLOP, results kept part by part.

A script's own process stays small, without torch, so that it takes no memory or caches from what is measured.
"""

import json
import multiprocessing
import os
import shutil
import subprocess
import tempfile
import threading
import venv
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
from environment import describe_environment

from lorafit.config import load_config
from lorafit.data.imdb import load_imdb
from lorafit.data.tables import read_table
from lorafit.data.writing import write_table
from lorafit.models.builtin import load_builtin_encoder
from lorafit.runs.folder import RunLayout
from lorafit.system import hardware
from lorafit.system.atomic import write_atomic
from lorafit.training.pipeline import Run, train

__all__ = [
    "BUILTIN",
    "RESULTS",
    "Ledger",
    "Shape",
    "cut_rows",
    "encoder_folder",
    "make_environment",
    "measure_lorafit",
    "measure_stages",
    "name_rows",
    "read_history",
    "read_rows",
    "run_fresh",
    "step_seconds",
    "write_distilbert_base",
    "write_results",
]

P = ParamSpec("P")
T = TypeVar("T")

RESULTS = Path(__file__).with_name("results")
BUILTIN = "builtin:distil-minilm"
_COMMON = [
    "evaluation.report=false",
    "evaluation.before=false",
    "evaluation.baselines=false",
    "evaluation.bootstrap_samples=100",
    "training.early_stopping_patience=0",
]


def run_fresh(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Call a function of a module in a process of its own, which imports everything anew, and return its result."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_end_with_parent) as pool:
        return pool.submit(function, *arguments, **named).result()


def _end_with_parent() -> None:
    """End this process as soon as its parent ends, however that ends: it would wait for work for ever."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def make_environment(place: Path, packages: Sequence[str]) -> Path:
    """Install packages in an environment of their own, and return its Python.

    torchvision, which some bring for images, is left out: it may be built for another torch.
    """
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
    subprocess.run([python, "-m", "pip", "uninstall", "-q", "-y", "torchvision"], check=True)
    return python


def cut_rows(folder: Path, counts: Mapping[str, int]) -> dict[str, int]:
    """Write one file a name, of so many rows each, from IMDb's train split: test rows are never touched.

    With `train`, `validation`, `test` of 4000, 2000, 100 these are the rows of `defaults.py`.

    Args:
        folder: Where `<name>.parquet` are written.
        counts: Rows a name, in the order in which they are drawn; the last ones get fewer where there are no more.

    Returns:
        The rows written a name.
    """
    rows = load_imdb().train
    order = np.random.default_rng(0).permutation(len(rows.texts))
    starts = np.cumsum([0, *counts.values()])
    written = {}
    for start, (name, count) in zip(starts, counts.items(), strict=False):
        chosen = order[start : start + count]
        columns = {"text": [rows.texts[row] for row in chosen], "label": [rows.labels[row] for row in chosen]}
        write_table(folder / f"{name}.parquet", columns)
        written[name] = len(chosen)
    return written


def name_rows(folder: Path) -> list[str]:
    """Return the settings that make lorafit train on files of `cut_rows`."""
    sources = {"source": "train", "validation": "validation", "test": "test"}
    return [f"data.{setting}={folder / f'{name}.parquet'}" for setting, name in sources.items()]


def read_rows(path: Path) -> tuple[list[str], list[int]]:
    """Return texts and class ids (0 negative, 1 positive) of a file of `cut_rows`."""
    columns = read_table(path).columns
    return [str(text) for text in columns["text"]], [int(label == "positive") for label in columns["label"]]


def write_distilbert_base(folder: Path) -> None:
    """Write an encoder of DistilBERT-base's shape with random weights and the built-in tokenizer, in the Hub's layout.

    Args:
        folder: Made if it is not there.
    """
    import torch
    from transformers import DistilBertConfig, DistilBertModel

    torch.manual_seed(0)
    DistilBertModel(DistilBertConfig()).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(load_builtin_encoder(BUILTIN) / name, folder / name)


def encoder_folder(name: str) -> Path:
    """Return the folder of the built-in encoder or of a local one."""
    return load_builtin_encoder(name) if name.startswith("builtin:") else Path(name)


@dataclass(frozen=True)
class Shape:
    """Sizes of a DistilBERT-like encoder: they decide how much its linear layers compute."""

    width: int
    inner: int
    layers: int

    @classmethod
    def read(cls, folder: Path) -> "Shape":
        """Read the sizes from a folder's `config.json`."""
        config = {"dim": 768, "hidden_dim": 3072, "n_layers": 6}
        config.update(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        return cls(width=config["dim"], inner=config["hidden_dim"], layers=config["n_layers"])

    def training_flop(self, positions: int, rows: int, *, fused: bool) -> int:
        """Count what the linear layers of the encoder execute in training: forward pass and input gradients.

        Adapters, attention scores and head are left out, and so is the input gradient of the lowest query, key and
        value, below which nothing is trained. A fused encoder computes all but key and value of its last block for the
        first token of a row alone.

        Args:
            positions: Positions of all batches, padding included.
            rows: Rows of all batches.
            fused: Whether the blocks are lorafit's fused ones.

        Returns:
            Floating-point operations, a multiplication and an addition counting two.
        """
        total = 0
        for layer in range(self.layers):
            read = rows if fused and layer == self.layers - 1 else positions
            projections = 2 * self.width**2 * (2 * positions + read)
            others = 2 * self.width * (self.width + 2 * self.inner) * read
            total += projections + 2 * others + (projections if layer else 0)
        return total

    def inference_flop(self, positions: int, rows: int) -> int:
        """Count what the linear layers of the encoder execute in prediction, as `training_flop` counts training.

        Args:
            positions: Positions of all batches, padding included.
            rows: Rows of all batches; the last block computes all but key and value for their first tokens alone.

        Returns:
            Operations, a multiplication and an addition counting two.
        """
        per_position = 2 * self.width * (4 * self.width + 2 * self.inner)
        last = 2 * self.width * (2 * self.width * (positions + rows) + 2 * self.inner * rows)
        return (self.layers - 1) * per_position * positions + last


def measure_lorafit(settings: list[str], warm_up: Path | None) -> dict[str, Any]:
    """Train in this process and return what the steps cost; call it through `run_fresh`.

    Args:
        settings: As after `--set`, data among them.
        warm_up: Rows that are trained on first, untimed.

    Returns:
        Rows and tokens trained on, positions (tokens and padding), seconds of the steps, peak memory of the process,
        and what kind of blocks, precision and threads it was.
    """
    with tempfile.TemporaryDirectory() as folder:
        if warm_up is not None:
            config = load_config(overrides=[*_COMMON, *settings, f"data.source={warm_up}", "training.epochs=1"])
            train(config, output=Path(folder) / "warm-up")
        run = train(load_config(overrides=[*_COMMON, *settings]), output=Path(folder) / "run")
    training, machine = run.record.training, run.record.hardware
    if training is None:
        raise RuntimeError("the run has no training record")
    return {
        "rows": round(run.record.data.splits["train"].rows * training.epochs),
        "tokens": training.tokens,
        "positions": round(training.tokens / (1 - training.padding_share)),
        "seconds": step_seconds(run),
        "peak_memory_bytes": hardware.peak_memory_bytes(),
        "blocks": run.record.encoder_blocks,
        "precision": machine.precision,
        "threads": machine.threads,
    }


def measure_stages(settings: list[str], *, cache: Path) -> dict[str, float]:
    """Train in this process and return the seconds of each stage; call it through `run_fresh`.

    Args:
        settings: As after `--set`, data among them.
        cache: lorafit's cache for this run.
    """
    os.environ["LORAFIT_CACHE"] = str(cache)
    with tempfile.TemporaryDirectory() as folder:
        return train(load_config(overrides=[*_COMMON, *settings]), output=Path(folder) / "run").record.seconds


def step_seconds(run: Run) -> float:
    """Return the seconds of a run's training steps, without validation."""
    training = run.record.training
    if training is None:
        raise RuntimeError("the run has no training record")
    return training.tokens / training.tokens_per_second


def read_history(run: Run) -> list[dict[str, float]]:
    """Return what a run logged, in order."""
    return [json.loads(line) for line in RunLayout(run.path).history.read_text(encoding="utf-8").splitlines()]


def write_results(path: Path, results: Mapping[str, Any]) -> None:
    """Write results as JSON, with the machine, the versions and the date."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps({"environment": describe_environment(), **results}, indent=2) + "\n")


class Ledger:
    """Results in a file, part by part, each with its settings, machine and date.

    A part that stands there with the same settings is not measured again.
    """

    def __init__(self, path: Path, *, again: bool) -> None:
        self._path = path
        self._again = again
        self._parts: dict[str, Any] = {}
        if path.is_file():
            self._parts = json.loads(path.read_text(encoding="utf-8"))["parts"]

    def has(self, name: str, settings: Mapping[str, Any]) -> bool:
        """Return whether a part with these settings is kept."""
        return name in self._parts and self._parts[name]["settings"] == settings

    def measure(self, name: str, settings: Mapping[str, Any], function: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the result of a part: the one that is kept, or else what the function returns, written at once.

        Args:
            name: Name of the part.
            settings: What decides the result; values are as JSON gives them back.
            function: Measures it.

        Returns:
            The result.
        """
        if self._again or not self.has(name, settings):
            result = function()
            self._parts[name] = {"environment": describe_environment(), "settings": settings, "result": result}
            write_results(self._path, {"parts": self._parts})
        result = self._parts[name]["result"]
        return dict(result)
