"""The model card: `README.md` beside what was trained, made from the records alone.

It may be published, so it holds no text of the data and no folder of this machine.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import PureWindowsPath
from typing import Any, Final

import yaml

from lorafit.artifacts import RunRecord, SplitRecord
from lorafit.evidence import ConfidenceRecord, Estimate, MetricsRecord, ModelScores, SliceScores
from lorafit.metrics.selective import NEVER
from lorafit.metrics.uncertainty import wilson_interval
from lorafit.run_folder import suggest_name

__all__ = ["render_model_card"]

_ORIGINS: Final = {"builtin:distil-minilm": "sentence-transformers/all-MiniLM-L6-v2"}
"""The models on the Hub that the built-in encoders were made from."""

_HUB_NAMES: Final = {"imdb": "hub:stanfordnlp/imdb"}
"""Named sources that are data sets of the Hub."""

_LISTED_LABELS: Final = 20
_WEAK_SLICES: Final = 3

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
    'classify = pipeline("text-classification", model=model, tokenizer=".", truncation=True)',
)
_USE_MODEL: Final = (
    "from transformers import pipeline",
    "",
    'classify = pipeline("text-classification", ".", truncation=True)  # where this card lies',
    'classify("What a lovely surprise.")',
)


def render_model_card(record: RunRecord, metrics: MetricsRecord) -> str:
    """Write a card with the Hub's metadata, what the model is for, how good it is, its limits, its data and its use.

    Args:
        record: The run's record.
        metrics: Its measurements.

    Returns:
        Markdown with a YAML head (huggingface.co/docs/hub/model-cards).
    """
    head = yaml.safe_dump(_metadata(record, metrics), sort_keys=False, allow_unicode=True)
    sections = {
        "# Text classifier made with lorafit": _describe_model(record),
        "## Intended use": _describe_purpose(record),
        f"## Results on {metrics.rows:,} {metrics.split} rows": _describe_results(metrics),
        "## Limits that were measured": _describe_limits(record, metrics),
        "## Training data": _describe_data(record),
        "## How to use it": _describe_use(record, metrics),
    }
    body = "\n\n".join(f"{title}\n\n{chr(10).join(lines)}" for title, lines in sections.items())
    return f"---\n{head}---\n\n{body}\n"


def _metadata(record: RunRecord, metrics: MetricsRecord) -> dict[str, Any]:
    base = record.base_model.name if record.base_model.revision is not None else None
    data = _hub_name(record.data.source)
    return {
        **({"base_model": base} if base else {}),
        **({"datasets": [data[0]]} if data else {}),
        "library_name": "transformers" if _is_whole(record) else "peft",
        "pipeline_tag": "text-classification",
        "tags": ["lorafit", record.method],
        "metrics": ["accuracy", "f1"],
        "model-index": [_model_index(record, metrics)],
    }


def _model_index(record: RunRecord, metrics: MetricsRecord) -> dict[str, Any]:
    source, data = _source_name(record.data.source), _hub_name(record.data.source)
    scores, confidence = metrics.finetuned, metrics.confidence
    measured = [
        {"type": "accuracy", "value": round(scores.accuracy.value, 6), "name": "Accuracy"},
        {"type": "f1", "value": round(scores.macro_f1.value, 6), "name": "F1 (macro)", "args": {"average": "macro"}},
    ]
    if confidence is not None:
        value = round(confidence.calibrated.ece.value, 6)
        measured.append({"type": "ece", "value": value, "name": "Expected calibration error"})
    dataset = {"name": source, "type": data[0] if data else PureWindowsPath(source).suffix[1:] or source}
    if data and data[1]:
        dataset["revision"] = data[1]
    return {
        "name": suggest_name(source, _base_name(record), record.method),
        "results": [
            {
                "task": {"type": "text-classification", "name": "Text classification"},
                "dataset": {**dataset, "split": metrics.split},
                "metrics": measured,
            }
        ],
    }


def _describe_model(record: RunRecord) -> Iterator[str]:
    base, counts = record.base_model, record.parameters
    yield (
        f"It gives each text one of {len(record.labels)} classes: {_list_labels(record.labels)}. Base: "
        f"{_code(_base_name(record))} ({base.architecture}), adapted with `{record.method}`: "
        f"{counts.adapter + counts.head:,} of {counts.total:,} parameters were trained ({counts.trainable_share:.2%})."
    )
    origin = _ORIGINS.get(base.name)
    if origin is not None:
        yield ""
        yield f"The base is {origin}, converted to the architecture `{base.architecture}`."


def _describe_purpose(record: RunRecord) -> Iterator[str]:
    yield (
        f"Sorting texts of the same kind and language as its training data ({_code(_source_name(record.data.source))}) "
        "into these classes, where a wrong answer can be borne or is looked at by a person."
    )
    yield ""
    yield (
        "Not measured, so not to be relied on: other kinds of texts, other languages, texts of no class at all (they "
        "get one all the same), and whether groups of people are treated alike, unless a slice below says so."
    )


def _describe_results(metrics: MetricsRecord) -> Iterator[str]:
    models: dict[str, ModelScores | None] = {"before": metrics.baseline, "after": metrics.finetuned}
    models |= {_code(name): cheap.scores for name, cheap in metrics.cheap_baselines.items()}
    measured = {name: scores for name, scores in models.items() if scores is not None}
    yield f"| | {' | '.join(measured)} |"
    yield "|---" * (1 + len(measured)) + "|"
    for field, title in (("accuracy", "accuracy"), ("macro_f1", "F1 (macro)"), ("log_loss", "log loss")):
        cells = [_describe(getattr(scores, field)) for scores in measured.values()]
        yield f"| {title} | {' | '.join(cells)} |"
    yield ""
    yield f"In brackets: {100 * metrics.confidence_level:g} % bootstrap intervals over the {metrics.split} rows."
    if metrics.comparison is not None:
        paired = metrics.comparison
        yield (
            f"Training put {paired.rows_gained:,} rows right and made {paired.rows_lost:,} wrong (exact McNemar test, "
            f"p = {paired.mcnemar_p_value:.2g})."
        )


def _describe_limits(record: RunRecord, metrics: MetricsRecord) -> Iterator[str]:
    yield from _describe_slices(metrics)
    if metrics.confidence is None:
        yield "* **Calibration**: none; confidence is what the model gives, and how far it holds was not measured."
    else:
        yield from _describe_confidence(metrics.confidence, metrics.rows)
    test = record.data.splits.get(metrics.split)
    if test is not None and test.truncated:
        yield (
            f"* **Long texts**: {test.truncated / test.rows:.1%} of the {metrics.split} texts were longer than "
            f"{record.max_length} tokens and were cut ({record.truncation})."
        )


def _describe_slices(metrics: MetricsRecord) -> Iterator[str]:
    if not metrics.slices:
        return
    weak = sorted(_list_weak_slices(metrics), key=lambda one: one.accuracy.value)
    columns = ", ".join(_code(name) for name in dict.fromkeys(one.column for one in metrics.slices))
    if weak:
        listed = "; ".join(map(_describe_slice, weak[:_WEAK_SLICES]))
        yield (
            f"* **Weakest slices**, of the {len(metrics.slices)} told apart by {columns} (`words` is the length of the "
            f"text), shown to be worse than all rows together (Bonferroni): {listed}."
        )
    else:
        yield (
            f"* **Weak slices**: none of the {len(metrics.slices)} told apart by {columns} (`words` is the length of "
            "the text) is shown to be worse than the others."
        )


def _list_weak_slices(metrics: MetricsRecord) -> Iterator[SliceScores]:
    """Yield the slices below the whole by more than chance, at a level corrected for their number (Bonferroni)."""
    level = 1 - (1 - metrics.confidence_level) / len(metrics.slices)
    for one in metrics.slices:
        right = round(one.accuracy.value * one.rows)
        if wilson_interval(right, one.rows, level).high < metrics.finetuned.accuracy.value:
            yield one


def _describe_slice(one: SliceScores) -> str:
    return f"{_code(one.column)} {_code(one.value)}, accuracy {_describe(one.accuracy)} on {one.rows:,} rows"


def _describe_confidence(confidence: ConfidenceRecord, rows: int) -> Iterator[str]:
    yield (
        f"* **Calibration**: expected calibration error {confidence.raw.ece.value:.4f} as the model gives it, "
        f"{_describe(confidence.calibrated.ece)} with the temperature {confidence.temperature:.3f}, fitted on "
        f"{confidence.calibration_rows:,} rows that neither trained nor chose anything."
    )
    single = confidence.set_sizes[0] / rows if confidence.set_sizes else 0.0
    yield (
        f"* **Conformal sets**: asked to hold the true class of {confidence.coverage_asked:.1%} of the texts, they "
        f"hold it for {_describe_share(confidence.coverage)}; {single:.1%} of them hold a single class."
    )
    abstention = confidence.abstention
    if abstention is not None and abstention.accept_threshold >= NEVER:
        yield (
            f"* **Abstaining**: for a target accuracy of {abstention.target_accuracy:.1%} no confidence was high "
            "enough, so that every answer abstains."
        )
    elif abstention is not None:
        found = "there are none" if abstention.accuracy is None else f"{_describe_share(abstention.accuracy)} are right"
        yield (
            f"* **Abstaining**: for a target accuracy of {abstention.target_accuracy:.1%} it abstains below the "
            f"confidence {abstention.accept_threshold:.4f}, on {1 - abstention.accepted_share.value:.1%} of the texts; "
            f"of the others {found}."
        )


def _describe_data(record: RunRecord) -> Iterator[str]:
    data = record.data
    yield f"Source: {_code(_source_name(data.source))}."
    yield ""
    for name, split in data.splits.items():
        yield f"* {name}: {split.rows:,} rows ({_describe_counts(split)})"
    if data.notes:
        yield from ("", "What was cut, drawn, left out or found:", "", *(f"* {_escape(note)}" for note in data.notes))


def _describe_counts(split: SplitRecord) -> str:
    counts = split.label_counts
    if len(counts) > _LISTED_LABELS:
        return f"{len(counts)} classes, {min(counts.values()):,} to {max(counts.values()):,} rows each"
    return ", ".join(f"{_code(label)} {rows:,}" for label, rows in counts.items())


def _describe_use(record: RunRecord, metrics: MetricsRecord) -> Iterator[str]:
    """Tell how to open it; the code is run by the tests."""
    yield from ("With lorafit:", "", "```python", *_USE_LORAFIT, "```", "")
    if _is_whole(record):
        yield from ("With plain transformers:", "", "```python", *_USE_MODEL, "```")
    else:
        yield from ("With plain PEFT and transformers:", "", "```python", *_USE_ADAPTER, "```")
    if metrics.confidence is not None:
        yield from ("", "Plain libraries give the same classes, with the scores from before calibration.")
    if record.truncation != "head":
        length = f"{record.max_length} tokens"
        yield from ("", f"Of a text longer than {length} they read the head; lorafit reads head and tail.")
    if not _is_whole(record) and record.base_model.revision is None:
        made = ": lorafit makes it in its cache when it is first used" if record.base_model.name in _ORIGINS else ""
        yield from ("", f"The base is not on the Hub{made}. `adapter_config.json` names its folder.")


def _is_whole(record: RunRecord) -> bool:
    """Return whether the model itself was trained, and not an adapter."""
    return "model.safetensors" in record.files


def _source_name(source: str) -> str:
    """Name a data file without its folder."""
    is_named = source == "imdb" or source.startswith(("builtin:", "hub:"))
    return source if is_named else PureWindowsPath(source).name


def _base_name(record: RunRecord) -> str:
    """Name a folder without those above it; a model of the Hub has a revision."""
    base = record.base_model
    return base.name if base.revision is not None or base.name in _ORIGINS else PureWindowsPath(base.name).name


def _hub_name(source: str) -> tuple[str, str] | None:
    """Return id and revision ("" for the newest) of a source on the Hub, or None for another source."""
    kind, _, name = _HUB_NAMES.get(source, source).partition(":")
    identity, _, revision = name.partition("@")
    return (identity, revision) if kind == "hub" else None


def _list_labels(labels: Sequence[str]) -> str:
    more = "" if len(labels) <= _LISTED_LABELS else ", …"
    return ", ".join(map(_code, labels[:_LISTED_LABELS])) + more


def _code(text: str) -> str:
    """Write text as it is, whatever signs are in it."""
    plain = " ".join(text.split())
    fence = "`" * (1 + max(map(len, re.findall("`+", plain)), default=0))
    return f"{fence} {plain} {fence}" if "`" in plain else f"`{plain}`"


def _escape(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(text.split()))


def _describe(estimate: Estimate) -> str:
    return f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"


def _describe_share(estimate: Estimate) -> str:
    return f"{estimate.value:.1%} [{estimate.low:.1%}, {estimate.high:.1%}]"
