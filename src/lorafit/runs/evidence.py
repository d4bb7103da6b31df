"""The files of a run are used only as they were written: what it answers with, and what reports on it rest on.

`run.json` decides: it has the digest of each, and is written after them. A file that it does not name is not the run's.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorafit.config import Config, load_config
from lorafit.errors import RunError
from lorafit.models.methods import find_method
from lorafit.runs.agreement import check_agreement, check_settings
from lorafit.runs.folder import TRAINED_FILES, RunLayout
from lorafit.runs.records import RunRecord
from lorafit.system.digests import check_files, check_listed, digest_files, find_faults, list_readable
from lorafit.tasks.records import MetricsRecord


def check_trained(layout: RunLayout, record: RunRecord) -> None:
    """Make sure that `adapter/` or `model/` is what was trained, and that its files and the record agree.

    Args:
        layout: The run folder.
        record: Its record.

    Raises:
        RunError: The run is not complete, a file is missing, altered or none of its own, or two files contradict each
            other.
    """
    if record.status != "complete":
        raise RunError(
            f"{layout.root} has no finished model: its status is {record.status!r}. Go on with:\n"
            f"  {layout.resume_command}"
        )
    is_adapter = layout.trained == layout.adapter
    method = find_method(record.method)
    if is_adapter != method.is_adapter:
        raise RunError(
            f"{layout.record} and {layout.trained} contradict each other: the method {record.method} "
            f"{'trains no adapter' if is_adapter else 'trains an adapter, and not the model itself'}."
        )
    names = TRAINED_FILES[method.library]
    check_files(layout.trained, record.files, since="after training", source=layout.record)
    check_listed(layout.trained, record.files, (*names, *list_readable(layout.trained)), source=layout.record)
    check_agreement(layout.trained, record, layout.record)


def add_evidence(layout: RunLayout, record: RunRecord, *paths: Path) -> dict[str, str]:
    """Return the evidence of a run with files that were just written; those that are not there are left out."""
    return {**record.evidence, **digest_files(layout.root, [path for path in paths if path.is_file()])}


def has_evidence(layout: RunLayout, record: RunRecord, path: Path) -> bool:
    """Tell whether a file is named by the record."""
    return path.relative_to(layout.root).as_posix() in record.evidence


def is_intact(layout: RunLayout, record: RunRecord, path: Path) -> bool:
    """Tell whether a file is named by the record and is as it was written."""
    if not has_evidence(layout, record, path):
        return False
    name = path.relative_to(layout.root).as_posix()
    return not any(find_faults(layout.root, {name: record.evidence[name]}))


def check_evidence(layout: RunLayout, record: RunRecord, *paths: Path) -> None:
    """Make sure that files that something rests on are as the run wrote them.

    Args:
        layout: The run folder.
        record: Its record.
        *paths: The files.

    Raises:
        RunError: One is missing or altered, or is not named by the record.
    """
    names = [path.relative_to(layout.root).as_posix() for path in paths]
    check_listed(layout.root, record.evidence, names, source=layout.record)
    listed = {name: record.evidence[name] for name in names if name in record.evidence}
    check_files(layout.root, listed, since="after the run wrote it", source=layout.record)


def read_settings(layout: RunLayout, record: RunRecord, *, flags: Mapping[str, Any] | None = None) -> Config:
    """Read the settings of a run.

    Args:
        layout: The run folder.
        record: Its record.
        flags: Dotted settings that are to differ.

    Returns:
        The settings.

    Raises:
        RunError: `config.yaml` is missing, was altered, or contradicts the record.
        ConfigError: It is none, or a flag is wrong.
    """
    if not (record.status == "complete" or has_evidence(layout, record, layout.config)):
        raise RunError(
            f"{layout.root} was stopped before its settings were written, so nothing can go on. Start it again with "
            "the command that began it, and --overwrite."
        )
    check_evidence(layout, record, layout.config)
    config = load_config(layout.config)
    check_settings(config, record, layout)
    return load_config(layout.config, flags=dict(flags)) if flags else config


def read_metrics(layout: RunLayout, record: RunRecord) -> MetricsRecord:
    """Read the metrics of a run; a RunError says that they are missing, altered, or those of another task."""
    check_evidence(layout, record, layout.metrics)
    metrics = MetricsRecord.read(layout.metrics)
    if metrics.task != record.task:
        raise RunError(f"{layout.metrics} was altered: it does not hold the metrics of the task {record.task}.")
    return metrics
