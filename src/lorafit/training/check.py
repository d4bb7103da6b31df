"""A check of data before they are trained on: reads them, asks everything in `data.quality`, and writes the record.

It reports what training would refuse instead of stopping there, as far as rows can be read at all.
"""

import datetime
import re
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import numpy as np

from lorafit.config import Config, DataConfig, describe_source
from lorafit.data.loading import build_reading
from lorafit.data.quality.debris import find_debris
from lorafit.data.quality.duplicates import find_conflicts, find_duplicates, group_equal, group_similar
from lorafit.data.quality.findings import DATA, OWN, Finding, Place, grade, sort_findings, write_share
from lorafit.data.quality.label_spread import count_labels, find_label_faults
from lorafit.data.quality.report import CheckReport, Lengths, Skipped
from lorafit.data.quality.rows import Rows, Sample, draw_samples, gather_rows
from lorafit.data.quality.shortcuts import find_label_names, find_shortcuts
from lorafit.data.quality.texts import find_languages, find_short_texts
from lorafit.data.sources import read_splits
from lorafit.errors import ConfigError, DataCheckError, EnvironmentUnfitError, MissingExtraError, RunError
from lorafit.models.cache import name_tables
from lorafit.models.coverage import MUCH, TOO_MUCH, find_unknown_id, measure_coverage, suggest_base
from lorafit.models.load import load_tokenizer
from lorafit.models.tokenization import Truncation, tokenize
from lorafit.reports.check_page import render_page
from lorafit.runs.bases import locate_base
from lorafit.system.atomic import write_atomic
from lorafit.system.extras import require
from lorafit.system.notebook import progress_here
from lorafit.system.progress import Progress
from lorafit.tasks.registry import get_task

_MOST_SIMILAR_ROWS: Final = 200_000
"""More rows are searched for near duplicates only when all are to be looked at: it takes 5 KB for each."""

_SHOWN: Final = 3
"""Rows of a finding whose texts a page shows."""

_BINS: Final = 24
_MOST_LENGTH_LABELS: Final = 4

_Search = Callable[[], Iterator[Finding]]


def check(
    config: Config | None = None,
    *,
    data: object = None,
    all_rows: bool = False,
    more: Sequence[Finding] = (),
    page: Path | None = None,
    texts: bool = True,
    progress: Progress | None = None,
) -> CheckReport:
    """Look for what is wrong with data.

    Args:
        config: The settings: the data, and the encoder whose tokenizer is to know the texts; None takes the defaults.
        data: A table that is at hand instead of `config.data.source`, as `train` takes it.
        all_rows: Look at all rows for everything, instead of at samples for what takes long.
        more: Findings of `label_errors.review_labels`, which join those of the check.
        page: Where to write an HTML page; None for none.
        texts: Whether the page shows texts of the rows found, each cut to 200 characters.
        progress: Receives the progress.

    Returns:
        What was found.

    Raises:
        DataError: The source cannot be read, or none of its training rows can be used.
        MissingExtraError: A library that the source or the page needs is not installed.
    """
    progress, start = progress or progress_here(), time.perf_counter()
    config = name_tables(config, data=data)
    progress.start("reading data")
    rows, findings = _read(config.data)
    progress.finish(", ".join(f"{rows.count(split):,} {split}" for split in rows.splits))
    samples = draw_samples(rows, config.data.seed, **({"most": None} if all_rows else {}))
    skipped: list[Skipped] = []
    for name, search in _list_searches(rows, samples, config, all_rows=all_rows):
        progress.start(name)
        try:
            found = list(search())
        except (MissingExtraError, _NotLookedForError) as error:
            skipped.append(Skipped(what=name, why=str(error)))
            progress.finish("skipped")
            continue
        findings += found
        progress.finish(f"{len(found)} found" if found else "")
    told = {finding.message for finding in findings}
    findings += [finding for finding in more if finding.message not in told]
    report = CheckReport(
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        source=config.data.source,
        task=config.data.task,
        seed=config.data.seed,
        seconds=round(time.perf_counter() - start, 2),
        rows={split: rows.count(split) for split in rows.splits},
        labels=count_labels(rows),
        lengths=_measure_lengths(rows, samples[0]),
        findings=sort_findings(_complete(finding, config) for finding in findings),
        skipped=skipped,
        versions=_list_versions(),
    )
    if page is not None:
        write_atomic(page, render_page(report, _collect_texts(rows, report) if texts else {}))
        progress.say(f"page        {page}")
    return report


def enforce(report: CheckReport) -> None:
    """Refuse data with errors or warnings.

    Args:
        report: What was found.

    Raises:
        DataCheckError: There are some.
    """
    if report.failures:
        names = ", ".join(dict.fromkeys(finding.name for finding in report.failures))
        raise DataCheckError(f"The data did not pass: {report.summarize()} ({names}).")


def _complete(finding: Finding, config: Config) -> Finding:
    """Put the source into a remedy; rows of a published split have no file that could be mended."""
    remedy = finding.remedy
    if remedy.split()[2:3] == [OWN] and finding.split not in {None, "train"}:
        file = getattr(config.data, str(finding.split))
        config = config.model_copy(update={"data": config.data.for_source(str(file))})
        remedy = "" if file is None else remedy
    given = {word for word in shlex.split(remedy) if word.startswith("--")}
    if "--fix" in given:
        given.add("--corrections")  # they are about the rows as they were
    data = describe_source(config, without=given)
    return finding.model_copy(update={"remedy": re.sub(f"{OWN}|{DATA}", lambda _: data, remedy, count=1)})


class _NotLookedForError(Exception):
    """Something cannot be looked for; the message says why."""


def _read(data: DataConfig) -> tuple[Rows, list[Finding]]:
    """Read all splits of a source; the one place where a check reads rows."""
    return gather_rows(read_splits(data), get_task(data.task), build_reading(data))


def _list_searches(
    rows: Rows, samples: list[Sample], config: Config, *, all_rows: bool
) -> Iterator[tuple[str, _Search]]:
    """Yield what is looked for, by name."""
    equal = group_equal(rows.texts)
    yield "duplicates", lambda: _chain(find_duplicates(rows, equal), find_conflicts(rows, equal))

    def search_near() -> Iterator[Finding]:
        if len(rows.texts) > _MOST_SIMILAR_ROWS and not all_rows:
            raise _NotLookedForError(
                f"{len(rows.texts):,} rows are more than {_MOST_SIMILAR_ROWS:,}. --all-rows looks for them even so."
            )
        similar = group_similar(rows.texts, equal)
        yield from find_duplicates(rows, equal, similar)
        yield from find_conflicts(rows, equal, similar)

    yield "near duplicates", search_near
    yield "labels", lambda: find_label_faults(rows)
    yield "short texts", lambda: find_short_texts(rows)
    yield (
        "debris",
        lambda: _chain(
            find_debris(rows, draw_samples(rows, 0, most=None), kinds=("html", "lost-characters")),
            find_debris(rows, samples, kinds=("encoding", "model-phrases", "mail-headers")),
        ),
    )
    yield "shortcuts", lambda: _chain(find_label_names(rows, samples[0]), find_shortcuts(rows, samples[0]))
    yield "languages", lambda: find_languages(rows, samples)
    yield "unknown tokens", lambda: _find_unknown_tokens(rows, samples, config)


def _chain(*parts: Iterator[Finding]) -> Iterator[Finding]:
    for part in parts:
        yield from part


def _find_unknown_tokens(rows: Rows, samples: list[Sample], config: Config) -> Iterator[Finding]:
    """Find splits of which the tokenizer does not know much."""
    try:
        require("transformers", extra="train", purpose="Asking the tokenizer")
        tokenizer, _ = load_tokenizer(locate_base(config.model).folder)
    except (EnvironmentUnfitError, ConfigError, RunError) as error:
        has_remedy = isinstance(error, MissingExtraError) or "--model" in str(error)
        remedy = "" if has_remedy else " Name another encoder with --model."
        raise _NotLookedForError(f"{error}{remedy}") from error
    for sample in samples:
        texts = [rows.texts[position] for position in sample.positions.tolist()]
        if not texts:
            continue
        tokens = tokenize(tokenizer, texts, Truncation(config.model.max_length))
        coverage = measure_coverage(tokenizer, texts, tokens)
        share = coverage.unknown_share
        if share < MUCH:
            continue
        unknown = find_unknown_id(tokenizer)
        hits = np.unique(np.searchsorted(tokens.offsets, np.flatnonzero(tokens.ids == unknown), side="right") - 1)
        yield Finding(
            name="unknown-tokens",
            severity=grade(share, warn_from=MUCH, error_from=TOO_MUCH),
            split=sample.split,
            count=len(hits),
            share=share,
            scope=sample.scope,
            message=f"{write_share(share)} of the tokens of {sample.split} are unknown to {config.model.name} "
            f"({len(hits):,} of {sample.scope.describe()} rows have some): take {suggest_base(coverage.script)}.",
            rows=rows.list_rows(sample.positions[hits]),
        )


def _measure_lengths(rows: Rows, sample: Sample) -> Lengths:
    """Count texts of the sample by their length, in bins of equal width on a logarithmic scale."""
    lengths = np.array([len(rows.texts[position]) for position in sample.positions.tolist()])
    low, high = max(int(lengths.min()), 1), max(int(lengths.max()), 2)
    edges = np.unique(np.round(np.geomspace(low, high + 1, _BINS + 1)).astype(np.int64))
    marks = rows.mark_labels(sample.positions)
    groups = {"": np.ones(len(lengths), dtype=bool)}
    if rows.task is not None and 0 < marks.shape[1] <= _MOST_LENGTH_LABELS:
        groups = {name: marks[:, number] for number, name in enumerate(rows.task.label_names)}
    counts = {name: np.histogram(lengths[own], edges)[0].tolist() for name, own in groups.items()}
    return Lengths(edges=edges.tolist(), counts=counts)


def _collect_texts(rows: Rows, report: CheckReport) -> dict[tuple[str, int], str]:
    """Return the texts that a page shows, by split and row."""
    wanted: set[tuple[str, int]] = set()
    for finding in report.findings:
        for row in finding.rows[:_SHOWN]:
            wanted |= {_as_key(place) for place in (row, row.kept) if place is not None}
    found: dict[tuple[str, int], str] = {}
    for split, part in rows.splits.items():
        for position in range(part.start, part.stop):
            if (key := (split, int(rows.ids[position]))) in wanted:
                found[key] = rows.texts[position]
    return found


def _as_key(place: Place) -> tuple[str, int]:
    return place.split, place.row


def _list_versions() -> dict[str, str]:
    found = {}
    for name in ("lorafit", "rensa", "ftfy", "py3langid"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
