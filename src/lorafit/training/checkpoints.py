"""Checkpoints that can be trusted: one counts only when it was written to the end and is unaltered since."""

import json
import re
from pathlib import Path

from lorafit.system.atomic import compute_digest, write_atomic

__all__ = ["find_latest_checkpoint", "is_complete", "mark_complete"]

_MARKER = "complete.json"
_NAME = re.compile(r"^checkpoint-(\d+)$")


def mark_complete(checkpoint: Path) -> None:
    """Note the digest of every file of a checkpoint, as the last thing written into it.

    The Trainer writes a checkpoint file by file under its final name; without this mark an interrupted write would be
    resumed from silently.

    Args:
        checkpoint: The checkpoint's folder.
    """
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != _MARKER)
    digests = {str(path.relative_to(checkpoint)): compute_digest(path) for path in files}
    write_atomic(checkpoint / _MARKER, json.dumps(digests, indent=2) + "\n")


def find_latest_checkpoint(folder: Path) -> tuple[Path | None, list[Path]]:
    """Find the newest checkpoint that is whole.

    Args:
        folder: Where the Trainer keeps checkpoints; need not exist.

    Returns:
        The checkpoint or None, and the newer ones that were passed over because they are incomplete or altered.
    """
    steps = {int(match[1]): path for path in folder.glob("checkpoint-*") if (match := _NAME.match(path.name))}
    passed_over: list[Path] = []
    for _, path in sorted(steps.items(), reverse=True):
        if is_complete(path):
            return path, passed_over
        passed_over.append(path)
    return None, passed_over


def is_complete(checkpoint: Path) -> bool:
    """Return whether a checkpoint was written to the end and is unaltered since."""
    try:
        digests = json.loads((checkpoint / _MARKER).read_text(encoding="utf-8"))
        is_mark = isinstance(digests, dict) and len(digests) > 0
        return is_mark and all(compute_digest(checkpoint / name) == digest for name, digest in digests.items())
    except (OSError, ValueError):
        return False
