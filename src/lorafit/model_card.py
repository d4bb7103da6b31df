"""The model card: `adapter/README.md`, made from the records alone."""

from collections.abc import Iterator
from typing import Any

import yaml

from lorafit.artifacts import Estimate, MetricsRecord, RunRecord

__all__ = ["render_model_card"]

_ORIGINS = {"builtin:distil-minilm": "sentence-transformers/all-MiniLM-L6-v2"}
"""Hub ids that the built-in encoders were made from."""


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
        "# Text classifier: a LoRA adapter made with lorafit",
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
        f"In brackets: {metrics.confidence_level:.0%} bootstrap intervals over the test rows.",
        "",
        "## Use",
        "",
        "```python",
        "from peft import PeftModel",
        "from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer",
        "",
        'config = AutoConfig.from_pretrained("labels")  # the folder beside this card',
        "base = AutoModelForSequenceClassification.from_pretrained(BASE, config=config)",
        'model = PeftModel.from_pretrained(base, ".").eval()',
        'tokenizer = AutoTokenizer.from_pretrained(".")',
        "```",
        "",
        '`BASE` is `base_model_name_or_path` in `adapter_config.json`. With lorafit: `lorafit predict RUN "text"`.',
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


def _metadata(record: RunRecord) -> dict[str, Any]:
    base = _ORIGINS.get(record.base_model.name)
    if base is None and record.base_model.revision is not None:
        base = record.base_model.name
    return {
        **({"base_model": base} if base else {}),
        "library_name": "peft",
        "pipeline_tag": "text-classification",
        "tags": ["lorafit", record.method],
        "metrics": ["accuracy", "f1"],
    }


def _source_name(source: str) -> str:
    """A data file is named without its folder: a card may be published."""
    return source.replace("\\", "/").rpartition("/")[2] if source.startswith("/") or ":\\" in source else source


def _describe(estimate: Estimate) -> str:
    return f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"
