"""The folder of an exported model: the name of every file, and its record."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from lorafit.evidence import Estimate
from lorafit.labels import LabelSet, Task
from lorafit.models.records import BaseModelRecord, ParameterCounts
from lorafit.runs.folder import CALIBRATION_FILE
from lorafit.system.records import FileRecord, Record

__all__ = ["ExportLayout", "ExportRecord", "ParityRecord", "Precision", "SpeedRecord"]

Precision = Literal["fp32", "int8"]
"""Arithmetic of an exported model's linear layers."""


@dataclass(frozen=True)
class ExportLayout:
    """Names every file of an exported model; those of the model are Optimum's.

    Attributes:
        root: The folder.
    """

    root: Path

    @property
    def record(self) -> Path:
        """The `ExportRecord`."""
        return self.root / "lorafit.json"

    @property
    def golden(self) -> Path:
        """Fixed sentences with the logits that this very model gave for them."""
        return self.root / "golden.json"

    @property
    def calibration(self) -> Path:
        """The `CalibrationRecord` of the run, where it has one."""
        return self.root / CALIBRATION_FILE

    def model(self, precision: Precision) -> Path:
        """The graph with its weights."""
        return self.root / ("model_quantized.onnx" if precision == "int8" else "model.onnx")


class ParityRecord(Record):
    """How an exported model compares with the one it was made from, run by torch in fp32.

    Attributes:
        task: What a text gets.
        rows: Validation rows compared; 0 where the run's data were not there, and the golden sentences alone were.
        largest_difference: Largest difference of a logit.
        largest_logit: Largest logit by size, to judge that by; of numbers, their largest distance from their mean.
        label_agreement: Share of rows with the same label (or labels), with Wilson's interval; None without rows and of
            numbers.
        accuracy_difference: Exported minus original, with a paired bootstrap interval; None without rows, and where a
            text does not have one label.
        ece_difference: The same of the expected calibration error; it has no interval, since resampling raises both
            (`metrics.paired`).
    """

    task: Task = "single_label"
    rows: int
    largest_difference: float
    largest_logit: float
    label_agreement: Estimate | None = None
    accuracy_difference: Estimate | None = None
    ece_difference: float | None = None
    score_differences: dict[str, Estimate] = Field(
        default_factory=dict, description="Several labels: of micro_f1, a number: of r2; exported minus original."
    )


class SpeedRecord(Record):
    """How fast an exported model was on the validation rows compared, and where."""

    texts_per_second: float
    cpu: str
    threads: int


class ExportRecord(FileRecord):
    """`lorafit.json`. It names no place on the machine that the model was made on.

    Attributes:
        lorafit: Version that wrote it.
        precision: Arithmetic of the linear layers.
        method: Method that trained the model.
        base_model: The pre-trained encoder; of a folder, its own name alone.
        task: What a text gets.
        labels: The classes, in the order of the logits.
        max_length: Longest input in tokens, special tokens included.
        truncation: What is kept of a longer text.
        pad_id: Token id of the padding.
        parameters: Numbers of parameters when it was trained.
        data: What it was trained, and chosen and calibrated, on, by `source` and `validation`: a named source's name, a
            file's SHA-256. A file that was not there any more is missing.
        test_fingerprint: Fingerprint of its run's test rows.
        parity: How it compares with the original.
        speed: How fast it was; None without rows to compare on.
        files: SHA-256 of every other file.
    """

    lorafit: str
    precision: Precision
    method: str
    base_model: BaseModelRecord
    task: Task
    labels: list[str]
    max_length: int
    truncation: Literal["head", "head+tail"]
    pad_id: int
    parameters: ParameterCounts
    data: dict[Literal["source", "validation"], str]
    test_fingerprint: str
    parity: ParityRecord
    speed: SpeedRecord | None
    files: dict[str, str]

    @property
    def label_set(self) -> LabelSet:
        """The task and the classes."""
        return LabelSet(tuple(self.labels), self.task)
