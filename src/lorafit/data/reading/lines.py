"""Read text files without columns: a text a line, with its label before it or without one."""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final

from lorafit.config import FormatConfig
from lorafit.data.reading.encodings import is_decodable, name_encoding, open_text, read_lines
from lorafit.data.reading.opening import StoredFile
from lorafit.data.reading.parts import Limit, Part, cut

_FASTTEXT: Final = re.compile(r"\s*((?:__label__\S+\s+)*__label__\S+)(?:\s+(.*))?", re.DOTALL)
_LABELLED: Final = re.compile(r"\s*(\S+)\s+(\S.*)", re.DOTALL)
_SAMPLE: Final = 1000

_Row = tuple[str | None, object, str | None]
"""Text, label, and what is wrong."""


def stream_lines(file: StoredFile, form: FormatConfig, limit: Limit, notes: list[str]) -> Iterator[Part]:
    """Read a text a line.

    Args:
        file: A .txt file: of fastText's lines where nearly all begin with __label__, else of texts alone. A .label
            file: of lines that begin with the label.
        form: Its encoding.
        limit: How large a part may be.
        notes: Takes what a user should know.

    Yields:
        The parts. A txt file has a row a line, blank ones too, unless all are blank; the others leave blank lines out.

    Raises:
        DataError: The file cannot be read.
    """
    parse = _find_parser(file, form)
    if parse is _parse_fasttext and file.suffix == ".txt":
        notes.append(f"{file.path.name}: read as fastText's lines, labels before the text.")
    with open_text(file, form, newline="\n") as text:
        whole = _skip_mark(read_lines(text, file.path))
        lines = (line[:-2] if line.endswith("\r\n") else line.removesuffix("\n") for line in whole)
        fault = f"bytes that are not {name_encoding(form)}"
        if parse is None:
            for part in cut(_drop_if_blank(lines), len, limit):
                bad = {place: fault for place, line in enumerate(part) if not line.isascii() and not is_decodable(line)}
                yield Part({"text": [None if place in bad else line for place, line in enumerate(part)]}, bad)
            return
        for part in cut((line for line in lines if line.strip()), len, limit):
            rows = [parse(line) if is_decodable(line) else (None, None, fault) for line in part]
            faults = {place: wrong for place, (_, _, wrong) in enumerate(rows) if wrong is not None}
            yield Part({"text": [row[0] for row in rows], "label": [row[1] for row in rows]}, faults)


def _find_parser(file: StoredFile, form: FormatConfig) -> Callable[[str], _Row] | None:
    with open_text(file, form, newline="\n") as text:
        lines = [line for line in islice(_skip_mark(read_lines(text, file.path)), _SAMPLE) if line.strip()]
    if lines and sum(_FASTTEXT.fullmatch(line) is not None for line in lines) >= 0.9 * len(lines):
        return _parse_fasttext
    return _parse_labelled if file.suffix == ".label" else None


def _parse_fasttext(line: str) -> _Row:
    match = _FASTTEXT.fullmatch(line)
    if match is None:
        return None, None, "a line that does not begin with __label__"
    labels = [label.removeprefix("__label__") for label in match[1].split()]
    return match[2] or "", labels[0] if len(labels) == 1 else labels, None


def _parse_labelled(line: str) -> _Row:
    match = _LABELLED.fullmatch(line)
    return (None, None, "a line without a text after the label") if match is None else (match[2], match[1], None)


def _skip_mark(lines: Iterable[str]) -> Iterator[str]:
    """Take off the byte order mark that some codecs leave."""
    for number, line in enumerate(lines):
        yield line if number else line.removeprefix("\ufeff")


def _drop_if_blank(lines: Iterable[str]) -> Iterator[str]:
    """Yield all lines, or none where all are blank."""
    held: list[str] = []
    texts = iter(lines)
    for line in texts:
        held.append(line)
        if line.strip():
            yield from held
            yield from texts
