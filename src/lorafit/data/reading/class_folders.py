"""Read a folder that has a folder of texts for each class."""

import io
import shlex
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from lorafit.config import FormatConfig
from lorafit.data.reading.encodings import decode, is_decodable, judge_encoding, name_encoding
from lorafit.data.reading.opening import KINDS
from lorafit.data.reading.parts import Limit, Part, cut
from lorafit.errors import DataError
from lorafit.system import limits
from lorafit.system.files import read_file

_SAMPLE = 1 << 22


def stream_class_folders(path: Path, form: FormatConfig, limit: Limit, notes: list[str]) -> Iterator[Part]:
    """Read a folder such as train/ with train/pos/*.txt and train/neg/*.txt.

    Args:
        path: The folder.
        form: The encoding of the texts, where it is known.
        limit: How large a part may be.
        notes: Takes what a user should know: another encoding than UTF-8, files that are no .txt.

    Yields:
        The parts: each file's text, labelled with the name of its folder, in the order of the names.

    Raises:
        DataError: It has no such folders, or a file cannot be read.
    """
    files = _list_files(path)
    others = sum(1 for file in _list_visible(path) if file.suffix.lower() != ".txt")
    if others:
        notes.append(f"{path.name}: files in its folders that are no .txt files were left out: {others:,}.")
    form, told = judge_encoding(io.BytesIO(_take_sample(files)), path, form)
    if told:
        notes.append(f"{path.name}: read {', '.join(told)}.")
    for part in cut(((_read(file, form), file.parent.name) for file in files), lambda row: len(row[0]), limit):
        fault = f"bytes that are not {name_encoding(form)}"
        faults = {place: fault for place, (text, _) in enumerate(part) if not is_decodable(text)}
        texts: list[object] = [None if place in faults else text for place, (text, _) in enumerate(part)]
        yield Part({"text": texts, "label": [label for _, label in part]}, faults)


def _list_files(path: Path) -> list[Path]:
    files = _list_texts(path)
    if not files:
        inside = sorted(file.name for file in path.iterdir() if not file.name.startswith("."))
        splits = [name for name in inside if _list_texts(path / name)]
        if splits:
            hint = f"Those of {', '.join(splits[:5])} do: give one of them, as in {shlex.quote(str(path / splits[0]))}."
        else:
            hint = f"Give a file ({', '.join(KINDS)}). It holds: {', '.join(inside[:10]) or 'nothing'}."
        raise DataError(f"{path} is a folder without a folder of .txt files for each class. {hint}")
    return files


def _list_texts(path: Path) -> list[Path]:
    return sorted(file for file in _list_visible(path) if file.suffix.lower() == ".txt" and file.is_file())


def _list_visible(path: Path) -> list[Path]:
    """List what stands in the folders of a folder, without what is hidden there, such as ._a.txt of macOS or .git."""
    inside = list(islice(path.glob("*/*"), limits.FOLDER_FILES.value + 1))
    limits.FOLDER_FILES.check(len(inside), f"{path} holds more files than can be read", DataError)
    return [file for file in inside if not file.name.startswith(".") and not file.parent.name.startswith(".")]


def _take_sample(files: list[Path]) -> bytes:
    sample, size = [], 0
    for file in files:
        sample.append(_read_bytes(file))
        size += len(sample[-1])
        if size >= _SAMPLE:
            break
    return b"\n".join(sample)


def _read(file: Path, form: FormatConfig) -> str:
    return decode(_read_bytes(file), file, form)


def _read_bytes(file: Path) -> bytes:
    return read_file(file, DataError, what="a text of one row")
