"""Word models: columns as scikit-learn's HashingVectorizer has them, and what is kept of a model."""

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorafit.errors import MissingExtraError
from lorafit.tasks import word_model
from lorafit.tasks.baselines import fit_classes, fit_marks, fit_numbers
from lorafit.tasks.metrics import sigmoid, softmax
from lorafit.tasks.word_model import HASHES, Reading, WordModel

WORDS = ["dreadful", "poor", "fine", "good", "superb", "room", "view"]
TEXTS = [" ".join(WORDS[(row * step) % 7] for step in range(1, 5)) for row in range(70)]
MARKS = np.stack([np.arange(70) % 3 == 0, np.arange(70) % 2 == 0, np.ones(70) > 0, np.zeros(70) > 0], axis=1)

UNICODE = st.text(st.characters(exclude_categories=["Cs"]))
SENTENCES = st.lists(st.one_of(st.sampled_from([*WORDS, "!", "?", "don't", "İ", "ẞ", "好", "\n"]), UNICODE)).map(
    " ".join
)


def count_by_sklearn(text: str, words: int) -> dict[int, float]:
    """What the vectorizer that word models stand for gives."""
    from sklearn.feature_extraction.text import HashingVectorizer

    how = {"ngram_range": (1, words), "token_pattern": r"(?u)\b\w+\b|[!?]"} if words else {"analyzer": "char"}
    counted = HashingVectorizer(n_features=HASHES, alternate_sign=False, norm=None, **how).transform([text])
    return dict(zip(counted.indices.tolist(), counted.data.tolist(), strict=True))


@settings(deadline=None)
@given(SENTENCES, st.integers(0, 3))
def test_columns_are_those_of_scikit_learn(text: str, words: int) -> None:
    assert Counter(Reading(words).hash_text(text).tolist()) == count_by_sklearn(text, words)


def test_columns_are_the_same_without_mmh3(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [Reading(words).hash_text("Ça, c'est 好 … très, très bon!").tolist() for words in range(4)]
    monkeypatch.setitem(sys.modules, "mmh3", None)
    word_model._find_hash.cache_clear()
    found = [Reading(words).hash_text("Ça, c'est 好 … très, très bon!").tolist() for words in range(4)]
    word_model._find_hash.cache_clear()
    assert found == expected


def test_without_either_library_the_pip_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mmh3", "sklearn.utils.murmurhash"):
        monkeypatch.setitem(sys.modules, name, None)
    word_model._find_hash.cache_clear()
    with pytest.raises(MissingExtraError, match=r"pip install .*\[onnx\]"):
        Reading(1).hash_text("good")
    word_model._find_hash.cache_clear()


def test_lone_surrogates_are_no_words_and_signs_of_their_own() -> None:
    assert Reading(3).hash_text("good \ud800 film").tolist() == Reading(3).hash_text("good film").tolist()
    signs = Reading(0).hash_text("\ud800\udfff…")
    assert len(set(signs.tolist())) == 3


def test_of_a_long_text_the_beginning_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_model, "LONGEST", 4)
    assert Reading(2).hash_text("good film").tolist() == Reading(2).hash_text("good").tolist()


IDS = np.arange(70) % 3
FITS: dict[str, Callable[[], WordModel]] = {
    "classes": lambda: fit_classes("nb_svm", TEXTS, IDS, classes=4),
    "two of three classes": lambda: fit_classes("tfidf", TEXTS, (IDS > 0) * 2, classes=3),
    "softmax": lambda: fit_classes("tfidf", TEXTS, IDS, classes=3),
    "marks": lambda: fit_marks("nb_svm", TEXTS, MARKS),
    "weighed marks": lambda: fit_marks("tfidf", TEXTS, MARKS),
    "numbers": lambda: fit_numbers(TEXTS, 1e6 + 1e-3 * IDS),
    "signs": lambda: fit_classes("nb_svm", ["…", "—"] * 4, np.arange(8) % 2, classes=2),
}


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_compact_model_scores_nearly_the_same_and_is_unpacked_exactly(fit: Callable[[], WordModel]) -> None:
    model = fit()
    texts = [*TEXTS, "unseen", "", "… — …", "…"]
    small = model.compact(10**6)
    again = WordModel.unpack(small.describe(), small.pack())
    np.testing.assert_array_equal(again.score(texts), small.score(texts))
    scale = np.ptp(model.score(texts), axis=0).max()
    np.testing.assert_allclose(small.score(texts), model.score(texts), rtol=0, atol=2e-3 * scale)


def test_what_matters_least_is_left_out() -> None:
    model = fit_classes("nb_svm", TEXTS, (np.arange(70) % 7 < 3).astype(np.int64), classes=2)
    small = model.compact(6 * 3)
    kept = np.isin(model.columns, small.columns)
    assert len(small.columns) == 3
    assert np.abs(model.weights[kept]).min() >= np.abs(model.weights[~kept]).max()
    assert small.score(["nothing of this"]).shape == (1, 2)
    assert np.isfinite(model.compact(0).score(TEXTS)).all()


def test_class_of_every_row_is_certain() -> None:
    model = fit_classes("nb_svm", TEXTS, np.ones(70, dtype=np.int64), classes=3)
    assert model.score(["good", ""]).tolist() == [[0, 1, 0]] * 2


def test_many_labels_leave_out_rare_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorafit.tasks.baselines._MOST_WEIGHTS", 12)
    model = fit_classes("nb_svm", TEXTS, np.arange(70) % 3, classes=3)
    assert model.weights.shape == (4, 3)
    assert np.isfinite(model.score(TEXTS)).all()


def test_class_is_chosen_where_words_speak_against_all() -> None:
    model = fit_classes("nb_svm", TEXTS, IDS, classes=3)
    shares = sigmoid(scores := np.array([0.5, -1, -2]))
    for shift, expected in ((0, shares / shares.sum()), (-2000, softmax(scores))):
        found = replace(model, biases=scores + shift).score([""])[0]
        np.testing.assert_allclose(found, expected, rtol=1e-12)
