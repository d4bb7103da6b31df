"""Plans for an IMDb-like data set on made-up costs."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lorafit.config import Config
from lorafit.config import load_config as load_bare_config
from lorafit.errors import ConfigError
from lorafit.system import hardware
from lorafit.training.planning.budget import Plan, needs_preparation, plan_run
from lorafit.training.planning.costs import CostModel, Costs
from lorafit.training.planning.forecast import Workload, forecast_run
from lorafit.training.planning.schedule import complete_schedule


def load_config(**given: Any) -> Config:
    """Settings as they are once the rows are known."""
    return complete_schedule(load_bare_config(**given), 9000)


SLOW, FAST = CostModel(0.01, 6e-5, 1e-8), CostModel(0.002, 2e-5, 5e-9)


def build_workload(*, longest: int = 512, layers: int = 6, frozen: int = 0, test: int = 500) -> Workload:
    rng = np.random.default_rng(0)
    sizes = {"train": 9000, "validation": 1000, "test": test}
    lengths = {
        name: np.minimum(rng.lognormal(5.4, 0.6, size).astype(np.int64) + 3, longest) for name, size in sizes.items()
    }
    return Workload(lengths, Costs(SLOW, FAST, layers, frozen), width=384, precision="bf16")


WORKLOAD = build_workload()


def plan(budget: str | None, workload: Workload = WORKLOAD, *, preparation: float = 0.0, **changes: Any) -> Plan:
    flags = {name.replace("__", "."): value for name, value in changes.items()}
    config = load_config(flags={"model.max_length": 512, "training.budget": budget, **flags})
    return plan_run(config, workload, preparation=preparation)


def seconds_of(plan: Plan) -> float:
    return sum(plan.record.seconds.values())


def test_without_a_budget_settings_stay_and_the_forecast_is_told() -> None:
    answer = plan(None)
    assert answer.config == load_config(flags={"model.max_length": 512})
    assert answer.record.budget_seconds is None
    assert answer.record.given_up == []
    stages = ["save check", "before training", "training", "saving", "baselines", "evaluation", "report", "graph"]
    assert list(answer.record.seconds) == stages
    assert answer.record.peak_memory_bytes > 0
    (line,) = answer.notes
    assert re.fullmatch(
        r"forecast: about [\d.]+ min: save check 6 s, before training \d+ s, training [\d.]+ min, saving 6 s, "
        r"baselines [\d.]+ s, evaluation \d+ s, report \d+ s, graph \d+ s; "
        r"at least \d+\.\d GB of memory",
        line,
    )


def test_budget_that_suffices_changes_nothing() -> None:
    answer = plan("9h")
    assert answer.config == plan(None).config
    assert (answer.record.budget_seconds, answer.record.given_up) == (9 * 3600, [])
    assert len(answer.notes) == 1


def test_smaller_budgets_go_down_the_ladder_and_are_kept() -> None:
    taken, rows = [], []
    for share in (1.2, 0.9, 0.7, 0.5, 0.4, 0.3, 0.2, 0.15, 0.12):
        seconds = share * seconds_of(plan(None))
        answer = plan(f"{seconds:.0f}s")
        assert seconds_of(answer) <= seconds
        taken.append(seconds_of(answer))
        rows.append(answer.config.data.max_rows or 9000)
        if share < 1:
            assert answer.notes[1] == f"to fit {seconds:.0f}s: {', '.join(answer.record.given_up)}"
    assert taken == sorted(taken, reverse=True)
    assert rows == sorted(rows, reverse=True)
    assert rows[0] == 9000 > rows[-1]


def test_of_many_epochs_a_half_and_then_a_quarter_are_given_up() -> None:
    workload, changes = build_workload(longest=100), {"training__epochs": 40}
    whole = seconds_of(plan(None, workload, **changes))
    shares = (1.2, 0.9, 0.5, 0.4, 0.3, 0.25, 0.2)
    taken = [plan(f"{share * whole:.0f}s", workload, **changes).config.training.epochs for share in shares]
    assert list(dict.fromkeys(taken)) == [40, 20, 10]


def test_what_is_given_up_is_said() -> None:
    whole = seconds_of(plan(None))
    first = plan(f"{0.95 * whole:.0f}s")
    assert first.config.model.max_length == 256
    assert first.record.given_up == ["256 tokens instead of 512"]
    last = plan(f"{0.12 * whole:.0f}s")
    assert last.config.method.layers == "top3"
    assert re.fullmatch(
        r"[\d,]+ training rows instead of 9,000; 1 epoch instead of 2; the top 3 layers instead of all; "
        r"128 tokens instead of 512",
        "; ".join(last.record.given_up),
    )


def test_settings_below_a_rung_stay_and_are_not_said() -> None:
    workload = build_workload(longest=200)
    changes = {"model__max_length": 200, "training__epochs": 1, "method__layers": "top2"}
    frozen = Workload(workload.lengths, Costs(SLOW, FAST, 6, 4), 384, "bf16")
    answer = plan(f"{0.8 * seconds_of(plan(None, frozen, **changes)):.0f}s", frozen, **changes)
    assert answer.record.given_up == ["128 tokens instead of 200"]
    assert (answer.config.training.epochs, answer.config.method.layers) == (1, "top2")


def test_tokens_that_no_text_has_are_not_given_up() -> None:
    workload = build_workload(longest=100)
    answer = plan(f"{0.6 * seconds_of(plan(None, workload)):.0f}s", workload)
    assert answer.config.model.max_length == 512
    assert answer.record.given_up


def test_layers_are_kept_where_they_are_not_known_one_by_one() -> None:
    workload = build_workload(layers=0)
    answer = plan(f"{0.2 * seconds_of(plan(None, workload)):.0f}s", workload)
    assert answer.config.method.layers == "all"


def test_steps_asked_for_are_cut_instead_of_rows() -> None:
    answer = plan(f"{0.2 * seconds_of(plan(None, training__max_steps=900)):.0f}s", training__max_steps=900)
    assert answer.config.training.max_steps is not None
    assert answer.config.training.max_steps < 900
    assert answer.config.data.max_rows is None
    assert any(phrase.endswith("steps instead of 900") for phrase in answer.record.given_up)


def test_reading_everything_again_counts() -> None:
    budget = 0.95 * seconds_of(plan(None))
    quick, slow = plan(f"{budget:.0f}s"), plan(f"{budget:.0f}s", preparation=0.5 * budget)
    assert needs_preparation(load_config(overrides=["model.max_length=512"]), quick.config)
    assert seconds_of(slow) < seconds_of(quick)


def test_other_epochs_need_no_preparation_and_other_tokens_do() -> None:
    epochs, tokens = load_config(overrides=["training.epochs=1"]), load_config(overrides=["model.max_length=64"])
    assert not needs_preparation(load_config(), epochs)
    assert needs_preparation(load_config(), tokens)


def test_budget_too_small_is_refused_with_what_would_fit() -> None:
    with pytest.raises(
        ConfigError, match=r"training\.budget: 8 s is too short\. The smallest plan needs about"
    ) as caught:
        plan("8s")
    advice = re.search(r"give --budget (\w+)\.", str(caught.value))
    assert advice
    assert seconds_of(plan(advice[1])) <= 120


def test_test_rows_that_eat_the_budget_are_named() -> None:
    workload = build_workload(test=100_000)
    whole = seconds_of(plan(None, workload))
    with pytest.raises(ConfigError, match=r"Measuring the test rows takes .* evaluation\.before=false halves that"):
        plan("60s", workload)
    answer = plan(f"{0.95 * whole:.0f}s", workload)
    assert answer.notes[-1].startswith("measuring the test rows takes ")


def test_memory_that_may_not_suffice_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "memory_bytes", lambda: 10**6)
    assert "--set training.batch_tokens=2048 needs less" in plan(None).notes[-1]


def test_forecast_counts_epochs_steps_and_evaluations() -> None:
    one, two = (forecast_run(load_config(overrides=[f"training.epochs={epochs}"]), WORKLOAD) for epochs in (1, 2))
    assert two["training"] == pytest.approx(2 * one["training"])
    assert one["before training"] < one["evaluation"], "intervals are computed after it"
    without = forecast_run(load_config(overrides=["evaluation.before=false"]), WORKLOAD)
    assert "before training" not in without
    once = forecast_run(load_config(overrides=["training.evaluations_per_epoch=1", "training.epochs=1"]), WORKLOAD)
    assert once["training"] < one["training"]


def test_forecast_reckons_with_the_prefix_cache() -> None:
    def training(*overrides: str) -> float:
        settings = ["training.epochs=4", "training.evaluations_per_epoch=1", *overrides]
        return forecast_run(load_config(overrides=settings), WORKLOAD)["training"]

    kept, computed = training("method.layers=top3"), training("method.layers=top3", "training.prefix_cache=never")
    assert kept < computed < training()
    too_large = training("method.layers=top3", "training.prefix_cache_gb=0.001")
    assert too_large == computed


def test_shorter_windows_are_more_and_shorter_cuts_are_not() -> None:
    def count(length: int, policy: str, stride: int | None = None) -> float:
        changes = {"model.max_length": length, "model.truncation": policy, "model.window_stride": stride}
        flags = {**changes, "evaluation.baselines": False, "evaluation.report": False}
        return forecast_run(load_config(flags=flags), workload)["training"]

    workload = replace(WORKLOAD, lengths={name: np.full(64, 512) for name in WORKLOAD.lengths}, windows=2.0)
    assert count(512, "windows") == count(512, "head")
    assert count(256, "head") < 0.6 * count(512, "head")
    assert count(256, "windows") > 1.6 * count(256, "head")
    assert count(256, "windows", 100) == count(256, "head")


def test_pairs_are_of_shorter_texts() -> None:
    def training(length: int, policy: str = "head") -> float:
        workload = replace(WORKLOAD, lengths={name: np.full(64, length) for name in WORKLOAD.lengths})
        flags = {"method.name": "setfit", "model.max_length": 512, "model.truncation": policy}
        return forecast_run(load_config(flags={**flags, "training.batch_size": 32}), workload)["training"]

    assert training(512) < 0.75 * training(512, "windows")
    assert training(128) == training(128, "windows")


def test_a_beginning_with_short_texts_saves_its_share() -> None:
    def training(warmup: int, *overrides: str) -> float:
        flags = ["model.max_length=512", "training.batch_size=8", f"training.length_warmup={warmup}", *overrides]
        return forecast_run(load_config(overrides=flags), workload)["training"]

    workload = replace(WORKLOAD, lengths={name: np.full(64, 512) for name in WORKLOAD.lengths})
    whole, short = training(0), training(0, "model.max_length=128")
    assert short < training(128) < 0.9 * whole
    assert training(512) == whole
    assert training(128, "method.layers=top3") < training(0, "method.layers=top3")


def test_rows_are_texts_and_not_windows() -> None:
    workload = replace(WORKLOAD, windows=2.5)
    rows = workload.count("train")
    assert rows == round(len(WORKLOAD.lengths["train"]) / 2.5)
    answer = plan("60s", workload, evaluation__before=False)
    assert any(f"training rows instead of {rows:,}" in phrase for phrase in answer.record.given_up)
    half = load_config(flags={"data.max_rows": rows // 2})
    whole = forecast_run(load_config(), workload)["training"]
    assert 0.4 * whole < forecast_run(half, workload)["training"] < 0.6 * whole
