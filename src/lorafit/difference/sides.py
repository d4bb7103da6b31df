"""What is compared, runs and exported models, and what a run said of its own test rows when it ended."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lorafit.artifacts import RunLayout, RunRecord
from lorafit.config import load_config
from lorafit.data.sources import identify_source, is_same_source
from lorafit.data.tables import read_table
from lorafit.errors import DataError, RunError
from lorafit.exporting.records import ExportLayout, ExportRecord, Precision
from lorafit.labels import LabelSet, require_single_label
from lorafit.metrics.scores import check_probabilities

__all__ = ["Answers", "ExportedSide", "Side", "open_run", "open_side", "read_answers"]

_REMEDY = "Runs can be compared on labelled rows that they predict now: lorafit diff A B DATA"


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
    def labels(self) -> list[str]:
        """Its classes."""
        return self.record.labels

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
    def labels(self) -> list[str]:
        """Its classes."""
        return self.record.labels

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


@dataclass(frozen=True)
class Answers:
    """What a run said of n rows.

    Attributes:
        ids: n row ids.
        truth: Shape (n,), true class ids.
        probabilities: Shape (n, classes).
    """

    ids: tuple[int, ...]
    truth: NDArray[np.int64]
    probabilities: NDArray[np.float64]


def open_side(path: str | Path) -> Side | ExportedSide:
    """Read the record of a finished run, or of an exported model.

    Args:
        path: The folder.

    Returns:
        What it is.

    Raises:
        RunError: It is a run that is not complete, or neither.
        UserInputError: It does not give each text one label.
    """
    layout = ExportLayout(Path(path).expanduser().resolve())
    if not layout.record.is_file():
        return open_run(path)
    record = ExportRecord.read(layout.record)
    require_single_label(record.task, "This command")
    return ExportedSide(layout.root, record)


def open_run(run: str | Path) -> Side:
    """Read the record of a finished run.

    Args:
        run: The run folder.

    Returns:
        The run.

    Raises:
        RunError: It is not complete.
        UserInputError: It does not give each text one label.
    """
    layout = RunLayout(Path(run).expanduser().resolve())
    record = RunRecord.read(layout.record)
    if record.status != "complete":
        raise RunError(
            f"{layout.root} is not a finished run: its status is '{record.status}'. An interrupted one is finished "
            f"with: lorafit train --resume {run}"
        )
    require_single_label(record.task, "This command")
    return Side(layout, record)


def read_answers(side: Side, labels: LabelSet) -> Answers:
    """Read what a run said of its own test rows.

    Args:
        side: The run.
        labels: Its classes in the order wanted, by which ids and columns go.

    Returns:
        The answers, rows in input order.

    Raises:
        RunError: There are none, or they do not fit the run's record.
    """
    path = side.layout.predictions("test", "finetuned")
    if not path.is_file():
        raise RunError(f"{path} is missing. {_REMEDY}")
    try:
        columns = read_table(path).columns
    except DataError as error:
        raise _altered(path) from error
    names = [f"probability_{name}" for name in labels.names]
    if not {"row_id", "true_label", *names} <= columns.keys():
        raise _altered(path)
    truth, split = [str(label) for label in columns["true_label"]], side.record.data.splits["test"]
    if Counter(truth) != Counter({name: count for name, count in split.label_counts.items() if count}):
        raise _altered(path)
    try:
        values = np.array([columns[name] for name in names], dtype=np.float64).T
        probabilities = check_probabilities(values, len(truth))
        ids = tuple(int(str(row)) for row in columns["row_id"])
    except (TypeError, ValueError) as error:
        raise _altered(path) from error
    label2id = labels.label2id
    return Answers(ids, np.array([label2id[name] for name in truth], dtype=np.int64), probabilities)


def _altered(path: Path) -> RunError:
    return RunError(f"{path} does not fit the run's record: it is damaged, was altered or is of other rows. {_REMEDY}")
