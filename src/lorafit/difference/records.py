"""What `lorafit diff --json` writes."""

from typing import Literal

from pydantic import Field

from lorafit.artifacts import FileRecord, ParameterCounts, Record
from lorafit.evidence import Estimate, ModelScores, PairedComparison

__all__ = ["DiffRecord", "DiffSide", "GateResult", "SliceChange"]


class DiffSide(Record):
    """One of the two runs.

    Attributes:
        run: Its folder.
        exported: Arithmetic of an exported model; None for a run.
        method: How its encoder is adapted.
        base_model: Name of its base.
        parameters: Numbers of parameters of adapter, head and whole model.
        texts_per_second: As measured when the run ended, or the model was exported; None where it was not.
        scores: Its scores.
        ece: Its expected calibration error, 0 to 1.
    """

    run: str
    exported: Literal["fp32", "int8"] | None = None
    method: str
    base_model: str
    parameters: ParameterCounts
    texts_per_second: float | None
    scores: ModelScores
    ece: Estimate


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
    """Two runs, A and B, on the same rows. All differences are B minus A.

    Attributes:
        source: Where the rows come from.
        rows: How many there are.
        labels: The classes, in A's order, which is that of the scores of both.
        confidence_level: Level of the intervals.
        bootstrap_samples: Resamples behind each interval but those of shares, which are Wilson's.
        a: The first run.
        b: The second run.
        comparison: B against A; A is the baseline there.
        macro_f1_difference: In macro F1.
        mcc_difference: In Matthews correlation.
        ece_difference: In expected calibration error, without an interval; below zero is better.
        negative_flips: Share of all rows that A has right and B has wrong.
        churn: Share of all rows that get another label.
        slices: By true class, by length, by column.
        gates: Those asked for, in their order.
        notes: What a reader should know.
    """

    source: str
    rows: int
    labels: list[str]
    confidence_level: float
    bootstrap_samples: int
    a: DiffSide
    b: DiffSide
    comparison: PairedComparison
    macro_f1_difference: Estimate
    mcc_difference: Estimate
    ece_difference: float
    negative_flips: Estimate
    churn: Estimate
    slices: list[SliceChange]
    gates: list[GateResult] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)

    @property
    def slowdown(self) -> float | None:
        """How many times as long B takes for a text as A, where both were timed."""
        first, second = self.a.texts_per_second, self.b.texts_per_second
        return first / second if first and second else None
