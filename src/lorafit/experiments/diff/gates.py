"""Gates: limits that a difference must keep, for other people's continuous integration."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import ge, gt, le, lt
from typing import Any, Final, Literal, get_args

from lorafit.errors import ConfigError, GateBrokenError, RunError
from lorafit.evidence import Estimate
from lorafit.experiments.diff.records import Difference, GateResult, TaskDiffRecord
from lorafit.labels import Task

__all__ = ["GATED", "Gate", "enforce_gates", "judge_gates", "parse_gates"]

Operator = Literal[">=", "<=", ">", "<"]

_Measured = Callable[[Any], Estimate | float | None]
"""Takes a value from a record, that of its task; None where it was not measured."""


def _take_figure(name: str) -> _Measured:
    def take(record: TaskDiffRecord) -> Estimate:
        return record.comparison.differences[name]

    return take


_OF_LABELS: Final[dict[str, _Measured]] = {
    "ece": lambda record: record.ece_difference,
    "negative_flips": lambda record: record.negative_flips,
    "churn": lambda record: record.churn,
    "slowdown": lambda record: record.slowdown,
}

GATED: Final[dict[Task, dict[str, _Measured]]] = {
    "single_label": {
        "accuracy": lambda record: record.comparison.accuracy_difference,
        "macro_f1": lambda record: record.macro_f1_difference,
        "mcc": lambda record: record.mcc_difference,
        "log_loss": lambda record: record.comparison.log_loss_difference,
        **_OF_LABELS,
    },
    "multi_label": {
        **{name: _take_figure(name) for name in ("micro_f1", "macro_f1", "exact_match", "hamming_loss", "log_loss")},
        **_OF_LABELS,
    },
    "regression": {
        **{name: _take_figure(name) for name in ("mae", "rmse", "r2", "pearson")},
        "coverage": lambda record: record.coverage_difference,
        "half_width": lambda record: record.half_width_difference,
        "slowdown": lambda record: record.slowdown,
    },
}
"""What a gate can limit, by task: differences B minus A, shares of all rows, and how many times as long B takes."""

_OPERATORS: Final[dict[str, Callable[[float, float], bool]]] = {">=": ge, "<=": le, ">": gt, "<": lt}
_FORM = re.compile(r"(?P<name>[^<>=\s]*)\s*(?P<operator>>=|<=|>|<)\s*(?P<limit>[^<>=\s]+)")
_EXAMPLES: Final[dict[Task, str]] = {
    "single_label": "accuracy>=-0.002,negative_flips<=0.01",
    "multi_label": "micro_f1>=-0.002,negative_flips<=0.01",
    "regression": "mae<=0.02,slowdown<=1.2",
}
"""Gates as one may give them, by task."""


@dataclass(frozen=True)
class Gate:
    """A limit.

    Attributes:
        text: As it was given.
        name: What is limited, a key of `GATED` for its task.
        operator: How.
        limit: By what.
    """

    text: str
    name: str
    operator: Operator
    limit: float


def parse_gates(text: str, task: Task) -> tuple[Gate, ...]:
    """Read gates.

    Args:
        text: Any number of `name operator number`, separated by commas, names and operators as in `GATED` and
            `Operator`; empty for none.
        task: What a text gets, which decides what can be limited.

    Returns:
        The gates in their order.

    Raises:
        ConfigError: One is of another form, or names what cannot be limited in this task.
    """
    return tuple(_parse(part.strip(), task) for part in text.split(",")) if text.strip() else ()


def judge_gates(gates: Sequence[Gate], record: Difference) -> list[GateResult]:
    """Compare what was measured with its limits. The value decides; its interval is for the reader.

    Args:
        gates: The gates.
        record: What was measured.

    Returns:
        One result a gate, in their order.

    Raises:
        RunError: What is limited was not measured: speed, or intervals around numbers, of one of the two.
    """
    return [_judge(gate, record) for gate in gates]


def enforce_gates(record: Difference) -> None:
    """Let a diff pass all of whose gates hold.

    Args:
        record: With its gates judged.

    Raises:
        GateBrokenError: Some do not hold; the message says each.
    """
    broken = [result for result in record.gates if not result.holds]
    if broken:
        listed = "".join(f"\n  {result.gate}: {describe_value(result)}" for result in broken)
        raise GateBrokenError(f"{len(broken)} of {len(record.gates)} gates broken:{listed}")


def describe_value(result: GateResult) -> str:
    """Return what was measured, with its interval where it has one."""
    form = "+.5g" if result.name not in {"negative_flips", "churn", "slowdown"} else ".5g"
    interval = "" if result.interval is None else f" [{result.interval.low:{form}}, {result.interval.high:{form}}]"
    return f"{result.value:{form}}{interval}"


def _parse(part: str, task: Task) -> Gate:
    example = f'Example: --gate "{_EXAMPLES[task]}"'
    match = _FORM.fullmatch(part)
    if match is None:
        raise ConfigError(
            f"--gate takes name operator number, separated by commas, got {part!r}. Operators: "
            f"{', '.join(get_args(Operator))}. {example}"
        )
    name, operator = match["name"], match["operator"]
    if name not in GATED[task]:
        raise ConfigError(f"--gate cannot limit {name!r} (task {task}). Allowed: {', '.join(GATED[task])}. {example}")
    try:
        limit = float(match["limit"])
    except ValueError:
        limit = math.nan
    if not math.isfinite(limit):
        raise ConfigError(f"--gate {part}: the limit must be a number, got {match['limit']!r}. {example}")
    return Gate(part, name, operator, limit)  # type: ignore[arg-type]  # the form allows no other operator


def _judge(gate: Gate, record: Difference) -> GateResult:
    measured = GATED[record.task][gate.name](record)
    if measured is None:
        sides = f"{record.a.run} or of {record.b.run}"
        fault = f"the speed of {sides} is not recorded"
        if gate.name != "slowdown":
            fault = f"the numbers of {sides} have no intervals: no rows calibrated them"
        raise RunError(f"The gate {gate.text} cannot be judged: {fault}.")
    interval = measured if isinstance(measured, Estimate) else None
    value = measured.value if isinstance(measured, Estimate) else measured
    return GateResult(
        gate=gate.text,
        name=gate.name,
        operator=gate.operator,
        limit=gate.limit,
        value=value,
        interval=interval,
        holds=_OPERATORS[gate.operator](value, gate.limit),
    )
