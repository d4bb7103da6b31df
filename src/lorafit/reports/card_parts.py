"""What the model cards of all tasks are put together with.

A card may be published, so it holds no text of the data and no folder of this machine.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PureWindowsPath
from typing import Any, Final

import yaml

from lorafit.evidence import Estimate, Slice
from lorafit.runs.folder import suggest_name
from lorafit.runs.records import RunRecord, SplitRecord

__all__ = [
    "LISTED_LABELS",
    "build_metadata",
    "code",
    "describe_base",
    "describe_data",
    "describe_estimate",
    "describe_long_texts",
    "describe_origin",
    "describe_share",
    "describe_slices",
    "describe_use",
    "is_whole",
    "join_card",
    "list_labels",
    "name_source",
]

LISTED_LABELS: Final = 20
"""Of more labels, some are named."""

_WEAK_SLICES: Final = 3

_ORIGINS: Final = {"builtin:distil-minilm": "sentence-transformers/all-MiniLM-L6-v2"}
"""The models on the Hub that the built-in encoders were made from."""

_HUB_NAMES: Final = {"imdb": "hub:stanfordnlp/imdb"}
"""Named sources that are data sets of the Hub."""

_USE_LORAFIT: Final = (
    "import lorafit",
    "",
    'model = lorafit.load("..")  # the run folder, in which the folder of this card lies',
    'model.predict(["What a lovely surprise."])',
)
_USE_ADAPTER: Final = (
    "from peft import AutoPeftModelForSequenceClassification as AutoPeftModel",
    "from transformers import AutoConfig, pipeline",
    "",
    'config = AutoConfig.from_pretrained("./labels")  # run this where the card lies',
    'model = AutoPeftModel.from_pretrained(".", id2label=config.id2label, pad_token_id=config.pad_token_id)',
)


def join_card(head: Mapping[str, Any], sections: Mapping[str, Iterable[str]]) -> str:
    """Put a card together.

    Args:
        head: The Hub's metadata.
        sections: Lines of Markdown by heading.

    Returns:
        Markdown with a YAML head (huggingface.co/docs/hub/model-cards).
    """
    metadata = yaml.safe_dump(dict(head), sort_keys=False, allow_unicode=True)
    body = "\n\n".join(f"{title}\n\n{chr(10).join(lines)}" for title, lines in sections.items())
    return f"---\n{metadata}---\n\n{body}\n"


def build_metadata(
    record: RunRecord,
    split: str,
    measured: Sequence[Mapping[str, Any]],
    *,
    task_name: str,
    metrics: Sequence[str],
    tags: Sequence[str] = (),
) -> dict[str, Any]:
    """Build the Hub's metadata.

    Args:
        record: The run's record.
        split: Name of the rows that were measured.
        measured: Results as the Hub has them: type, value and name.
        task_name: What the model does, for people.
        metrics: The Hub's names of what matters most.
        tags: Beside those that every card has.

    Returns:
        The metadata.
    """
    base = record.base_model.name if record.base_model.revision is not None else None
    source, data = name_source(record.data.source), _find_on_hub(record.data.source)
    dataset = {"name": source, "type": data[0] if data else PureWindowsPath(source).suffix[1:] or source}
    if data and data[1]:
        dataset["revision"] = data[1]
    result = {
        "task": {"type": "text-classification", "name": task_name},
        "dataset": {**dataset, "split": split},
        "metrics": [dict(one) for one in measured],
    }
    return {
        **({"base_model": base} if base else {}),
        **({"datasets": [data[0]]} if data else {}),
        "library_name": "transformers" if is_whole(record) else "peft",
        "pipeline_tag": "text-classification",
        "tags": ["lorafit", record.method, *tags],
        "metrics": list(metrics),
        "model-index": [{"name": suggest_name(source, _name_base(record), record.method), "results": [result]}],
    }


def describe_base(record: RunRecord) -> str:
    """Say in a sentence what was adapted, and how."""
    base, counts = record.base_model, record.parameters
    return (
        f"Base: {code(_name_base(record))} ({base.architecture}), adapted with `{record.method}`: "
        f"{counts.adapter + counts.head:,} of {counts.total:,} parameters were trained ({counts.trainable_share:.2%})."
    )


def describe_origin(record: RunRecord) -> Iterator[str]:
    """Say what a built-in base was made from; nothing of any other."""
    base = record.base_model
    origin = _ORIGINS.get(base.name)
    if origin is not None:
        yield ""
        yield f"The base is {origin}, converted to the architecture `{base.architecture}`."


def describe_long_texts(record: RunRecord, split: str) -> Iterator[str]:
    """Say how many of the texts that were measured were cut; nothing where none was."""
    rows = record.data.splits.get(split)
    if rows is not None and rows.truncated:
        yield (
            f"* **Long texts**: {rows.truncated / rows.rows:.1%} of the {split} texts were longer than "
            f"{record.max_length} tokens and were cut ({record.truncation})."
        )


def describe_data(record: RunRecord) -> Iterator[str]:
    """List the splits with their labels, and what was found in the data."""
    data = record.data
    yield f"Source: {code(name_source(data.source))}."
    yield ""
    for name, split in data.splits.items():
        counts = _describe_counts(split)
        yield f"* {name}: {split.rows:,} rows{f' ({counts})' if counts else ''}"
    if data.notes:
        yield from ("", "What was cut, drawn, left out or found:", "", *(f"* {_escape(note)}" for note in data.notes))


def describe_slices(slices: Sequence[Slice], weakest: Sequence[str], correction: str) -> Iterator[str]:
    """Name the slices that are shown to be worse than the whole, three at most; nothing where none is told apart.

    Args:
        slices: All that are told apart.
        weakest: What is said of those that are shown to be worse, the weakest first.
        correction: How their number was taken into account.

    Yields:
        Markdown.
    """
    if not slices:
        return
    columns = ", ".join(code(name) for name in dict.fromkeys(one.column for one in slices))
    if weakest:
        yield (
            f"* **Weakest slices**, of the {len(slices)} told apart by {columns} (`words` is the length of the text), "
            f"shown to be worse than all rows together ({correction}): {'; '.join(weakest[:_WEAK_SLICES])}."
        )
    else:
        yield (
            f"* **Weak slices**: none of the {len(slices)} told apart by {columns} (`words` is the length of the text) "
            "is shown to be worse than the others."
        )


def describe_use(
    record: RunRecord, *, adapter_options: str = "", model_options: str = "", notes: Sequence[str] = ()
) -> Iterator[str]:
    """Tell how to open it; the code is run by the tests.

    Args:
        record: The run's record.
        adapter_options: What `pipeline` takes more where there is an adapter, after a comma.
        model_options: The same where the model itself was trained: its own config tells the task.
        notes: How what plain libraries give differs.

    Yields:
        Markdown.
    """
    yield from ("With lorafit:", "", "```python", *_USE_LORAFIT, "```", "")
    if is_whole(record):
        opening = f'classify = pipeline("text-classification", ".", truncation=True{model_options})'
        lines = ("from transformers import pipeline", "", f"{opening}  # where this card lies")
        yield from ("With plain transformers:", "", "```python", *lines, 'classify("What a lovely surprise.")', "```")
    else:
        opening = (
            f'classify = pipeline("text-classification", model=model, tokenizer=".", truncation=True{adapter_options})'
        )
        yield from ("With plain PEFT and transformers:", "", "```python", *_USE_ADAPTER, opening, "```")
    for note in notes:
        yield from ("", note)
    if record.truncation != "head":
        length = f"{record.max_length} tokens"
        yield from ("", f"Of a text longer than {length} they read the head; lorafit reads head and tail.")
    if not is_whole(record) and record.base_model.revision is None:
        made = ": lorafit makes it in its cache when it is first used" if record.base_model.name in _ORIGINS else ""
        yield from ("", f"The base is not on the Hub{made}. `adapter_config.json` names its folder.")


def is_whole(record: RunRecord) -> bool:
    """Return whether the model itself was trained, and not an adapter."""
    return "model.safetensors" in record.files


def name_source(source: str) -> str:
    """Name a data file without its folder."""
    is_named = source == "imdb" or source.startswith(("builtin:", "hub:"))
    return source if is_named else PureWindowsPath(source).name


def list_labels(labels: Sequence[str]) -> str:
    """Name labels; of many, the first."""
    more = "" if len(labels) <= LISTED_LABELS else ", …"
    return ", ".join(map(code, labels[:LISTED_LABELS])) + more


def code(text: str) -> str:
    """Write text as it is, whatever signs are in it."""
    plain = " ".join(text.split())
    fence = "`" * (1 + max(map(len, re.findall("`+", plain)), default=0))
    return f"{fence} {plain} {fence}" if "`" in plain else f"`{plain}`"


def describe_estimate(estimate: Estimate) -> str:
    """Write a value with its interval, to four digits after the point."""
    return f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"


def describe_share(estimate: Estimate) -> str:
    """Write a share with its interval in per cent."""
    return f"{estimate.value:.1%} [{estimate.low:.1%}, {estimate.high:.1%}]"


def _describe_counts(split: SplitRecord) -> str:
    counts = split.label_counts
    if len(counts) > LISTED_LABELS:
        return f"{len(counts)} classes, {min(counts.values()):,} to {max(counts.values()):,} rows each"
    return ", ".join(f"{code(label)} {rows:,}" for label, rows in counts.items())


def _name_base(record: RunRecord) -> str:
    """Name a folder without those above it; a model of the Hub has a revision."""
    base = record.base_model
    return base.name if base.revision is not None or base.name in _ORIGINS else PureWindowsPath(base.name).name


def _find_on_hub(source: str) -> tuple[str, str] | None:
    """Return id and revision ("" for the newest) of a source on the Hub, or None for another source."""
    kind, _, name = _HUB_NAMES.get(source, source).partition(":")
    identity, _, revision = name.partition("@")
    return (identity, revision) if kind == "hub" else None


def _escape(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(text.split()))
