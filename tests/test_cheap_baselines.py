import numpy as np
import pytest

from lorafit.cheap_baselines import (
    CHEAP_BASELINES,
    _log_count_ratio,
    _weigh_words,
    cheap_baselines_for,
    predict_cheaply,
)
from lorafit.data.rows import Split

TOPICS = ["food", "staff", "price"]
DEGREES = ["dreadful", "poor", "fine", "good", "superb"]


def build_split(texts: list[str], labels: list[int]) -> Split:
    return Split(ids=np.arange(len(texts)), texts=tuple(texts), labels=np.array(labels, dtype=np.int64))


def build_marked(rows: int, seed: int = 0) -> Split:
    """Build texts that name those of three topics that apply, often none or all, with a word that says nothing."""
    marks = np.random.default_rng(seed).integers(0, 2, (rows, len(TOPICS)))
    texts = [" ".join(["about", *np.array(TOPICS)[row == 1], f"visit{i % 7}"]) for i, row in enumerate(marks)]
    return Split(ids=np.arange(rows), texts=tuple(texts), labels=marks)


def build_rated(rows: int, unit: float = 1, zero: float = 0, seed: int = 0) -> Split:
    """Build texts with two words of degree, rated by their sum and some noise."""
    random = np.random.default_rng(seed)
    degrees = random.integers(0, len(DEGREES), (rows, 2))
    texts = [f"{DEGREES[first]} room and {DEGREES[second]} view" for first, second in degrees]
    ratings = zero + unit * (degrees.sum(axis=1) + random.normal(0, 0.1, rows))
    return Split(ids=np.arange(rows), texts=tuple(texts), labels=ratings)


@pytest.mark.parametrize("name", CHEAP_BASELINES)
@pytest.mark.parametrize("classes", [2, 3])
def test_words_of_a_class_are_learnt(name: str, classes: int) -> None:
    words = ["dreadful", "fine", "superb"]
    train = build_split([f"a {words[row % classes]} film {row}" for row in range(60)], [r % classes for r in range(60)])
    probabilities = predict_cheaply(name, train, [f"one {word} evening" for word in words[:classes]], classes=classes)
    assert probabilities.shape == (classes, classes)
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert probabilities.argmax(axis=1).tolist() == list(range(classes))


@pytest.mark.parametrize("name", CHEAP_BASELINES)
def test_class_without_training_rows_gets_nothing(name: str) -> None:
    train = build_split(["bad film"] * 5 + ["good film"] * 5, [0] * 5 + [2] * 5)
    probabilities = predict_cheaply(name, train, ["good film", "bad film"], classes=3)
    assert probabilities[:, 1].tolist() == [0, 0]
    assert probabilities.argmax(axis=1).tolist() == [2, 0]


@pytest.mark.parametrize("name", CHEAP_BASELINES)
@pytest.mark.parametrize("texts", [["a", "b"], ["…", "—"], ["好", "坏"]])
def test_texts_without_a_word_in_common_are_no_fault(name: str, texts: list[str]) -> None:
    probabilities = predict_cheaply(name, build_split(texts, [0, 1]), [*texts, "unseen"], classes=2)
    assert np.isfinite(probabilities).all()


def test_ratio_is_that_of_the_paper() -> None:
    from scipy.sparse import csr_matrix

    counts = np.array([[1, 0, 1], [1, 1, 0], [0, 1, 0]])
    p, q = np.array([3, 2, 2]), np.array([1, 2, 1])
    expected = np.log((p / p.sum()) / (q / q.sum()))
    assert np.allclose(_log_count_ratio(csr_matrix(counts), np.array([True, True, False])), expected)


def test_same_answer_twice() -> None:
    train = build_split(
        [f"{'good' if row % 2 else 'bad'} film {row % 7}" for row in range(50)], [r % 2 for r in range(50)]
    )
    first, again = (predict_cheaply("nb_svm", train, train.texts, classes=2) for _ in range(2))
    assert np.array_equal(first, again)


@pytest.mark.parametrize(
    ("task", "names"),
    [("single_label", ["nb_svm", "tfidf"]), ("multi_label", ["nb_svm", "tfidf"]), ("regression", ["ridge"])],
)
def test_baselines_of_a_task(task: str, names: list[str]) -> None:
    found = cheap_baselines_for(task)
    assert list(found) == names
    assert all(found.values())


@pytest.mark.parametrize("name", CHEAP_BASELINES)
def test_each_of_several_labels_is_learnt(name: str) -> None:
    train, test = build_marked(200), build_marked(100, seed=1)
    probabilities = predict_cheaply(name, train, test.texts, classes=3)
    assert probabilities.shape == (100, 3)
    assert probabilities.dtype == np.float64
    assert probabilities.min() >= 0
    assert probabilities.max() <= 1
    commonest = np.tile(train.labels.mean(axis=0) > 0.5, (100, 1))
    assert (commonest == test.labels).mean() < 0.6
    assert ((probabilities > 0.5) == test.labels).mean() > 0.95
    assert probabilities[test.labels.sum(axis=1) == 3].sum(axis=1).min() > 1.5
    assert probabilities[test.labels.sum(axis=1) == 0].sum(axis=1).max() < 1


@pytest.mark.parametrize("name", CHEAP_BASELINES)
def test_label_of_no_row_or_of_all_is_certain(name: str) -> None:
    train = build_marked(50)
    train.labels[:, 0], train.labels[:, 2] = 0, 1
    probabilities = predict_cheaply(name, train, ["about staff", "about price"], classes=3)
    assert (probabilities[:, [0, 2]] == [0, 1]).all()
    assert probabilities[0, 1] > 0.5 > probabilities[1, 1]


@pytest.mark.parametrize("name", CHEAP_BASELINES)
def test_one_of_several_labels_is_predicted_as_if_alone(name: str) -> None:
    train, texts = build_marked(60), build_marked(20, seed=1).texts
    together = predict_cheaply(name, train, texts, classes=3)
    for label in range(3):
        alone = predict_cheaply(name, build_split(list(train.texts), train.labels[:, label].tolist()), texts, classes=2)
        assert np.allclose(together[:, label], alone[:, 1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", CHEAP_BASELINES)
def test_several_labels_of_texts_without_a_word_in_common(name: str) -> None:
    train = build_split(["…", "—"], [0, 1])
    marked = Split(train.ids, train.texts, np.array([[1, 0], [0, 1]]))
    assert np.isfinite(predict_cheaply(name, marked, ["…", "unseen"], classes=2)).all()


@pytest.mark.parametrize(("unit", "zero"), [(1, 0), (1e-4, 0), (1, 1e8)])
def test_numbers_are_learnt_on_any_scale(unit: float, zero: float) -> None:
    train, test = build_rated(200, unit, zero), build_rated(100, unit, zero, seed=1)
    predicted = predict_cheaply("ridge", train, test.texts, classes=1)
    assert predicted.shape == (100, 1)
    assert predicted.dtype == np.float64
    trivial = np.abs(test.labels - train.labels.mean()).mean()
    assert np.abs(test.labels - predicted[:, 0]).mean() < 0.2 * trivial


def test_ridge_solves_its_equations() -> None:
    train, test = build_rated(80), build_rated(20, seed=1)
    seen, unseen = (part.toarray().astype(np.float64) for part in _weigh_words(train.texts, test.texts))
    centred = seen - seen.mean(axis=0)
    weights = np.linalg.solve(centred.T @ centred + np.eye(seen.shape[1]), centred.T @ train.labels)
    expected = train.labels.mean() + (unseen - seen.mean(axis=0)) @ weights
    assert np.allclose(predict_cheaply("ridge", train, test.texts, classes=1)[:, 0], expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("texts", [["a", "b"], ["…", "—"], ["好", "坏"], ["same", "same"]])
def test_numbers_of_texts_that_say_little(texts: list[str]) -> None:
    train = Split(np.arange(2), tuple(texts), np.array([3.0, 3.0]))
    assert predict_cheaply("ridge", train, [*texts, "unseen"], classes=1).ravel().tolist() == [3, 3, 3]


@pytest.mark.parametrize("name", [*CHEAP_BASELINES, "ridge"])
def test_same_answer_twice_of_the_other_tasks(name: str) -> None:
    train = build_rated(50) if name == "ridge" else build_marked(50)
    first, again = (predict_cheaply(name, train, train.texts, classes=1 if name == "ridge" else 3) for _ in range(2))
    assert np.array_equal(first, again)
