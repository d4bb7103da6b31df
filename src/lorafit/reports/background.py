"""The parts of a report that say what was done, on what, at what cost, and how to do it again."""

import shlex
from collections.abc import Iterator
from html import escape
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from lorafit.config import Config
from lorafit.models.methods import METHODS
from lorafit.reports.html import render_details, render_facts, render_table
from lorafit.runs.records import RunRecord, SplitRecord
from lorafit.system.text import clean_text, format_duration

__all__ = ["hide_folder", "name_run", "render_cost", "render_data", "render_method", "render_reproduction"]

_MOST_LABELS = 12
_WITHOUT_FOLDER = {"data.source", "data.validation", "data.test", "model.name"}
"""Settings that may be paths; a report may be handed on, so it names the file alone."""


def hide_folder(name: str) -> str:
    """Return a path without its folders; any other name as it is."""
    is_path = PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute()
    return PureWindowsPath(name).name if is_path else name


def name_run(record: RunRecord) -> str:
    """Return data, method and base model of a run as one line, without folders."""
    method = METHODS[record.method].title if record.method in METHODS else record.method
    return f"{hide_folder(record.data.source)}: {method} on {hide_folder(record.base_model.name)}"


def render_data(record: RunRecord) -> Iterator[str]:
    """Render the splits, their labels, and what the checks found.

    Args:
        record: The run's record.

    Yields:
        HTML.
    """
    source = escape(clean_text(hide_folder(record.data.source)))
    yield f"<p>Source: <b>{source}</b>. The test rows were used for this measurement only and chose nothing.</p>"
    titles = ("split", "rows", "tokens a text", "cut at the longest length")
    rows = [_describe_split(name, split) for name, split in record.data.splits.items()]
    yield from render_table(titles, rows, label="Splits")
    if record.data.notes:
        notes = "".join(f"<li>{escape(clean_text(note))}</li>" for note in record.data.notes)
        yield f"<h3>What the checks found</h3><ul>{notes}</ul>"
    if record.task != "regression":
        yield from _render_counts(record)


def render_method(record: RunRecord, config: Config) -> Iterator[str]:
    """Render what was trained and how, with all settings.

    Args:
        record: The run's record.
        config: Its settings.

    Yields:
        HTML.
    """
    training, method = record.training, METHODS.get(record.method)
    title = record.method if method is None else f"{method.title} ({method.paper})"
    base = hide_folder(record.base_model.name)
    parameters = record.parameters
    rows = [
        ("base model", f"{base}, {record.base_model.architecture}"),
        ("method", title),
        ("adapter", f"{parameters.adapter:,} parameters ({parameters.adapter / parameters.total:.2%} of all)"),
        ("head", f"{parameters.head:,} parameters ({parameters.head / parameters.total:.2%} of all)"),
        ("whole model", f"{parameters.total:,} parameters"),
        ("longest input", f"{record.max_length} tokens ({record.truncation})"),
    ]
    if training is not None:
        stopped = ", stopped early" if training.stopped_early else ""
        rows += [
            ("trained", f"{training.epochs:.2f} epochs, {training.steps:,} steps{stopped}"),
            ("kept", f"step {training.best_step:,}, validation loss {training.best_validation_loss:.4f}"),
            ("adapted modules", f"{training.adapted_modules:,}"),
        ]
    yield from render_facts(rows)
    settings = [[name, value] for name, value in _flatten(config.model_dump(mode="json", exclude={"search"}))]
    yield from render_details("All settings", render_table(("setting", "value"), settings, label="Settings"))


def render_cost(record: RunRecord) -> Iterator[str]:
    """Render what the run cost, beside what was foreseen.

    Args:
        record: The run's record.

    Yields:
        HTML.
    """
    forecast, hardware, training = record.forecast, record.hardware, record.training
    foreseen = {} if forecast is None else forecast.seconds
    heads = ("stage", "time", *(["forecast"] if foreseen else []))
    rows = [
        [name, _duration(record.seconds.get(name)), *([_duration(foreseen.get(name))] if foreseen else [])]
        for name in dict.fromkeys([*record.seconds, *foreseen])
    ]
    total = format_duration(sum(record.seconds.values()))
    rows.append(["all stages", total, *([format_duration(sum(foreseen.values()))] if foreseen else [])])
    yield from render_table(heads, rows, label="Time of each stage")
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
        facts.append(
            ("training speed", f"{training.tokens_per_second:,.0f} tokens/s, padding {training.padding_share:.1%}")
        )
    if record.texts_per_second is not None:
        facts.append(("prediction speed", f"{record.texts_per_second:,.0f} texts/s"))
    if forecast is not None and forecast.given_up:
        facts.append(("given up to fit the budget", ", ".join(forecast.given_up)))
    facts.append(("energy", _describe_energy(record.energy_joules)))
    yield "<h3>Machine and speed</h3>"
    yield from render_facts(facts)


def render_reproduction(record: RunRecord, config: Config, folder: str) -> Iterator[str]:
    """Render commands, seeds, versions and digests.

    Args:
        record: The run's record.
        config: Its settings.
        folder: Name of the run's folder, without those above it.

    Yields:
        HTML.
    """
    run = shlex.quote(clean_text(folder))
    again = ["# the same run again, and whether its numbers agree", f"lorafit reproduce {run}"]
    commands = [
        *(again if record.task == "single_label" else []),  # `reproduce` knows no other task
        "# a run with its settings, to change some",
        f"lorafit train --config {run}/config.yaml",
        "# the numbers again, from what was trained",
        f"lorafit evaluate {run}",
        "# this page again",
        f"lorafit report {run}",
    ]
    yield "<p>Beside the folder of the run, with the data where they were:</p>"
    yield f'<pre tabindex="0"><code>{escape(chr(10).join(commands))}</code></pre>'
    seeds = [
        ("data.seed", f"{config.data.seed} (splits and sample)"),
        ("training.seed", f"{config.training.seed} (head, order of batches, dropout)"),
        ("evaluation.seed", f"{config.evaluation.seed} (resampling)"),
    ]
    yield from render_facts(seeds)
    versions = [[name, number] for name, number in sorted(record.versions.items())]
    yield from render_details("Versions", render_table(("package", "version"), versions, label="Versions"))
    digests = [
        ["base model", record.base_model.digest],
        *([["revision of the base", record.base_model.revision]] if record.base_model.revision else []),
        *([f"{name} rows", split.fingerprint] for name, split in record.data.splits.items()),
        *([name, digest] for name, digest in record.files.items()),
    ]
    yield from render_details("Digests (SHA-256)", render_table(("of", "digest"), digests, label="Digests"))
    yield f'<p class="quiet">Run of {escape(record.created)}.</p>'


def _render_counts(record: RunRecord) -> Iterator[str]:
    splits = record.data.splits
    counts = [
        [label, *(f"{split.label_counts.get(label, 0):,}" for split in splits.values())] for label in record.labels
    ]
    table = render_table(("label", *splits), counts, label="Rows of each label")
    if len(record.labels) > _MOST_LABELS:
        yield from render_details(f"Rows of each label ({len(record.labels):,} labels)", table)
    else:
        yield "<h3>Rows of each label</h3>"
        yield from table


def _describe_split(name: str, split: SplitRecord) -> list[str]:
    rows = max(split.rows, 1)
    return [
        name,
        f"{split.rows:,}",
        f"{split.tokens / rows:,.0f}",
        f"{split.truncated:,} ({split.truncated / rows:.1%})",
    ]


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else format_duration(seconds)


def _describe_energy(joules: float | None) -> str:
    if joules is None:
        return "not measured: the counters of this machine's processor are missing or must not be read"
    return f"{joules / 3600:,.2f} Wh, of the whole processor while the run went on, whatever else it did"


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
    return hide_folder(str(value)) if name in _WITHOUT_FOLDER else str(value)
