"""How labels are spread: over classes, over splits, and over the file."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from lorafit.data.quality.findings import Finding, Scope, write_share
from lorafit.data.quality.rows import Rows
from lorafit.system.text import format_count
from lorafit.tasks.label_spellings import group_spellings, match_cases
from lorafit.tasks.labels import list_labels, quote_label

_FEW_ROWS: Final = 10
"""Rows of a label below which neither training nor measuring says much."""

_MAJORITY: Final = 0.9
"""Share of the rows with the largest label from which the imbalance is reported."""

_IMBALANCE: Final = 20.0
"""The same of half the rows or more: how many times as many there are as with the smallest label."""

_FEWEST_TO_SORT: Final = 20


def find_label_faults(rows: Rows) -> Iterator[Finding]:
    """Find labels that a split lacks, rare ones, imbalance, spellings, and rows sorted by label.

    Args:
        rows: The rows.

    Yields:
        The findings; none where labels are no classes.
    """
    counts = count_labels(rows)
    if not counts["train"]:
        return
    yield from _find_absent(rows, counts)
    yield from _find_rare(rows, counts["train"])
    yield from _find_imbalance(rows, counts["train"])
    yield from _find_spellings(rows, list(counts["train"]))
    for split in rows.splits:
        yield from _find_sorted(rows, split)


def count_labels(rows: Rows) -> dict[str, dict[str, int]]:
    """Count the rows of each label in each split; empty where labels are no classes."""
    if rows.task is None or rows.y is None:
        return {split: {} for split in rows.splits}
    return {split: rows.task.count(rows.y[part]) for split, part in rows.splits.items()}


def _find_absent(rows: Rows, counts: Mapping[str, Mapping[str, int]]) -> Iterator[Finding]:
    train = counts["train"]
    for split, own in counts.items():
        if split == "train":
            continue
        for name, severity, lacking, there, one, more in (
            (
                "unseen-labels",
                "error",
                train,
                own,
                "is not in train: no model can predict it",
                "are not in train: no model can predict them",
            ),
            (
                "untested-labels",
                "note",
                own,
                train,
                f"has no {split} rows: how well it is found is not known",
                f"have no {split} rows: how well they are found is not known",
            ),
        ):
            absent = [label for label, count in there.items() if count and not lacking[label]]
            if absent:
                affected = sum(there[label] for label in absent)
                listed = list_labels(absent)
                rows_of_them = format_count(affected, "row")
                yield Finding(
                    name=name,
                    severity="error" if severity == "error" else "note",
                    split=split,
                    count=len(absent),
                    share=len(absent) / len(own),
                    scope=rows.scope(split),
                    message=f"The label {listed} ({rows_of_them}) {one}."
                    if len(absent) == 1
                    else f"The labels {listed} ({rows_of_them}) {more}.",
                    remedy=_advise_unseen(absent, train) if severity == "error" else "",
                )


def _advise_unseen(unseen: Sequence[str], train: Mapping[str, int]) -> str:
    alike = match_cases(unseen, (label for label, count in train.items() if count))
    options = ["--merge-spellings"] * bool(alike) + ["--bad-rows drop"] * (len(alike) < len(unseen))
    return f"lorafit train DATA {' '.join(options)}"


def _find_rare(rows: Rows, counts: Mapping[str, int]) -> Iterator[Finding]:
    rare = {label: count for label, count in counts.items() if 0 < count < _FEW_ROWS}
    if rare:
        listed = ", ".join(f"{quote_label(label)} ({count})" for label, count in list(rare.items())[:8])
        more = "" if len(rare) <= 8 else f" and {len(rare) - 8:,} more"
        parts = 4 - len(rows.splits)  # into which train is cut: a label with fewer rows stops it
        mergeable = sum(count < parts for count in rare.values())
        yield _about_labels(
            rows,
            "rare-labels",
            len(rare),
            len(rare) / len(counts),
            f"{len(rare):,} of {format_count(len(counts), 'label')} {'has' if len(rare) == 1 else 'have'} fewer than "
            f"{_FEW_ROWS} training rows: {listed}{more}. That is too few to learn and to measure: collect more.",
            "lorafit train DATA --rare-labels merge:other" if 0 < mergeable < len(counts) else "",
        )


def _find_imbalance(rows: Rows, counts: Mapping[str, int]) -> Iterator[Finding]:
    there = {label: count for label, count in counts.items() if count}
    if len(there) < 2:
        return
    largest, smallest = max(there, key=lambda one: there[one]), min(there, key=lambda one: there[one])
    total = rows.count("train")
    share, is_steep = there[largest] / total, there[largest] >= _IMBALANCE * there[smallest]
    if sum(there.values()) != total or share < (0.5 if is_steep else _MAJORITY):
        return  # of several labels a row, each is a task of its own
    yield _about_labels(
        rows,
        "imbalance",
        there[largest],
        share,
        f"{write_share(share)} of the training rows have the label {quote_label(largest)}, and "
        f"{write_share(there[smallest] / total)} {quote_label(smallest)}: who always says the first is right that "
        "often, so look at F1 and recall, not at accuracy.",
        "lorafit train DATA --class-weights balanced",
    )


def _find_spellings(rows: Rows, names: Sequence[str]) -> Iterator[Finding]:
    groups = group_spellings(names)
    if groups:
        listed = "; ".join(" / ".join(map(quote_label, group)) for group in groups[:5])
        count = sum(map(len, groups))
        yield _about_labels(
            rows,
            "label-spellings",
            count,
            count / len(names),
            f"{count} labels are spellings of {len(groups)}: {listed}{'' if len(groups) <= 5 else '; …'}.",
            "lorafit check DATA --fix labels",
        )


def _find_sorted(rows: Rows, split: str) -> Iterator[Finding]:
    """Find rows of which those of a label stand together, whatever the order of the labels."""
    numbers = rows.number_classes()
    if numbers is None or rows.count(split) < _FEWEST_TO_SORT:
        return
    own = numbers[rows.splits[split]]
    kinds = Counter(own.tolist())
    runs = 1 + int(np.count_nonzero(own[1:] != own[:-1]))
    expected = 1 + (len(own) - 1) * (1 - sum((count / len(own)) ** 2 for count in kinds.values()))
    if len(kinds) > 1 and runs <= 0.1 * expected:
        total = rows.scope(split)
        yield Finding(
            name="sorted-by-label",
            severity="note",
            split=split,
            count=total.rows,
            share=1.0,
            scope=total,
            message=f"The {split} rows stand in {runs:,} blocks of one label each, {expected:,.0f} would be by chance: "
            "lorafit shuffles them; a tool that takes the first rows, or cuts without shuffling, gets one label.",
        )


def _about_labels(rows: Rows, name: str, count: int, share: float, message: str, remedy: str) -> Finding:
    scope = rows.scope("train")
    return Finding(
        name=name,
        severity="warning",
        split="train",
        count=count,
        share=share,
        scope=Scope(rows=scope.rows, of=scope.of),
        message=message,
        remedy=remedy,
    )
