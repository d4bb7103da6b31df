"""What stands at a path: a file that can be read, packed or not, or something else, which is refused with a remedy.

Packed files are unpacked as a stream, and never to more than a bomb would need.
"""

import bz2
import gzip
import io
import lzma
import os
import re
import shlex
import stat
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, Final, cast

from lorafit.errors import DataError
from lorafit.system import limits
from lorafit.system.extras import require
from lorafit.system.faults import raise_shortage
from lorafit.system.files import check_file, is_there

TEXT_SUFFIXES: Final = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".txt", ".label")
"""Kinds of text files, which may be packed."""

KINDS: Final = (*TEXT_SUFFIXES, ".parquet", ".feather", ".arrow", ".xlsx")
"""Kinds of files that can be read."""

COMPRESSIONS: Final = (".gz", ".bz2", ".xz", ".zst", ".zip")
"""What a text file may be packed with."""

SMALL: Final = 8 << 20
"""Bytes that a packed file may unpack to, however small it is."""

_UNPACKERS: Final = {
    **dict.fromkeys((".tar", ".tgz", ".tbz2", ".txz"), "tar -xf"),
    ".7z": "7z x",
    ".rar": "unrar x",
    ".gz": "gunzip -k",
    ".bz2": "bunzip2 -k",
    ".xz": "unxz -k",
    ".zst": "unzstd",
    ".zip": "unzip",
}
_CONVERTED: Final = dict.fromkeys((".xls", ".ods", ".xlsb"), "libreoffice --headless --convert-to xlsx")
_REMOTE: Final = re.compile(r"([a-z][a-z0-9+.-]+):/+([^/].*)", re.IGNORECASE)
_SIGNATURES: Final = {
    b"PK\x03\x04": "a zip archive or a spreadsheet (.zip, .xlsx)",
    b"\x1f\x8b": "a gzip file (.gz)",
    b"BZh": "a bzip2 file (.bz2)",
    b"\xfd7zXZ": "an xz file (.xz)",
    b"\x28\xb5\x2f\xfd": "a Zstandard file (.zst)",
    b"PAR1": "a parquet file (.parquet)",
    b"ARROW1": "an Arrow file (.arrow)",
    b"\xd0\xcf\x11\xe0": "an old spreadsheet (.xls)",
}


@dataclass(frozen=True)
class StoredFile:
    """A file to read.

    Attributes:
        path: Where it is.
        suffix: Its kind, one of `KINDS`; of a packed file what is inside.
        member: Its name inside the zip archive at `path`; None where it is no such archive.
    """

    path: Path
    suffix: str
    member: str | None = None

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open it, unpacked.

        Yields:
            Its bytes, to be read from the front.

        Raises:
            DataError: It cannot be read, is damaged, or unpacks to more than is allowed.
            MissingExtraError: It is a Zstandard file and zstandard is not installed.
        """
        try:
            with self.path.open("rb") as file:
                if self.path.suffix.lower() not in COMPRESSIONS:
                    _check_signature(self.path, file)
                    yield file
                    return
                with self._unpack(file) as stream, io.BufferedReader(_Unpacked(stream, self.path), 1 << 20) as unpacked:
                    yield cast("BinaryIO", unpacked)
        except OSError as error:
            raise_shortage(error)
            raise DataError(f"{self.path} cannot be read: {error.strerror or error}.") from error

    @contextmanager
    def _unpack(self, file: BinaryIO) -> Iterator[IO[bytes]]:
        suffix = self.path.suffix.lower()
        if self.member is not None:
            with _open_zip(self.path) as archive:
                try:
                    stream = archive.open(self.member)
                except (RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
                    raise DataError(
                        f"{self.path} cannot be unpacked: it is encrypted, damaged, or packed in an unusual way. "
                        f"Unpack it first: {_unpacking(self.path)}"
                    ) from error
                with stream:
                    yield stream
            return
        if suffix == ".zst":
            yield cast("IO[bytes]", _Zstandard(file))
            return
        if suffix == ".gz":
            with gzip.GzipFile(fileobj=file) as gz:
                yield cast("IO[bytes]", gz)
        elif suffix == ".bz2":
            with bz2.BZ2File(file) as bz:
                yield cast("IO[bytes]", bz)
        else:
            with lzma.LZMAFile(file) as xz:
                yield cast("IO[bytes]", xz)


class _Zstandard:
    """Unpacks frames; the package's own reader takes a file that was cut off for a whole one."""

    def __init__(self, file: BinaryIO) -> None:
        zstandard = require("zstandard", extra="tables", purpose="reading .zst files")
        self._new = zstandard.ZstdDecompressor().decompressobj
        self._file = file
        self._frame: Any = None
        self._ready = io.BytesIO()

    def read(self, size: int) -> bytes:
        while not (data := self._ready.read(size)):
            packed = self._file.read(1 << 10)  # what a bomb makes of it still fits into memory
            if not packed:
                if self._frame is not None:
                    raise EOFError
                break
            self._ready = io.BytesIO(b"".join(self._unpack(packed)))
        return data

    def _unpack(self, packed: bytes) -> Iterator[bytes]:
        while packed:
            self._frame = self._frame or self._new()
            yield self._frame.decompress(packed)
            packed = b""
            if self._frame.eof:
                packed, self._frame = self._frame.unused_data, None


class _Unpacked(io.RawIOBase):
    """Unpacks no more than is allowed, and says where a file is damaged."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        super().__init__()
        self._stream = stream
        self._path = path
        by_ratio = max(SMALL, limits.RATIO.value * path.stat().st_size)
        self._most = min(limits.FILE.value, by_ratio)
        self._limit = limits.FILE if by_ratio > limits.FILE.value else limits.RATIO
        self._done = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - whatever BufferedReader hands over
        damage: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
        try:
            data = self._stream.read(len(buffer))
        except damage + _zstandard_errors() as error:
            raise DataError(f"{self._path} is damaged or incomplete: it cannot be unpacked. Make it again.") from error
        self._done += len(data)
        if self._done > self._most:
            raise DataError(
                f"{self._path} unpacks to more than {self._most:,} bytes; {self._limit.allow()}. If you trust it, "
                f"unpack it first: {_unpacking(self._path)}"
            )
        buffer[: len(data)] = data
        return len(data)


def locate_file(path: Path) -> StoredFile:
    """Find out what stands at a path.

    Args:
        path: A path.

    Returns:
        The file there.

    Raises:
        DataError: There is none, or one that cannot be read; the message has the remedy.
    """
    refuse_remote(str(path))
    check_file(path, DataError)
    suffix = path.suffix.lower()
    inner = path.with_suffix("").suffix.lower() if suffix in COMPRESSIONS else suffix
    if inner == ".tar" or (suffix in _UNPACKERS and suffix not in COMPRESSIONS):
        name = path.with_name(path.name + (".tar" if suffix in COMPRESSIONS else ""))
        raise DataError(f"{path} holds several files. Unpack it first: {_unpacking(name, path)}")
    if suffix in _CONVERTED:
        raise DataError(f"{path} cannot be read as it is. Convert it: {_CONVERTED[suffix]} {shlex.quote(str(path))}")
    if suffix == ".zip":
        return _choose_member(path)
    if suffix in COMPRESSIONS and inner in KINDS and inner not in TEXT_SUFFIXES:
        raise DataError(f"{path}: {inner} files are read unpacked. Unpack it first: {_unpacking(path)}")
    if suffix in COMPRESSIONS and inner not in TEXT_SUFFIXES:
        raise DataError(
            f"{path} cannot be read: what is packed must be named, as in {path.stem}.csv{suffix}; allowed are "
            f"{', '.join(TEXT_SUFFIXES)}. Rename it, or unpack it first: {_unpacking(path)}"
        )
    if inner not in KINDS:
        raise DataError(
            f"{path} cannot be read: its suffix is '{path.suffix}'. Allowed: {', '.join(KINDS)}; text "
            f"files also packed ({', '.join(COMPRESSIONS)})."
        )
    return StoredFile(path, inner)


def refuse_remote(name: str) -> None:
    """Refuse an address: nothing is fetched.

    Args:
        name: What stands where a file is named, also as a path, which has lost a slash.

    Raises:
        DataError: It is an address; the message has the command that fetches it.
    """
    match = _REMOTE.fullmatch(name)
    if match is None or is_there(Path(name)):
        return
    scheme, rest = match[1].lower(), match[2]
    address = shlex.quote(f"{scheme}://{rest}")
    commands = {
        "s3": f"aws s3 cp {address} .",
        "gs": f"gcloud storage cp {address} .",
        "gcs": f"gcloud storage cp {shlex.quote(f'gs://{rest}')} .",
        "hf": _hub_command(rest),
    }
    command = f"curl -LO {address}" if scheme in {"http", "https", "ftp"} else commands.get(scheme)
    if command is None:
        code = f"import fsspec; fs, path = fsspec.url_to_fs({f'{scheme}://{rest}'!r}); fs.get(path, '.')"
        command = f"python -c {shlex.quote(code)}"
    raise DataError(f"{scheme}://{rest} is an address; files are read from disk. Fetch it first: {command}")


def _hub_command(rest: str) -> str:
    match = re.fullmatch(r"datasets/([^/]+/[^/@]+)(?:@[^/]+)?/(.+)", rest)
    if match is None:
        return "hf download --repo-type dataset OWNER/NAME FILE --local-dir ."
    return f"hf download --repo-type dataset {shlex.quote(match[1])} {shlex.quote(match[2])} --local-dir ."


def _check_signature(path: Path, file: BinaryIO) -> None:
    """Refuse a text file that is plainly none."""
    if path.suffix.lower() not in TEXT_SUFFIXES:
        return
    start = file.read(8)
    file.seek(0)
    for signature, kind in _SIGNATURES.items():
        if start.startswith(signature):
            raise DataError(f"{path} is no text: it begins as {kind} does. Give it the suffix of what it is.")


@contextmanager
def _open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        raise DataError(f"{path} is not a readable zip archive: it is damaged, or of another kind.") from error
    except OSError as error:
        raise_shortage(error)
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    with archive:
        yield archive


def check_archive(path: Path) -> list[str]:
    """Make sure that a zip archive is no bomb and puts nothing elsewhere.

    Args:
        path: The archive.

    Returns:
        The names of its files; those that systems add are left out.

    Raises:
        DataError: It is damaged, too large, holds too many files, or links or paths that lead out of it.
    """
    with _open_zip(path) as archive:
        entries = archive.infolist()
    limits.ENTRIES.check(len(entries), f"{path} holds {len(entries):,} files", DataError)
    for entry in entries:
        parts = PurePosixPath(entry.filename.replace("\\", "/")).parts
        if ".." in parts or entry.filename.startswith(("/", "\\")) or stat.S_ISLNK(entry.external_attr >> 16):
            raise DataError(f"{path} holds a link or a path that leads out of it. Make it again, of plain files.")
    size, packed = sum(entry.file_size for entry in entries), sum(entry.compress_size for entry in entries)
    largest = max((entry.file_size for entry in entries), default=0)
    broken = [limit for limit, found in ((limits.ARCHIVE, size), (limits.FILE, largest)) if found > limit.value]
    if size > max(SMALL, limits.RATIO.value * packed):
        broken.append(limits.RATIO)
    if broken:
        raise DataError(
            f"{path} unpacks to {size:,} bytes; {broken[0].allow()}. If you trust it, unpack it first: "
            f"{_unpacking(path)}"
        )
    names = [entry.filename for entry in entries if not entry.is_dir()]
    return [name for name in names if not name.startswith("__MACOSX/") and not PurePosixPath(name).name.startswith(".")]


def check_ratio(path: Path, size: int, packed: int) -> None:
    """Make sure that a file that says how much it unpacks to is no bomb.

    Args:
        path: The file.
        size: Bytes that it unpacks to.
        packed: Bytes that it has.

    Raises:
        DataError: It unpacks to many times its own size.
    """
    if size > max(SMALL, limits.RATIO.value * packed):
        raise DataError(f"{path} unpacks to {size:,} bytes; {limits.RATIO.allow()}.")


def _choose_member(path: Path) -> StoredFile:
    names = check_archive(path)
    readable = [name for name in names if PurePosixPath(name).suffix.lower() in TEXT_SUFFIXES]
    tables = [name for name in readable if PurePosixPath(name).suffix.lower() != ".txt"]  # beside a readme
    for found in (readable, tables):
        if len(found) == 1:
            return StoredFile(path, PurePosixPath(found[0]).suffix.lower(), found[0])
    raise DataError(
        f"{path} holds {_list(readable or names)}; one text file is needed ({', '.join(TEXT_SUFFIXES)}). Unpack it and "
        f"give the file that you mean: {_unpacking(path)}"
    )


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(name[:100] for name in names[:10])
    return "no files" if not names else f"{shown}, …, {len(names):,} files in all" if len(names) > 10 else shown


def _unpacking(name: Path, path: Path | None = None) -> str:
    return f"{_UNPACKERS[name.suffix.lower()]} {shlex.quote(os.fspath(path or name))}"


def _zstandard_errors() -> tuple[type[Exception], ...]:
    """Return zstandard's exception, once it is imported."""
    module = sys.modules.get("zstandard")
    return () if module is None else (module.ZstdError,)
