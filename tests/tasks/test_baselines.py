"""Baselines: what they learn, and against equations and twins of plain NumPy."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from lorafit.tasks.baselines import (
    CLASSIFIERS,
    REGRESSORS,
    _log_count_ratio,
    _Words,
    fit_classes,
    fit_marks,
    fit_numbers,
)
from lorafit.tasks.registry import TASKS, build_task, get_task

FloatArray = NDArray[np.float64]


def predict_classes(
    name: str, texts: Sequence[str], ids: NDArray[np.int64], others: Sequence[str], *, classes: int
) -> FloatArray:
    return fit_classes(name, texts, ids, classes=classes).score(others)


def predict_marks(name: str, texts: Sequence[str], marks: NDArray[np.bool_], others: Sequence[str]) -> FloatArray:
    return fit_marks(name, texts, marks).score(others)


def predict_numbers(texts: Sequence[str], numbers: FloatArray, others: Sequence[str]) -> FloatArray:
    return fit_numbers(texts, numbers).score(others)


TOPICS = ["food", "staff", "price"]
DEGREES = ["dreadful", "poor", "fine", "good", "superb"]


def build_marked(rows: int, seed: int = 0) -> tuple[list[str], NDArray[np.bool_]]:
    """Texts that name those of three topics that apply, often none or all, with a word that says nothing."""
    marks = np.random.default_rng(seed).random((rows, len(TOPICS))) < 0.5
    return [" ".join(["about", *np.array(TOPICS)[row], f"visit{i % 7}"]) for i, row in enumerate(marks)], marks


def build_rated(rows: int, unit: float = 1, zero: float = 0, seed: int = 0) -> tuple[list[str], FloatArray]:
    """Texts with two words of degree, rated by their sum and some noise."""
    random = np.random.default_rng(seed)
    degrees = random.integers(0, len(DEGREES), (rows, 2))
    texts = [f"{DEGREES[first]} room and {DEGREES[second]} view" for first, second in degrees]
    return texts, zero + unit * (degrees.sum(axis=1) + random.normal(0, 0.1, rows))


def test_baselines_of_tasks_have_titles() -> None:
    names = {task: list(get_task(task).baselines) for task in TASKS}
    classifiers = ["majority", "nb_svm", "tfidf", "embedding"]
    assert names == {
        "single_label": classifiers,
        "multi_label": classifiers,
        "regression": ["majority", "ridge", "embedding"],
        "ordinal": classifiers,
    }
    assert all((*CLASSIFIERS.values(), *REGRESSORS.values()))


@pytest.mark.parametrize("task", TASKS)
def test_what_reads_no_words_is_not_taken_for_a_word_model(task: str) -> None:
    with pytest.raises(ValueError, match="embedding reads no words"):
        build_task(task, ["1", "2"]).predict_baseline("embedding", ["a", "b"], np.array([0, 1]), ["a"])


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("classes", [2, 3])
def test_words_of_a_class_are_learnt(name: str, classes: int) -> None:
    words, ids = ["dreadful", "fine", "superb"], np.arange(60) % classes
    texts = [f"a {words[row % classes]} film {row}" for row in range(60)]
    found = predict_classes(name, texts, ids, [f"one {word} evening" for word in words[:classes]], classes=classes)
    assert found.shape == (classes, classes)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert found.argmax(axis=1).tolist() == list(range(classes))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_class_without_training_rows_gets_nothing(name: str) -> None:
    ids = np.array([0] * 5 + [2] * 5)
    found = predict_classes(name, ["bad film"] * 5 + ["good film"] * 5, ids, ["good film", "bad film"], classes=3)
    assert found[:, 1].tolist() == [0, 0]
    assert found.argmax(axis=1).tolist() == [2, 0]


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("texts", [["a", "b"], ["…", "—"], ["好", "坏"]])
def test_texts_without_a_word_in_common_are_no_fault(name: str, texts: Sequence[str]) -> None:
    others = [*texts, "unseen"]
    assert np.isfinite(predict_classes(name, texts, np.array([0, 1]), others, classes=2)).all()
    assert np.isfinite(predict_marks(name, texts, np.eye(2) == 1, others)).all()


def test_ratio_is_that_of_the_paper() -> None:
    from scipy.sparse import csr_matrix

    counts = np.array([[1, 0, 1], [1, 1, 0], [0, 1, 0]])
    p, q = np.array([3, 2, 2]), np.array([1, 2, 1])
    expected = np.log((p / p.sum()) / (q / q.sum()))
    np.testing.assert_allclose(_log_count_ratio(csr_matrix(counts), np.array([True, True, False])), expected)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_each_of_several_labels_is_learnt(name: str) -> None:
    (texts, marks), (others, truth) = build_marked(200), build_marked(100, seed=1)
    found = predict_marks(name, texts, marks, others)
    assert (found.shape, found.dtype) == ((100, 3), np.float64)
    assert 0 <= found.min() <= found.max() <= 1
    commonest = np.tile(marks.mean(axis=0) > 0.5, (100, 1))
    assert (commonest == truth).mean() < 0.6
    assert ((found > 0.5) == truth).mean() > 0.95
    assert found[truth.sum(axis=1) == 3].sum(axis=1).min() > 1.5
    assert found[truth.sum(axis=1) == 0].sum(axis=1).max() < 1


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_label_of_no_row_or_of_all_is_certain(name: str) -> None:
    texts, marks = build_marked(50)
    marks[:, 0], marks[:, 2] = False, True
    found = predict_marks(name, texts, marks, ["about staff", "about price"])
    assert (found[:, [0, 2]] == [0, 1]).all()
    assert found[0, 1] > 0.5 > found[1, 1]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_one_of_several_labels_is_predicted_as_if_alone(name: str) -> None:
    (texts, marks), (others, _) = build_marked(60), build_marked(20, seed=1)
    together = predict_marks(name, texts, marks, others)
    for label in range(3):
        alone = predict_classes(name, texts, marks[:, label].astype(np.int64), others, classes=2)
        np.testing.assert_allclose(together[:, label], alone[:, 1], rtol=1e-12)


@pytest.mark.parametrize(("unit", "zero"), [(1, 0), (1e-4, 0), (1, 1e8)])
def test_numbers_are_learnt_on_any_scale(unit: float, zero: float) -> None:
    (texts, numbers), (others, truth) = build_rated(200, unit, zero), build_rated(100, unit, zero, seed=1)
    found = predict_numbers(texts, numbers, others)
    assert (found.shape, found.dtype) == ((100, 1), np.float64)
    assert np.abs(truth - found[:, 0]).mean() < 0.2 * np.abs(truth - numbers.mean()).mean()


def test_ridge_solves_its_equations() -> None:
    (texts, numbers), (others, _) = build_rated(80), build_rated(20, seed=1)
    words = _Words.count(texts, longest=2, labels=1)
    columns, idf = words.columns.tolist(), words.weigh()[1]
    seen, unseen = (
        np.stack([_weigh_slowly(words.reading.hash_text(text), columns, idf) for text in some])
        for some in (texts, others)
    )
    centred = seen - seen.mean(axis=0)
    weights = np.linalg.solve(centred.T @ centred + np.eye(seen.shape[1]), centred.T @ numbers)
    expected = numbers.mean() + (unseen - seen.mean(axis=0)) @ weights
    np.testing.assert_allclose(predict_numbers(texts, numbers, others)[:, 0], expected, rtol=0, atol=1e-3)


def _weigh_slowly(hashes: NDArray[np.int64], columns: list[int], idf: NDArray[np.float32]) -> FloatArray:
    """Weigh a text by TF-IDF as the textbook has it."""
    counts = Counter(hashes.tolist())
    row = np.array(
        [(1 + np.log(counts[one])) * idf[place] if one in counts else 0.0 for place, one in enumerate(columns)]
    )
    return row / np.linalg.norm(row)


@pytest.mark.parametrize("texts", [["a", "b"], ["…", "—"], ["好", "坏"], ["same", "same"]])
def test_numbers_of_texts_that_say_little(texts: Sequence[str]) -> None:
    assert predict_numbers(texts, np.array([3.0, 3.0]), [*texts, "unseen"]).ravel().tolist() == [3, 3, 3]


def test_the_same_prediction_twice() -> None:
    texts, marks = build_marked(50)
    rated, numbers = build_rated(50)
    for predict in (
        lambda: predict_classes("nb_svm", texts, marks[:, 0].astype(np.int64), texts, classes=2),
        lambda: predict_marks("nb_svm", texts, marks, texts),
        lambda: predict_numbers(rated, numbers, rated),
    ):
        np.testing.assert_array_equal(predict(), predict())


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_of_a_long_text_the_beginning_is_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, ids = ["good fine day", "poor sad day"] * 10, np.array([0, 1] * 10)
    monkeypatch.setattr("lorafit.tasks.word_model.LONGEST", len(texts[0]))
    long = [f"{text} {' '.join(reversed(texts))}" for text in texts]
    short, cut = (predict_classes(name, some, ids, some[:2], classes=2) for some in ([t[:13] for t in long], long))
    assert np.array_equal(short, cut)
    monkeypatch.undo()
    assert not np.array_equal(short, predict_classes(name, long, ids, long[:2], classes=2))
