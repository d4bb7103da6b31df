from collections.abc import Callable
from pathlib import Path

import pytest

from lorafit.errors import ConfigError, GateBrokenError, RunError
from lorafit.experiments.diff.diff import diff
from lorafit.experiments.diff.gates import GATED, Gate, enforce_gates, judge_gates, parse_gates
from lorafit.experiments.diff.records import DiffRecord

TRUTH = ["neg", "pos"] * 10
A = [*TRUTH[:16], "pos", "neg", "pos", "neg"]
"""The last four are wrong."""
B = ["pos", *TRUTH[1:18], "pos", "neg"]
"""The first is lost, two are gained, the last two stay wrong."""


@pytest.fixture
def record(write_run: Callable[..., Path]) -> DiffRecord:
    return diff(write_run("a", TRUTH, A), write_run("b", TRUTH, B, texts_per_second=80.0))


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
    (result,) = judge_gates(parse_gates(gate, "single_label"), record)
    assert (result.gate, result.holds) == (gate, holds)
    judged = record.model_copy(update={"gates": [result]})
    if holds:
        enforce_gates(judged)
    else:
        with pytest.raises(GateBrokenError, match="1 of 1 gates broken"):
            enforce_gates(judged)


def test_every_name_has_a_value_and_all_but_ece_and_speed_an_interval(record: DiffRecord) -> None:
    results = judge_gates(parse_gates(",".join(f"{name}<=9" for name in GATED["single_label"]), "single_label"), record)
    assert [result.name for result in results if result.interval is None] == ["ece", "slowdown"]
    values = {result.name: result.value for result in results}
    assert values == {
        "accuracy": record.comparison.accuracy_difference.value,
        "macro_f1": record.macro_f1_difference.value,
        "mcc": record.mcc_difference.value,
        "log_loss": record.comparison.log_loss_difference.value,
        "ece": record.ece_difference,
        "negative_flips": 0.05,
        "churn": 0.15,
        "slowdown": 1.25,
    }


def test_each_broken_gate_is_said_and_no_other(record: DiffRecord) -> None:
    gates = parse_gates("accuracy>=0.1, churn<=0.5 ,negative_flips<=0.01", "single_label")
    judged = record.model_copy(update={"gates": judge_gates(gates, record)})
    with pytest.raises(GateBrokenError) as caught:
        enforce_gates(judged)
    first, *lines = str(caught.value).splitlines()
    assert first == "2 of 3 gates broken:"
    assert [line.split(":")[0] for line in lines] == ["  accuracy>=0.1", "  negative_flips<=0.01"]
    assert lines[0].startswith("  accuracy>=0.1: +0.05 [")
    assert caught.value.exit_code == 1


def test_no_gates_are_none_and_several_keep_their_order() -> None:
    assert parse_gates("", "single_label") == parse_gates("  ", "single_label") == ()
    assert parse_gates("churn<1,accuracy>= -0.5", "single_label") == (
        Gate("churn<1", "churn", "<", 1.0),
        Gate("accuracy>= -0.5", "accuracy", ">=", -0.5),
    )


@pytest.mark.parametrize("name", ["acc", "Accuracy", "f1", "", "rows"])
def test_unknown_names_are_refused_with_those_allowed(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot limit") as caught:
        parse_gates(f"churn<=0.1,{name}>=0", "single_label")
    assert repr(name) in str(caught.value)
    assert ", ".join(GATED["single_label"]) in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["accuracy", "accuracy=0", "accuracy==0", "accuracy=>0", "accuracy>=", "accuracy>=0,", "accuracy>= - 1", "a>=1>=0"],
)
def test_what_is_no_gate_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r"name operator number.*>=, <=, >, <.*Example: --gate"):
        parse_gates(text, "single_label")


@pytest.mark.parametrize("limit", ["x", "1%", "nan", "inf", "-inf", "0,1"])
def test_limits_that_are_no_numbers_are_refused(limit: str) -> None:
    with pytest.raises(ConfigError):
        parse_gates(f"accuracy>={limit}", "single_label")


def test_speed_that_was_not_recorded_cannot_be_judged(write_run: Callable[..., Path]) -> None:
    a, b = write_run("a", TRUTH, A), write_run("b", TRUTH, B, texts_per_second=None)
    assert diff(a, b).slowdown is None
    with pytest.raises(RunError, match=r"slowdown<=2 cannot be judged: the speed of \S+a or of \S+b"):
        diff(a, b, gate="slowdown<=2")
