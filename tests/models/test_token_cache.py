import os
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from lorafit.models import token_cache
from lorafit.models.token_cache import tokenize_once
from lorafit.models.tokenization import TokenizedTexts, Truncation, read_tokenizer, tokenize

TEXTS = ["a lovely film", "boring", "my last two hours were a superb movie, not a poor one"]
CUT = Truncation(8, "head+tail")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of kept tokens; every set of texts is large enough for it."""
    monkeypatch.setenv("LORAFIT_CACHE", str(tmp_path))
    monkeypatch.setattr(token_cache, "_CHARACTERS", 1)
    return tmp_path / "tokens"


@pytest.fixture
def tokenizer(tiny_distilbert: Path) -> Tokenizer:
    return read_tokenizer(tiny_distilbert)


def assert_same(one: TokenizedTexts, other: TokenizedTexts) -> None:
    np.testing.assert_array_equal(one.ids, other.ids)
    for name in ("offsets", "type_ids", "windows"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.ids.dtype == other.ids.dtype
    assert one.truncated == other.truncated


def test_kept_tokens_are_those_that_tokenizing_gives(folder: Path, tokenizer: Tokenizer) -> None:
    first = tokenize_once(tokenizer, TEXTS, CUT)
    (path,) = folder.iterdir()
    assert_same(first, tokenize(tokenizer, TEXTS, CUT))
    assert_same(tokenize_once(tokenizer, TEXTS, CUT), first)
    assert list(folder.iterdir()) == [path]


def test_kept_windows_of_pairs_are_those_that_tokenizing_gives(folder: Path, tokenizer: Tokenizer) -> None:
    pairs = [(text, TEXTS[0]) for text in TEXTS]
    truncations = [Truncation(12, "windows"), Truncation(12, "windows", 2)]
    for truncation in truncations:
        expected = tokenize(tokenizer, pairs, truncation)
        assert expected.type_ids is not None
        assert expected.windows is not None
        assert_same(tokenize_once(tokenizer, pairs, truncation), expected)
        assert_same(tokenize_once(tokenizer, pairs, truncation), expected)
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("where", [0.2, 0.5, 0.8, 0.99])
def test_kept_tokens_that_were_altered_are_made_again(folder: Path, tokenizer: Tokenizer, where: float) -> None:
    texts = [f"{text} {number}" for number in range(200) for text in TEXTS]
    expected = tokenize_once(tokenizer, texts, CUT)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[int(len(damaged) * where)] ^= 1
    path.write_bytes(damaged)
    assert_same(tokenize_once(tokenizer, texts, CUT), expected)
    assert path.read_bytes() == whole


def test_kept_tokens_are_read(folder: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tokenize_once(tokenizer, TEXTS, CUT)
    monkeypatch.delattr(token_cache, "tokenize")
    assert_same(tokenize_once(tokenizer, TEXTS, CUT), first)


@pytest.mark.parametrize(
    ("texts", "truncation"),
    [
        (TEXTS[::-1], CUT),
        (["a lovely", " film", *TEXTS[1:]], CUT),
        (TEXTS, Truncation(9, "head+tail")),
        (TEXTS, Truncation(8, "head")),
        (TEXTS, Truncation(8, "tail")),
        (TEXTS, Truncation(8, "windows")),
        ([(TEXTS[0], TEXTS[1]), *TEXTS[2:]][:1], CUT),
    ],
)
def test_other_texts_or_cuts_are_tokenized_anew(
    folder: Path, tokenizer: Tokenizer, texts: list[str], truncation: Truncation
) -> None:
    tokenize_once(tokenizer, TEXTS, CUT)
    assert_same(tokenize_once(tokenizer, texts, truncation), tokenize(tokenizer, texts, truncation))
    assert len(list(folder.iterdir())) == 2


def test_another_tokenizer_is_not_served_from_the_cache(folder: Path, tokenizer: Tokenizer) -> None:
    tokenize_once(tokenizer, TEXTS, CUT)
    tokenizer.add_tokens(["lovely film"])
    assert_same(tokenize_once(tokenizer, TEXTS, CUT), tokenize(tokenizer, TEXTS, CUT))


def test_damaged_file_is_replaced(folder: Path, tokenizer: Tokenizer) -> None:
    first = tokenize_once(tokenizer, TEXTS, CUT)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert_same(tokenize_once(tokenizer, TEXTS, CUT), first)
    assert path.read_bytes() == whole


def test_folder_that_cannot_be_made_is_passed_over(folder: Path, tokenizer: Tokenizer) -> None:
    folder.write_text("a file is in the way")
    assert_same(tokenize_once(tokenizer, TEXTS, CUT), tokenize(tokenizer, TEXTS, CUT))


def test_least_recently_used_is_removed(folder: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenize_once(tokenizer, TEXTS, CUT)
    (oldest,) = folder.iterdir()
    tokenize_once(tokenizer, TEXTS, Truncation(9))
    (middle,) = set(folder.iterdir()) - {oldest}
    os.utime(oldest, (1, 1))
    os.utime(middle, (2, 2))
    tokenize_once(tokenizer, TEXTS, CUT)
    monkeypatch.setattr(token_cache, "_BYTES", 2 * oldest.stat().st_size + 50)
    tokenize_once(tokenizer, TEXTS, Truncation(10))
    left = set(folder.iterdir())
    assert oldest in left
    assert middle not in left


def test_small_sets_of_texts_leave_nothing_on_disk(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAFIT_CACHE", str(tmp_path))
    tokenize_once(tokenizer, TEXTS, CUT)
    assert list(tmp_path.iterdir()) == []
