"""What was measured of a run: `metrics.json`, and the calibration that is stored with what was trained."""

from typing import TypeVar

from pydantic import Field

from lorafit.system.records import FileRecord, Record

__all__ = [
    "AbstentionScores",
    "AnySlice",
    "CalibrationBin",
    "CalibrationRecord",
    "CalibrationScores",
    "CheapBaseline",
    "ClassScores",
    "ConfidenceRecord",
    "Estimate",
    "ExplainedMistake",
    "MetricsRecord",
    "MistakesRecord",
    "ModelScores",
    "PairedComparison",
    "RiskPoint",
    "Slice",
    "SliceScores",
    "SpanContribution",
]


class Estimate(Record):
    """A measured value with its bootstrap interval."""

    value: float
    low: float
    high: float


class ClassScores(Record):
    """How one class was recognised. Precision is 0 where the class was never predicted."""

    label: str
    precision: Estimate
    recall: Estimate
    f1: Estimate
    support: int


class ModelScores(Record):
    """Scores of one model on one split.

    Attributes:
        accuracy: Share of rows that are right.
        macro_f1: Mean of the classes' F1.
        mcc: Matthews correlation coefficient, -1 to 1.
        log_loss: Mean negative log likelihood of the true class, in nats.
        per_class: Scores of each class, in label order.
        confusion_matrix: Row = true class, column = predicted class.
    """

    accuracy: Estimate
    macro_f1: Estimate
    mcc: Estimate
    log_loss: Estimate
    per_class: list[ClassScores]
    confusion_matrix: list[list[int]]


class PairedComparison(Record):
    """Fine-tuned against baseline on the same rows.

    Attributes:
        accuracy_difference: Fine-tuned minus baseline, with a paired bootstrap interval.
        log_loss_difference: Fine-tuned minus baseline, in nats; below zero is better.
        rows_gained: Rows wrong before and right after.
        rows_lost: Rows right before and wrong after.
        mcnemar_p_value: Exact two-sided McNemar test of gained against lost.
    """

    accuracy_difference: Estimate
    log_loss_difference: Estimate
    rows_gained: int
    rows_lost: int
    mcnemar_p_value: float


class CheapBaseline(Record):
    """A classifier without a neural network on the same rows.

    Attributes:
        scores: Its own.
        comparison: The fine-tuned model against it; `baseline` there is this classifier.
    """

    scores: ModelScores
    comparison: PairedComparison


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


class CalibrationRecord(FileRecord):
    """`calibration.json`: how logits become confidence, from rows that neither trained nor chose anything.

    Attributes:
        rows: Number of calibration rows.
        temperature: Logits are divided by it before the softmax; above 1 where the model was too sure.
        log_loss_before: Mean negative log likelihood of the calibration rows at temperature 1, in nats.
        log_loss_after: The same at `temperature`.
        coverage: Share of texts whose conformal set is to hold the true label, 0 to 1.
        set_threshold: A label is in a text's conformal set if its probability is at least this.
        curve: Accepted rows and errors by threshold, the highest threshold first; at most 1,000 points.
        target_accuracy: What the operating point is chosen for, or None.
        accept_threshold: The operating point: answers below this confidence are marked to abstain; None where no
            target was named, above 1 where none of the rows reaches it.
    """

    rows: int
    temperature: float
    log_loss_before: float
    log_loss_after: float
    coverage: float
    set_threshold: float
    curve: list[RiskPoint]
    target_accuracy: float | None = None
    accept_threshold: float | None = None


class CalibrationBin(Record):
    """Rows of like confidence.

    Attributes:
        rows: How many.
        confidence: Their mean confidence, 0 to 1.
        accuracy: The share of them that is right, with a Wilson interval.
    """

    rows: int
    confidence: float
    accuracy: Estimate


class CalibrationScores(Record):
    """How far confidence can be believed.

    Attributes:
        ece: Expected calibration error of the most probable class, 15 bins of equal width, 0 to 1.
        adaptive_ece: The same with 15 bins of equally many rows.
        brier: Mean squared distance of the probabilities from the truth, summed over classes, 0 to 2.
        brier_reliability: Its part by probabilities that are off (Murphy 1973), 15 bins a class; 0 is best.
        brier_resolution: Its part by telling rows apart, which makes it smaller.
        brier_uncertainty: What the shares of the classes alone give.
        bins: The reliability curve, lowest confidence first; 15 bins of equally many rows.
    """

    ece: Estimate
    adaptive_ece: float
    brier: Estimate
    brier_reliability: float
    brier_resolution: float
    brier_uncertainty: float
    bins: list[CalibrationBin]


class AbstentionScores(Record):
    """The operating point on these rows.

    Attributes:
        target_accuracy: What was asked for.
        accept_threshold: The least confidence that is accepted.
        accepted_share: Share of the rows that are accepted.
        accuracy: Share of the accepted rows that are right; None where none is accepted.
    """

    target_accuracy: float
    accept_threshold: float
    accepted_share: Estimate
    accuracy: Estimate | None


class ConfidenceRecord(Record):
    """Calibration, conformal sets and abstention, measured on the rows of the metrics.

    Attributes:
        calibration_rows: Rows that the temperature and the thresholds come from.
        temperature: As in `CalibrationRecord`.
        raw: Without the temperature.
        calibrated: With it.
        coverage_asked: Share of rows whose conformal set was to hold the true label.
        coverage: The share whose set does.
        set_sizes: Number of rows by the size of their set; index 0 is size 1.
        risk_coverage: Accepted rows and errors by threshold on these rows; at most 200 points.
        abstention: The operating point, or None where no target was named.
    """

    calibration_rows: int
    temperature: float
    raw: CalibrationScores
    calibrated: CalibrationScores
    coverage_asked: float
    coverage: Estimate
    set_sizes: list[int]
    risk_coverage: list[RiskPoint]
    abstention: AbstentionScores | None


class Slice(Record):
    """Rows that share a value.

    Attributes:
        column: What is told apart: `words` (length of the text) or a column of the data.
        value: The value, or the range of lengths.
        rows: How many rows have it.
    """

    column: str
    value: str
    rows: int


AnySlice = TypeVar("AnySlice", bound=Slice)
"""The slices of a task."""


class SliceScores(Slice):
    """Accuracy on the rows of a slice.

    Attributes:
        accuracy: Of the fine-tuned model.
        difference: Fine-tuned minus baseline, or None without a baseline.
    """

    accuracy: Estimate
    difference: Estimate | None


class MetricsRecord(FileRecord):
    """`metrics.json`: the evidence of a run."""

    split: str
    rows: int
    confidence_level: float
    bootstrap_samples: int
    baseline: ModelScores | None
    finetuned: ModelScores
    comparison: PairedComparison | None
    cheap_baselines: dict[str, CheapBaseline] = Field(default_factory=dict, description="By name of the classifier.")
    confidence: ConfidenceRecord | None = None
    slices: list[SliceScores] = Field(default_factory=list, description="Accuracy by length and by column.")


class SpanContribution(Record):
    """What a word, or a group of words, adds to a label.

    Attributes:
        start: Its first character in the text, counted from 0.
        end: The character after its last.
        contribution: Log-odds of the label with the whole text minus those without it, in nats.
    """

    start: int
    end: int
    contribution: float


class ExplainedMistake(Record):
    """Why a row got a wrong label. The text is not in it.

    Attributes:
        row_id: Number of the row in its source.
        label: The label it got.
        words: What each word adds to that label, in the order of the text; none for a text of one word.
        beats_chance: Whether deleting the words that speak for the label lowers it more than deleting others does; None
            for texts too short for that test.
    """

    row_id: int
    label: str
    words: list[SpanContribution]
    beats_chance: bool | None


class MistakesRecord(FileRecord):
    """`mistakes.json`: the test rows that are wrong with the most confidence, and the words that misled the model.

    Attributes:
        mistakes: The most confident first.
    """

    mistakes: list[ExplainedMistake]
