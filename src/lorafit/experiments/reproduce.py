"""Repeat a run from its folder, and say whether it gives the same numbers."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lorafit.config import Config, load_config
from lorafit.data.sources import load_splits
from lorafit.errors import NotReproducedError, RunError, UserInputError
from lorafit.evidence import MetricsRecord
from lorafit.experiments.diff.sides import Answers, Side, open_run, read_answers
from lorafit.labels import Task
from lorafit.metrics.multi_label import decide
from lorafit.models.load import locate_encoder
from lorafit.runs.folder import find_free_name
from lorafit.runs.records import RunRecord
from lorafit.system.progress import Progress, Silent
from lorafit.system.records import FileRecord, Record
from lorafit.task_evidence import TaskMetricsRecord
from lorafit.training.pipeline import train

__all__ = [
    "TOLERANCES",
    "Change",
    "RepeatedFigure",
    "ReproductionRecord",
    "enforce_reproduction",
    "reproduce",
]

TOLERANCES: Final[dict[Task, dict[str, float]]] = {
    "single_label": {"accuracy": 0.002, "log_loss": 0.01},
    "multi_label": {"micro_f1": 0.002, "log_loss": 0.01},
    "regression": {"mae": 0.01, "r2": 0.01},
}
"""The figures that are compared, by task, and by how much they may differ unless another tolerance is given.

Shares of 1, and nats. That of `mae` is a share of the standard deviation of the test rows' true numbers, so that it
depends neither on their unit nor on how small the error is; where those numbers do not differ (one test row, say), it
is a share of the error of the run that is repeated.
"""

_ROUNDING = 1e-12
"""A difference of two decimal fractions may be off by so much."""


class RepeatedFigure(Record):
    """A score of the fine-tuned model on the test rows, then and now.

    Attributes:
        name: `accuracy` or `log_loss`; of several labels `micro_f1` or `log_loss`; of a number `mae` or `r2`.
        then: In the run that is repeated.
        now: In the new one.
        tolerance: Largest difference at which both agree; that of `mae` in the numbers' unit.
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
        task: What a text gets.
        run: The folder of the run that was repeated.
        repetition: The folder of the new one.
        agrees: Whether all figures do.
        identical: Whether every test probability, or number, is the same to the last digit.
        rows: Number of test rows.
        figures: Accuracy and log loss, or those of the task in their place.
        largest_difference: Of a test row's probability of a class, 0 to 1, or of its number, in its unit.
        rows_changed: Test rows that get another label, or other labels; None of numbers.
        changes: What differs of versions and machine.
    """

    task: Task = "single_label"
    run: str
    repetition: str
    agrees: bool
    identical: bool
    rows: int
    figures: list[RepeatedFigure]
    largest_difference: float
    rows_changed: int | None
    changes: list[Change] = Field(default_factory=list)


def reproduce(
    run: str | Path,
    *,
    output: str | Path | None = None,
    tolerance: float | None = None,
    log_loss_tolerance: float | None = None,
    r2_tolerance: float | None = None,
    progress: Progress | None = None,
) -> ReproductionRecord:
    """Train again with the settings of a run and compare the results.

    On the same machine with the same versions and threads, every number is the same to the last digit. Elsewhere sums
    are rounded in another order, and training carries that on.

    Args:
        run: The folder of a finished run.
        output: The folder of the new run; None takes a free name below `runs/`.
        tolerance: Largest difference at which both agree: of the accuracy, or of the micro F1 where a text has several
            labels, 0 to 1; where it has a number, of the mean absolute error, as a share of the standard deviation of
            the test rows' true numbers, or of the earlier error where those do not differ. None: `TOLERANCES`.
        log_loss_tolerance: The same of the log loss, in nats; not where a text has a number.
        r2_tolerance: The same of R², where a text has a number.
        progress: Told what is going on; None for silence.

    Returns:
        What agrees and what does not; `enforce_reproduction` raises where something does not.

    Raises:
        RunError: The run is not finished, its files do not fit together, or `output` is taken.
        UserInputError: A tolerance of a figure that the run's task does not have.
        NotReproducedError: The data, the base model, or task, seed, method or truncation in its config.yaml are not
            those of the run; nothing is trained. Other settings are not compared.
    """
    side, progress = open_run(run), progress or Silent()
    _check_output(output)
    given = {"log_loss": log_loss_tolerance, "r2": r2_tolerance}
    limits = _choose_tolerances(side.record.task, tolerance, given)
    answers, figures = read_answers(side, side.label_set), _read_figures(side)
    config = load_config(side.layout.config)
    progress.start("comparing data, base model, seed, method and truncation with those of the run")
    _check_unchanged(side, config)
    progress.finish()
    again = open_run(train(config, output=output, progress=progress).path)
    others, repeated = read_answers(again, side.label_set), _read_figures(again)
    if "mae" in limits:
        limits["mae"] *= _measure_unit(answers.truth, figures["mae"])
    compared = [_compare_figure(name, figures[name], repeated[name], limit) for name, limit in limits.items()]
    differences = np.abs(answers.values - others.values)
    return ReproductionRecord(
        task=side.record.task,
        run=str(side.root),
        repetition=str(again.root),
        agrees=all(figure.agrees for figure in compared),
        identical=not differences.any(),
        rows=len(answers.ids),
        figures=compared,
        largest_difference=float(differences.max()),
        rows_changed=_count_changed(answers, others, side.record.task),
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
            f"\n  {figure.name}: {figure.then:.6g} then, {figure.now:.6g} now; they may differ by {figure.tolerance:g}"
            for figure in record.figures
            if not figure.agrees
        )
        raise NotReproducedError(f"{record.run} is not reproduced:{listed}")


def _check_output(output: str | Path | None) -> None:
    """Refuse a folder that is taken before anything is read; a repetition replaces nothing."""
    path = Path(output).expanduser() if output is not None else None
    if path is not None and path.is_dir() and any(path.iterdir()):
        raise RunError(
            f"{output} already exists, and a repetition replaces nothing. Choose another --output, for example "
            f"{shlex.quote(str(find_free_name(path)))}."
        )


def _check_unchanged(side: Side, config: Config) -> None:
    """Refuse to repeat a run with something else than it was made with."""
    faults = list(_find_faults(side, config))
    if faults:
        listed = "".join(f"\n  {fault}" for fault in faults)
        raise NotReproducedError(f"{side.layout.root} cannot be repeated, and nothing was trained:{listed}")


def _find_faults(side: Side, config: Config) -> Iterator[str]:
    record = side.record
    settings = {
        "data.task": (record.task, config.data.task),
        "training.seed": (record.seed, config.training.seed),
        "method.name": (record.method, config.method.name),
        "model.truncation": (record.truncation, config.model.truncation),
    }
    for name, (then, now) in settings.items():
        if then != now:
            yield f"config.yaml was altered: {name} is {now}, the run was made with {then}."
    if config.data.task != record.task:
        return  # its data could not be read as those of another task
    splits = load_splits(config.data)
    parts = splits.by_name
    if list(splits.labels.names) != record.labels:
        yield f"The labels of {config.data.source} have changed: {list(splits.labels.names)}, were {record.labels}."
    changed = [
        name
        for name, split in record.data.splits.items()
        if name not in parts or parts[name].fingerprint() != split.fingerprint
    ]
    if changed:
        yield f"The data have changed: other rows in {', '.join(changed)} of {config.data.source} (fingerprints)."
    encoder = locate_encoder(config.model)
    if encoder.digest() != record.base_model.digest:
        yield f"The base model {encoder.name} has changed (SHA-256 of its weights)."


def _choose_tolerances(task: Task, leading: float | None, given: Mapping[str, float | None]) -> dict[str, float]:
    """Put the tolerances of a task's figures together, the leading one first."""
    limits = dict(TOLERANCES[task])
    for name, limit in {next(iter(limits)): leading, **given}.items():
        if limit is None:
            continue
        if name not in limits:
            raise UserInputError(
                f"--{name.replace('_', '-')}-tolerance cannot be kept: the task of the run is {task}, and what is "
                f"compared is {' and '.join(limits)}."
            )
        limits[name] = limit
    return limits


def _measure_unit(truth: NDArray[np.float64], error: float) -> float:
    """Return what the tolerance of an error is a share of, from the true numbers of the test rows, shape (n,)."""
    return float(truth.std()) if truth.min() < truth.max() else error


def _read_figures(side: Side) -> dict[str, float]:
    """Read the figures of the fine-tuned model that are compared."""
    path, task = side.layout.metrics, side.record.task
    if task == "single_label":
        scores = MetricsRecord.read(path).finetuned
        figures = {"accuracy": scores.accuracy, "log_loss": scores.log_loss}
    else:
        figures = TaskMetricsRecord.read(path).finetuned.figures
    if missing := [name for name in TOLERANCES[task] if name not in figures]:
        raise RunError(f"{path} was altered: it does not hold {', '.join(missing)}.")
    return {name: figures[name].value for name in TOLERANCES[task]}


def _count_changed(answers: Answers, others: Answers, task: Task) -> int | None:
    """Count the rows that get another label, or other labels."""
    if task == "regression":
        return None
    if task == "multi_label":
        return int((decide(answers.values) != decide(others.values)).any(axis=1).sum())
    return int((answers.values.argmax(axis=1) != others.values.argmax(axis=1)).sum())


def _compare_figure(name: str, then: float, now: float, tolerance: float) -> RepeatedFigure:
    agrees = abs(now - then) <= tolerance + _ROUNDING
    return RepeatedFigure(name=name, then=then, now=now, tolerance=tolerance, agrees=agrees)


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
