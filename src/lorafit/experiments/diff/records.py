"""What `lorafit diff --json` writes."""

from typing import Literal

from pydantic import Field

from lorafit.evidence import Estimate, ModelScores, PairedComparison
from lorafit.labels import ClasslessTask, Task
from lorafit.models.records import ParameterCounts
from lorafit.system.records import FileRecord, Record
from lorafit.task_evidence import TaskComparison, TaskScores

__all__ = [
    "ComparedModel",
    "DiffRecord",
    "DiffSide",
    "Difference",
    "GateResult",
    "SliceChange",
    "TaskDiffRecord",
    "TaskDiffSide",
    "TaskSliceChange",
]


class ComparedModel(Record):
    """One of the two, without what was measured of it.

    Attributes:
        run: Its folder.
        exported: Arithmetic of an exported model; None for a run.
        method: How its encoder is adapted.
        base_model: Name of its base.
        parameters: Numbers of parameters of adapter, head and whole model.
        texts_per_second: As measured when the run ended, or the model was exported; None where it was not.
    """

    run: str
    exported: Literal["fp32", "int8"] | None = None
    method: str
    base_model: str
    parameters: ParameterCounts
    texts_per_second: float | None


class DiffSide(ComparedModel):
    """One of the two, where a text has one label.

    Attributes:
        scores: Its scores.
        ece: Its expected calibration error, 0 to 1.
    """

    scores: ModelScores
    ece: Estimate


class TaskDiffSide(ComparedModel):
    """One of the two, where a text has several labels, or a number.

    Attributes:
        scores: Its scores.
        ece: Several labels: its expected calibration error over all decisions, 0 to 1.
        coverage: A number: the share of rows whose interval holds the true one, 0 to 1; None without intervals.
        coverage_asked: A number: the share that its intervals were made to hold, above 0 and below 1; None without
            intervals.
        half_width: A number: how far its intervals reach, in the numbers' unit; None without intervals.
    """

    scores: TaskScores
    ece: Estimate | None = None
    coverage: Estimate | None = None
    coverage_asked: float | None = None
    half_width: float | None = None


class SliceChange(Record):
    """What changes on the rows that share a value.

    Attributes:
        column: What is told apart: `label` (the true class), `words` (length of the text) or a column of the data.
        value: The value, or the range of lengths.
        rows: How many rows have it.
        accuracy: Shares of them that A and B have right.
        comparison: B against A on them; A is the baseline there.
        adjusted_p_value: McNemar's p-value raised for the number of slices (Holm 1979).
    """

    column: str
    value: str
    rows: int
    accuracy: tuple[float, float]
    comparison: PairedComparison
    adjusted_p_value: float

    @property
    def p_value(self) -> float:
        """McNemar's p-value of this slice alone."""
        return self.comparison.mcnemar_p_value


class TaskSliceChange(Record):
    """The same where a text has several labels, or a number.

    Attributes:
        column: What is told apart: `label` (a label that the texts have, perhaps among others), `words` (length of the
            text) or a column of the data.
        value: The value, or the range of lengths.
        rows: How many rows have it.
        leading: The leading figure of A and B on them: `micro_f1` of several labels, `mae` of a number. NaN where it is
            undefined: there is no label, neither true nor given.
        comparison: B against A on them, by the leading figure alone; NaN where that of either is undefined.
        adjusted_p_value: The sign test's p-value raised for the number of slices (Holm 1979).
    """

    column: str
    value: str
    rows: int
    leading: tuple[float, float]
    comparison: TaskComparison
    adjusted_p_value: float

    @property
    def p_value(self) -> float:
        """The sign test's p-value of this slice alone."""
        return self.comparison.p_value


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


class Difference(FileRecord):
    """Two runs, A and B, on the same rows, without what was measured. All differences are B minus A.

    Attributes:
        task: What a text gets.
        source: Where the rows come from.
        rows: How many there are.
        labels: The classes, in A's order, which is that of the scores of both; of a number its name.
        confidence_level: Level of the intervals.
        bootstrap_samples: Resamples behind each interval but those of shares, which are Wilson's.
        a: The first run.
        b: The second run.
        gates: Those asked for, in their order.
        notes: What a reader should know.
    """

    task: Task
    source: str
    rows: int
    labels: list[str]
    confidence_level: float
    bootstrap_samples: int
    a: ComparedModel
    b: ComparedModel
    gates: list[GateResult] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)

    @property
    def slowdown(self) -> float | None:
        """How many times as long B takes for a text as A, where both were timed."""
        first, second = self.a.texts_per_second, self.b.texts_per_second
        return first / second if first and second else None


class DiffRecord(Difference):
    """What changes where a text has one label.

    Attributes:
        comparison: B against A; A is the baseline there.
        macro_f1_difference: In macro F1.
        mcc_difference: In Matthews correlation.
        ece_difference: In expected calibration error, without an interval; below zero is better.
        negative_flips: Share of all rows that A has right and B has wrong.
        churn: Share of all rows that get another label.
        slices: By true class, by length, by column.
    """

    task: Literal["single_label"] = "single_label"
    a: DiffSide
    b: DiffSide
    comparison: PairedComparison
    macro_f1_difference: Estimate
    mcc_difference: Estimate
    ece_difference: float
    negative_flips: Estimate
    churn: Estimate
    slices: list[SliceChange]


class TaskDiffRecord(Difference):
    """What changes where a text has several labels, or a number.

    Attributes:
        comparison: B against A, figure by figure.
        ece_difference: Several labels: in expected calibration error over all decisions, without an interval; below
            zero is better.
        coverage_difference: A number: in the share of rows whose interval holds the true one; None unless both have
            intervals.
        half_width_difference: A number: in how far the intervals reach, in its unit; None unless both have intervals.
        negative_flips: Several labels: share of all texts that A gives exactly their labels and B does not.
        churn: Several labels: share of all texts that get other labels.
        slices: By label that texts have, by length, by column.
    """

    task: ClasslessTask
    a: TaskDiffSide
    b: TaskDiffSide
    comparison: TaskComparison
    ece_difference: float | None = None
    coverage_difference: Estimate | None = None
    half_width_difference: float | None = None
    negative_flips: Estimate | None = None
    churn: Estimate | None = None
    slices: list[TaskSliceChange]
