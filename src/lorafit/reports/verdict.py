"""The one sentence that a report opens with."""

from collections.abc import Iterable
from typing import Literal

from lorafit.cheap_baselines import CHEAP_BASELINES, cheap_baselines_for
from lorafit.evidence import Estimate, MetricsRecord, PairedComparison
from lorafit.task_evidence import TaskComparison, TaskMetricsRecord
from lorafit.task_figures import LEADING, judge_task, name_figure, write_figure, write_value

__all__ = ["describe_task_verdict", "describe_verdict", "judge"]


def judge(paired: PairedComparison, confidence_level: float) -> Literal["better", "worse", "unclear"]:
    """Say whether the fine-tuned model is shown to be better or worse than another on the same rows.

    Args:
        paired: The comparison.
        confidence_level: Level of its intervals, above 0 and below 1.

    Returns:
        `unclear` unless the interval of the difference leaves 0 out and McNemar's test agrees.
    """
    if paired.mcnemar_p_value < 1 - confidence_level:
        if paired.accuracy_difference.low > 0:
            return "better"
        if paired.accuracy_difference.high < 0:
            return "worse"
    return "unclear"


def describe_verdict(metrics: MetricsRecord) -> str:
    """Say in one sentence whether training was worth it.

    Args:
        metrics: The evidence.

    Returns:
        Plain text: against the model before, and against each cheap baseline, as far as they were measured.
    """
    right = f"{_percent(metrics.finetuned.accuracy)} of {_count_rows(metrics)}"
    level = metrics.confidence_level
    against = _list_clauses(
        (CHEAP_BASELINES.get(name, name), judge(cheap.comparison, level), _change(cheap.comparison.accuracy_difference))
        for name, cheap in metrics.cheap_baselines.items()
    )
    if metrics.comparison is None:
        found = next(iter(against), "unclear")
        return f"It gets {right} right{_add(against, found)}; the model before training was not measured."
    found = judge(metrics.comparison, level)
    difference = metrics.comparison.accuracy_difference
    opening = {
        "better": f"Better than before: it gets {right} right, {_amount(difference)} more",
        "worse": f"Worse than before: it gets {right} right, {_amount(_negate(difference))} fewer",
        "unclear": f"Not shown to be better than before: it gets {right} right, a change of {_change(difference)}",
    }[found]
    return f"{opening}{_add(against, found)}."


def describe_task_verdict(metrics: TaskMetricsRecord) -> str:
    """Say in one sentence whether training was worth it, where a text has several labels or a number.

    Args:
        metrics: The evidence.

    Returns:
        Plain text: against the model before, and against each cheap baseline, as far as they were measured.
    """
    leading, rows, level = LEADING[metrics.task], _count_rows(metrics), metrics.confidence_level
    value = metrics.finetuned.figures[leading]
    said = f"it reaches an {name_figure(leading)} of {_percent(value)} on {rows}"
    if metrics.task == "regression":
        said = f"on {rows} it is off by {write_value(value.value)} on average"
    names = cheap_baselines_for(metrics.task)
    against = _list_clauses(
        (
            names.get(name, name),
            judge_task(cheap.comparison, metrics.task, level),
            _describe_change(cheap.comparison, metrics),
        )
        for name, cheap in metrics.cheap_baselines.items()
    )
    if metrics.comparison is None:
        found = next(iter(against), "unclear")
        return f"{said[0].upper()}{said[1:]}{_add(against, found)}; the model before training was not measured."
    found = judge_task(metrics.comparison, metrics.task, level)
    opening = {
        "better": f"Better than before: {said}, {_describe_amount(metrics.comparison, metrics)}",
        "worse": f"Worse than before: {said}, {_describe_amount(metrics.comparison, metrics)}",
        "unclear": f"Not shown to be better than before: {said}, a change of "
        f"{_describe_change(metrics.comparison, metrics)}",
    }[found]
    return f"{opening}{_add(against, found)}."


def _describe_change(paired: TaskComparison, metrics: TaskMetricsRecord) -> str:
    leading = LEADING[metrics.task]
    difference = paired.differences[leading]
    return write_figure(leading, difference, sign=True) if metrics.task == "regression" else _change(difference)


def _describe_amount(paired: TaskComparison, metrics: TaskMetricsRecord) -> str:
    """Write how much more or less of the leading figure there is."""
    leading = LEADING[metrics.task]
    difference = paired.differences[leading]
    size = _negate(difference) if difference.value < 0 else difference
    amount = write_figure(leading, size) if metrics.task == "regression" else _amount(size)
    return f"{amount} {'less' if difference.value < 0 else 'more'}"


def _count_rows(metrics: MetricsRecord | TaskMetricsRecord) -> str:
    return f"{metrics.rows:,} {metrics.split} row{'' if metrics.rows == 1 else 's'}"


def _list_clauses(judged: Iterable[tuple[str, Literal["better", "worse", "unclear"], str]]) -> dict[str, str]:
    """Return a clause for the cheap baselines of each verdict that there is: their names, verdicts and changes."""
    found: dict[str, list[str]] = {"better": [], "unclear": [], "worse": []}
    for name, verdict, change in judged:
        found[verdict].append(f"{name} ({change})")
    words = {"better": "better than", "unclear": "not shown to be better than", "worse": "worse than"}
    links = {"better": " and than ", "unclear": " or ", "worse": " and than "}
    return {kind: f"{words[kind]} {links[kind].join(names)}" for kind, names in found.items() if names}


def _add(clauses: dict[str, str], before: str) -> str:
    """Join clauses to a sentence whose own verdict is `before`: with "and" where the first agrees with it."""
    if not clauses:
        return ""
    return f", {'and' if next(iter(clauses)) == before else 'but'} is {' but '.join(clauses.values())}"


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} %"


def _change(difference: Estimate) -> str:
    value, low, high = (100 * number for number in (difference.value, difference.low, difference.high))
    return f"{value:+.1f} points [{low:+.1f}, {high:+.1f}]"


def _amount(difference: Estimate) -> str:
    value, low, high = (100 * number for number in (difference.value, difference.low, difference.high))
    return f"{value:.1f} points [{low:.1f}, {high:.1f}]"


def _negate(difference: Estimate) -> Estimate:
    return Estimate(value=-difference.value, low=-difference.high, high=-difference.low)
