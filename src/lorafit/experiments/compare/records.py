"""The folder of a comparison, and the record in it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from lorafit.models.records import ParameterCounts
from lorafit.runs.folder import RunLayout
from lorafit.system.digests import Manifest, check_files, digest_files
from lorafit.system.records import FileRecord, Record
from lorafit.tasks.base import Metric
from lorafit.tasks.evaluation import Verdict
from lorafit.tasks.records import Estimate
from lorafit.tasks.registry import TaskName, get_task


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
        """The settings that the cells are trained with: the same, fitted to the budget."""
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
        """Hidden states of frozen layers, which the cells share while they are trained."""
        return self.root / "prefix_cache"

    @property
    def manifest(self) -> Path:
        """The `Manifest` of settings and predictions that a later start goes on with."""
        return self.root / "manifest.json"

    def keep(self, *paths: Path) -> None:
        """Name files in the manifest that were just written."""
        known = Manifest.read(self.manifest).files if self.manifest.is_file() else {}
        Manifest(files=known | digest_files(self.root, paths)).write(self.manifest)

    def is_kept(self, path: Path) -> bool:
        """Tell whether the manifest names a file; a RunError says that it was altered since."""
        files = Manifest.read(self.manifest).files if self.manifest.is_file() else {}
        name = path.relative_to(self.root).as_posix()
        if name in files:
            check_files(self.root, {name: files[name]}, since="after it was written", source=self.manifest)
        return name in files

    def predictions(self, baseline: str) -> Path:
        """Return the table of a baseline's predictions of the test rows."""
        return self.root / "predictions" / f"test.{baseline}.parquet"

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

    @property
    def title(self) -> str:
        """What it is called where people read of it."""
        return f"{self.method}, seed {self.seed}"


class ScoredRow(Record):
    """A model's primary metric on the test rows, and how it differs from the best method's.

    What differs is None for the best method itself, and for all where no method finished.

    Attributes:
        score: The metric with its interval: over test rows, of the mean over seeds.
        difference: The metric minus that of the best method, on the same resampled rows.
        p_value: Exact two-sided sign test of the rows that the two predict better and worse (of single labels McNemar's
            test); None where one of them has several seeds.
        verdict: What is shown against the best method: by interval and test as `tasks.evaluation.judge`; by the
            interval alone where there is no test.
    """

    score: Estimate
    difference: Estimate | None = None
    p_value: float | None = None
    verdict: Verdict | None = None


class MethodRow(ScoredRow):
    """A method's results, as means over its seeds where nothing else is said.

    Attributes:
        method: Its name.
        seeds: The seeds that finished.
        validation_loss: Mean of the lowest validation losses, which choose the best method.
        score_by_seed: The primary metric of each seed.
        parameters: What is trained.
        bytes_on_disk: Size of the saved weights.
        training_seconds: Time of the training stage, without the output of frozen layers, which is computed once for
            all cells.
        epoch_seconds: Time of the steps of one epoch.
        peak_memory_bytes: Largest memory of the process, the maximum over seeds.
        texts_per_second: Speed on the test rows; on some of their batches where hidden states were cached.
    """

    method: str
    seeds: list[int]
    validation_loss: float
    score_by_seed: list[float]
    parameters: ParameterCounts
    bytes_on_disk: int
    training_seconds: float
    epoch_seconds: float
    peak_memory_bytes: int
    texts_per_second: float


class BaselineRow(ScoredRow):
    """A model without a neural network.

    Attributes:
        name: A key of `Task.baselines`.
        seconds: Time of training and prediction.
    """

    name: str
    seconds: float


class ComparisonRecord(FileRecord):
    """`comparison.json`.

    Attributes:
        created: When, ISO 8601.
        versions: Of the packages.
        cpu: The processor.
        threads: CPU threads.
        precision: Arithmetic of the encoder.
        task: The task's name, which says what the scores are.
        source: The data.
        base_model: The encoder, as lorafit names it.
        settings: The model and training sections, which all cells share.
        fingerprints: Of the rows of each split.
        rows: Number of rows of each split.
        confidence_level: Level of the intervals.
        best: The method with the lowest validation loss; None if no method finished.
        methods: A row for each method that finished: those asked for last, in that order, then earlier ones.
        baselines: A row each.
        grouped: Whether test rows come in groups: intervals then resample whole groups, tests take rows as independent.
        failed: Cells without a result.
        seconds: Time of the last start; cells that were finished before cost nothing in it.
    """

    created: str
    versions: dict[str, str]
    cpu: str
    threads: int
    precision: str
    task: TaskName
    source: str
    base_model: str
    settings: dict[str, dict[str, Any]]
    fingerprints: dict[str, str]
    rows: dict[str, int]
    confidence_level: float
    best: str | None
    methods: list[MethodRow]
    baselines: list[BaselineRow]
    failed: list[Cell]
    grouped: bool = False
    seconds: float = Field(0.0, ge=0)

    @property
    def metric(self) -> Metric:
        """The primary metric, which the methods are compared by."""
        return next(iter(get_task(self.task).metrics.values()))

    def title_of(self, baseline: BaselineRow) -> str:
        """Return the title of a baseline."""
        return get_task(self.task).baselines.get(baseline.name, baseline.name)
