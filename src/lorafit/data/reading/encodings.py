"""In which encoding a text file is written."""

import codecs
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, TextIO

from lorafit.config import FormatConfig
from lorafit.data.reading.opening import TEXT_SUFFIXES, StoredFile, locate_file
from lorafit.errors import DataError
from lorafit.system import limits

_CANDIDATES: Final = (
    "cp1252", "gb18030", "cp932", "cp949", "koi8_r", "cp1251", "cp1250", "big5", "euc_jp", "latin_1",
)  # fmt: skip
"""Encodings to be found, the more likely ones first."""

_LATIN: Final = ("cp1252", "cp1250", "latin_1")

_COMMON: Final = {
    "gb18030": ((0xA1, 0xA3), (0xB0, 0xD7)),
    "big5": ((0xA1, 0xC6),),
    "cp949": ((0xB0, 0xC8),),
    "cp932": ((0x81, 0x83), (0x88, 0x97)),
    "euc_jp": ((0xA1, 0xA1), (0xA4, 0xA5), (0xB0, 0xCF)),
}
"""First bytes of the characters that ordinary texts are written in: each standard has the rare ones elsewhere."""

_MARKS: Final = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_TELLING_WORD: Final = re.compile(rb"[!-~]*[\x80-\xff][!-~\x80-\xff]*")
_BLOCK: Final = 1 << 20
_MOST_SCANNED: Final = 1 << 26
_SAMPLE: Final = 1 << 16
_LONGEST_LINE: Final = 1 << 13
_LEAST_CONFIDENCE: Final = 0.8
_MOST_STRAY: Final = 0.1
_MARK: Final = "lorafit.mark"
"""Name of the error handler that turns undecodable bytes into half of a surrogate pair, which no codec gives."""


def _mark(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\udcff", error.end


codecs.register_error(_MARK, _mark)


class _Sample(NamedTuple):
    """The file's first bytes, its lines that are not ASCII, as far as they are needed, and how many lines there are."""

    start: bytes
    telling: list[bytes]
    lines: int


def find_encoding(file: StoredFile, form: FormatConfig) -> tuple[FormatConfig, tuple[str, ...]]:
    """Decide in which encoding a file is written.

    A file that is UTF-8 but for some lines stays UTF-8: those lines are bad rows.

    Args:
        file: The file.
        form: What is known.

    Returns:
        `form` with an encoding, and what is to be told of it: nothing of UTF-8.

    Raises:
        DataError: The file cannot be read, is in no known encoding, or the one given is unknown.
    """
    with file.open() as stream:
        return judge_encoding(stream, file.path, form)


def has_mark(path: Path) -> bool:
    """Tell whether the text file at a path, packed or not, begins with a byte order mark."""
    if path.is_dir() or (file := locate_file(path)).suffix not in TEXT_SUFFIXES:
        return False
    with file.open() as stream:
        return stream.read(4).startswith(tuple(_MARKS))


def judge_encoding(stream: BinaryIO, path: Path, form: FormatConfig) -> tuple[FormatConfig, tuple[str, ...]]:
    """Decide in which encoding bytes are, as `find_encoding` does.

    Args:
        stream: The bytes.
        path: Where they are from, for messages.
        form: What is known.

    Returns:
        `form` with an encoding, and what is to be told of it: nothing of UTF-8.

    Raises:
        DataError: No known encoding fits, or the one given is unknown.
    """
    if form.encoding is not None:
        return form.model_copy(update={"encoding": _check_encoding(form.encoding)}), ()
    sample = _take_sample(stream)
    marked = next((name for mark, name in _MARKS.items() if sample.start.startswith(mark)), None)
    encoding = marked or _find_utf16(sample.start)
    if encoding is not None:
        told = () if encoding == "utf-8-sig" else (f"as {encoding}",)
        return form.model_copy(update={"encoding": encoding}), told
    valid = sum(map(_is_utf8, sample.telling))
    bad = len(sample.telling) - valid
    if 3 * valid >= bad:
        return form.model_copy(update={"encoding": "utf-8"}), ()
    found = _rank(b"\n".join(sample.telling))
    if not found or found[0].confidence < _LEAST_CONFIDENCE:
        if bad <= _MOST_STRAY * sample.lines:
            return form.model_copy(update={"encoding": "utf-8"}), ()
        raise DataError(
            f"{path} is not UTF-8, and no encoding was found that fits: it may be damaged, or no text. If you know "
            "its encoding, name it with --encoding, as in --encoding cp1252."
        )
    best, *others = found
    told = (f"as {best.encoding} (confidence {best.confidence:.2f})",)
    near = [other.encoding for other in others if other.score > best.score - 0.05 and other.text != best.text]
    if near:
        told = (f"{told[0][:-1]}; also possible: {', '.join(near)}, by --encoding)",)
    return form.model_copy(update={"encoding": best.encoding}), told


@contextmanager
def open_text(file: StoredFile, form: FormatConfig, *, newline: str) -> Iterator[TextIO]:
    """Open a text file in the encoding that was found; undecodable bytes become halves of surrogate pairs, or U+FFFD.

    Args:
        file: The file.
        form: Its encoding, and what becomes of bytes that cannot be decoded.
        newline: As of `open`.

    Yields:
        The text.

    Raises:
        DataError: The file cannot be read, or its encoding cannot be read part by part.
    """
    encoding, errors = _choose_handler(form)
    with file.open() as stream:
        try:
            with TextIOWrapper(stream, encoding, errors=errors, newline=newline) as text:
                yield text
        except UnicodeError:
            raise _unfit(file.path, encoding) from None  # the decoder's error holds the file's content


def read_lines(text: TextIO, path: Path) -> Iterator[str]:
    """Read a text line by line, as iterating over it does, but no line without an end.

    Args:
        text: The text, as `open_text` gives it.
        path: Where it is from, for messages.

    Yields:
        The lines with their ends.

    Raises:
        DataError: A line is longer than is allowed.
    """
    most = limits.LINE.value
    number = 0
    while line := text.readline(most + 1):
        number += 1
        if len(line) > most:
            raise DataError(f"{path}: line {number:,} does not end; {limits.LINE.allow()}.")
        yield line


def decode(content: bytes, path: Path, form: FormatConfig) -> str:
    """Decode a whole text as `open_text` does."""
    encoding, errors = _choose_handler(form)
    try:
        return content.decode(encoding, errors)
    except UnicodeError:
        raise _unfit(path, encoding) from None


def is_decodable(text: str) -> bool:
    """Tell whether a text was decoded without a fault: bad bytes become halves of surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _choose_handler(form: FormatConfig) -> tuple[str, str]:
    encoding = form.encoding or "utf-8"
    if form.encoding_errors == "replace":
        return encoding, "replace"
    return encoding, "surrogateescape" if encoding.startswith("utf-8") else _MARK


def _unfit(path: Path, encoding: str) -> DataError:
    return DataError(
        f"{path} cannot be read as {encoding}. Name its encoding with --encoding, as in --encoding cp1252."
    )


def name_encoding(form: FormatConfig) -> str:
    """Return the encoding's name for people."""
    encoding = form.encoding or "utf-8"
    return "UTF-8" if encoding.startswith("utf-8") else encoding


def _check_encoding(name: str) -> str:
    try:
        b"a".decode(name, "replace")
        codec = codecs.lookup(name).name
    except (LookupError, ValueError):
        raise DataError(
            f"--encoding {name}: there is no such encoding. Allowed are Python's, as in utf-8, utf-16, cp1252, latin1, "
            "gb18030, shift_jis, euc_kr and koi8_r."
        ) from None
    return "utf-8-sig" if codec == "utf-8" else codec


def _take_sample(stream: BinaryIO) -> _Sample:
    telling: list[bytes] = []
    start, size, lines, scanned = b"", 0, 0, 0
    while size < _SAMPLE and scanned < _MOST_SCANNED and (block := stream.read(_BLOCK)):
        start = start or block
        scanned += len(block)
        lines += block.count(b"\n")
        if not block.endswith(b"\n"):
            rest = stream.readline(_BLOCK)
            block += rest
            while rest and not rest.endswith(b"\n"):  # what is left of a very long line
                rest = stream.readline(_BLOCK)
        if block.isascii():
            continue
        for line in block.split(b"\n"):
            if not line.isascii():
                telling.append(_shorten(line))
                size += len(telling[-1])
                if size >= _SAMPLE:
                    break
    return _Sample(start, telling, lines + 1)


def _shorten(line: bytes) -> bytes:
    """Cut a long line where no character can be cut: from its first byte that is not ASCII, to before a run of them."""
    if len(line) <= _LONGEST_LINE:
        return line
    start = next(match.start() for match in re.finditer(rb"[\x80-\xff]", line))
    return re.sub(rb"[\x80-\xff]+\Z", b"", line[start : start + _LONGEST_LINE]) or line[start:]


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _find_utf16(start: bytes) -> str | None:
    """Tell UTF-16 without a byte order mark by its NULs, one of which is in every second byte of ASCII characters."""
    head = start[: _SAMPLE & ~1]
    nulls = [head[parity::2].count(0) for parity in (0, 1)]
    if max(nulls) * 50 < len(head) or min(nulls) * 20 > max(nulls):
        return None
    if _has_plain_lines(head):
        return None
    encoding = "utf-16-be" if nulls[0] > nulls[1] else "utf-16-le"
    text = head[: len(head) & ~1].decode(encoding, "replace")
    return encoding if text.count("\N{REPLACEMENT CHARACTER}") * 100 <= len(text) and "\0" not in text else None


def _has_plain_lines(head: bytes) -> bool:
    """Tell UTF-8 with stray NULs: of UTF-16 every line feed has a NUL beside it."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return b"\n" in head and b"\n\0" not in head and b"\0\n" not in head


class _Match(NamedTuple):
    score: float
    confidence: float
    encoding: str
    text: str


def _rank(sample: bytes) -> list[_Match]:
    """Return the encodings that fit, the best first.

    charset-normalizer judges letters and words; what it cannot tell apart is told by how common the characters are.
    Bytes that are not ASCII stand alone in the encodings of Latin scripts and in runs in the others.
    """
    runs = re.findall(rb"[\x80-\xff]+", sample)
    found = []
    if 2 * sum(len(run) == 1 for run in runs) >= len(runs) and not _is_katakana(sample):
        found = _match(sample, _LATIN)
    if (
        max((match.confidence for match in found), default=0.0) < 0.9
    ):  # words in ASCII would make any encoding look good
        found = _match(b" ".join(_TELLING_WORD.findall(sample)), _CANDIDATES)
    best = max((match.score for match in found), default=0.0)
    return sorted(found, key=lambda match: (int((best - match.score) / 0.04), _CANDIDATES.index(match.encoding)))


def _match(sample: bytes, candidates: Sequence[str]) -> list[_Match]:
    from charset_normalizer import from_bytes

    found = []
    for match in from_bytes(sample, cp_isolation=list(candidates)):
        confidence, text = 1 - match.chaos, str(match)
        for encoding in match.could_be_from_charset:
            if encoding in candidates:
                score = confidence + 0.3 * match.coherence + 0.5 * _share_common(text, encoding)
                found.append(_Match(score, confidence, encoding, text))
    return found


def _is_katakana(sample: bytes) -> bool:
    """Tell Shift-JIS with many katakana, whose second bytes are ASCII letters."""
    try:
        text = sample.decode("cp932")
    except UnicodeDecodeError:
        return False
    return 3 * sum("\u3040" <= sign <= "\u30ff" for sign in text) > sum(not sign.isascii() for sign in text)


def _share_common(text: str, encoding: str) -> float:
    """Return the share of common ones among the characters that are not ASCII."""
    ranges = _COMMON.get(encoding)
    characters = [] if ranges is None else [sign for sign in text if not sign.isascii()]
    if ranges is None or not characters:
        return 1.0
    encoded = [sign.encode(encoding) for sign in characters]
    lowest = 0xA1 if encoding == "cp949" else 0x40
    common = sum(
        len(pair) == 2 and pair[1] >= lowest and any(first <= pair[0] <= last for first, last in ranges)
        for pair in encoded
    )
    return common / len(characters)
