"""The folder of a comparison, and what is written in it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from lorafit.evidence import Estimate
from lorafit.labels import Task
from lorafit.models.records import ParameterCounts
from lorafit.runs.folder import RunLayout
from lorafit.system.records import FileRecord, Record
from lorafit.task_figures import LEADING

__all__ = ["Cell", "CheapRow", "ComparisonLayout", "ComparisonRecord", "MethodRow"]


@dataclass(frozen=True)
class ComparisonLayout:
    """Names every file of a comparison's folder.

    Attributes:
        root: The folder.
    """

    root: Path

    @property
    def config(self) -> Path:
        """The settings as they were asked for."""
        return self.root / "config.yaml"

    @property
    def chosen(self) -> Path:
        """The same after a budget was fitted: what the cells are trained with."""
        return self.root / "chosen.yaml"

    @property
    def record(self) -> Path:
        """The `ComparisonRecord`."""
        return self.root / "comparison.json"

    @property
    def page(self) -> Path:
        """The table and the plot for people."""
        return self.root / "comparison.html"

    @property
    def prefix_cache(self) -> Path:
        """Hidden states of frozen layers that the cells share, while they are trained."""
        return self.root / "prefix_cache"

    def cheap_predictions(self, name: str) -> Path:
        """What a cheap baseline said of the test rows."""
        return self.root / "predictions" / f"test.{name}.parquet"

    def cell(self, method: str, seed: int) -> RunLayout:
        """Return the run folder of one method with one seed."""
        return RunLayout(self.root / "cells" / f"{method}-seed{seed}")


class Cell(Record):
    """One method with one seed.

    Attributes:
        method: Its name.
        seed: The seed.
        error: Why there is no result; None if there is one.
    """

    method: str
    seed: int
    error: str | None = None


class MethodRow(Record):
    """A method's results over its seeds; costs are means over them.

    Attributes:
        method: Its name.
        seeds: The seeds that ended well.
        validation_loss: Mean of the lowest validation losses, which choose the best method.
        score: Mean of the comparison's figure on the test rows, with a bootstrap interval over them.
        score_by_seed: That figure of each seed.
        difference: Mean score minus that of the best method, on the same resampled rows; None for the best itself.
        p_value: Exact sign test of the rows that it gets better than the best method against those it gets worse (of
            one label a text, McNemar's test), where each has one seed; else None.
        parameters: What is trained.
        bytes_on_disk: Size of the weights that are saved.
        training_seconds: Time of the training stage; what frozen layers give is computed once for all cells and left
            out.
        epoch_seconds: Time of the steps of one epoch.
        peak_memory_bytes: Largest memory of the process.
        texts_per_second: Speed on the test rows; on some of their batches where hidden states of theirs were kept.
    """

    method: str
    seeds: list[int]
    validation_loss: float
    score: Estimate
    score_by_seed: list[float]
    difference: Estimate | None
    p_value: float | None
    parameters: ParameterCounts
    bytes_on_disk: int
    training_seconds: float
    epoch_seconds: float
    peak_memory_bytes: int
    texts_per_second: float


class CheapRow(Record):
    """A model without a neural network.

    Attributes:
        name: As in `cheap_baselines_for` the task.
        score: The comparison's figure on the test rows, with its interval.
        difference: Its score minus that of the best method, on the same resampled rows; None if no method ended well.
        seconds: Time of training and prediction.
    """

    name: str
    score: Estimate
    difference: Estimate | None
    seconds: float


class ComparisonRecord(FileRecord):
    """`comparison.json`.

    Attributes:
        created: When, ISO 8601.
        versions: Of the packages.
        cpu: The processor.
        threads: Threads used.
        precision: Arithmetic of the encoder.
        task: What a text gets.
        source: The data.
        base_model: The encoder, as lorafit names it.
        settings: The model and training sections that all cells share.
        fingerprints: Of the rows of each split.
        rows: Number of rows of each split.
        confidence_level: Level of the intervals.
        best: The method with the lowest validation loss; None if none ended well.
        methods: A row a method that ended well: those asked for last, in that order, then those finished before.
        cheap_baselines: A row each.
        failed: Cells without a result.
        seconds: Time of this start; cells that were finished before cost nothing in it.
    """

    created: str
    versions: dict[str, str]
    cpu: str
    threads: int
    precision: str
    task: Task
    source: str
    base_model: str
    settings: dict[str, dict[str, Any]]
    fingerprints: dict[str, str]
    rows: dict[str, int]
    confidence_level: float
    best: str | None
    methods: list[MethodRow]
    cheap_baselines: list[CheapRow]
    failed: list[Cell]
    seconds: float = Field(0.0, ge=0)

    @property
    def figure(self) -> str:
        """Name of the figure that is compared: `accuracy`, `micro_f1` or `mae`."""
        return LEADING[self.task]
