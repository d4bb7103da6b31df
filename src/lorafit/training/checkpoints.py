"""Checkpoints: each carries a manifest of its files, and none is used that is not as it was written."""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lorafit.errors import RunError
from lorafit.system.digests import Manifest, find_faults, list_readable

MANIFEST = "complete.json"
_STATE = "trainer_state.json"
_NAME = re.compile(r"^checkpoint-(\d+)$")


@dataclass(frozen=True)
class ResumePoint:
    """Where training goes on.

    Attributes:
        checkpoint: The newest checkpoint that can be used, or None.
        passed_over: The newer ones, newest first, and what is wrong with each.
    """

    checkpoint: Path | None = None
    passed_over: Mapping[Path, str] = field(default_factory=dict)

    def describe(self) -> Iterator[str]:
        """Say of every checkpoint that is passed over why, and then what that leads to."""
        for path, fault in self.passed_over.items():
            yield f"{path.name} is not used: {fault}"
        if self.passed_over:
            name = None if self.checkpoint is None else self.checkpoint.name
            yield "training starts over" if name is None else f"training goes on from {name}"

    def discard_rest(self) -> None:
        """Remove what was passed over: training writes these checkpoints again."""
        for path in self.passed_over:
            shutil.rmtree(path, ignore_errors=True)


def name_checkpoint(folder: Path, step: int) -> Path:
    """Return the place of a step's checkpoint among those of a run."""
    return folder / f"checkpoint-{step}"


def mark_complete(checkpoint: Path) -> None:
    """Write the manifest of a checkpoint into it, last of all.

    The Trainer writes checkpoints file by file under their final name; without this mark training would resume from a
    half-written one.

    Args:
        checkpoint: The checkpoint's folder.
    """
    Manifest.of(checkpoint, leave_out=MANIFEST).write(checkpoint / MANIFEST)


def find_checkpoint(folder: Path) -> ResumePoint:
    """Find the newest checkpoint that is as it was written, and whose best one is, too.

    The best one is part of it, because the result is taken from there: going on without it would end with other
    weights than an undisturbed training.

    Args:
        folder: Where the Trainer keeps checkpoints; need not exist.

    Returns:
        That checkpoint, and what was passed over.
    """
    steps = {int(match[1]): path for path in folder.glob("checkpoint-*") if (match := _NAME.match(path.name))}
    passed_over: dict[Path, str] = {}
    for _, path in sorted(steps.items(), reverse=True):
        fault = describe_damage(path)
        if fault is None:
            best = _find_best(path)
            if best is None or best == path or (best_fault := describe_damage(best)) is None:
                return ResumePoint(path, passed_over)
            fault = f"{best.name}, the best one until then, cannot be used ({best_fault})"
        passed_over[path] = fault
    return ResumePoint(None, passed_over)


def go_back_to_best(folder: Path) -> None:
    """Remove the checkpoints after the best one: training that diverges has mostly gone wrong some steps before.

    Args:
        folder: Where the Trainer keeps checkpoints; need not exist.
    """
    newest = find_checkpoint(folder).checkpoint
    if newest is not None and (best := _find_best(newest)) not in {None, newest}:
        for path in folder.glob("checkpoint-*"):
            if path != best:
                shutil.rmtree(path, ignore_errors=True)


def describe_damage(checkpoint: Path) -> str | None:
    """Say what is wrong with a checkpoint: cut short, altered, incomplete, or with files put in that would be read.

    Args:
        checkpoint: The checkpoint's folder.

    Returns:
        One clause; None where it is as it was written.
    """
    if not checkpoint.is_dir():
        return "it is gone"
    if not (checkpoint / MANIFEST).is_file():
        return "it was not written to its end"
    try:
        fault = next(_list_faults(checkpoint), None)
        if fault is None:
            _find_best(checkpoint)
    except (OSError, RunError):
        return "its files are not those that were written"
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"{_STATE} cannot be read"
    return fault


def _list_faults(checkpoint: Path) -> Iterator[str]:
    """Yield what differs between the files of a checkpoint and its manifest."""
    digests = Manifest.read(checkpoint / MANIFEST).files
    for path, fault in find_faults(checkpoint, digests):
        yield f"{path.relative_to(checkpoint)} {fault}"
    yield from (f"{name} was put into it" for name in list_readable(checkpoint) if name not in {MANIFEST, *digests})


def _find_best(checkpoint: Path) -> Path | None:
    """Return the checkpoint whose weights are the best so far, as one knows it; None before the first validation."""
    step = json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))["best_global_step"]
    return name_checkpoint(checkpoint.parent, int(step)) if step else None
