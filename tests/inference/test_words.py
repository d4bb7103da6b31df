import pytest

from lorafit.inference.words import cut_spans, leave_out
from lorafit.system.text import is_visible

ODD = [
    "It's a well-made film.",
    "10/10, or 3.5 stars: see it!!",
    "  spaces\tand\nlines \u3000 ",
    "e\u0301te\u0301 naïve हिन्दी می\u200cبینم",
    "👩\u200d👩\u200d👧 loved ❤\ufe0f it 👍🏽",
    "我很喜欢。映画",
    "\ufeffbyte order mark \x1b[31m \x00",
    "<br /><br />The_end…(so-so)",
    "!",
    "\u200b",
    "\u0301 accent first",
]


def cut(text: str, most: int = 1000) -> list[str]:
    return [text[start:end] for start, end in cut_spans(text, most)[0]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's a well-made film.", ["It's", "a", "well-made", "film", "."]),
        ("don’t 'quote' it-", ["don’t", "'", "quote", "'", "it", "-"]),  # noqa: RUF001
        ("10/10, or 3.5 stars: no.5!!", ["10/10", ",", "or", "3.5", "stars", ":", "no", ".", "5", "!!"]),
        ("good good  good", ["good", "good", "good"]),
        ("e\u0301te\u0301 naïve हिन्दी می\u200cبینم", ["e\u0301te\u0301", "naïve", "हिन्दी", "می\u200cبینم"]),
        ("👩\u200d👩\u200d👧 loved❤\ufe0fit", ["👩\u200d👩\u200d👧", "loved", "❤\ufe0f", "it"]),
        ("我很喜欢。映画 film", ["我", "很", "喜", "欢", "。", "映", "画", "film"]),
        ("ever.<br />The_end", ["ever", ".<", "br", "/>", "The_end"]),
        ("한국어 영화", ["한국어", "영화"]),
        (" \n", []),
        ("", []),
    ],
)
def test_words_are_cut_at_white_space_and_punctuation(text: str, words: list[str]) -> None:
    assert cut(text) == words


@pytest.mark.parametrize("text", ODD)
def test_words_hold_everything_that_is_visible(text: str) -> None:
    spans, size = cut_spans(text, 1000)
    assert size == 1
    assert spans == sorted(spans)
    assert "".join(filter(is_visible, "".join(cut(text)))) == "".join(filter(is_visible, text))
    assert all(any(map(is_visible, word)) for word in cut(text)), "without the others, a tokenizer would find nothing"
    assert all(not word[0].isspace() and not word[-1].isspace() for word in cut(text))


@pytest.mark.parametrize(("count", "size", "groups"), [(8, 1, 8), (9, 2, 5), (16, 2, 8), (17, 3, 6), (1, 1, 1)])
def test_too_many_words_are_grouped_evenly(count: int, size: int, groups: int) -> None:
    text = "\n".join(f"w{number}" for number in range(count))
    spans, words_a_span = cut_spans(text, 8)
    assert (words_a_span, len(spans)) == (size, groups)
    cut_up = [text[start:end].split("\n") for start, end in spans]
    assert [word for group in cut_up for word in group] == text.split("\n")
    assert {len(group) for group in cut_up[:-1]} <= {size}


@pytest.mark.parametrize(
    ("text", "removed", "rest"),
    [
        ("a good film", {1}, "a film"),
        ("a good film", {0}, "good film"),
        ("a good film", {2}, "a good"),
        ("a  good\nfilm", {1}, "a  film"),
        ("a very very good film", {1, 3}, "a very film"),
        ("a very very good film", {1, 2, 3}, "a film"),
        ("a (good) film", {1}, "a good) film"),
        ("a (good) film", {1, 2, 3}, "a film"),
        ("film, good", {1}, "film good"),
        ("great!!film", {1}, "great film"),
        ("我很喜欢", {1}, "我喜欢"),
        (" a good film \n", {0, 2}, " good \n"),
    ],
)
def test_what_is_left_out_leaves_no_hole_and_no_grown_together_words(text: str, removed: set[int], rest: str) -> None:
    assert leave_out(text, cut_spans(text, 1000)[0], removed) == rest


@pytest.mark.parametrize("text", ODD)
def test_leaving_nothing_out_gives_the_text(text: str) -> None:
    assert leave_out(text, cut_spans(text, 1000)[0], set()) == text


@pytest.mark.parametrize("text", ODD)
def test_leaving_a_word_out_leaves_the_others(text: str) -> None:
    words = cut(text)
    for index in range(len(words) if len(words) > 1 else 0):
        assert cut(leave_out(text, cut_spans(text, 1000)[0], {index})) == words[:index] + words[index + 1 :]


PAIR = ("well-made film, see it", "dull\nstory")


def test_words_of_a_pair_stand_in_the_joined_text() -> None:
    spans, size = cut_spans(PAIR, 1000)
    joined = "\n".join(PAIR)
    assert [joined[start:end] for start, end in spans] == ["well-made", "film", ",", "see", "it", "dull", "story"]
    assert size == 1


@pytest.mark.parametrize(
    ("removed", "rest"),
    [
        (set(), PAIR),
        ({0, 6}, ("film, see it", "dull")),
        ({5}, (PAIR[0], "story")),
        ({0, 1, 2, 3, 4}, ("it", PAIR[1])),
        (set(range(7)), ("it", "story")),
    ],
)
def test_words_of_both_texts_are_left_out_but_for_the_last(removed: set[int], rest: tuple[str, str]) -> None:
    assert leave_out(PAIR, cut_spans(PAIR, 1000)[0], removed) == rest


def test_no_word_of_a_text_of_one_word_is_left_out_of_a_pair() -> None:
    pair = ("dull", "a good film")
    spans, _ = cut_spans(pair, 1000)
    assert spans == [(5, 6), (7, 11), (12, 16)]
    assert leave_out(pair, spans, {0}) == ("dull", "good film")
    assert cut_spans(("dull", "film"), 1000)[0] == []
    assert leave_out(("dull", "film"), [], set()) == ("dull", "film")


def test_many_words_of_a_pair_are_grouped_within_each_text() -> None:
    spans, size = cut_spans(("a b c d e", "f g h"), 4)
    assert size == 2
    joined = "a b c d e\nf g h"
    assert [joined[start:end] for start, end in spans] == ["a b", "c d", "e", "f g", "h"]
