"""The stages of a run around training: what it reads, what it goes on from, saving, measuring."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from lorafit.answers import Calibration, Predicted, to_values
from lorafit.cheap_baselines import cheap_baselines_for, predict_cheaply
from lorafit.config import Config
from lorafit.data.rows import Splits
from lorafit.evidence import MetricsRecord
from lorafit.inference.mistakes import explain_mistakes
from lorafit.inference.predictor import Inputs, Predictor, Runtime, compute_logits, plan_prediction, read_calibration
from lorafit.models.acceleration.memory import release_freed_memory
from lorafit.models.load import load_tokenizer
from lorafit.models.methods import find_method
from lorafit.models.tokenization import Truncation
from lorafit.reports.model_card import render_model_card
from lorafit.reports.task_card import render_task_card
from lorafit.reports.tracking import open_trackers
from lorafit.runs.folder import RunLayout
from lorafit.runs.golden import GOLDEN_PRECISION
from lorafit.runs.journal import Journal
from lorafit.runs.records import RunRecord
from lorafit.runs.saving import save_trained
from lorafit.system.atomic import write_atomic
from lorafit.system.progress import Progress
from lorafit.training.evaluation import (
    Metrics,
    build_metrics,
    compute_validation,
    fit_answers,
    read_predictions,
    write_predictions,
)
from lorafit.training.prepare import Prepared

if TYPE_CHECKING:
    from lorafit.training.inputs import ModelInputs
    from lorafit.training.trainer import OnValidation

__all__ = [
    "build_measuring_runtime",
    "calibrate_run",
    "evaluate_run",
    "find_checkpoint",
    "measure_cheap_baseline",
    "measure_test_rows",
    "save_run",
    "train_run",
    "write_mistakes",
]

_TIMED_BATCHES = 8
"""How many batches a speed is measured with where the test rows' own pass read hidden states from a file."""


def build_measuring_runtime(prepared: Prepared) -> Runtime:
    """Build what measures the trained model: what `load_run` will predict with, merged where that is faster.

    Args:
        prepared: Data and trained model, which stays as it is.

    Returns:
        The runtime.
    """
    from lorafit.models.acceleration.inference import make_fast
    from lorafit.models.runtimes.pytorch import TorchRuntime

    model = prepared.adapted.model
    return TorchRuntime(make_fast(model) if model.device.type == "cpu" else model, prepared.precision)


def calibrate_run(
    prepared: Prepared, runtime: Runtime, inputs: "Mapping[str, ModelInputs]", journal: Journal, progress: Progress
) -> Calibration | None:
    """Fit the confidence of the trained model to the calibration rows.

    Args:
        prepared: Data and model.
        runtime: Runs the model.
        inputs: The texts by split.
        journal: Keeps the run's record.
        progress: Told what is done.

    Returns:
        The calibration, or None where there are no rows for it.
    """
    rows, config = prepared.splits.calibration, prepared.config.evaluation
    if rows is None:
        if config.target_accuracy is not None:
            progress.say(
                f"no confidence can be chosen for an accuracy of {config.target_accuracy:g}: nothing calibrates"
            )
        return None
    with journal.stage("calibration"):
        progress.start("calibrating", total=len(rows), unit="text")
        logits = _compute_logits(prepared, runtime, inputs["calibration"], progress)
        progress.finish()
        if prepared.labels.task == "regression" and len(rows) < config.coverage / (1 - config.coverage):
            progress.say(
                f"{len(rows)} calibration rows are too few for a coverage of {config.coverage:g}: it may be less"
            )
        return fit_answers(rows, logits, prepared.labels, config)


def evaluate_run(
    prepared: Prepared,
    runtime: Runtime,
    inputs: "Mapping[str, ModelInputs]",
    journal: Journal,
    baseline: NDArray[np.float64] | None,
    calibration: Calibration | None,
    progress: Progress,
) -> tuple[Predicted, Metrics]:
    """Measure the trained model on the test rows, beside the baselines, and write the evidence.

    Args:
        prepared: Data and model.
        runtime: Runs the model.
        inputs: The texts by split.
        journal: Keeps the run's record.
        baseline: What the model before training said of the test rows, shape (n, outputs), or None.
        calibration: How the trained model's logits become confidence, or None.
        progress: Told what is done.

    Returns:
        What every model said of the test rows, and the scores.
    """
    splits, config, cheap = prepared.splits, prepared.config.evaluation, {}
    layout, tokens = journal.layout, prepared.tokens["test"]
    if config.cheap_baselines:
        release_freed_memory()  # that of training; n-grams need their own
        with journal.stage("cheap baselines"):
            cheap = {
                name: measure_cheap_baseline(name, splits, layout.predictions("test", name), progress)
                for name in cheap_baselines_for(splits.labels.task)
            }
    with journal.stage("evaluation"):
        began = time.perf_counter()
        finetuned = measure_test_rows(
            prepared, runtime, inputs["test"], layout, "finetuned", progress, calibration=calibration
        )
        seconds = time.perf_counter() - began
        speed = len(tokens) / seconds if inputs["test"] is tokens else _measure_speed(prepared, runtime)
        journal.update(texts_per_second=speed)
        predicted = Predicted(finetuned, baseline, cheap, calibration)
        metrics = build_metrics("test", splits.test, splits.labels, config, predicted)
        metrics.write(layout.metrics)
        write_atomic(layout.card, _render_card(journal.record, metrics))
    return predicted, metrics


def find_checkpoint(config: Config, layout: RunLayout, progress: Progress) -> Path | None:
    """Find the checkpoint to go on from; those of a method that cannot are removed.

    Args:
        config: The settings.
        layout: The run folder.
        progress: Told what is done.

    Returns:
        The checkpoint, or None.
    """
    from lorafit.training.callbacks import find_latest_checkpoint

    checkpoint, damaged = find_latest_checkpoint(layout.checkpoints)
    for path in damaged:
        progress.say(f"{path.name} is incomplete or altered and is passed over")
    method = find_method(config.method.name)
    if checkpoint is not None and "resume" in method.limits:
        progress.say(f"{method.title} cannot go on from a checkpoint: training begins anew")
        shutil.rmtree(layout.checkpoints)
        return None
    return checkpoint


def train_run(
    prepared: Prepared,
    inputs: "Mapping[str, ModelInputs]",
    journal: Journal,
    progress: Progress,
    *,
    resume_from: Path | None = None,
    expected_seconds: float | None = None,
    on_validation: "OnValidation | None" = None,
) -> None:
    """Train the model in place and write down what that cost.

    Args:
        prepared: Data and model.
        inputs: The texts by split.
        journal: Keeps the run's record.
        progress: Told what is done.
        resume_from: A complete checkpoint to go on from.
        expected_seconds: How long training will take, as far as that was foreseen.
        on_validation: Told what share of the steps is done and every validation result; what it raises ends training.
    """
    from lorafit.models.runtimes.pytorch import TorchRuntime
    from lorafit.training.inputs import TrainingRows
    from lorafit.training.targets import build_targets, fold_standard
    from lorafit.training.trainer import TrainingJob, fit

    runtime, splits = TorchRuntime(prepared.adapted.model, prepared.precision), prepared.splits
    standard, task = prepared.standard, prepared.labels.task
    job = TrainingJob(
        adapted=prepared.adapted,
        rows=TrainingRows(inputs["train"], build_targets(splits.train.labels, task, standard), prepared.pad_id),
        config=prepared.config.training,
        method=prepared.config.method,
        layout=journal.layout,
        precision=prepared.precision,
        validate=lambda: compute_validation(
            splits.validation, _compute_logits(prepared, runtime, inputs["validation"]), task, standard
        ),
        on_validation=on_validation,
        expected_seconds=expected_seconds,
    )
    with open_trackers(prepared.config, journal.layout, journal.record), journal.stage("training"):
        training = fit(job, progress=progress, resume_from=resume_from)
    fold_standard(prepared.adapted, standard)
    journal.update(training=training.model_copy(update={"seconds": journal.record.seconds["training"]}))


def measure_test_rows(
    prepared: Prepared,
    runtime: Runtime,
    texts: "ModelInputs",
    layout: RunLayout,
    model: Literal["baseline", "finetuned"],
    progress: Progress,
    *,
    calibration: Calibration | None = None,
) -> NDArray[np.float64]:
    """Predict the test rows and write what was said; a baseline that was written before is read.

    Args:
        prepared: Data and model.
        runtime: Runs the model.
        texts: The test texts.
        layout: The run folder.
        model: Which model it is.
        progress: Told what is done.
        calibration: How logits become confidence, or None.

    Returns:
        Probabilities, or numbers, of shape (n, outputs).
    """
    rows, path = prepared.splits.test, layout.predictions("test", model)
    kept = read_predictions(path, rows, prepared.labels) if model == "baseline" else None
    if kept is not None:
        return kept
    progress.start(f"measuring the {model} model", total=len(rows), unit="text")
    logits = _compute_logits(prepared, runtime, texts, progress)
    if model == "baseline":
        logits = prepared.standard.undo(logits)  # a head that has learned nothing knows no unit
    values = to_values(logits, prepared.labels, calibration)
    write_predictions(path, rows, prepared.labels, values)
    progress.finish()
    return values


def _render_card(record: RunRecord, metrics: Metrics) -> str:
    return (
        render_model_card(record, metrics) if isinstance(metrics, MetricsRecord) else render_task_card(record, metrics)
    )


def _measure_speed(prepared: Prepared, runtime: Runtime) -> float:
    """Time the whole model on batches from all over the test rows, after one to warm up; return texts a second."""
    tokens = prepared.tokens["test"]
    plan = plan_prediction(tokens.lengths)
    middles = ((np.arange(_TIMED_BATCHES) + 0.5) / _TIMED_BATCHES * len(plan)).astype(int)
    batches = [plan[batch] for batch in np.unique(middles)]
    runtime.logits(*tokens.pad(batches[0], prepared.pad_id))
    began = time.perf_counter()
    for rows in batches:
        runtime.logits(*tokens.pad(rows, prepared.pad_id))
    return sum(map(len, batches)) / (time.perf_counter() - began)


def measure_cheap_baseline(name: str, splits: Splits, path: Path, progress: Progress) -> NDArray[np.float64]:
    """Train a cheap baseline on the training rows, predict the test rows, and write what it said.

    Args:
        name: A key of `cheap_baselines_for` the task.
        splits: The rows.
        path: Where to write.
        progress: Told what is done.

    Returns:
        Probabilities, or numbers, of shape (test rows, outputs).
    """
    progress.start(f"training {cheap_baselines_for(splits.labels.task)[name]} to compare with")
    probabilities = predict_cheaply(name, splits.train, splits.test.texts, classes=len(splits.labels))
    write_predictions(path, splits.test, splits.labels, probabilities)
    progress.finish()
    return probabilities


def _compute_logits(
    prepared: Prepared, runtime: Runtime, inputs: Inputs, progress: Progress | None = None
) -> NDArray[np.float64]:
    return compute_logits(
        runtime,
        inputs,
        prepared.pad_id,
        classes=len(prepared.labels),
        on_progress=progress.update if progress else None,
    )


def save_run(prepared: Prepared, layout: RunLayout, calibration: Calibration | None = None) -> dict[str, str]:
    """Save what was trained and open it in a fresh process.

    Args:
        prepared: Data and model.
        layout: The run folder.
        calibration: How the trained model's logits become confidence, or None.

    Returns:
        SHA-256 of each file.
    """
    from lorafit.models.runtimes.pytorch import TorchRuntime

    predictor = _build_predictor(prepared, TorchRuntime(prepared.adapted.model, GOLDEN_PRECISION))
    return save_trained(
        prepared.adapted,
        prepared.encoder,
        layout,
        max_length=prepared.max_length,
        compute_logits=predictor.compute_logits,
        calibration=calibration,
    )


def write_mistakes(prepared: Prepared, layout: RunLayout, progress: Progress) -> None:
    """Find the words that the most confident mistakes among the test rows rest on, and write them down without texts.

    Args:
        prepared: Data and trained model.
        layout: The run folder, with the predictions of the test rows.
        progress: Told what is done.
    """
    rows = prepared.splits.test
    probabilities = read_predictions(layout.predictions("test", "finetuned"), rows, prepared.labels)
    if probabilities is not None:
        kept = layout.calibration if layout.calibration.is_file() else None
        calibration = read_calibration(kept, layout.root, prepared.labels.task)
        predictor = _build_predictor(prepared, build_measuring_runtime(prepared), calibration)
        explain_mistakes(predictor, rows, probabilities, progress).write(layout.mistakes)


def _build_predictor(prepared: Prepared, runtime: Runtime, calibration: Calibration | None = None) -> Predictor:
    tokenizer, pad_id = load_tokenizer(prepared.encoder.folder)
    return Predictor(
        runtime,
        tokenizer,
        pad_id=pad_id,
        labels=prepared.labels,
        truncation=Truncation(prepared.max_length, prepared.config.model.truncation),
        calibration=calibration,
    )
