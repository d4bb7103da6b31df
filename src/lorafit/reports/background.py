"""What was done, on what data, at what cost, and how to do it again: the second half of a report."""

import shlex
from collections.abc import Iterator
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from lorafit.config import Config
from lorafit.models.methods import METHODS
from lorafit.reports.html import Table
from lorafit.runs.records import RunRecord
from lorafit.system.text import clean_text, format_duration

Facts = list[tuple[str, str]]
"""Names, each with its value."""

_PATHS = {"data.source", "data.validation", "data.test", "model.name"}
"""Settings that may be paths; a report may be handed on, so it names the file alone."""


def hide_folder(name: str) -> str:
    """Return a path without its folders; any other name as it is."""
    is_path = PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute()
    return PureWindowsPath(name).name if is_path else name


def name_run(record: RunRecord) -> str:
    """Return data, method and base model of a run as one line, without folders."""
    method = METHODS[record.method].title if record.method in METHODS else record.method
    return f"{hide_folder(record.data.source)}: {method} on {hide_folder(record.base_model.name)}"


def list_splits(record: RunRecord) -> Table:
    """List the splits with their sizes."""
    rows = [
        [
            name,
            f"{split.rows:,}",
            f"{split.tokens / max(split.rows, 1):,.0f}",
            f"{split.truncated:,} ({split.truncated / max(split.rows, 1):.1%})",
            f"{split.unknown_share:.1%}",
        ]
        for name, split in record.data.splits.items()
    ]
    return Table("Splits", ("split", "rows", "tokens a text", "truncated", "unknown tokens"), rows)


def list_counts(record: RunRecord) -> Table | None:
    """List the rows of each label by split; None where rows are not counted by label."""
    splits = record.data.splits
    if not any(split.label_counts for split in splits.values()):
        return None
    rows = [[label, *(f"{split.label_counts.get(label, 0):,}" for split in splits.values())] for label in record.labels]
    return Table("Rows of each label", ("label", *splits), rows)


def list_method(record: RunRecord) -> Facts:
    """List what was trained, and how."""
    training, method, parameters = record.training, METHODS.get(record.method), record.parameters
    facts = [
        ("base model", f"{hide_folder(record.base_model.name)}, {record.base_model.architecture}"),
        ("method", record.method if method is None else f"{method.title} ({method.paper})"),
        ("adapter", f"{parameters.adapter:,} parameters ({parameters.adapter / parameters.total:.2%} of all)"),
        ("head", f"{parameters.head:,} parameters ({parameters.head / parameters.total:.2%} of all)"),
        ("whole model", f"{parameters.total:,} parameters"),
        ("longest input", f"{record.max_length} tokens ({record.truncation})"),
    ]
    if record.choice is not None:
        facts.append(("chosen", record.choice.describe()))
    if training is not None:
        facts += [
            ("trained", training.describe_steps()),
            ("checkpoint", training.describe_checkpoint()),
            ("adapted modules", f"{training.adapted_modules:,}"),
        ]
    return facts


def list_settings(config: Config) -> Table:
    """List every setting but those of a search."""
    rows = [[name, value] for name, value in _flatten(config.model_dump(mode="json", exclude={"search"}))]
    return Table("All settings", ("setting", "value"), rows)


def list_times(record: RunRecord) -> Table:
    """List the time of each stage, beside its forecast where there is one."""
    forecast = {} if record.forecast is None else record.forecast.seconds
    columns = [record.seconds, *([forecast] if forecast else [])]
    rows = [
        [name, *(format_duration(column[name]) if name in column else "" for column in columns)]
        for name in dict.fromkeys([*record.seconds, *forecast])
    ]
    rows.append(["all stages", *(format_duration(sum(column.values())) for column in columns)])
    return Table("Time of each stage", ("stage", "time", *(["forecast"] if forecast else [])), rows)


def list_cost(record: RunRecord) -> Facts:
    """List memory, machine, speed and energy."""
    forecast, hardware, training = record.forecast, record.hardware, record.training
    memory = f"{record.peak_memory_bytes / 1e9:.1f} GB"
    if forecast is not None:
        memory += f" (forecast: at least {forecast.peak_memory_bytes / 1e9:.1f} GB)"
    threads = f"{hardware.threads} thread{'' if hardware.threads == 1 else 's'}"
    facts = [
        ("peak memory", memory),
        ("machine", f"{hardware.cpu}, {threads} of {hardware.cores} cores, {hardware.memory_bytes / 1e9:.0f} GB"),
        ("arithmetic", f"{hardware.precision} ({hardware.precision_reason})"),
    ]
    if training is not None:
        speed = f"{training.tokens_per_second:,.0f} tokens/s, padding {training.padding_share:.1%}"
        facts.append(("training speed", f"{speed}{training.describe_processes()}"))
    if record.texts_per_second is not None:
        facts.append(("prediction speed", f"{record.texts_per_second:,.0f} texts/s"))
    if forecast is not None and forecast.given_up:
        facts.append(("given up to fit the budget", ", ".join(forecast.given_up)))
    energy = "not measured: the counters of this machine's processor are missing or must not be read"
    if record.energy_joules is not None:
        energy = f"{record.energy_joules / 3600:,.2f} Wh, of the whole processor during the run, all its work included"
    return [*facts, ("energy", energy)]


def list_commands(folder: str) -> list[str]:
    """List the lines of a shell that do it again, given the name of the run's folder."""
    run = shlex.quote(clean_text(folder))
    return [
        "# the same run again, and whether its metrics agree",
        f"lorafit reproduce {run}",
        "# a run with its settings, to change some",
        f"lorafit train --config {run}/config.yaml",
        "# the metrics again, from what was trained",
        f"lorafit evaluate {run}",
        "# this page again",
        f"lorafit report {run}",
    ]


def list_seeds(config: Config) -> Facts:
    """List the seeds, with what each is for."""
    return [
        ("data.seed", f"{config.data.seed} (splits and sample)"),
        ("training.seed", f"{config.training.seed} (head, order of batches, dropout)"),
        ("evaluation.seed", f"{config.evaluation.seed} (resampling)"),
    ]


def list_versions(record: RunRecord) -> Table:
    """List the versions of packages."""
    return Table(
        "Versions", ("package", "version"), [[name, number] for name, number in sorted(record.versions.items())]
    )


def list_digests(record: RunRecord) -> Table:
    """List the digests of base model, data and what was trained."""
    rows = [
        ["base model", record.base_model.digest],
        *([["revision of the base", record.base_model.revision]] if record.base_model.revision else []),
        *([f"{name} rows", split.fingerprint] for name, split in record.data.splits.items()),
        *([name, digest] for name, digest in record.files.items()),
    ]
    return Table("Digests (SHA-256)", ("of", "digest"), rows)


def _flatten(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _write_setting(f"{prefix}{name}", value)


def _write_setting(name: str, value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return hide_folder(str(value)) if name in _PATHS else str(value)
