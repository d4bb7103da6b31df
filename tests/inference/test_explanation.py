import math
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import lorafit
from lorafit.config import ModelConfig
from lorafit.errors import UserInputError
from lorafit.inference.explanation import Deletion, explain
from lorafit.inference.predictor import Predictor
from lorafit.labels import LabelSet
from lorafit.models.acceleration.precision import PrecisionChoice
from lorafit.models.load import load_tokenizer, load_with_head, locate_encoder
from lorafit.models.runtimes.pytorch import TorchRuntime
from lorafit.models.tokenization import Truncation

WEIGHTS = {"superb": 2.0, "lovely": 1.5, "été": 0.75, "🎬": 0.25, "dull": -1.75, "weak": -0.5, "!!": 0.125}
TEXT = "a superb film !! lovely été 🎬 , not dull , only weak , weak at the end"


class Spied:
    """A classifier that keeps what it was asked."""

    labels = ("neg", "pos")
    task = "single_label"

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def compute_values(self, texts: Sequence[str]) -> NDArray[np.float64]:
        self.calls.append(list(texts))
        chances = np.array([self.compute_chance(text.split()) for text in texts])
        return np.stack([1 - chances, chances], axis=1)

    def compute_chance(self, words: list[str]) -> float:
        raise NotImplementedError


class BagOfWords(Spied):
    """Log-odds of `pos` are a sum of weights: what a word adds is known."""

    def compute_chance(self, words: list[str]) -> float:
        return 1 / (1 + math.exp(-sum(WEIGHTS.get(word, 0) for word in words)))


class Constant(Spied):
    def compute_chance(self, words: list[str]) -> float:  # noqa: ARG002
        return 0.75


class AnyOf(Spied):
    """Says `pos` if there is a `good` anywhere: a second one makes each of them seem needless."""

    def compute_chance(self, words: list[str]) -> float:
        return 0.9 if "good" in words else 0.1


class Certain(Spied):
    """Gives 0 and 1."""

    def compute_chance(self, words: list[str]) -> float:
        return float("good" in words)


class Independent(Spied):
    """Of two labels a text may have both: each has log-odds of its own."""

    task = "multi_label"

    def compute_chance(self, words: list[str]) -> float:
        return 0.9 if "good" in words else 0.2

    def compute_values(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return np.stack([np.full(len(texts), 0.75), super().compute_values(texts)[:, 1]], axis=1)


class Stars(Spied):
    """Gives a number: the sum of the weights."""

    labels = ("stars",)
    task = "regression"

    def compute_values(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return np.array([[sum(WEIGHTS.get(word, 0) for word in text.split())] for text in texts])


@pytest.fixture(scope="module")
def tiny(build_encoder: Callable[..., Path]) -> Predictor:
    """A real predictor of three classes, whose wide weights let a word change the output."""
    torch.set_num_threads(1)
    labels = LabelSet(("bad", "fair", "good"))
    encoder = build_encoder("distilbert", initializer_range=0.3)
    model = load_with_head(locate_encoder(ModelConfig(name=str(encoder))), labels).model
    tokenizer, pad_id = load_tokenizer(encoder)
    runtime = TorchRuntime(model, PrecisionChoice("fp32", "for the test"))
    return Predictor(runtime, tokenizer, pad_id=pad_id, labels=labels, truncation=Truncation(32))


def test_a_linear_model_gives_its_weights_back() -> None:
    explanation = explain(BagOfWords(), TEXT)
    assert (explanation.label, explanation.predicted) == ("pos", "pos")
    assert explanation.score == pytest.approx(1 / (1 + math.exp(-1.875)))
    words = TEXT.split()
    assert [word.text for word in explanation.words] == words
    contributions = [word.contribution for word in explanation.words]
    assert contributions == pytest.approx([WEIGHTS.get(word, 0) for word in words], abs=1e-12)


def test_another_label_is_explained_from_its_own_side() -> None:
    pos, neg = (explain(BagOfWords(), TEXT, label=label) for label in ("pos", "neg"))
    assert (neg.label, neg.predicted, neg.score) == ("neg", "pos", pytest.approx(1 - pos.score))
    opposite = [-word.contribution for word in pos.words]
    assert [word.contribution for word in neg.words] == pytest.approx(opposite, abs=1e-12)
    left = sum(sorted((WEIGHTS.get(word, 0) for word in TEXT.split()), reverse=True)[:-2])
    assert neg.deletions[0].drop == pytest.approx(neg.score - 1 / (1 + math.exp(left))), "dull and a weak are deleted"


@pytest.mark.parametrize(
    "text", [TEXT, "  good\n\ngood (good)don't 👩\u200d👩\u200d👧  e\u0301te\u0301 ", "不好看 film"]
)
def test_words_stand_where_they_say(text: str) -> None:
    words = explain(Constant(), text).words
    assert [word.text for word in words] == [text[word.start : word.end] for word in words]
    assert "".join(word.text for word in words) == "".join(text.split())


def test_a_real_model_of_three_classes_agrees_with_leaving_out_by_hand(tiny: Predictor) -> None:
    text = "a wonderful film from the first minute , boring to the last"
    words = text.split()

    def log_odds(words: list[str]) -> float:
        chance = tiny.predict_proba([" ".join(words)])[0, tiny.labels.index("fair")]
        return math.log(chance / (1 - chance))

    expected = [log_odds(words) - log_odds(words[:place] + words[place + 1 :]) for place in range(len(words))]
    explanation = explain(tiny, text, label="fair")
    assert np.ptp(expected) > 0.1
    assert [word.contribution for word in explanation.words] == pytest.approx(expected, abs=1e-4)
    assert explanation.score == pytest.approx(tiny.predict_proba([text])[0, 1], abs=1e-6)
    assert explanation.predicted == tiny.predict([text])[0].label
    assert explain(tiny, text).label == explanation.predicted


def test_the_facade_explains_what_a_real_model_reads_in_no_way_at_all(tiny: Predictor) -> None:
    assert len(lorafit.explain(tiny, "\u200b superb \x00").words) == 3


def test_the_same_call_gives_the_same_and_another_seed_other_draws(tiny: Predictor) -> None:
    text = "superb and lovely to the last minute of a poor film"
    first, again, other = (explain(tiny, text, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.words == other.words
    assert [deletion.drop for deletion in first.deletions] == [deletion.drop for deletion in other.deletions]
    assert first.random_drop != other.random_drop


def test_drops_are_those_of_the_words_of_highest_contribution() -> None:
    explanation = explain(BagOfWords(), TEXT)
    assert [(deletion.share, deletion.count) for deletion in explanation.deletions] == [(0.1, 2), (0.2, 4), (0.5, 9)]
    weights = sorted((WEIGHTS.get(word, 0) for word in TEXT.split()), reverse=True)
    for deletion in explanation.deletions:
        left = sum(weights[deletion.count :])
        assert deletion.drop == pytest.approx(explanation.score - 1 / (1 + math.exp(-left)))
    assert explanation.drop == pytest.approx(sum(deletion.drop for deletion in explanation.deletions) / 3)


def test_random_drops_average_over_all_deletions_of_the_same_size() -> None:
    words = ["superb", "dull", "weak", "film", "lovely", "end"]
    explanation = explain(BagOfWords(), " ".join(words), draws=4000)
    chance = BagOfWords().compute_chance
    for deletion in explanation.deletions:
        every = [chance(list(kept)) for kept in combinations(words, len(words) - deletion.count)]
        drops = explanation.score - np.array(every)
        assert len(deletion.random_drops) == 4000
        assert deletion.random_drop == pytest.approx(drops.mean(), abs=5 * drops.std() / 4000**0.5)
        assert set(np.round(deletion.random_drops, 9)) == set(np.round(drops, 9))


def test_the_explanation_of_a_linear_model_beats_chance() -> None:
    explanation = explain(BagOfWords(), TEXT)
    assert [len(deletion.random_drops) for deletion in explanation.deletions] == [10, 10, 10]
    assert explanation.beats_chance is True
    assert explanation.faithfulness == explanation.drop - explanation.random_drop > 0.2


def test_a_constant_model_has_no_reasons() -> None:
    explanation = explain(Constant(), TEXT)
    assert {word.contribution for word in explanation.words} == {0}
    assert (explanation.drop, explanation.random_drop, explanation.faithfulness) == (0, 0, 0)
    assert explanation.beats_chance is False


def test_reasons_that_stand_in_for_each_other_are_missed_and_the_test_says_so() -> None:
    explanation = explain(AnyOf(), "one two three four five six seven eight good good", draws=100)
    assert {word.contribution for word in explanation.words} == {0}
    assert explanation.score == 0.9
    assert explanation.drop == 0
    assert explanation.faithfulness < 0
    assert explanation.beats_chance is False


def test_one_draw_as_good_as_the_explanation_is_enough_to_doubt_it() -> None:
    explanation = explain(BagOfWords(), TEXT)
    (first, *rest), drop = explanation.deletions, explanation.drop
    assert drop > 0
    for better, verdict in ((drop, False), (drop - 1e-9, True)):
        deletions = [
            Deletion(each.share, each.count, each.drop, (better, *[0.0] * 9)) for each in (first, *rest)
        ]  # fmt: skip
        changed = type(explanation)(**(vars(explanation) | {"deletions": tuple(deletions)}))
        assert changed.beats_chance is verdict


@pytest.mark.parametrize(
    ("words", "counts"), [(1, []), (2, []), (3, [2]), (5, [3]), (6, [2, 3]), (10, [2, 5]), (11, [2, 3, 6])]
)
def test_deletions_of_one_word_test_nothing_and_are_left_out(words: int, counts: list[int]) -> None:
    explanation = explain(BagOfWords(), " ".join(TEXT.split()[:words]))
    assert [deletion.count for deletion in explanation.deletions] == counts
    assert (explanation.beats_chance is None) == (explanation.faithfulness is None) == (not counts)


def test_a_text_of_one_word_has_a_score_and_no_contributions() -> None:
    predictor = BagOfWords()
    explanation = explain(predictor, " superb\n")
    assert (explanation.words, explanation.deletions, explanation.words_a_span) == ((), (), 1)
    assert (explanation.text, explanation.label) == (" superb\n", "pos")
    assert explanation.score == pytest.approx(1 / (1 + math.exp(-2)))
    assert predictor.calls == [[" superb\n"]]


@pytest.mark.parametrize(
    ("words", "size", "spans"),
    [(256, 1, 256), (257, 2, 129), (768, 3, 256)],
)
def test_long_texts_are_explained_in_groups(words: int, size: int, spans: int) -> None:
    predictor = BagOfWords()
    explanation = explain(predictor, " ".join(["superb", *(f"w{word}" for word in range(words - 1))]))
    assert explanation.words_a_span == size
    assert len(explanation.words) == spans
    assert {len(word.text.split()) for word in explanation.words[:-1]} == {size}
    assert [word.contribution for word in explanation.words] == pytest.approx([2] + [0] * (spans - 1), abs=1e-12)
    assert len(predictor.calls[0]) == 1 + spans


def test_the_predictor_is_asked_twice_and_never_the_same_or_nothing() -> None:
    predictor = BagOfWords()
    words = explain(predictor, "superb superb film, film, film, dull").words
    assert len(predictor.calls) == 2
    for texts in predictor.calls:
        assert len(texts) == len(set(texts))
        assert all(text.strip() for text in texts)
    assert words[0].contribution == words[1].contribution == pytest.approx(2)


def test_certainty_stays_finite() -> None:
    explanation = explain(Certain(), "one good film after another")
    contributions = [word.contribution for word in explanation.words]
    assert contributions == pytest.approx([0, -2 * math.log(1e-12), 0, 0, 0])
    assert explanation.drop == 1


@pytest.mark.parametrize(
    ("text", "fault"),
    [("", "an empty text"), (" \n", "an empty text"), ("\ud800 x", "a text with half"), (None, "no text")],
)
def test_what_cannot_be_classified_is_refused(text: str, fault: str) -> None:
    with pytest.raises(UserInputError, match=rf"^This cannot be explained: {fault}"):
        explain(BagOfWords(), text)


def test_an_unknown_label_is_refused_with_those_there_are() -> None:
    with pytest.raises(UserInputError, match=r"^There is no label 'po\\x1bs'\. Allowed: 'neg', 'pos'\.$"):
        explain(BagOfWords(), TEXT, label="po\x1bs")


def test_draws_below_one_are_refused() -> None:
    with pytest.raises(UserInputError, match=r"draws must be at least 1, got 0"):
        explain(BagOfWords(), TEXT, draws=0)


def test_labels_that_a_text_may_have_together_are_explained_each_by_itself() -> None:
    found = explain(Independent(), "a good film", label="pos")
    assert [word.contribution for word in found.words] == pytest.approx([0, math.log(9) - math.log(0.25), 0])
    other = explain(Independent(), "a good film", label="neg")
    assert (other.score, [word.contribution for word in other.words]) == (0.75, [0, 0, 0])
    assert other.predicted == "pos"


def test_number_is_explained_in_its_unit() -> None:
    found = explain(Stars(), TEXT)
    assert (found.task, found.label, found.predicted) == ("regression", "stars", "stars")
    assert found.score == pytest.approx(1.875)
    assert {word.text: word.contribution for word in found.words if word.contribution} == pytest.approx(WEIGHTS)
    assert found.faithfulness is not None
    assert found.faithfulness > 0
