"""What is compared, runs and exported models, and what a run predicted for its own test rows when it ended."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lorafit.config import Config
from lorafit.data.sources import identify_source, is_same_source
from lorafit.data.tables import read_table
from lorafit.errors import RunError
from lorafit.inference.export.records import ExportLayout, ExportRecord
from lorafit.models.runtimes.graphs import Engine, Precision
from lorafit.runs.blends import name_calibration, uses_blend
from lorafit.runs.evidence import check_evidence, read_settings
from lorafit.runs.folder import RunLayout
from lorafit.runs.hub import locate_run
from lorafit.runs.predictions import parse_predictions
from lorafit.runs.records import RunRecord
from lorafit.system.digests import check_files
from lorafit.system.paths import AnyPath
from lorafit.tasks.base import Array, Task
from lorafit.tasks.baselines import ENCODER
from lorafit.tasks.records import Calibration

OTHER_ROWS: Final = "Give labelled rows that both then predict: lorafit diff A B DATA"
"""What to do where test rows cannot be compared on."""


@dataclass(frozen=True)
class RunSide:
    """A finished run.

    Attributes:
        layout: Its folder.
        record: What was done.
        blend: Whether its word models have a say, if it keeps a blend.
    """

    layout: RunLayout
    record: RunRecord
    blend: bool = True
    precision: None = None
    engine: None = None

    @property
    def root(self) -> Path:
        """Its folder."""
        return self.layout.root

    @property
    def task(self) -> Task:
        """Its task and labels."""
        return self.record.build_task()

    @property
    def calibration(self) -> Path:
        """Where its calibration is, if it has one."""
        return self.layout.trained / name_calibration(self.record, wanted=self.blend)

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

    @property
    def config(self) -> Config:
        """Its settings."""
        return read_settings(self.layout, self.record)

    def was_chosen_on(self, data: str) -> bool:
        """Tell whether `data` is the file of its validation rows."""
        validation = self.config.data.validation
        return validation is not None and is_same_source(data, validation)

    def was_trained_on(self, data: str) -> bool:
        """Tell whether `data` is what its training rows come from."""
        return is_same_source(data, self.config.data.source)


@dataclass(frozen=True)
class ExportedSide:
    """A model exported from a run.

    Attributes:
        layout: Its folder.
        record: What it is.
        blend: Whether its word models have a say, if it keeps a blend.
    """

    layout: ExportLayout
    record: ExportRecord
    blend: bool = True

    @property
    def precision(self) -> Precision:
        """Arithmetic of its linear layers."""
        return self.record.precision

    @property
    def engine(self) -> Engine:
        """What runs it."""
        return self.record.engine

    @property
    def root(self) -> Path:
        """Its folder."""
        return self.layout.root

    @property
    def task(self) -> Task:
        """Its task and labels."""
        return self.record.build_task()

    @property
    def calibration(self) -> Path:
        """Where its calibration is, if it has one."""
        return self.layout.root / name_calibration(self.record, wanted=self.blend)

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
        """Tell whether `data` has what was in the file of its validation rows."""
        return "validation" in self.record.data and identify_source(data) == self.record.data["validation"]

    def was_trained_on(self, data: str) -> bool:
        """Tell whether `data` has what its training rows come from."""
        return "source" in self.record.data and identify_source(data) == self.record.data["source"]


Side = RunSide | ExportedSide
"""What can be compared."""


@dataclass(frozen=True)
class Predictions:
    """What a run predicted for n rows.

    Attributes:
        ids: n row ids.
        y: Their labels as `Task.encode` makes them.
        values: Shape (n, labels).
    """

    ids: NDArray[np.int64]
    y: NDArray[Any]
    values: Array

    def are_of(self, ids: NDArray[np.int64], y: NDArray[Any]) -> bool:
        """Tell whether rows with these ids and labels are those predicted."""
        return np.array_equal(self.ids, ids) and np.array_equal(self.y, y)


def open_side(path: AnyPath, *, blend: bool = True) -> Side:
    """Read the record of a finished run, or of an exported model.

    Args:
        path: The folder.
        blend: Whether its word models have a say, if it keeps a blend.

    Returns:
        What it is.

    Raises:
        RunError: It is a run that is not complete, or neither.
    """
    layout = ExportLayout(locate_run(path))
    if layout.record.is_file():
        return ExportedSide(layout, ExportRecord.read(layout.record), blend)
    return open_run(path, blend=blend)


def open_run(run: AnyPath, *, blend: bool = True) -> RunSide:
    """Read the record of a finished run.

    Args:
        run: The run folder.
        blend: As in `open_side`.

    Returns:
        The run.

    Raises:
        RunError: It is not complete.
    """
    layout = RunLayout(locate_run(run))
    record = RunRecord.read(layout.record)
    if record.status != "complete":
        raise RunError(
            f"{layout.root} is not a finished run: its status is '{record.status}'. An interrupted one is finished "
            f"with: {layout.resume_command}"
        )
    return RunSide(layout, record, blend)


def read_test_predictions(side: RunSide, task: Task) -> Predictions:
    """Read what a run predicted for its own test rows when it ended.

    Args:
        side: The run.
        task: Its task, with the labels in the order wanted.

    Returns:
        The predictions, rows in input order.

    Raises:
        RunError: There are none, or they do not fit the run's record.
    """
    is_alone = uses_blend(side.record, wanted=True) and not side.blend
    path = side.layout.predictions("test", ENCODER if is_alone else "after")
    if not path.is_file():
        raise RunError(f"{path} is missing. {OTHER_ROWS}")
    check_evidence(side.layout, side.record, path)
    try:
        predictions = Predictions(*parse_predictions(read_table(path).columns, task))
        task.row_statistics(predictions.y, predictions.values)  # refuses what the task does not have
    except (KeyError, TypeError, ValueError, OverflowError) as error:  # a DataError is a ValueError
        raise _altered(path) from error
    split, counts = side.record.data.splits["test"], task.count(predictions.y)
    if len(predictions.ids) != split.rows or counts != {name: split.label_counts.get(name, 0) for name in counts}:
        raise _altered(path)
    return predictions


def read_side_calibration(side: Side) -> Calibration | None:
    """Read a side's calibration.

    Args:
        side: The run or exported model.

    Returns:
        The calibration; None where there were too few rows to calibrate with.

    Raises:
        RunError: The calibration is missing or was altered.
    """
    name = side.calibration.name
    digest = side.record.files.get(name)
    if digest is None:
        return None
    check_files(side.calibration.parent, {name: digest}, since="since then", source=side.layout.record)
    return side.task.calibration_type.read(side.calibration)


def _altered(path: Path) -> RunError:
    return RunError(
        f"{path} does not fit the run's record: it is damaged, was altered or is of other rows. {OTHER_ROWS}"
    )
