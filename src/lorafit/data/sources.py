"""From the name of a source to its rows, as they stand there."""

import difflib
import glob
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lorafit.config import DataConfig
from lorafit.data.builtin import BUILTIN_SOURCES
from lorafit.data.frames import check_stored
from lorafit.data.hub import load_hub
from lorafit.data.imdb import load_imdb
from lorafit.data.rows import RawRows, RawSplits
from lorafit.data.tables import READABLE_SUFFIXES, check_columns, read_table
from lorafit.errors import DataError
from lorafit.system.atomic import compute_digest
from lorafit.system.files import describe_no_file, is_folder, is_there, show_path, suggest_sibling
from lorafit.system.paths import expand_home
from lorafit.tasks.evaluation import LENGTH_COLUMN

NAMED_SOURCES = (*BUILTIN_SOURCES, "imdb")
"""Sources that have a name of their own; the others are `hub:…` and files."""

_LONGEST_NAME = 200

_PATTERN_SIGNS = "*?["
"""What makes a name a pattern of files."""


def read_splits(config: DataConfig) -> RawSplits:
    """Read the rows of a source, and those of the files for validation and test.

    Args:
        config: The source and its columns.

    Returns:
        Its splits, each with the texts, labels and further columns that are asked for.

    Raises:
        DataError: The source is unknown, cannot be read, or lacks a column.
        MissingCarrierError: A built-in source is not installed.
        NetworkUnavailableError: The Hub is needed and cannot be reached.
        MissingExtraError: A library that the source needs is not installed.
    """
    if is_file(config.source):
        raw = RawSplits(_join([_read_file(name, config) for name in list_files(config)]))
    elif config.files:
        raise DataError(
            f"{config.source} is no file: further files ({', '.join(config.files)}) cannot be added to it. Give files "
            "alone."
        )
    elif config.source.startswith("hub:"):
        raw = _load_hub(config)
    else:
        raw = _select_columns(_load_named(config.source), config, text="text", label="label")
    return replace(
        raw,
        validation=raw.validation if config.validation is None else read_rows(config.validation, config),
        test=raw.test if config.test is None else read_rows(config.test, config),
    )


def read_rows(source: str, config: DataConfig) -> RawRows:
    """Read all rows of a file or of files by a pattern, in the columns of `config`."""
    return _join([_read_file(name, config) for name in _expand(source)])


def list_files(config: DataConfig) -> list[str]:
    """Return the files that a source is made of, patterns expanded; none of a named one."""
    names = [config.source, *config.files]
    return [file for name in names for file in _expand(name)] if is_file(config.source) else []


def is_file(source: str) -> bool:
    """Tell a file, or a pattern of files, from a name; a name goes first.

    Args:
        source: A source as in `data.source`.

    Returns:
        Whether it is one.

    Raises:
        DataError: It is neither.
    """
    if _is_named(source):
        return False
    path = expand_home(source)
    if path.suffix.lower() in READABLE_SUFFIXES or is_there(path) or "://" in source or _is_pattern(source):
        return True
    raise _unknown(source)


def is_same_source(source: str, other: str) -> bool:
    """Tell whether two sources are the same: the same name, or the same file after symbolic links.

    Args:
        source: A source as in `data.source`; a file need not exist.
        other: The one to compare it with.

    Returns:
        Whether they are.
    """
    first, second = (name if _is_named(name) else os.path.realpath(expand_home(name)) for name in (source, other))
    return first == second


def is_own_source(source: str, config: DataConfig) -> bool:
    """Tell whether a source is the one of these settings, or one of its files."""
    names = [config.source, *config.files]
    files = [file for name in names if _is_pattern(name) for file in glob.glob(str(expand_home(name)), recursive=True)]  # noqa: PTH207  absolute patterns
    return any(is_same_source(source, name) for name in (*names, *files))


def identify_source(source: str) -> str | None:
    """Return what tells a source from others on any machine: a named one's name, a file's SHA-256.

    Args:
        source: A source as in `data.source`.

    Returns:
        The name or the digest; None for a file that is not there.
    """
    if _is_named(source):
        return source
    path = expand_home(source)
    return compute_digest(path) if describe_no_file(path) is None else None


def name_source(source: str) -> str:
    """Return a source as it can be found from any folder: the path of a file absolute, a name as it is."""
    return os.path.abspath(expand_home(source)) if is_file(source) else source  # noqa: PTH100  resolve() would follow links


def _unknown(source: str) -> DataError:
    path = expand_home(source)
    names = difflib.get_close_matches(source[:_LONGEST_NAME], NAMED_SOURCES, n=1)
    hint = f" Did you mean {names[0]}?" if names else suggest_sibling(path)
    return DataError(
        f"There is no data source '{show_path(Path(source))}'.{hint} Allowed: "
        f"{', '.join(NAMED_SOURCES)}, hub:owner/name[:subset][@revision], or a file ({', '.join(READABLE_SUFFIXES)})."
    )


def _is_named(source: str) -> bool:
    return source in NAMED_SOURCES or source.startswith(("hub:", "builtin:"))


def _is_pattern(source: str) -> bool:
    return any(sign in source for sign in _PATTERN_SIGNS)


def _expand(source: str) -> list[str]:
    """Return the files of a pattern in order of name; a file that bears such a name goes first."""
    path = expand_home(source)
    if is_there(path) or not _is_pattern(source):
        return [source]
    try:
        matches = glob.glob(str(path), recursive=True)  # noqa: PTH207  absolute patterns
    except (RecursionError, ValueError, re.error):
        matches = []
    found = sorted(name for name in matches if not is_folder(Path(name)))
    if not found:
        raise DataError(f"No file matches {show_path(Path(source))}.")
    return found


def _load_named(source: str) -> RawSplits:
    if source == "imdb":
        return load_imdb()
    if source not in BUILTIN_SOURCES:
        raise _unknown(source)
    return BUILTIN_SOURCES[source]()


def _load_hub(config: DataConfig) -> RawSplits:
    """Load a data set of the Hub with all columns that are asked for."""
    label = config.label_columns[0] if config.label_columns else config.label_column
    others = {name: flag for name, flag in list_columns(config).items() if name not in {config.text_column, label}}
    raw = load_hub(config.source, text_column=config.text_column, label_column=label, columns=others)
    return _select_columns(raw, config, text=config.text_column, label=label)


def list_columns(config: DataConfig) -> dict[str, str]:
    """Return the columns that are asked for, each with the flag that chooses it.

    Args:
        config: The settings of the data.

    Returns:
        Flag by column; slice columns first.

    Raises:
        DataError: A slice column holds the texts, or bears the name of the slices by length.
    """
    texts = [name for name in (config.text_column, config.text_pair_column) if name is not None]
    for name in config.slice_columns:
        if name in texts:
            raise DataError(f"Column '{name}' holds the texts. Choose another one with --slice.")
        if name == LENGTH_COLUMN:
            raise DataError(
                f"A slice column must not be called '{LENGTH_COLUMN}': results by the length of the text stand under "
                "that name. Rename the column, or choose another one with --slice."
            )
    flags = dict.fromkeys(config.slice_columns, "--slice")
    flags |= dict.fromkeys(texts, "--text-column")
    flags |= dict.fromkeys(config.label_columns or [config.label_column], "--label-column")
    others = {config.group_column: "--group-column", config.time_column: "--time-column"}
    return flags | {name: flag for name, flag in others.items() if name is not None}


def _select_columns(raw: RawSplits, config: DataConfig, *, text: str, label: str) -> RawSplits:
    """Keep of a named source, which gives all that it has, what is asked for.

    `text` and `label` are what it calls the columns of its texts and labels.
    """

    def select(rows: RawRows) -> RawRows:
        present = {text: rows.texts, label: rows.labels, **rows.columns}
        check_columns(present, list_columns(config), rows.origin)
        return _build_rows(present, rows, config)

    own_label = not config.label_columns and config.label_column == label
    return replace(
        raw,
        train=select(raw.train),
        validation=None if raw.validation is None else select(raw.validation),
        test=None if raw.test is None else select(raw.test),
        label_names=raw.label_names if own_label else None,
    )


def _read_file(name: str, config: DataConfig) -> RawRows:
    check_stored(expand_home(name))
    table = read_table(expand_home(name), config.format, wanted=list_columns(config))
    return _build_rows(table.columns, RawRows(table.origin, (), (), faults=table.faults, notes=table.notes), config)


def _build_rows(present: Mapping[str, Sequence[object]], rows: RawRows, config: DataConfig) -> RawRows:
    """Put the columns that are asked for into their places."""
    texts: Sequence[Any] = present[config.text_column]
    if config.text_pair_column is not None:
        texts = list(zip(texts, present[config.text_pair_column], strict=True))
    labels: Sequence[Any] = present[config.label_column] if not config.label_columns else ()
    if config.label_columns:
        cells = zip(*(present[name] for name in config.label_columns), strict=True)
        labels = [dict(zip(config.label_columns, row, strict=True)) for row in cells]
    return replace(
        rows,
        texts=texts,
        labels=labels,
        columns={name: present[name] for name in dict.fromkeys(config.slice_columns)},
        groups=None if config.group_column is None else present[config.group_column],
        times=None if config.time_column is None else present[config.time_column],
    )


def _join(parts: Sequence[RawRows]) -> RawRows:
    """Join the rows of several files; they are counted through all of them."""
    if len(parts) == 1:
        return parts[0]
    starts = [sum(len(part.texts) for part in parts[:place]) for place in range(len(parts))]
    first = parts[0]

    def chain(name: str) -> list[object] | None:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else [value for column in values for value in column]

    numbered = list(zip(parts, starts, strict=True))
    ranges = ", ".join(f"{part.origin} from {start + 1:,}" for part, start in numbered)
    return RawRows(
        f"{first.origin} and {len(parts) - 1} more",
        texts=chain("texts") or [],
        labels=chain("labels") or [],
        columns={name: [value for part in parts for value in part.columns[name]] for name in first.columns},
        faults={start + place: fault for part, start in numbered for place, fault in part.faults.items()},
        notes=(*(note for part in parts for note in part.notes), f"Rows are counted through the files: {ranges}."),
        groups=chain("groups"),
        times=chain("times"),
    )
