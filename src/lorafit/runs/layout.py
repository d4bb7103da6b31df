"""The run folder: the name of every file. Nothing else spells a file name of a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["ADAPTER_FILES", "CALIBRATION_FILE", "MODEL_FILES", "RunLayout"]

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
