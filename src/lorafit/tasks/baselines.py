"""Baselines without a neural network, trained in seconds: what a fine-tuned encoder has to be better than.

NB-SVM is logistic regression on word 1-, 2- and 3-grams, present or not, weighted by their log-count ratio (Wang and
Manning 2012, "Baselines and Bigrams", with logistic regression in place of the SVM, so that it gives probabilities);
with more than two classes one against the rest. TF-IDF is logistic regression on TF-IDF of word 1- and 2-grams; ridge
is ridge regression on the same. All read a text's first million characters. What gives every text the same, without
reading any, is the baseline `majority`: each task knows its own (`Task.constant_values`).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MAJORITY: Final = "majority"
"""The baseline that gives every text the same: no model is good that does not beat it."""

CLASSIFIERS: Final = {"nb_svm": "NB-SVM", "tfidf": "TF-IDF and logistic regression"}
"""Titles of the baselines that give probabilities, by name."""

REGRESSORS: Final = {"ridge": "TF-IDF and ridge regression"}
"""Titles of the baselines that give numbers, by name."""

_WORDS = r"(?u)\b\w+\b|[!?]"
_HASHES = 2**24
"""Columns that words and sequences of words are spread over: some times as many as a large data set has."""

_LONGEST = 1_000_000
"""Characters that are read of a text: each of its sequences of words takes some 100 bytes."""

_REGULARISATION = {"nb_svm": 1.0, "tfidf": 4.0}
"""Inverse strengths (scikit-learn's C): common values, not chosen by measurement."""

_RIDGE_STRENGTH = 1.0
"""scikit-learn's alpha: a common value, not chosen by measurement."""


def predict_classes(
    name: str, texts: Sequence[str], ids: NDArray[np.int64], others: Sequence[str], *, classes: int
) -> Array:
    """Train a classifier on n texts with one class each and predict m others.

    Args:
        name: A key of `CLASSIFIERS`.
        texts: The n texts.
        ids: Shape (n,), class ids.
        others: The m texts.
        classes: Number of classes.

    Returns:
        Probabilities of shape (m, classes); a class without training rows has 0.
    """
    if name == "nb_svm":
        return _predict_nb_svm(texts, ids, others, classes)
    seen, unseen = _weigh_words(texts, others)
    model = _logistic_regression("tfidf", solver="lbfgs").fit(seen, ids)
    probabilities = np.zeros((len(others), classes))
    probabilities[:, model.classes_] = model.predict_proba(unseen)
    return probabilities


def predict_marks(name: str, texts: Sequence[str], marks: NDArray[np.bool_], others: Sequence[str]) -> Array:
    """Train a classifier a label on n texts, each against the texts without it, and predict m others.

    Args:
        name: A key of `CLASSIFIERS`.
        texts: The n texts.
        marks: Shape (n, labels), which labels they have.
        others: The m texts.

    Returns:
        Probabilities of shape (m, labels), each by itself: 0 if no training row has the label, and 1 if all have it.
    """
    if name == "nb_svm":
        seen, unseen = _count_words(texts, others, longest=3)
        seen.data[:], unseen.data[:] = 1, 1
        predict_one: Callable[[NDArray[np.bool_]], Array] = partial(_predict_by_ratio, seen, unseen)
    else:
        seen, unseen = _weigh_words(texts, others)
        predict_one = partial(_predict_by_weight, seen, unseen)
    probabilities = np.empty((len(others), marks.shape[1]))
    for label, chosen in enumerate(marks.T):
        probabilities[:, label] = chosen[0] if (chosen == chosen[0]).all() else predict_one(chosen)
    return probabilities


def predict_numbers(texts: Sequence[str], numbers: Array, others: Sequence[str]) -> Array:
    """Train ridge regression on n texts with a number each and predict m others, shape (m, 1)."""
    from sklearn.linear_model import Ridge

    # In float64, as the solver works in the features' type and would round large numbers.
    seen, unseen = (part.astype(np.float64) for part in _weigh_words(texts, others))
    model = Ridge(alpha=_RIDGE_STRENGTH, solver="sparse_cg").fit(seen, numbers)
    predicted: Array = model.predict(unseen)[:, None]
    return predicted


def _predict_nb_svm(texts: Sequence[str], ids: NDArray[np.int64], others: Sequence[str], classes: int) -> Array:
    seen, unseen = _count_words(texts, others, longest=3)
    seen.data[:], unseen.data[:] = 1, 1
    probabilities = np.zeros((len(others), classes))
    present = np.unique(ids)
    for label in present[1:] if len(present) == 2 else present:
        probabilities[:, label] = _predict_by_ratio(seen, unseen, ids == label)
    if len(present) == 2:
        probabilities[:, present[0]] = 1 - probabilities[:, present[1]]
    normalised: Array = probabilities / probabilities.sum(axis=1, keepdims=True)
    return normalised


def _predict_by_ratio(seen: Any, unseen: Any, chosen: NDArray[np.bool_]) -> Array:  # noqa: ANN401 - sparse
    ratio = _log_count_ratio(seen, chosen)
    model = _logistic_regression("nb_svm").fit(seen.multiply(ratio).tocsr(), chosen)
    predicted: Array = model.predict_proba(unseen.multiply(ratio).tocsr())[:, 1]
    return predicted


def _predict_by_weight(seen: Any, unseen: Any, chosen: NDArray[np.bool_]) -> Array:  # noqa: ANN401 - sparse
    model = _logistic_regression("tfidf", solver="lbfgs").fit(seen, chosen)
    predicted: Array = model.predict_proba(unseen)[:, 1]
    return predicted


def _weigh_words(seen: Sequence[str], unseen: Sequence[str]) -> tuple[Any, Any]:
    """Weigh word 1- and 2-grams of two sets of texts by TF-IDF, as sparse matrices of a row a text."""
    from sklearn.feature_extraction.text import TfidfTransformer

    weigh = TfidfTransformer(sublinear_tf=True)
    counted, others = _count_words(seen, unseen, longest=2)
    return weigh.fit_transform(counted), weigh.transform(others)


def _count_words(seen: Sequence[str], unseen: Sequence[str], *, longest: int) -> tuple[Any, Any]:
    """Count words and sequences of words of two sets of texts, as sparse matrices of a row a text.

    Columns are hashes and not words (Weinberger et al. 2009, arXiv:0902.2206): a vocabulary of all sequences takes far
    more memory. What occurs in a single training text is left out unless there is nothing else. Texts without any word,
    of signs alone, are read by the character.
    """
    from sklearn.feature_extraction.text import HashingVectorizer

    seen, unseen = ([text[:_LONGEST] for text in texts] for texts in (seen, unseen))
    settings = {"n_features": _HASHES, "alternate_sign": False, "norm": None, "dtype": np.float32}
    vectorizer = HashingVectorizer(ngram_range=(1, longest), token_pattern=_WORDS, **settings)
    counted = vectorizer.transform(seen)
    if counted.nnz == 0:
        vectorizer = HashingVectorizer(analyzer="char", **settings)
        counted = vectorizer.transform(seen)
    frequencies = np.bincount(counted.indices, minlength=_HASHES)
    columns = np.flatnonzero(frequencies >= min(2, frequencies.max()))
    return counted[:, columns], vectorizer.transform(unseen)[:, columns]


def _log_count_ratio(features: Any, chosen: NDArray[np.bool_]) -> Array:  # noqa: ANN401 - a sparse matrix
    inside, outside = (1 + np.asarray(features[part].sum(axis=0)).ravel() for part in (chosen, ~chosen))
    ratio: Array = np.log((inside / inside.sum()) / (outside / outside.sum()))
    return ratio


def _logistic_regression(name: str, solver: str = "liblinear") -> Any:  # noqa: ANN401 - scikit-learn has no types
    from sklearn.linear_model import LogisticRegression

    dual = {"dual": True} if solver == "liblinear" else {}
    return LogisticRegression(C=_REGULARISATION[name], solver=solver, max_iter=1000, random_state=0, **dual)
