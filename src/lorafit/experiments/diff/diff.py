"""Compare two runs, or exported models, on the same rows: what the second gets wrong that the first had right."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lorafit.config import load_config
from lorafit.errors import RunError, UserInputError
from lorafit.experiments.diff.gates import judge_gates, parse_gates
from lorafit.experiments.diff.measuring import measure
from lorafit.experiments.diff.pairs import OTHER_ROWS, predict_test_rows, predict_with_both, read_both
from lorafit.experiments.diff.records import DiffRecord, TaskDiffRecord, TaskDiffSide
from lorafit.experiments.diff.sides import AnySide, ExportedSide, Side, open_side
from lorafit.labels import LabelSet
from lorafit.system.progress import Progress, Silent

__all__ = ["diff"]

_FEW_ROWS = 100
"""Below so many rows an interval of the accuracy is some ten points wide or more."""


def diff(
    a: str | Path,
    b: str | Path,
    data: str | None = None,
    *,
    gate: str = "",
    flags: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> DiffRecord | TaskDiffRecord:
    """Compare two runs of one task on the same rows; all differences are B minus A.

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
        What changed, by task: a `DiffRecord` of one label a text, a `TaskDiffRecord` of several, or of a number.
        Columns of the data, and level, resamples and seed of the intervals, are those of A's settings; of B's where A
        is an exported model, which has none; the defaults where both are.

    Raises:
        ConfigError: A gate cannot be read, or is not one of the task.
        RunError: A run is not finished, its files do not fit together, or the runs have different tasks or labels.
        DataError: The test rows are not the same, or a run was trained, or chosen and calibrated, on rows of `data`.
        UserInputError: Both are exported models and `data` is None.
    """
    progress = progress or Silent()
    first, second = open_side(a), open_side(b)
    labels = _find_labels(first, second)
    gates = parse_gates(gate, labels.task)
    slices = (flags or {}).get("data.slice_columns")
    if data is not None and slices is None:
        slices = []  # other data need not have the run's columns
    run = next((side for side in (first, second) if isinstance(side, Side)), None)
    if run is None and data is None:
        raise UserInputError(f"Exported models do not hold what they said of their test rows. {OTHER_ROWS}")
    settings = None if run is None else run.layout.config
    config = load_config(settings, flags={**(flags or {}), "data.slice_columns": slices, "data.task": labels.task})
    if data is not None:
        pair = predict_with_both(first, second, labels, config, data, progress)
    elif isinstance(first, Side) and isinstance(second, Side):
        pair = read_both(first, second, labels, config, needs_rows=bool(slices))
    else:
        pair = predict_test_rows(first, second, labels, config, progress)
    record = measure(first, second, pair, config.evaluation, progress)
    notes = [*pair.notes, *_list_notes(first, second, record)]
    return record.model_copy(update={"gates": judge_gates(gates, record), "notes": notes})


def _find_labels(first: AnySide, second: AnySide) -> LabelSet:
    """Return A's task and labels, which B must have, too, the labels in whatever order."""
    labels, others = first.label_set, second.label_set
    if labels.task != others.task:
        raise RunError(
            f"Runs can be compared only if they have the same task: {first.root} has {labels.task}, {second.root} has "
            f"{others.task}."
        )
    if set(labels.names) != set(others.names):
        raise RunError(
            f"Runs can be compared only if they tell the same labels apart: {first.root} has "
            f"{list(labels.names)}, {second.root} has {list(others.names)}."
        )
    return labels


def _list_notes(first: AnySide, second: AnySide, record: DiffRecord | TaskDiffRecord) -> Iterator[str]:
    if record.rows < _FEW_ROWS:
        yield f"{record.rows} rows are few: the intervals are wide, and small differences cannot be seen."
    asked = [side.coverage_asked for side in (record.a, record.b) if isinstance(side, TaskDiffSide)]
    told_of_both = [share for share in asked if share is not None]
    if len(set(told_of_both)) == 2:
        a, b = (f"{100 * share:g} %" for share in told_of_both)
        yield (
            f"A was asked for intervals that hold the true number of {a} of the rows, B for {b}: their coverage and "
            "width differ for that reason, too."
        )
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
