"""Repeat a run from its folder, and say whether it gives the same numbers."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydantic import Field

from lorafit.artifacts import FileRecord, Record, RunLayout, RunRecord
from lorafit.config import Config, load_config
from lorafit.data.sources import load_splits
from lorafit.difference.sides import Side, open_run, read_answers
from lorafit.encoders.load import locate_encoder
from lorafit.errors import NotReproducedError, RunError
from lorafit.evidence import MetricsRecord
from lorafit.finetune import BEFORE_CALIBRATION, precedes_calibration, train
from lorafit.labels import LabelSet
from lorafit.progress import Progress, Silent
from lorafit.run_folder import find_free_name

__all__ = [
    "ACCURACY_TOLERANCE",
    "LOG_LOSS_TOLERANCE",
    "Change",
    "RepeatedFigure",
    "ReproductionRecord",
    "enforce_reproduction",
    "reproduce",
]

ACCURACY_TOLERANCE = 0.002
LOG_LOSS_TOLERANCE = 0.01

_ROUNDING = 1e-12
"""A difference of two decimal fractions may be off by so much."""


class RepeatedFigure(Record):
    """A score of the fine-tuned model on the test rows, then and now.

    Attributes:
        name: `accuracy` or `log_loss`.
        then: In the run that is repeated.
        now: In the new one.
        tolerance: Largest difference at which both agree.
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
        run: The folder of the run that was repeated.
        repetition: The folder of the new one.
        agrees: Whether all figures do.
        identical: Whether every test probability is the same to the last digit.
        rows: Number of test rows.
        figures: Accuracy and log loss.
        largest_difference: Of a test row's probability of a class, 0 to 1.
        rows_changed: Test rows that get another label.
        changes: What differs of versions and machine.
    """

    run: str
    repetition: str
    agrees: bool
    identical: bool
    rows: int
    figures: list[RepeatedFigure]
    largest_difference: float
    rows_changed: int
    changes: list[Change] = Field(default_factory=list)


def reproduce(
    run: str | Path,
    *,
    output: str | Path | None = None,
    tolerance: float = ACCURACY_TOLERANCE,
    log_loss_tolerance: float = LOG_LOSS_TOLERANCE,
    progress: Progress | None = None,
) -> ReproductionRecord:
    """Train again with the settings of a run and compare the results.

    On the same machine with the same versions and threads, every number is the same to the last digit. Elsewhere sums
    are rounded in another order, and training carries that on.

    Args:
        run: The folder of a finished run.
        output: The folder of the new run; None takes a free name below `runs/`.
        tolerance: Largest difference of the accuracy, as a share of the test rows, at which both agree.
        log_loss_tolerance: The same of the log loss, in nats.
        progress: Told what is going on; None for silence.

    Returns:
        What agrees and what does not; `enforce_reproduction` raises where something does not.

    Raises:
        RunError: The run is not finished, its files do not fit together, or `output` is taken.
        NotReproducedError: The data, the base model, or seed, method or truncation in its config.yaml are not those of
            the run; nothing is trained. Other settings are not compared.
    """
    side, progress = open_run(run), progress or Silent()
    _check_output(output)
    labels = LabelSet(tuple(side.record.labels))
    answers, metrics = read_answers(side, labels), MetricsRecord.read(side.layout.metrics)
    config = load_config(side.layout.config)
    progress.start("comparing data, base model, seed, method and truncation with those of the run")
    _check_unchanged(side, config)
    progress.finish()
    again = train(config, output=output, progress=progress)
    other = read_answers(Side(layout=open_run(again.path).layout, record=again.record), labels)
    differences = np.abs(answers.probabilities - other.probabilities)
    limits = {"accuracy": tolerance, "log_loss": log_loss_tolerance}
    repeated = MetricsRecord.read(RunLayout(again.path).metrics)
    figures = [_compare_figure(name, limit, metrics, repeated) for name, limit in limits.items()]
    return ReproductionRecord(
        run=str(side.layout.root),
        repetition=str(again.path),
        agrees=all(figure.agrees for figure in figures),
        identical=not differences.any(),
        rows=len(answers.ids),
        figures=figures,
        largest_difference=float(differences.max()),
        rows_changed=int((answers.probabilities.argmax(axis=1) != other.probabilities.argmax(axis=1)).sum()),
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
        "training.seed": (record.seed, config.training.seed),
        "method.name": (record.method, config.method.name),
        "model.truncation": (record.truncation, config.model.truncation),
    }
    for name, (then, now) in settings.items():
        if then != now:
            yield f"config.yaml was altered: {name} is {now}, the run was made with {then}."
    splits = load_splits(config.data)
    parts = splits.by_name
    if list(splits.labels.names) != record.labels:
        yield f"The labels of {config.data.source} have changed: {list(splits.labels.names)}, were {record.labels}."
    changed = [
        name
        for name, split in record.data.splits.items()
        if name not in parts or parts[name].fingerprint() != split.fingerprint
    ]
    if changed and precedes_calibration(record, side.layout):
        yield f"The run {BEFORE_CALIBRATION}"
    elif changed:
        yield f"The data have changed: other rows in {', '.join(changed)} of {config.data.source} (fingerprints)."
    encoder = locate_encoder(config.model)
    if encoder.digest() != record.base_model.digest:
        yield f"The base model {encoder.name} has changed (SHA-256 of its weights)."


def _compare_figure(name: str, tolerance: float, then: MetricsRecord, now: MetricsRecord) -> RepeatedFigure:
    before, after = (getattr(metrics.finetuned, name).value for metrics in (then, now))
    agrees = abs(after - before) <= tolerance + _ROUNDING
    return RepeatedFigure(name=name, then=before, now=after, tolerance=tolerance, agrees=agrees)


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
