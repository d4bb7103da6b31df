"""The `metrics.json` and `calibration.json` of a run with several labels a text, or with a number."""

from typing import Literal

from pydantic import Field

from lorafit.evidence import ClassScores, Estimate, Slice
from lorafit.labels import ClasslessTask
from lorafit.system.records import FileRecord, Record

__all__ = [
    "IntervalCalibration",
    "MultiLabelCalibration",
    "TaskCheapBaseline",
    "TaskComparison",
    "TaskConfidence",
    "TaskMetricsRecord",
    "TaskScores",
    "TaskSliceScores",
]


class TaskScores(Record):
    """Scores of one model on one split, of a task with several labels a text or with a number.

    Attributes:
        figures: By name. Several labels: `micro_f1`, `macro_f1`, `exact_match` (share of texts with exactly the right
            labels), `hamming_loss` (share of wrong decisions over texts and labels), `log_loss` (mean over texts and
            labels, in nats). A number: `mae`, `rmse` (both in its unit), `r2`, `pearson`.
        per_class: Several labels: scores of each, in label order.
    """

    figures: dict[str, Estimate]
    per_class: list[ClassScores] = Field(default_factory=list)


class TaskComparison(Record):
    """One model against another on the same rows.

    Attributes:
        differences: The second minus the first, by the names of `TaskScores.figures`, with paired bootstrap intervals.
        rows_gained: Texts that the second gets better: fewer wrong labels, or nearer to the number.
        rows_lost: The other way round.
        p_value: Exact two-sided sign test of gained against lost.
    """

    differences: dict[str, Estimate]
    rows_gained: int
    rows_lost: int
    p_value: float


class MultiLabelCalibration(FileRecord):
    """`calibration.json` of a task with several labels a text, from rows that neither trained nor chose anything.

    Attributes:
        rows: Number of calibration rows.
        temperature: Logits are divided by it before the sigmoid; above 1 where the model was too sure.
        log_loss_before: Mean negative log likelihood over texts and labels at temperature 1, in nats.
        log_loss_after: The same at `temperature`.
    """

    task: Literal["multi_label"] = "multi_label"
    rows: int
    temperature: float
    log_loss_before: float
    log_loss_after: float


class IntervalCalibration(FileRecord):
    """`calibration.json` of a task with a number, from rows that neither trained nor chose anything.

    Attributes:
        rows: Number of calibration rows.
        coverage: Share of texts whose interval is to hold the true number, 0 to 1.
        half_width: The interval reaches from the predicted number minus this to it plus this (split conformal).
    """

    task: Literal["regression"] = "regression"
    rows: int
    coverage: float
    half_width: float


class TaskConfidence(Record):
    """How far the calibrated answers hold on the rows of the metrics.

    Attributes:
        calibration_rows: Rows that the calibration comes from.
        figures: Several labels: `ece_raw` and `ece`, over all decisions, 15 bins of equal width. A number: `coverage`,
            the share of rows whose interval holds the true one, and `half_width` of that interval.
        coverage_asked: A number: the share that was asked for; else None.
    """

    calibration_rows: int
    figures: dict[str, Estimate]
    coverage_asked: float | None = None


class TaskCheapBaseline(Record):
    """A model without a neural network on the same rows; `comparison` is the fine-tuned model against it."""

    scores: TaskScores
    comparison: TaskComparison


class TaskSliceScores(Slice):
    """Figures of the rows of a slice.

    Attributes:
        figures: Of the fine-tuned model, by the names of `TaskScores.figures`. Several labels: `micro_f1`, NaN where no
            row has a label and none is given, and `exact_match`. A number: `mae`.
        differences: Fine-tuned minus baseline, by the same names; empty without a baseline.
        adjusted_p_value: Of the slice being worse than all rows together, by `micro_f1` or `mae`: one-sided permutation
            test, its p-value raised for the number of slices (Holm 1979).
    """

    figures: dict[str, Estimate]
    differences: dict[str, Estimate]
    adjusted_p_value: float


class TaskMetricsRecord(FileRecord):
    """`metrics.json` of a run with several labels a text, or with a number."""

    task: ClasslessTask
    split: str
    rows: int
    confidence_level: float
    bootstrap_samples: int
    baseline: TaskScores | None
    finetuned: TaskScores
    comparison: TaskComparison | None
    cheap_baselines: dict[str, TaskCheapBaseline] = Field(default_factory=dict, description="By name of the model.")
    confidence: TaskConfidence | None = None
    slices: list[TaskSliceScores] = Field(default_factory=list, description="Figures by length and by column.")
