"""From a source to checked splits, and to rows that a trained model is measured on."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from lorafit.config import VALIDATION_FRACTION, DataConfig
from lorafit.data.checks import CheckedRows, check_rows, describe_unknown_labels, encode_rows, read_value
from lorafit.data.corrections import apply_corrections, read_corrections
from lorafit.data.rare_labels import find_rare_labels, refuse_or_treat
from lorafit.data.rows import RawRows, RawSplits, Split, Splits
from lorafit.data.sources import is_file, is_own_source, name_source, read_rows, read_splits
from lorafit.data.splits import count_shared_texts, cut_split, read_times, sample_rows
from lorafit.errors import ConfigError, DataError, DoubtfulDataError
from lorafit.system.paths import expand_home
from lorafit.tasks.base import Task
from lorafit.tasks.labels import LabelReading
from lorafit.tasks.registry import get_task

FEW_ROWS: Final = 400
"""With fewer rows for training and validation together, none are set aside: all train, and cross-fitting calibrates.

Half of their tenth would be fewer than `FEWEST_CALIBRATION_ROWS`, as it may be of up to twice as many in many strata.
"""

CROSS_FITTING_FOLDS: Final = 5
"""Trainings that give every training row an out-of-fold prediction where no rows are set aside."""

FEWEST_CALIBRATION_ROWS: Final = 20


@dataclass(frozen=True)
class EvaluationRows:
    """Rows to score with a trained model.

    Attributes:
        split: The rows, encoded by `task`.
        task: That of the model; with `bad_rows: keep` it has the labels, too, that the model does not know.
        notes: What a user should know: how the rows were read, what was left out.
    """

    split: Split
    task: Task
    notes: tuple[str, ...] = ()


def load_splits(config: DataConfig) -> Splits:
    """Load the data of a run.

    Labels come from the source where it fixes them, else from the training rows. What the source lacks is cut from
    train: first test, then validation.

    Args:
        config: The source and how to split it.

    Returns:
        Train, validation and test rows, repeatable from the same settings.

    Raises:
        DataError: The source is unknown, cannot be read, or its rows cannot be used; see `check_rows`.
        DoubtfulDataError: The labels are probably not those that are meant.
        ConfigError: `bad_rows` is `keep`, which is for predictions and evaluations.
        MissingCarrierError: A built-in source is not installed.
        NetworkUnavailableError: The Hub is needed and cannot be reached.
        MissingExtraError: A library that the source needs is not installed.
    """
    if config.bad_rows == "keep":
        raise ConfigError(
            "--bad-rows keep is for lorafit predict and evaluate: nothing can be learned from bad rows. Leave them out "
            "of training with --bad-rows drop."
        )
    raw = read_splits(config)
    checked, task = _check_splits(raw, config)
    notes = [*raw.notes, *(note for rows in checked.values() for note in rows.notes)]
    if raw.label_names is not None and (absent := [name for name in raw.label_names if name not in task.label_names]):
        notes.append(f"{raw.train.origin}: no rows of the labels {absent}; they are left out.")
    renamed: dict[str, str] = {}
    parts = _count_parts(checked, config)
    if len(checked) < 3:
        checked, renamed = refuse_or_treat(checked, task, config.rare_labels, parts, notes)
        if config.rare_labels not in {"stop", "keep"}:
            task = _build_task(checked["train"], raw.label_names, config)
            checked = {name: _drop_unknown(rows, task, notes) for name, rows in checked.items()}
    encoded = {name: _encode(rows, task, config, notes) for name, rows in checked.items()}
    train, test, validation = encoded["train"], encoded.get("test"), encoded.get("validation")
    notes.append(f"labels: {task.describe_counts(train.y)}")
    if test is None:
        train, test = _cut(train, "test", parts, config, task, notes)
    notes += _describe_shared(train, test, "test")
    if validation is None:
        train, validation = _cut_validation(train, config, task, notes)
    notes += _describe_shared(train, validation, "validation")
    notes += _describe_shared(validation, test, "test", "validation")
    validation, calibration = _cut_calibration(validation, config, task, notes)
    train = _sample(train, config, task, notes)
    task.check_trainable(train.y, checked["train"].origin)
    left_out = tuple((rows.origin, *fault) for rows in checked.values() for fault in rows.left_out)
    source = name_source(config.source)
    return Splits(source, task, train, validation, test, tuple(notes), calibration, left_out, renamed)


def split_rows(rows: Split, task: Task, config: DataConfig, *, source: str) -> Splits:
    """Split rows that are at hand and checked, none of which are to measure the model.

    Args:
        rows: The rows.
        task: The task.
        config: How to cut validation and calibration rows.
        source: What the rows are called.

    Returns:
        The splits, without test rows.

    Raises:
        DataError: The rows cannot be cut, or there is nothing to learn from them.
    """
    notes: list[str] = []
    train, validation = _cut_validation(rows, config, task, notes)
    validation, calibration = _cut_calibration(validation, config, task, notes)
    train = _sample(train, config, task, notes)
    task.check_trainable(train.y, source)
    return Splits(source, task, train, validation, rows.select(np.arange(0)), tuple(notes), calibration)


def calibrates_out_of_fold(config: DataConfig, *, train: int, validation: int) -> bool:
    """Tell whether training rows calibrate out of fold: no rows are set aside, and so many rows train."""
    return not validation and config.calibration_fraction > 0 and train >= FEWEST_CALIBRATION_ROWS


def load_evaluation_rows(
    source: str,
    config: DataConfig,
    task: Task,
    *,
    split: Literal["train", "validation", "test"] = "test",
    group_column: str | None = None,
) -> EvaluationRows:
    """Load rows to score with a trained model.

    Args:
        source: The run's own source, of which `split` is taken (so no row that it was trained on, even where the
            source is one file), a named source or Hub data set, of which `split` is taken, or another file, of which
            all rows are.
        config: The run's data settings. They split the run's own source again as it was split for training.
        task: The task of the model, with its labels.
        split: Which split; one that another source than the run's does not have is cut from its train.
        group_column: Column of another source whose values say which rows belong together; the run's own rows have the
            groups that they were cut by.

    Returns:
        The rows. Those with labels that the model does not know are refused, left out (`bad_rows: drop`) or kept.

    Raises:
        DataError: The source cannot be read, its rows cannot be used, or it has labels that the model does not know.
        ConfigError: The run's own rows are to have other groups, or `bad_rows: keep` does not fit them.
        MissingCarrierError: A built-in source is not installed.
        NetworkUnavailableError: The Hub is needed and cannot be reached.
        MissingExtraError: A library that the source needs is not installed.
    """
    own = is_own_source(source, config)
    if own and config.bad_rows == "keep" and config.test is not None:
        raise ConfigError(
            "--bad-rows keep needs the file by its name, since the run's own test rows are those that it can measure: "
            f"lorafit evaluate RUN {shlex.quote(config.test)} --bad-rows keep"
        )
    if own and group_column not in {None, config.group_column}:
        raise ConfigError(
            f"--group-column {group_column} is for other data than the run's own, whose rows were cut by "
            f"{'groups of ' + config.group_column if config.group_column else 'no groups'}, and are measured as they "
            "were cut. Leave it out."
        )
    own_column, config = config.group_column, config if own else config.for_source(source, group_column=group_column)
    if is_file(source) and not own:
        rows = _check(read_rows(source, config), config, known=task.label_names)
    else:
        bad_rows = "stop" if config.bad_rows == "stop" else "drop"
        splits = load_splits(config.model_copy(update={"bad_rows": bad_rows}))
        part: Split = getattr(splits, split)
        labels = splits.task.decode(part.y)
        rows = CheckedRows(f"{source} {split}", part.ids, part.texts, labels, columns=part.columns, groups=part.groups)
    notes = list(rows.notes)
    if not own and rows.groups is not None:
        groups = len(set(rows.groups) - {""})
        notes.append(f"{rows.origin}: intervals are those of whole groups ({groups:,} values of {group_column}).")
    elif not own and own_column is not None:
        notes.append(
            f"{rows.origin}: intervals take rows as independent. Where they come in groups, as the run's own do "
            f"({own_column}), name the column with --group-column."
        )
    if config.bad_rows == "keep" and (unknown := describe_unknown_labels(rows, task)):
        names = sorted(set().union(*map(task.unknown_names, rows.labels)))
        notes.append(f"{rows.origin}: {unknown}: they count as wrong.")
        task = task.extend(names)
    return EvaluationRows(_encode(rows, task, config, notes), task, tuple(notes))


def load_source_rows(config: DataConfig, task: Task | None = None) -> tuple[Task, dict[str, Split], tuple[str, ...]]:
    """Load all rows of a source by the splits that it has, before any is cut off.

    Args:
        config: The source. How it is cut, sampled, and what becomes of rare labels plays no part.
        task: The task that encodes the rows; None for one with the labels of all of them.

    Returns:
        The task, the rows by split, and what a user should know.

    Raises:
        DataError: As `load_splits` does.
    """
    raw = read_splits(config)
    checked, _ = _check_splits(raw, config)
    if task is None:
        labels = [label for rows in checked.values() for label in rows.labels]
        task = get_task(config.task).from_labels(labels, raw.train.origin)
    notes = [*raw.notes, *(note for rows in checked.values() for note in rows.notes)]
    parts = {name: _encode(rows, task, config, notes) for name, rows in checked.items()}
    return task, parts, tuple(notes)


def build_reading(config: DataConfig, known: Sequence[str] = ()) -> LabelReading:
    """Return how label cells are read.

    Args:
        config: The settings of the data.
        known: Labels that there are already.

    Returns:
        What `Task.read_labels` takes.
    """
    return LabelReading(
        separator=config.label_separator,
        names=tuple(config.label_columns),
        missing=config.missing_label,
        merge_spellings=config.merge_spellings,
        known=tuple(known),
    )


def _check_splits(raw: RawSplits, config: DataConfig) -> tuple[dict[str, CheckedRows], Task]:
    """Check the rows of all splits and correct their labels; return them and the task with the labels of train."""
    corrections = None if config.corrections is None else read_corrections(expand_home(config.corrections))
    if corrections is not None:
        corrections.check_splits(list(raw.by_name))

    def check(name: str, known: Sequence[str] = ()) -> CheckedRows:
        rows = _check(raw.by_name[name], config, known=known)
        if corrections is None:
            return rows
        return apply_corrections(rows, corrections, name, get_task(config.task), build_reading(config, known))

    checked = {"train": check("train")}
    task = _build_task(checked["train"], raw.label_names, config)
    return checked | {name: check(name, task.label_names) for name in raw.by_name if name != "train"}, task


def _check(raw: RawRows, config: DataConfig, *, known: Sequence[str] = ()) -> CheckedRows:
    """Check rows; doubtful labels are refused unless they were accepted."""
    reading = build_reading(config, known)
    raw = replace(raw, faults={**_find_bad_times(raw), **raw.faults})
    rows = check_rows(raw, get_task(config.task), reading, drop_bad_rows=config.bad_rows != "stop")
    if rows.doubts and not config.accept_labels and not known:
        raise DoubtfulDataError(
            f"{raw.origin}: {' '.join(rows.doubts)} If these are the labels, say so with --accept-labels.",
            setting="data.accept_labels",
        )
    return replace(rows, notes=(*rows.notes, *rows.doubts)).rename(get_task(config.task), config.rename_labels)


def _find_bad_times(raw: RawRows) -> dict[int, str]:
    """Return the rows whose time cannot be read, by their place."""
    if raw.times is None:
        return {}
    texts = [read_value(time) for time in raw.times]
    fault = "a time that is neither a number nor a date such as 2026-11-29 (ISO 8601)"
    moments = read_times(texts)
    return {place: fault if texts[place] else "no time" for place in np.flatnonzero(np.isnan(moments)).tolist()}


def _build_task(rows: CheckedRows, published: Sequence[str] | None, config: DataConfig) -> Task:
    """Build the task from the training rows; names that the source publishes come first, in its order."""
    task = get_task(config.task).from_labels(rows.labels, rows.origin)
    if published is None:
        return task
    return task.reorder([*published, *(name for name in task.label_names if name not in published)])[0]


def _drop_unknown(rows: CheckedRows, task: Task, notes: list[str]) -> CheckedRows:
    """Leave out rows with labels that are not the task's."""
    if unknown := describe_unknown_labels(rows, task):
        notes.append(f"{rows.origin}: left out {unknown}.")
        return rows.select([not task.unknown_names(label) for label in rows.labels])
    return rows


def _encode(rows: CheckedRows, task: Task, config: DataConfig, notes: list[str]) -> Split:
    """Encode rows; those with labels that are not the task's are left out where bad rows are."""
    if config.bad_rows == "stop":
        return encode_rows(rows, task)
    kept = _drop_unknown(rows, task, notes)
    if not len(kept.ids):
        encode_rows(rows, task)  # which refuses them all
    return encode_rows(kept, task)


def _count_parts(checked: Mapping[str, CheckedRows], config: DataConfig) -> int:
    """Return into how many splits the rows of train are cut, itself included, as far as their number tells it."""
    parts = 4 - len(checked)
    if "validation" not in checked and len(checked["train"].ids) < FEW_ROWS and _may_set_none_aside(config):
        parts -= 1
    return parts


def _may_set_none_aside(config: DataConfig) -> bool:
    """Tell whether all rows may train. Rows that are cut by time may not: what came later is not known from folds."""
    return config.validation_fraction == 0 or (config.validation_fraction is None and config.time_column is None)


def _cut_validation(train: Split, config: DataConfig, task: Task, notes: list[str]) -> tuple[Split, Split]:
    """Cut validation rows off train, or none of them where they are to be few, or too few to calibrate with some."""
    must = not _may_set_none_aside(config)
    if must or (config.validation_fraction is None and len(train) >= FEW_ROWS):
        told: list[str] = []
        rest, validation = _cut(train, "validation", 2, config, task, told)
        is_settled = must or config.calibration_fraction == 0 or len(train) >= 2 * FEW_ROWS
        if is_settled or _cut_calibration(validation, config, task, [])[1] is not None:
            notes += told
            return rest, validation
    notes.append(f"validation: no rows are set aside, all {len(train):,} train (data.validation_fraction).")
    return train, train.select(np.arange(0))


def _cut(
    train: Split, name: Literal["test", "validation"], parts: int, config: DataConfig, task: Task, notes: list[str]
) -> tuple[Split, Split]:
    """Cut a split off train, which must leave rows in both; `parts` are to come of it, this one included."""
    fraction = config.test_fraction
    if name == "validation":
        fraction = VALIDATION_FRACTION if config.validation_fraction is None else config.validation_fraction
    keep = find_rare_labels(train, parts, task).rows if config.rare_labels == "keep" else None
    rest, part = cut_split(train, fraction, config.seed, task, keep=keep)
    if not len(part) or not len(rest):
        unit = f"different values of {config.group_column}" if config.group_column else "different texts"
        raise DataError(
            f"No {name} rows can be cut from the {len(train):,} rows of train: it takes at least two {unit} of a "
            f"{task.wording.stratum}. Add rows, or give a file of {name} rows with --{name}."
        )
    how = f"{fraction:.0%} of each {task.wording.stratum}, seed {config.seed}"
    if config.time_column is not None:
        how = f"the latest {fraction:.0%} by {config.time_column}"
    elif config.group_column is not None:
        how += f", each {config.group_column} on one side"
    notes.append(f"{name}: {len(part):,} rows cut from train ({how}).")
    return rest, part


def _describe_shared(first: Split, other: Split, name: str, first_name: str = "train") -> list[str]:
    notes = []
    if shared := count_shared_texts(first, other):
        notes.append(f"{name}: {shared:,} of its texts are in {first_name}, too, character for character.")
    if first.groups is not None and other.groups is not None:
        groups = len(set(first.groups) & set(other.groups) - {""})
        if groups:
            notes.append(f"{name}: {groups:,} of its groups are in {first_name}, too.")
    return notes


def _cut_calibration(validation: Split, config: DataConfig, task: Task, notes: list[str]) -> tuple[Split, Split | None]:
    """Cut off the rows that calibrate; where there are too few, all of them choose and nothing is calibrated."""
    if config.calibration_fraction == 0 or not len(validation):
        return validation, None
    rest, calibration = cut_split(validation, config.calibration_fraction, config.seed, task)
    if len(calibration) < FEWEST_CALIBRATION_ROWS or not len(rest) or len(np.unique(calibration.y, axis=0)) < 2:
        notes.append(
            f"validation: {len(validation):,} rows are too few to calibrate with some of them; predictions stay as "
            "the model gives them."
        )
        return validation, None
    notes.append(
        f"calibration: {len(calibration):,} of the validation rows fit the {task.wording.calibrates} and choose "
        f"no checkpoint (data.calibration_fraction={config.calibration_fraction:g}, seed {config.seed})."
    )
    return rest, calibration


def _sample(train: Split, config: DataConfig, task: Task, notes: list[str]) -> Split:
    if config.max_rows is None or config.max_rows >= len(train):
        return train
    notes.append(f"train: {config.max_rows:,} of {len(train):,} rows drawn (data.max_rows, seed {config.seed}).")
    return sample_rows(train, config.max_rows, config.seed, task)
