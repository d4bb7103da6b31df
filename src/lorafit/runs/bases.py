"""Find what a run begins from: an encoder, or another run, proved by the digest of its weights."""

from collections.abc import Sequence
from pathlib import Path

from lorafit.config import ModelConfig
from lorafit.errors import RunError
from lorafit.models.builtin import BUILTIN_ENCODERS
from lorafit.models.cache import cache_folder
from lorafit.models.load import Encoder, locate_encoder
from lorafit.models.merging import merge_into_base, read_base
from lorafit.runs.evidence import check_trained
from lorafit.runs.folder import RunLayout
from lorafit.runs.hub import locate_run
from lorafit.runs.moved import list_moved
from lorafit.runs.records import RunRecord
from lorafit.system.paths import expand_home


def find_run(name: str) -> RunLayout | None:
    """Return the run that a model's name is the folder of, or the `adapter/` or `model/` in it; None if it is none."""
    folder = locate_run(name)
    runs = (RunLayout(folder), RunLayout(folder.parent))
    return next((run for run in runs if run.record.is_file() and folder in {run.root, run.trained}), None)


def locate_base(config: ModelConfig, *, remedy: str = "", behind: Sequence[Path] = ()) -> Encoder:
    """Find what a run begins from: an encoder, or another run, whose adapter is merged into its base.

    Args:
        config: An encoder's name and revision, or a run folder or the `adapter/` or `model/` in it.
        remedy: What to do where it cannot be found; empty for how to name another one.
        behind: Runs that began from it, from which it therefore cannot have begun.

    Returns:
        The encoder, its files on this machine.

    Raises:
        RunError: The other run is not complete, or a file of it or its base is missing or altered.
        ConfigError: There is no such encoder, or the other run's adapter cannot be merged.
    """
    layout = find_run(config.name)
    if layout is None:
        is_gone = config.name not in BUILTIN_ENCODERS and not expand_home(config.name).is_dir()
        if is_gone and (moved := list_moved()):
            return locate_encoder(ModelConfig(name=moved[0]))
        return locate_encoder(config, remedy=remedy)
    if layout.root in behind:
        raise RunError(f"The run {layout.root} goes on from itself: its base, or the base of that, is the run.")
    record = RunRecord.read(layout.record)
    check_trained(layout, record)
    found = layout.model
    if layout.trained == layout.adapter:
        base = find_own_base(layout, record, behind)
        found = merge_into_base(layout.adapter, base.folder, base.digest())
    note = f"training goes on from the run {layout.root}, trained on {record.base_model.name}"
    return Encoder(str(layout.root), found, str(found), None, (note,))


def find_own_base(layout: RunLayout, record: RunRecord, behind: Sequence[Path] = ()) -> Encoder:
    """Find the base that a run's adapter was trained on, and check that it is that one.

    Args:
        layout: The run folder.
        record: Its record.
        behind: Runs that began from this one.

    Returns:
        The base, its files on this machine.

    Raises:
        RunError: Its weights have another digest.
        ConfigError: It cannot be found.
    """
    name, digest = record.base_model.name, record.base_model.digest
    behind = (*behind, layout.root)
    for folder in list_moved():
        run = find_run(folder)
        if run is None or run.root not in behind:
            encoder = locate_base(ModelConfig(name=folder), behind=behind)
            if encoder.digest() == digest:
                return encoder
    kept = Path(read_base(layout.adapter)[0])
    if name not in BUILTIN_ENCODERS and kept.is_relative_to(cache_folder()):  # made from what may be gone by now
        encoder = Encoder(name, kept, str(kept), None)
        if kept.is_dir() and encoder.digest() == digest:
            return encoder
    encoder = locate_base(
        ModelConfig(name=name, revision=record.base_model.revision),
        remedy=_name_remedy(layout, list_moved()),
        behind=behind,
    )
    if encoder.digest() != digest:
        raise RunError(
            f"The base model {name} ({encoder.folder}) is not the one this adapter was trained on: its weights have "
            f"another digest. {_name_remedy(layout, list_moved())}"
        )
    return encoder


def _name_remedy(layout: RunLayout, given: Sequence[str]) -> str:
    """Say how the base of a run is given that is no longer where it was."""
    tried = f" {', '.join(given)} is not it: its weights have another digest." if given else ""
    return (
        f"The run {layout.root} needs the base that it was trained on.{tried} If that lies elsewhere now, say where: "
        "--base FOLDER, in Python lorafit.load(…, base=FOLDER)."
    )
