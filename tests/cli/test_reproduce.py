import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from lorafit.cli import app
from lorafit.cli.render.reproduction import show_reproduction
from lorafit.config import load_config, override_config
from lorafit.experiments.reproduce import Change, RepeatedMetric, ReproductionRecord
from lorafit.runs.folder import RunLayout
from lorafit.tasks.registry import TASKS, get_task

EditRecord = Callable[..., None]
SignRun = Callable[[Path], None]
Call = Callable[..., Any]


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> RunLayout:
    """A copy of the run, to be changed."""
    return RunLayout(Path(shutil.copytree(trained, tmp_path / "run")))


def test_a_run_is_repeated_and_found_to_agree(call: Call, trained: Path, tmp_path: Path) -> None:
    answer = call("reproduce", trained, "--output", tmp_path / "again")
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    assert lines[0].startswith("Measured on the same 12 test rows")
    assert sum(line.endswith("agrees") for line in map(str.strip, lines)) == 2
    assert "Every test probability is the same to the last digit." in lines
    assert f"run folder  {tmp_path / 'again'}" in lines
    assert lines[-1] == "Reproduced."
    assert "changed since" not in answer.out


def test_json_is_the_record_and_other_numbers_end_with_1(
    call: Call,
    copy: RunLayout,
    trained: Path,
    edit_record: EditRecord,
    sign_run: SignRun,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loss = json.loads(copy.metrics.read_text())["after"]["metrics"]["log_loss"]["value"]
    edit_record(copy.metrics, lambda content: content["after"]["metrics"]["log_loss"].update(value=loss + 0.002))
    sign_run(copy.root)
    monkeypatch.setattr("lorafit.experiments.reproduce.train", lambda *_, **__: SimpleNamespace(path=trained))
    words = ["--tolerance", "1", "--log-loss-tolerance", "0.001", "--json", "--quiet"]
    answer = call("reproduce", copy.root, *words)
    record = ReproductionRecord.model_validate(json.loads(answer.out))
    assert answer.code == 1
    assert {metric.name: (metric.tolerance, metric.agrees) for metric in record.metrics} == {
        "accuracy": (1.0, True),
        "log_loss": (0.001, False),
    }
    assert answer.err.startswith(f"{copy.root} is not reproduced:\n  log_loss: ")


def test_an_altered_config_ends_with_2_and_trains_nothing(call: Call, copy: RunLayout, tmp_path: Path) -> None:
    copy.config.write_text(override_config(load_config(copy.config), {"training.seed": 5}).to_yaml())
    answer = call("reproduce", copy.root, "--output", tmp_path / "again", "--quiet")
    assert (answer.code, answer.out) == (2, "")
    assert "config.yaml was altered after the run wrote it" in answer.err
    assert "--accept-altered" in answer.err
    assert not (tmp_path / "again").exists()


def test_what_cannot_be_used_ends_with_2(call: Call, trained: Path, tmp_path: Path) -> None:
    assert "run.json is missing" in call("reproduce", tmp_path).err
    answer = call("reproduce", trained, "--tolerance", "-1")
    assert answer.code == 2
    assert "--tolerance" in answer.err
    answer = call("reproduce", trained, "--r2-tolerance", "0.1")
    assert answer.code == 2
    assert "accuracy (--tolerance) and log_loss (--log-loss-tolerance)" in answer.err


@pytest.mark.parametrize("task", TASKS)
def test_every_tolerance_of_a_task_has_an_option(call: Call, task: str) -> None:
    call("--version")  # the commands join the app when it is called
    command = typer.main.get_command(app).commands["reproduce"]  # type: ignore[attr-defined]
    options = {name for param in command.params for name in param.opts}
    first, *others = get_task(task).reproduction_tolerances
    assert first == next(iter(get_task(task).metrics)), "that of --tolerance"
    assert {f"--{name.replace('_', '-')}-tolerance" for name in others} <= options


@pytest.mark.parametrize(
    ("task", "difference"),
    [
        ("single_label", "Largest difference of a test probability: 0.2; 3 of 10 rows get another label."),
        ("multi_label", "Largest difference of a test probability: 0.2; 3 of 10 rows get other labels."),
        ("regression", "Largest difference of a predicted number: 0.2."),
        ("ordinal", "Largest difference of a test probability: 0.2; 3 of 10 rows get another score."),
    ],
)
def test_differences_are_said_in_the_words_of_the_task(
    capsys: pytest.CaptureFixture[str], task: str, difference: str
) -> None:
    kind = get_task(task)
    first, second = kind.reproduction_tolerances
    show_reproduction(
        ReproductionRecord(
            task=task,
            run="runs/a",
            repetition="runs/b",
            agrees=False,
            identical=False,
            rows=10,
            metrics=[
                RepeatedMetric(name=first, then=61234.5, now=61235.75, tolerance=0.5, agrees=False),
                RepeatedMetric(name=second, then=0.25, now=0.25, tolerance=0.01, agrees=True),
            ],
            largest_difference=0.2,
            rows_changed=None if task == "regression" else 3,
            changes=[Change(name="torch", then="1.0", now="2.0")],
        )
    )
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert f"{kind.metrics[first].title} 61234.5 61235.8 +1.25 0.5 DIFFERS" in lines
    assert f"{kind.metrics[second].title} 0.25 0.25 +0 0.01 agrees" in lines
    assert difference in lines
    assert "changed since: torch 1.0 -> 2.0" in lines
    assert "Reproduced." not in lines
