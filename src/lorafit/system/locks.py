"""One writer of a folder: a file lock beside it, which ends with the process that holds it, however that ends."""

import datetime
import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lorafit.errors import EnvironmentUnfitError, RunError
from lorafit.system.text import clean_text

LOCK_SUFFIX = ".lorafit-lock"

_MOST_BYTES = 1000
"""Of a lock file that are read: what stands in it names the holder."""


@contextmanager
def hold(folder: Path, *, kind: str) -> Iterator[None]:
    """Keep every other process and thread from writing a folder; the thread that holds it may do so again.

    The lock lies beside the folder, so that the folder can be replaced and an empty one is empty; it lies in a folder
    whose parent cannot be written to. It is removed at the end, with parents that were made for it and are empty.

    Args:
        folder: The folder; need not exist.
        kind: What it is, for the message: run, export, comparison, output.

    Raises:
        RunError: Another holds it; the message says who, and since when.
        EnvironmentUnfitError: The disk cannot lock files.
    """
    from filelock import FileLock, Timeout

    folder = folder.resolve()
    place = _place_lock(folder)
    made = _make_parents(place)
    lock = FileLock(place, is_singleton=True, fallback_to_soft=False, on_acquired=_sign)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise RunError(
            f"{folder} is in use: {_name_holder(place)} is writing this {kind}. Give the command again when that has "
            "ended."
        ) from None
    except OSError as error:
        _remove_empty(made)
        if error.errno in {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}:
            raise EnvironmentUnfitError(
                f"The disk of {folder} cannot lock files, so nothing would keep two commands from writing this {kind} "
                "at once. Choose a place on another disk."
            ) from error
        if error.errno in {errno.ELOOP, errno.EISDIR}:
            raise RunError(f"{place} is no lock that lorafit made. Remove it.") from error
        raise
    try:
        yield
    finally:
        if lock.lock_counter == 1:
            place.unlink(missing_ok=True)  # while it is held: whoever waits for this file notices that it is gone
        lock.release()
        _remove_empty(made)


def is_held(folder: Path) -> bool:
    """Look whether anybody is writing a folder.

    Args:
        folder: The folder; need not exist.

    Returns:
        Whether any process or thread, this one included, holds it.
    """
    place = _place_lock(folder.resolve())
    try:
        descriptor = os.open(place, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return not try_lock(descriptor)
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Lock an open file or folder until its descriptor is closed.

    Args:
        descriptor: Of a file that can be written, or of a folder.

    Returns:
        Whether it is locked; nobody else holds it then.

    Raises:
        OSError: The disk cannot lock it.
    """
    from filelock import lock_descriptor

    return lock_descriptor(descriptor, blocking=False)


def _place_lock(folder: Path) -> Path:
    beside = folder.with_name(f".{folder.name}{LOCK_SUFFIX}")
    if folder.is_dir() and not os.access(folder.parent, os.W_OK | os.X_OK):
        return folder / LOCK_SUFFIX
    return beside


def _make_parents(place: Path) -> list[Path]:
    """Make the folder of a file; return the folders that were missing, the innermost first."""
    missing = [folder for folder in place.parents if not folder.exists()]
    place.parent.mkdir(parents=True, exist_ok=True)
    return missing


def _remove_empty(folders: list[Path]) -> None:
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _sign(descriptor: int) -> None:
    """Write who holds a lock into its file; a full disk is no reason not to hold it."""
    now = datetime.datetime.now(datetime.UTC).isoformat(sep=" ", timespec="seconds")
    holder = {"process": os.getpid(), "host": socket.gethostname(), "since": now}
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(holder).encode())


def _name_holder(place: Path) -> str:
    try:
        with place.open("rb") as file:
            holder = json.loads(file.read(_MOST_BYTES))
        name = f"process {int(holder['process'])} on {holder['host']}, since {holder['since']},"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"
    return clean_text(name, most=200)
