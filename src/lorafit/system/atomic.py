"""Files and folders that never show half of themselves under their final name, and digests of files."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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

    Args:
        path: Final name; missing parent folders are made.
        staging: A folder on the same disk to make it in; None for that of `path`.

    Yields:
        The temporary name, of an empty file; it is removed if the block fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=staging or path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    whole = Path(name)
    try:
        yield whole
        whole.chmod(0o666 & ~_umask())
        _fsync(whole)
        whole.replace(path)
    except BaseException:
        whole.unlink(missing_ok=True)
        raise
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
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        staging = Path(folder) / path.name
        yield staging
        _fsync(staging)
        try:
            path.hardlink_to(staging)
        except FileExistsError:
            return
        except OSError:  # a file system without hard links
            if not os.path.lexists(path):
                staging.rename(path)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Fill a folder under a temporary name and give it its own name when all is written.

    Args:
        path: Final name. What stands there stays until all is written, and is then replaced.

    Yields:
        The temporary folder to write into; removed if the block fails.
    """
    with _staging_directory(path) as staging:
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
    with _staging_directory(path) as staging:
        yield staging
        _fsync_files(staging)
        try:
            staging.rename(path)
        except OSError:
            if not path.is_dir():
                raise
            shutil.rmtree(staging, ignore_errors=True)
        _fsync(path.parent)


@contextmanager
def _staging_directory(path: Path) -> Iterator[Path]:
    """Make an empty folder beside `path`, and remove it if the block fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        staging.chmod(0o777 & ~_umask())
        yield staging
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _fsync_files(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(0o666 & ~_umask())
            _fsync(file)


def _put_in_place(staging: Path, path: Path) -> None:
    """Rename `staging` to `path`; what stands there is renamed aside first, and back if that fails."""
    if not os.path.lexists(path):
        staging.rename(path)
        return
    aside = staging.with_name(f"{staging.name}.old")
    path.rename(aside)
    try:
        staging.rename(path)
    except BaseException:
        aside.rename(path)
        raise
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink()


def describe_obstacle(path: Path) -> str | None:
    """Say why nothing can be made at `path`, or return None: its nearest parent is not a folder, or not writable."""
    places = [path, *path.absolute().parents] if path.is_dir() else path.absolute().parents
    nearest = next(place for place in places if place.exists())
    if not nearest.is_dir():
        return f"{nearest} is a file"
    return None if os.access(nearest, os.W_OK | os.X_OK) else f"{nearest} cannot be written to"


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
