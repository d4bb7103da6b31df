"""The one sentence that a report opens with."""

from typing import Literal

from lorafit.cheap_baselines import CHEAP_BASELINES
from lorafit.evidence import Estimate, MetricsRecord, PairedComparison

__all__ = ["describe_verdict", "judge"]


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
    rows = f"{metrics.rows:,} {metrics.split} row{'' if metrics.rows == 1 else 's'}"
    right = f"{_percent(metrics.finetuned.accuracy)} of {rows}"
    against = _compare_cheaply(metrics)
    if metrics.comparison is None:
        found = next(iter(against), "unclear")
        return f"It gets {right} right{_add(against, found)}; the model before training was not measured."
    found = judge(metrics.comparison, metrics.confidence_level)
    difference = metrics.comparison.accuracy_difference
    opening = {
        "better": f"Better than before: it gets {right} right, {_amount(difference)} more",
        "worse": f"Worse than before: it gets {right} right, {_amount(_negate(difference))} fewer",
        "unclear": f"Not shown to be better than before: it gets {right} right, a change of {_change(difference)}",
    }[found]
    return f"{opening}{_add(against, found)}."


def _compare_cheaply(metrics: MetricsRecord) -> dict[str, str]:
    """Return a clause for the cheap baselines of each verdict that there is."""
    found: dict[str, list[str]] = {"better": [], "unclear": [], "worse": []}
    for name, cheap in metrics.cheap_baselines.items():
        change = _change(cheap.comparison.accuracy_difference)
        found[judge(cheap.comparison, metrics.confidence_level)].append(f"{CHEAP_BASELINES.get(name, name)} ({change})")
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
