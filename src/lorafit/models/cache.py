"""lorafit's cache, and encoders that are made once in it."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from lorafit.system.atomic import compute_digest, create_directory
from lorafit.system.paths import expand_home

_DIGESTS = "digests.json"


def cache_folder() -> Path:
    """Return lorafit's cache: `$LORAFIT_CACHE`, else `$XDG_CACHE_HOME/lorafit`, else `~/.cache/lorafit`."""
    if explicit := os.environ.get("LORAFIT_CACHE"):
        return expand_home(explicit).resolve()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return expand_home(base).resolve() / "lorafit"


def make_once(name: str, fill: Callable[[Path], None]) -> Path:
    """Return the folder of an encoder in the cache; make it the first time, and again when it is damaged.

    Several processes may do so at the same time: the first one's folder stays.

    Args:
        name: Of the folder; it must tell the encoder, and how it was made, from all others.
        fill: Writes the files into an empty folder.

    Returns:
        The folder, its files as they were made.
    """
    folder = cache_folder() / "encoders" / name
    if _is_intact(folder):
        return folder
    with create_directory(folder) as staging:
        fill(staging)
        digests = json.dumps(_compute_digests(staging), indent=2)
        (staging / _DIGESTS).write_text(digests + "\n", encoding="utf-8")
        if not _is_intact(folder):  # another process may have mended it
            shutil.rmtree(folder, ignore_errors=True)
    return folder


def _compute_digests(folder: Path) -> dict[str, str]:
    return {path.name: compute_digest(path) for path in sorted(folder.iterdir()) if path.name != _DIGESTS}


def _is_intact(folder: Path) -> bool:
    try:
        noted = json.loads((folder / _DIGESTS).read_text(encoding="utf-8"))
        return bool(noted == _compute_digests(folder))
    except (OSError, ValueError):
        return False
