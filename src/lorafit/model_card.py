"""The model card: `README.md` beside what was trained, made from the records alone."""

from collections.abc import Iterator
from pathlib import PureWindowsPath
from typing import Any

import yaml

from lorafit.artifacts import Estimate, MetricsRecord, RunRecord

__all__ = ["render_model_card"]

_ORIGINS = {"builtin:distil-minilm": "sentence-transformers/all-MiniLM-L6-v2"}
"""The models on the Hub that the built-in encoders were made from."""

_USE_ADAPTER = (
    "from peft import PeftConfig, PeftModel",
    "from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer",
    "",
    'folder = "."  # where this card lies',
    "name = PeftConfig.from_pretrained(folder).base_model_name_or_path",
    'config = AutoConfig.from_pretrained(f"{folder}/labels")',
    "base = AutoModelForSequenceClassification.from_pretrained(name, config=config)",
    "model = PeftModel.from_pretrained(base, folder).eval()",
    "tokenizer = AutoTokenizer.from_pretrained(folder)",
)
_USE_MODEL = (
    "from transformers import pipeline",
    "",
    'classify = pipeline("text-classification", ".")  # where this card lies',
    'classify("What a lovely surprise.")',
)


def render_model_card(record: RunRecord, metrics: MetricsRecord) -> str:
    """Write a card with the Hub's metadata, the results and how to use the adapter.

    Args:
        record: The run's record.
        metrics: Its measurements.

    Returns:
        Markdown with a YAML head (huggingface.co/docs/hub/model-cards).
    """
    head = yaml.safe_dump(_metadata(record), sort_keys=False, allow_unicode=True)
    data = record.data
    labels = ", ".join(f"`{label}`" for label in record.labels)
    lines = [
        "# Text classifier made with lorafit",
        "",
        f"Classes: {labels}. Base: `{record.base_model.name}`. Trained on {data.splits['train'].rows:,} rows of "
        f"`{_source_name(data.source)}`; inputs of at most {record.max_length} tokens ({record.truncation}).",
        "",
        f"## Results on {metrics.rows:,} {metrics.split} rows",
        "",
        *_result_rows(metrics),
    ]
    lines += [
        "",
        f"In brackets: {100 * metrics.confidence_level:g} % bootstrap intervals over the test rows.",
        "",
        "## Use",
        "",
        "```python",
        *(_USE_MODEL if _is_whole(record) else _USE_ADAPTER),
        "```",
        "",
        *([] if _is_whole(record) else _describe_base(record)),
        'With lorafit: `lorafit predict RUN "text"`, RUN being the folder above this one.',
    ]
    return f"---\n{head}---\n\n" + "\n".join(lines) + "\n"


def _result_rows(metrics: MetricsRecord) -> Iterator[str]:
    models = {"before": metrics.baseline, "after": metrics.finetuned}
    measured = {name: scores for name, scores in models.items() if scores is not None}
    yield f"| | {' | '.join(measured)} |"
    yield "|---" * (1 + len(measured)) + "|"
    for field, title in (("accuracy", "accuracy"), ("macro_f1", "F1 (macro)"), ("log_loss", "log loss")):
        cells = [_describe(getattr(scores, field)) for scores in measured.values()]
        yield f"| {title} | {' | '.join(cells)} |"


def _describe_base(record: RunRecord) -> list[str]:
    origin = _ORIGINS.get(record.base_model.name)
    if origin is None:
        return []
    return [
        f"The base is {origin} converted to the architecture `{record.base_model.architecture}`, which is not on the "
        "Hub: lorafit makes it in its cache when it is first used, and `adapter_config.json` names that folder.",
        "",
    ]


def _is_whole(record: RunRecord) -> bool:
    """Return whether the model itself was trained, and not an adapter."""
    return "model.safetensors" in record.files


def _metadata(record: RunRecord) -> dict[str, Any]:
    base = record.base_model.name if record.base_model.revision is not None else None
    return {
        **({"base_model": base} if base else {}),
        "library_name": "transformers" if _is_whole(record) else "peft",
        "pipeline_tag": "text-classification",
        "tags": ["lorafit", record.method],
        "metrics": ["accuracy", "f1"],
    }


def _source_name(source: str) -> str:
    """A data file is named without its folder: a card may be published."""
    is_named = source == "imdb" or source.startswith(("builtin:", "hub:"))
    return source if is_named else PureWindowsPath(source).name


def _describe(estimate: Estimate) -> str:
    return f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"
