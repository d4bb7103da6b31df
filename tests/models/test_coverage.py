"""What tokenizers know: of real sentences in several scripts, by the built-in one and by small ones of other kinds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from lorafit.models.coverage import MUCH, TOO_MUCH, count_unknown, find_unknown_id, measure_coverage, suggest_base
from lorafit.models.tokenization import Truncation, read_tokenizer, tokenize

ENGLISH = [
    "The film was excellent, and the actors did a great job.",
    "A waste of time: the plot goes nowhere.",
    "Delivery took a week and the box was damaged.",
]
CHINESE = [
    "这家餐厅的菜很好吃。服务员也很热情。",
    "快递太慢了。等了一个星期才收到货。",
    "手机屏幕有划痕。客服态度很差。",
]
JAPANESE = ["この映画は最高に面白かったです。", "料理は残念でしたが、店員は親切でした。"]
RUSSIAN = ["Отличный фильм, очень понравилась игра актёров.", "Доставка опоздала на неделю, коробка повреждена."]
THAI = ["หนังเรื่องนี้สนุกมากและนักแสดงเก่งมาก"]
TWEETS = ["great show 😂😂😂 🔥", "lol 🤣 so bad 😭😭", "love it 😍 🎉 today", "meh 🙄 whatever you say"]


@pytest.fixture(scope="module")
def tokenizer(builtin_encoder: Path) -> Tokenizer:
    """That of the built-in encoder, which was made for English."""
    return read_tokenizer(builtin_encoder)


def train(model: models.Model, trainer: trainers.Trainer, *, bytes_: bool = False) -> Tokenizer:
    """Train a small tokenizer on the English sentences."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False) if bytes_ else pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.ByteLevel() if bytes_ else decoders.Metaspace()
    tokenizer.train_from_iterator(ENGLISH * 20, trainer)
    return tokenizer


def test_english_is_known(tokenizer: Tokenizer) -> None:
    found = measure_coverage(tokenizer, ENGLISH)
    assert (found.unknown_share, found.script, found.is_spelled) == (0, "Latin", False)
    assert 1 < found.pieces_per_word < 1.5
    assert found.characters_per_token > 3


@pytest.mark.parametrize(
    ("texts", "script", "least", "most"),
    [
        (CHINESE, "Chinese", TOO_MUCH, 0.9),
        (THAI, "Thai", TOO_MUCH, 1),
        (JAPANESE, "Japanese", MUCH, TOO_MUCH),
        (TWEETS, "emoji", 0.25, TOO_MUCH),
        ([*ENGLISH * 20, *CHINESE], "Chinese", MUCH, 0.3),
    ],
)
def test_unknown_tokens_are_counted_and_named(
    tokenizer: Tokenizer, texts: Sequence[str], script: str, least: float, most: float
) -> None:
    found = measure_coverage(tokenizer, texts)
    assert least <= found.unknown_share <= most
    assert found.script == script
    tokens = tokenize(tokenizer, texts, Truncation(64))
    assert count_unknown(tokenizer, tokens) == pytest.approx(found.unknown_share)
    assert measure_coverage(tokenizer, texts, tokens).unknown_share == pytest.approx(found.unknown_share)


def test_special_tokens_are_left_out_of_the_share(tokenizer: Tokenizer) -> None:
    unknown = tokenizer.encode("好", add_special_tokens=False).ids
    assert unknown == [find_unknown_id(tokenizer)]
    assert count_unknown(tokenizer, tokenize(tokenizer, ["好", "film"], Truncation(16))) == 1 / 2
    pairs = tokenize(tokenizer, [("好", "film"), ("a", "b")], Truncation(16))
    assert count_unknown(tokenizer, pairs, pair=True) == 1 / 4


def test_alphabet_that_is_spelled_out_is_noticed(tokenizer: Tokenizer) -> None:
    found = measure_coverage(tokenizer, RUSSIAN)
    assert (found.unknown_share, found.script, found.is_spelled) == (0, "Cyrillic", True)
    assert found.pieces_per_word > 5


def test_byte_level_tokenizers_know_every_text_and_spell_it_out() -> None:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = train(models.BPE(), trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet), bytes_=True)
    assert find_unknown_id(tokenizer) == -1
    for texts in (ENGLISH, CHINESE, RUSSIAN):
        assert measure_coverage(tokenizer, texts).unknown_share == 0
    assert not measure_coverage(tokenizer, ENGLISH).is_spelled
    assert measure_coverage(tokenizer, CHINESE).is_spelled
    assert measure_coverage(tokenizer, RUSSIAN).is_spelled


def test_unknown_token_of_a_unigram_model_is_found() -> None:
    trainer = trainers.UnigramTrainer(vocab_size=120, unk_token="<unk>", special_tokens=["<pad>", "<unk>"])  # noqa: S106 - a token of text, no password
    tokenizer = train(models.Unigram(), trainer)
    assert find_unknown_id(tokenizer) == tokenizer.token_to_id("<unk>") == 1
    assert measure_coverage(tokenizer, ENGLISH).unknown_share == 0
    found = measure_coverage(tokenizer, CHINESE)
    assert found.unknown_share > 0.4
    assert found.script == "Chinese"


@pytest.mark.parametrize("texts", [[], ["..."], ["12 13", "99"], ["\u200b"]])
def test_texts_without_letters_are_no_fault(tokenizer: Tokenizer, texts: list[str]) -> None:
    found = measure_coverage(tokenizer, texts)
    assert (found.unknown_share, found.script, found.is_spelled) == (0, "", False)
    assert np.isfinite([found.pieces_per_word, found.characters_per_token]).all()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("Chinese", "a base for Chinese or a multilingual one, such as --model bert-base-multilingual-cased or "),
        ("Cyrillic", "a base for the Cyrillic script or a multilingual one"),
        ("emoji", "a base for social media, such as --model cardiffnlp/twitter-roberta-base"),
        ("Latin", "a multilingual one, such as"),
        ("", "a multilingual one, such as"),
    ],
)
def test_base_that_is_needed_is_named(script: str, words: str) -> None:
    assert suggest_base(script).startswith(words)
