"""The records of an evaluation, the same for every task: `metrics.json`, and the base of `calibration.json`."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lorafit.system.records import FileRecord, Record
from lorafit.tasks.registry import TaskName


@dataclass(frozen=True, eq=False)
class Resampling:
    """How confidence intervals are made.

    Attributes:
        level: Above 0 and below 1.
        samples: Resamples behind each bootstrap interval, at least 1.
        seed: The same seed draws the same rows for other predictions.
        groups: Shape (n,), ids of rows that belong together, so that intervals are those of other groups; None where
            rows stand alone.
    """

    level: float = 0.95
    samples: int = 2000
    seed: int = 0
    groups: NDArray[np.int64] | None = None

    @property
    def is_grouped(self) -> bool:
        """Whether rows come in groups."""
        return self.groups is not None

    def select(self, rows: NDArray[Any]) -> "Resampling":
        """Return that of some of the rows, by their places or by a mask of shape (n,)."""
        return self if self.groups is None else replace(self, groups=self.groups[rows])


class Estimate(Record):
    """A measured value and its confidence interval; all are NaN where it is undefined, the ends where it has none."""

    value: float
    low: float
    high: float


class ClassScores(Record):
    """How one label was recognised.

    Attributes:
        label: Its name.
        precision: Undefined where it was never predicted.
        recall: Undefined where no row has it.
        f1: Undefined where it neither occurs nor is predicted.
        support: Rows that have it.
    """

    label: str
    precision: Estimate
    recall: Estimate
    f1: Estimate
    support: int


class Scores(Record):
    """How good one model is on one split.

    Attributes:
        metrics: By the names of `Task.metrics`, the primary one first.
        per_class: Scores of each label, in label order; none of a regression.
        confusion_matrix: Row = true class, column = predicted class; empty where a row has no one class.
    """

    metrics: dict[str, Estimate]
    per_class: list[ClassScores] = Field(default_factory=list)
    confusion_matrix: list[list[int]] = Field(default_factory=list)


class Comparison(Record):
    """One model against another on the same rows.

    Attributes:
        differences: The second minus the first, by the names of `Task.metrics`, with paired bootstrap intervals.
        rows_fixed: Rows on which the second has the smaller error (`Task.row_errors`).
        rows_broken: Rows on which it has the larger one.
        p_value: Exact two-sided sign test of fixed against broken; for single labels that is McNemar's test.
        grouped: Whether rows come in groups: intervals then resample whole groups, the test takes rows as independent.
    """

    differences: dict[str, Estimate]
    rows_fixed: int
    rows_broken: int
    p_value: float
    grouped: bool = False


class BaselineScores(Record):
    """A model without a neural network on the same rows; `comparison` is the fine-tuned model against it."""

    scores: Scores
    comparison: Comparison


class BlendRecord(Record):
    """A blend of the encoder and word models, and whether it is used.

    Attributes:
        members: The word models.
        weights: How much each member counts, the encoder's first; empty where there were too few rows.
        rows: Held-out rows that the weights were fitted on and judged by.
        encoder_loss: Cross-fitted mean loss of the encoder alone at its own temperature; of numbers the squared error.
        blend_loss: That of the blend.
        difference: The second minus the first, with its paired interval.
        kept: Whether predictions are the blend's.
        reason: Why, or why not.
    """

    members: list[str]
    weights: dict[str, float] = Field(default_factory=dict)
    rows: int
    encoder_loss: float | None = None
    blend_loss: float | None = None
    difference: Estimate | None = None
    kept: bool
    reason: str


class AlternativeRecord(Record):
    """Another model on the rows held out of a run.

    Attributes:
        rows: Held-out rows.
        loss: Cross-fitted mean loss of the run's own predictions; of numbers the squared error.
        other_loss: That of the other model.
        difference: The second minus the first, with its paired interval.
    """

    rows: int
    loss: float
    other_loss: float
    difference: Estimate

    @property
    def is_better(self) -> bool:
        """Whether its loss is lower beyond chance, and by a thousandth at least."""
        return self.difference.high < -self.loss / 1000


class Slice(Record):
    """Rows that share a value.

    Attributes:
        column: What they are told apart by: `words` (length of the text) or a column of the data.
        value: The value, or the range of lengths.
        rows: How many rows have it.
    """

    column: str
    value: str
    rows: int


class SliceScores(Slice):
    """How good the fine-tuned model is on the rows of a slice.

    Attributes:
        metrics: By the names of `Task.slice_metrics`.
        differences: After minus before training, by the same names; empty where before was not measured.
        adjusted_p_value: Of the slice being no worse than all rows by the primary metric: one-sided permutation test,
            adjusted for the number of slices (Holm 1979).
    """

    metrics: dict[str, Estimate]
    differences: dict[str, Estimate]
    adjusted_p_value: float


class SliceComparison(Slice):
    """One model against another on the rows of a slice.

    Attributes:
        before: The first model's metrics, by the names of `Task.slice_metrics`; NaN where one is undefined.
        after: Those of the second.
        comparison: The second against the first, by the same names.
        adjusted_p_value: Its p-value, adjusted for the number of slices (Holm 1979).
    """

    before: dict[str, float]
    after: dict[str, float]
    comparison: Comparison
    adjusted_p_value: float


class RiskPoint(Record):
    """What accepting the most confident rows alone would give.

    Attributes:
        threshold: Rows with at least this confidence are accepted, 0 to 1.
        accepted: How many those are.
        errors: How many of them are wrong.
    """

    threshold: float
    accepted: int
    errors: int


class ReliabilityBin(Record):
    """A bin of the reliability diagram.

    Attributes:
        rows: How many rows, of similar confidence.
        confidence: Their mean confidence, 0 to 1.
        accuracy: The share of them that is right, with a Wilson interval.
    """

    rows: int
    confidence: float
    accuracy: Estimate


class CalibrationScores(Record):
    """Whether the calibrated predictions hold on the rows of the metrics.

    Attributes:
        rows: Calibration rows, which neither trained nor chose anything.
        metrics: By the names of `Task.calibration_metrics`, of calibrated predictions.
        raw: Those of them that uncalibrated predictions have, too.
        asked: What was asked for of some of them: the coverage, the accuracy of accepted predictions.
        reliability: The reliability diagram of calibrated predictions, 15 bins of equally many rows; empty where a
            prediction has no one confidence.
        reliability_raw: The same before calibration.
        risk_coverage: The risk-coverage curve, the highest threshold first; at most 200 points.
        set_sizes: Rows by the size of their conformal set; index 0 is size 1.
    """

    rows: int
    metrics: dict[str, Estimate]
    raw: dict[str, Estimate] = Field(default_factory=dict)
    asked: dict[str, float] = Field(default_factory=dict)
    reliability: list[ReliabilityBin] = Field(default_factory=list)
    reliability_raw: list[ReliabilityBin] = Field(default_factory=list)
    risk_coverage: list[RiskPoint] = Field(default_factory=list)
    set_sizes: list[int] = Field(default_factory=list)


class Calibration(FileRecord):
    """`calibration.json`: how logits become predictions that hold. Each task has its own subclass.

    Attributes:
        task: The task's name.
        rows: Calibration rows, which neither trained nor chose anything.
    """

    task: TaskName
    rows: int

    @property
    def asked(self) -> dict[str, float]:
        """What was asked for of some of `Task.calibration_metrics`."""
        return {}


class Exchangeability(Record):
    """Whether rows are like the calibration rows, as conformal sets, intervals and thresholds take for granted.

    Attributes:
        rows: Rows that were looked at.
        calibration_rows: Calibration rows that were.
        p_value: Of the permutation test of the energy distance of their features.
        false_alarms: How often the test may say of rows that are alike that they are not, 0 to 1.
        distance: A lower end of the total variation distance between both, 0 to 1: by as much a promise of coverage is
            weaker for the rows (Barber et al. 2023, "Conformal Prediction Beyond Exchangeability", arXiv:2202.13415).
    """

    rows: int
    calibration_rows: int
    p_value: float
    false_alarms: float
    distance: float

    @property
    def is_refuted(self) -> bool:
        """Whether the rows are shown to be of another kind."""
        return self.p_value <= self.false_alarms


class MetricsRecord(FileRecord):
    """`metrics.json`: the evidence of a run.

    Attributes:
        task: The task's name.
        split: Name of the split.
        rows: Its rows.
        groups: Groups that they come in; None where they stand alone.
        confidence_level: Level of all intervals.
        bootstrap_samples: Resamples behind the intervals that are bootstrapped.
        before: The model before training, or None where it was not measured.
        after: The fine-tuned model.
        comparison: After against before.
        baselines: By name.
        calibration: None where there were too few rows to calibrate with.
        slices: By length of the text, and by the slice columns.
        exchangeability: Whether the rows are like the calibration rows; None where that was not looked at.
    """

    task: TaskName
    split: str
    rows: int
    groups: int | None = None
    confidence_level: float
    bootstrap_samples: int
    before: Scores | None
    after: Scores
    comparison: Comparison | None
    baselines: dict[str, BaselineScores] = Field(default_factory=dict)
    calibration: CalibrationScores | None = None
    slices: list[SliceScores] = Field(default_factory=list)
    exchangeability: Exchangeability | None = None
