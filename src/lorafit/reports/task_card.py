"""The model card of a run with several labels a text, or with a number, made from the records alone.

It may be published, so it holds no text of the data and no folder of this machine.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from lorafit.evidence import Estimate
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
from lorafit.task_evidence import TaskConfidence, TaskMetricsRecord, TaskScores, TaskSliceScores
from lorafit.task_figures import LEADING, describe_chance, name_figure, strength_of, write_figure, write_value

__all__ = ["render_task_card"]

_TITLES: Final = {
    "multi_label": "# Multi-label text classifier made with lorafit",
    "regression": "# Text regression model made with lorafit",
}
_TASK_NAMES: Final = {"multi_label": "Multi-label text classification", "regression": "Text regression"}
_METRICS: Final = {"multi_label": ("f1", "exact_match"), "regression": ("mae", "mse", "r_squared", "pearsonr")}
"""What matters most, by the Hub's names (huggingface.co/evaluate-metric)."""


def render_task_card(record: RunRecord, metrics: TaskMetricsRecord) -> str:
    """Write a card with the Hub's metadata, what the model is for, how good it is, its limits, its data and its use.

    Args:
        record: The run's record.
        metrics: Its measurements.

    Returns:
        Markdown with a YAML head (huggingface.co/docs/hub/model-cards).
    """
    is_number = metrics.task == "regression"
    sections = {
        _TITLES[metrics.task]: _describe_model(record),
        "## Intended use": _describe_purpose(record),
        f"## Results on {metrics.rows:,} {metrics.split} rows": _describe_results(metrics),
        "## Limits that were measured": _describe_limits(record, metrics),
        "## Training data": describe_data(record),
        "## How to use it": describe_use(
            record,
            adapter_options=', function_to_apply="none"' if is_number else ', function_to_apply="sigmoid", top_k=None',
            model_options=', function_to_apply="none"' if is_number else ", top_k=None",
            notes=list(_describe_plain(metrics)),
        ),
    }
    head = build_metadata(
        record,
        metrics.split,
        list(_list_measured(metrics)),
        task_name=_TASK_NAMES[metrics.task],
        metrics=_METRICS[metrics.task],
        tags=(metrics.task,),
    )
    return join_card(head, sections)


def _list_measured(metrics: TaskMetricsRecord) -> Iterator[dict[str, Any]]:
    """Yield what the Hub has a name for, as far as it is defined."""
    values = {name: estimate.value for name, estimate in metrics.finetuned.figures.items()}
    results: list[dict[str, Any]] = [
        {"type": "f1", "value": values.get("micro_f1"), "name": "F1 (micro)", "args": {"average": "micro"}},
        {"type": "f1", "value": values.get("macro_f1"), "name": "F1 (macro)", "args": {"average": "macro"}},
        {"type": "exact_match", "value": values.get("exact_match"), "name": "Exact match"},
        {"type": "mae", "value": values.get("mae"), "name": "Mean absolute error"},
        {"type": "mse", "value": values["rmse"] ** 2 if "rmse" in values else None, "name": "Mean squared error"},
        {"type": "r_squared", "value": values.get("r2"), "name": "R²"},
        {"type": "pearsonr", "value": values.get("pearson"), "name": "Pearson's r"},
    ]
    for result in results:
        value = result["value"]
        if value is not None and math.isfinite(value):
            yield {**result, "value": float(f"{value:.6g}") if metrics.task == "regression" else round(value, 6)}


def _describe_model(record: RunRecord) -> Iterator[str]:
    gives = f"any number of {len(record.labels)} labels: {list_labels(record.labels)}"
    if record.task == "regression":
        gives = "a number, in the unit of those it was trained on"
    yield f"It gives each text {gives}. {describe_base(record)}"
    yield from describe_origin(record)


def _describe_purpose(record: RunRecord) -> Iterator[str]:
    source = code(name_source(record.data.source))
    is_number = record.task == "regression"
    doing = "Estimating this number for texts" if is_number else "Marking texts"
    with_them = "" if is_number else " with these labels"
    yield (
        f"{doing} of the same kind and language as its training data ({source}){with_them}, where a wrong answer can "
        "be borne or is looked at by a person."
    )
    yield ""
    special = "numbers beyond the range of the training rows" if is_number else "labels that it was not trained on"
    yield (
        f"Not measured, so not to be relied on: other kinds of texts, other languages, {special}, and whether groups "
        "of people are treated alike, unless a slice below says so."
    )


def _describe_results(metrics: TaskMetricsRecord) -> Iterator[str]:
    models: dict[str, TaskScores | None] = {"before": metrics.baseline, "after": metrics.finetuned}
    models |= {code(name): cheap.scores for name, cheap in metrics.cheap_baselines.items()}
    measured = {name: scores for name, scores in models.items() if scores is not None}
    yield f"| | {' | '.join(measured)} |"
    yield "|---" * (1 + len(measured)) + "|"
    for name in metrics.finetuned.figures:
        cells = [_write_cell(name, scores.figures, metrics) for scores in measured.values()]
        yield f"| {name_figure(name)} | {' | '.join(cells)} |"
    yield ""
    yield f"In brackets: {100 * metrics.confidence_level:g} % bootstrap intervals over the {metrics.split} rows."
    if metrics.comparison is not None:
        gained, lost = metrics.comparison.rows_gained, metrics.comparison.rows_lost
        chance = describe_chance(metrics.comparison.p_value)
        if metrics.task == "regression":
            yield f"Training brought {gained:,} rows nearer to their number and {lost:,} farther (sign test, {chance})."
        else:
            yield f"Training gave {gained:,} rows fewer wrong labels and {lost:,} more (sign test, {chance})."


def _write_cell(name: str, figures: Mapping[str, Estimate], metrics: TaskMetricsRecord) -> str:
    if name not in figures:
        return ""
    estimate = figures[name]
    return write_figure(name, estimate) if metrics.task == "regression" else describe_estimate(estimate)


def _describe_limits(record: RunRecord, metrics: TaskMetricsRecord) -> Iterator[str]:
    weak = [one for one in metrics.slices if one.adjusted_p_value < 1 - metrics.confidence_level]
    weak.sort(key=lambda one: strength_of(one, metrics.task))
    yield from describe_slices(
        metrics.slices, [_describe_slice(one, metrics) for one in weak], "permutation test, Holm"
    )
    yield from _describe_labels(metrics)
    yield from _describe_confidence(metrics)
    yield from describe_long_texts(record, metrics.split)


def _describe_slice(one: TaskSliceScores, metrics: TaskMetricsRecord) -> str:
    leading = LEADING[metrics.task]
    figure = f"{name_figure(leading)} {_write_cell(leading, one.figures, metrics)}"
    return f"{code(one.column)} {code(one.value)}, {figure} on {one.rows:,} rows"


def _describe_labels(metrics: TaskMetricsRecord) -> Iterator[str]:
    present = sorted((one for one in metrics.finetuned.per_class if one.support), key=lambda one: one.f1.value)
    absent = len(metrics.finetuned.per_class) - len(present)
    if len(present) > 1:
        weakest, best = (
            f"{describe_share(one.f1)} ({code(one.label)}, {one.support:,} rows)" for one in (present[0], present[-1])
        )
        yield f"* **Labels differ**: the F1 of a single label reaches from {weakest} to {best}."
    if absent:
        said = "1 label has" if absent == 1 else f"{absent:,} labels have"
        yield f"* **Labels not measured**: {said} no {metrics.split} row."


def _describe_confidence(metrics: TaskMetricsRecord) -> Iterator[str]:
    confidence, is_number = metrics.confidence, metrics.task == "regression"
    if confidence is None and is_number:
        yield "* **Intervals**: none; how far off a single number may be was not calibrated."
    elif confidence is None:
        yield "* **Calibration**: none; probabilities are what the model gives, and how far they hold was not measured."
    elif is_number:
        yield from _describe_intervals(confidence)
    else:
        yield from _describe_calibration(confidence)


def _describe_calibration(confidence: TaskConfidence) -> Iterator[str]:
    raw, calibrated = confidence.figures.get("ece_raw"), confidence.figures.get("ece")
    if raw is not None and calibrated is not None:
        yield (
            f"* **Calibration**: expected calibration error over all decisions {raw.value:.4f} as the model gives it, "
            f"{describe_estimate(calibrated)} calibrated on {confidence.calibration_rows:,} rows that neither trained "
            "nor chose anything."
        )


def _describe_intervals(confidence: TaskConfidence) -> Iterator[str]:
    held, width = confidence.figures.get("coverage"), confidence.figures.get("half_width")
    if held is not None and width is not None and confidence.coverage_asked is not None:
        yield (
            f"* **Intervals**: asked to hold the true number of {confidence.coverage_asked:.1%} of the texts, they "
            f"hold it for {describe_share(held)}; they reach {write_value(width.value)} to each side of the number "
            f"given. They come from {confidence.calibration_rows:,} rows that neither trained nor chose anything."
        )


def _describe_plain(metrics: TaskMetricsRecord) -> Iterator[str]:
    """Say how what plain libraries give differs."""
    if metrics.task == "regression":
        yield "Plain libraries give the number as `score`" + (
            ", without the interval around it." if metrics.confidence is not None else "."
        )
        return
    yield "A label applies where its score is at least 0.5." + (
        " Plain libraries give the same labels, with the scores from before calibration."
        if metrics.confidence is not None
        else ""
    )
