"""The sentences that a report opens with: whether training was worth it, and what it did not learn."""

import math
from collections.abc import Iterable, Sequence
from typing import Final

from lorafit.system.text import clean_text
from lorafit.tasks.base import Metric, Task
from lorafit.tasks.baselines import MAJORITY
from lorafit.tasks.evaluation import Verdict, find_unpredicted, judge, judge_difference
from lorafit.tasks.format import write_estimate
from lorafit.tasks.records import AlternativeRecord, BaselineScores, BlendRecord, Estimate, MetricsRecord

_MOST_NAMED: Final = 5
_LONGEST_NAME: Final = 40


def describe_verdict(task: Task, metrics: MetricsRecord) -> str:
    """Say in one sentence whether training was worth it.

    Args:
        task: The task.
        metrics: Its metrics.

    Returns:
        Plain text: against the model before training, and against each baseline, as far as they were measured. No model
        is called better that is not shown to be better than one that gives every row the same.
    """
    name, metric, level = task.primary, task.primary_metric, metrics.confidence_level
    rows = f"{metrics.rows:,} {metrics.split} row{'' if metrics.rows == 1 else 's'}"
    if math.isnan(metrics.after.metrics[name].value):
        return f"{metric.title} is undefined on {rows}: no label is true or predicted there, so there is no verdict."
    scored = task.wording.scored.format(value=metric.write_value(metrics.after.metrics[name].value), rows=rows)
    baselines = _list_clauses(
        (
            task.title_model(baseline),
            judge(task, one.comparison, level),
            _write_change(metric, one.comparison.differences[name]),
        )
        for baseline, one in metrics.baselines.items()
        if baseline != MAJORITY
    )
    constant = metrics.baselines.get(MAJORITY)
    doubt = "" if constant is None else _describe_doubt(task, constant, level)
    if metrics.comparison is None:
        found: Verdict = next(iter(baselines), "inconclusive")
        opening = f"{doubt}: {scored}" if doubt else f"{scored[0].upper()}{scored[1:]}"
        ending = "; the model before training was not measured."
    else:
        found, difference = judge(task, metrics.comparison, level), metrics.comparison.differences[name]
        words = f"{'not shown to be better' if found == 'inconclusive' else found} than before"
        if doubt:
            words = f"{doubt}, {'though' if found == 'better' else 'and'} {words}"
        change = _write_change(metric, difference)
        amount = f"a change of {change}" if found == "inconclusive" else _write_amount(task, difference)
        opening, ending = f"{words[0].upper()}{words[1:]}: {scored}, {amount}", "."
    return f"{opening}{_join(baselines, found)}{ending}{_describe_balanced_gain(task, constant, level)}"


def describe_unpredicted(task: Task, metrics: MetricsRecord, balancing: Sequence[str] | None = None) -> str:
    """Say which labels the fine-tuned model never predicts, where to look and what to try.

    Args:
        task: The task, with the labels that the model was trained on.
        metrics: Its metrics.
        balancing: The settings by which some training rows counted more; None for no advice on training.

    Returns:
        Plain text; nothing where every label that occurs is predicted.
    """
    labels = find_unpredicted(metrics.after)
    if not labels:
        return ""
    named = [f"'{clean_text(one.label, most=_LONGEST_NAME)}'" for one in labels[:_MOST_NAMED]]
    counts = [f"0 of {one.support:,}" for one in labels[:_MOST_NAMED]]
    if len(labels) == 1:
        sentence = f"{named[0]} is never predicted (recall {counts[0]})."
    else:
        more = f", and {len(labels) - _MOST_NAMED:,} more" if len(labels) > _MOST_NAMED else ""
        listed = ", ".join(f"{name} ({count})" for name, count in zip(named, counts, strict=True))
        sentence = f"{len(labels):,} labels are never predicted (recall): {listed}{more}."
    titles = " and ".join(task.metrics[name].title for name in task.balanced_metrics)
    are = "is" if len(task.balanced_metrics) == 1 else "are"
    most = max(one.support for one in metrics.after.per_class)
    is_rare = any(one.label in task.label_names and 2 * one.support <= most for one in labels)
    advice = (
        " To let rare labels count more in training: --class-weights balanced."
        if balancing is not None and not balancing and is_rare
        else ""
    )
    return f"{sentence} Look at {titles}, which {are} high only where rare labels are found, too.{advice}"


def describe_exchangeability(metrics: MetricsRecord) -> str:
    """Say that the rows are of another kind than the calibration rows, where that is shown, and what then fails."""
    found = metrics.exchangeability
    if found is None or not found.is_refuted:
        return ""
    weaker = f", by at least {100 * found.distance:.1f} points" if found.distance > 0 else ""
    return (
        f"The {metrics.split} rows are of another kind than the calibration rows (permutation test, p = "
        f"{found.p_value:.3g}): what was calibrated, such as a coverage, is guaranteed less for them than was asked "
        f"for{weaker}."
    )


def describe_balancing(balancing: Sequence[str]) -> str:
    """Say what probabilities mean after a training in which some rows counted more; nothing after any other."""
    if not balancing:
        return ""
    return (
        f"Trained with {' and '.join(balancing)}: probabilities are those of the re-weighted training rows, in which "
        "rare labels are more probable than here; calibration does not undo that."
    )


def describe_blend(task: Task, blend: BlendRecord | None) -> str:
    """Say whether predictions are those of a blend, and why; nothing where none was tried."""
    if blend is None:
        return ""
    names = " and ".join(task.title_model(name) for name in blend.members)
    if blend.difference is None or blend.encoder_loss is None or blend.blend_loss is None:
        return f"The encoder predicts alone: a blend with {names} was not tried, as {blend.reason}."
    amount = write_estimate("unit", blend.difference, sign=True)
    losses = (
        f"{blend.blend_loss:.4g} against the encoder's {blend.encoder_loss:.4g}, a difference of {amount}, "
        f"cross-fitted on {blend.rows:,} held-out rows"
    )
    if not blend.kept:
        return f"The encoder predicts alone: a blend with {names} was not kept, as {blend.reason} ({losses})."
    weights = " and ".join(f"{weight:.3g}" for weight in blend.weights.values())
    return f"Predictions are a blend of the encoder and {names} (weights {weights}), as {blend.reason} ({losses})."


def describe_embedding(found: AlternativeRecord | None) -> str:
    """Say of a run that the frozen encoder's embeddings would have been better, where that is shown."""
    if found is None or not found.is_better:
        return ""
    return (
        f"On {found.rows:,} held-out rows, a regression on the frozen encoder's embeddings has a lower loss than this "
        f"run ({found.other_loss:.4g} against {found.loss:.4g}, a difference of "
        f"{write_estimate('unit', found.difference, sign=True)}): --method embedding would have been better, or "
        "--method auto."
    )


def _describe_doubt(task: Task, constant: BaselineScores, level: float) -> str:
    """Begin a sentence with the verdict against a model that gives every row the same, unless that is beaten."""
    verdict = judge(task, constant.comparison, level)
    words = {"better": "", "inconclusive": "Not shown to be better than ", "worse": "Worse than "}[verdict]
    return f"{words}{task.describe_constant(constant.scores)}" if words else ""


def _describe_balanced_gain(task: Task, constant: BaselineScores | None, level: float) -> str:
    """Say by which metric a model beats one that gives every row the same, where by the primary one it does not."""
    if constant is None or judge(task, constant.comparison, level) == "better":
        return ""
    for name in task.balanced_metrics:
        metric, difference = task.metrics[name], constant.comparison.differences[name]
        if judge_difference(metric, difference) == "better":
            return f" By {metric.title} it is better than that ({_write_change(metric, difference)})."
    return ""


def _list_clauses(judged: Iterable[tuple[str, Verdict, str]]) -> dict[Verdict, str]:
    """Return a clause for each verdict that there is about baselines; they come as title, verdict and change."""
    found: dict[Verdict, list[str]] = {"better": [], "inconclusive": [], "worse": []}
    for title, verdict, change in judged:
        found[verdict].append(f"{title} ({change})")
    words = {"better": "better than", "inconclusive": "not shown to be better than", "worse": "worse than"}
    links = {"better": " and than ", "inconclusive": " or ", "worse": " and than "}
    return {verdict: f"{words[verdict]} {links[verdict].join(titles)}" for verdict, titles in found.items() if titles}


def _join(clauses: dict[Verdict, str], before: Verdict) -> str:
    """Join clauses to a sentence whose own verdict is `before`: with "and" where the first agrees with it."""
    if not clauses:
        return ""
    return f", {'and' if next(iter(clauses)) == before else 'but'} is {' but '.join(clauses.values())}"


def _write_change(metric: Metric, difference: Estimate) -> str:
    return metric.write_difference(difference, separator=" points " if metric.form == "percent" else " ")


def _write_amount(task: Task, difference: Estimate) -> str:
    """Write a difference whose interval leaves 0 out without signs, and whether it is more or less."""
    less = difference.value < 0
    size = Estimate(value=-difference.value, low=-difference.high, high=-difference.low) if less else difference
    amount = _write_change(task.primary_metric, size).replace("+", "")
    return f"{amount} {task.wording.less if less else task.wording.more}"
