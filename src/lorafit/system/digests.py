"""Digests of the files of a folder, by which what was altered, cut or removed is found before it is used.

Names are relative, with slashes, and confined: a digest never makes anything outside the folder be read.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Final, Self

from lorafit.errors import RunError
from lorafit.system.alterations import report_altered
from lorafit.system.atomic import compute_digest
from lorafit.system.records import FileRecord
from lorafit.system.text import clean_text

_TEXT: Final = frozenset({".csv", ".json", ".jsonl", ".md", ".txt", ".yaml"})
"""Endings of text files, in which line ends mean nothing: tools such as git change them."""

_READ: Final = frozenset(
    {
        ".bin",
        ".ckpt",
        ".data",
        ".jinja",
        ".json",
        ".model",
        ".onnx",
        ".pkl",
        ".pt",
        ".pth",
        ".py",
        ".safetensors",
        ".xml",
    }
)
"""Endings of files that libraries read beside those that they are told to."""

_BLOCK: Final = 2**20
"""Bytes read at once."""


class Manifest(FileRecord):
    """A file that says what a folder is made of.

    Attributes:
        files: Digest of each file, as `digest_files` gives them.
    """

    files: dict[str, str]

    @classmethod
    def of(cls, folder: Path, *, leave_out: str) -> Self:
        """Return the manifest of all that is in a folder but the file of this name."""
        return cls(files={name: digest for name, digest in digest_folder(folder).items() if name != leave_out})

    @classmethod
    def holds(cls, path: Path) -> bool:
        """Tell whether a folder is whole: the manifest at `path` can be read, and names every file there as it is."""
        try:
            files = cls.read(path).files
            return bool(files) and files == cls.of(path.parent, leave_out=path.name).files
        except (OSError, RunError):
            return False


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits; of text, by its ending, whatever line ends it has."""
    if path.suffix not in _TEXT:
        return compute_digest(path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            while block.endswith(b"\r") and (more := file.read(1)):
                block += more
            digest.update(block.replace(b"\r\n", b"\n").removesuffix(b"\r"))  # at the end of the file, of its last line
    return digest.hexdigest()


def digest_files(folder: Path, paths: Iterable[Path]) -> dict[str, str]:
    """Return the digests of files by their names in a folder.

    Args:
        folder: The folder.
        paths: Files below it.

    Returns:
        Digests by relative names with slashes.
    """
    return {path.relative_to(folder).as_posix(): digest_file(path) for path in paths}


def digest_folder(folder: Path) -> dict[str, str]:
    """Return the digests of all files of a folder, those of the folders in it, too."""
    return digest_files(folder, sorted(path for path in folder.rglob("*") if path.is_file()))


def find_faults(folder: Path, digests: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    """Find the files of a folder that are not what their digests say.

    Args:
        folder: The folder.
        digests: As `digest_files` gives them.

    Yields:
        A file, and what is wrong: `is missing`, or `was altered`.

    Raises:
        RunError: A name leads out of the folder.
    """
    for name, digest in digests.items():
        path = confine(folder, name)
        if not path.is_file():
            yield path, "is missing"
        elif digest_file(path) != digest:
            yield path, "was altered"


def check_files(folder: Path, digests: Mapping[str, str], *, since: str, source: Path) -> None:
    """Refuse a folder of which a file is missing or altered, unless what was altered is accepted.

    Args:
        folder: The folder.
        digests: As `digest_files` gives them.
        since: Since when the files are to be as they were, as in `after training`.
        source: The record that holds the digests, for the message.

    Raises:
        RunError: A file is missing or altered, or a name leads out of the folder.
    """
    for path, fault in find_faults(folder, digests):
        if fault == "is missing":
            raise RunError(f"{path} is missing.")
        report_altered(f"{path} {fault} {since}: its digest is not the one in {source}.")


def check_listed(folder: Path, digests: Mapping[str, str], names: Iterable[str], *, source: Path) -> None:
    """Refuse files of which no digest says what they are, unless what was altered is accepted.

    Args:
        folder: The folder.
        digests: As `digest_files` gives them.
        names: Names that must be among them.
        source: The record that holds the digests, for the message.

    Raises:
        RunError: One is not.
    """
    for name in names:
        path = confine(folder, name)
        if name not in digests and not path.is_file():
            raise RunError(f"{path} is missing.")
        if name not in digests:
            report_altered(f"{path} was not there when {source} was written, which does not name it.")


def list_readable(folder: Path) -> Iterator[str]:
    """List the names of all files of a folder that a library might take for a part of a model, whatever it is told."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in _READ and not path.name.startswith("."):
            yield path.relative_to(folder).as_posix()


def confine(folder: Path, name: str) -> Path:
    """Return the file of a name in a folder.

    Args:
        folder: The folder.
        name: As it stands in a record.

    Returns:
        Its path.

    Raises:
        RunError: The name leads out of the folder: it is absolute, has `..`, or a link on its way points elsewhere.
    """
    path, windows = folder / name, PureWindowsPath(name)
    parts = {*PurePosixPath(name).parts, *windows.parts}
    is_inside = bool(name) and "\0" not in name and not (name.startswith("/") or windows.anchor or ".." in parts)
    try:
        is_inside = is_inside and path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # an endless link
        is_inside = False
    if not is_inside:
        raise RunError(f"A record of {folder} names {clean_text(name, most=100)!r}, which leads out of that folder.")
    return path
