"""Columns of class names: one for each text, or any number of them."""

import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from statistics import median
from typing import Final

from lorafit.errors import DataError
from lorafit.tasks.label_cells import Cell, DistinctCells, find_distinct, read_cell
from lorafit.tasks.label_spellings import clean_name, count_cells, is_number, is_whole, unify_spellings
from lorafit.tasks.labels import LabelColumn, LabelReading, list_labels, quote_label

_SEPARATORS: Final = {
    **dict.fromkeys((",", ";", "|", "\t", "\n"), False),
    **dict.fromkeys(("/", "&", "+", " "), True),
}
"""What may stand between labels in a cell, and whether it stands in names, too, so that parts must be there alone."""

_SHELL: Final = {"\t": r"$'\t'", "\n": r"$'\n'"}

_SEARCHED: Final = 10_000
"""Different cells in which a separator is looked for."""

_RECURRING: Final = 0.75
"""Share of the parts that must be labels elsewhere."""

_FEWEST_PARTED: Final = 2
"""So few different cells do not make a separator of what stands in names, too, as in science fiction."""

_MARKS: Final = {
    **dict.fromkeys(("0", "false", "no", "n", "f", "off"), 0.0),
    **dict.fromkeys(("1", "true", "yes", "y", "t", "x", "on"), 1.0),
}
_LISTED_MARKS: Final = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}

_LONE_MARKS: Final = (
    {"0"}, {"1"}, {"0", "1"}, {"true"}, {"false"}, {"false", "true"}, {"yes"}, {"no"}, {"no", "yes"},
)  # fmt: skip

_GRADES: Final = 20
"""More different fractions than this are no grades, such as half stars."""

_FEWEST_SINGLE, _SHARE_SINGLE = 20, 0.2
"""So many labels that no other row has, and for so many of the rows, are not what a column of labels has."""

_LONG_LABEL: Final = 60
"""Characters of the median label from which on labels look like texts."""

_EMPTY_LIST: Final = "an empty label ([] says that a text has none)"


def read_names(cells: Sequence[object], reading: LabelReading, *, are_numbers: bool = False) -> LabelColumn:
    """Read a column with one class name in each cell.

    Args:
        cells: As `read_cell` takes them; a list or marks of exactly one label are that label.
        reading: How cells are read.
        are_numbers: Whether labels can be numbers only.

    Returns:
        A name, or None, for each cell.
    """
    column = _Column(find_distinct(cells), reading)
    texts: list[str | None] = []
    for index, found in enumerate(column.lists):
        is_several = found is not None and len(set(map(clean_name, found))) > 1
        if is_several:
            column.faults[index] = "several labels (--task multi_label trains on them)"
        texts.append(found[0] if found and not is_several else None)
    spellings = unify_spellings(
        column.count([() if text is None else (text,) for text in texts]), reading, are_numbers=are_numbers
    )
    doubts: list[str] = []
    notes = [*column.notes, *spellings.notes]
    if not reading.known:
        doubts += [*_doubt_parts(column.plain), *_doubt_notation(column.plain), *_doubt_single(spellings.counts)]
        (notes if _are_grades(spellings.counts) else doubts).extend(_describe_fractions(spellings.counts))
    names = [None if text is None else spellings.names[text] for text in texts]
    read = column.distinct.spread(names, column.faults, notes, doubts)
    return replace(read, unmerged=spellings.unmerged)


def read_name_lists(cells: Sequence[object], reading: LabelReading) -> LabelColumn:
    """Read a column with any number of class names in each cell.

    Args:
        cells: As `read_cell` takes them; lists of 0 and 1 are marks, and text may have a separator between names.
        reading: How cells are read.

    Returns:
        The different names of each cell, sorted, or None.
    """
    column = _Column(find_distinct(cells), reading)
    separator = column.separate(reading)
    spellings = unify_spellings(column.count([found or () for found in column.lists]), reading)
    labels: list[tuple[str, ...] | None] = []
    for index, found in enumerate(column.lists):
        names = {name for text in found or () if (name := spellings.names[text]) is not None}
        is_missing = found is None or (found and not names)
        if is_missing:
            column.faults.setdefault(index, _EMPTY_LIST)
        labels.append(None if is_missing else tuple(sorted(names)))
    doubts: list[str] = []
    if not reading.known:
        doubts = [
            *_doubt_marks(spellings.counts, column),
            *_doubt_notation(column.plain),
            *_doubt_single(spellings.counts),
        ]
    read = column.distinct.spread(labels, column.faults, [*column.notes, *spellings.notes], doubts)
    return replace(read, unmerged=spellings.unmerged, separator=separator)


@dataclass
class _Column:
    """A column on its way from cells to lists of texts that stand for labels.

    Attributes:
        distinct: Its different cells.
        reading: How they are read.
        lists: The texts of each different cell; None where it has no label, or none that can be read.
        faults: What is wrong with different cells, by their index.
        notes: How cells were read.
        plain: Cells that are a name by themselves, no list or marks, and how often each is there.
        is_marked: Whether there are marks.
    """

    distinct: DistinctCells
    reading: LabelReading
    lists: list[Sequence[str] | None] = field(default_factory=list)
    faults: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    plain: dict[str, int] = field(default_factory=dict)
    is_marked: bool = False

    def __post_init__(self) -> None:
        read: list[Cell] = []
        for index, cell in enumerate(self.distinct.cells):
            try:
                read.append(read_cell(cell))
            except DataError as error:
                read.append(None)
                self.faults[index] = str(error)
        self.lists = [[cell] if isinstance(cell, str) else cell if isinstance(cell, list) else None for cell in read]
        self._by_itself = [index for index, cell in enumerate(read) if isinstance(cell, str)]
        self.plain = self.count([[cell] if isinstance(cell, str) else () for cell in read])
        listed = [index for index, cell in enumerate(read) if isinstance(cell, list)]
        self._read_dicts({index: cell for index, cell in enumerate(read) if isinstance(cell, dict)})
        self._read_listed_marks(listed)
        self._has_lists = any(self.lists[index] for index in listed) or self.is_marked

    def count(self, lists: Sequence[Sequence[str]]) -> dict[str, int]:
        """Count the texts of the different cells over the whole column."""
        counts: Counter[str] = Counter()
        for texts, count in zip(lists, self.distinct.counts, strict=True):
            for text in texts:
                counts[text] += count
        return dict(counts)

    def separate(self, reading: LabelReading) -> str | None:
        """Part the cells that are text at the separator given, or found, and return it; beside lists, at one given."""
        separator = reading.separator
        if separator is None and not self._has_lists:
            separator = _find_separator(self.plain, reading.known)
            if separator is not None:
                held = sum(count for text, count in self.plain.items() if separator in text)
                self.notes.append(f"Labels were parted at {_name(separator)} in {count_cells(held)}.")
            else:
                self.notes += _describe_unparted(self.plain, reading.known)
        if separator is None:
            return None
        for index in self._by_itself:
            self.lists[index] = [
                part
                for text in self.lists[index] or ()
                for part in ([text] if clean_name(text) in reading.known else _part(text, separator))
            ]
        self._read_listed_marks(self._by_itself)
        return separator

    def _read_dicts(self, dicts: Mapping[int, Mapping[str, str]]) -> None:
        """Read marks by name; nothing instead of a mark is a 0 where there is no 0 in the column."""
        marks: dict[int, dict[str, float | None]] = {}
        for index, cell in dicts.items():
            try:
                marks[index] = {name: self._read_mark(mark, name) for name, mark in cell.items()}
            except DataError as error:
                self.faults[index] = str(error)
        values = {mark for named in marks.values() for mark in named.values()}
        is_blank_0 = 0.0 not in values
        for index, named in marks.items():
            blank = sum(mark is None for mark in named.values())
            if is_blank_0 or not blank:
                self.lists[index] = [name for name, mark in named.items() if mark is not None and mark >= 0.5]
            elif blank < len(named):
                self.faults[index] = "a label without a mark, where others have 0 or 1"
        self.is_marked = bool(marks)
        if is_blank_0 and None in values:
            self.notes.append("Empty marks count as 0, since there is no 0 among the marks.")
        if any(mark is not None and 0 < mark < 1 for mark in values):
            self.notes.append("Marks between 0 and 1 count as 1 from 0.5 on.")
        names = {name for named in marks.values() for name in named if name}
        never = names - {text for texts in self.lists for text in texts or ()} - set(self.reading.known)
        if never and not self.reading.known:
            self.notes.append(f"Labels that no cell is marked with: {list_labels(sorted(never))}.")

    def _read_mark(self, text: str, name: str) -> float | None:
        missing = self.reading.missing
        if not text or (missing is not None and text.casefold() == missing.casefold()):
            return None
        mark = _MARKS.get(text.lower())
        if mark is None and is_number(text):
            mark = float(text)
        if mark is None or not 0 <= mark <= 1:
            raise DataError(
                f"a mark of {quote_label(name)} that is neither 0 nor 1 (true, false, yes, no): if it is a label by "
                f"name, {self._advise_names(name)}"
            )
        return mark

    def _advise_names(self, name: str) -> str:
        if name in self.reading.names:
            return f"choose one column of labels, such as --label-column {shlex.quote(name)}"
        return "write the name alone in the label column, not an object that holds it"

    def _read_listed_marks(self, indices: Sequence[int]) -> None:
        """Take lists for marks where they consist of 0 and 1 alone and have the same length, or a 0 or 1 twice."""
        lists = {index: self.lists[index] or () for index in indices}
        if not any(lists.values()) or not all(mark in _LISTED_MARKS for texts in lists.values() for mark in texts):
            return
        lengths: Counter[int] = Counter()
        for index, texts in lists.items():
            if texts:
                lengths[len(texts)] += self.distinct.counts[index]
        length = lengths.most_common(1)[0][0]
        if length < 2 or (len(lengths) > 1 and all(len(set(texts)) == len(texts) for texts in lists.values())):
            return
        digits = len(str(length - 1))
        names = self.reading.names or tuple(f"label_{place:0{digits}}" for place in range(length))
        for index, texts in lists.items():
            if len(texts) == len(names):
                self.lists[index] = [name for name, mark in zip(names, texts, strict=True) if _LISTED_MARKS[mark]]
            elif texts:
                self.lists[index] = None
                self.faults[index] = f"a list of more or fewer marks than {len(names)}"
        self.is_marked = True
        if not self.reading.names:
            self.notes.append(
                f"Lists of 0 and 1 were read as marks of {length} labels, called {names[0]} to {names[-1]}. Other "
                "names need lists of names, or a column of 0 and 1 for each (--label-columns)."
            )


def _find_separator(plain: Mapping[str, int], known: Collection[str]) -> str | None:
    """Find what stands between labels: parts are labels elsewhere, too; of several that, at which most cells part."""
    texts = [text for text in islice(plain, _SEARCHED) if clean_name(text) not in known]
    best, most = None, 0
    for separator, stands_in_names in _SEPARATORS.items():
        parted = [set(_part(text, separator)) for text in texts if separator in text.strip()]
        homes = Counter(part for parts in parted for part in parts)
        whole = {clean_name(text) for text in texts if separator not in text.strip()}.union(known)
        recurring = sum(count for part, count in homes.items() if part in whole or (count > 1 and not stands_in_names))
        enough = len(parted) > max(most, _FEWEST_PARTED if stands_in_names else 0)
        if enough and recurring >= _RECURRING * homes.total():
            best, most = separator, len(parted)
    return best


def _part(text: str, separator: str) -> list[str]:
    return [name for part in text.split(separator) if (name := clean_name(part))]


def _name(separator: str) -> str:
    return f"{separator!r} (--label-separator {_SHELL.get(separator) or shlex.quote(separator)})"


def _describe_unparted(plain: Mapping[str, int], known: Collection[str]) -> list[str]:
    """Say that what might be a separator was not taken for one."""
    notes = []
    for separator in (",", ";", "|"):
        held = sum(count for text, count in plain.items() if separator in text and clean_name(text) not in known)
        if held:
            notes.append(
                f"{count_cells(held)} with {separator!r} not parted, since the parts are no labels elsewhere: "
                f"--label-separator {shlex.quote(separator)} parts them."
            )
    return notes


def _are_grades(counts: Mapping[str, int]) -> bool:
    """Tell whether numbers are few and recur."""
    return len(counts) <= _GRADES and 2 * len(counts) <= sum(counts.values())


def _describe_fractions(counts: Mapping[str, int]) -> list[str]:
    names = [name.replace(",", ".", 1) for name in counts]
    if not all(map(is_number, names)) or all(map(is_whole, names)):
        return []
    return [f"The {len(counts):,} labels are numbers. Fractions look like a regression: --task regression."]


def _doubt_marks(counts: Mapping[str, int], column: _Column) -> list[str]:
    if column.is_marked or {name.lower() for name in counts} not in _LONE_MARKS:
        return []
    return [
        f"The only labels are {list_labels(sorted(counts))}, which look like marks of one label. Name the columns of "
        "all labels (--label-columns A,B,…), or leave --task multi_label out."
    ]


def _doubt_parts(plain: Mapping[str, int]) -> list[str]:
    """Doubt that cells hold one label each."""
    separator = _find_separator(plain, ())
    if separator not in {",", ";", "|"}:
        return []
    held = {text: count for text, count in plain.items() if separator in text}
    if len(held) < 3 or 10 * sum(held.values()) < sum(plain.values()):
        return []
    return [
        f"{sum(held.values()):,} of {sum(plain.values()):,} cells look like several labels with {separator!r} between "
        "them: --task multi_label trains on them."
    ]


def _doubt_notation(plain: Mapping[str, int]) -> list[str]:
    """Doubt that text in the brackets of a list or dict, but in no notation that is known, is a name."""
    held = {text for text in map(str.strip, plain) if text[:1] + text[-1:] in {"[]", "{}"} and set(text) & set(",:'\"")}
    if not held:
        return []
    return [
        f"Labels such as {quote_label(min(held))} look like lists or dictionaries in a notation that is not known. "
        "Write them as JSON, with labels in double quotes, or give a column for each label (--label-columns A,B,…)."
    ]


def _doubt_single(counts: Mapping[str, int]) -> list[str]:
    """Doubt that what no other row has, or is as long as a text, is a label."""
    single = sorted(name for name, count in counts.items() if count == 1)
    if len(single) >= max(_FEWEST_SINGLE, _SHARE_SINGLE * sum(counts.values())):
        return [
            f"{len(single):,} of {len(counts):,} labels occur once, such as {list_labels(single, most=3)}. Choose a "
            "column of labels (--label-column); where cells hold several, say what is between them (--task multi_label "
            "--label-separator)."
        ]
    if len(counts) > _FEWEST_SINGLE and median(map(len, counts)) > _LONG_LABEL:
        return [
            f"The {len(counts):,} labels are as long as texts ({median(map(len, counts)):.0f} characters in the "
            "median). Choose a column of labels (--label-column)."
        ]
    return []
