"""Where a run goes: a free name, or one the user allows to be replaced."""

import re
import shlex
import shutil
from pathlib import Path

from lorafit.runs.layout import RunLayout
from lorafit.runs.records import RunRecord
from lorafit.system.atomic import describe_obstacle
from lorafit.errors import RunError

__all__ = ["check_same_settings", "choose_run_folder", "claim_run_folder", "find_free_name", "suggest_name"]

_RUNS = Path("runs")


def choose_run_folder(output: Path | None, *, suggestion: str, overwrite: bool = False) -> RunLayout:
    """Decide on the run folder; nothing is written or removed yet.

    Args:
        output: What the user asked for; None takes a free name below `runs/`.
        suggestion: Name to use where the user asked for none.
        overwrite: Whether a run that is already there may be replaced.

    Returns:
        The layout of the folder, its path absolute.

    Raises:
        RunError: Something is already there (a free name is proposed), or no folder can be made there.
    """
    layout = RunLayout((output.expanduser() if output is not None else find_free_name(_RUNS / suggestion)).resolve())
    _check_writable(layout.root)
    if output is None or not layout.root.exists():
        return layout
    if not layout.root.is_dir():
        raise RunError(f"{layout.root} is a file; --output takes a folder for the run.")
    if not any(layout.root.iterdir()):
        return layout
    if not overwrite:
        raise RunError(
            f"{output} already exists. Choose another name, for example --output "
            f"{shlex.quote(str(find_free_name(output.expanduser())))}, or replace it with --overwrite."
        )
    if not _is_run(layout):
        raise RunError(f"{output} holds something else than a run of lorafit, so it is not overwritten.")
    return layout


def claim_run_folder(layout: RunLayout, *, overwrite: bool) -> None:
    """Make the run folder, empty but for files that are not a run's.

    Args:
        layout: From `choose_run_folder`.
        overwrite: Whether a run that is there may be replaced; of it, only the files that a run has are removed.

    Raises:
        RunError: Another run was begun in it since it was chosen.
    """
    layout.root.mkdir(parents=True, exist_ok=True)
    if not any(layout.root.iterdir()):
        return
    if not overwrite or not _is_run(layout):
        raise RunError(
            f"{layout.root} was taken by another run in the meantime. Start again, or name one with --output."
        )
    for path in layout.owned():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _is_run(layout: RunLayout) -> bool:
    try:
        RunRecord.read(layout.record)
    except RunError:
        return False
    return True


def _check_writable(folder: Path) -> None:
    obstacle = describe_obstacle(folder)
    if obstacle is not None:
        raise RunError(f"The run folder {folder} cannot be made: {obstacle}. Choose another place with --output.")


def check_same_settings(path: Path, settings: str, *, kind: str) -> None:
    """Let a folder pass that can be made, is empty, or holds work of a kind with the same settings.

    Args:
        path: The file in it that holds the settings.
        settings: The settings now.
        kind: What it holds, for people.

    Raises:
        RunError: It holds something else, or cannot be written to.
    """
    root = path.parent
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        _check_writable(root)
        return
    free = shlex.quote(str(find_free_name(root)))
    if not path.is_file():
        raise RunError(f"{root} holds something else than a {kind}. Choose another name: --output {free}")
    if path.read_text(encoding="utf-8") != settings:
        raise RunError(
            f"{root} holds a {kind} with other settings ({path.name} there). Choose another name: --output {free}"
        )


def find_free_name(path: Path) -> Path:
    """Return `path`, or `path-2`, `path-3`, …: the first that does not exist."""
    number = 1
    candidate = path
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def suggest_name(*parts: str) -> str:
    """Make a folder name of a data source, a model and a method: short, lower case, safe in a shell."""
    names = (Path(part.partition(":")[2] or part).name for part in parts)
    stems = (re.sub(r"\.(csv|tsv|jsonl|ndjson|parquet)$", "", name.lower()) for name in names)
    return "-".join(re.sub(r"[^a-z0-9]+", "-", stem).strip("-") or "run" for stem in stems)
