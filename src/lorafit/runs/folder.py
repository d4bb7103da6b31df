"""The run folder: the name of every file, and where a new run may go. Nothing else spells a file name of a run."""

import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lorafit.errors import RunError
from lorafit.runs.records import RunRecord
from lorafit.system.atomic import describe_obstacle

__all__ = [
    "ADAPTER_FILES",
    "CALIBRATION_FILE",
    "MODEL_FILES",
    "RunLayout",
    "check_same_settings",
    "choose_run_folder",
    "claim_run_folder",
    "find_free_name",
    "suggest_name",
]

CALIBRATION_FILE = "calibration.json"
"""Beside the others in `adapter/` or `model/` where there are rows to calibrate with; its digest is held, too."""

ADAPTER_FILES = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "golden.json",
    "labels/config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
"""Files of `adapter/` whose digests the run record holds."""

MODEL_FILES = ("config.json", "golden.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
"""Files of `model/` whose digests the run record holds."""


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
        """The trained adapter as a plain PEFT folder, with tokenizer and head."""
        return self.root / "adapter"

    @property
    def model(self) -> Path:
        """The trained model as a plain transformers folder, of methods that train the model itself."""
        return self.root / "model"

    @property
    def trained(self) -> Path:
        """What was trained: `model/` where there is one, else `adapter/`."""
        return self.model if self.model.is_dir() else self.adapter

    @property
    def labels(self) -> Path:
        """Folder inside the adapter that holds `config.json` with `id2label`."""
        return self.adapter / "labels"

    @property
    def golden(self) -> Path:
        """Fixed sentences with the logits of plain fp32 PEFT."""
        return self.trained / "golden.json"

    @property
    def calibration(self) -> Path:
        """The `CalibrationRecord`: how logits become confidence. Not there where too few rows could calibrate."""
        return self.trained / CALIBRATION_FILE

    @property
    def card(self) -> Path:
        """The model card."""
        return self.trained / "README.md"

    @property
    def metrics(self) -> Path:
        """The `MetricsRecord`."""
        return self.root / "metrics.json"

    @property
    def mistakes(self) -> Path:
        """The `MistakesRecord`: the words that the most confident mistakes rest on, without texts."""
        return self.root / "mistakes.json"

    @property
    def report(self) -> Path:
        """The page for people, made from the records."""
        return self.root / "report.html"

    @property
    def history(self) -> Path:
        """One JSON object a line, for each logged step and evaluation."""
        return self.root / "history.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The Trainer's checkpoints, to resume from."""
        return self.root / "checkpoints"

    @property
    def prefix_cache(self) -> Path:
        """Hidden states of frozen layers, while training goes on."""
        return self.root / "prefix_cache"

    @property
    def tracking(self) -> Path:
        """What the trackers of `training.track` write: TensorBoard's events, MLflow's store and artifacts."""
        return self.root / "tracking"

    def export(self, kind: Literal["onnx", "onnx-int8", "merged"]) -> Path:
        """What `lorafit export` makes of the run, unless it is given another place."""
        return self.root / kind

    def owned(self) -> tuple[Path, ...]:
        """Return everything in a run folder that is a run's, and nothing else."""
        predictions = self.predictions("test", "baseline").parent
        files = (self.record, self.config, self.metrics, self.mistakes, self.history, self.report)
        folders = (self.adapter, self.model, self.checkpoints, self.prefix_cache, self.tracking, predictions)
        return (*files, *folders, self.export("onnx"), self.export("onnx-int8"), self.export("merged"))

    def predictions(self, split: str, model: str) -> Path:
        """Predictions of one model on one split: row id, label, probabilities; rows in input order.

        The model is `baseline`, `finetuned` or the name of a cheap baseline.
        """
        return self.root / "predictions" / f"{split}.{model}.parquet"


_RUNS = Path("runs")


def choose_run_folder(output: Path | None, *, suggestion: str, overwrite: bool = False) -> RunLayout:
    """Decide on the run folder; nothing is written or removed yet.

    Args:
        output: What the user asked for; None takes a free name below `runs/`.
        suggestion: Name to use where the user asked for none.
        overwrite: Whether a run that is already there may be replaced.

    Returns:
        The layout of the folder, its path absolute.

    Raises:
        RunError: Something is already there (a free name is proposed), or no folder can be made there.
    """
    layout = RunLayout((output.expanduser() if output is not None else find_free_name(_RUNS / suggestion)).resolve())
    _check_writable(layout.root)
    if output is None or not layout.root.exists():
        return layout
    if not layout.root.is_dir():
        raise RunError(f"{layout.root} is a file; --output takes a folder for the run.")
    if not any(layout.root.iterdir()):
        return layout
    if not overwrite:
        raise RunError(
            f"{output} already exists. Choose another name, for example --output "
            f"{shlex.quote(str(find_free_name(output.expanduser())))}, or replace it with --overwrite."
        )
    if not _is_run(layout):
        raise RunError(f"{output} holds something else than a run of lorafit, so it is not overwritten.")
    return layout


def claim_run_folder(layout: RunLayout, *, overwrite: bool) -> None:
    """Make the run folder, empty but for files that are not a run's.

    Args:
        layout: From `choose_run_folder`.
        overwrite: Whether a run that is there may be replaced; of it, only the files that a run has are removed.

    Raises:
        RunError: Another run was begun in it since it was chosen.
    """
    layout.root.mkdir(parents=True, exist_ok=True)
    if not any(layout.root.iterdir()):
        return
    if not overwrite or not _is_run(layout):
        raise RunError(
            f"{layout.root} was taken by another run in the meantime. Start again, or name one with --output."
        )
    for path in layout.owned():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _is_run(layout: RunLayout) -> bool:
    try:
        RunRecord.read(layout.record)
    except RunError:
        return False
    return True


def _check_writable(folder: Path) -> None:
    obstacle = describe_obstacle(folder)
    if obstacle is not None:
        raise RunError(f"The run folder {folder} cannot be made: {obstacle}. Choose another place with --output.")


def check_same_settings(path: Path, settings: str, *, kind: str) -> None:
    """Let a folder pass that can be made, is empty, or holds work of a kind with the same settings.

    Args:
        path: The file in it that holds the settings.
        settings: The settings now.
        kind: What it holds, for people.

    Raises:
        RunError: It holds something else, or cannot be written to.
    """
    root = path.parent
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
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
    """Return `path`, or `path-2`, `path-3`, …: the first that does not exist."""
    number = 1
    candidate = path
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def suggest_name(*parts: str) -> str:
    """Make a folder name of a data source, a model and a method: short, lower case, safe in a shell."""
    names = (Path(part.partition(":")[2] or part).name for part in parts)
    stems = (re.sub(r"\.(csv|tsv|jsonl|ndjson|parquet)$", "", name.lower()) for name in names)
    return "-".join(re.sub(r"[^a-z0-9]+", "-", stem).strip("-") or "run" for stem in stems)
