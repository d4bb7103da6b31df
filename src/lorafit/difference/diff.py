"""Compare two runs, or exported models, on the same rows: what the second gets wrong that the first had right."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorafit.config import Config, load_config
from lorafit.data.rows import Split
from lorafit.data.sources import is_same_source, load_evaluation_rows
from lorafit.difference.gates import judge_gates, parse_gates
from lorafit.difference.records import DiffRecord, DiffSide, SliceChange
from lorafit.difference.sides import Side, open_side, read_answers
from lorafit.errors import DataError, EnvironmentUnfitError, RunError, UserInputError
from lorafit.labels import LabelSet
from lorafit.loading import load
from lorafit.metrics.calibration import score_calibration
from lorafit.metrics.paired import adjust_p_values, estimate_flips, estimate_score_differences, measure_ece_difference
from lorafit.metrics.slices import tell_apart
from lorafit.metrics.uncertainty import compare_paired, estimate_scores
from lorafit.progress import Progress, Silent

__all__ = ["diff"]

_FEW_ROWS = 100
"""Below so many rows an interval of the accuracy is some ten points wide or more."""


@dataclass(frozen=True)
class _Pair:
    """What both runs say of the same n rows.

    Attributes:
        source: Where the rows come from.
        truth: Shape (n,), true class ids.
        first: Probabilities of A, shape (n, classes).
        second: Probabilities of B, same shape and order of classes.
        rows: The rows themselves, or None where they could not be had.
        notes: What a reader should know.
    """

    source: str
    truth: NDArray[np.int64]
    first: NDArray[np.float64]
    second: NDArray[np.float64]
    rows: Split | None
    notes: tuple[str, ...] = ()


def diff(
    a: str | Path,
    b: str | Path,
    data: str | None = None,
    *,
    gate: str = "",
    flags: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> DiffRecord:
    """Compare two runs on the same rows; all differences are B minus A.

    Args:
        a: The folder of the run, or of the exported model, that is compared with.
        b: The folder of the one that may take its place.
        data: A source as in `data.source`, which both predict now; None takes what both said of their test rows
            when they ended, which then must be the same. An exported model predicts its run's test rows now.
        gate: Limits that the differences must keep, as `parse_gates` takes them. The record says whether each holds;
            `enforce_gates` raises where one does not.
        flags: Dotted settings that differ from A's (for example `data.label_column`). With `data`, A's
            `data.slice_columns` are left out unless they are given here.
        progress: Told what is going on; None for silence.

    Returns:
        What changed. Level, resamples and seed of the intervals are those of A's settings, or of B's where A is an
        exported model, which has none.

    Raises:
        ConfigError: A gate cannot be read.
        RunError: A run is not finished, its files do not fit together, or the runs have different labels.
        DataError: The test rows are not the same, or a run was trained, or chosen and calibrated, on rows of `data`.
        UserInputError: Both are exported models and `data` is None.
    """
    gates, progress = parse_gates(gate), progress or Silent()
    first, second = open_side(a), open_side(b)
    labels = _find_labels(first, second)
    slices = (flags or {}).get("data.slice_columns")
    if data is not None and slices is None:
        slices = []  # other data need not have the run's columns
    run = next((side for side in (first, second) if not side.exported), None)
    if run is None and data is None:
        raise UserInputError(
            "Exported models do not hold what they said of their test rows. Give labelled rows that both then predict: "
            "lorafit diff A B DATA"
        )
    settings = None if run is None else run.layout.config
    config = load_config(settings, flags={**(flags or {}), "data.slice_columns": slices})
    if data is None and run is not None and (first.exported or second.exported):
        pair = _predict_again(first, second, run, labels, config, progress)
    elif data is None:
        pair = _read_both(first, second, labels, config, needs_rows=bool(slices))
    else:
        pair = _predict_both(first, second, labels, config, data, progress)
    progress.start("comparing")
    record = _measure(first, second, labels, config, pair)
    progress.finish()
    return record.model_copy(update={"gates": judge_gates(gates, record)})


def _find_labels(first: Side, second: Side) -> LabelSet:
    """Return A's labels, which B must have, too, in whatever order."""
    if set(first.record.labels) != set(second.record.labels):
        raise RunError(
            f"Runs can be compared only if they tell the same labels apart: {first.layout.root} has "
            f"{first.record.labels}, {second.layout.root} has {second.record.labels}."
        )
    return LabelSet(tuple(first.record.labels))


def _read_both(first: Side, second: Side, labels: LabelSet, config: Config, *, needs_rows: bool) -> _Pair:
    """Take what both said of their test rows when they ended; the rows themselves are read if they are still there."""
    _check_same_rows(first, second)
    answers, others = read_answers(first, labels), read_answers(second, labels)
    if answers.ids != others.ids or not np.array_equal(answers.truth, others.truth):
        raise RunError(
            f"The predictions in {first.layout.root} and {second.layout.root} are of different rows, though their test "
            "rows were the same: one was altered. Runs can be compared on rows that they predict now: "
            "lorafit diff A B DATA"
        )
    source = first.record.data.source
    try:
        rows = _find_rows(first, labels, config)
    except (UserInputError, EnvironmentUnfitError):
        if needs_rows:
            raise
        rows = None
    note = f"{source} cannot be read as it was: nothing is told by length of the text or by column."
    return _Pair(
        source, answers.truth, answers.probabilities, others.probabilities, rows, () if rows is not None else (note,)
    )


def _predict_again(first: Side, second: Side, run: Side, labels: LabelSet, config: Config, progress: Progress) -> _Pair:
    """Take what the run said of its test rows when it ended, and let the exported model predict them."""
    _check_same_rows(first, second)
    answers, rows = read_answers(run, labels), _find_rows(run, labels, config)
    if rows is None or answers.ids != tuple(rows.ids.tolist()):
        raise DataError(
            f"{run.record.data.source} has changed since training, so that the exported model cannot predict the test "
            "rows. Give labelled rows that both then predict: lorafit diff A B DATA"
        )
    told = [
        _predict(side, name, rows, labels, progress) if side.exported else answers.probabilities
        for name, side in (("A", first), ("B", second))
    ]
    return _Pair(run.record.data.source, answers.truth, told[0], told[1], rows)


def _check_same_rows(first: Side, second: Side) -> None:
    if first.test_fingerprint != second.test_fingerprint:
        raise DataError(
            f"{first.layout.root} and {second.layout.root} were measured on different test rows. Give labelled rows "
            "that neither was trained on, which both then predict: lorafit diff A B DATA"
        )


def _find_rows(side: Side, labels: LabelSet, config: Config) -> Split | None:
    """Read a run's test rows again, for their texts and columns; None where they have changed."""
    rows = load_evaluation_rows(config.data.source, config.data, labels)
    return rows if rows.fingerprint() == side.test_fingerprint else None


def _predict_both(first: Side, second: Side, labels: LabelSet, config: Config, data: str, progress: Progress) -> _Pair:
    """Let both predict other rows."""
    rows = load_evaluation_rows(data, config.data, labels)
    for side in (first, second):
        _check_unseen(side, rows, labels, data)
    return _Pair(
        source=data,
        truth=rows.labels,
        first=_predict(first, "A", rows, labels, progress),
        second=_predict(second, "B", rows, labels, progress),
        rows=rows,
    )


def _check_unseen(side: Side, rows: Split, labels: LabelSet, data: str) -> None:
    """Refuse a run's validation file, and rows of the source that it was trained on, but for its own test rows."""
    trained = side.record.data
    if trained.validation is not None and is_same_source(data, trained.validation):
        raise DataError(
            f"{data} is the validation file of {side.layout.root}: its rows chose and calibrated that model. Give a "
            "file with other labelled rows: lorafit diff A B DATA"
        )
    if not is_same_source(data, trained.source):
        return
    ids = LabelSet(tuple(side.record.labels)).label2id
    order = np.array([ids[name] for name in labels.names])
    if Split(rows.ids, rows.texts, order[rows.labels]).fingerprint() != side.test_fingerprint:
        raise DataError(
            f"{side.layout.root} was trained on {data}, and these rows are not its test rows: rows that it was trained "
            "on could be among them. Give a file with other labelled rows: lorafit diff A B DATA"
        )


def _predict(side: Side, name: str, rows: Split, labels: LabelSet, progress: Progress) -> NDArray[np.float64]:
    """Return what a run says of rows, columns in the order of `labels`."""
    is_fp32 = not side.exported and side.record.hardware.precision == "fp32"
    predictor = load(side.layout.root, precision="fp32" if is_fp32 else "auto")
    progress.start(f"measuring {name}", total=len(rows), unit="text")
    probabilities = predictor.predict_proba(rows.texts, on_progress=progress.update)
    progress.finish()
    return probabilities[:, [predictor.labels.index(label) for label in labels.names]]


def _measure(first: Side, second: Side, labels: LabelSet, config: Config, pair: _Pair) -> DiffRecord:
    settings: dict[str, Any] = {
        "confidence_level": config.evaluation.confidence_level,
        "samples": config.evaluation.bootstrap_samples,
        "seed": config.evaluation.seed,
    }
    models = (pair.truth, pair.first, pair.second)
    differences = estimate_score_differences(*models, **settings)
    flips = estimate_flips(*models, confidence_level=config.evaluation.confidence_level)
    return DiffRecord(
        source=pair.source,
        rows=len(pair.truth),
        labels=list(labels.names),
        confidence_level=config.evaluation.confidence_level,
        bootstrap_samples=config.evaluation.bootstrap_samples,
        a=_describe(first, labels, pair.truth, pair.first, settings),
        b=_describe(second, labels, pair.truth, pair.second, settings),
        comparison=compare_paired(*models, **settings),
        macro_f1_difference=differences["macro_f1"],
        mcc_difference=differences["mcc"],
        ece_difference=measure_ece_difference(*models),
        negative_flips=flips.negative,
        churn=flips.churn,
        slices=_compare_slices(pair, labels, settings),
        notes=[*pair.notes, *_notes(first, second, len(pair.truth))],
    )


def _describe(
    side: Side,
    labels: LabelSet,
    truth: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    settings: dict[str, Any],
) -> DiffSide:
    record = side.record
    return DiffSide(
        run=str(side.layout.root),
        exported=side.exported,
        method=record.method,
        base_model=record.base_model.name,
        parameters=record.parameters,
        texts_per_second=record.texts_per_second,
        scores=estimate_scores(truth, probabilities, labels.names, **settings),
        ece=score_calibration(truth, probabilities, **settings).ece,
    )


def _compare_slices(pair: _Pair, labels: LabelSet, settings: dict[str, Any]) -> list[SliceChange]:
    """Compare both on the rows of each class, length and value of a column."""
    changes = []
    for column, value, members in _list_slices(pair, labels):
        truth, *models = pair.truth[members], pair.first[members], pair.second[members]
        first, second = (float((values.argmax(axis=1) == truth).mean()) for values in models)
        paired = compare_paired(truth, *models, **settings)
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
    adjusted = adjust_p_values([change.comparison.mcnemar_p_value for change in changes])
    return [
        change.model_copy(update={"adjusted_p_value": p_value})
        for change, p_value in zip(changes, adjusted, strict=True)
    ]


def _list_slices(pair: _Pair, labels: LabelSet) -> Iterator[tuple[str, str, NDArray[np.int64]]]:
    """Yield column, value and row numbers of each slice that has rows."""
    for label in np.unique(pair.truth):
        yield "label", labels.names[label], np.flatnonzero(pair.truth == label)
    for slicing in tell_apart(pair.rows) if pair.rows is not None else ():
        for place, value in enumerate(slicing.values):
            yield slicing.column, value, np.flatnonzero(slicing.places == place)


def _notes(first: Side, second: Side, rows: int) -> Iterator[str]:
    if rows < _FEW_ROWS:
        yield f"{rows} rows are few: the intervals are wide, and small differences cannot be seen."
    for name, side in (("A", first), ("B", second)):
        if side.exported:
            yield f"The speed of {name} was measured when it was exported, on validation rows."
    machines = [
        (side.record.hardware.cpu, side.record.hardware.threads, side.record.hardware.precision)
        for side in (first, second)
    ]
    if machines[0] != machines[1] and not (first.exported or second.exported):
        told = [
            f"{cpu}, {threads} {'thread' if threads == 1 else 'threads'}, {precision}"
            for cpu, threads, precision in machines
        ]
        yield f"Speeds were measured on different machines: A on {told[0]}; B on {told[1]}."
