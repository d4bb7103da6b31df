"""The model card: `README.md` beside what was trained, made from the records alone.

It may be published, so it holds no text of the data and no folder of this machine.
"""

from collections.abc import Iterator
from typing import Any

from lorafit.evidence import ConfidenceRecord, MetricsRecord, ModelScores, SliceScores
from lorafit.metrics.selective import NEVER
from lorafit.metrics.uncertainty import wilson_interval
from lorafit.reports.card_parts import (
    build_metadata,
    code,
    describe_base,
    describe_data,
    describe_estimate,
    describe_long_texts,
    describe_origin,
    describe_share,
    describe_slices,
    describe_use,
    join_card,
    list_labels,
    name_source,
)
from lorafit.runs.records import RunRecord

__all__ = ["render_model_card"]


def render_model_card(record: RunRecord, metrics: MetricsRecord) -> str:
    """Write a card with the Hub's metadata, what the model is for, how good it is, its limits, its data and its use.

    Args:
        record: The run's record.
        metrics: Its measurements.

    Returns:
        Markdown with a YAML head (huggingface.co/docs/hub/model-cards).
    """
    sections = {
        "# Text classifier made with lorafit": _describe_model(record),
        "## Intended use": _describe_purpose(record),
        f"## Results on {metrics.rows:,} {metrics.split} rows": _describe_results(metrics),
        "## Limits that were measured": _describe_limits(record, metrics),
        "## Training data": describe_data(record),
        "## How to use it": describe_use(record, notes=_describe_plain(metrics)),
    }
    measured = list(_list_measured(metrics))
    head = build_metadata(record, metrics.split, measured, task_name="Text classification", metrics=("accuracy", "f1"))
    return join_card(head, sections)


def _list_measured(metrics: MetricsRecord) -> Iterator[dict[str, Any]]:
    scores, confidence = metrics.finetuned, metrics.confidence
    yield {"type": "accuracy", "value": round(scores.accuracy.value, 6), "name": "Accuracy"}
    value = round(scores.macro_f1.value, 6)
    yield {"type": "f1", "value": value, "name": "F1 (macro)", "args": {"average": "macro"}}
    if confidence is not None:
        value = round(confidence.calibrated.ece.value, 6)
        yield {"type": "ece", "value": value, "name": "Expected calibration error"}


def _describe_model(record: RunRecord) -> Iterator[str]:
    classes = list_labels(record.labels)
    yield f"It gives each text one of {len(record.labels)} classes: {classes}. {describe_base(record)}"
    yield from describe_origin(record)


def _describe_purpose(record: RunRecord) -> Iterator[str]:
    yield (
        f"Sorting texts of the same kind and language as its training data ({code(name_source(record.data.source))}) "
        "into these classes, where a wrong answer can be borne or is looked at by a person."
    )
    yield ""
    yield (
        "Not measured, so not to be relied on: other kinds of texts, other languages, texts of no class at all (they "
        "get one all the same), and whether groups of people are treated alike, unless a slice below says so."
    )


def _describe_results(metrics: MetricsRecord) -> Iterator[str]:
    models: dict[str, ModelScores | None] = {"before": metrics.baseline, "after": metrics.finetuned}
    models |= {code(name): cheap.scores for name, cheap in metrics.cheap_baselines.items()}
    measured = {name: scores for name, scores in models.items() if scores is not None}
    yield f"| | {' | '.join(measured)} |"
    yield "|---" * (1 + len(measured)) + "|"
    for field, title in (("accuracy", "accuracy"), ("macro_f1", "F1 (macro)"), ("log_loss", "log loss")):
        cells = [describe_estimate(getattr(scores, field)) for scores in measured.values()]
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
    weak = sorted(_list_weak_slices(metrics), key=lambda one: one.accuracy.value)
    yield from describe_slices(metrics.slices, list(map(_describe_slice, weak)), "Bonferroni")
    if metrics.confidence is None:
        yield "* **Calibration**: none; confidence is what the model gives, and how far it holds was not measured."
    else:
        yield from _describe_confidence(metrics.confidence, metrics.rows)
    yield from describe_long_texts(record, metrics.split)


def _list_weak_slices(metrics: MetricsRecord) -> Iterator[SliceScores]:
    """Yield the slices below the whole by more than chance, at a level corrected for their number (Bonferroni)."""
    level = 1 - (1 - metrics.confidence_level) / max(len(metrics.slices), 1)
    for one in metrics.slices:
        right = round(one.accuracy.value * one.rows)
        if wilson_interval(right, one.rows, level).high < metrics.finetuned.accuracy.value:
            yield one


def _describe_slice(one: SliceScores) -> str:
    return f"{code(one.column)} {code(one.value)}, accuracy {describe_estimate(one.accuracy)} on {one.rows:,} rows"


def _describe_confidence(confidence: ConfidenceRecord, rows: int) -> Iterator[str]:
    yield (
        f"* **Calibration**: expected calibration error {confidence.raw.ece.value:.4f} as the model gives it, "
        f"{describe_estimate(confidence.calibrated.ece)} with the temperature {confidence.temperature:.3f}, fitted on "
        f"{confidence.calibration_rows:,} rows that neither trained nor chose anything."
    )
    single = confidence.set_sizes[0] / rows if confidence.set_sizes else 0.0
    yield (
        f"* **Conformal sets**: asked to hold the true class of {confidence.coverage_asked:.1%} of the texts, they "
        f"hold it for {describe_share(confidence.coverage)}; {single:.1%} of them hold a single class."
    )
    abstention = confidence.abstention
    if abstention is not None and abstention.accept_threshold >= NEVER:
        yield (
            f"* **Abstaining**: for a target accuracy of {abstention.target_accuracy:.1%} no confidence was high "
            "enough, so that every answer abstains."
        )
    elif abstention is not None:
        found = "there are none" if abstention.accuracy is None else f"{describe_share(abstention.accuracy)} are right"
        yield (
            f"* **Abstaining**: for a target accuracy of {abstention.target_accuracy:.1%} it abstains below the "
            f"confidence {abstention.accept_threshold:.4f}, on {1 - abstention.accepted_share.value:.1%} of the texts; "
            f"of the others {found}."
        )


def _describe_plain(metrics: MetricsRecord) -> list[str]:
    """Say how what plain libraries give differs."""
    if metrics.confidence is None:
        return []
    return ["Plain libraries give the same classes, with the scores from before calibration."]
