"""How much of a text a tokenizer knows, and what script the rest is written in.

What is not in the vocabulary becomes the unknown token, the same for every word: a model cannot tell such texts apart.
Tokenizers that fall back to letters or bytes know every text, but spell out what they were not made for.
"""

import json
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from tokenizers import Encoding, Tokenizer

from lorafit.models.tokenization import TokenizedTexts
from lorafit.system.text import Text, join_text

MUCH: Final = 0.05
"""Share of unknown tokens that people are told of."""

TOO_MUCH: Final = 0.5
"""Share from which on nothing is trained unless it is forced."""

_SAMPLE: Final = 300
_LONGEST: Final = 300
"""Texts, and characters of each, that pieces are counted in."""

_FEWEST_CHARACTERS: Final = {"letters": 1.5, "signs": 0.9}
"""Characters a token, below which text is spelled out: of alphabets, and where a character is a syllable or a word."""

_SIGNS: Final = {"Chinese", "Japanese", "Korean", "emoji"}

_NAMES: Final = {"cjk": "Chinese", "hiragana": "Japanese", "katakana": "Japanese", "hangul": "Korean", "emoji": "emoji"}
"""What text is called by the script of its characters; that of the others is called by the script."""

_JAPANESE: Final = 0.05
"""Share of kana among kana and Chinese characters, above which these are Japanese."""


@dataclass(frozen=True)
class Coverage:
    """How much of some texts a tokenizer knows.

    Attributes:
        unknown_share: Share of unknown tokens among all but the special ones, 0 to 1.
        pieces_per_word: Tokens a word, as white space separates words.
        characters_per_token: Characters other than white space for each token.
        script: What the unknown characters are, or all where none is unknown: `Chinese`, `Japanese`, `Korean`, `emoji`,
            or a script such as `Latin`; nothing where there are no letters.
    """

    unknown_share: float
    pieces_per_word: float
    characters_per_token: float
    script: str

    @property
    def is_spelled(self) -> bool:
        """Whether texts are read by the letter or byte, as those of a script that the tokenizer was not made for."""
        kind = "signs" if self.script in _SIGNS else "letters"
        return bool(self.script) and self.characters_per_token < _FEWEST_CHARACTERS[kind]


def measure_coverage(tokenizer: Tokenizer, texts: Sequence[Text], tokens: TokenizedTexts | None = None) -> Coverage:
    """Measure how much of texts a tokenizer knows.

    Args:
        tokenizer: Without truncation and padding of its own.
        texts: Any number of texts, or of pairs; 300 of them, spread evenly, are looked at closely.
        tokens: The same texts as tokens, of which unknown ones are then counted in all; None counts in the sample.

    Returns:
        The coverage; shares of no tokens are 0.
    """
    places = np.unique(np.linspace(0, len(texts) - 1, min(_SAMPLE, len(texts))).astype(np.int64))
    sample = [join_text(texts[int(place)])[:_LONGEST] for place in places]
    encodings = tokenizer.encode_batch(sample, add_special_tokens=False)
    unknown = find_unknown_id(tokenizer)
    pieces = sum(len(encoding.ids) for encoding in encodings)
    characters = sum(sum(not character.isspace() for character in text) for text in sample)
    script = name_script("".join(sample))
    missed = name_script("".join(_list_unknown(sample, encodings, unknown)))
    if missed and (missed, script) != ("Chinese", "Japanese"):  # of Japanese, it is the kanji that are unknown
        script = missed
    if tokens is None:
        share = sum(encoding.ids.count(unknown) for encoding in encodings) / max(pieces, 1)
    else:
        share = count_unknown(tokenizer, tokens, pair=not isinstance(texts[0], str))
    return Coverage(
        unknown_share=share,
        pieces_per_word=pieces / max(sum(len(text.split()) for text in sample), 1),
        characters_per_token=characters / max(pieces, 1),
        script=script,
    )


def count_unknown(tokenizer: Tokenizer, tokens: TokenizedTexts, *, pair: bool = False) -> float:
    """Return the share of unknown tokens among all but the special ones, 0 to 1, of texts or of pairs."""
    special = tokenizer.num_special_tokens_to_add(is_pair=pair) * len(tokens)
    return int((tokens.ids == find_unknown_id(tokenizer)).sum()) / max(len(tokens.ids) - special, 1)


def find_unknown_id(tokenizer: Tokenizer) -> int:
    """Return the id of the unknown token, or -1 where every text can be written in pieces."""
    if hasattr(tokenizer.model, "unk_token"):
        unknown = tokenizer.model.unk_token
        number = None if unknown is None else tokenizer.token_to_id(unknown)
    else:  # a Unigram model, which tells it in its file alone
        number = json.loads(tokenizer.to_str())["model"].get("unk_id")
    return -1 if number is None else int(number)


def name_script(text: str) -> str:
    """Name the script that most letters of a text are in, `emoji` where symbols outnumber them, nothing without any."""
    counts = Counter(filter(None, map(_find_script, text)))
    if not counts:
        return ""
    kana = counts["hiragana"] + counts["katakana"]
    if kana > _JAPANESE * (kana + counts["cjk"]):
        counts["hiragana"] += counts.pop("katakana", 0) + counts.pop("cjk", 0)
    script = counts.most_common(1)[0][0]
    return _NAMES.get(script, script.title())


def suggest_base(script: str) -> str:
    """Say what kind of base knows text of a script, with names to type."""
    if script == "emoji":
        return "a base for social media, such as --model cardiffnlp/twitter-roberta-base"
    own = f"a base for {script}" if script in _SIGNS else f"a base for the {script} script"
    several = "a multilingual one, such as --model bert-base-multilingual-cased or --model xlm-roberta-base"
    return f"{own} or {several}" if script and script != "Latin" else several


def _find_script(character: str) -> str | None:
    """Return the script of a letter in lower case, `emoji` of a symbol, None of anything else."""
    category = unicodedata.category(character)
    if category == "So":
        return "emoji"
    if not category.startswith("L"):
        return None
    return unicodedata.name(character, "").partition(" ")[0].lower() or None


def _list_unknown(texts: Sequence[str], encodings: Sequence[Encoding], unknown: int) -> Iterator[str]:
    """Yield what unknown tokens stand for."""
    for text, encoding in zip(texts, encodings, strict=True):
        if unknown in encoding.ids:
            for number, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
                if number == unknown:
                    yield text[start:end]
