"""Measure a model on labelled rows, and keep what it said about each."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lorafit.answers import TRUTH_COLUMNS, Calibration, Predicted, name_values
from lorafit.cheap_baselines import cheap_baselines_for
from lorafit.config import EvaluationConfig, load_config
from lorafit.data.checks import name_labels
from lorafit.data.rows import Split
from lorafit.data.sources import is_same_source, load_evaluation_rows
from lorafit.data.tables import read_table
from lorafit.data.writing import write_table
from lorafit.errors import DataError
from lorafit.evidence import CalibrationRecord, CheapBaseline, MetricsRecord
from lorafit.inference.run_loading import load_run
from lorafit.labels import LabelSet, Task
from lorafit.metrics.calibration import calibrated_log_loss
from lorafit.metrics.confidence import fit_calibration, measure_confidence
from lorafit.metrics.scores import accuracy, confusion_matrix, predict_labels, row_log_losses, softmax
from lorafit.metrics.slices import score_slices
from lorafit.metrics.uncertainty import compare_paired, estimate_scores
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import RunRecord
from lorafit.system.progress import Progress, Silent
from lorafit.task_evidence import TaskMetricsRecord
from lorafit.training.task_evaluation import build_task_metrics, compute_task_validation, fit_task_calibration

if TYPE_CHECKING:
    from lorafit.training.targets import Standard

__all__ = [
    "Metrics",
    "build_metrics",
    "compute_validation",
    "evaluate",
    "fit_answers",
    "read_predictions",
    "write_predictions",
]

Metrics = MetricsRecord | TaskMetricsRecord
"""The evidence of a run, by task."""


def evaluate(
    run: str | Path,
    data: str | None = None,
    *,
    flags: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> Metrics:
    """Measure a trained run on its own test rows or on other data.

    Args:
        run: The run folder.
        data: A source as in `data.source`; None takes the run's own, whose test split is used.
        flags: Dotted settings that differ from the run's (for example `data.label_column`). With `data`, the run's
            `data.slice_columns` are left out unless they are given here.
        progress: Told how many texts are done.

    Returns:
        The scores with their intervals; there is no baseline in it.

    Raises:
        DataError: The run's own data have changed since training, so that its test rows are no longer known.
    """
    layout = RunLayout(Path(run).resolve())
    record = RunRecord.read(layout.record)
    slices = (flags or {}).get("data.slice_columns")
    if data is not None and slices is None:
        slices = []  # other data need not have the run's columns
    config = load_config(layout.config, flags={**(flags or {}), "data.slice_columns": slices})
    predictor = load_run(
        layout.root,
        precision="fp32" if record.hardware.precision == "fp32" else "auto",
        target_accuracy=(flags or {}).get("evaluation.target_accuracy"),
    )
    labels = record.label_set
    if config.data.task != labels.task:
        raise DataError(f"The run was trained with --task {labels.task}; its config.yaml says {config.data.task}.")
    rows = load_evaluation_rows(data or config.data.source, config.data, labels)
    if data is None or is_same_source(data, config.data.source):
        _check_unchanged(rows, record)
    progress = progress or Silent()
    progress.start("measuring", total=len(rows), unit="text")
    values = predictor.compute_values(rows.texts, on_progress=progress.update)
    progress.finish()
    split = "test" if data is None else Path(data).name
    cheap = {} if data is not None else _read_cheap_baselines(layout, rows, labels)
    return build_metrics(
        split, rows, labels, config.evaluation, Predicted(values, cheap=cheap, calibration=predictor.calibration)
    )


def _read_cheap_baselines(layout: RunLayout, rows: Split, labels: LabelSet) -> dict[str, NDArray[np.float64]]:
    """Return what the cheap baselines said of the run's own test rows, as far as that was kept."""
    names = cheap_baselines_for(labels.task)
    kept = {name: read_predictions(layout.predictions("test", name), rows, labels) for name in names}
    return {name: probabilities for name, probabilities in kept.items() if probabilities is not None}


def _check_unchanged(rows: Split, record: RunRecord) -> None:
    if rows.fingerprint() != record.data.splits["test"].fingerprint:
        raise DataError(
            f"{record.data.source} has changed since training, or is read with other settings: rows that were trained "
            "on could now be among the test rows. Give a file with other labelled rows: lorafit evaluate RUN DATA"
        )


def fit_answers(rows: Split, logits: NDArray[np.float64], labels: LabelSet, config: EvaluationConfig) -> Calibration:
    """Fit to calibration rows what makes answers believable.

    Args:
        rows: The n rows.
        logits: Shape (n, outputs), the model's raw outputs.
        labels: The task and its classes.
        config: Coverage and, for one label a text, the target accuracy.

    Returns:
        The calibration.
    """
    if labels.task != "single_label":
        return fit_task_calibration(rows, logits, labels, config)
    return fit_calibration(rows.labels, logits, coverage=config.coverage, target_accuracy=config.target_accuracy)


def build_metrics(split: str, rows: Split, labels: LabelSet, config: EvaluationConfig, predicted: Predicted) -> Metrics:
    """Turn probabilities into scores with intervals and, where there is a baseline, a paired comparison.

    Args:
        split: Name of the split.
        rows: Its n rows.
        labels: The task and its classes.
        config: Level and resampling of the intervals.
        predicted: What the models said of them.

    Returns:
        The record.
    """
    if labels.task != "single_label":
        return build_task_metrics(split, rows, labels, config, predicted)
    settings = config.resampling
    finetuned, baseline = predicted.finetuned, predicted.baseline
    before = None if baseline is None else estimate_scores(rows.labels, baseline, labels.names, **settings)
    comparison = None if baseline is None else compare_paired(rows.labels, baseline, finetuned, **settings)
    calibration = predicted.calibration if isinstance(predicted.calibration, CalibrationRecord) else None
    return MetricsRecord(
        split=split,
        rows=len(rows),
        confidence_level=config.confidence_level,
        bootstrap_samples=config.bootstrap_samples,
        baseline=before,
        finetuned=estimate_scores(rows.labels, finetuned, labels.names, **settings),
        comparison=comparison,
        slices=score_slices(rows, finetuned, baseline, **settings),
        confidence=None if calibration is None else measure_confidence(rows.labels, finetuned, calibration, **settings),
        cheap_baselines={
            name: CheapBaseline(
                scores=estimate_scores(rows.labels, probabilities, labels.names, **settings),
                comparison=compare_paired(rows.labels, probabilities, finetuned, **settings),
            )
            for name, probabilities in predicted.cheap.items()
        },
    )


def compute_validation(
    rows: Split, logits: NDArray[np.float64], task: Task = "single_label", standard: "Standard | None" = None
) -> dict[str, float]:
    """Measure what training is steered by, without intervals.

    Args:
        rows: The n rows.
        logits: Shape (n, outputs), the model's raw outputs.
        task: What a text gets.
        standard: What the numbers of a regression were standardised with.

    Returns:
        `calibrated_loss`, which chooses, `loss` (both in nats a row) and `accuracy`, or what `compute_task_validation`
        gives; both losses NaN where the outputs are no longer numbers, which stops training.
    """
    if not np.isfinite(logits).all():
        return {"loss": math.nan, "calibrated_loss": math.nan}
    if task != "single_label":
        return compute_task_validation(rows, logits, standard if task == "regression" else None)
    probabilities = softmax(logits)
    matrix = confusion_matrix(rows.labels, predict_labels(probabilities), probabilities.shape[1])
    return {
        "loss": float(row_log_losses(rows.labels, probabilities).mean()),
        "calibrated_loss": calibrated_log_loss(rows.labels, logits),
        "accuracy": float(accuracy(matrix)),
    }


def write_predictions(path: Path, rows: Split, labels: LabelSet, probabilities: NDArray[np.float64]) -> None:
    """Write what a model said about each row, in input order, as parquet.

    Args:
        path: Where to.
        rows: The n rows.
        labels: The task and its classes.
        probabilities: Shape (n, outputs); the numbers of a regression.
    """
    columns: dict[str, list[Any]] = {"row_id": rows.ids.tolist()}
    columns[TRUTH_COLUMNS[labels.task]] = list(name_labels(rows.labels, labels))
    if labels.task == "single_label":
        columns["label"] = [labels.names[label] for label in predict_labels(probabilities)]
    for index, name in enumerate(name_values(labels)):
        columns[name] = probabilities[:, index].tolist()
    write_table(path, columns)


def read_predictions(path: Path, rows: Split, labels: LabelSet) -> NDArray[np.float64] | None:
    """Read probabilities written for exactly these rows.

    Args:
        path: Where from.
        rows: The rows they should belong to.
        labels: The task and its classes.

    Returns:
        Shape (n, outputs), or None if there is no such file or it is of other rows.
    """
    if not path.is_file():
        return None
    columns = read_table(path).columns
    names = name_values(labels)
    if columns.get("row_id") != rows.ids.tolist() or not all(name in columns for name in names):
        return None
    return np.array([columns[name] for name in names], dtype=np.float64).T
