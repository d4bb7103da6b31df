"""Compare two runs, or exported models, on the same rows: what the second gets wrong that the first had right."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lorafit.config import EvaluationConfig, load_config
from lorafit.errors import ConfigError, RunError, UserInputError
from lorafit.experiments.diff.gates import judge_gates, parse_gates
from lorafit.experiments.diff.pairs import Pair, predict_test_rows, predict_with_both, read_both
from lorafit.experiments.diff.records import DiffRecord, DiffSide
from lorafit.experiments.diff.sides import OTHER_ROWS, ExportedSide, RunSide, Side, open_side, read_side_calibration
from lorafit.models.cache import name_table
from lorafit.runs.evidence import read_settings
from lorafit.system.extras import require
from lorafit.system.notebook import progress_here
from lorafit.system.paths import AnyPath
from lorafit.system.progress import Progress
from lorafit.tasks.base import Array, Task
from lorafit.tasks.evaluation import compare, compare_slices, cut_into_slices, describe_few, estimate
from lorafit.tasks.records import Calibration, Resampling, SliceComparison

LABEL_COLUMN: Final = "label"
"""Name under which slices by label stand."""


def diff(
    a: AnyPath,
    b: AnyPath,
    data: object = None,
    *,
    gate: str = "",
    flags: dict[str, Any] | None = None,
    blend: bool = True,
    progress: Progress | None = None,
) -> DiffRecord:
    """Compare two runs of one task on the same rows; all differences are B minus A.

    Args:
        a: The folder of the run, or of the exported model, that is compared with.
        b: The folder of the one that may take its place.
        data: A source as in `data.source`, or a table as `train` takes it, which both predict now; None takes what both
            predicted for their test rows when they ended, which then must be the same. An exported model predicts its
            run's test rows now.
        gate: Limits that the differences must keep, as `parse_gates` takes them. The record says whether each holds;
            `enforce_gates` raises where one does not.
        flags: Dotted settings that differ from those used (for example `data.label_column`). With `data`,
            `data.slice_columns` and `data.group_column` are left out unless they are given here.
        blend: Whether word models have a say in runs that keep a blend; else their encoders are compared.
        progress: Told what is going on; None for a bar in a notebook, and silence elsewhere.

    Returns:
        What changed. Columns of the data, and level, resamples and seed of the intervals, are those of A's settings;
        of B's where A is an exported model, which has none; the defaults where both are.

    Raises:
        ConfigError: A gate cannot be read, or is not one of the task; or test rows are to have other groups than those
            that they were cut by.
        RunError: A run is not finished, its files do not fit together, or the runs have different tasks or labels.
        DataError: The test rows are not the same, or a run was trained, or chosen and calibrated, on rows of `data`.
        UserInputError: Both are exported models and `data` is None.
        MissingExtraError: What compares is not installed; the message gives the pip line.
    """
    progress, flags = progress or progress_here(), dict(flags or {})
    group_column = flags.pop("data.group_column", None)
    first, second = open_side(a, blend=blend), open_side(b, blend=blend)
    task = _find_task(first, second)
    gates = parse_gates(gate, task)
    slices = flags.get("data.slice_columns")
    if data is not None and slices is None:
        slices = []  # other data need not have the run's columns
    source = None if data is None else name_table(data)
    run = next((side for side in (first, second) if isinstance(side, RunSide)), None)
    if run is None and data is None:
        raise UserInputError(f"Exported models hold no predictions of their test rows. {OTHER_ROWS}")
    require("scipy", extra="train", purpose="Comparing models")  # what runs an export does not bring it
    flags = {**flags, "data.slice_columns": slices, "data.task": task.name}
    config = load_config(flags=flags) if run is None else read_settings(run.layout, run.record, flags=flags)
    if source is not None:
        pair = predict_with_both(first, second, task, config, source, group_column, progress)
    elif group_column not in {None, config.data.group_column}:
        raise ConfigError(f"--group-column {group_column} is for other rows: lorafit diff A B DATA")
    elif isinstance(first, RunSide) and isinstance(second, RunSide):
        pair = read_both(first, second, task, config, needs_rows=bool(slices))
    else:
        pair = predict_test_rows(first, second, task, config, progress)
    record = _measure(first, second, pair, config.evaluation, progress)
    notes = [*pair.notes, *_list_notes(first, second, record)]
    return record.model_copy(update={"gates": judge_gates(gates, record), "notes": notes})


def _find_task(first: Side, second: Side) -> Task:
    """Return A's task, which B must have, too, with its labels in whatever order."""
    task, other = first.task, second.task
    if type(task) is not type(other):
        raise RunError(
            f"Runs can be compared only if they have the same task: {first.root} has {task.name}, {second.root} has "
            f"{other.name}."
        )
    if set(task.label_names) != set(other.label_names):
        raise RunError(
            f"Runs can be compared only if they have the same labels: {first.root} has {list(task.label_names)}, "
            f"{second.root} has {list(other.label_names)}."
        )
    return task


def _measure(first: Side, second: Side, pair: Pair, config: EvaluationConfig, progress: Progress) -> DiffRecord:
    """Measure what changes, without gates and notes."""
    task, models = pair.task, (pair.y, pair.before, pair.after)
    resampling = replace(config.resampling, groups=pair.groups)
    calibrations = read_side_calibration(first), read_side_calibration(second)
    slices = _compare_slices(pair, resampling, progress)
    progress.start("comparing")
    record = DiffRecord(
        task=task.name,
        source=pair.source,
        rows=len(pair.y),
        groups=None if pair.groups is None else len(np.unique(pair.groups)),
        labels=list(task.label_names),
        confidence_level=resampling.level,
        bootstrap_samples=resampling.samples,
        a=_measure_side(first, pair, pair.before, calibrations[0], resampling),
        b=_measure_side(second, pair, pair.after, calibrations[1], resampling),
        comparison=compare(task, *models, resampling),
        diff_metrics=task.measure_diff(*models, calibrations, resampling),
        slices=slices,
    )
    progress.finish()
    return record


def _measure_side(
    side: Side, pair: Pair, values: Array, calibration: Calibration | None, resampling: Resampling
) -> DiffSide:
    task = pair.task
    asked = {} if calibration is None else calibration.asked
    return DiffSide(
        run=str(side.root),
        exported=side.precision,
        engine=side.engine,
        method=side.record.method,
        base_model=side.record.base_model.name,
        parameters=side.record.parameters,
        texts_per_second=side.texts_per_second,
        scores=estimate(task, pair.y, values, resampling),
        metrics=task.measure_side(pair.y, values, calibration, resampling),
        asked={name: share for name, share in asked.items() if name in task.diff_metrics},
    )


def _compare_slices(pair: Pair, resampling: Resampling, progress: Progress) -> list[SliceComparison]:
    slices = list(_list_slices(pair))
    if not slices:
        return []
    progress.start("comparing slices", total=len(slices), unit="slice")
    models = (pair.before, pair.after)
    changes = compare_slices(pair.task, pair.y, models, slices, resampling, on_progress=progress.update)
    progress.finish()
    return changes


def _list_slices(pair: Pair) -> Iterator[tuple[str, str, NDArray[np.int64]]]:
    """Yield column, value and places of the rows of each slice: labels that a row has, then lengths, then columns."""
    marks = pair.task.mark_labels(pair.y)
    for name, has in zip(pair.task.label_names, marks.T, strict=False):  # a regression has no labels to tell apart
        if has.any():
            yield LABEL_COLUMN, name, np.flatnonzero(has)
    for slicing in () if pair.rows is None else cut_into_slices(pair.rows.texts, pair.rows.columns):
        for place, value in enumerate(slicing.values):
            yield slicing.column, value, np.flatnonzero(slicing.places == place)


def _list_notes(first: Side, second: Side, record: DiffRecord) -> Iterator[str]:
    if (few := describe_few(record.rows, record.groups)) is not None:
        yield f"{few}: the intervals are wide, and small differences cannot be seen."
    metrics = record.build_task().diff_metrics
    for name, asked in record.a.asked.items():
        if asked != (other := record.b.asked.get(name, asked)):
            yield (
                f"A was calibrated for a {metrics[name].title} of {100 * asked:g} %, B for {100 * other:g} %: what "
                "depends on it differs for that reason, too."
            )
    told = []
    for name, side in (("A", first), ("B", second)):
        if isinstance(side, ExportedSide) and side.texts_per_second is not None:
            yield f"The speed of {name} was measured when it was exported, on validation rows."
        if side.machine is not None:
            cpu, threads = side.machine
            precision = side.record.hardware.precision if isinstance(side, RunSide) else side.precision
            told.append((cpu, threads, f"{threads} {'thread' if threads == 1 else 'threads'}, {precision}"))
    is_alike = len({(cpu, threads) for cpu, threads, _ in told}) <= 1
    both_runs = isinstance(first, RunSide) and isinstance(second, RunSide)
    if len(told) == 2 and not (is_alike and (told[0] == told[1] or not both_runs)):
        a, b = (f"{cpu}, {rest}" for cpu, _, rest in told)
        yield f"Speeds were measured under different conditions: A on {a}; B on {b}."
