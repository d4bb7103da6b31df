"""Texts that are typed at the command line, or piped into it."""

import contextlib
import csv
import io
import json
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, TextIO

from lorafit.config import FormatConfig
from lorafit.data.reading.dialects import COLUMN_NAMES, FALSE_HEADER
from lorafit.data.reading.encodings import decode, judge_encoding
from lorafit.data.tables import READABLE_SUFFIXES, Table
from lorafit.errors import UserInputError
from lorafit.system.files import describe_no_file
from lorafit.system.text import format_count

_DELIMITERS: Final = {"\t": ".tsv", ",": ".csv", ";": ".csv", "|": ".csv"}
_LONGEST_NAME: Final = 255
_HEAD: Final = 1 << 16
"""Bytes by which it is told what is piped in."""


def read_words(words: Sequence[str], *, text_columns: Sequence[str] = ("text",)) -> Table:
    """Take words of the command line as texts.

    Args:
        words: Texts; of pairs, both texts of one.
        text_columns: Names of the table's columns: one, or two for pairs.

    Returns:
        The table.

    Raises:
        UserInputError: They are not one pair, or one is the name of a file.
    """
    refuse_file_names(words)
    if len(text_columns) == 1:
        return Table({text_columns[0]: list(words)}, "the command line")
    if len(words) != len(text_columns):
        raise UserInputError(
            f"The model takes pairs of texts: give both texts of one pair, got {format_count(len(words), 'text')}. "
            "Several pairs come from a file (--file), or from standard input, one a line with a tab between both "
            "texts."
        )
    return Table({name: [word] for name, word in zip(text_columns, words, strict=True)}, "the command line")


def refuse_file_names(words: Sequence[str]) -> None:
    """Refuse a word that names a file, or looks as if it did: it is what is in the file that is meant.

    Args:
        words: Texts of the command line.

    Raises:
        UserInputError: One of them does.
    """
    for word in words:
        is_there = len(word) <= _LONGEST_NAME and describe_no_file(Path(word)) is None
        if is_there or (re.search(r"\s", word) is None and Path(word).suffix.lower() in READABLE_SUFFIXES):
            name = shlex.quote(word)
            raise UserInputError(
                f"{name} {'is' if is_there else 'looks like'} a file, not a text. For the texts in it: lorafit predict "
                f"RUN --file {name}. For its name as a text: echo {name} | lorafit predict RUN"
            )


@contextlib.contextmanager
def save_stream(stream: TextIO, text_columns: Sequence[str], form: FormatConfig) -> Iterator[Path]:
    """Put what is piped in into a temporary file, which can be read as any other.

    Args:
        stream: Standard input.
        text_columns: The columns of the texts, by which the header of a table is known.
        form: How it is written, as far as that was told.

    Yields:
        The file, whose suffix says what was found: lines of texts (.txt), or a csv, tsv or json table.

    Raises:
        UserInputError: It is a terminal, or nothing comes.
        DataError: It is in no encoding that is known.
    """
    if stream.isatty():
        raise UserInputError('Nothing to predict. Give texts ("I loved it"), --file reviews.csv, or pipe lines in.')
    with tempfile.TemporaryDirectory(prefix="lorafit-") as folder:
        piped = Path(folder) / "standard input"
        with piped.open("wb") as file:
            if isinstance(stream, io.TextIOWrapper):
                shutil.copyfileobj(stream.buffer, file)
            else:
                file.write(stream.read().encode("utf-8", "surrogatepass"))
        if not piped.stat().st_size:
            raise UserInputError("Nothing to predict: standard input is empty.")
        with piped.open("rb") as file:
            form, _ = judge_encoding(file, Path("standard input"), form)
            file.seek(0)
            head = decode(file.read(_HEAD), Path("standard input"), form)
        yield piped.rename(piped.with_name(f"standard input{find_suffix(head, text_columns, form)}"))


def find_suffix(head: str, text_columns: Sequence[str], form: FormatConfig) -> str:
    """Tell lines of texts from a table by the first line.

    Args:
        head: What it begins with.
        text_columns: The columns of the texts.
        form: How it is written, as far as that was told.

    Returns:
        The suffix that a file of this kind has.
    """
    first = next((line for line in re.split(r"\r?\n", head.removeprefix("\ufeff")) if line.strip()), "")
    if (value := _parse(first)) is not None:
        return ".jsonl" if isinstance(value, dict) else ".json"
    if re.match(r"\ufeff?\s*(?:\[\s*\{\s*\"|\{\s*\n\s*\")", head):
        return ".json"
    if form.delimiter is not None or form.header is not None or form.quoting is not None or form.escape is not None:
        return ".tsv" if form.delimiter == "\t" else ".csv"
    if FALSE_HEADER.fullmatch(first) is not None:
        return ".csv"
    for delimiter, suffix in _DELIMITERS.items():
        names = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
        has_texts = set(text_columns) <= set(names)
        if has_texts or (len(names) > 1 and COLUMN_NAMES.issuperset(name.lower() for name in names)):
            return suffix if len(names) > 1 else ".csv"
    return ".txt"


def _parse(line: str) -> dict[str, object] | list[object] | None:
    """Return the object, or the list of objects, that a line is in JSON."""
    if not line.lstrip().startswith(("{", "[")):
        return None
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict) and value:
        return value
    return value if isinstance(value, list) and value and all(isinstance(one, dict) for one in value) else None
