"""From the name of a source to checked splits: the one entry to the data."""

import difflib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from lorafit.config import DataConfig
from lorafit.data.builtin import BUILTIN_SOURCES
from lorafit.data.checks import CheckedRows, check_rows, encode_rows
from lorafit.data.hub import load_hub
from lorafit.data.imdb import load_imdb
from lorafit.data.rows import RawRows, RawSplits, Split, Splits
from lorafit.data.splits import check_distinct_texts, count_shared_texts, cut_split, sample_rows
from lorafit.data.tables import READABLE_SUFFIXES, check_columns, read_table
from lorafit.errors import DataError
from lorafit.system.atomic import compute_digest
from lorafit.tasks.base import Task
from lorafit.tasks.evaluation import LENGTH_COLUMN
from lorafit.tasks.labels import LabelReading
from lorafit.tasks.registry import get_task

_FEWEST_CALIBRATION_ROWS = 20

NAMED_SOURCES = (*BUILTIN_SOURCES, "imdb")
"""Sources that have a name of their own; the others are `hub:…` and files."""


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
        MissingCarrierError: A built-in source is not installed.
        NetworkUnavailableError: The Hub is needed and cannot be reached.
        MissingExtraError: A library that the source needs is not installed.
    """
    raw = _read_source(config.source, config)
    notes = list(raw.notes)
    train_rows = _check(raw.train, config, notes)
    task = _build_task(train_rows, raw.label_names, config, notes)
    train = encode_rows(train_rows, task)
    test = _load_part(config.test, raw.test, task, config, notes)
    validation = _load_part(config.validation, raw.validation, task, config, notes)
    parts = 1 + (test is None) + (validation is None)
    if parts > 1:
        check_distinct_texts(train, parts, task)
    if test is None:
        train, test = cut_split(train, config.test_fraction, config.seed, task)
        notes.append(_describe_cut("test", test, config.test_fraction, config, task))
    notes += _describe_shared(train, test, "test")
    if validation is None:
        train, validation = cut_split(train, config.validation_fraction, config.seed, task)
        notes.append(_describe_cut("validation", validation, config.validation_fraction, config, task))
    else:
        notes += _describe_shared(train, validation, "validation")
    notes += _describe_shared(validation, test, "test", "validation")
    validation, calibration = _cut_calibration(validation, config, task, notes)
    train = _sample(train, config, task, notes)
    task.check_trainable(train.y, train_rows.origin)
    return Splits(_name_source(config.source), task, train, validation, test, tuple(notes), calibration)


def load_evaluation_rows(
    source: str, config: DataConfig, task: Task, *, split: Literal["train", "validation", "test"] = "test"
) -> Split:
    """Load rows to score with a trained model.

    Args:
        source: The run's own source, of which `split` is taken (so no row that it was trained on, even where the
            source is one file), a named source or Hub data set, of which `split` is taken, or another file, of which
            all rows are.
        config: The run's data settings. They split the run's own source again as it was split for training.
        task: The task of the model, with its labels.
        split: Which split; one that another source than the run's does not have is cut from its train.

    Returns:
        The rows, encoded by `task`.

    Raises:
        DataError: The source cannot be read, its rows cannot be used, or it has labels that the model does not know.
        MissingCarrierError: A built-in source is not installed.
        NetworkUnavailableError: The Hub is needed and cannot be reached.
        MissingExtraError: A library that the source needs is not installed.
    """
    own = is_same_source(source, config.source)
    if _is_file(source) and not own:
        return encode_rows(_check(_read_file(source, config), config, []), task)
    if not own:
        config = config.model_copy(update={"source": source, "validation": None, "test": None, "max_rows": None})
    splits = load_splits(config)
    part: Split = getattr(splits, split)
    labels = splits.task.decode(part.y)
    return encode_rows(CheckedRows(f"{source} {split}", part.ids, part.texts, labels, columns=part.columns), task)


def is_same_source(source: str, other: str) -> bool:
    """Tell whether two sources are the same: the same name, or the same file after symbolic links.

    Args:
        source: A source as in `data.source`; a file need not exist.
        other: The one to compare it with.

    Returns:
        Whether they are.
    """
    first, second = (name if _is_named(name) else os.path.realpath(Path(name).expanduser()) for name in (source, other))
    return first == second


def identify_source(source: str) -> str | None:
    """Return what tells a source from others on any machine: a named one's name, a file's SHA-256.

    Args:
        source: A source as in `data.source`.

    Returns:
        The name or the digest; None for a file that is not there.
    """
    if _is_named(source):
        return source
    path = Path(source).expanduser()
    return compute_digest(path) if path.is_file() else None


def _is_named(source: str) -> bool:
    return source in NAMED_SOURCES or source.startswith(("hub:", "builtin:"))


def _is_file(source: str) -> bool:
    """Tell a file from a name; a name goes first. Anything else that is neither is an unknown source."""
    if _is_named(source):
        return False
    path = Path(source).expanduser()
    if path.suffix.lower() in READABLE_SUFFIXES or path.exists():
        return True
    raise _unknown(source)


def _read_source(source: str, config: DataConfig) -> RawSplits:
    if _is_file(source):
        return RawSplits(_read_file(source, config))
    if source in BUILTIN_SOURCES:
        return _keep_columns(BUILTIN_SOURCES[source](), config.slice_columns)
    if source == "imdb":
        return _keep_columns(load_imdb(), config.slice_columns)
    if source.startswith("hub:"):
        slices = list(_check_slices(config.slice_columns, config.text_column))
        return load_hub(source, text_column=config.text_column, label_column=config.label_column, slice_columns=slices)
    raise _unknown(source)


def _check_slices(names: Sequence[str], text_column: str) -> dict[str, str]:
    """Return the slice columns with their flag, each once."""
    if text_column in names:
        raise DataError(f"Column '{text_column}' holds the texts. Choose another one with --slice.")
    if LENGTH_COLUMN in names:
        raise DataError(
            f"A slice column must not be called '{LENGTH_COLUMN}': results by the length of the text stand under that "
            "name. Rename the column, or choose another one with --slice."
        )
    return dict.fromkeys(names, "--slice")


def _keep_columns(raw: RawSplits, names: Sequence[str]) -> RawSplits:
    """Keep the slice columns of a named source, which gives all that it has."""
    wanted = _check_slices(names, "text")

    def keep(rows: RawRows) -> RawRows:
        present = {"text": rows.texts, "label": rows.labels, **rows.columns}
        check_columns(present, wanted, rows.origin)
        return replace(rows, columns={name: present[name] for name in wanted})

    return replace(
        raw,
        train=keep(raw.train),
        validation=None if raw.validation is None else keep(raw.validation),
        test=None if raw.test is None else keep(raw.test),
    )


def _unknown(source: str) -> DataError:
    near = difflib.get_close_matches(source, NAMED_SOURCES, n=1)
    return DataError(
        f"There is no data source '{source}'.{f' Did you mean {near[0]}?' if near else ''} Allowed: "
        f"{', '.join(NAMED_SOURCES)}, hub:owner/name[@revision], or a file ({', '.join(READABLE_SUFFIXES)})."
    )


def _read_file(name: str, config: DataConfig) -> RawRows:
    table = read_table(Path(name).expanduser(), config.format)
    slices = _check_slices(config.slice_columns, config.text_column)
    wanted = {**slices, config.text_column: "--text-column", config.label_column: "--label-column"}
    check_columns(table.columns, wanted, name)
    return RawRows(
        table.origin,
        table.columns[config.text_column],
        table.columns[config.label_column],
        columns={column: table.columns[column] for column in slices},
        faults=table.faults,
        notes=table.notes,
    )


def _name_source(source: str) -> str:
    return os.path.abspath(Path(source).expanduser()) if _is_file(source) else source  # noqa: PTH100  resolve() would follow links


def _check(raw: RawRows, config: DataConfig, notes: list[str]) -> CheckedRows:
    reading = LabelReading(
        separator=config.label_separator,
        names=tuple(config.label_columns),
        missing=config.missing_label,
        merge_spellings=config.merge_spellings,
    )
    rows = check_rows(raw, get_task(config.task), reading, drop_bad_rows=config.bad_rows != "stop")
    notes += rows.notes
    return rows


def _build_task(rows: CheckedRows, published: Sequence[str] | None, config: DataConfig, notes: list[str]) -> Task:
    """Build the task from the training rows, with the names and order that the source publishes."""
    task = get_task(config.task).from_labels(rows.labels, rows.origin)
    if published is not None:
        task, absent = task.reorder(published)
        if absent:
            notes.append(f"{rows.origin}: no rows of the labels {absent}; they are left out.")
    return task


def _load_part(
    file: str | None, published: RawRows | None, task: Task, config: DataConfig, notes: list[str]
) -> Split | None:
    """Return the user's own split, else the published one, else None."""
    raw = _read_file(file, config) if file is not None else published
    return None if raw is None else encode_rows(_check(raw, config, notes), task)


def _describe_cut(name: str, part: Split, fraction: float, config: DataConfig, task: Task) -> str:
    groups = task.wording.stratum
    return f"{name}: {len(part):,} rows cut from train ({fraction:.0%} of each {groups}, seed {config.seed})."


def _describe_shared(first: Split, other: Split, name: str, first_name: str = "train") -> list[str]:
    shared = count_shared_texts(first, other)
    return [f"{name}: {shared:,} of its texts are in {first_name}, too, character for character."] if shared else []


def _cut_calibration(validation: Split, config: DataConfig, task: Task, notes: list[str]) -> tuple[Split, Split | None]:
    """Cut off the rows that calibrate; where there are too few, all of them choose and nothing is calibrated.

    A stratum that has one text among them stays with the rows that choose.
    """
    if config.calibration_fraction == 0:
        return validation, None
    strata = task.strata(validation.y)
    texts = dict(zip(validation.texts, strata.tolist(), strict=True))
    counts = np.bincount(list(texts.values()), minlength=int(strata.max()) + 1)
    common = validation.select(np.flatnonzero(counts[strata] > 1))
    calibration = None
    if len(common) and len(np.unique(common.y, axis=0)) > 1:
        calibration = cut_split(common, config.calibration_fraction, config.seed, task)[1]
    if calibration is None or len(calibration) < _FEWEST_CALIBRATION_ROWS:
        notes.append(
            f"validation: {len(validation):,} rows are too few to calibrate with some of them; predictions stay as "
            "the model gives them."
        )
        return validation, None
    notes.append(
        f"calibration: {len(calibration):,} of the validation rows fit the {task.wording.calibrates} and choose "
        f"nothing (data.calibration_fraction={config.calibration_fraction:g}, seed {config.seed})."
    )
    return validation.select(np.flatnonzero(~np.isin(validation.ids, calibration.ids))), calibration


def _sample(train: Split, config: DataConfig, task: Task, notes: list[str]) -> Split:
    if config.max_rows is None or config.max_rows >= len(train):
        return train
    notes.append(f"train: {config.max_rows:,} of {len(train):,} rows drawn (data.max_rows, seed {config.seed}).")
    return sample_rows(train, config.max_rows, config.seed, task)
