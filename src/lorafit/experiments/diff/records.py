"""What `lorafit diff --json` writes."""

from typing import Literal

from pydantic import Field

from lorafit.models.records import ParameterCounts
from lorafit.models.runtimes.graphs import Engine, Precision
from lorafit.system.records import FileRecord, Record
from lorafit.tasks.base import Task
from lorafit.tasks.records import Comparison, Estimate, Scores, SliceComparison
from lorafit.tasks.registry import TaskName, build_task


class DiffSide(Record):
    """One of the two models.

    Attributes:
        run: Its folder.
        exported: Arithmetic of an exported model; None for a run.
        engine: What runs an exported model; None for a run.
        method: How its encoder is adapted.
        base_model: Name of its base model.
        parameters: Numbers of parameters of adapter, head and whole model.
        texts_per_second: As measured when the run ended, or the model was exported; None where it was not.
        scores: Its scores.
        metrics: Those of `Task.diff_metrics` that one model has by itself, as far as it has what they need.
        asked: What its calibration was asked for of some of them, such as the coverage of intervals.
    """

    run: str
    exported: Precision | None
    engine: Engine | None = None
    method: str
    base_model: str
    parameters: ParameterCounts
    texts_per_second: float | None
    scores: Scores
    metrics: dict[str, Estimate]
    asked: dict[str, float]


class GateResult(Record):
    """A gate, and whether it holds.

    Attributes:
        gate: As it was given.
        name: What is limited.
        operator: How.
        limit: By what.
        value: What was measured; it alone decides.
        interval: The same with its interval, where it has one.
        holds: Whether `value operator limit` is true.
    """

    gate: str
    name: str
    operator: Literal[">=", "<=", ">", "<"]
    limit: float
    value: float
    interval: Estimate | None
    holds: bool


class DiffRecord(FileRecord):
    """Two models, A and B, on the same rows. All differences are B minus A.

    Attributes:
        task: The task's name.
        source: Where the rows come from.
        rows: How many there are.
        groups: Groups that they come in; None where they stand alone.
        labels: The labels, in A's order, which is that of the scores of both; of a regression the name of its number.
        confidence_level: Level of the intervals.
        bootstrap_samples: Resamples behind the intervals that are bootstrapped.
        a: The first model.
        b: The second.
        comparison: B against A.
        diff_metrics: By the names of `Task.diff_metrics`, as far as both models have what they need.
        slices: By label, by length of the text, by the slice columns.
        gates: Those asked for, in their order.
        notes: What a reader should know.
    """

    task: TaskName
    source: str
    rows: int
    groups: int | None = None
    labels: list[str]
    confidence_level: float
    bootstrap_samples: int
    a: DiffSide
    b: DiffSide
    comparison: Comparison
    diff_metrics: dict[str, Estimate]
    slices: list[SliceComparison]
    gates: list[GateResult] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)

    @property
    def slowdown(self) -> float | None:
        """How many times as long B takes for a text as A, where both were timed."""
        first, second = self.a.texts_per_second, self.b.texts_per_second
        return first / second if first and second else None

    def build_task(self) -> Task:
        """Return the task with the labels of both."""
        return build_task(self.task, self.labels)
