"""The folder of an exported model: the name of every file, and its record."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from lorafit.config import TruncationPolicy
from lorafit.models.records import BaseModelRecord, ParameterCounts
from lorafit.models.runtimes.graphs import Engine, Precision
from lorafit.runs.agreement import check_agreement
from lorafit.runs.folder import CALIBRATION_FILE, TYPICALITY_FILE
from lorafit.system.digests import check_files, check_listed, list_readable
from lorafit.system.records import FileRecord, Record
from lorafit.tasks.base import Task
from lorafit.tasks.records import BlendRecord, Estimate
from lorafit.tasks.registry import TaskName, build_task


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
        """The calibration of the run, where it has one."""
        return self.root / CALIBRATION_FILE

    @property
    def typicality(self) -> Path:
        """What typical texts are like, where the run knows it and the graph gives features."""
        return self.root / TYPICALITY_FILE

    def model(self, precision: Precision, engine: Engine) -> Path:
        """The graph; of onnxruntime with its weights."""
        if engine == "openvino":
            return self.root / "openvino_model.xml"
        return self.root / ("model_quantized.onnx" if precision == "int8" else "model.onnx")

    def weights(self, precision: Precision, engine: Engine) -> Path:
        """The file with the weights."""
        graph = self.model(precision, engine)
        return graph.with_suffix(".bin") if engine == "openvino" else graph

    def needed(self, precision: Precision, engine: Engine) -> tuple[str, ...]:
        """Names of the files that prediction takes, or other tools do, and that are always there."""
        files = dict.fromkeys((self.model(precision, engine).name, self.weights(precision, engine).name))
        return (*files, self.golden.name, "config.json", "tokenizer.json", "tokenizer_config.json")


class ParityRecord(Record):
    """How an exported model compares with the one it was made from, run by torch in fp32.

    Attributes:
        rows: Validation rows compared; 0 where the run's data were not there, and the golden sentences alone were.
        largest_difference: Largest difference of a logit.
        allowed_difference: The most that it may be, by the precision and the size of the logits.
        agreement: Share of the rows with the same prediction, with Wilson's interval; None without rows, and where no
            two predictions are the same (`Task.same_prediction`).
        differences: Exported minus original, of `Task.parity_metrics` and, where the task measures it, of the
            calibration error `ece`, which has no interval; empty without rows.
    """

    rows: int
    largest_difference: float
    allowed_difference: float
    agreement: Estimate | None = None
    differences: dict[str, Estimate] = Field(default_factory=dict)


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
        engine: What runs it.
        method: Method that trained the model.
        base_model: The pre-trained encoder; of a folder, its own name alone.
        task: Name of the task.
        labels: Its labels.
        max_length: Longest input in tokens, special tokens included.
        truncation: What is kept of a longer text.
        window_stride: Tokens from the begin of a window to the next; None for half a window.
        pair: Whether it takes pairs of texts.
        pad_id: Token id of the padding.
        blend: The blend that was tried when it was trained, and whether predictions are its.
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
    engine: Engine = "onnxruntime"
    method: str
    base_model: BaseModelRecord
    task: TaskName
    labels: list[str]
    max_length: int
    truncation: TruncationPolicy
    window_stride: int | None = None
    pair: bool = False
    pad_id: int
    blend: BlendRecord | None = None
    parameters: ParameterCounts
    data: dict[Literal["source", "validation"], str]
    test_fingerprint: str
    parity: ParityRecord
    speed: SpeedRecord | None
    files: dict[str, str]

    def build_task(self) -> Task:
        """Return the task with the labels of the run."""
        return build_task(self.task, self.labels)


def check_export(layout: ExportLayout, record: ExportRecord) -> None:
    """Make sure that an export is what was written, and that its files and its record agree.

    Args:
        layout: Its folder.
        record: Its record.

    Raises:
        RunError: A file is missing, altered or none of its own, or two files contradict each other.
    """
    names = (*layout.needed(record.precision, record.engine), *list_readable(layout.root))
    check_files(layout.root, record.files, since="after the export", source=layout.record)
    check_listed(
        layout.root, record.files, (name for name in names if name != layout.record.name), source=layout.record
    )
    check_agreement(layout.root, record, layout.record)
