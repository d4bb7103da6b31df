"""What gives a label away that is not what the text says: its own name, its length, a single word.

A good clue is no shortcut: sentiment has its words and spam its exclamation marks. What is reported comes close to
telling the label alone, by the balanced accuracy of a rule with one threshold on rows it was not chosen on.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lorafit.data.quality.duplicates import split_words
from lorafit.data.quality.findings import Finding, FoundRow, write_share
from lorafit.data.quality.rows import Rows, Sample
from lorafit.tasks.labels import quote_label

_Floats = NDArray[np.float64]
_Bools = NDArray[np.bool_]

_ALONE: Final = 0.95
"""Balanced accuracy from which a single property tells a label alone."""

_FEWEST_ROWS: Final = 20
"""Rows with a label, and without it, that it takes to tell."""

_NAMED: Final = 0.5
"""Share of the rows of a label that have its name in them from which it is reported."""

_NAMED_MORE: Final = 5.0
"""How many times as often as rows without that label."""


def find_label_names(rows: Rows, sample: Sample) -> Iterator[Finding]:
    """Find labels whose name stands in most of their texts, and seldom in others.

    Args:
        rows: The rows.
        sample: Training rows that are looked at.

    Yields:
        A finding for each such label.
    """
    marks = rows.mark_labels(sample.positions)
    names = rows.task.label_names if rows.task is not None and marks.shape[1] else ()
    texts = [rows.texts[position].lower() for position in sample.positions.tolist()]
    for number, name in enumerate(names):
        own = marks[:, number]
        if not _is_word(name) or not _has_both(own):
            continue
        pattern = re.compile(rf"\b{re.escape(name.lower())}\b")
        named = np.array([name.lower() in text and pattern.search(text) is not None for text in texts])
        share, others = float(named[own].mean()), float(named[~own].mean())
        if share >= _NAMED and share >= _NAMED_MORE * others:
            yield _report(
                "label-in-text",
                sample,
                rows.list_rows(sample.positions[named & own]),
                int((named & own).sum()),
                f"The name of the label {quote_label(name)} stands in {write_share(share)} of its texts, and in "
                f"{write_share(others)} of the others: a model learns to read the label off.",
            )


def find_shortcuts(rows: Rows, sample: Sample) -> Iterator[Finding]:
    """Find properties and words that tell a label alone.

    Args:
        rows: The rows.
        sample: Training rows that are looked at.

    Yields:
        A finding for each label and property, and one for the best word of each label.
    """
    marks = rows.mark_labels(sample.positions)
    names = rows.task.label_names if rows.task is not None and marks.shape[1] else ()
    texts = [rows.texts[position] for position in sample.positions.tolist()]
    shown = [number for number in range(len(names)) if _has_both(marks[:, number])]
    if len(shown) == 2 and len(names) == 2 and (marks.sum(axis=1) == 1).all():
        shown = shown[1:]  # what tells one of two classes tells the other
    properties = measure_properties(texts) if shown else {}
    counts, total = _count_words(texts, marks)
    for number in shown:
        own, name = marks[:, number], quote_label(names[number])
        for title, values in properties.items():
            accuracy = score_threshold(values, own)
            if accuracy >= _ALONE:
                yield _report(
                    "property-tells-label",
                    sample,
                    (),
                    int(own.sum()),
                    f"The {title} of a text alone tells the label {name} with a balanced accuracy of "
                    f"{write_share(accuracy)}: a model may learn it instead of what texts say.",
                )
        word, accuracy = choose_word(counts[number], total, int(own.sum()), len(own))
        if accuracy >= _ALONE:
            yield _report(
                "word-tells-label",
                sample,
                (),
                int(own.sum()),
                f"The word {quote_label(word)} alone tells the label {name} with a balanced accuracy of "
                f"{write_share(accuracy)}: a model may learn it instead of what texts say.",
            )


def measure_properties(texts: list[str]) -> Mapping[str, _Floats]:
    """Measure what can be seen of texts without reading them: an array of shape (n,) for each property."""
    lengths = np.array([max(len(text), 1) for text in texts], dtype=np.float64)

    def measure(values: Iterator[float]) -> _Floats:
        return np.fromiter(values, np.float64, len(texts))

    return {
        "length": lengths,
        "number of words": measure(float(len(text.split())) for text in texts),
        "share of capitals": measure(float(sum(map(str.isupper, text))) for text in texts) / lengths,
        "share of digits": measure(float(sum(map(str.isdecimal, text))) for text in texts) / lengths,
        "number of exclamation marks": measure(float(text.count("!")) for text in texts),
        "number of question marks": measure(float(text.count("?")) for text in texts),
        "number of line breaks": measure(float(text.count("\n")) for text in texts),
        "last character": measure(float(text.rstrip()[-1:] in ".!?") for text in texts),
        "case of the first letter": measure(float(text.lstrip()[:1].isupper()) for text in texts),
        "share of letters beyond ASCII": measure(float(sum(character > "\x7f" for character in text)) for text in texts)
        / lengths,
    }


def score_threshold(values: _Floats, own: _Bools) -> float:
    """Score how well one threshold tells rows apart: chosen on every second row, measured on the others.

    Args:
        values: Shape (n,).
        own: Shape (n,): which rows are to be told from the others.

    Returns:
        Balanced accuracy, 0 to 1; 0 where a half lacks rows of either kind.
    """
    half = _halve(own)
    if not (_has_both(own[half], fewest=5) and _has_both(own[~half], fewest=5)):
        return 0.0
    order = np.argsort(values[half], kind="stable")
    ordered, is_own = values[half][order], own[half][order]
    above = np.concatenate([[1.0], 1 - np.cumsum(is_own) / is_own.sum()])
    others_above = np.concatenate([[1.0], 1 - np.cumsum(~is_own) / (~is_own).sum()])
    can_cut = np.concatenate([[True], ordered[1:] > ordered[:-1], [True]])
    gains = np.where(can_cut, above - others_above, 0.0)
    best = int(np.abs(gains).argmax())
    if best in {0, len(ordered)}:
        return 0.5
    is_above = values[~half] > (ordered[best - 1] + ordered[best]) / 2
    gain = is_above[own[~half]].mean() - is_above[~own[~half]].mean()
    return float(0.5 + np.sign(gains[best]) * gain / 2)


def choose_word(own: Counter[str], total: Counter[str], own_rows: int, rows: int) -> tuple[str, float]:
    """Choose the word that tells a label best by being in a text or not.

    Args:
        own: In how many rows of the label each word is.
        total: In how many of all.
        own_rows: Rows of the label.
        rows: All rows.

    Returns:
        The word, and the lower end of its balanced accuracy: as if in two more rows of each side it were wrong.
    """
    best, highest = "", 0.0
    others = rows - own_rows
    for word, count in total.items():
        if count < min(own_rows, others) / 2:
            continue
        inside, outside = own[word], count - own[word]
        right = max(inside / (own_rows + 2) + (others - outside) / (others + 2), 0.0)
        wrong = max((own_rows - inside) / (own_rows + 2) + outside / (others + 2), 0.0)
        if max(right, wrong) / 2 > highest:
            best, highest = word, max(right, wrong) / 2
    return best, highest


def _count_words(texts: list[str], marks: _Bools) -> tuple[list[Counter[str]], Counter[str]]:
    """Count in how many texts of each label, and of all, each word is."""
    counts, total = [Counter[str]() for _ in range(marks.shape[1])], Counter[str]()
    for text, row in zip(texts, marks, strict=True):
        words = set(split_words(text))
        total.update(words)
        for number in np.flatnonzero(row).tolist():
            counts[number].update(words)
    return counts, total


def _halve(own: _Bools) -> _Bools:
    """Return every second row of either kind."""
    half = np.zeros(len(own), dtype=bool)
    half[np.flatnonzero(own)[::2]] = True
    half[np.flatnonzero(~own)[::2]] = True
    return half


def _is_word(name: str) -> bool:
    return len(name) >= 3 and any(map(str.isalpha, name))


def _has_both(own: _Bools, fewest: int = _FEWEST_ROWS) -> bool:
    return fewest <= int(own.sum()) <= len(own) - fewest


def _report(name: str, sample: Sample, found: tuple[FoundRow, ...], count: int, message: str) -> Finding:
    return Finding(
        name=name,
        severity="warning",
        split=sample.split,
        count=count,
        share=count / sample.scope.rows,
        scope=sample.scope,
        message=message,
        rows=found,
    )
