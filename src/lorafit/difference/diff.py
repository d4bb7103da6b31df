"""Compare two runs, or exported models, on the same rows: what the second gets wrong that the first had right."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorafit.config import Config, load_config
from lorafit.data.rows import Split
from lorafit.data.sources import load_evaluation_rows
from lorafit.difference.gates import judge_gates, parse_gates
from lorafit.difference.records import DiffRecord, DiffSide, SliceChange
from lorafit.difference.sides import ExportedSide, Side, open_side, read_answers
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


_OTHER_ROWS = "Give labelled rows that both then predict: lorafit diff A B DATA"

_Form = Side | ExportedSide


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
        flags: Dotted settings that differ from those used (for example `data.label_column`). With `data`,
            `data.slice_columns` are left out unless they are given here.
        progress: Told what is going on; None for silence.

    Returns:
        What changed. Columns of the data, and level, resamples and seed of the intervals, are those of A's settings; of
        B's where A is an exported model, which has none; the defaults where both are.

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
    run = next((side for side in (first, second) if isinstance(side, Side)), None)
    if run is None and data is None:
        raise UserInputError(f"Exported models do not hold what they said of their test rows. {_OTHER_ROWS}")
    settings = None if run is None else run.layout.config
    config = load_config(settings, flags={**(flags or {}), "data.slice_columns": slices})
    if data is not None:
        pair = _predict_both(first, second, labels, config, data, progress)
    elif isinstance(first, Side) and isinstance(second, Side):
        pair = _read_both(first, second, labels, config, needs_rows=bool(slices))
    else:
        pair = _predict_again(first, second, labels, config, progress)
    progress.start("comparing")
    record = _measure(first, second, labels, config, pair)
    progress.finish()
    return record.model_copy(update={"gates": judge_gates(gates, record)})


def _find_labels(first: _Form, second: _Form) -> LabelSet:
    """Return A's labels, which B must have, too, in whatever order."""
    if set(first.labels) != set(second.labels):
        raise RunError(
            f"Runs can be compared only if they tell the same labels apart: {first.root} has "
            f"{first.labels}, {second.root} has {second.labels}."
        )
    return LabelSet(tuple(first.labels))


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


def _predict_again(first: _Form, second: _Form, labels: LabelSet, config: Config, progress: Progress) -> _Pair:
    """Take what the run said of its test rows when it ended, and let the exported model predict them."""
    _check_same_rows(first, second)
    run = next(side for side in (first, second) if isinstance(side, Side))
    try:
        answers, rows = read_answers(run, labels), _find_rows(run, labels, config)
    except (UserInputError, EnvironmentUnfitError) as error:
        raise DataError(f"The exported model cannot predict the run's test rows: {error} {_OTHER_ROWS}") from error
    if rows is None or answers.ids != tuple(rows.ids.tolist()):
        raise DataError(
            f"The exported model cannot predict the run's test rows: {run.record.data.source} has changed since "
            f"training. {_OTHER_ROWS}"
        )
    told = [
        answers.probabilities if isinstance(side, Side) else _predict(side, name, rows, labels, progress)
        for name, side in (("A", first), ("B", second))
    ]
    return _Pair(run.record.data.source, answers.truth, told[0], told[1], rows)


def _check_same_rows(first: _Form, second: _Form) -> None:
    if first.test_fingerprint != second.test_fingerprint:
        raise DataError(
            f"{first.root} and {second.root} were measured on different test rows. Give labelled rows "
            "that neither was trained on, which both then predict: lorafit diff A B DATA"
        )


def _find_rows(side: Side, labels: LabelSet, config: Config) -> Split | None:
    """Read a run's test rows again, for their texts and columns; None where they have changed."""
    rows = load_evaluation_rows(config.data.source, config.data, labels)
    return rows if rows.fingerprint() == side.test_fingerprint else None


def _predict_both(
    first: _Form, second: _Form, labels: LabelSet, config: Config, data: str, progress: Progress
) -> _Pair:
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


def _check_unseen(side: _Form, rows: Split, labels: LabelSet, data: str) -> None:
    """Refuse a run's validation file, and rows of the source that it was trained on, but for its own test rows."""
    if side.was_chosen_on(data):
        raise DataError(
            f"{data} is the validation file of {side.root}: its rows chose and calibrated that model. Give a "
            "file with other labelled rows: lorafit diff A B DATA"
        )
    if not side.was_trained_on(data):
        return
    ids = LabelSet(tuple(side.labels)).label2id
    order = np.array([ids[name] for name in labels.names])
    if Split(rows.ids, rows.texts, order[rows.labels]).fingerprint() != side.test_fingerprint:
        raise DataError(
            f"{side.root} was trained on {data}, and these rows are not its test rows: rows that it was trained "
            "on could be among them. Give a file with other labelled rows: lorafit diff A B DATA"
        )


def _predict(side: _Form, name: str, rows: Split, labels: LabelSet, progress: Progress) -> NDArray[np.float64]:
    """Return what one says of rows, columns in the order of `labels`."""
    is_fp32 = isinstance(side, Side) and side.record.hardware.precision == "fp32"
    predictor = load(side.root, precision="fp32" if is_fp32 else "auto")
    progress.start(f"measuring {name}", total=len(rows), unit="text")
    probabilities = predictor.predict_proba(rows.texts, on_progress=progress.update)
    progress.finish()
    return probabilities[:, [predictor.labels.index(label) for label in labels.names]]


def _measure(first: _Form, second: _Form, labels: LabelSet, config: Config, pair: _Pair) -> DiffRecord:
    settings = config.evaluation.resampling
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
    side: _Form,
    labels: LabelSet,
    truth: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    settings: dict[str, Any],
) -> DiffSide:
    record = side.record
    return DiffSide(
        run=str(side.root),
        exported=side.precision,
        method=record.method,
        base_model=record.base_model.name,
        parameters=record.parameters,
        texts_per_second=side.texts_per_second,
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


def _notes(first: _Form, second: _Form, rows: int) -> Iterator[str]:
    if rows < _FEW_ROWS:
        yield f"{rows} rows are few: the intervals are wide, and small differences cannot be seen."
    told = []
    for name, side in (("A", first), ("B", second)):
        if isinstance(side, ExportedSide) and side.texts_per_second is not None:
            yield f"The speed of {name} was measured when it was exported, on validation rows."
        if side.machine is not None:
            cpu, threads = side.machine
            precision = side.record.hardware.precision if isinstance(side, Side) else side.precision
            told.append((cpu, threads, f"{threads} {'thread' if threads == 1 else 'threads'}, {precision}"))
    is_alike = len({(cpu, threads) for cpu, threads, _ in told}) <= 1
    both_runs = isinstance(first, Side) and isinstance(second, Side)
    if len(told) == 2 and not (is_alike and (told[0] == told[1] or not both_runs)):
        a, b = (f"{cpu}, {rest}" for cpu, _, rest in told)
        yield f"Speeds were measured on different machines: A on {a}; B on {b}."
