"""`mistakes.json`: which words the worst predictions of a run rest on, for the report. No text is kept."""

import numpy as np
from numpy.typing import NDArray

from lorafit.data.rows import Split
from lorafit.inference.explanation import TextModel, explain
from lorafit.system.progress import Progress
from lorafit.system.records import FileRecord, Record
from lorafit.tasks.base import Array
from lorafit.tasks.evaluation import find_mistakes

_MISTAKES = 10
_SPANS = 64
"""Parts in which a text is explained; a long review has groups of words."""

_DELETIONS = 33
"""Texts of a deletion test: three shares, each by contribution and ten times at random."""


class SpanContribution(Record):
    """What a word, or a group of words, adds to the value of a label.

    Attributes:
        start: Its first character in the text, counted from 0.
        end: The character after its last.
        contribution: As `WordContribution.contribution`.
    """

    start: int
    end: int
    contribution: float


class ExplainedMistake(Record):
    """Why a row got a wrong prediction. The text is not in it.

    Attributes:
        row_id: Number of the row in its source.
        label: The label that the prediction is wrong about (`Task.mistaken_output`).
        words: What each word adds to its value, in the order of the text; none for a text of one word.
        beats_chance: Whether deleting the words that add most lowers the value more than deleting others does; None for
            texts too short for that test.
    """

    row_id: int
    label: str
    words: list[SpanContribution]
    beats_chance: bool | None


class MistakesRecord(FileRecord):
    """`mistakes.json`: the test rows on which a model is most wrong, and the words that misled it.

    Attributes:
        mistakes: The worst first.
    """

    mistakes: list[ExplainedMistake]


def explain_mistakes(predictor: TextModel, rows: Split, values: Array, progress: Progress) -> MistakesRecord:
    """Explain the rows on which a model is most wrong.

    Args:
        predictor: The trained model.
        rows: The n test rows.
        values: Its values of them, shape (n, labels).
        progress: Told what is done.

    Returns:
        The words' contributions, without texts.
    """
    task, mistakes = predictor.task, []
    wrong, outputs = find_mistakes(task, rows.y, values, most=_MISTAKES), task.mistaken_output(rows.y, values)
    progress.start("explaining the worst predictions", total=len(wrong), unit="text")
    for done, row in enumerate(wrong.tolist(), start=1):
        label = task.label_names[outputs[row]]
        found = explain(predictor, rows.texts[row], label=label, most_spans=_SPANS)
        words = [
            SpanContribution(start=word.start, end=word.end, contribution=word.contribution) for word in found.words
        ]
        row_id = int(rows.ids[row])
        mistakes.append(ExplainedMistake(row_id=row_id, label=label, words=words, beats_chance=found.beats_chance))
        progress.update(done)
    progress.finish()
    return MistakesRecord(mistakes=mistakes)


def list_explained_lengths(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Foresee what explaining the mistakes will predict.

    Args:
        lengths: Tokens of each test text, shape (n,), n at least 1.

    Returns:
        Tokens of each text with a word left out, for mistakes whose lengths are distributed as those of all.
    """
    drawn = np.sort(lengths)[np.linspace(0, len(lengths) - 1, _MISTAKES).astype(np.int64)]
    return np.repeat(drawn, np.minimum(drawn, _SPANS) + _DELETIONS)
