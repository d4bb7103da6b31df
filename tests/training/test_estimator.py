"""The estimators keep scikit-learn's contract, and answer as a model of lorafit does."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from cleanlab.classification import CleanLearning
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import (
    check_get_params_invariance,
    check_no_attributes_set_in_init,
    check_parameters_default_constructible,
    check_set_params,
)

from lorafit import TextClassifier, TextRegressor
from lorafit.errors import DataError, UserInputError
from lorafit.training.estimator import _count_rows

WORDS = (("awful", "boring", "dull", "poor"), ("fine", "great", "lovely", "superb"))
X = [f"{WORDS[row % 2][row // 2 % 4]} {WORDS[row % 2][row // 8 % 4]} film {row}" for row in range(60)]
Y = np.array([row % 2 for row in range(60)])

Build = Callable[..., Any]


@pytest.fixture(scope="module")
def build(build_encoder: Callable[..., Path]) -> Build:
    """Builds an estimator of a tiny model that learns its words."""

    def make(kind: type = TextClassifier, **given: Any) -> Any:  # noqa: ANN401 - either estimator
        settings = {
            "training.batch_size": 16,
            "training.threads": 1,
            "training.blend": "off",
            "data.calibration_fraction": 0,
            **given.pop("settings", {}),
        }
        model = str(build_encoder("distilbert", initializer_range=0.1))
        return kind(
            **{"model": model, "max_length": 32, "epochs": 8, "learning_rate": 1e-2, **given}, settings=settings
        )

    return make


@pytest.fixture(scope="module")
def fitted(build: Build) -> TextClassifier:
    """A classifier of `X` and `Y`, calibrated out of fold."""
    fitted: TextClassifier = build(settings={"data.calibration_fraction": 0.5}).fit(X, Y)
    return fitted


@pytest.mark.parametrize("kind", [TextClassifier, TextRegressor])
@pytest.mark.parametrize(
    "check",
    [
        check_get_params_invariance,
        check_no_attributes_set_in_init,
        check_parameters_default_constructible,
        check_set_params,
    ],
)
def test_parameters_are_those_of_scikit_learn(kind: type, check: Callable[..., None]) -> None:
    check(kind.__name__, kind())


def test_clones_and_tags(fitted: TextClassifier) -> None:
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert not copy.__sklearn_is_fitted__()
    with pytest.raises(NotFittedError):
        copy.predict(X)
    assert repr(TextClassifier(max_length=64)) == "TextClassifier(max_length=64)"
    tags = get_tags(fitted).input_tags
    assert (tags.string, tags.one_d_array, tags.two_d_array) == (True, True, False)
    assert get_tags(TextClassifier(random_state=None)).non_deterministic


def test_answers_are_those_of_the_model(fitted: TextClassifier) -> None:
    probabilities = fitted.predict_proba(X)
    assert probabilities.shape == (60, 2)
    assert probabilities.sum(axis=1) == pytest.approx(1)
    assert fitted.classes_.tolist() == [0, 1]
    assert np.array_equal(fitted.predict(X), fitted.classes_[probabilities.argmax(axis=1)])
    assert fitted.score(X, Y) >= 0.9
    assert fitted.predictor_.predict(X[:1])[0].conformal_set
    assert fitted.predict_proba(X[7:12]) == pytest.approx(probabilities[7:12], abs=1e-5)
    assert fitted.predict_proba(X[::-1]) == pytest.approx(probabilities[::-1], abs=1e-5)
    for texts in (np.array(X), np.array(X, dtype=object), pd.Series(X), pl.Series(X), pa.array(X), iter(X)):
        assert np.array_equal(fitted.predict_proba(texts), probabilities)


def test_a_fit_is_repeatable_and_changes_no_input(build: Build) -> None:
    texts, labels = np.array(X), np.array(["pos" if one else "neg" for one in Y])
    kept = texts.copy(), labels.copy()
    one = build().fit(texts, labels)
    first = one.predict_proba(X)
    assert np.array_equal(texts, kept[0])
    assert np.array_equal(labels, kept[1])
    assert one.classes_.tolist() == ["neg", "pos"]
    assert np.array_equal(one.fit(texts, labels).predict_proba(X), first)
    for series in (pd.Series, pl.Series):
        assert np.array_equal(build().fit(series(X), series(labels)).predict_proba(X), first)
    state = np.random.RandomState(0)
    assert not np.array_equal(build(random_state=state).fit(X, labels).predict_proba(X), first)


def test_classes_keep_their_type_and_order(build: Build) -> None:
    labels = np.array([(2, 10, 9)[row % 3] for row in range(60)])
    found = build(epochs=1).fit(X, labels)
    assert found.classes_.tolist() == [2, 9, 10]
    values = found.predictor_.predict_proba(X)
    names = found.predictor_.labels
    assert np.array_equal(found.predict_proba(X)[:, 2], values[:, names.index("10")])
    assert set(found.predict(X).tolist()) <= {2, 9, 10}
    assert build(epochs=1).fit(X, Y.astype(bool)).predict(X).dtype == bool
    assert build(epochs=1).fit(X, pd.Series(labels, dtype=object)).classes_.tolist() == [2, 9, 10]
    assert build(epochs=1).fit(X, pd.Series(Y).map({0: "b", 1: "a"}).astype("category")).classes_.tolist() == ["a", "b"]


def test_weights_are_repeated_rows(build: Build) -> None:
    weights = np.array([row % 3 for row in range(60)])
    weighted = build(epochs=2).fit(X, Y, sample_weight=weights)
    repeated = build(epochs=2).fit(np.repeat(X, weights), np.repeat(Y, weights))
    assert np.array_equal(weighted.predict_proba(X), repeated.predict_proba(X))
    once = build(epochs=2).fit(X, Y)
    assert np.array_equal(once.predict_proba(X), build(epochs=2).fit(X, Y, np.ones(60)).predict_proba(X))


def test_fractions_of_weights_are_rounded_by_chance() -> None:
    weights = np.random.default_rng(0).random(50) / 50
    counts = np.array([_count_rows(weights, np.arange(50) % 3, seed) for seed in range(2000)])
    exact = weights * 50 / weights.sum()
    assert set(counts.sum(axis=1).tolist()) <= {49, 50, 51}
    assert ((counts == np.floor(exact)) | (counts == np.ceil(exact))).all()
    assert counts.mean(axis=0) == pytest.approx(exact, abs=0.05)
    turns = np.tile([0, 1], 20)
    for seed in range(200):
        found = _count_rows(np.where(turns, 1.7, 0.3), turns, seed)
        assert found[turns == 0].sum() == pytest.approx(6, abs=1)
    assert (np.bincount([0, 0, 1], _count_rows([1.0, 1.99, 0.01], np.array([0, 0, 1]), 0)) >= 1).all()


def test_what_a_failed_fit_leaves_is_what_was_there(build: Build) -> None:
    found = build(epochs=1).fit(X, Y)
    before = found.predict_proba(X)
    with pytest.raises(UserInputError):
        found.fit(["a", ""], ["p", "q"])
    assert found.classes_.tolist() == [0, 1]
    assert np.array_equal(found.predict_proba(X), before)


def test_settings_of_what_fit_is_given_are_refused(build: Build) -> None:
    for name in ("data.task", "data.group_column", "training.budget"):
        with pytest.raises(UserInputError, match=f"settings: {name} cannot be set"):
            build(settings={name: "value"}).fit(X, Y)


def test_a_pickle_opens_in_another_process(fitted: TextClassifier, tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(fitted))
    joblib.dump(fitted, tmp_path / "model.joblib", compress=3)
    code = (
        "import joblib, json, pickle; from pathlib import Path\n"
        "models = pickle.loads(Path('model.pkl').read_bytes()), joblib.load('model.joblib')\n"
        "print(json.dumps([model.predict_proba(['great lovely film 3']).tolist() for model in models]))"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    expected = fitted.predict_proba(["great lovely film 3"])
    for found in json.loads(told.stdout):
        assert np.array(found) == pytest.approx(expected, abs=1e-5)
    again = deepcopy(fitted.predictor_)
    assert again.predict_proba(X) == pytest.approx(fitted.predictor_.predict_proba(X), abs=1e-5)


def test_scikit_learn_works_with_it(build: Build) -> None:
    lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    pipeline = Pipeline([("lower", lower), ("model", build(epochs=15))])
    found = cross_val_predict(pipeline, pl.Series(X), pl.Series(Y), cv=2, method="predict_proba")
    assert (found.argmax(axis=1) == Y).mean() >= 0.8
    search = GridSearchCV(build(), {"epochs": [1, 15]}, cv=2).fit(X, Y)
    assert search.best_params_ == {"epochs": 15}
    calibrated = CalibratedClassifierCV(build(epochs=15), cv=2).fit(X, Y)
    assert calibrated.score(X, Y) >= 0.8


def test_cleanlab_finds_wrong_labels_with_it(build: Build) -> None:
    wrong = np.array([5, 22, 41])
    given = Y.copy()
    given[wrong] = 1 - given[wrong]
    cleaner = CleanLearning(build(epochs=10), cv_n_folds=3, seed=0).fit(np.array(X), given)
    found = cleaner.get_label_issues()
    assert np.flatnonzero(found["is_label_issue"]).tolist() == wrong.tolist()
    assert (cleaner.predict(np.array(X)) == Y).mean() >= 0.9


def test_pairs_and_many_methods(build: Build) -> None:
    pairs = [(text, "about a film") for text in X]
    named = [{"text": text, "text_pair": pair} for text, pair in pairs]
    found = build(epochs=1).fit(pairs, Y)
    assert np.array_equal(build(epochs=1).fit(named, Y).predict_proba(named), found.predict_proba(pairs))
    assert found.predictor_.pair
    assert found.predict(pairs).shape == (60,)
    chosen = build(method="auto", epochs=None, settings={"training.max_steps": 2}).fit(X, Y)
    assert chosen.predict(X).shape == (60,)


def test_numbers_are_predicted(build: Build) -> None:
    numbers = Y * 3.5 + 1
    found = build(TextRegressor, epochs=12).fit(X, numbers)
    assert found.predict(X).shape == (60,)
    assert found.score(X, numbers) >= 0.5


@pytest.mark.parametrize(
    ("texts", "labels", "weights", "said"),
    [
        ([], [], None, "X holds no texts"),
        ("film", [1], None, "fit takes a list of texts, got a single string. Write fit"),
        ([[1.0, 2.0]], [1], None, "1 of 1 texts cannot be fitted to"),
        (np.ones((3, 2)), [0, 1, 0], None, "an array of 2 dimensions"),
        (["a", "", "c"], [0, 1, 0], None, "an empty text (row 2). Leave them out."),
        (["a", "b"], [0, 1, 0], None, "X has 2 texts and y 3 labels"),
        (["a", "b"], [0.5, 1.0], None, "TextRegressor predicts numbers"),
        (["a", "b"], [np.nan, 1.0], None, "TextRegressor predicts numbers"),
        (["a", "b"], ["x", None], None, "a label is missing"),
        (["a", "b"], np.array(["x", 1], dtype=object), None, "y mixes types"),
        (["a", "b"], ["x", float("nan")], None, "a label is missing"),
        (["a", "b"], [True, 2], None, "y mixes types"),
        (5, [1], None, "a value of type int"),
        (["a", "b"], [0, 1], [1e12, 1], "divide it by its mean"),
        (["a", "b"], [[0, 1], [1, 0]], None, "2 dimensions"),
        (["a", "b"], np.array(["2020-01-01", "2020-01-02"], dtype="datetime64[D]"), None, "labels are strings"),
        (["a", "b"], [0, 1], [-1, 1], "numbers of 0 or more"),
        (["a", "b"], [0, 1], [0, 0], "not all 0"),
        (["a", "b"], [0, 1], [np.inf, 1], "numbers of 0 or more"),
        (["a", "b"], [0, 1], [1], "as many numbers"),
    ],
)
def test_what_cannot_be_fitted_is_refused(build: Build, texts: Any, labels: Any, weights: Any, said: str) -> None:  # noqa: ANN401
    with pytest.raises(UserInputError) as refused:
        build().fit(texts, labels, sample_weight=weights)
    assert said in str(refused.value)


def test_labels_and_numbers_that_teach_nothing_are_refused(build: Build) -> None:
    with pytest.raises(DataError):
        build().fit(X, np.zeros(60, dtype=int))
    for numbers in ([[1.0]], ["a"], ["1"], [np.inf]):
        with pytest.raises(UserInputError):
            build(TextRegressor).fit(["a"], numbers)
