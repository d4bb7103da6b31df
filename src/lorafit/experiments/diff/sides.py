"""What is compared, runs and exported models, and what a run said of its own test rows when it ended."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorafit.answers import parse_predictions
from lorafit.config import load_config
from lorafit.data.checks import count_labels
from lorafit.data.sources import identify_source, is_same_source
from lorafit.data.tables import read_table
from lorafit.errors import RunError
from lorafit.inference.export.records import ExportLayout, ExportRecord, Precision
from lorafit.labels import LabelSet
from lorafit.metrics.scores import check_probabilities
from lorafit.runs.folder import CALIBRATION_FILE, RunLayout
from lorafit.runs.records import RunRecord
from lorafit.system.atomic import compute_digest
from lorafit.task_evidence import IntervalCalibration

__all__ = [
    "REMEDY",
    "Answers",
    "AnySide",
    "ExportedSide",
    "Side",
    "open_run",
    "open_side",
    "read_answers",
    "read_intervals",
]

REMEDY = "Runs can be compared on labelled rows that they predict now: lorafit diff A B DATA"
"""What to do where what runs said cannot be compared."""


@dataclass(frozen=True)
class Side:
    """A finished run.

    Attributes:
        layout: Its folder.
        record: What was done.
    """

    layout: RunLayout
    record: RunRecord
    precision: None = None

    @property
    def root(self) -> Path:
        """Its folder."""
        return self.layout.root

    @property
    def label_set(self) -> LabelSet:
        """Its task and classes."""
        return self.record.label_set

    @property
    def calibration(self) -> Path:
        """Where its calibration is, if it has one."""
        return self.layout.calibration

    @property
    def test_fingerprint(self) -> str:
        """Fingerprint of its test rows."""
        return self.record.data.splits["test"].fingerprint

    @property
    def texts_per_second(self) -> float | None:
        """Speed when it ended."""
        return self.record.texts_per_second

    @property
    def machine(self) -> tuple[str, int]:
        """Processor and threads that the speed was measured with."""
        return self.record.hardware.cpu, self.record.hardware.threads

    def was_chosen_on(self, data: str) -> bool:
        """Return whether `data` is the file of its validation rows."""
        validation = load_config(self.layout.config).data.validation
        return validation is not None and is_same_source(data, validation)

    def was_trained_on(self, data: str) -> bool:
        """Return whether `data` is what its training rows come from."""
        return is_same_source(data, load_config(self.layout.config).data.source)


@dataclass(frozen=True)
class ExportedSide:
    """A model exported from a run.

    Attributes:
        root: Its folder.
        record: What it is.
    """

    root: Path
    record: ExportRecord

    @property
    def precision(self) -> Precision:
        """Arithmetic of its linear layers."""
        return self.record.precision

    @property
    def label_set(self) -> LabelSet:
        """Its task and classes."""
        return LabelSet(tuple(self.record.labels), self.record.task)

    @property
    def calibration(self) -> Path:
        """Where its calibration is, if it has one."""
        return ExportLayout(self.root).calibration

    @property
    def test_fingerprint(self) -> str:
        """Fingerprint of its run's test rows."""
        return self.record.test_fingerprint

    @property
    def texts_per_second(self) -> float | None:
        """Speed on validation rows when it was exported."""
        return None if self.record.speed is None else self.record.speed.texts_per_second

    @property
    def machine(self) -> tuple[str, int] | None:
        """Processor and threads that the speed was measured with."""
        return None if self.record.speed is None else (self.record.speed.cpu, self.record.speed.threads)

    def was_chosen_on(self, data: str) -> bool:
        """Return whether `data` has what was in the file of its validation rows."""
        return "validation" in self.record.data and identify_source(data) == self.record.data["validation"]

    def was_trained_on(self, data: str) -> bool:
        """Return whether `data` has what its training rows come from."""
        return "source" in self.record.data and identify_source(data) == self.record.data["source"]


AnySide = Side | ExportedSide
"""What can be compared."""


@dataclass(frozen=True)
class Answers:
    """What a run said of n rows.

    Attributes:
        ids: n row ids.
        truth: What is true of them, as `Split.labels` holds it: class ids, marks or numbers.
        values: Shape (n, outputs): probabilities of the classes, or numbers.
    """

    ids: tuple[int, ...]
    truth: NDArray[Any]
    values: NDArray[np.float64]


def open_side(path: str | Path) -> AnySide:
    """Read the record of a finished run, or of an exported model.

    Args:
        path: The folder.

    Returns:
        What it is.

    Raises:
        RunError: It is a run that is not complete, or neither.
    """
    layout = ExportLayout(Path(path).expanduser().resolve())
    if not layout.record.is_file():
        return open_run(path)
    return ExportedSide(layout.root, ExportRecord.read(layout.record))


def open_run(run: str | Path) -> Side:
    """Read the record of a finished run.

    Args:
        run: The run folder.

    Returns:
        The run.

    Raises:
        RunError: It is not complete.
    """
    layout = RunLayout(Path(run).expanduser().resolve())
    record = RunRecord.read(layout.record)
    if record.status != "complete":
        raise RunError(
            f"{layout.root} is not a finished run: its status is '{record.status}'. An interrupted one is finished "
            f"with: lorafit train --resume {run}"
        )
    return Side(layout, record)


def read_answers(side: Side, labels: LabelSet) -> Answers:
    """Read what a run said of its own test rows.

    Args:
        side: The run.
        labels: Its task and its classes in the order wanted, by which ids and columns go.

    Returns:
        The answers, rows in input order.

    Raises:
        RunError: There are none, or they do not fit the run's record.
    """
    path = side.layout.predictions("test", "finetuned")
    if not path.is_file():
        raise RunError(f"{path} is missing. {REMEDY}")
    try:
        answers = _parse_answers(read_table(path).columns, labels)
    except (KeyError, TypeError, ValueError, OverflowError) as error:  # a DataError is a ValueError
        raise _altered(path) from error
    split, counts = side.record.data.splits["test"], count_labels(answers.truth, labels)
    if len(answers.ids) != split.rows or counts != {name: split.label_counts.get(name, 0) for name in counts}:
        raise _altered(path)
    return answers


def read_intervals(side: AnySide) -> IntervalCalibration | None:
    """Read how far the intervals around a side's numbers reach, and what coverage was asked for.

    Args:
        side: A run of a regression, or a model exported from one.

    Returns:
        The calibration; None where too few rows could calibrate.

    Raises:
        RunError: The calibration is missing or was altered.
    """
    digest = side.record.files.get(CALIBRATION_FILE)
    if digest is None:
        return None
    calibration = IntervalCalibration.read(side.calibration)
    if compute_digest(side.calibration) != digest:
        raise RunError(f"{side.calibration} was altered: its digest is another than that in the record.")
    return calibration


def _parse_answers(columns: dict[str, list[object]], labels: LabelSet) -> Answers:
    """Turn columns as `write_predictions` makes them into answers; what cannot be some is an error of any kind."""
    ids, truth, values = parse_predictions(columns, labels)
    answers = Answers(tuple(ids.tolist()), truth, values)
    if labels.task == "single_label":
        check_probabilities(values, len(truth))
        return answers
    largest = float(np.finfo(np.float32).max)  # models compute in single precision
    low, high = (-largest, largest) if labels.task == "regression" else (0.0, 1.0)
    said = np.concatenate([values.ravel(), truth.ravel()])
    if not ((said >= low) & (said <= high)).all():
        raise ValueError(f"Values must lie between {low} and {high}.")
    return answers


def _altered(path: Path) -> RunError:
    return RunError(f"{path} does not fit the run's record: it is damaged, was altered or is of other rows. {REMEDY}")
