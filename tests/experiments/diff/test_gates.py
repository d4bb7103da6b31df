from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from lorafit.errors import ConfigError, GateBrokenError, RunError
from lorafit.experiments.diff.diff import diff
from lorafit.experiments.diff.gates import Gate, enforce_gates, judge_gates, list_gates, parse_gates
from lorafit.experiments.diff.records import DiffRecord
from lorafit.tasks.registry import TASKS, build_task, get_task

WritePair = Callable[..., tuple[Path, Path]]
TASK = build_task("single_label", ("neg", "pos"))
TRUTH = ["neg", "pos"] * 10
A = [*TRUTH[:16], "pos", "neg", "pos", "neg"]
"""The last four are wrong."""
B = ["pos", *TRUTH[1:18], "pos", "neg"]
"""The first is broken, two are fixed, the last two stay wrong."""


@pytest.fixture
def record(write_guesses: Callable[..., Path]) -> DiffRecord:
    return diff(write_guesses("a", TRUTH, A), write_guesses("b", TRUTH, B, texts_per_second=80.0))


@pytest.mark.parametrize(
    ("gate", "holds"),
    [
        ("accuracy>=0.05", True),
        ("accuracy>0.05", False),
        ("accuracy<=0.05", True),
        ("accuracy<0.05", False),
        ("accuracy>0.0499", True),
        ("accuracy<0.0501", True),
        ("accuracy >= -2e-3", True),
        ("negative_flips<=0.05", True),
        ("negative_flips<0.05", False),
        ("churn<=0.15", True),
        ("churn<=0.1499", False),
        ("slowdown<=1.25", True),
        ("slowdown<1.25", False),
        ("log_loss<0", True),
        ("log_loss>0", False),
        ("macro_f1>0", True),
        ("mcc>0", True),
        ("ece<1", True),
    ],
)
def test_point_estimate_decides(record: DiffRecord, gate: str, holds: bool) -> None:
    (result,) = judge_gates(parse_gates(gate, TASK), record)
    assert (result.gate, result.holds) == (gate, holds)
    judged = record.model_copy(update={"gates": [result]})
    if holds:
        enforce_gates(judged)
    else:
        with pytest.raises(GateBrokenError, match="1 of 1 gates broken"):
            enforce_gates(judged)


NAMES = {
    "single_label": "accuracy, macro_f1, mcc, log_loss, ece, negative_flips, churn, slowdown",
    "multi_label": "micro_f1, macro_f1, exact_match, hamming_loss, log_loss, ece, negative_flips, churn, slowdown",
    "regression": "mae, rmse, r2, pearson, coverage, half_width, slowdown",
    "ordinal": "mae, qwk, within_one, accuracy, log_loss, ece, negative_flips, churn, slowdown",
}


@pytest.mark.parametrize("task", TASKS)
def test_names_are_those_of_the_task(task: str) -> None:
    assert ", ".join(list_gates(get_task(task))) == NAMES[task]
    built = build_task(task, ("1", "2"))
    assert {gate.name for gate in parse_gates(built.wording.gate_example, built)} <= set(list_gates(built))


def test_every_gate_is_of_what_was_measured(models: SimpleNamespace, write_pair: WritePair) -> None:
    record = diff(*write_pair(models), gate=",".join(f"{name}<=99" for name in list_gates(models.task)))
    expected = {**record.comparison.differences, **record.diff_metrics}
    found = {result.name: result for result in record.gates}
    assert found.pop("slowdown").value == 1.25
    assert {name: result.value for name, result in found.items()} == {name: one.value for name, one in expected.items()}
    without = {name for name, result in found.items() if result.interval is None}
    assert without == {"ece", "half_width"} & set(expected)
    assert all(result.interval == expected[name] for name, result in found.items() if name not in without)


def test_each_broken_gate_is_said_and_no_other(record: DiffRecord) -> None:
    gates = parse_gates("accuracy>=0.1, churn<=0.5 ,negative_flips<=0.01", TASK)
    judged = record.model_copy(update={"gates": judge_gates(gates, record)})
    with pytest.raises(GateBrokenError) as caught:
        enforce_gates(judged)
    first, *lines = str(caught.value).splitlines()
    assert first == "2 of 3 gates broken:"
    assert lines[0].startswith("  accuracy>=0.1: +0.05 ["), "a difference has a sign"
    assert lines[1].startswith("  negative_flips<=0.01: 0.05 ["), "a share has none"
    assert len(lines) == 2
    assert caught.value.exit_code == 1


def test_no_gates_are_none_and_several_keep_their_order() -> None:
    assert parse_gates("", TASK) == parse_gates("  ", TASK) == ()
    assert parse_gates("churn<1,accuracy>= -0.5", TASK) == (
        Gate("churn<1", "churn", "<", 1.0),
        Gate("accuracy>= -0.5", "accuracy", ">=", -0.5),
    )


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("single_label", "acc"),
        ("single_label", "Accuracy"),
        ("single_label", ""),
        ("single_label", "coverage"),
        ("multi_label", "accuracy"),
        ("multi_label", "mae"),
        ("regression", "churn"),
        ("regression", "micro_f1"),
        ("ordinal", "rmse"),
    ],
)
def test_unknown_names_are_refused_with_those_of_the_task(task: str, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot limit") as caught:
        parse_gates(f"slowdown<=2,{name}>=0", build_task(task, ("1", "2")))
    assert f"{name!r} (task {task}). Allowed: {NAMES[task]}. Example: --gate" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["accuracy", "accuracy=0", "accuracy==0", "accuracy=>0", "accuracy>=", "accuracy>=0,", "accuracy>= - 1", "a>=1>=0"],
)
def test_what_is_no_gate_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r"name operator number.*>=, <=, >, <.*Example: --gate"):
        parse_gates(text, TASK)


@pytest.mark.parametrize("limit", ["x", "1%", "nan", "inf", "-inf", "0,1"])
def test_limits_that_are_no_numbers_are_refused(limit: str) -> None:
    with pytest.raises(ConfigError):
        parse_gates(f"accuracy>={limit}", TASK)


def test_speed_that_was_not_recorded_cannot_be_judged(models: SimpleNamespace, write_pair: WritePair) -> None:
    a, b = write_pair(models, texts_per_second=None)
    assert diff(a, b).slowdown is None
    with pytest.raises(RunError, match=r"slowdown<=2 cannot be judged: \S+a or \S+b has no recorded speed"):
        diff(a, b, gate="slowdown<=2")
