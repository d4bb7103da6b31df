"""Files and folders that never show half of themselves under their final name, and digests of files.

What is being made lies beside its place under a hidden name that ends in `.lorafit-part`, and is locked by the process
that makes it. What a killed process left is not locked: the next process that writes into that folder removes it.
"""

import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Final

from lorafit.system.locks import try_lock

_PART: Final = ".lorafit-part"
_LONGEST_NAME: Final = 200
"""Bytes of the name of what is made; a disk's names end at 255, and those of locks and temporary files are longer."""

_OLD: Final = ".lorafit-old"
"""What stood at the place of a new folder, in the moment in which both are renamed."""

_STAGING: Final = re.compile(
    rf"\.(?P<name>.+)\.[a-z0-9_]{{8}}(?P<kind>{re.escape(_PART)}|{re.escape(_OLD)})", re.DOTALL
)


def compute_digest(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that its name never shows half of it: temporary name, fsync, rename.

    Args:
        path: Where to write; missing parent folders are made.
        content: Text (written as UTF-8) or bytes.
    """
    with replace_file(path) as whole:
        whole.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


@contextmanager
def replace_file(path: Path, *, staging: Path | None = None) -> Iterator[Path]:
    """Make a file under a temporary name and give it its own name when it is whole; what stands there is replaced.

    The file has the permissions of the one that it replaces.

    Args:
        path: Final name; missing parent folders are made.
        staging: A folder on the same disk to make it in; None for that of `path`.

    Yields:
        The temporary name, of an empty file; it is removed if the block fails.
    """
    folder = staging or path.parent
    folder.mkdir(parents=True, exist_ok=True)
    _remove_dead(folder)
    descriptor, whole = _make_file(folder, path.name)
    try:
        yield whole
        whole.chmod(stat.S_IMODE(path.stat().st_mode) if path.is_file() else 0o666 & ~_umask())
        _fsync(whole)
        whole.replace(path)
    except BaseException:
        whole.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    if staging is not None:
        _fsync(path.parent)  # whoever has a staging folder removes it next


@contextmanager
def create_file(path: Path) -> Iterator[Path]:
    """Make a file under a temporary name and give it its own name when it is whole, unless another was first.

    Args:
        path: Final name, in a folder that exists. What stands there by then stays.

    Yields:
        The temporary name, at which nothing stands; what is made there is removed if the block fails.
    """
    with staging_folder(path) as folder:
        staging = folder / path.name
        yield staging
        _fsync(staging)
        try:
            path.hardlink_to(staging)
        except OSError:
            if not os.path.lexists(path):  # no other was first: a file system without hard links
                staging.rename(path)


@contextmanager
def staging_folder(path: Path) -> Iterator[Path]:
    """Make a folder beside a path, for what is to be renamed when it is whole: what is in it, or the folder itself.

    Args:
        path: What is made; missing parent folders are made.

    Yields:
        The empty folder; it is removed in the end, unless it has another name by then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_dead(path.parent)
    descriptor, staging = _make_folder(path.parent, path.name)
    try:
        staging.chmod(0o777 & ~_umask())
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Fill a folder under a temporary name and give it its own name when all is written.

    Args:
        path: Final name. What stands there stays until all is written, and is then replaced.

    Yields:
        The temporary folder to write into; removed if the block fails.
    """
    with staging_folder(path) as staging:
        yield staging
        _fsync_files(staging)
        _put_in_place(staging, path)
        _fsync(path.parent)


@contextmanager
def create_directory(path: Path) -> Iterator[Path]:
    """Fill a folder under a temporary name and give it its own name when all is written, unless another was first.

    Args:
        path: Final name. A folder with files that stands there by then stays.

    Yields:
        The temporary folder to write into; removed if the block fails or another was first.
    """
    with staging_folder(path) as staging:
        yield staging
        _fsync_files(staging)
        try:
            staging.rename(path)
        except OSError:
            if not path.is_dir():
                raise
        _fsync(path.parent)


def _make_file(folder: Path, name: str) -> tuple[int, Path]:
    """Make an empty file under a temporary name; return its descriptor, by which it is locked, and its path."""
    while True:
        descriptor, made = tempfile.mkstemp(dir=folder, prefix=f".{name}.", suffix=_PART)
        with suppress(OSError):  # a disk without locks: what is left there is never removed
            try_lock(descriptor)
        if os.fstat(descriptor).st_nlink:  # else another process took it for dead in the moment before it was locked
            return descriptor, Path(made)
        os.close(descriptor)


def _make_folder(parent: Path, name: str) -> tuple[int | None, Path]:
    """Make an empty folder as `_make_file` makes a file; None where the system cannot open folders to lock them."""
    while True:
        made = Path(tempfile.mkdtemp(dir=parent, prefix=f".{name}.", suffix=_PART))
        descriptor = _lock(made)
        if made.exists():
            return descriptor, made
        if descriptor is not None:
            os.close(descriptor)


def _lock(path: Path) -> int | None:
    """Lock a file or folder; return the descriptor that holds it, or None where that cannot be."""
    try:
        descriptor = _open(path)
    except OSError:
        return None
    with suppress(OSError):
        try_lock(descriptor)
    return descriptor


@lru_cache(maxsize=1000)
def _remove_dead(folder: Path) -> None:
    """Remove what killed processes left in a folder; a folder that was to be replaced gets its name back first."""
    with suppress(OSError), os.scandir(folder) as entries:
        found = [(Path(entry.path), match) for entry in entries if (match := _STAGING.fullmatch(entry.name))]
        for path, match in sorted(found, key=lambda pair: pair[1]["kind"] != _OLD):
            with suppress(OSError):
                _remove_if_dead(path, match)


def _remove_if_dead(path: Path, match: re.Match[str]) -> None:
    if path.is_symlink() and match["kind"] == _PART:
        return  # no process makes such a link
    descriptor = None if path.is_symlink() else _open(path)
    try:
        if descriptor is not None and not try_lock(descriptor):
            return
        place = path.with_name(match["name"])
        if match["kind"] == _OLD and not os.path.lexists(place):
            path.rename(place)
        elif descriptor is not None and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _open(path: Path) -> int:
    return os.open(path, (os.O_RDONLY if path.is_dir() else os.O_RDWR) | os.O_NONBLOCK)


def _fsync_files(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            file.chmod(0o666 & ~_umask())
            _fsync(file)


def _put_in_place(staging: Path, path: Path) -> None:
    """Rename `staging` to `path`; what stands there is renamed aside first, and back if that fails."""
    if not os.path.lexists(path):
        staging.rename(path)
        return
    aside = staging.with_name(staging.name.removesuffix(_PART) + _OLD)
    descriptor = _lock(path)  # or another process would take it for left, and give it its name back
    try:
        path.rename(aside)
        try:
            staging.rename(path)
        except BaseException:
            aside.rename(path)
            raise
    finally:
        if descriptor is not None:
            os.close(descriptor)
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink()


def is_half_made(path: Path) -> bool:
    """Tell by its name whether something is what a process was making, or began to replace, at another place."""
    return _STAGING.fullmatch(path.name) is not None


def describe_obstacle(path: Path) -> str | None:
    """Say why nothing can be made at `path`, or return None.

    Its nearest parent is not a folder, or not writable, or its name leaves no room for those of locks and temporary
    files.
    """
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        return f"its name is longer than {_LONGEST_NAME} bytes"
    places = [path, *path.absolute().parents] if path.is_dir() else path.absolute().parents
    nearest = next(place for place in places if place.exists())
    if not nearest.is_dir():
        return f"{nearest} is a file"
    return None if os.access(nearest, os.W_OK | os.X_OK) else f"{nearest} cannot be written to"


def _fsync(path: Path) -> None:
    descriptor = _open(path)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
