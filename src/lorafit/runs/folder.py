"""The run folder: the name of every file, and where a new run may go. Nothing else spells a file name of a run."""

import json
import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from lorafit.errors import RunError
from lorafit.models.methods import Library
from lorafit.system.atomic import describe_obstacle, is_half_made
from lorafit.system.files import read_file
from lorafit.system.limits import RECORD_BYTES
from lorafit.system.locks import LOCK_SUFFIX, is_held
from lorafit.system.paths import expand_home

ExportKind = Literal["onnx", "onnx-int8", "openvino", "openvino-int8", "merged"]
"""What a run can be exported to; the folder is of that name."""

CALIBRATION_FILE = "calibration.json"
"""Beside the files below, with its digest in the run record, where there are calibration rows."""

BLEND_FILE = "blend.json"
WORDS_FILE = "words.safetensors"
BLEND_CALIBRATION_FILE = "blend_calibration.json"
"""Beside it, where a blend of the encoder and word models is used: its weights, those models, and its calibration."""

BLEND_FILES = (BLEND_FILE, WORDS_FILE, BLEND_CALIBRATION_FILE)
TYPICALITY_FILE = "typicality.safetensors"
"""Beside it, by which texts are told apart that are not like the training rows."""

ADAPTER_FILES = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "golden.json",
    "labels/config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
"""Files of `adapter/` whose digests are in the run record."""

BOTTLENECK_FILES = (
    "adapter.safetensors",
    "adapter_config.json",
    "golden.json",
    "head_config.json",
    "labels/config.json",
    "model_head.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)
"""Files of `adapter/` where AdapterHub's `adapters` library opens it."""

MODEL_FILES = ("config.json", "golden.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
"""Files of `model/` whose digests are in the run record."""

POOLED_FILES = (
    *MODEL_FILES,
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "2_Dense/model.safetensors",
    "labels/config.json",
    "modules.json",
    "sentence_bert_config.json",
)
"""Files of `model/` where the head reads the mean of the tokens, so that sentence-transformers opens it."""

TRAINED_FILES: Mapping[Library, tuple[str, ...]] = {
    "peft": ADAPTER_FILES,
    "transformers": MODEL_FILES,
    "adapters": BOTTLENECK_FILES,
    "sentence-transformers": POOLED_FILES,
}
"""Files whose digests are in the run record, by the library that opens them."""


@dataclass(frozen=True)
class RunLayout:
    """Names every file of a run folder.

    Attributes:
        root: The run folder.
    """

    root: Path

    @property
    def config(self) -> Path:
        """All settings, resolved."""
        return self.root / "config.yaml"

    @property
    def record(self) -> Path:
        """The `RunRecord`."""
        return self.root / "run.json"

    @property
    def adapter(self) -> Path:
        """The adapter as a plain PEFT folder, with head and tokenizer."""
        return self.root / "adapter"

    @property
    def model(self) -> Path:
        """The model as a folder of plain transformers, or of sentence-transformers, where it was trained itself."""
        return self.root / "model"

    @property
    def trained(self) -> Path:
        """`model/` where there is one, else `adapter/`."""
        return self.model if self.model.is_dir() else self.adapter

    @property
    def labels(self) -> Path:
        """Folder inside the adapter that holds `config.json` with `id2label`."""
        return self.adapter / "labels"

    @property
    def golden(self) -> Path:
        """The `GoldenRecord`: fixed sentences with the logits of plain fp32 PEFT."""
        return self.trained / "golden.json"

    @property
    def calibration(self) -> Path:
        """The encoder's calibration; absent where too few rows could calibrate."""
        return self.trained / CALIBRATION_FILE

    @property
    def typicality(self) -> Path:
        """What typical texts are like (`inference.typicality`); absent where no rows could calibrate."""
        return self.trained / TYPICALITY_FILE

    @property
    def card(self) -> Path:
        """The model card."""
        return self.trained / "README.md"

    @property
    def metrics(self) -> Path:
        """The `MetricsRecord`."""
        return self.root / "metrics.json"

    @property
    def left_out(self) -> Path:
        """The rows of the data that were left out, by source and number, and why; absent where there are none."""
        return self.root / "left_out.csv"

    @property
    def mistakes(self) -> Path:
        """The `MistakesRecord`: the words behind the most confident mistakes, without texts."""
        return self.root / "mistakes.json"

    @property
    def report(self) -> Path:
        """The report, built from the records."""
        return self.root / "report.html"

    @property
    def history(self) -> Path:
        """One JSON object per line for each logged step and validation."""
        return self.root / "history.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The Trainer's checkpoints, to resume from."""
        return self.root / "checkpoints"

    @property
    def prefix_cache(self) -> Path:
        """Hidden states of frozen layers, during training."""
        return self.root / "prefix_cache"

    @property
    def cross_fitting(self) -> Path:
        """Out-of-fold predictions of the folds that are done, until the model is calibrated."""
        return self.root / "cross_fitting"

    @property
    def tracking(self) -> Path:
        """The output of `training.track`: TensorBoard's events, MLflow's store and artifacts."""
        return self.root / "tracking"

    @property
    def resume_command(self) -> str:
        """The command that goes on with the run, as it is typed."""
        return f"lorafit train --resume {shlex.quote(str(self.root))}"

    def export(self, kind: ExportKind) -> Path:
        """Where `lorafit export` writes by default."""
        return self.root / kind

    def owned(self) -> tuple[Path, ...]:
        """Return every file and folder that a run writes; anything else in its folder is the user's."""
        predictions = self.predictions("test", "after").parent
        files = (self.record, self.config, self.metrics, self.left_out, self.mistakes, self.history, self.report)
        temporary = (self.checkpoints, self.prefix_cache, self.cross_fitting)
        folders = (self.adapter, self.model, *temporary, self.tracking, predictions)
        return (*files, *folders, *map(self.export, get_args(ExportKind)))

    def predictions(self, split: str, model: str) -> Path:
        """Predictions for the rows of a split: `before` and `after` training, or of a baseline by its name."""
        return self.root / "predictions" / f"{split}.{model}.parquet"


_RUNS = Path("runs")


def choose_run_folder(output: Path | None, *, suggestion: str, overwrite: bool = False) -> RunLayout:
    """Choose the run folder; nothing is written or removed yet.

    Args:
        output: The folder asked for; None takes a free name below `runs/`.
        suggestion: Name to use where none was asked for.
        overwrite: Whether an existing run may be replaced.

    Returns:
        The layout, with an absolute path.

    Raises:
        RunError: The folder is not empty (the message proposes a free name), or cannot be created.
    """
    layout = RunLayout((expand_home(output) if output is not None else find_free_name(_RUNS / suggestion)).resolve())
    _check_writable(layout.root)
    if output is None or not layout.root.exists():
        return layout
    if not layout.root.is_dir():
        raise RunError(f"{layout.root} is a file; --output takes a folder for the run.")
    if _is_empty(layout.root):
        return layout
    if not overwrite:
        raise RunError(
            f"{output} already exists. Choose another name, for example --output "
            f"{shlex.quote(str(find_free_name(expand_home(output))))}, or replace it with --overwrite."
        )
    if not _is_run(layout):
        raise RunError(
            f"{output} holds something else than a run of lorafit, so it is not overwritten. Choose another --output."
        )
    return layout


def claim_run_folder(layout: RunLayout, *, overwrite: bool) -> None:
    """Create the run folder, or remove the run in it.

    Args:
        layout: From `choose_run_folder`.
        overwrite: Whether an existing run may be replaced; only files that a run writes are removed.

    Raises:
        RunError: Another run was started in it since it was chosen.
    """
    layout.root.mkdir(parents=True, exist_ok=True)
    if _is_empty(layout.root):
        return
    if not overwrite or not _is_run(layout):
        raise RunError(
            f"{layout.root} was taken by another run in the meantime. Start again, or name one with --output."
        )
    for path in reversed(layout.owned()):  # the record goes last: until then what is left is a run
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _is_empty(folder: Path) -> bool:
    """Tell whether a folder holds nothing but what a killed process left of a beginning."""
    return all(path.name == LOCK_SUFFIX or is_half_made(path) for path in folder.iterdir())


def _is_run(layout: RunLayout) -> bool:
    """Tell whether a folder is that of a run, of whatever version, altered or not: only its own files are replaced."""
    try:
        return "schema_version" in json.loads(read_file(layout.record, RunError, RECORD_BYTES))
    except (RunError, ValueError, TypeError, RecursionError):
        return False


def _check_writable(folder: Path) -> None:
    obstacle = describe_obstacle(folder)
    if obstacle is not None:
        raise RunError(f"The run folder {folder} cannot be made: {obstacle}. Choose another place with --output.")


def check_same_settings(path: Path, settings: str, *, kind: str) -> None:
    """Check that a folder can be created, is empty, or holds a comparison or search with the same settings.

    Args:
        path: The settings file in the folder.
        settings: The current settings.
        kind: `comparison` or `search`.

    Raises:
        RunError: The folder holds something else, or cannot be written to.
    """
    root = path.parent
    if not root.exists() or (root.is_dir() and _is_empty(root)):
        _check_writable(root)
        return
    free = shlex.quote(str(find_free_name(root)))
    if not path.is_file():
        raise RunError(f"{root} holds something else than a {kind}. Choose another name: --output {free}")
    if path.read_text(encoding="utf-8") != settings:
        raise RunError(
            f"{root} holds a {kind} with other settings ({path.name} there). Choose another name: --output {free}"
        )


def find_free_name(path: Path) -> Path:
    """Return `path`, or `path-2`, `path-3`, …: the first that does not exist, and that nobody is about to make."""
    number = 1
    candidate = path
    while candidate.exists() or is_held(candidate):
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def suggest_name(*parts: str) -> str:
    """Return a folder name from data source, model and method: short, lower case, safe in a shell."""
    names = (Path(part.partition(":")[2] or part).name for part in parts)
    stems = (re.sub(r"\.(csv|tsv|jsonl|ndjson|parquet)$", "", name.lower()) for name in names)
    return "-".join(re.sub(r"[^a-z0-9]+", "-", stem).strip("-") or "run" for stem in stems)
