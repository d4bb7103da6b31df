"""A cleaned copy of training rows, and a log of what was changed; nothing is changed that was not asked for."""

import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from lorafit.config import DataConfig
from lorafit.data.checks import describe_text_fault
from lorafit.data.quality.debris import remove_html, repair_encoding
from lorafit.data.quality.duplicates import group_equal, group_similar, mark_conflicts
from lorafit.data.quality.rows import Positions
from lorafit.data.reading.opening import COMPRESSIONS
from lorafit.data.rows import RawRows, RawSplits
from lorafit.data.sources import is_file, is_same_source, list_files, read_splits
from lorafit.data.tables import read_table
from lorafit.data.writing import WRITABLE_SUFFIXES, write_table
from lorafit.errors import ConfigError, UserInputError
from lorafit.system.atomic import write_atomic
from lorafit.system.paths import expand_home
from lorafit.system.text import join_text
from lorafit.tasks.label_spellings import group_spellings

Columns = Mapping[str, Sequence[object]]

FIXES: Final[Mapping[str, str]] = {
    "encoding": "texts that were read in a wrong encoding are repaired",
    "html": "tags become blanks, and entities the characters they stand for",
    "labels": "spellings of a label become the most frequent one",
    "leaks": "rows whose text is in validation or test, too, are dropped",
    "near-leaks": "rows whose text is nearly the same as one in validation or test are dropped",
    "conflicts": "all rows of a text that has contradictory labels are dropped",
    "duplicates": "of rows with the same text and label the first is kept",
    "near-duplicates": "of rows with nearly the same text and the same label the first is kept",
}
"""What can be fixed and how, in the order in which it is done."""


@dataclass
class Cleaned:
    """Rows as they are after cleaning.

    Attributes:
        columns: All columns of the rows that are kept.
        changes: A record for each change: the row's number in the original, what was done, and why.
    """

    columns: dict[str, list[object]]
    changes: list[dict[str, object]] = field(default_factory=list)

    def count(self) -> dict[str, int]:
        """Count the changes by fix."""
        return dict(Counter(str(change["fix"]) for change in self.changes))


@dataclass(frozen=True)
class CleanedFile:
    """A cleaned copy.

    Attributes:
        path: The copy.
        log: The changes: a JSON object a line, with the row's number in the original.
        rows: Rows of the original.
        kept: Rows of the copy.
        changes: Number of changes by fix.
    """

    path: Path
    log: Path
    rows: int
    kept: int
    changes: Mapping[str, int]


def parse_fixes(text: str) -> list[str]:
    """Read a list of fixes.

    Args:
        text: Names of `FIXES` with commas in between.

    Returns:
        The names in the order in which they are done.

    Raises:
        ConfigError: There is none, or one that is unknown.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in FIXES]
    if unknown or not names:
        got = f"got {', '.join(map(repr, unknown))}" if unknown else "got none"
        raise ConfigError(f"--fix: {got}; allowed: {', '.join(FIXES)}, several with commas in between.")
    return [name for name in FIXES if name in names]


def clean_source(
    config: DataConfig, fixes: Sequence[str], *, output: Path | None = None, overwrite: bool = False
) -> CleanedFile:
    """Write a cleaned copy of the training rows of a source, and beside it a log with a line for each change.

    A file keeps all its columns; of other sources, and of several files, the copy has texts and labels.

    Args:
        config: The source.
        fixes: From `parse_fixes`.
        output: Where to; None for `NAME.cleaned.SUFFIX` beside a file, or in this folder.
        overwrite: Whether a copy of that name is replaced. The original never is.

    Returns:
        What was written, and what was changed.

    Raises:
        DataError: The source cannot be read.
        MissingExtraError: A package that a fix needs is not installed.
        UserInputError: The copy would replace the original or another file, or cannot be written.
    """
    path = output or name_copy(config.source)
    log = path.with_name(f"{path.stem}.changes.jsonl")
    _check_free(path, log, config, overwrite=overwrite)
    names = [name for name in (config.text_column, config.text_pair_column) if name is not None]
    labels = config.label_columns or [config.label_column]
    raw = read_splits(config)
    columns, unreadable = _read_columns(config, raw, names, labels)
    held_out = [text for part in (raw.validation, raw.test) for text in ([] if part is None else _list_texts(part))]
    cleaned = clean_rows(columns, fixes, texts=names, labels=labels, held_out=held_out, unreadable=unreadable)
    write_table(path, cleaned.columns)
    write_atomic(log, "".join(f"{json.dumps(change, ensure_ascii=False)}\n" for change in cleaned.changes))
    rows = len(next(iter(columns.values())))
    return CleanedFile(path, log, rows, len(next(iter(cleaned.columns.values()))), cleaned.count())


def name_copy(source: str) -> Path:
    """Return where the cleaned copy of a source goes: beside a file, else into the working folder."""
    if not is_file(source):
        return Path(f"{source.partition('@')[0].rpartition('/')[2].rpartition(':')[2]}.cleaned.csv")
    path = expand_home(source)
    path = path.with_suffix("") if path.suffix.lower() in COMPRESSIONS else path
    suffix = path.suffix if path.suffix.lower() in WRITABLE_SUFFIXES else ".csv"
    place = Path() if "://" in source else path.parent
    return place / f"{path.stem}.cleaned{suffix}"


def clean_rows(
    columns: Columns,
    fixes: Sequence[str],
    *,
    texts: Sequence[str],
    labels: Sequence[str],
    held_out: Sequence[str] = (),
    unreadable: Iterable[int] = (),
) -> Cleaned:
    """Clean rows: first texts and labels, then whole rows, so that what became equal is found.

    Args:
        columns: The values of each column, equally many.
        fixes: From `parse_fixes`.
        texts: The columns with texts: one, or two of pairs.
        labels: The columns with labels; spellings are merged in a single one.
        held_out: Texts of validation and test rows.
        unreadable: Places of rows that could not be read, counted from 0; they are dropped.

    Returns:
        The cleaned rows and what was changed.

    Raises:
        MissingExtraError: A package that a fix needs is not installed.
    """
    cleaned = Cleaned({name: list(values) for name, values in columns.items()})
    repairs: dict[str, Callable[[str], str]] = {"encoding": repair_encoding, "html": remove_html}
    others = list(held_out)
    for fix in (name for name in fixes if name in repairs):
        others = [repairs[fix](text) for text in others]
        for name in texts:
            _change_texts(cleaned, fix, name, repairs[fix])
    if "labels" in fixes and len(labels) == 1:
        _merge_spellings(cleaned, labels[0])
    cleaned.changes += [{"row": place + 1, "fix": "unreadable", "change": "dropped"} for place in unreadable]
    drops = [fix for fix in fixes if fix not in {*repairs, "labels"}]
    _drop_rows(cleaned, drops, texts=texts, labels=labels, held_out=others)
    cleaned.changes.sort(key=lambda change: int(str(change["row"])))
    return cleaned


def _change_texts(cleaned: Cleaned, fix: str, column: str, repair: Callable[[str], str]) -> None:
    values = cleaned.columns[column]
    for place, value in enumerate(values):
        if isinstance(value, str) and (better := repair(value)) != value and better.strip():
            values[place] = better
            cleaned.changes.append({"row": place + 1, "fix": fix, "change": "text", "column": column})


def _merge_spellings(cleaned: Cleaned, column: str) -> None:
    values = cleaned.columns[column]
    counts = Counter(value for value in values if isinstance(value, str) and value.strip())
    best = {name: max(group, key=lambda one: counts[one]) for group in group_spellings(list(counts)) for name in group}
    for place, value in enumerate(values):
        better = best.get(value) if isinstance(value, str) else None
        if better is not None and better != value:
            values[place] = better
            change = {"row": place + 1, "fix": "labels", "change": "label", "column": column}
            cleaned.changes.append({**change, "from": str(value)[:40], "to": better[:40]})


def _drop_rows(
    cleaned: Cleaned, fixes: Sequence[str], *, texts: Sequence[str], labels: Sequence[str], held_out: Sequence[str]
) -> None:
    """Drop rows; those without a text are left alone."""
    joined = [_join(values) for values in zip(*(cleaned.columns[name] for name in texts), strict=True)]
    places = [place for place, text in enumerate(joined) if text is not None]
    own = [text for text in joined if text is not None]
    numbers: dict[tuple[str, ...], int] = {}
    keys = (tuple(str(cleaned.columns[name][place]).strip() for name in labels) for place in places)
    classes = np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
    equal = group_equal(own)
    dropped: dict[int, dict[str, object]] = {}
    gone = {int(str(change["row"])) - 1 for change in cleaned.changes if change["change"] == "dropped"}
    for fix in fixes:
        for position, kept in _choose_drops(fix, own, equal, classes, held_out):
            entry: dict[str, object] = {"row": places[position] + 1, "fix": fix, "change": "dropped"}
            entry |= {} if kept is None else {"kept": places[kept] + 1}
            if kept is None or places[kept] not in dropped:
                dropped.setdefault(places[position], entry)
    cleaned.changes += dropped.values()
    gone |= dropped.keys()
    for name, values in cleaned.columns.items():
        cleaned.columns[name] = [value for place, value in enumerate(values) if place not in gone]


def _choose_drops(
    fix: str, texts: Sequence[str], equal: Positions, classes: Positions, held_out: Sequence[str]
) -> Iterator[tuple[int, int | None]]:
    """Yield the rows that a fix drops, each with the row that is kept in its place."""
    if fix == "leaks":
        known = set(held_out)
        yield from ((place, None) for place, text in enumerate(texts) if text in known)
    elif fix == "near-leaks":
        every = [*held_out, *texts]
        groups = group_similar(every, group_equal(every))[len(held_out) :]
        yield from ((place, None) for place in np.flatnonzero(groups < len(held_out)).tolist())
    elif fix == "conflicts":
        yield from ((place, None) for place in np.flatnonzero(mark_conflicts(equal, classes)).tolist())
    else:
        groups = equal if fix == "duplicates" else group_similar(texts, equal)
        first: dict[tuple[int, int], int] = {}
        for place, group in enumerate(zip(groups.tolist(), classes.tolist(), strict=True)):
            if (kept := first.setdefault(group, place)) != place:
                yield place, kept


def _join(values: tuple[Any, ...]) -> str | None:
    if not all(isinstance(value, str) and value.strip() for value in values):
        return None
    return join_text(values[0] if len(values) == 1 else values)


def _check_free(path: Path, log: Path, config: DataConfig, *, overwrite: bool) -> None:
    """Make sure that nothing is replaced that must stay."""
    originals = [*list_files(config), *(name for name in (config.validation, config.test) if name is not None)]
    for original in originals:
        if any(is_same_source(str(one), original) for one in (path, log)):
            raise UserInputError(
                f"--output {shlex.quote(str(path))} would replace the data themselves. Choose another name."
            )
    if path.suffix.lower() not in WRITABLE_SUFFIXES:
        raise UserInputError(
            f"--output {shlex.quote(str(path))} cannot be written: allowed are {', '.join(WRITABLE_SUFFIXES)}."
        )
    taken = next((one for one in (path, log) if one.exists()), None)
    if taken is not None and not overwrite:
        raise UserInputError(f"{taken} is there already. Replace it with --overwrite, or choose another --output.")


def _read_columns(
    config: DataConfig, raw: RawSplits, texts: Sequence[str], labels: Sequence[str]
) -> tuple[Columns, Iterable[int]]:
    """Return all columns of the training rows, and the places of those that could not be read."""
    files = list_files(config)
    if len(files) == 1 and expand_home(files[0]).is_file():
        table = read_table(expand_home(files[0]), config.format)
        return table.columns, table.faults
    train = raw.train
    parts = [train.texts] if len(texts) == 1 else list(zip(*map(_as_pair, train.texts), strict=True))
    cells = (
        [train.labels]
        if not config.label_columns
        else [[_look_up(row, name) for row in train.labels] for name in labels]
    )
    columns = dict(zip([*texts, *labels], [*parts, *cells], strict=True))
    return {**columns, **train.columns}, train.faults


def _list_texts(part: RawRows) -> list[str]:
    texts: list[Any] = [text for text in part.texts if describe_text_fault(text) is None]
    return [join_text(text) for text in texts]


def _as_pair(text: object) -> tuple[object, object]:
    return (text[0], text[1]) if isinstance(text, tuple) else (text, None)


def _look_up(row: object, name: str) -> object:
    return row.get(name) if isinstance(row, dict) else None
