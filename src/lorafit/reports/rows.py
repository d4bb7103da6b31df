"""Test rows as the page shows them: their text, their true label, the predictions, and the words behind mistakes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lorafit.inference.mistakes import ExplainedMistake, SpanContribution
from lorafit.reports.contents import RunContents, Texts
from lorafit.system.text import Text, clean_text, join_text
from lorafit.tasks.base import Task
from lorafit.tasks.evaluation import find_mistakes

_SAMPLES = 6
_MOST_WORDS = 5
_WEAK = 0.15
"""Share of the strongest contribution below which a word is neither marked nor listed."""


@dataclass(frozen=True)
class ShownPrediction:
    """A prediction for a test row.

    Attributes:
        model: `before` or `after`.
        prediction: The prediction in words.
        is_right: Whether it is the true label; None where it is never simply right or wrong.
        error: How it differs from the true label, or nothing.
    """

    model: str
    prediction: str
    is_right: bool | None
    error: str


@dataclass(frozen=True)
class ShownWords:
    """The words that a wrong prediction rests on.

    Attributes:
        label: The label that it is wrong about.
        marks: Parts of the text to be marked: first character, character after the last, and CSS class.
        listed: The strongest words with their contributions, by the heading of those that add to the label's value and
            of those that take from it.
        is_doubtful: Whether they were not shown to matter more than other words.
    """

    label: str
    marks: Sequence[tuple[int, int, str]]
    listed: Mapping[str, str]
    is_doubtful: bool


@dataclass(frozen=True)
class ShownRow:
    """A test row. What comes from outside is not yet made safe.

    Attributes:
        row_id: Its number in its source, counted from 1.
        truth: Its true label.
        text: Its text or pair of texts, or None where texts are left out.
        predictions: Those of each model.
        words: What the prediction rests on, where that is known and the text is shown.
    """

    row_id: int
    truth: str
    text: Text | None
    predictions: Sequence[ShownPrediction]
    words: ShownWords | None = None

    @property
    def lines(self) -> list[tuple[str, list[tuple[int, int, str]]]]:
        """The text, or both texts of a pair, each with what is marked in it."""
        marks, lines, begin = self.words.marks if self.words else (), [], 0
        for text in (self.text,) if isinstance(self.text, str) else self.text or ():
            end = begin + len(text)
            own = [(first - begin, last - begin, kind) for first, last, kind in marks if begin <= first < end]
            lines.append((text, own))
            begin = end + 1
        return lines


def choose_samples(rows: int, *, seed: int) -> NDArray[np.int64]:
    """Draw the test rows that are shown as samples, on the page and at the end of a training.

    Args:
        rows: How many test rows there are, at least 1.
        seed: `evaluation.seed`.

    Returns:
        Their places, in order; at most 6.
    """
    return np.sort(np.random.default_rng(seed).choice(rows, size=min(_SAMPLES, rows), replace=False))


def show_samples(contents: RunContents, texts: Texts) -> list[ShownRow]:
    """Show some test rows, drawn at random."""
    places = choose_samples(len(contents.y), seed=contents.config.evaluation.seed)
    return [_show(contents, texts, place) for place in places.tolist()]


def show_mistakes(contents: RunContents, texts: Texts) -> list[ShownRow]:
    """Show the rows on which the fine-tuned model is most wrong, with the words that misled it where they are known."""
    places = find_mistakes(contents.task, contents.y, contents.after).tolist()
    return [_show(contents, texts, place, explained=True) for place in places]


def _show(contents: RunContents, texts: Texts, place: int, *, explained: bool = False) -> ShownRow:
    row_id, truth = int(contents.row_ids[place]), contents.labels[place]
    text = None if texts.texts is None else texts.texts[place]
    mistake = contents.mistakes.get(row_id) if explained else None
    return ShownRow(
        row_id=row_id,
        truth=contents.task.describe_label(truth),
        text=text,
        predictions=[
            ShownPrediction(model, prediction.describe(), prediction.is_right(truth), prediction.describe_error(truth))
            for model, prediction in contents.predict(place).items()
        ],
        words=None if mistake is None or text is None else _show_words(contents.task, mistake, join_text(text)),
    )


def _show_words(task: Task, mistake: ExplainedMistake, text: str) -> ShownWords:
    """Choose the words that matter; of the strongest the contribution is told: some may stand where the text is cut."""
    least = _WEAK * max((abs(word.contribution) for word in mistake.words), default=0)
    strong = [word for word in mistake.words if word.contribution and abs(word.contribution) >= least]
    ranked = sorted(strong, key=lambda word: -abs(word.contribution))
    sides = {
        task.wording.raises: [word for word in ranked if word.contribution > 0],
        task.wording.lowers: [word for word in ranked if word.contribution < 0],
    }
    return ShownWords(
        label=mistake.label,
        marks=[(word.start, word.end, "for" if word.contribution > 0 else "against") for word in strong],
        listed={
            heading: ", ".join(_write_word(task, word, text) for word in words[:_MOST_WORDS])
            for heading, words in sides.items()
            if words
        },
        is_doubtful=mistake.beats_chance is False,
    )


def _write_word(task: Task, word: SpanContribution, text: str) -> str:
    contribution = next(iter(task.contribution_columns(word.contribution).values()))
    return f"“{clean_text(text[word.start : word.end], most=40)}” {contribution}"
