"""Classifiers without a neural network, trained in seconds: what a fine-tuned encoder has to be better than."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorafit.data.rows import Split

__all__ = ["CHEAP_BASELINES", "predict_cheaply"]

CHEAP_BASELINES = {"nb_svm": "NB-SVM", "tfidf": "TF-IDF and logistic regression"}
"""Their names in records, and for people."""

_WORDS = r"(?u)\b\w+\b|[!?]"
_HASHES = 2**24
"""Columns that words and sequences of words are spread over: some times as many as a large data set has."""

_REGULARISATION = {"nb_svm": 1.0, "tfidf": 4.0}
"""Inverse strengths (scikit-learn's C): common values, not chosen by measurement."""


def predict_cheaply(name: str, train: Split, texts: Sequence[str], *, classes: int) -> NDArray[np.float64]:
    """Train a cheap classifier on the training rows and predict others.

    NB-SVM is logistic regression on word 1-, 2- and 3-grams, present or not, weighted by their log-count ratio (Wang
    and Manning 2012, "Baselines and Bigrams", with logistic regression in place of the SVM, so that it gives
    probabilities); with more than two classes one against the rest. The other is logistic regression on TF-IDF of word
    1- and 2-grams. Both read the whole text.

    Args:
        name: A key of `CHEAP_BASELINES`.
        train: The rows to learn from.
        texts: n texts to classify.
        classes: Number of classes.

    Returns:
        Probabilities of shape (n, classes); a class without training rows has 0.
    """
    return {"nb_svm": _predict_nb_svm, "tfidf": _predict_tfidf}[name](train, texts, classes)


def _predict_nb_svm(train: Split, texts: Sequence[str], classes: int) -> NDArray[np.float64]:
    seen, unseen = _count_words(train.texts, texts, longest=3)
    seen.data[:], unseen.data[:] = 1, 1
    probabilities = np.zeros((len(texts), classes))
    present = np.unique(train.labels)
    against = present[1:] if len(present) == 2 else present
    for label in against:
        chosen = train.labels == label
        ratio = _log_count_ratio(seen, chosen)
        model = _logistic_regression("nb_svm").fit(seen.multiply(ratio).tocsr(), chosen)
        probabilities[:, label] = model.predict_proba(unseen.multiply(ratio).tocsr())[:, 1]
    if len(present) == 2:
        probabilities[:, present[0]] = 1 - probabilities[:, present[1]]
    totals = probabilities.sum(axis=1, keepdims=True)
    normalised: NDArray[np.float64] = probabilities / totals
    return normalised


def _predict_tfidf(train: Split, texts: Sequence[str], classes: int) -> NDArray[np.float64]:
    from sklearn.feature_extraction.text import TfidfTransformer

    weigh = TfidfTransformer(sublinear_tf=True)
    seen, unseen = _count_words(train.texts, texts, longest=2)
    seen, unseen = weigh.fit_transform(seen), weigh.transform(unseen)
    model = _logistic_regression("tfidf", solver="lbfgs").fit(seen, train.labels)
    probabilities = np.zeros((len(texts), classes))
    probabilities[:, model.classes_] = model.predict_proba(unseen)
    return probabilities


def _count_words(seen: Sequence[str], unseen: Sequence[str], *, longest: int) -> tuple[Any, Any]:
    """Count words and sequences of words of two sets of texts, as sparse matrices of a row a text.

    Columns are hashes and not words (Weinberger et al. 2009, arXiv:0902.2206): a vocabulary of all sequences takes far
    more memory. What occurs in a single training text is left out unless there is nothing else. Texts without any word,
    of signs alone, are read by the character.
    """
    from sklearn.feature_extraction.text import HashingVectorizer

    settings = {"n_features": _HASHES, "alternate_sign": False, "norm": None, "dtype": np.float32}
    vectorizer = HashingVectorizer(ngram_range=(1, longest), token_pattern=_WORDS, **settings)
    counted = vectorizer.transform(seen)
    if counted.nnz == 0:
        vectorizer = HashingVectorizer(analyzer="char", **settings)
        counted = vectorizer.transform(seen)
    frequencies = np.bincount(counted.indices, minlength=_HASHES)
    columns = np.flatnonzero(frequencies >= min(2, frequencies.max()))
    return counted[:, columns], vectorizer.transform(unseen)[:, columns]


def _log_count_ratio(features: Any, chosen: NDArray[np.bool_]) -> NDArray[np.float64]:  # noqa: ANN401 - a sparse matrix
    inside, outside = (1 + np.asarray(features[part].sum(axis=0)).ravel() for part in (chosen, ~chosen))
    ratio: NDArray[np.float64] = np.log((inside / inside.sum()) / (outside / outside.sum()))
    return ratio


def _logistic_regression(name: str, solver: str = "liblinear") -> Any:  # noqa: ANN401 - scikit-learn has no types
    from sklearn.linear_model import LogisticRegression

    dual = {"dual": True} if solver == "liblinear" else {}
    return LogisticRegression(C=_REGULARISATION[name], solver=solver, max_iter=1000, random_state=0, **dual)
