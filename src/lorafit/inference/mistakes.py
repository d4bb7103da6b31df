"""Which words the most confident mistakes rest on, for the report. No text is kept."""

import numpy as np
from numpy.typing import NDArray

from lorafit.data.rows import Split
from lorafit.evidence import ExplainedMistake, MistakesRecord, SpanContribution
from lorafit.inference.explanation import TextModel, explain
from lorafit.metrics.scores import find_mistakes
from lorafit.system.progress import Progress

__all__ = ["explain_mistakes", "list_explained_lengths"]

_MISTAKES = 10
_SPANS = 64
"""Parts in which a text is explained; a long review has groups of words."""

_DELETIONS = 33
"""Texts of a deletion test: three shares, each by contribution and ten times at random."""


def explain_mistakes(
    classifier: TextModel, rows: Split, probabilities: NDArray[np.float64], progress: Progress
) -> MistakesRecord:
    """Explain the rows that are wrong with the most confidence: why did they get the label they got?

    Args:
        classifier: The trained model.
        rows: The n test rows.
        probabilities: What it said of them, shape (n, classes).
        progress: Told what is done.

    Returns:
        The words' contributions, without texts.
    """
    wrong, mistakes = find_mistakes(rows.labels, probabilities, most=_MISTAKES).tolist(), []
    progress.start("explaining the most confident mistakes", total=len(wrong), unit="text")
    for done, row in enumerate(wrong, start=1):
        label = classifier.labels[int(probabilities[row].argmax())]
        found = explain(classifier, rows.texts[row], label=label, most_spans=_SPANS)
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
