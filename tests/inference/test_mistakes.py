from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from lorafit.data.rows import Split
from lorafit.inference.mistakes import explain_mistakes, list_explained_lengths
from lorafit.system.progress import Silent

WEIGHTS = {"superb": 3.0, "fine": 1.0, "dull": -2.0}


class BagOfWords:
    """Log-odds of `pos` are a sum of weights: what a word adds is known."""

    labels = ("neg", "pos")
    task = "single_label"

    def compute_values(self, texts: Sequence[str]) -> NDArray[np.float64]:
        odds = np.array([sum(WEIGHTS.get(word, 0.0) for word in text.split()) for text in texts])
        chances = 1 / (1 + np.exp(-odds))
        return np.stack([1 - chances, chances], axis=1)


def build_split(texts: list[str], labels: list[int]) -> Split:
    return Split(texts=tuple(texts), labels=np.array(labels), ids=np.arange(len(texts)) + 100)


def test_the_most_confident_mistakes_are_explained_by_their_wrong_label() -> None:
    texts = ["a fine film", "dull but superb , superb", "superb", "a dull story", "nothing at all"]
    rows = build_split(texts, [0, 0, 1, 1, 0])
    classifier = BagOfWords()
    record = explain_mistakes(classifier, rows, classifier.compute_values(texts), Silent())
    assert [(mistake.row_id, mistake.label) for mistake in record.mistakes] == [
        (101, "pos"),
        (103, "neg"),
        (100, "pos"),
    ]
    first = {(word.start, word.end): word.contribution for word in record.mistakes[0].words}
    assert {texts[1][start:end] for start, end in first} == {"dull", "but", "superb", ","}
    assert first[0, 4] == pytest.approx(-2.0)
    assert [value for (start, end), value in first.items() if texts[1][start:end] == "superb"] == pytest.approx([3, 3])
    assert "superb" not in record.model_dump_json()


def test_a_long_text_is_explained_in_groups_and_no_more_than_ten_are() -> None:
    texts = [f"superb {'of ' * 300}{row}" for row in range(12)]
    classifier = BagOfWords()
    record = explain_mistakes(classifier, build_split(texts, [0] * 12), classifier.compute_values(texts), Silent())
    assert len(record.mistakes) == 10
    assert all(len(mistake.words) <= 64 for mistake in record.mistakes)


def test_without_mistakes_nothing_is_explained() -> None:
    classifier = BagOfWords()
    rows = build_split(["superb"], [1])
    assert explain_mistakes(classifier, rows, classifier.compute_values(["superb"]), Silent()).mistakes == []


def test_what_is_foreseen_is_what_is_predicted() -> None:
    class Counting(BagOfWords):
        count = 0

        def compute_values(self, texts: Sequence[str]) -> NDArray[np.float64]:
            self.count += len(texts)
            return super().compute_values(texts)

    texts = [f"superb {' '.join(map(str, range(30)))} {row}" for row in range(10)]
    classifier = Counting()
    explain_mistakes(classifier, build_split(texts, [0] * 10), BagOfWords().compute_values(texts), Silent())
    foreseen = list_explained_lengths(np.full(50, 32))
    assert len(foreseen) == pytest.approx(classifier.count, abs=10)  # the whole text is predicted, too
    assert set(foreseen.tolist()) == {32}
