"""The runs that a run goes on from, and the texts that they were trained on, which it has therefore seen."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lorafit.config import DataConfig
from lorafit.data.loading import load_splits
from lorafit.data.rows import Split, Splits
from lorafit.data.sources import name_source
from lorafit.errors import DataError, EnvironmentUnfitError, UserInputError
from lorafit.runs.bases import find_run
from lorafit.runs.evidence import read_settings
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import RunRecord
from lorafit.system.text import fold_text

_MOST_SEEN: Final = 0.5
"""Share of the test texts that a run may have seen before; with more, its scores would be those of training rows."""

_CUT: Final = ("seed", "test_fraction", "validation_fraction")
"""Settings that decide which rows of a source are for training."""


@dataclass(frozen=True)
class BaseRun:
    """A run that training goes on from.

    Attributes:
        root: Its folder.
        texts: Its training texts as `fold_text` makes them; None where it cannot be told any more which they were.
        data: Settings of its data; None where they cannot be read.
        fault: Why there are no texts.
    """

    root: Path
    texts: frozenset[str] | None = None
    data: DataConfig | None = None
    fault: str = ""


def list_base_runs(name: str, *, before: str = "") -> Iterator[BaseRun]:
    """List the runs that a model comes from, the last one first.

    Args:
        name: As in `model.name`; an encoder that is no run comes from none.
        before: When the run was made of which `name` is the base; empty where it is still to be made.

    Yields:
        The run, the one that it goes on from, and so on. After one that is gone or was replaced, nothing is known.
    """
    latest, passed = before, set[Path]()
    while (layout := find_run(name)) is not None:
        try:
            record = RunRecord.read(layout.record)
        except UserInputError:
            yield BaseRun(layout.root, fault="its record cannot be read")
            return
        if layout.root in passed or (latest and record.created > latest):
            yield BaseRun(layout.root, fault="another run is there now")
            return
        passed.add(layout.root)
        yield _read_run(layout, record)
        name, latest = record.base_model.name, record.created
    if latest and Path(name).is_absolute() and not Path(name).exists():
        yield BaseRun(Path(name), fault="it is no longer there")


def _read_run(layout: RunLayout, record: RunRecord) -> BaseRun:
    try:
        data = read_settings(layout, record).data
    except UserInputError:
        return BaseRun(layout.root, fault="its settings are missing or were altered")
    try:
        train = load_splits(data).train
    except (UserInputError, EnvironmentUnfitError):
        return BaseRun(layout.root, fault=f"its data ({record.data.source}) cannot be read any more")
    if train.fingerprint() != record.data.splits["train"].fingerprint:
        return BaseRun(layout.root, fault=f"its data ({record.data.source}) have changed")
    return BaseRun(layout.root, frozenset(map(fold_text, train.texts)), data)


def describe_seen_texts(name: str, splits: Splits, config: DataConfig) -> Iterator[str]:
    """Tell how many test and validation texts the runs that training goes on from were trained on.

    Texts that the training rows hold, too, are not counted.

    Args:
        name: As in `model.name`.
        splits: The rows.
        config: Settings of the data.

    Yields:
        A note for each run that has seen some, or for which that cannot be told.

    Raises:
        DataError: One was trained on more than half of the test texts.
    """
    bases = list(list_base_runs(name))
    own = set(map(fold_text, splits.train.texts)) if bases else set()
    measured = {"test": splits.test} | {part: rows for part, rows in splits.by_name.items() if part != "train"}
    for base in bases:
        if base.texts is None:
            yield (
                f"whether {base.root}, which training goes on from, was trained on any of the test or validation texts "
                f"cannot be checked: {base.fault}."
            )
            continue
        counts = count_seen(base.texts - own, measured)
        listed = ", ".join(
            f"{count:,} of {len(measured[part]):,} {part} texts" for part, count in counts.items() if count
        )
        remedy = _suggest(base, config)
        if counts["test"] > _MOST_SEEN * len(splits.test):
            raise DataError(
                f"{base.root}, which training goes on from, was trained on {listed}: scores on them would say nothing "
                f"of new texts. {remedy}"
            )
        if listed:
            yield (
                f"{base.root}, which training goes on from, was trained on {listed}: scores on them are too good. "
                f"{remedy}"
            )


def describe_training_texts(layout: RunLayout, record: RunRecord, rows: Split) -> str | None:
    """Say how many of the rows that a run is to be measured on have a text that it was trained on.

    Args:
        layout: The run folder.
        record: Its record.
        rows: The rows.

    Returns:
        A note; None where there are none, or the training texts cannot be read any more.
    """
    texts = _read_run(layout, record).texts
    count = 0 if texts is None else count_seen(texts, {"given": rows})["given"]
    if not count:
        return None
    return (
        f"{layout.root} was trained on {count:,} of these {len(rows):,} texts: scores on them are too good, and tests "
        "of whether they are like other rows mean nothing."
    )


def count_seen(texts: frozenset[str], parts: Mapping[str, Split]) -> dict[str, int]:
    """Count the rows of each split whose text is among some, as `fold_text` makes them."""
    return {name: sum(fold_text(text) in texts for text in rows.texts) for name, rows in parts.items()}


def _suggest(base: BaseRun, config: DataConfig) -> str:
    """Say how to have test rows that a run has not seen."""
    other = "give test rows that it has not seen (--test FILE)."
    data = base.data
    if data is not None and data.test is config.test is None and _list_sources(data) == _list_sources(config):
        differing = [name for name in _CUT if getattr(data, name) != getattr(config, name)]
        if differing:
            settings = " ".join(f"--set {shlex.quote(f'data.{name}={getattr(data, name)}')}" for name in differing)
            return f"Cut the rows as that run did ({settings}), or {other}"
    return f"{other[0].upper()}{other[1:]}"


def _list_sources(config: DataConfig) -> list[str]:
    return [name_source(name) for name in (config.source, *config.files)]
