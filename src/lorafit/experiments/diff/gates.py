"""Gates: limits that a difference must keep, for continuous integration."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from lorafit.errors import ConfigError, GateBrokenError, RunError
from lorafit.experiments.diff.records import DiffRecord, GateResult
from lorafit.tasks.base import Task
from lorafit.tasks.records import Estimate

Operator = Literal[">=", "<=", ">", "<"]

_ROUNDING: Final = 1e-12
"""The size of a rounding error of a difference, which must not decide."""

_OPERATORS: Final[dict[str, Callable[[float], bool]]] = {
    ">=": lambda excess: excess >= -_ROUNDING,
    "<=": lambda excess: excess <= _ROUNDING,
    ">": lambda excess: excess > _ROUNDING,
    "<": lambda excess: excess < -_ROUNDING,
}
"""What holds by how far a value is above its limit."""

_FORM = re.compile(r"(?P<name>[^<>=\s]*)\s*(?P<operator>>=|<=|>|<)\s*(?P<limit>[^<>=\s]+)")
_SLOWDOWN: Final = "slowdown"


@dataclass(frozen=True)
class Gate:
    """A limit.

    Attributes:
        text: As it was given.
        name: What is limited, one of `list_gates`.
        operator: How.
        limit: By what.
    """

    text: str
    name: str
    operator: Operator
    limit: float


def list_gates(task: Task | type[Task]) -> tuple[str, ...]:
    """Return the names of what gates can limit.

    They are differences B minus A of the task's metrics, its `diff_metrics`, which are differences, too, or shares of
    all rows, and `slowdown`, how many times as long B takes for a text as A.
    """
    return (*task.metrics, *task.diff_metrics, _SLOWDOWN)


def parse_gates(text: str, task: Task) -> tuple[Gate, ...]:
    """Read gates.

    Args:
        text: Any number of `name operator number`, separated by commas, names as in `list_gates`, operators as in
            `Operator`; empty for none.
        task: The task, which decides what can be limited.

    Returns:
        The gates in their order.

    Raises:
        ConfigError: One is of another form, or names what cannot be limited in this task.
    """
    return tuple(_parse(part.strip(), task) for part in text.split(",")) if text.strip() else ()


def judge_gates(gates: Sequence[Gate], record: DiffRecord) -> list[GateResult]:
    """Compare what was measured with its limits. The value decides; its interval is for the reader.

    Args:
        gates: The gates.
        record: What was measured.

    Returns:
        One result a gate, in their order.

    Raises:
        RunError: What is limited was not measured: one of the two has no speed, or no calibration.
    """
    return [_judge(gate, record) for gate in gates]


def enforce_gates(record: DiffRecord) -> None:
    """Let a diff pass all of whose gates hold.

    Args:
        record: With its gates judged.

    Raises:
        GateBrokenError: Some do not hold; the message says each.
    """
    broken = [result for result in record.gates if not result.holds]
    if broken:
        listed = "".join(f"\n  {result.gate}: {describe_value(result, record)}" for result in broken)
        raise GateBrokenError(f"{len(broken)} of {len(record.gates)} gates broken:{listed}")


def describe_value(result: GateResult, record: DiffRecord) -> str:
    """Return what a gate measured, signed where it is a difference, with its interval where it has one."""
    form = "+.5g" if result.name in record.a.scores.metrics or result.name in record.a.metrics else ".5g"
    interval = "" if result.interval is None else f" [{result.interval.low:{form}}, {result.interval.high:{form}}]"
    return f"{result.value:{form}}{interval}"


def _parse(part: str, task: Task) -> Gate:
    example = f'Example: --gate "{task.wording.gate_example}"'
    match = _FORM.fullmatch(part)
    if match is None:
        raise ConfigError(
            f"--gate takes name operator number, separated by commas, got {part!r}. Operators: "
            f"{', '.join(get_args(Operator))}. {example}"
        )
    name, operator = match["name"], match["operator"]
    if name not in list_gates(task):
        raise ConfigError(
            f"--gate cannot limit {name!r} (task {task.name}). Allowed: {', '.join(list_gates(task))}. {example}"
        )
    try:
        limit = float(match["limit"])
    except ValueError:
        limit = math.nan
    if not math.isfinite(limit):
        raise ConfigError(f"--gate {part}: the limit must be a number, got {match['limit']!r}. {example}")
    return Gate(part, name, operator, limit)  # type: ignore[arg-type]  # the form allows no other operator


def _judge(gate: Gate, record: DiffRecord) -> GateResult:
    measured = _find_measured(gate.name, record)
    if measured is None:
        sides = f"{record.a.run} or {record.b.run}"
        lack = f"{sides} has no recorded speed"
        if gate.name != _SLOWDOWN:
            lack = f"it is measured of calibrated models, and {sides} has no calibration"
        raise RunError(f"The gate {gate.text} cannot be judged: {lack}.")
    return GateResult(
        gate=gate.text,
        name=gate.name,
        operator=gate.operator,
        limit=gate.limit,
        value=measured.value,
        interval=None if math.isnan(measured.low) else measured,
        holds=_OPERATORS[gate.operator](measured.value - gate.limit),
    )


def _find_measured(name: str, record: DiffRecord) -> Estimate | None:
    if name == _SLOWDOWN:
        slowdown = record.slowdown
        return None if slowdown is None else Estimate(value=slowdown, low=math.nan, high=math.nan)
    return {**record.comparison.differences, **record.diff_metrics}.get(name)
