import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest

import lorafit
from lorafit.errors import UserInputError
from lorafit.inference.explanation import Deletion, explain
from lorafit.tasks.base import Task
from lorafit.tasks.registry import build_task

from .conftest import LABELS, WEIGHTS, BagOfWords

TEXT = "a superb film !! lovely été 🎬 , not dull , only weak , weak at the end"
TWO = build_task("single_label", ("neg", "pos"))
"""Of which the last output of a `BagOfWords` is the log-odds of `pos`."""


class Constant(BagOfWords):
    def score(self, words: list[str]) -> float:
        del words
        return 1.0


class AnyOf(BagOfWords):
    """Gives `pos` if there is a `good` anywhere: a second one makes each of them seem needless."""

    def score(self, words: list[str]) -> float:
        return math.log(9) if "good" in words else -math.log(9)


class Certain(BagOfWords):
    """Gives 0 and 1."""

    def score(self, words: list[str]) -> float:
        return 1000.0 if "good" in words else -1000.0


def logistic(log_odds: float) -> float:
    return 1 / (1 + math.exp(-log_odds))


def test_a_linear_model_gives_its_weights_back() -> None:
    explanation = explain(BagOfWords(TWO), TEXT)
    assert explanation.label == "pos"
    assert explanation.score == pytest.approx(logistic(1.875))
    words = TEXT.split()
    assert [word.text for word in explanation.words] == words
    contributions = [word.contribution for word in explanation.words]
    assert contributions == pytest.approx([WEIGHTS.get(word, 0) for word in words], abs=1e-12)


def test_every_task_explains_what_is_first_of_all_predicted(
    task: Task, build_predictor: Callable[..., lorafit.Predictor]
) -> None:
    text = "a wonderful film from the first minute , boring to the last"
    predictor, words = build_predictor(task), text.split()
    left = [" ".join(words[:place] + words[place + 1 :]) for place in range(len(words))]
    values = predictor.compute_values([text, *left])
    explanation = explain(predictor, text)
    output = task.main_output(values)[0]
    assert (explanation.task, explanation.label) == (task, task.label_names[output])
    assert explanation.score == pytest.approx(values[0, output], abs=1e-6)
    assert explanation.prediction.describe() == predictor.predict([text])[0].describe()
    added = task.contribution(values, output)
    assert np.ptp(added) > 0.01
    assert [word.contribution for word in explanation.words] == pytest.approx((added[0] - added[1:]).tolist(), abs=1e-4)
    for label in task.label_names:
        assert explain(predictor, text, label=label).label == label


@pytest.mark.parametrize("name", ["multi_label", "regression", "ordinal"])
def test_contributions_are_in_the_unit_of_the_task(name: str) -> None:
    """A last output that is a sum of weights gives them back: the number itself, or the log-odds of the last label."""
    task = build_task(name, ("1", "2") if name == "ordinal" else LABELS[name])
    explanation = explain(BagOfWords(task), TEXT, label=task.label_names[-1])
    expected = [WEIGHTS.get(word, 0) for word in TEXT.split()]
    assert [word.contribution for word in explanation.words] == pytest.approx(expected, abs=1e-9)
    assert explanation.faithfulness is not None
    assert explanation.faithfulness > 0


def test_another_label_is_explained_from_its_own_side() -> None:
    pos, neg = (explain(BagOfWords(TWO), TEXT, label=label) for label in ("pos", "neg"))
    assert (neg.label, neg.score, neg.prediction) == ("neg", pytest.approx(1 - pos.score), pos.prediction)
    opposite = [-word.contribution for word in pos.words]
    assert [word.contribution for word in neg.words] == pytest.approx(opposite, abs=1e-12)
    left = sum(sorted((WEIGHTS.get(word, 0) for word in TEXT.split()), reverse=True)[:-2])
    assert neg.deletions[0].drop == pytest.approx(neg.score - logistic(-left)), "dull and a weak are deleted"


@pytest.mark.parametrize(
    "text", [TEXT, "  good\n\ngood (good)don't 👩\u200d👩\u200d👧  e\u0301te\u0301 ", "不好看 film"]
)
def test_words_stand_where_they_say(text: str) -> None:
    words = explain(Constant(TWO), text).words
    assert [word.text for word in words] == [text[word.start : word.end] for word in words]
    assert "".join(word.text for word in words) == "".join(text.split())


def test_signs_that_a_real_model_does_not_read_are_no_words(
    build_predictor: Callable[..., lorafit.Predictor],
) -> None:
    explained = lorafit.explain(build_predictor(TWO), "\u200b superb \x00 film \ufeff")
    assert [word.text for word in explained.words] == ["superb", "film"]


def test_the_same_call_gives_the_same_and_another_seed_other_draws() -> None:
    text = "superb and lovely to the last minute of a dull film"
    first, again, other = (explain(BagOfWords(TWO), text, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.words == other.words
    assert [deletion.drop for deletion in first.deletions] == [deletion.drop for deletion in other.deletions]
    assert first.random_drop != other.random_drop


def test_drops_are_those_of_the_words_of_highest_contribution() -> None:
    explanation = explain(BagOfWords(TWO), TEXT)
    assert [(deletion.share, deletion.count) for deletion in explanation.deletions] == [(0.1, 2), (0.2, 4), (0.5, 9)]
    weights = sorted((WEIGHTS.get(word, 0) for word in TEXT.split()), reverse=True)
    for deletion in explanation.deletions:
        left = sum(weights[deletion.count :])
        assert deletion.drop == pytest.approx(explanation.score - logistic(left))
    assert explanation.drop == pytest.approx(sum(deletion.drop for deletion in explanation.deletions) / 3)


def test_random_drops_average_over_all_deletions_of_the_same_size() -> None:
    words = ["superb", "dull", "weak", "film", "lovely", "end"]
    model = BagOfWords(TWO)
    explanation = explain(model, " ".join(words), draws=4000)
    for deletion in explanation.deletions:
        every = [logistic(model.score(list(kept))) for kept in combinations(words, len(words) - deletion.count)]
        drops = explanation.score - np.array(every)
        assert len(deletion.random_drops) == 4000
        assert deletion.random_drop == pytest.approx(drops.mean(), abs=5 * drops.std() / 4000**0.5)
        assert set(np.round(deletion.random_drops, 9)) == set(np.round(drops, 9))


def test_the_explanation_of_a_linear_model_beats_chance() -> None:
    explanation = explain(BagOfWords(TWO), TEXT)
    assert [len(deletion.random_drops) for deletion in explanation.deletions] == [10, 10, 10]
    assert explanation.beats_chance is True
    assert explanation.faithfulness == explanation.drop - explanation.random_drop > 0.2


def test_a_constant_model_has_no_reasons(task: Task) -> None:
    explanation = explain(Constant(task), TEXT)
    assert {word.contribution for word in explanation.words} == {0}
    assert (explanation.drop, explanation.random_drop, explanation.faithfulness) == (0, 0, 0)
    assert explanation.beats_chance is False


def test_reasons_that_stand_in_for_each_other_are_missed_and_the_test_says_so() -> None:
    explanation = explain(AnyOf(TWO), "one two three four five six seven eight good good", draws=100)
    assert {word.contribution for word in explanation.words} == {0}
    assert explanation.score == pytest.approx(0.9)
    assert explanation.drop == 0
    assert explanation.faithfulness < 0
    assert explanation.beats_chance is False


def test_one_draw_as_good_as_the_explanation_is_enough_to_doubt_it() -> None:
    explanation = explain(BagOfWords(TWO), TEXT)
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
    explanation = explain(BagOfWords(TWO), " ".join(TEXT.split()[:words]))
    assert [deletion.count for deletion in explanation.deletions] == counts
    assert (explanation.beats_chance is None) == (explanation.faithfulness is None) == (not counts)


def test_a_text_of_one_word_has_a_score_and_no_contributions() -> None:
    model = BagOfWords(TWO)
    explanation = explain(model, " superb\n")
    assert (explanation.words, explanation.deletions, explanation.words_a_span) == ((), (), 1)
    assert (explanation.text, explanation.label) == (" superb\n", "pos")
    assert explanation.score == pytest.approx(logistic(2))
    assert model.calls == [[" superb\n"]]


@pytest.mark.parametrize(
    ("words", "size", "spans"),
    [(256, 1, 256), (257, 2, 129), (768, 3, 256)],
)
def test_long_texts_are_explained_in_groups(words: int, size: int, spans: int) -> None:
    model = BagOfWords(TWO)
    explanation = explain(model, " ".join(["superb", *(f"w{word}" for word in range(words - 1))]))
    assert explanation.words_a_span == size
    assert len(explanation.words) == spans
    assert {len(word.text.split()) for word in explanation.words[:-1]} == {size}
    assert [word.contribution for word in explanation.words] == pytest.approx([2] + [0] * (spans - 1), abs=1e-12)
    assert len(model.calls[0]) == 1 + spans


def test_the_predictor_is_asked_twice_and_never_the_same_or_nothing() -> None:
    model = BagOfWords(TWO)
    words = explain(model, "superb superb film, film, film, dull").words
    assert len(model.calls) == 2
    for texts in model.calls:
        assert len(texts) == len(set(texts))
        assert all(text.strip() for text in texts)
    assert words[0].contribution == words[1].contribution == pytest.approx(2)


def test_certainty_stays_finite() -> None:
    explanation = explain(Certain(TWO), "one good film after another")
    contributions = [word.contribution for word in explanation.words]
    assert contributions == pytest.approx([0, -2 * math.log(1e-12), 0, 0, 0])
    assert explanation.drop == 1


@pytest.mark.parametrize(
    ("text", "fault"),
    [("", "an empty text"), (" \n", "an empty text"), ("\ud800 x", "a text with half"), (None, "no text")],
)
def test_what_cannot_be_predicted_is_refused(text: str, fault: str) -> None:
    with pytest.raises(UserInputError, match=rf"^This cannot be explained: {fault}"):
        explain(BagOfWords(TWO), text)


def test_an_unknown_label_is_refused_with_those_there_are() -> None:
    with pytest.raises(UserInputError, match=r"^There is no label 'po\\x1bs'\. Allowed: 'neg', 'pos'\.$"):
        explain(BagOfWords(TWO), TEXT, label="po\x1bs")


def test_draws_below_one_are_refused() -> None:
    with pytest.raises(UserInputError, match=r"draws must be at least 1, got 0"):
        explain(BagOfWords(TWO), TEXT, draws=0)
