"""The sentence that a report opens with."""

import math
from collections.abc import Iterable

from lorafit.tasks.base import Metric, Task
from lorafit.tasks.evaluation import Verdict, judge
from lorafit.tasks.records import Estimate, MetricsRecord


def describe_verdict(task: Task, metrics: MetricsRecord) -> str:
    """Say in one sentence whether training was worth it.

    Args:
        task: The task.
        metrics: Its metrics.

    Returns:
        Plain text: against the model before training, and against each baseline, as far as they were measured.
    """
    name, metric, level = task.primary, task.primary_metric, metrics.confidence_level
    rows = f"{metrics.rows:,} {metrics.split} row{'' if metrics.rows == 1 else 's'}"
    if math.isnan(metrics.after.metrics[name].value):
        return f"{metric.title} is undefined on {rows}: no label is true or predicted there, so there is no verdict."
    scored = task.wording.scored.format(value=metric.write_value(metrics.after.metrics[name].value), rows=rows)
    baselines = _list_clauses(
        (
            task.baselines.get(baseline, baseline),
            judge(task, one.comparison, level),
            _write_change(metric, one.comparison.differences[name]),
        )
        for baseline, one in metrics.baselines.items()
    )
    if metrics.comparison is None:
        found: Verdict = next(iter(baselines), "inconclusive")
        return f"{scored[0].upper()}{scored[1:]}{_join(baselines, found)}; the model before training was not measured."
    found, difference = judge(task, metrics.comparison, level), metrics.comparison.differences[name]
    opening = {
        "better": f"Better than before: {scored}, {_write_amount(task, difference)}",
        "worse": f"Worse than before: {scored}, {_write_amount(task, difference)}",
        "inconclusive": f"Not shown to be better than before: {scored}, a change of "
        f"{_write_change(metric, difference)}",
    }[found]
    return f"{opening}{_join(baselines, found)}."


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
