"""What is tokenised of a long text in pieces is what is tokenised of it as a whole."""

import itertools
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers

from lorafit.config import TruncationPolicy
from lorafit.models import excerpts
from lorafit.models.excerpts import Ends, count_tokens, encode_ends, encode_text, splits_at_blanks
from lorafit.models.tokenization import TokenizedTexts, Truncation, read_tokenizer, tokenize
from lorafit.system.text import Text

CORPUS = [
    "the acting is fine but the story goes nowhere, isn't it? naïve ça était слово за словом",
    "日本語 の 文字 한국어 영화 12345 a1 b22 [SEP] supercalifragilistic",
]
POLICIES: tuple[TruncationPolicy, ...] = ("head", "tail", "head+tail", "windows")


def train(tokenizer: Tokenizer, kind: type) -> Tokenizer:
    extra = {} if kind is not trainers.UnigramTrainer else {"unk_token": "<unk>"}
    tokenizer.train_from_iterator(
        CORPUS * 20, kind(vocab_size=300, special_tokens=["[PAD]", "[UNK]", "<unk>", "<mask>"], **extra)
    )
    return tokenizer


def build_bytes() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    train(tokenizer, trainers.BpeTrainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    return tokenizer


def build_pieces() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(" {2,}", " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return train(tokenizer, trainers.UnigramTrainer)


def build_words() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106 - a piece of text
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return train(tokenizer, trainers.WordPieceTrainer)


@pytest.fixture(scope="module", params=["builtin", "bytes", "pieces", "words"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    builders: dict[str, Callable[[], Tokenizer]] = {"bytes": build_bytes, "pieces": build_pieces, "words": build_words}
    if request.param == "builtin":
        folder: Path = request.getfixturevalue("builtin_encoder")
        return read_tokenizer(folder)
    return builders[request.param]()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let texts of a few words be long ones."""
    monkeypatch.setattr(excerpts, "_LEAST", 3)
    monkeypatch.setattr(excerpts, "_CHARACTERS_PER_TOKEN", 1)
    monkeypatch.setattr("lorafit.models.tokenization.LONG", 5)


def tokenize_whole(tokenizer: Tokenizer, texts: list[Text], truncation: Truncation) -> TokenizedTexts:
    """Tokenise without pieces: the slow twin."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lorafit.models.tokenization.LONG", 10**9)
        return tokenize(tokenizer, texts, truncation)


def assert_equal(found: TokenizedTexts, expected: TokenizedTexts) -> None:
    assert np.array_equal(found.ids, expected.ids)
    assert np.array_equal(found.offsets, expected.offsets)
    assert found.truncated == expected.truncated
    assert (found.windows is None) == (expected.windows is None)
    assert found.windows is None or np.array_equal(found.windows, expected.windows)


ODD = st.sampled_from([
    " ", "  ", "\n", "\t", "\u200b", "\u00a0", "\u3000", "\u2028", "a", "b", "Z", "7", "é", "e\u0301", "\u0301", "ß",
    "İ", "日", "本", "が", "か\u3099", "한", "\u1112\u1161\u11ab", "\u3164", "\u115f", "ﬁ", "ª", "½", "€", ".", "!",
    "'s", "n't", "[SEP]", "[MASK]", "<mask>", "🎬", "👩\u200d🚀", "\u0000", "\u0007", "\ufffd", "\u0640", "\u202e", "و",
    "क\u094d", "the", "acting", "supercali" * 20, " a ", " 1 ",
])  # fmt: skip
TEXT = st.lists(st.one_of(ODD, st.text(max_size=3).filter(lambda text: text.isprintable())), max_size=30).map("".join)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(TEXT, min_size=1, max_size=3), policy=st.sampled_from(POLICIES), length=st.integers(3, 12))
def test_pieces_give_the_tokens_of_the_whole(
    tokenizer: Tokenizer, texts: list[str], policy: TruncationPolicy, length: int
) -> None:
    truncation = Truncation(length, policy)
    whole: list[Text] = list(texts)
    assert_equal(tokenize(tokenizer, whole, truncation), tokenize_whole(tokenizer, whole, truncation))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pairs=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3),
    policy=st.sampled_from(POLICIES),
    length=st.integers(5, 12),
)
@example(pairs=[("a a [SEP]aa", "aaan't")], policy="tail", length=5)
@example(pairs=[("aaan't", "a a [SEP]aa")], policy="head+tail", length=6)
def test_pieces_give_the_tokens_of_whole_pairs(
    tokenizer: Tokenizer, pairs: list[Text], policy: TruncationPolicy, length: int
) -> None:
    truncation = Truncation(length, policy)
    assert_equal(tokenize(tokenizer, pairs, truncation), tokenize_whole(tokenizer, pairs, truncation))


@pytest.mark.parametrize(("first", "second"), [(400, 500), (500, 400), (450, 450), (30, 500)])
def test_windows_are_of_the_longer_text_of_a_pair_though_both_are_cut(
    tokenizer: Tokenizer, first: int, second: int
) -> None:
    pairs: list[Text] = [("a " * first + "a", "b " * second + "b")]
    truncation = Truncation(9, "windows")
    assert_equal(tokenize(tokenizer, pairs, truncation), tokenize_whole(tokenizer, pairs, truncation))


@pytest.mark.parametrize("ends", [Ends(10, 0), Ends(0, 10), Ends(10, 10)])
def test_no_more_than_is_needed_is_tokenised(tokenizer: Tokenizer, ends: Ends) -> None:
    text = "the acting is fine " * 100_000
    tracemalloc.start()
    ids = encode_ends(tokenizer, text, ends)
    assert tracemalloc.get_traced_memory()[1] < 20_000
    tracemalloc.stop()
    assert sum(ends) <= len(ids) < 100
    start = encode_text(tokenizer, text[:500])
    assert ends.head == 0 or ids[:10] == start[:10]


def test_tokens_are_counted(tokenizer: Tokenizer) -> None:
    text = "the acting is fine, isn't it " * 10_000
    assert count_tokens(tokenizer, text) == len(encode_text(tokenizer, text))


def test_a_word_without_end_is_tokenised_in_pieces(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAFIT_LIMIT_WORD", "50")
    text = "a" * 130
    for ends in (Ends(10**6, 0), Ends(0, 10**6)):
        assert encode_ends(tokenizer, text, ends) != []
    pieces = [
        encode_text(tokenizer, text[:53]),
        encode_text(tokenizer, text[53:106]),
        encode_text(tokenizer, text[106:]),
    ]
    monkeypatch.setattr(excerpts, "_LEAST", 3)
    assert encode_ends(tokenizer, text, Ends(1, 0))[:1] == pieces[0][:1]


def build_other(change: str) -> Tokenizer:
    tokenizer = build_words()
    if change == "no splitter":
        tokenizer.pre_tokenizer = None
    elif change == "punctuation alone":
        tokenizer.pre_tokenizer = pre_tokenizers.Punctuation()
    elif change == "a token with a blank":
        tokenizer.add_tokens(["new york"])
    elif change == "a token that takes blanks":
        tokenizer.add_tokens([AddedToken("film", rstrip=True)])
    elif change == "a normalizer that marks the start":
        tokenizer.normalizer = normalizers.Prepend("_")
    return tokenizer


@pytest.mark.parametrize(
    "change",
    [
        "no splitter",
        "punctuation alone",
        "a token with a blank",
        "a token that takes blanks",
        "a normalizer that marks the start",
    ],
)
def test_a_tokenizer_that_reaches_across_blanks_gets_the_whole_text(change: str) -> None:
    other = build_other(change)
    assert not splits_at_blanks(other)
    texts: list[Text] = ["in new york a film _ was, so to say, made " * 5]
    assert_equal(tokenize(other, texts, Truncation(9)), tokenize_whole(other, texts, Truncation(9)))


def test_all_kinds_in_use_are_taken_in_pieces(tokenizer: Tokenizer) -> None:
    assert splits_at_blanks(tokenizer)


def test_long_and_short_texts_keep_their_order(tokenizer: Tokenizer) -> None:
    texts: list[Text] = ["".join(words) for words in itertools.product(["a", "the acting is fine "], repeat=3)]
    for policy in POLICIES:
        truncation = Truncation(7, policy)
        assert_equal(tokenize(tokenizer, texts, truncation), tokenize_whole(tokenizer, texts, truncation))
