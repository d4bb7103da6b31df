"""Columns of numbers, with the decimal commas and the signs between thousands that people write."""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Final

from lorafit.errors import DataError
from lorafit.tasks.label_cells import LARGEST_NUMBER, NOT_FINITE, DistinctCells, find_distinct, read_cell, simplify
from lorafit.tasks.label_spellings import MISSING_WORDS, clean_name, describe_hidden, describe_missing_words
from lorafit.tasks.labels import LabelColumn, LabelReading

_SIGNS: Final = str.maketrans({"\N{MINUS SIGN}": "-", "\N{RIGHT SINGLE QUOTATION MARK}": "'"})

_COMMA_DECIMAL: Final = re.compile(r"[+-]?(?:[1-9]\d{0,2}([. '])\d{3}(?:\1\d{3})*|\d+)(?:,\d+)?")
_COMMA_THOUSANDS: Final = re.compile(r"[+-]?(?:[1-9]\d{0,2}([, '])\d{3}(?:\1\d{3})*|\d+)(?:\.\d+)?")
_DECORATED: Final = re.compile(r"\D*\d[\d.,' ]*(?:/ ?\d+)?\D*")
"""A number with something beside it."""

_LONGEST: Final = 100
"""Characters of what may be a number."""

_FEWEST_CLEAR: Final = 5
"""So many numbers with a comma before three digits, beside others below 1,000 without one, are thousands."""

_WORD: Final = "no number (a regression needs a column of numbers: --label-column)"
_BESIDE: Final = "a number with a sign or word beside it, as in $5, 80% or 5 stars (write the number alone)"
_AMBIGUOUS: Final = "a comma that may be a decimal comma or part of thousands (write 1234.5 for either)"
_AMBIGUOUS_DOT: Final = (
    "a dot that may be a decimal point or part of thousands, beside decimal commas (write 1234.5 for either)"
)
_MIXED: Final = "a comma that is a decimal sign in some cells and part of thousands in others (write 1234.5 for either)"


def read_numbers(cells: Sequence[object], reading: LabelReading) -> LabelColumn:
    """Read a column of numbers.

    Args:
        cells: As `read_cell` takes them; a list of exactly one number is that number.
        reading: How cells are read.

    Returns:
        A number, or None, for each cell.
    """
    distinct = find_distinct(cells)
    numbers: list[float | None] = [None] * len(distinct.cells)
    faults: dict[int, str] = {}
    texts: dict[int, str] = {}
    for index, cell in enumerate(distinct.cells):
        try:
            found = _read(cell)
        except DataError as error:
            faults[index] = str(error)
            continue
        if isinstance(found, str):
            texts[index] = found
        else:
            numbers[index] = found
    if reading.missing is not None:
        word = clean_name(reading.missing).casefold()
        texts = {index: text for index, text in texts.items() if text.casefold() != word}
    notes = _drop_missing_words(texts, distinct)
    written, decimal = _read_written(texts, numbers, faults, distinct, reading.decimal)
    notes += written
    _read_plain(texts, numbers, faults)
    if reading.missing is not None:
        missing = _parse(reading.missing)
        numbers = [None if number == missing else number for number in numbers]
    else:
        notes += _describe_minus_1(numbers, distinct.counts)
    return replace(distinct.spread(numbers, faults, notes), decimal=decimal)


def _read(cell: object) -> float | str | None:
    """Return a number, text that may be one, or None."""
    cell = simplify(cell)
    if isinstance(cell, bool):
        raise DataError("true or false instead of a number")
    if isinstance(cell, int | float | Decimal):
        return _check(cell)
    found = read_cell(cell)
    if isinstance(found, dict):
        raise DataError("a dictionary instead of a number")
    if isinstance(found, list):
        if len(found) > 1:
            raise DataError("several numbers")
        found = found[0] if found else None
    return None if found is None else clean_name(found).translate(_SIGNS) or None


def _check(number: float | Decimal) -> float:
    if not -LARGEST_NUMBER <= number <= LARGEST_NUMBER:
        raise DataError(NOT_FINITE)
    return float(number)


def _parse(text: str) -> float | None:
    """Return the number that Python reads in a text, but for 1_000."""
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def _drop_missing_words(texts: dict[int, str], distinct: DistinctCells) -> list[str]:
    words: dict[str, int] = {}
    for index, text in list(texts.items()):
        if text.casefold() in MISSING_WORDS:
            words[text] = words.get(text, 0) + distinct.counts[index]
            del texts[index]
    return describe_missing_words(words)


def _read_written(
    texts: dict[int, str],
    numbers: list[float | None],
    faults: dict[int, str],
    distinct: DistinctCells,
    decimal: str | None,
) -> tuple[list[str], str | None]:
    """Read numbers with commas and signs between thousands, and take them from `texts`.

    Of two ways to read a comma, one must fit all cells, or that of the decimal sign given. Where both do, all commas
    stand before three digits. What the one that fits takes for a sign between thousands must not be another decimal
    sign.

    Args:
        texts: Cells that are no plain numbers, by their place in `numbers`.
        numbers: The numbers read so far; those that are read here are put in.
        faults: What is wrong with cells, by their place; those that fit no way are put in.
        distinct: All cells.
        decimal: The decimal sign where it is known.

    Returns:
        How they were read, and the decimal sign.
    """
    whole = {
        index: text
        for index, text in texts.items()
        if len(text) <= _LONGEST and (_COMMA_DECIMAL.fullmatch(text) or _COMMA_THOUSANDS.fullmatch(text))
    }
    odd = {index: text for index, text in whole.items() if _parse(text) is None}
    if decimal is not None:
        pattern = _COMMA_DECIMAL if decimal == "," else _COMMA_THOUSANDS
        whole = {index: text for index, text in whole.items() if pattern.fullmatch(text)}
        _refuse(odd.keys() - whole.keys(), _MIXED, texts, faults)
        odd = {index: text for index, text in odd.items() if index in whole}
        is_decimal, ambiguous = decimal == ",", _find_ambiguous(whole, is_decimal=True) if decimal == "," else []
    elif odd:
        fits_decimal = all(map(_COMMA_DECIMAL.fullmatch, whole.values()))
        fits_thousands = all(map(_COMMA_THOUSANDS.fullmatch, whole.values()))
        has_comma = any("," in text for text in odd.values())
        fault = None if fits_decimal or fits_thousands else _MIXED
        if fits_decimal and fits_thousands and has_comma and not _is_clear(whole.values()):
            fault = _AMBIGUOUS
        if fault is not None:
            _refuse(odd, fault, texts, faults)
            return [], None
        is_decimal = not fits_thousands
        decimal = "," if is_decimal else "." if has_comma or not fits_decimal else None
        ambiguous = _find_ambiguous(whole, is_decimal=is_decimal)
    else:
        return [], None
    for index in ambiguous:
        faults[index] = _AMBIGUOUS_DOT if is_decimal else _AMBIGUOUS
        del texts[index], whole[index]
    written = {
        index: text
        for index, text in whole.items()
        if index in odd or (is_decimal and not text.lstrip("+-").isdecimal())
    }
    for index in written:
        plain = re.sub(r"[. ']" if is_decimal else r"[, ']", "", texts.pop(index)).replace(",", ".")
        try:
            numbers[index] = _check(float(plain))
        except DataError as error:
            faults[index] = str(error)
    return _describe_written(written, numbers, distinct.counts, is_decimal=is_decimal), decimal


def _refuse(indices: Iterable[int], fault: str, texts: dict[int, str], faults: dict[int, str]) -> None:
    """Take texts that are no numbers from `texts`, and say why."""
    for index in indices:
        faults[index] = fault
        del texts[index]


def _find_ambiguous(whole: Mapping[int, str], *, is_decimal: bool) -> list[int]:
    """Find numbers in which the sign between thousands may be decimal: none where it is seen twice, or beside that."""
    sign, decimal = (".", ",") if is_decimal else (",", ".")
    if any(text.count(sign) > 1 or (sign in text and decimal in text) for text in whole.values()):
        return []
    if not is_decimal and _is_clear([text.partition(decimal)[0] for text in whole.values()]):
        return []
    return [index for index, text in whole.items() if sign in text]


def _is_clear(texts: Collection[str]) -> bool:
    """Tell whether commas before three digits cannot be decimal: others have no decimals, and none is above 999."""
    commas = {text for text in texts if "," in text}
    others = [abs(int(text)) for text in texts if text.lstrip("+-").isdecimal()]
    if not others or max(others) >= 1000:
        return False
    return len(commas) >= _FEWEST_CLEAR or any(text.endswith("0") for text in commas)


def _describe_written(
    written: Mapping[int, str], numbers: Sequence[float | None], counts: Sequence[int], *, is_decimal: bool
) -> list[str]:
    """Say how numbers with a comma, or without one with a sign between thousands, were read."""
    notes = []
    commas = {index: text for index, text in written.items() if "," in text}
    spaced = {index: text for index, text in written.items() if "," not in text}
    for group, sign in (
        (commas, "a decimal comma" if is_decimal else "a comma in thousands"),
        (spaced, "a sign between thousands"),
    ):
        index = next(iter(group), None)
        if index is not None:
            cells = sum(counts[index] for index in group)
            notes.append(
                f"{cells:,} number{'' if cells == 1 else 's'} with {sign}, as {group[index]} for {numbers[index]:.15g}."
            )
    return notes


def _read_plain(texts: Mapping[int, str], numbers: list[float | None], faults: dict[int, str]) -> None:
    for index, text in texts.items():
        number = _parse(text)
        if number is None:
            is_decorated = len(text) <= _LONGEST and _DECORATED.fullmatch(text) is not None
            faults[index] = _BESIDE if is_decorated else _WORD
        elif not math.isnan(number):
            try:
                numbers[index] = _check(number)
            except DataError as error:
                faults[index] = str(error)


def _describe_minus_1(numbers: Sequence[float | None], counts: Sequence[int]) -> list[str]:
    present = {number for number in numbers if number is not None}
    if -1.0 not in present or len(present) < 2 or not all(number >= -1 and number.is_integer() for number in present):
        return []
    return [describe_hidden(sum(count for number, count in zip(numbers, counts, strict=True) if number == -1))]
