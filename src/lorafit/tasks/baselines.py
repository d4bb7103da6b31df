"""Baselines, trained in seconds: what a fine-tuned encoder has to be better than.

NB-SVM is logistic regression on word 1-, 2- and 3-grams, present or not, weighted by their log-count ratio (Wang and
Manning 2012, "Baselines and Bigrams", with logistic regression in place of the SVM, so that it gives probabilities);
with more than two classes one against the rest. TF-IDF is logistic regression on TF-IDF of word 1- and 2-grams; ridge
is ridge regression on the same. All read a text's first million characters, and all are word models: once fitted, they
score texts without scikit-learn. What gives every text the same, without reading any, is the baseline `majority`: each
task knows its own (`Task.constant_values`). `embedding` is a regression on what the encoder gives before training
(`training.embedding_baseline`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lorafit.tasks.word_model import HASHES, Link, Reading, WordModel

Array = NDArray[np.float64]

MAJORITY: Final = "majority"
"""The baseline that gives every text the same: no model is good that does not beat it."""

EMBEDDING: Final = "embedding"
"""The baseline that reads texts by the encoder as it was pre-trained: what fine-tuning the encoder has to add to."""

ENCODER: Final = "encoder"
"""The fine-tuned encoder, where it is named beside baselines; none of them has this name."""

CLASSIFIERS: Final = {"nb_svm": "NB-SVM", "tfidf": "TF-IDF and logistic regression"}
"""Titles of the baselines that give probabilities, by name."""

REGRESSORS: Final = {"ridge": "TF-IDF and ridge regression"}
"""Titles of the baselines that give numbers, by name."""

EMBEDDING_CLASSIFIER: Final = {EMBEDDING: "embeddings and logistic regression"}
EMBEDDING_REGRESSOR: Final = {EMBEDDING: "embeddings and ridge regression"}
"""Title of the baseline that reads texts by the frozen encoder, by its name."""

WORD_MODELS: Final = {**CLASSIFIERS, **REGRESSORS}
"""Titles of the baselines that a `WordModel` can be blended with the encoder for, by name."""

_MOST_WEIGHTS = 250_000_000
"""Weights of a model; where labels are so many that there would be more, the rarest n-grams are left out."""

_REGULARISATION = {"nb_svm": 1.0, "tfidf": 4.0}
"""Inverse strengths (scikit-learn's C): common values, not chosen by measurement."""

_RIDGE_STRENGTH = 1.0
"""scikit-learn's alpha: a common value, not chosen by measurement."""


def fit_classes(name: str, texts: Sequence[str], ids: NDArray[np.int64], *, classes: int) -> WordModel:
    """Train a classifier on texts with one class each.

    Args:
        name: A key of `CLASSIFIERS`.
        texts: n texts.
        ids: Shape (n,), class ids.
        classes: Number of classes.

    Returns:
        The model, whose values are probabilities; a class without training rows has 0.
    """
    present = np.unique(ids).tolist()
    words = _Words.count(texts, longest=3 if name == "nb_svm" else 2, labels=len(present))
    reference = present[0] if len(present) == 2 else None
    fitted = tuple(present) if reference is None else (present[1],)
    if len(present) == 1:
        return words.build("marks", classes, fitted=(), certain=fitted)
    if name == "nb_svm":
        link: Link = "one_vs_rest" if reference is None else "softmax"
        return words.build(link, classes, words.fit_by_ratio(ids, fitted), fitted=fitted, reference=reference)
    features, idf = words.weigh()
    model = _logistic_regression("tfidf", solver="lbfgs").fit(features, ids)
    return words.build("softmax", classes, _read_linear(model), fitted=fitted, reference=reference, idf=idf)


def fit_marks(name: str, texts: Sequence[str], marks: NDArray[np.bool_]) -> WordModel:
    """Train a classifier a label, each on the texts with it against those without.

    Args:
        name: A key of `CLASSIFIERS`.
        texts: n texts.
        marks: Shape (n, labels), which labels they have.

    Returns:
        The model, whose values are probabilities, each by itself: 0 if no training row has the label, and 1 if all
        have it.
    """
    constant = (marks == marks[0]).all(axis=0)
    fitted, certain = (tuple(np.flatnonzero(part).tolist()) for part in (~constant, constant & marks[0]))
    words = _Words.count(texts, longest=3 if name == "nb_svm" else 2, labels=len(fitted))
    if name == "nb_svm":
        parts = [words.fit_by_ratio(marks[:, label], (True,)) for label in fitted]
        idf = None
    else:
        features, idf = words.weigh()
        logistic = _logistic_regression("tfidf", solver="lbfgs")
        parts = [_read_linear(logistic.fit(features, marks[:, label])) for label in fitted]
    joined = _Linear.join(parts) if parts else None
    return words.build("marks", marks.shape[1], joined, fitted=fitted, certain=certain, idf=idf)


def fit_numbers(texts: Sequence[str], numbers: Array) -> WordModel:
    """Train ridge regression on texts with a number each; its values are numbers, shape (m, 1)."""
    from sklearn.linear_model import Ridge

    words = _Words.count(texts, longest=2, labels=1)
    features, idf = words.weigh()
    # In float64, as the solver works in the features' type and would round large numbers.
    model = Ridge(alpha=_RIDGE_STRENGTH, solver="sparse_cg").fit(features.astype(np.float64), numbers)
    return words.build("numbers", 1, _read_linear(model), fitted=(0,), idf=idf)


@dataclass(frozen=True)
class _Linear:
    """Weights of m fits, shape (m, k), and their biases, shape (m,)."""

    weights: NDArray[np.float32]
    biases: Array

    @classmethod
    def join(cls, parts: "Sequence[_Linear]") -> "_Linear":
        """Return several fits as one."""
        return cls(np.concatenate([part.weights for part in parts]), np.concatenate([part.biases for part in parts]))


def _read_linear(model: Any) -> _Linear:  # noqa: ANN401 - scikit-learn has no types
    return _Linear(np.atleast_2d(model.coef_).astype(np.float32), np.atleast_1d(model.intercept_).astype(np.float64))


@dataclass(frozen=True)
class _Words:
    """How often n texts have the n-grams that count, a sparse matrix of shape (n, k).

    What occurs in a single text is left out unless there is nothing else. Texts without any word, of signs alone, are
    read by the character.
    """

    counted: Any
    columns: NDArray[np.uint32]
    reading: Reading

    @classmethod
    def count(cls, texts: Sequence[str], *, longest: int, labels: int) -> "_Words":
        """Count words and sequences of words of texts, for a model of so many labels."""
        from scipy.sparse import csr_matrix

        reading = Reading(longest)
        found = [reading.hash_text(text).astype(np.int32) for text in texts]
        if not any(map(len, found)):
            reading = Reading(0)
            found = [reading.hash_text(text).astype(np.int32) for text in texts]
        ends, hashes = np.cumsum([0, *map(len, found)]), np.concatenate(found)
        occurs = np.zeros(HASHES, dtype=np.bool_)
        occurs[hashes] = True
        columns = np.flatnonzero(occurs)
        places = np.empty(HASHES, dtype=np.int32)
        places[columns] = np.arange(len(columns))
        ones = np.ones(len(hashes), dtype=np.float32)
        counted = csr_matrix((ones, places[hashes], ends), shape=(len(texts), len(columns)))
        counted.sum_duplicates()
        frequencies = np.bincount(counted.indices)
        kept = np.flatnonzero(frequencies >= min(2, frequencies.max(initial=0)))
        if len(kept) > (room := _MOST_WEIGHTS // max(labels, 1)):
            kept = np.sort(kept[np.argsort(-frequencies[kept], kind="stable")[:room]])
        return cls(counted[:, kept], columns[kept].astype(np.uint32), reading)

    def weigh(self) -> tuple[Any, NDArray[np.float32]]:
        """Return the texts' TF-IDF, and the inverse document frequencies."""
        from sklearn.feature_extraction.text import TfidfTransformer

        weigh = TfidfTransformer(sublinear_tf=True)
        return weigh.fit_transform(self.counted), weigh.idf_.astype(np.float32)

    def fit_by_ratio(self, ids: NDArray[Any], labels: Sequence[Any]) -> _Linear:
        """Fit an NB-SVM for each label of some, on the texts with it against the others."""
        present = self.counted.copy()
        present.data[:] = 1
        parts = []
        for label in labels:
            ratio = _log_count_ratio(present, ids == label)
            fit = _read_linear(_logistic_regression("nb_svm").fit(present.multiply(ratio).tocsr(), ids == label))
            parts.append(_Linear((fit.weights * ratio).astype(np.float32), fit.biases))
        return _Linear.join(parts)

    def build(
        self,
        link: Link,
        labels: int,
        fit: _Linear | None = None,
        *,
        fitted: tuple[int, ...],
        reference: int | None = None,
        certain: tuple[int, ...] = (),
        idf: NDArray[np.float32] | None = None,
    ) -> WordModel:
        """Return the model of what was fitted, or one that gives every text the same."""
        fit = fit or _Linear(np.zeros((0, len(self.columns)), dtype=np.float32), np.zeros(0))
        weights = np.ascontiguousarray(fit.weights.T)
        return WordModel(self.reading, link, labels, fitted, reference, certain, self.columns, weights, fit.biases, idf)


def _log_count_ratio(features: Any, chosen: NDArray[np.bool_]) -> Array:  # noqa: ANN401 - a sparse matrix
    inside, outside = (1 + np.asarray(features[part].sum(axis=0)).ravel() for part in (chosen, ~chosen))
    ratio: Array = np.log((inside / inside.sum()) / (outside / outside.sum()))
    return ratio


def _logistic_regression(name: str, solver: str = "liblinear") -> Any:  # noqa: ANN401 - scikit-learn has no types
    from sklearn.linear_model import LogisticRegression

    dual = {"dual": True} if solver == "liblinear" else {}
    return LogisticRegression(C=_REGULARISATION[name], solver=solver, max_iter=1000, random_state=0, **dual)
