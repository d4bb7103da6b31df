"""Measure a model on labelled rows."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from lorafit.config import EvaluationConfig, load_config
from lorafit.data.loading import EvaluationRows, load_evaluation_rows, load_splits
from lorafit.data.rows import Split
from lorafit.data.sources import identify_source, is_own_source
from lorafit.errors import DataError, LorafitError, RunError, UserInputError
from lorafit.inference.export.records import ExportLayout, ExportRecord
from lorafit.inference.loading import load
from lorafit.inference.predictor import Predictor
from lorafit.inference.typicality import MOST_ROWS, draw_rows
from lorafit.runs.agreement import check_task
from lorafit.runs.blends import uses_blend
from lorafit.runs.evidence import check_evidence, has_evidence, read_settings
from lorafit.runs.folder import RunLayout
from lorafit.runs.hub import locate_run
from lorafit.runs.lineage import describe_training_texts
from lorafit.runs.predictions import read_predictions
from lorafit.runs.records import RunRecord
from lorafit.system.notebook import progress_here
from lorafit.system.paths import AnyPath
from lorafit.system.progress import Progress
from lorafit.tasks.base import Array, Task
from lorafit.tasks.baselines import ENCODER
from lorafit.tasks.evaluation import cut_into_slices, score_models, score_slices
from lorafit.tasks.records import Calibration, MetricsRecord

_BEFORE: Final = "before"
"""No baseline has this name, which the file of predictions before training has."""


@dataclass(frozen=True)
class Predicted:
    """Values of several models for the same n rows, each of shape (n, labels).

    Attributes:
        after: The fine-tuned model's, calibrated where there is a calibration.
        before: The same model's before training, or None.
        baselines: Those of the baselines, by name.
        calibration: That of the fine-tuned model, or None.
    """

    after: Array
    before: Array | None = None
    baselines: Mapping[str, Array] = field(default_factory=dict)
    calibration: Calibration | None = None


def evaluate(
    run: AnyPath,
    data: str | None = None,
    *,
    flags: dict[str, Any] | None = None,
    blend: bool = True,
    progress: Progress | None = None,
) -> MetricsRecord:
    """Measure a trained run on its own test rows or on other data, or an exported model on data.

    Args:
        run: The run folder, or that of an exported model.
        data: A source as in `data.source`; None takes the run's own, whose test split is used.
        flags: Dotted settings that differ from the run's (for example `data.label_column`). With `data`, the run's
            `data.slice_columns` and `data.group_column` are left out unless they are given here.
        blend: Whether word models have a say, where the run keeps a blend.
        progress: Told how many texts are done.

    Returns:
        The scores with their intervals; of the run's own test rows those of the baselines, too, as far as they were
        kept, and of the encoder alone where the run is a blend.

    Raises:
        DataError: The run's own data have changed since training, so that its test rows are no longer known; or an
            export is to be measured on what it was trained on.
        UserInputError: An export comes without data.
    """
    folder, flags, progress = locate_run(run), dict(flags or {}), progress or progress_here()
    group_column = flags.pop("data.group_column", None)
    export = ExportLayout(folder)
    if export.record.is_file():
        return _evaluate_export(export, data, flags, group_column, progress, blend=blend)
    layout = RunLayout(folder)
    record = RunRecord.read(layout.record)
    slices = flags.get("data.slice_columns")
    if data is not None and slices is None:
        slices = []  # other data need not have the run's columns
    config = read_settings(layout, record, flags={**flags, "data.slice_columns": slices})
    predictor = load(
        layout.root,
        precision="fp32" if record.hardware.precision == "fp32" else "auto",
        target_accuracy=flags.get("evaluation.target_accuracy"),
        blend=blend,
    )
    task = record.build_task()
    check_task(config, record, layout)
    loaded = load_evaluation_rows(data or config.data.source, config.data, task, group_column=group_column)
    rows = loaded.split
    if data is None or is_own_source(data, config.data):
        _check_unchanged(rows, record)
    elif (note := describe_training_texts(layout, record, rows)) is not None:
        progress.say(note)
    values, features = _predict(predictor, loaded, progress)
    split = "test" if data is None else Path(data).name
    others = [*([ENCODER] if uses_blend(record, wanted=blend) else []), *task.baselines]
    baselines = {} if data is not None else _read_baselines(layout, record, rows, task, others)
    predicted = Predicted(values, baselines=baselines, calibration=predictor.calibration)
    metrics = build_metrics(split, rows, loaded.task, config.evaluation, predicted)
    seed, typicality = config.evaluation.seed, predictor.typicality
    if typicality is None or features is None or (known := _read_if_there(layout, record, progress)) is None:
        return metrics
    progress.start("reading calibration rows", total=min(len(known), MOST_ROWS), unit="text")
    known, looked_at = known.select(draw_rows(len(known), seed)), draw_rows(len(rows), seed)
    _, held_out = predictor.compute_features(known.texts, on_progress=progress.update)
    progress.finish()
    found = typicality.compare(held_out, features[looked_at], units=(known.unit_ids, rows.select(looked_at).unit_ids))
    return metrics.model_copy(update={"exchangeability": found})


def read_calibration_rows(layout: RunLayout, record: RunRecord) -> Split:
    """Read the calibration rows of a run again, and make sure that they are the same.

    Args:
        layout: The run folder.
        record: Its record.

    Returns:
        The rows.

    Raises:
        RunError: It had none, or its data have changed.
        DataError: The data cannot be read.
    """
    data, then = read_settings(layout, record).data, record.data.splits.get("calibration")
    splits = load_splits(data)
    if then is None or splits.calibration is None or splits.calibration.fingerprint() != then.fingerprint:
        raise RunError(
            f"The data of {layout.root} have changed since training, so its calibration rows are not known any more: "
            f"put {data.source} back as it was, or train again."
        )
    return splits.calibration


def _read_if_there(layout: RunLayout, record: RunRecord, progress: Progress) -> Split | None:
    """Return the calibration rows of a run, or say that they are not known any more and return None."""
    try:
        return read_calibration_rows(layout, record)
    except LorafitError as error:
        progress.say(f"it is not tested whether the rows are like the calibration rows: {error}")
        return None


def _evaluate_export(
    layout: ExportLayout,
    data: str | None,
    flags: dict[str, Any],
    group_column: str | None,
    progress: Progress,
    *,
    blend: bool,
) -> MetricsRecord:
    """Measure an exported model, which has no data and no settings of its own."""
    record = ExportRecord.read(layout.record)
    if data is None:
        raise UserInputError(
            f"{layout.root} is an exported model, which has no data of its own. Name labelled data:\n"
            f"  lorafit evaluate {shlex.quote(str(layout.root))} DATA"
        )
    pair = {"data.text_pair_column": "text_pair"} if record.pair else {}
    given = {name: value for name, value in flags.items() if value is not None}
    config = load_config(flags={"data.task": record.task, **pair, **given})
    predictor = load(layout.root, target_accuracy=given.get("evaluation.target_accuracy"), blend=blend)
    loaded = load_evaluation_rows(data, config.data, predictor.task, group_column=group_column)
    identity = identify_source(data)
    if identity in record.data.values() and loaded.split.fingerprint() != record.test_fingerprint:
        raise DataError(
            f"{data} is what the model was trained on, or chosen by, and which of its rows were not is not known here. "
            "Give a file with other labelled rows, or measure the run that was exported."
        )
    values, _ = _predict(predictor, loaded, progress)
    predicted = Predicted(values, calibration=predictor.calibration)
    return build_metrics(Path(data).name, loaded.split, loaded.task, config.evaluation, predicted)


def _predict(predictor: Predictor, loaded: EvaluationRows, progress: Progress) -> tuple[Array, Array | None]:
    """Return the values of labelled rows, with columns for labels that the model does not know, and their features.

    The latter are None of a model that does not know what typical texts are like.
    """
    for note in loaded.notes:
        progress.say(note)
    progress.start("measuring", total=len(loaded.split), unit="text")
    texts, task = loaded.split.texts, predictor.task
    features = None
    if predictor.typicality is None:
        logits = predictor.compute_logits(texts, on_progress=progress.update)
    else:
        logits, features = predictor.compute_features(texts, on_progress=progress.update)
    progress.finish()
    values = task.activate(logits, predictor.calibration)
    return task.extend_values(values, loaded.task), features


def _read_baselines(
    layout: RunLayout, record: RunRecord, rows: Split, task: Task, names: Iterable[str]
) -> dict[str, Array]:
    """Return what baselines predicted for the run's own test rows, as far as it was kept."""
    paths = {name: layout.predictions("test", name) for name in names}
    paths = {name: path for name, path in paths.items() if has_evidence(layout, record, path)}
    check_evidence(layout, record, *paths.values())
    kept = {name: read_predictions(path, rows, task) for name, path in paths.items()}
    return {name: values for name, values in kept.items() if values is not None}


def _check_unchanged(rows: Split, record: RunRecord) -> None:
    if rows.fingerprint() != record.data.splits["test"].fingerprint:
        raise DataError(
            f"{record.data.source} has changed since training, or is read with other settings: rows that were trained "
            "on could now be among the test rows. Give a file with other labelled rows: lorafit evaluate RUN DATA"
        )


def build_metrics(split: str, rows: Split, task: Task, config: EvaluationConfig, predicted: Predicted) -> MetricsRecord:
    """Score predictions, with intervals, and compare them with those of the other models.

    Args:
        split: Name of the split.
        rows: Its n rows.
        task: The task.
        config: Level and resampling of the intervals.
        predicted: The predictions.

    Returns:
        The record.
    """
    groups, after, before = rows.group_ids, predicted.after, predicted.before
    resampling = replace(config.resampling, groups=groups)
    slicings = list(cut_into_slices(rows.texts, rows.columns))
    others = {**({} if before is None else {_BEFORE: before}), **predicted.baselines}
    scores, compared = score_models(task, rows.y, after, others, resampling)
    untrained = compared.pop(_BEFORE, None)
    calibration = None
    if predicted.calibration is not None:
        calibration = task.calibration_scores(rows.y, after, predicted.calibration, resampling)
    return MetricsRecord(
        task=task.name,
        split=split,
        rows=len(rows),
        groups=None if groups is None else len(np.unique(groups)),
        confidence_level=resampling.level,
        bootstrap_samples=resampling.samples,
        before=None if untrained is None else untrained.scores,
        after=scores,
        comparison=None if untrained is None else untrained.comparison,
        baselines=compared,
        calibration=calibration,
        slices=score_slices(task, rows.y, after, before, slicings, resampling),
    )
