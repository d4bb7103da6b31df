import numpy as np
import pytest

from lorafit.cheap_baselines import CHEAP_BASELINES, _log_count_ratio, predict_cheaply
from lorafit.data.rows import Split


def build_split(texts: list[str], labels: list[int]) -> Split:
    return Split(ids=np.arange(len(texts)), texts=tuple(texts), labels=np.array(labels, dtype=np.int64))


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
