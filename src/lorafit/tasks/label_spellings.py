"""Class names in one spelling each, whatever the file: decided over a whole column."""

import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from lorafit.tasks.labels import LabelReading, list_labels, quote_label

_INVISIBLE: Final = dict.fromkeys(
    map(ord, "\N{ZERO WIDTH SPACE}\N{WORD JOINER}\N{ZERO WIDTH NO-BREAK SPACE}\N{SOFT HYPHEN}")
)
"""Left out of names; joiners stay, since some scripts and emoji need them."""

MISSING_WORDS: Final = frozenset({"nan", "na", "n/a", "#n/a", "<na>", "null", "none", "-"})
"""In small letters, what often stands for a number that is missing."""

_NUMBER: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_WHOLE: Final = re.compile(r"([+-]?\d{1,100})(?:\.0*)?")
_SCIENTIFIC: Final = re.compile(r"[+-]?\d\.\d+[eE][+-]\d+")
"""As NumPy writes 1 as 1.000e+00."""

_SHOWN: Final = 5


@dataclass(frozen=True)
class Spellings:
    """The names of a column.

    Attributes:
        names: The name of each text there; None for what stands for no label.
        counts: How often each name is there.
        notes: What was merged or taken for missing, and what could be.
        unmerged: What differs in upper and lower case alone and stays apart, as a sentence; none where nothing does.
    """

    names: Mapping[str, str | None]
    counts: Mapping[str, int]
    notes: tuple[str, ...]
    unmerged: tuple[str, ...]


def clean_name(text: str) -> str:
    """Return a name in NFC, with one blank for all white space inside and none around it, and nothing invisible."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text.translate(_INVISIBLE))
    return " ".join(text.split())


def is_number(name: str) -> bool:
    """Tell whether a name is a number."""
    return _NUMBER.fullmatch(name) is not None


def is_whole(name: str) -> bool:
    """Tell whether a name is a whole number."""
    return _WHOLE.fullmatch(_shorten(name)) is not None


def match_names(published: Sequence[str], names: Collection[str]) -> dict[str, str]:
    """Find published names among those of a task.

    Args:
        published: Names as a source publishes them.
        names: Names as they were read from rows.

    Returns:
        The task's name of each published one that it has, in the order published.
    """
    known = _Known(names)
    found = {name: known.find(clean_name(name)) for name in published}
    return {name: match for name, match in found.items() if match is not None}


def match_cases(names: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Find names that differ from known ones in upper and lower case alone; return the known one of each."""
    forms = {name.casefold(): name for name in known}
    return {name: forms[name.casefold()] for name in names if name.casefold() in forms}


def unify_spellings(texts: Mapping[str, int], reading: LabelReading, *, are_numbers: bool = False) -> Spellings:
    """Give every label of a column one name.

    White space, Unicode form, invisible characters, `1.0` for 1 where all numbers are whole, and `True` for true never
    make another label. Upper and lower case do, unless they are to be merged.

    Args:
        texts: What stands for labels, and how often.
        reading: How labels are read.
        are_numbers: Whether labels can be numbers only, so that words such as N/A are missing.

    Returns:
        The names.
    """
    known = _Known(reading.known)
    cleaned = {text: clean_name(text) for text in texts}
    present = _count(cleaned, texts)
    gone = {name for name in present if reading.missing is not None and _is_same(name, reading.missing)}
    left = {name: count for name, count in present.items() if name not in gone}
    words, notes = _judge_missing_words(left, known, are_numbers=are_numbers)
    gone |= words
    spelled = _spell({name: count for name, count in left.items() if name not in words}, known)
    names = {text: spelled.get(name) for text, name in cleaned.items()}
    counts = _count(names, texts)
    notes += _describe_merged(names, texts)
    alike = _group_by(str.casefold, {**dict.fromkeys(reading.known, 0), **counts})
    cases = [group for group in alike if any(group[name] and name not in known.names for name in group)]
    unmerged: list[str] = []
    if reading.merge_spellings:
        merged = {name: _choose(group, known.names) for group in cases for name in group}
        names = {text: None if name is None else merged.get(name, name) for text, name in names.items()}
        notes += _describe_cases(cases, "were merged (--merge-spellings)")
        counts = _count(names, texts)
    else:
        unmerged = _describe_cases(
            cases, "differ in upper and lower case alone: --merge-spellings makes each of them one"
        )
    if not known.names:
        notes += _describe_truths(counts)
        notes += _describe_hidden(counts) if reading.missing is None else []
    return Spellings(names, counts, tuple(notes), tuple(unmerged))


def group_spellings(names: Iterable[str]) -> list[list[str]]:
    """Return groups of two or more names that differ in case, spaces, Unicode form or a decimal of 0 alone."""
    return [list(group) for group in _group_by(_fold, dict.fromkeys(names, 0))]


class _Known:
    """Names that a model has, to be found in other spellings."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)
        self._by_form: dict[str, str | None] = {}
        for name in self.names:
            form = _shorten(clean_name(name))
            self._by_form[form] = None if form in self._by_form else name

    def find(self, name: str) -> str | None:
        return name if name in self.names else self._by_form.get(_shorten(name))


def _shorten(name: str) -> str:
    """Return the form that spellings of a name have in common: 1 for 1.0, true for TRUE."""
    if _SCIENTIFIC.fullmatch(name) and float(name).is_integer():
        return str(int(float(name)))
    if (whole := _WHOLE.fullmatch(name)) is not None:
        return "0" if whole[1] in {"-0", "+0"} else whole[1]
    return name.lower() if name.lower() in {"true", "false"} else name


def _fold(name: str) -> str:
    """Return the form of a name whose case, underscores and compatibility characters do not count."""
    return _shorten(clean_name(unicodedata.normalize("NFKC", name).casefold().replace("_", " ")))


def _is_same(name: str, other: str) -> bool:
    return _shorten(name).casefold() == _shorten(clean_name(other)).casefold()


def _count(names: Mapping[str, str | None], texts: Mapping[str, int]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for text, name in names.items():
        if name:
            counts[name] += texts[text]
    return dict(counts)


def _judge_missing_words(present: Mapping[str, int], known: _Known, *, are_numbers: bool) -> tuple[set[str], list[str]]:
    """Return the words that stand for no label, and notes on words that do and that may."""
    words = [name for name in present if name.casefold() in MISSING_WORDS]
    others = known.names or set(present) - set(words)
    if not words:
        return set(), []
    if are_numbers or (others and all(map(is_number, others))):
        return set(words), describe_missing_words({word: present[word] for word in words})
    if known.names:
        return set(), []
    return set(), [
        f"{count_cells(present[word])} with {quote_label(word)}, read as a label: --missing-label "
        f"{shlex.quote(word)} --bad-rows drop leaves it out."
        for word in words
    ]


def _spell(present: Mapping[str, int], known: _Known) -> dict[str, str]:
    """Return the spelling of each name: the model's, else the short form; of fractions the commonest."""
    is_whole_column = all(is_whole(name) for name in present if is_number(name))
    spelled = {name: name if is_number(name) and not is_whole_column else _shorten(name) for name in present}
    if not is_whole_column:
        for group in _group_by(_shorten, present):
            spelled |= dict.fromkeys(group, _choose(group, ())) if all(map(is_number, group)) else {}
    if known.names:
        spelled = {name: known.find(name) or short for name, short in spelled.items()}
    return spelled


def _group_by(form: Callable[[str], str], counts: Mapping[str, int]) -> list[dict[str, int]]:
    """Return the names that share their form with others, group by group, with their counts."""
    first: dict[str, str] = {}
    groups: dict[str, dict[str, int]] = {}
    for name, count in counts.items():
        other = first.setdefault(form(name), name)
        if other is not name:
            groups.setdefault(other, {other: counts[other]})[name] = count
    return list(groups.values())


def _choose(group: Mapping[str, int], known: Collection[str]) -> str:
    """Return the model's spelling, else the most frequent, else the first by the alphabet."""
    return min(group, key=lambda name: (name not in known, -group[name], name))


def _describe_merged(names: Mapping[str, str | None], texts: Mapping[str, int]) -> list[str]:
    several = {name for name, count in Counter(names.values()).items() if name is not None and count > 1}
    if not several:
        return []
    spellings: dict[str, list[int]] = {}
    for text, name in names.items():
        if name in several:
            spellings.setdefault(name, []).append(texts[text])
    listed = [f"{quote_label(name)} ({_add(counts)})" for name, counts in islice(spellings.items(), _SHOWN)]
    return [
        "Labels spelled in several ways (white space, Unicode form, 1.0 for 1, True for true) are one each: "
        f"{', '.join(listed)}{_say_more(len(several))}."
    ]


def _describe_cases(groups: Sequence[Mapping[str, int]], verdict: str) -> list[str]:
    if not groups:
        return []
    listed = [
        ", ".join(f"{quote_label(name)}{f' {count:,}' if count else ' of training'}" for name, count in group.items())
        for group in groups[:_SHOWN]
    ]
    return [f"Labels {verdict}: {'; '.join(listed)}{_say_more(len(groups))}."]


def _describe_truths(counts: Mapping[str, int]) -> list[str]:
    return [
        f"Labels '{word}' ({count_cells(counts[word])}) and '{mark}' ({count_cells(counts[mark])}) stay apart: write "
        "one of them in every row if they mean the same."
        for word, mark in (("true", "1"), ("false", "0"))
        if word in counts and mark in counts
    ]


def _describe_hidden(counts: Mapping[str, int]) -> list[str]:
    if "-1" not in counts or len(counts) < 2 or not all(is_whole(name) and int(name) >= -1 for name in counts):
        return []
    return [describe_hidden(counts["-1"])]


def describe_missing_words(words: Mapping[str, int]) -> list[str]:
    """Return the note on words that stand for missing numbers, given with their counts; none where there are none."""
    if not words:
        return []
    return [f"{count_cells(sum(words.values()))} with {list_labels(list(words))} instead of a number: no label."]


def describe_hidden(count: int) -> str:
    """Return the note on cells with -1, which some data sets have where a label is hidden."""
    return f"{count_cells(count)} with the label -1. If it hides a label: --missing-label -1 --bad-rows drop."


def count_cells(count: int) -> str:
    """Return a number of cells in words."""
    return f"{count:,} cell{'' if count == 1 else 's'}"


def _add(counts: Sequence[int]) -> str:
    counts = sorted(counts, reverse=True)
    return " + ".join(f"{count:,}" for count in counts[:_SHOWN]) + (" + …" if len(counts) > _SHOWN else "")


def _say_more(count: int) -> str:
    return f", … {count - _SHOWN:,} more" if count > _SHOWN else ""
