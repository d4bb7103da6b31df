"""Models without a neural network, trained in seconds: what a fine-tuned encoder has to be better than."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorafit.data.rows import Split

__all__ = ["CHEAP_BASELINES", "cheap_baselines_for", "predict_cheaply"]

CHEAP_BASELINES = {"nb_svm": "NB-SVM", "tfidf": "TF-IDF and logistic regression"}
"""The classifiers' names in records, and for people."""

_FOR_NUMBERS = {"ridge": "TF-IDF and ridge regression"}

_WORDS = r"(?u)\b\w+\b|[!?]"
_HASHES = 2**24
"""Columns that words and sequences of words are spread over: some times as many as a large data set has."""

_REGULARISATION = {"nb_svm": 1.0, "tfidf": 4.0}
"""Inverse strengths (scikit-learn's C): common values, not chosen by measurement."""

_RIDGE_STRENGTH = 1.0
"""scikit-learn's alpha: a common value, not chosen by measurement."""


def cheap_baselines_for(task: str) -> dict[str, str]:
    """Return the cheap baselines that a task can be compared with.

    Args:
        task: As in `LabelSet`.

    Returns:
        Their names in records, to those for people.
    """
    return dict(_FOR_NUMBERS if task == "regression" else CHEAP_BASELINES)


def predict_cheaply(name: str, train: Split, texts: Sequence[str], *, classes: int) -> NDArray[np.float64]:
    """Train a cheap baseline on the training rows and predict others.

    NB-SVM is logistic regression on word 1-, 2- and 3-grams, present or not, weighted by their log-count ratio (Wang
    and Manning 2012, "Baselines and Bigrams", with logistic regression in place of the SVM, so that it gives
    probabilities); with more than two classes one against the rest. The other classifier is logistic regression on
    TF-IDF of word 1- and 2-grams. Of several labels a text, both learn each on its own, against the rows without it.
    Numbers are predicted by ridge regression on the same TF-IDF. All read the whole text.

    Args:
        name: A key of `cheap_baselines_for` the task.
        train: The rows to learn from.
        texts: n texts to predict.
        classes: Number of classes; 1 of a regression.

    Returns:
        Shape (n, classes). One label a text: probabilities; a class without training rows has 0. Several: the
        probability of each label, 0 if no training row has it and 1 if all have it. A regression: the numbers.
    """
    if name == "ridge":
        return _predict_ridge(train, texts)
    return {"nb_svm": _predict_nb_svm, "tfidf": _predict_tfidf}[name](train, texts, classes)


def _predict_nb_svm(train: Split, texts: Sequence[str], classes: int) -> NDArray[np.float64]:
    seen, unseen = _count_words(train.texts, texts, longest=3)
    seen.data[:], unseen.data[:] = 1, 1
    predict_one = partial(_predict_by_ratio, seen, unseen)
    if train.labels.ndim == 2:
        return _predict_each_label(train.labels, len(texts), predict_one)
    probabilities = np.zeros((len(texts), classes))
    present = np.unique(train.labels)
    against = present[1:] if len(present) == 2 else present
    for label in against:
        probabilities[:, label] = predict_one(train.labels == label)
    if len(present) == 2:
        probabilities[:, present[0]] = 1 - probabilities[:, present[1]]
    totals = probabilities.sum(axis=1, keepdims=True)
    normalised: NDArray[np.float64] = probabilities / totals
    return normalised


def _predict_by_ratio(seen: Any, unseen: Any, chosen: NDArray[np.bool_]) -> NDArray[np.float64]:  # noqa: ANN401 - sparse
    ratio = _log_count_ratio(seen, chosen)
    model = _logistic_regression("nb_svm").fit(seen.multiply(ratio).tocsr(), chosen)
    predicted: NDArray[np.float64] = model.predict_proba(unseen.multiply(ratio).tocsr())[:, 1]
    return predicted


def _predict_tfidf(train: Split, texts: Sequence[str], classes: int) -> NDArray[np.float64]:
    seen, unseen = _weigh_words(train.texts, texts)
    if train.labels.ndim == 2:
        return _predict_each_label(train.labels, len(texts), partial(_predict_by_weight, seen, unseen))
    model = _logistic_regression("tfidf", solver="lbfgs").fit(seen, train.labels)
    probabilities = np.zeros((len(texts), classes))
    probabilities[:, model.classes_] = model.predict_proba(unseen)
    return probabilities


def _predict_by_weight(seen: Any, unseen: Any, chosen: NDArray[np.bool_]) -> NDArray[np.float64]:  # noqa: ANN401 - sparse
    model = _logistic_regression("tfidf", solver="lbfgs").fit(seen, chosen)
    predicted: NDArray[np.float64] = model.predict_proba(unseen)[:, 1]
    return predicted


def _predict_each_label(
    marks: NDArray[np.int64], rows: int, predict_one: Callable[[NDArray[np.bool_]], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Predict `rows` rows one label against the rest; one that no training row has, or every one, needs no model."""
    probabilities = np.empty((rows, marks.shape[1]))
    for label, chosen in enumerate(marks.T == 1):
        probabilities[:, label] = chosen[0] if (chosen == chosen[0]).all() else predict_one(chosen)
    return probabilities


def _predict_ridge(train: Split, texts: Sequence[str]) -> NDArray[np.float64]:
    from sklearn.linear_model import Ridge

    # In float64, as the solver works in the features' type and would round large numbers.
    seen, unseen = (part.astype(np.float64) for part in _weigh_words(train.texts, texts))
    model = Ridge(alpha=_RIDGE_STRENGTH, solver="sparse_cg").fit(seen, train.labels)
    predicted: NDArray[np.float64] = model.predict(unseen)[:, None]
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
