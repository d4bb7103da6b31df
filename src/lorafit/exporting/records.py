"""The folder of an exported model: the name of every file, and its record."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lorafit.artifacts import CALIBRATION_FILE, FileRecord, Record, RunRecord
from lorafit.evidence import Estimate

__all__ = ["ExportLayout", "ExportRecord", "ParityRecord", "Precision"]

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
        rows: Validation rows compared; 0 where the run's data were not there, and the golden sentences alone were.
        largest_difference: Largest difference of a logit.
        largest_logit: Largest logit by size, to judge that by.
        label_agreement: Share of rows with the same label, with Wilson's interval; None without rows.
        accuracy_difference: Exported minus original, with a paired bootstrap interval; None without rows.
        ece_difference: Of the expected calibration error, exported minus original; it has no interval, since resampling
            raises both (`metrics.paired`). None without rows.
    """

    rows: int
    largest_difference: float
    largest_logit: float
    label_agreement: Estimate | None = None
    accuracy_difference: Estimate | None = None
    ece_difference: float | None = None


class ExportRecord(FileRecord):
    """`lorafit.json`.

    Attributes:
        lorafit: Version that wrote it.
        precision: Arithmetic of the linear layers.
        run: The run it was made from.
        pad_id: Token id of the padding.
        parity: How it compares with the original.
        texts_per_second: Speed on the validation rows compared; None without rows.
        files: SHA-256 of every other file.
    """

    lorafit: str
    precision: Precision
    run: RunRecord
    pad_id: int
    parity: ParityRecord
    texts_per_second: float | None
    files: dict[str, str]
