"""Test rows on the page: what is true of each, its text, and what was said of it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lorafit.reports.html import render_marked
from lorafit.reports.reading import Texts
from lorafit.system.text import clean_text

__all__ = [
    "LONG_TEXT",
    "SHORT_TEXT",
    "ShownRow",
    "choose_samples",
    "render_answer",
    "render_label",
    "render_rows",
    "render_verdict",
]

SHORT_TEXT: Final = 300
"""Characters that are shown of a sample's text."""

LONG_TEXT: Final = 500
"""Characters that are shown of a mistake's text."""

_SAMPLES = 6
_LONGEST_LABEL = 60


@dataclass(frozen=True)
class ShownRow:
    """A test row as the page shows it. In all HTML, what comes from outside is escaped.

    Attributes:
        place: Its place among the test rows, counted from 0.
        row_id: Its number in its source, counted from 1.
        truth: HTML of what is true of it.
        answers: HTML of what each model said, from `render_answer`.
        marks: Parts of its text to be marked, as `render_marked` takes them.
        note: HTML to stand below, or nothing.
    """

    place: int
    row_id: int
    truth: str
    answers: Sequence[str]
    marks: Sequence[tuple[int, int, str]] = ()
    note: str = ""


def choose_samples(rows: int, *, seed: int) -> NDArray[np.int64]:
    """Draw the test rows that are shown as samples, on the page and at the end of a training.

    Args:
        rows: How many test rows there are, at least 1.
        seed: `evaluation.seed`.

    Returns:
        Their places, in order; at most 6.
    """
    return np.sort(np.random.default_rng(seed).choice(rows, size=min(_SAMPLES, rows), replace=False))


def render_rows(rows: Iterable[ShownRow], texts: Texts, *, most: int) -> Iterator[str]:
    """Render rows with their texts; where there are none, with the reason above.

    Args:
        rows: In the order of the page.
        texts: Of all test rows.
        most: Characters after which a text is cut.

    Yields:
        HTML.
    """
    if texts.texts is None:
        yield f'<p class="quiet">{escape(texts.reason)}</p>'
    yield '<ul class="texts">'
    for row in rows:
        yield f"<li><p>Row {row.row_id:,}, {row.truth}</p>"
        if texts.texts is not None:
            yield f'<p class="text" dir="auto">{render_marked(texts.texts[row.place], row.marks, most=most)}</p>'
        yield f"<p>{' '.join(row.answers)}</p>{row.note}</li>"
    yield "</ul>"


def render_answer(when: str, said: str) -> str:
    """Render what a model said.

    Args:
        when: Which model: `before` or `after`.
        said: HTML of its answer.

    Returns:
        HTML.
    """
    return f'<span class="answer">{when}: {said}</span>'


def render_verdict(words: str, *, is_good: bool) -> str:
    """Render whether an answer is right, with a sign for those who do not see colours.

    Args:
        words: What is said of it; they are escaped here.
        is_good: Whether that is as it should be.

    Returns:
        HTML.
    """
    kind, sign = ("right", "✓") if is_good else ("wrong", "✗")
    return f'<span class="{kind}">{sign} {escape(words)}</span>'


def render_label(name: str) -> str:
    """Render the name of a label, cut where it is long, and escaped."""
    return f"<b>{escape(clean_text(name, most=_LONGEST_LABEL))}</b>"
