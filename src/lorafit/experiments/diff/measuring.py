"""What changes from A to B, measured: scores, flips, calibration, slices."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lorafit.config import EvaluationConfig
from lorafit.experiments.diff.pairs import Pair
from lorafit.experiments.diff.records import (
    DiffRecord,
    DiffSide,
    SliceChange,
    TaskDiffRecord,
    TaskDiffSide,
    TaskSliceChange,
)
from lorafit.experiments.diff.sides import AnySide, read_intervals
from lorafit.labels import ClasslessTask
from lorafit.metrics.calibration import score_calibration
from lorafit.metrics.multi_label import decision_calibration_error, estimate_multi_label_flips
from lorafit.metrics.paired import adjust_p_values, estimate_flips, estimate_score_differences, measure_ece_difference
from lorafit.metrics.regression import compare_interval_coverage, measure_interval_coverage
from lorafit.metrics.task_slices import compare_leading
from lorafit.metrics.uncertainty import compare_paired, estimate_scores
from lorafit.system.progress import Progress
from lorafit.task_evidence import IntervalCalibration
from lorafit.training.task_evaluation import compare_task, estimate_task_scores

__all__ = ["measure"]

_Change = TypeVar("_Change", SliceChange, TaskSliceChange)


def measure(
    first: AnySide, second: AnySide, pair: Pair, config: EvaluationConfig, progress: Progress
) -> DiffRecord | TaskDiffRecord:
    """Measure what changes.

    Args:
        first: A.
        second: B.
        pair: What both say of the same rows.
        config: Level and resampling of the intervals.
        progress: Told how many slices are done.

    Returns:
        The record, without gates and notes.

    Raises:
        RunError: The calibration of one that gives numbers is missing or was altered.
    """
    single = pair.labels.task == "single_label"
    slices = _compare_slices(pair, config, progress) if single else _compare_task_slices(pair, config, progress)
    progress.start("comparing")
    record = _measure(first, second, pair, config, slices)
    progress.finish()
    return record


def _measure(
    first: AnySide,
    second: AnySide,
    pair: Pair,
    config: EvaluationConfig,
    slices: Sequence[SliceChange | TaskSliceChange],
) -> DiffRecord | TaskDiffRecord:
    """Measure what changes on all rows, and put the record together."""
    shared = {
        "source": pair.source,
        "rows": len(pair),
        "labels": list(pair.labels.names),
        "confidence_level": config.confidence_level,
        "bootstrap_samples": config.bootstrap_samples,
        "slices": slices,
    }
    if pair.labels.task == "multi_label":
        return _measure_several_labels(first, second, pair, config, shared)
    if pair.labels.task == "regression":
        return _measure_numbers(first, second, pair, config, shared)
    return _measure_classes(first, second, pair, config, shared)


def _measure_classes(
    first: AnySide, second: AnySide, pair: Pair, config: EvaluationConfig, shared: dict[str, Any]
) -> DiffRecord:
    settings, models = config.resampling, (pair.truth, pair.first, pair.second)
    differences = estimate_score_differences(*models, **settings)
    flips = estimate_flips(*models, confidence_level=config.confidence_level)
    sides = [
        DiffSide(
            **_describe(side),
            scores=estimate_scores(pair.truth, said, pair.labels.names, **settings),
            ece=score_calibration(pair.truth, said, **settings).ece,
        )
        for side, said in ((first, pair.first), (second, pair.second))
    ]
    return DiffRecord(
        **shared,
        a=sides[0],
        b=sides[1],
        comparison=compare_paired(*models, **settings),
        macro_f1_difference=differences["macro_f1"],
        mcc_difference=differences["mcc"],
        ece_difference=measure_ece_difference(*models),
        negative_flips=flips.negative,
        churn=flips.churn,
    )


def _measure_several_labels(
    first: AnySide, second: AnySide, pair: Pair, config: EvaluationConfig, shared: dict[str, Any]
) -> TaskDiffRecord:
    models = (pair.truth, pair.first, pair.second)
    flips = estimate_multi_label_flips(*models, confidence_level=config.confidence_level)
    errors = [decision_calibration_error(pair.truth, said, **config.resampling) for said in models[1:]]
    sides = [
        TaskDiffSide(**_describe(side), scores=estimate_task_scores(pair.truth, said, pair.labels, config), ece=error)
        for side, said, error in zip((first, second), models[1:], errors, strict=True)
    ]
    return TaskDiffRecord(
        **shared,
        task="multi_label",
        a=sides[0],
        b=sides[1],
        comparison=compare_task(*models, pair.labels, config),
        ece_difference=errors[1].value - errors[0].value,
        negative_flips=flips.negative,
        churn=flips.churn,
    )


def _measure_numbers(
    first: AnySide, second: AnySide, pair: Pair, config: EvaluationConfig, shared: dict[str, Any]
) -> TaskDiffRecord:
    models = (pair.truth, pair.first, pair.second)
    calibrations = [read_intervals(side) for side in (first, second)]
    sides = [
        TaskDiffSide(
            **_describe(side),
            scores=estimate_task_scores(pair.truth, said, pair.labels, config),
            **_describe_intervals(pair.truth, said[:, 0], calibration, config.confidence_level),
        )
        for side, said, calibration in zip((first, second), models[1:], calibrations, strict=True)
    ]
    before, after = (side.half_width for side in sides)
    intervals: dict[str, Any] = {}
    if before is not None and after is not None:
        told = (pair.first[:, 0], before), (pair.second[:, 0], after)
        intervals = {
            "coverage_difference": compare_interval_coverage(pair.truth, *told, **config.resampling),
            "half_width_difference": after - before,
        }
    return TaskDiffRecord(
        **shared,
        task="regression",
        a=sides[0],
        b=sides[1],
        comparison=compare_task(*models, pair.labels, config),
        **intervals,
    )


def _describe_intervals(
    truth: NDArray[np.float64], said: NDArray[np.float64], calibration: IntervalCalibration | None, level: float
) -> dict[str, Any]:
    """Return what a record says of the intervals around a side's numbers, both arrays of shape (n,)."""
    if calibration is None:
        return {}
    return {
        "coverage": measure_interval_coverage(truth, said, calibration.half_width, level),
        "coverage_asked": calibration.coverage,
        "half_width": calibration.half_width,
    }


def _describe(side: AnySide) -> dict[str, Any]:
    """Return what a record says of one whatever it is measured by."""
    record = side.record
    return {
        "run": str(side.root),
        "exported": side.precision,
        "method": record.method,
        "base_model": record.base_model.name,
        "parameters": record.parameters,
        "texts_per_second": side.texts_per_second,
    }


def _follow_slices(pair: Pair, progress: Progress) -> Iterator[tuple[str, str, NDArray[np.int64]]]:
    """Yield the slices as `Pair.list_slices` does, and tell how many are done."""
    slices = list(pair.list_slices())
    if not slices:
        return
    progress.start("comparing slices", total=len(slices), unit="slice")
    for done, one in enumerate(slices, start=1):
        yield one
        progress.update(done)
    progress.finish()


def _compare_slices(pair: Pair, config: EvaluationConfig, progress: Progress) -> list[SliceChange]:
    """Compare both on the rows of each class, length and value of a column."""
    changes = []
    for column, value, members in _follow_slices(pair, progress):
        truth, *models = pair.truth[members], pair.first[members], pair.second[members]
        first, second = (float((values.argmax(axis=1) == truth).mean()) for values in models)
        paired = compare_paired(truth, *models, **config.resampling)
        changes.append(
            SliceChange(
                column=column,
                value=value,
                rows=len(truth),
                accuracy=(first, second),
                comparison=paired,
                adjusted_p_value=paired.mcnemar_p_value,
            )
        )
    return _adjust(changes)


def _compare_task_slices(pair: Pair, config: EvaluationConfig, progress: Progress) -> list[TaskSliceChange]:
    """Compare both on the rows of each label, length and value of a column."""
    task: ClasslessTask = "regression" if pair.labels.task == "regression" else "multi_label"
    changes = []
    for column, value, members in _follow_slices(pair, progress):
        models = pair.first[members], pair.second[members]
        figures, paired = compare_leading(pair.truth[members], task, *models, **config.resampling)
        changes.append(
            TaskSliceChange(
                column=column,
                value=value,
                rows=len(members),
                leading=figures,
                comparison=paired,
                adjusted_p_value=paired.p_value,
            )
        )
    return _adjust(changes)


def _adjust(changes: Sequence[_Change]) -> list[_Change]:
    """Raise the p-values for the number of slices."""
    adjusted = adjust_p_values([change.p_value for change in changes])
    return [
        change.model_copy(update={"adjusted_p_value": p_value})
        for change, p_value in zip(changes, adjusted, strict=True)
    ]
