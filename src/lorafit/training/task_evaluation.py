"""Measure models that give several labels a text, or a number; `training.evaluation` asks here for such tasks."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lorafit.answers import Predicted
from lorafit.config import EvaluationConfig
from lorafit.data.rows import Split
from lorafit.labels import ClasslessTask, LabelSet
from lorafit.metrics.multi_label import (
    compare_multi_label,
    decide,
    decision_calibration_error,
    estimate_multi_label_scores,
    fit_multi_label_temperature,
    sigmoid,
)
from lorafit.metrics.regression import (
    choose_half_width,
    compare_regression,
    estimate_regression_scores,
    measure_interval_coverage,
)
from lorafit.metrics.task_slices import score_task_slices
from lorafit.task_evidence import (
    IntervalCalibration,
    MultiLabelCalibration,
    TaskCheapBaseline,
    TaskComparison,
    TaskConfidence,
    TaskMetricsRecord,
    TaskScores,
)

if TYPE_CHECKING:
    from lorafit.training.targets import Standard

__all__ = [
    "build_task_metrics",
    "compare_task",
    "compute_task_validation",
    "estimate_task_scores",
    "fit_task_calibration",
]


def compute_task_validation(rows: Split, logits: NDArray[np.float64], standard: "Standard | None") -> dict[str, float]:
    """Measure what training is steered by, without intervals.

    Args:
        rows: The n rows.
        logits: Shape (n, outputs), the model's raw outputs.
        standard: What the numbers were standardised with; None for several labels.

    Returns:
        `calibrated_loss`, which chooses, and `loss`: nats a decision, or the squared error of standardised numbers;
        then `micro_f1`, or `mae` in the numbers' unit.
    """
    if standard is not None:
        errors = logits[:, 0] - standard.apply(rows.labels)
        loss, error = float((errors**2).mean()), float(np.abs(errors).mean() * standard.scale)
        return {"loss": loss, "calibrated_loss": loss, "mae": error}
    marks = rows.labels == 1
    decided = decide(sigmoid(logits))
    right = int((decided & marks).sum())
    total = int(decided.sum() + marks.sum())
    return {
        "loss": _binary_loss(marks, logits),
        "calibrated_loss": _binary_loss(marks, logits / fit_multi_label_temperature(rows.labels, logits)),
        "micro_f1": 2 * right / total if total else 0.0,
    }


def fit_task_calibration(
    rows: Split, logits: NDArray[np.float64], labels: LabelSet, config: EvaluationConfig
) -> MultiLabelCalibration | IntervalCalibration:
    """Fit what makes answers believable to rows that neither trained nor chose anything.

    Args:
        rows: The n calibration rows.
        logits: Shape (n, outputs), the model's raw outputs.
        labels: The task and its classes.
        config: How often intervals are to hold the true number.

    Returns:
        A temperature, or the width of the intervals.
    """
    if labels.task == "regression":
        width = choose_half_width(rows.labels, logits[:, 0], config.coverage)
        return IntervalCalibration(rows=len(rows), coverage=config.coverage, half_width=width)
    temperature = fit_multi_label_temperature(rows.labels, logits)
    return MultiLabelCalibration(
        rows=len(rows),
        temperature=temperature,
        log_loss_before=_binary_loss(rows.labels == 1, logits),
        log_loss_after=_binary_loss(rows.labels == 1, logits / temperature),
    )


def estimate_task_scores(
    truth: NDArray[Any], values: NDArray[np.float64], labels: LabelSet, config: EvaluationConfig
) -> TaskScores:
    """Score a model on rows, each score with its interval.

    Args:
        truth: What `Split.labels` holds of the n rows.
        values: What the model said of them, shape (n, outputs): probabilities, or numbers.
        labels: The task and its classes.
        config: Level and resampling of the intervals.

    Returns:
        The scores.
    """
    if labels.task == "regression":
        return estimate_regression_scores(truth, values[:, 0], **config.resampling)
    return estimate_multi_label_scores(truth, values, labels.names, **config.resampling)


def compare_task(
    truth: NDArray[Any],
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    labels: LabelSet,
    config: EvaluationConfig,
) -> TaskComparison:
    """Compare two models on the same rows.

    Args:
        truth: What `Split.labels` holds of the n rows.
        before: What the first model said of them, shape (n, outputs): probabilities, or numbers.
        after: The same of the second model.
        labels: The task and its classes.
        config: Level and resampling of the intervals.

    Returns:
        The second against the first.
    """
    if labels.task == "regression":
        return compare_regression(truth, before[:, 0], after[:, 0], **config.resampling)
    return compare_multi_label(truth, before, after, **config.resampling)


def build_task_metrics(
    split: str, rows: Split, labels: LabelSet, config: EvaluationConfig, predicted: Predicted
) -> TaskMetricsRecord:
    """Turn what models said of rows into scores with intervals and paired comparisons.

    Args:
        split: Name of the split.
        rows: Its n rows.
        labels: The task and its classes.
        config: Level and resampling of the intervals.
        predicted: What the models said of them.

    Returns:
        The record.
    """
    task: ClasslessTask = "regression" if labels.task == "regression" else "multi_label"
    finetuned, baseline = predicted.finetuned, predicted.baseline

    def score(values: NDArray[np.float64]) -> TaskScores:
        return estimate_task_scores(rows.labels, values, labels, config)

    def compare(before: NDArray[np.float64]) -> TaskComparison:
        return compare_task(rows.labels, before, finetuned, labels, config)

    return TaskMetricsRecord(
        task=task,
        split=split,
        rows=len(rows),
        confidence_level=config.confidence_level,
        bootstrap_samples=config.bootstrap_samples,
        baseline=None if baseline is None else score(baseline),
        finetuned=score(finetuned),
        comparison=None if baseline is None else compare(baseline),
        cheap_baselines={
            name: TaskCheapBaseline(scores=score(values), comparison=compare(values))
            for name, values in predicted.cheap.items()
        },
        confidence=_measure_confidence(rows, predicted, config.resampling),
        slices=score_task_slices(rows, task, finetuned, baseline, **config.resampling),
    )


def _measure_confidence(rows: Split, predicted: Predicted, settings: dict[str, Any]) -> TaskConfidence | None:
    calibration, values = predicted.calibration, predicted.finetuned
    if isinstance(calibration, IntervalCalibration):
        level, width = settings["confidence_level"], calibration.half_width
        held = measure_interval_coverage(rows.labels, values[:, 0], width, level)
        figures = {
            "coverage": held,
            "half_width": held.model_copy(update={"value": width, "low": width, "high": width}),
        }
        return TaskConfidence(calibration_rows=calibration.rows, figures=figures, coverage_asked=calibration.coverage)
    if isinstance(calibration, MultiLabelCalibration):
        smallest = np.finfo(np.float64).tiny
        odds = np.log(np.maximum(values, smallest)) - np.log(np.maximum(1 - values, smallest))
        raw = sigmoid(odds * calibration.temperature)
        figures = {
            name: decision_calibration_error(rows.labels, said, **settings)
            for name, said in (("ece_raw", raw), ("ece", values))
        }
        return TaskConfidence(calibration_rows=calibration.rows, figures=figures)
    return None


def _binary_loss(marks: NDArray[np.bool_], logits: NDArray[np.float64]) -> float:
    """Return the mean negative log likelihood of all decisions, in nats."""
    return float((np.logaddexp(0, logits) - marks * logits).mean())
