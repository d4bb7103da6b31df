"""Arrays kept in lorafit's cache with their digest; what cannot be read or written, or was altered, is passed over."""

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from lorafit.system.atomic import write_atomic

SUFFIX = ".safetensors"


def read_arrays(path: Path) -> dict[str, NDArray[Any]] | None:
    """Return the arrays that `keep_arrays` wrote, by name; None where there are none, or not those any more."""
    with suppress(OSError, SafetensorError, KeyError):
        kept = load_file(path)
        if np.array_equal(kept.pop("digest"), _compute_digest(kept)):
            with suppress(OSError):
                os.utime(path)
            return kept
    return None


def keep_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], *, most: int) -> None:
    """Write arrays, unless there is no room for so many, and remove what is least recently used of their folder.

    Args:
        path: The file, in a folder of such files alone; it ends in `SUFFIX`.
        arrays: The arrays by name; none is called `digest`.
        most: Bytes that the folder may hold.
    """
    if sum(part.nbytes for part in arrays.values()) > most:
        return
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(path, save({**arrays, "digest": _compute_digest(arrays)}))
        _remove_oldest(path.parent, most)


def _compute_digest(parts: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    """Return the SHA-256 of some arrays and their names."""
    digest = hashlib.sha256()
    for name, part in sorted(parts.items()):
        digest.update(f"{name} {part.dtype} {part.shape} ".encode())
        digest.update(np.ascontiguousarray(part).data)
    return np.frombuffer(digest.digest(), dtype=np.uint8)


def _remove_oldest(folder: Path, room: int) -> None:
    for path in sorted(folder.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime, reverse=True):
        room -= path.stat().st_size
        if room < 0:
            path.unlink(missing_ok=True)
