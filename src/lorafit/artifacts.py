"""The run folder: the name of every file, and the records in it.

Nothing else spells a file name of a run. Records are pydantic models with a schema version; readers of a later version
refuse what they do not know instead of guessing.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lorafit.atomic import write_atomic
from lorafit.errors import RunError
from lorafit.labels import LabelSet, Task

__all__ = [
    "ADAPTER_FILES",
    "CALIBRATION_FILE",
    "MODEL_FILES",
    "SCHEMA_VERSION",
    "BaseModelRecord",
    "DataRecord",
    "ForecastRecord",
    "HardwareRecord",
    "ParameterCounts",
    "RunLayout",
    "RunRecord",
    "SplitRecord",
    "TrainingRecord",
]

SCHEMA_VERSION: Literal[1] = 1

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


class Record(BaseModel):
    """A part of a record: unknown keys are refused."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), ser_json_inf_nan="strings"
    )


class FileRecord(Record):
    """A record that is a file of its own."""

    schema_version: Literal[1] = SCHEMA_VERSION

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record.

        Args:
            path: The file.

        Returns:
            The record.

        Raises:
            RunError: The file is missing, not JSON, from another version, or altered.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise RunError(f"{path} is missing: {path.parent} is not a complete run folder.") from error
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror}.") from error
        except ValidationError as error:
            raise RunError(f"{path} is damaged or was written by another version of lorafit: {error}") from error

    def write(self, path: Path) -> None:
        """Write the record atomically as indented JSON."""
        write_atomic(path, self.model_dump_json(indent=2) + "\n")


class SplitRecord(Record):
    """One split of the data as it was used.

    Attributes:
        rows: Number of rows.
        label_counts: Rows a label; none of a regression.
        fingerprint: SHA-256 over row ids, texts and labels in order.
        tokens: Tokens after truncation, special tokens included.
        truncated: Rows whose text was longer than `max_length`.
    """

    rows: int
    label_counts: dict[str, int]
    fingerprint: str
    tokens: int
    truncated: int


class DataRecord(Record):
    """The data of a run."""

    source: str
    splits: dict[str, SplitRecord]
    notes: list[str] = []


class BaseModelRecord(Record):
    """The pre-trained encoder of a run.

    Attributes:
        name: As lorafit names it: `builtin:…`, a Hub id or a folder.
        revision: Commit on the Hub, if that is where it came from.
        digest: SHA-256 of the weights file(s).
        architecture: transformers' `model_type`.
    """

    name: str
    revision: str | None
    digest: str
    architecture: str


class ParameterCounts(Record):
    """Numbers of parameters: of the adapter, of the head (both trained), and of the whole model with both."""

    adapter: int
    head: int
    total: int

    @property
    def trainable_share(self) -> float:
        """Trained parameters as a share of all, 0 to 1."""
        return (self.adapter + self.head) / self.total


class HardwareRecord(Record):
    """The machine that did the work."""

    cpu: str
    cores: int
    threads: int
    memory_bytes: int
    precision: Literal["fp32", "bf16"]
    precision_reason: str


class TrainingRecord(Record):
    """What training cost and where it stopped.

    Attributes:
        steps: Optimiser steps done.
        epochs: Passes over the training rows done.
        best_step: Step of the checkpoint kept, by validation loss.
        best_validation_loss: Its validation loss in nats, after the temperature that suits the validation rows best; of
            numbers, the mean squared error of the standardised ones.
        stopped_early: Whether early stopping ended it.
        seconds: Wall-clock time of training, validation included.
        tokens: Tokens trained on, padding left out.
        tokens_per_second: Those tokens over the time of the training steps, validation left out.
        padding_share: Share of padding among all positions of the training batches, 0 to 1.
        adapted_modules: Modules that carry an adapter.
    """

    steps: int
    epochs: float
    best_step: int
    best_validation_loss: float
    stopped_early: bool
    seconds: float
    tokens: int
    tokens_per_second: float
    padding_share: float
    adapted_modules: int


class ForecastRecord(Record):
    """What was foreseen before anything was trained, from some measured steps.

    Attributes:
        seconds: Wall-clock time a stage, named as in `RunRecord.seconds`; training without an early stop.
        peak_memory_bytes: Peak memory after a step on the largest batch.
        budget_seconds: The time that `training.budget` allowed, or None.
        given_up: What was changed to fit it, each in words.
    """

    seconds: dict[str, float]
    peak_memory_bytes: int
    budget_seconds: float | None = None
    given_up: list[str] = []


class RunRecord(FileRecord):
    """`run.json`: what was done, with what, on what, and how it ended.

    `encoder_blocks` is `fused`, or `stock:` and why (`acceleration.encoder_block`). `energy_joules` is that of the
    whole processor since the record was begun, or None where the machine does not tell all of it.
    """

    status: Literal["running", "interrupted", "failed", "complete"]
    created: str
    versions: dict[str, str]
    seed: int
    method: str
    task: Task = "single_label"
    labels: list[str]
    max_length: int
    truncation: Literal["head", "head+tail"]
    data: DataRecord
    base_model: BaseModelRecord
    hardware: HardwareRecord
    encoder_blocks: str = "stock: not recorded"
    parameters: ParameterCounts
    forecast: ForecastRecord | None = None
    training: TrainingRecord | None = None
    seconds: dict[str, float] = Field(default_factory=dict, description="Wall-clock time a stage.")
    peak_memory_bytes: int = 0
    energy_joules: float | None = None
    texts_per_second: float | None = None
    files: dict[str, str] = Field(default_factory=dict, description="SHA-256 of each file of adapter/ or model/.")

    @property
    def label_set(self) -> LabelSet:
        """What the model gives a text."""
        return LabelSet(tuple(self.labels), self.task)
