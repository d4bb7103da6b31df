import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from lorafit.errors import ConfigError, RunError
from lorafit.models.load import load_tokenizer
from lorafit.models.tokenization import (
    MOST_WINDOWS,
    TokenizedTexts,
    Truncation,
    average_windows,
    read_tokenizer,
    tokenize,
)

TEXTS = [
    "A wonderful film, from the first minute to the last.",
    "I want those two hours of my life back!!!",
    "ÇA ÉTAIT naïve — “quoted” 日本語 and emoji 🎬",
    "[SEP] and [MASK] typed by a user, also [CLS]",
    "tabs\tand\nnew lines   and spaces ",
    "x",
    "supercalifragilisticexpialidocious " * 20,
    "the acting is fine but the story goes nowhere " * 60,
    "",
    "\u200b",
]


@pytest.fixture(scope="module", params=["tiny", "builtin"])
def folder(request: pytest.FixtureRequest, tiny_distilbert: Path) -> Path:
    folder: Path = tiny_distilbert if request.param == "tiny" else request.getfixturevalue("builtin_encoder")
    return folder


@pytest.fixture(scope="module")
def tiny(tiny_distilbert: Path) -> Tokenizer:
    return read_tokenizer(tiny_distilbert)


def numbers(count: int) -> str:
    return " ".join(str(index % 10) for index in range(count))


def words(tokenizer: Tokenizer, ids: np.ndarray) -> list[str]:
    return [tokenizer.id_to_token(int(index)) for index in ids]


def test_ids_are_those_of_transformers(folder: Path) -> None:
    tokens = tokenize(read_tokenizer(folder), TEXTS, Truncation(max_length=10_000))
    reference = AutoTokenizer.from_pretrained(folder)
    expected = [reference(text, truncation=False, verbose=False)["input_ids"] for text in TEXTS]
    assert [tokens[index].tolist() for index in range(len(tokens))] == expected
    assert tokens.truncated == 0


@pytest.mark.parametrize("max_length", [3, 16, 100])
def test_head_cuts_as_transformers_does(folder: Path, max_length: int) -> None:
    tokens = tokenize(read_tokenizer(folder), TEXTS, Truncation(max_length))
    reference = AutoTokenizer.from_pretrained(folder)
    expected = reference(TEXTS, truncation=True, max_length=max_length)["input_ids"]
    assert [tokens[index].tolist() for index in range(len(tokens))] == expected
    assert tokens.lengths.max() == max_length


def test_head_keeps_the_first_tokens_between_the_special_ones(tiny: Tokenizer) -> None:
    tokens = tokenize(tiny, [numbers(10)], Truncation(6, "head"))
    assert words(tiny, tokens[0]) == ["[CLS]", "0", "1", "2", "3", "[SEP]"]


def test_head_and_tail_keep_a_quarter_and_three_quarters_of_the_room(tiny: Tokenizer) -> None:
    tokens = tokenize(tiny, [numbers(20)], Truncation(10, "head+tail"))
    assert words(tiny, tokens[0]) == ["[CLS]", "0", "1", "4", "5", "6", "7", "8", "9", "[SEP]"]
    assert tokens.truncated == 1


def test_smallest_room_of_head_and_tail_keeps_the_tail(tiny: Tokenizer) -> None:
    assert words(tiny, tokenize(tiny, [numbers(9)], Truncation(3, "head+tail"))[0]) == ["[CLS]", "8", "[SEP]"]


@pytest.mark.parametrize("policy", ["head", "head+tail"])
def test_text_that_just_fits_is_not_cut(tiny: Tokenizer, policy: str) -> None:
    tokens = tokenize(tiny, [numbers(8), numbers(9)], Truncation(10, policy))
    assert tokens.truncated == 1
    assert words(tiny, tokens[0]) == ["[CLS]", *numbers(8).split(), "[SEP]"]
    assert tokens.lengths.tolist() == [10, 10]


def test_texts_beyond_one_chunk_keep_their_order_and_report_progress(tiny: Tokenizer) -> None:
    texts = [numbers(1 + index % 7) for index in range(1200)]
    done: list[int] = []
    tokens = tokenize(tiny, texts, Truncation(6), on_progress=done.append)
    assert done == [512, 1024, 1200]
    assert len(tokens) == 1200
    assert tokens.lengths.tolist() == [min(3 + index % 7, 6) for index in range(1200)]
    assert tokens.truncated == sum(index % 7 > 3 for index in range(1200))
    assert tokens.ids.dtype == np.int32
    assert len(tokens.ids) == tokens.lengths.sum()


def test_no_texts_give_no_tokens(tiny: Tokenizer) -> None:
    tokens = tokenize(tiny, [], Truncation(8))
    assert (len(tokens), len(tokens.ids), tokens.truncated) == (0, 0, 0)
    assert tokens.lengths.tolist() == []


def test_length_without_room_for_text_is_refused(tiny: Tokenizer) -> None:
    with pytest.raises(ConfigError, match=r"model\.max_length=2 leaves no room for text beside 2 special tokens"):
        tokenize(tiny, ["a"], Truncation(2))


def test_tokenizer_without_special_tokens_frames_nothing(tiny_distilbert: Path) -> None:
    described = json.loads((tiny_distilbert / "tokenizer.json").read_text())
    bare = Tokenizer.from_str(json.dumps(described | {"post_processor": None}))
    assert words(bare, tokenize(bare, ["good film"], Truncation(8))[0]) == ["good", "film"]


def test_truncation_and_padding_baked_into_the_file_are_switched_off(tiny_distilbert: Path, tmp_path: Path) -> None:
    baked = Tokenizer.from_file(str(tiny_distilbert / "tokenizer.json"))
    baked.enable_truncation(max_length=4)
    baked.enable_padding(length=50)
    baked.save(str(tmp_path / "tokenizer.json"))
    assert len(Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(numbers(20)).ids) == 50
    tokens = tokenize(read_tokenizer(tmp_path), [numbers(20), "a"], Truncation(64))
    assert tokens.lengths.tolist() == [22, 3]
    assert tokens.truncated == 0


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"tokenizer\.json is missing"):
        read_tokenizer(tmp_path)


def test_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "model"')
    with pytest.raises(RunError, match=r"tokenizer\.json is damaged"):
        read_tokenizer(tmp_path)


def test_padding_is_on_the_right_and_masked() -> None:
    tokens = TokenizedTexts(ids=np.arange(1, 7, dtype=np.int32), offsets=np.array([0, 2, 3, 6]), truncated=0)
    input_ids, mask = tokens.pad([2, 0, 1], pad_id=99).values()
    assert input_ids.tolist() == [[4, 5, 6], [1, 2, 99], [3, 99, 99]]
    assert mask.tolist() == [[1, 1, 1], [1, 1, 0], [1, 0, 0]]
    assert input_ids.dtype == mask.dtype == np.int64


def test_padding_reaches_only_to_the_longest_of_the_rows() -> None:
    tokens = TokenizedTexts(ids=np.arange(1, 7, dtype=np.int32), offsets=np.array([0, 2, 3, 6]), truncated=0)
    assert tokens.pad(np.array([1, 1]), pad_id=0)["input_ids"].tolist() == [[3], [3]]


def test_length_of_a_batch_is_rounded_up_but_not_beyond_the_longest_text() -> None:
    lengths = [129, 250]
    ids = np.ones(sum(lengths), dtype=np.int32)
    tokens = TokenizedTexts(ids=ids, offsets=np.cumsum([0, *lengths]), truncated=0)
    assert tokens.pad([0], pad_id=0)["input_ids"].shape == (1, 136)
    assert tokens.pad([0], pad_id=0)["attention_mask"].sum() == 129
    assert tokens.pad([1], pad_id=0)["input_ids"].shape == (1, 250)


def test_padding_token_is_read(folder: Path) -> None:
    _, pad_id = load_tokenizer(folder)
    assert pad_id == AutoTokenizer.from_pretrained(folder).pad_token_id == 0


def test_tokenizer_without_a_padding_token_is_refused(tiny_distilbert: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_distilbert / "tokenizer.json", tmp_path)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match="has no padding token"):
        load_tokenizer(tmp_path)


PAIRS = [
    ("A wonderful film!", "I want those two hours back."),
    ("x", "the acting is fine but the story goes nowhere " * 9),
    ("the acting is fine but the story goes nowhere " * 9, "日本語 🎬"),
    ("those two hours " * 20, "my last movie " * 20),
    ("[SEP] typed by a user", "  spaces\n and lines "),
]


def template(tokenizer: Tokenizer, name: str) -> Tokenizer:
    """Return the tokenizer with the template of another family."""
    from tokenizers import processors

    cls, sep = (("[CLS]", tokenizer.token_to_id("[CLS]")), ("[SEP]", tokenizer.token_to_id("[SEP]")))
    made = {
        "bert": processors.BertProcessing(sep, cls),
        "roberta": processors.RobertaProcessing(sep, cls, trim_offsets=False, add_prefix_space=False),
        "typed in the end": processors.TemplateProcessing(
            single="$A [SEP] [CLS]:2", pair="$A [SEP] $B:1 [SEP]:1 [CLS]:2", special_tokens=[cls, sep]
        ),
    }
    other = Tokenizer.from_str(tokenizer.to_str())
    other.post_processor = made[name]
    return other


@pytest.mark.parametrize("max_length", [7, 8, 30, 31, 10_000])
def test_pairs_are_framed_and_cut_as_transformers_does(folder: Path, max_length: int) -> None:
    tokens = tokenize(read_tokenizer(folder), PAIRS, Truncation(max_length))
    reference = AutoTokenizer.from_pretrained(folder)
    first, second = zip(*PAIRS, strict=True)
    expected = reference(list(first), list(second), truncation=True, max_length=max_length, return_token_type_ids=True)
    assert [tokens[index].tolist() for index in range(len(tokens))] == expected["input_ids"]
    types = [tokens.type_ids[start:end].tolist() for start, end in pairwise(tokens.offsets)]
    assert types == expected["token_type_ids"]
    assert tokens.truncated == sum(len(ids) == max_length for ids in expected["input_ids"])


@pytest.mark.parametrize("name", ["bert", "roberta", "typed in the end"])
def test_template_of_the_tokenizer_decides_what_stands_around_pairs(tiny: Tokenizer, name: str) -> None:
    other = template(tiny, name)
    tokens = tokenize(other, PAIRS, Truncation(10_000))
    expected = [other.encode(*pair) for pair in PAIRS]
    assert [tokens[index].tolist() for index in range(len(tokens))] == [encoding.ids for encoding in expected]
    types = [encoding.type_ids for encoding in expected]
    if name == "roberta":
        assert tokens.type_ids is None
        assert not any(map(any, types))
    else:
        assert [tokens.type_ids[start:end].tolist() for start, end in pairwise(tokens.offsets)] == types


def test_single_texts_have_no_types(tiny: Tokenizer) -> None:
    tokens = tokenize(tiny, ["good film"], Truncation(8))
    assert tokens.type_ids is None
    assert set(tokens.pad([0], pad_id=0)) == {"input_ids", "attention_mask"}


def test_types_of_padding_are_0(tiny: Tokenizer) -> None:
    tokens = tokenize(tiny, [("good", "film"), ("good", "a good film")], Truncation(12))
    assert tokens.pad([0, 1], pad_id=0)["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1, 1]]


def test_tail_keeps_the_last_tokens(tiny: Tokenizer) -> None:
    tokens = tokenize(tiny, [numbers(10)], Truncation(6, "tail"))
    assert words(tiny, tokens[0]) == ["[CLS]", "6", "7", "8", "9", "[SEP]"]


def test_policy_cuts_both_texts_of_a_pair(tiny: Tokenizer) -> None:
    (pair,) = [(numbers(10), numbers(9))]
    tails, ends = (tokenize(tiny, [pair], Truncation(11, policy))[0] for policy in ("tail", "head+tail"))
    assert words(tiny, tails) == ["[CLS]", "6", "7", "8", "9", "[SEP]", "5", "6", "7", "8", "[SEP]"]
    assert words(tiny, ends) == ["[CLS]", "0", "7", "8", "9", "[SEP]", "0", "6", "7", "8", "[SEP]"]


def test_length_without_room_for_both_texts_of_a_pair_is_refused(tiny: Tokenizer) -> None:
    assert len(tokenize(tiny, [("a", "b")], Truncation(5))) == 1
    with pytest.raises(ConfigError, match=r"model\.max_length=4 leaves no room for text beside 3 special tokens"):
        tokenize(tiny, [("a", "b")], Truncation(4))


@pytest.mark.parametrize(("max_length", "stride"), [(6, None), (9, None), (10, 1), (10, 8), (10, 500)])
def test_windows_are_those_of_transformers(folder: Path, max_length: int, stride: int | None) -> None:
    tokenizer, reference = read_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    truncation, room = Truncation(max_length, "windows", stride), max_length - 2
    texts = [numbers(count) for count in (1, room - 1, room, room + 1, 20, 24)]
    tokens = tokenize(tokenizer, texts, truncation)
    overlap = room - min(stride or room // 2, room)
    expected = reference(texts, truncation=True, max_length=max_length, stride=overlap, return_overflowing_tokens=True)
    assert [tokens[index].tolist() for index in range(len(tokens))] == expected["input_ids"]
    owners = expected["overflow_to_sample_mapping"]
    assert np.repeat(np.arange(len(texts)), tokens.windows).tolist() == owners
    assert tokens.texts == len(texts)
    assert tokens.truncated == 0


@pytest.mark.parametrize("long", [0, 1], ids=["first is long", "second is long"])
def test_windows_of_a_pair_have_all_of_its_shorter_text(folder: Path, long: int) -> None:
    pair = [numbers(4), numbers(4)]
    pair[long] = numbers(30)
    tokens = tokenize(read_tokenizer(folder), [tuple(pair)], Truncation(15, "windows"))
    expected = AutoTokenizer.from_pretrained(folder)(
        *pair,
        truncation=("only_first", "only_second")[long],
        max_length=15,
        stride=4,
        return_overflowing_tokens=True,
    )
    assert [tokens[index].tolist() for index in range(len(tokens))] == expected["input_ids"]
    assert tokens.windows.tolist() == [7]
    assert tokens.truncated == 0


def test_shorter_text_of_a_pair_is_cut_to_half_of_a_window(tiny: Tokenizer) -> None:
    tokens = tokenize(tiny, [(numbers(9), numbers(8))], Truncation(11, "windows"))
    assert words(tiny, tokens[0]) == ["[CLS]", *numbers(4).split(), "[SEP]", *numbers(4).split(), "[SEP]"]
    assert tokens.truncated == 1


def test_texts_that_fit_make_windows_nothing_else_than_head(tiny: Tokenizer) -> None:
    windows, head = (tokenize(tiny, [numbers(4), "a"], Truncation(6, policy)) for policy in ("windows", "head"))
    assert windows.windows is None
    assert windows.ids.tolist() == head.ids.tolist()


def test_text_of_more_windows_than_there_may_be_is_cut(tiny: Tokenizer) -> None:
    fits, longer = 4 + 31 * 2, 4 + 31 * 2 + 1
    tokens = tokenize(tiny, [numbers(fits), numbers(longer)], Truncation(6, "windows"))
    assert tokens.windows.tolist() == [MOST_WINDOWS, MOST_WINDOWS]
    assert tokens.truncated == 1
    assert words(tiny, tokens[63]) == ["[CLS]", "2", "3", "4", "5", "[SEP]"]


def test_selected_texts_keep_their_windows_and_types(tiny: Tokenizer) -> None:
    pairs = [("a", numbers(count)) for count in (3, 30, 9, 12)]
    chosen, truncation = np.array([3, 0, 1]), Truncation(12, "windows")
    tokens = tokenize(tiny, pairs, truncation).select(chosen)
    expected = tokenize(tiny, [pairs[place] for place in chosen], truncation)
    for name in ("ids", "offsets", "type_ids", "windows"):
        np.testing.assert_array_equal(getattr(tokens, name), getattr(expected, name))
    plain = tokenize(tiny, ["a", "good film"], truncation).select(np.array([1]))
    assert words(tiny, plain.ids) == ["[CLS]", "good", "film", "[SEP]"]


def test_values_of_windows_are_averaged_by_text() -> None:
    values = np.arange(12.0).reshape(6, 2)
    means = average_windows(values, np.array([1, 3, 2]))
    assert means.tolist() == [[0, 1], [4, 5], [9, 10]]
    assert average_windows(values, None) is values
