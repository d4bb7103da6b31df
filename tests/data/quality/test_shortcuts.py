from collections.abc import Callable

import numpy as np
import pytest

from lorafit.data.quality.rows import Rows, draw_samples
from lorafit.data.quality.shortcuts import choose_word, find_label_names, find_shortcuts, score_threshold

MakeRows = Callable[..., Rows]

WORDS = ("film", "plot", "actor", "scene", "music", "story", "hour", "screen", "light", "voice", "city", "house")


def write_texts(count: int, *, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=8)) for _ in range(count)]


def find(make_rows: MakeRows, texts: list[str], labels: list[str]) -> list[str]:
    rows = make_rows((texts, labels))
    return [finding.message for finding in find_shortcuts(rows, draw_samples(rows, 0)[0])]


def test_names_are_safe_to_print(make_rows: MakeRows) -> None:
    label = "red\x1b[31m\u202ered"
    texts = [f"{text} {label}" if number % 2 else text for number, text in enumerate(write_texts(200))]
    rows = make_rows((texts, [label if number % 2 else "z" for number in range(200)]))
    found = [*find_label_names(rows, draw_samples(rows, 0)[0]), *find_shortcuts(rows, draw_samples(rows, 0)[0])]
    assert {finding.name for finding in found} >= {"label-in-text", "word-tells-label"}
    assert all(finding.message.isprintable() for finding in found)


def test_texts_without_a_shortcut_have_none(make_rows: MakeRows) -> None:
    texts = write_texts(200)
    clues = [f"{text} awful" if number % 10 < 3 else text for number, text in enumerate(texts)]
    assert find(make_rows, clues, ["bad" if number % 2 else "good" for number in range(200)]) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: f"{text} {text} {text}", "The length of a text alone"),
        (str.upper, "The share of capitals of a text alone"),
        (lambda text: f"{text}!", "The number of exclamation marks of a text alone"),
        (lambda text: f"sponsored {text}", "The word 'sponsored' alone"),
    ],
)
def test_property_or_word_that_tells_the_label_is_found(make_rows: MakeRows, change: object, told: str) -> None:
    texts = [change(text) if number % 2 else text for number, text in enumerate(write_texts(200))]  # type: ignore[operator]
    messages = find(make_rows, texts, ["odd" if number % 2 else "even" for number in range(200)])
    assert any(message.startswith(told) for message in messages), messages


def test_threshold_is_measured_on_rows_it_was_not_chosen_on() -> None:
    rng = np.random.default_rng(0)
    own = rng.random(400) < 0.5
    assert score_threshold(own + rng.normal(size=400) * 0.01, own) == 1.0
    assert score_threshold(-own.astype(float), own) == 1.0
    assert score_threshold(rng.normal(size=400), own) < 0.65
    assert score_threshold(np.zeros(400), own) == 0.5


def test_word_of_few_rows_is_not_believed() -> None:
    from collections import Counter

    word, accuracy = choose_word(Counter({"deal": 20}), Counter({"deal": 20}), 20, 1000)
    assert word == "deal"
    assert accuracy == pytest.approx((20 / 22 + 980 / 982) / 2)


def test_label_in_its_texts_is_found(make_rows: MakeRows) -> None:
    texts = [f"{text} spam" if number % 2 else text for number, text in enumerate(write_texts(80))]
    texts[0] += " spam"
    rows = make_rows((texts, ["spam" if number % 2 else "ham" for number in range(80)]))
    (finding,) = find_label_names(rows, draw_samples(rows, 0)[0])
    assert finding.message.startswith("The name of the label 'spam' stands in 100 % of its texts, and in 2.5 % of")
    assert finding.count == 40
