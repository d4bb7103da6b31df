"""Repeat a run from its folder, and say whether it gives the same numbers."""

import math
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import Field

from lorafit.config import Config
from lorafit.data.loading import load_splits
from lorafit.errors import NotReproducedError, RunError, UserInputError
from lorafit.experiments.diff.sides import RunSide, open_run, read_test_predictions
from lorafit.runs.bases import locate_base
from lorafit.runs.evidence import read_metrics
from lorafit.runs.folder import find_free_name
from lorafit.runs.records import RunRecord
from lorafit.system.notebook import progress_here
from lorafit.system.paths import AnyPath, expand_home
from lorafit.system.progress import Progress
from lorafit.system.records import FileRecord, Record
from lorafit.tasks.base import Task
from lorafit.tasks.registry import TaskName
from lorafit.training.pipeline import train

_ROUNDING: Final = 1e-12
"""A difference of two decimal fractions may be off by so much."""


class RepeatedMetric(Record):
    """A metric of the fine-tuned model on the test rows, then and now.

    Attributes:
        name: A key of `Task.reproduction_tolerances`.
        then: In the run that is repeated.
        now: In the new one.
        tolerance: Largest difference at which both agree, in the metric's own unit.
        agrees: Whether they do.
    """

    name: str
    then: float
    now: float
    tolerance: float
    agrees: bool


class Change(Record):
    """Something on which numbers can depend that is not what it was."""

    name: str
    then: str
    now: str


class ReproductionRecord(FileRecord):
    """A run and its repetition, on the same data and base model.

    Attributes:
        task: The task's name.
        run: The folder of the run that was repeated.
        repetition: The folder of the new one.
        agrees: Whether all metrics do.
        identical: Whether every value predicted for a test row is the same to the last digit.
        rows: Number of test rows.
        metrics: Those of `Task.reproduction_tolerances`.
        largest_difference: Of a value predicted for a test row: a probability, 0 to 1, or a number in its unit.
        rows_changed: Test rows with another prediction (`Task.same_prediction`); None where that is no question.
        changes: What differs of versions and machine.
    """

    task: TaskName
    run: str
    repetition: str
    agrees: bool
    identical: bool
    rows: int
    metrics: list[RepeatedMetric]
    largest_difference: float
    rows_changed: int | None
    changes: list[Change] = Field(default_factory=list)


def reproduce(
    run: AnyPath,
    *,
    output: str | Path | None = None,
    tolerance: float | None = None,
    tolerances: Mapping[str, float] | None = None,
    progress: Progress | None = None,
) -> ReproductionRecord:
    """Train again with the settings of a run and compare the results.

    On the same machine with the same versions and threads, every number is the same to the last digit. Elsewhere sums
    are rounded in another order, and training carries that on.

    Args:
        run: The folder of a finished run.
        output: The folder of the new run; None takes a free name below `runs/`.
        tolerance: Largest difference of the primary metric at which both agree: of shares 0 to 1; of a mean absolute
            error a share of the standard deviation of the test rows' true numbers, so that it depends neither on their
            unit nor on how small the error is, or where they do not differ a share of the error itself. None takes
            that of `Task.reproduction_tolerances`.
        tolerances: The same of other metrics by their names (`log_loss` in nats, `r2`); those left out are
            the task's own.
        progress: Told what is going on; None for a bar in a notebook, and silence elsewhere.

    Returns:
        What agrees and what does not; `enforce_reproduction` raises where something does not.

    Raises:
        RunError: The run is not finished, one of its files was altered, or `output` is taken.
        UserInputError: A tolerance of a metric that the run's task does not compare.
        NotReproducedError: The data or the base model are not those of the run; nothing is trained.
    """
    side, progress = open_run(run), progress or progress_here()
    _check_output(output)
    task = side.task
    leading = {} if tolerance is None else {task.primary: tolerance}
    limits = _choose_tolerances(task, {**leading, **(tolerances or {})})
    predictions, metrics = read_test_predictions(side, task), _read_metrics(side, task)
    config = side.config
    progress.start("comparing data and base model with those of the run")
    _check_unchanged(side, config)
    progress.finish()
    again = open_run(train(config, output=output, progress=progress).path)
    others, repeated = read_test_predictions(again, task), _read_metrics(again, task)
    limits = task.scale_tolerances(limits, predictions.y, metrics)
    compared = [_compare_metric(name, metrics[name], repeated[name], limit) for name, limit in limits.items()]
    differences = np.abs(predictions.values - others.values)
    same = task.same_prediction(predictions.values, others.values)
    return ReproductionRecord(
        task=task.name,
        run=str(side.root),
        repetition=str(again.root),
        agrees=all(metric.agrees for metric in compared),
        identical=not differences.any(),
        rows=len(differences),
        metrics=compared,
        largest_difference=float(differences.max()),
        rows_changed=None if same is None else int((~same).sum()),
        changes=list(_list_changes(side.record, again.record)),
    )


def enforce_reproduction(record: ReproductionRecord) -> None:
    """Let a repetition pass that agrees.

    Args:
        record: From `reproduce`.

    Raises:
        NotReproducedError: It does not; the message says in what.
    """
    if not record.agrees:
        listed = "".join(
            f"\n  {metric.name}: {metric.then:.6g} then, {metric.now:.6g} now; they may differ by {metric.tolerance:g}"
            for metric in record.metrics
            if not metric.agrees
        )
        raise NotReproducedError(f"{record.run} is not reproduced:{listed}")


def _check_output(output: str | Path | None) -> None:
    """Refuse a folder that is taken before anything is read; a repetition replaces nothing."""
    path = expand_home(output) if output is not None else None
    if path is not None and path.is_dir() and any(path.iterdir()):
        raise RunError(
            f"{output} already exists, and a repetition replaces nothing. Choose another, for example "
            f"--output {shlex.quote(str(find_free_name(path)))}."
        )


def _check_unchanged(side: RunSide, config: Config) -> None:
    """Refuse to repeat a run with something else than it was made with."""
    faults = list(_find_faults(side, config))
    if faults:
        listed = "".join(f"\n  {fault}" for fault in faults)
        raise NotReproducedError(f"{side.root} cannot be repeated, and nothing was trained:{listed}")


def _find_faults(side: RunSide, config: Config) -> Iterator[str]:
    record = side.record
    splits = load_splits(config.data)
    parts, labels = splits.by_name, list(splits.task.label_names)
    if labels != record.labels:
        yield f"The labels of {config.data.source} have changed: {labels}, were {record.labels}."
    changed = [
        name
        for name, split in record.data.splits.items()
        if name not in parts or parts[name].fingerprint() != split.fingerprint
    ]
    if changed:
        yield f"The data have changed: other rows in {', '.join(changed)} of {config.data.source} (fingerprints)."
    encoder = locate_base(config.model)
    if encoder.digest() != record.base_model.digest:
        yield f"The base model {encoder.name} has changed (SHA-256 of its weights)."


def _choose_tolerances(task: Task, given: Mapping[str, float]) -> dict[str, float]:
    """Put the tolerances of the metrics that a task compares together, the primary one first."""
    if strange := [name for name in given if name not in task.reproduction_tolerances]:
        others = (f"{name} (--{name.replace('_', '-')}-tolerance)" for name in list(task.reproduction_tolerances)[1:])
        raise UserInputError(
            f"A tolerance of {', '.join(strange)} cannot be kept: the task of the run is {task.name}, and what is "
            f"compared is {' and '.join((f'{task.primary} (--tolerance)', *others))}."
        )
    return {**task.reproduction_tolerances, **given}


def _read_metrics(side: RunSide, task: Task) -> dict[str, float]:
    """Read the metrics of the fine-tuned model that are compared."""
    metrics = read_metrics(side.layout, side.record).after.metrics
    if missing := [name for name in task.reproduction_tolerances if name not in metrics]:
        raise RunError(f"{side.layout.metrics} was altered: it does not hold {', '.join(missing)}.")
    return {name: metrics[name].value for name in task.reproduction_tolerances}


def _compare_metric(name: str, then: float, now: float, tolerance: float) -> RepeatedMetric:
    agrees = math.isnan(now) if math.isnan(then) else abs(now - then) <= tolerance + _ROUNDING
    return RepeatedMetric(name=name, then=then, now=now, tolerance=tolerance, agrees=agrees)


def _list_changes(then: RunRecord, now: RunRecord) -> Iterator[Change]:
    for name in dict.fromkeys((*then.versions, *now.versions)):
        before, after = then.versions.get(name, "none"), now.versions.get(name, "none")
        if before != after:
            yield Change(name=name, then=before, now=after)
    for name in ("cpu", "threads", "precision"):
        before, after = (str(getattr(record.hardware, name)) for record in (then, now))
        if before != after:
            yield Change(name=name, then=before, now=after)
    if then.encoder_blocks != now.encoder_blocks:
        yield Change(name="encoder blocks", then=then.encoder_blocks, now=now.encoder_blocks)
