"""Write docs/reference/settings.md, methods.md, commands.md and limits.md from the code; a test keeps them true.

Run: python scripts/reference.py
"""

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import get_args, get_origin

from lorafit.cli import COMMANDS, main
from lorafit.config import Config
from lorafit.models.methods import METHODS, REFUSED, Limit
from lorafit.system.limits import list_limits
from lorafit.tasks.registry import TASKS

FOLDER = Path(__file__).parent.parent / "docs" / "reference"


def render_settings() -> str:
    """Return the table of all settings."""
    return "\n".join(_settings_lines()) + "\n"


def render_commands() -> str:
    """Return the help text of every command."""
    parts = ["# Commands", "", "Written by `scripts/reference.py` from `lorafit --help`.", "", *_help([])]
    for name in COMMANDS:
        parts += ["", f"## {name}", "", *_help([name])]
    return "\n".join(parts) + "\n"


def render_methods() -> str:
    """Return the table of all methods."""
    return "\n".join(_methods_lines()) + "\n"


def render_limits() -> str:
    """Return the table of all limits."""
    return "\n".join(_limits_lines()) + "\n"


def _limits_lines() -> Iterator[str]:
    yield from ("# Limits", "", "Written by `scripts/reference.py` from `src/lorafit/system/limits.py`.", "")
    yield "What is beyond a limit is refused by name, before memory is taken for it where that can be known. A variable"
    yield "of the environment sets each for one command, as in `LORAFIT_LIMIT_TEXT=50000000 lorafit predict RUN --file"
    yield "books.jsonl`; the machine must have the memory. Pipes, devices, sockets, links that lead back to themselves"
    yield "and files of `/proc` and `/sys` are no files, and are refused where a file is named."
    yield from ("", "| variable | at most | of what | why |", "|---|---|---|---|")
    for limit in list_limits():
        yield f"| `{limit.variable}` | {limit.default:,} | {limit.unit} | {limit.reason} |"
    yield ""
    yield "Of a text longer than the model's input, no more is tokenised than its truncation needs, so that memory does"
    yield "not grow with its length. A parquet file may unpack to as many times its size as a packed file; texts that"
    yield "it repeats from a dictionary are read in batches of 256 MiB. How far a compressed Feather or Arrow file"
    yield "unpacks is not known before it is read."


def _methods_lines() -> Iterator[str]:
    yield from ("# Methods", "", "Written by `scripts/reference.py` from `src/lorafit/models/methods.py`.", "")
    yield "`lorafit train DATA --method NAME`. Rates are peak learning rates, the head's after the slash where it"
    yield "differs; `--set training.learning_rate=…` changes both. What is trained is opened without lorafit by the"
    yield "library that is named; it is in `adapter/`, or, where the model itself is trained, in `model/`."
    yield from (
        "",
        "| name | method | adapts | settings and their defaults | rate | opened by | cannot |",
        "|---|---|---|---|---|---|---|",
    )
    for method in METHODS.values():
        settings = ", ".join(f"`{name}={value}`" for name, value in method.defaults.items()) or "none"
        rate = "-" if method.learning_rate is None else f"{method.learning_rate:g}"
        if method.head_learning_rate:
            rate += f" / {method.head_learning_rate:g}"
        limits = ", ".join(_LIMITS[limit] for limit in sorted(method.limits)) or "-"
        named = f"`{method.name}` | {method.title} ({method.paper})"
        yield f"| {named} | {method.adapts} | {settings} | {rate} | {method.library} | {limits} |"
    yield from (
        "",
        "LoRA's and LoRA+'s rates were chosen on validation rows ([how](../explanation/defaults.md)); those of rsLoRA,",
        "PiSSA and DoRA were compared with a third and three times as much; the others are common values and were not.",
    )
    yield "`embedding` makes no steps, so rates, epochs and steps do nothing"
    yield "there. `full` and `bitfit` train without the encoder's dropout, as every"
    yield "method here, unless `training.base_dropout` is set."
    yield from ("", "Refused, with the reason in the message:", "")
    for name, reason in REFUSED.items():
        yield f"* `{name}`: {reason}."


_LIMITS: dict[Limit, str] = {
    "merge": "be merged into the base",
    "mixed-batches": "serve several adapters in one batch",
    "fused-blocks": "be trained in fused blocks (slower)",
    "decoder": "adapt decoders",
    "resume": "go on from a checkpoint",
}


def _settings_lines() -> Iterator[str]:
    yield "# Settings"
    yield ""
    yield "Written by `scripts/reference.py` from `src/lorafit/config.py`. A YAML file for `--config` holds any of"
    yield "these sections, `--set section.key=value` changes one, a run's `config.yaml` holds all of them, resolved."
    for section, field in Config.model_fields.items():
        model = type(field.get_default())
        yield from ("", f"## {section}", "", str(model.__doc__), "")
        yield from ("| setting | default | allowed | meaning |", "|---|---|---|---|")
        for name, setting in model.model_fields.items():
            value = setting.get_default(call_default_factory=True)
            default = "none" if value is None else "empty" if value == {} else f"`{value}`"
            is_task = f"{section}.{name}" == "data.task"
            allowed = _list(TASKS) if is_task else _describe(setting.annotation, setting.metadata)
            meaning = str(setting.description).replace("][", r"]\[")  # no link
            yield f"| `{section}.{name}` | {default} | {allowed} | {meaning} |"


def _list(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _describe(annotation: object, metadata: list[object]) -> str:
    members = [member for member in get_args(annotation) if member is not type(None)]
    for names in (members, *map(get_args, members)):
        if names and all(isinstance(name, str) for name in names):
            return _list(names) + ("" if names is members else ", or a list of names")
    kind = dict if get_origin(annotation) is dict else members[0] if members else annotation
    words = {bool: "yes or no", int: "whole number", float: "number", str: "text"}.get(kind, "names and values")  # type: ignore[index]
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    bounds = [
        f"{sign} {bound}"
        for constraint in metadata
        for name, sign in signs.items()
        if (bound := getattr(constraint, name, None)) is not None
    ]
    return " ".join([words, *bounds])


def _help(words: list[str]) -> list[str]:
    before, written = dict(os.environ), io.StringIO()
    os.environ |= {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    try:
        with redirect_stdout(written), suppress(SystemExit):
            main([*words, "--help"])
    finally:
        os.environ.clear()
        os.environ.update(before)
    return ["```", *written.getvalue().strip("\n").splitlines(), "```"]


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "settings.md").write_text(render_settings(), encoding="utf-8")
    (FOLDER / "methods.md").write_text(render_methods(), encoding="utf-8")
    (FOLDER / "commands.md").write_text(render_commands(), encoding="utf-8")
    (FOLDER / "limits.md").write_text(render_limits(), encoding="utf-8")
