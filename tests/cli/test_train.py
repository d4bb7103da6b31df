"""`lorafit train` as a user sees it: a terminal, a pipe, Ctrl-C."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorafit.evidence import MetricsRecord
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import RunRecord
from lorafit.task_evidence import TaskMetricsRecord

Call = Callable[..., Any]


def test_quiet_prints_only_the_run_folder(quiet_training: "subprocess.CompletedProcess[str]") -> None:
    assert quiet_training.returncode == 0
    assert quiet_training.stderr == ""
    (line,) = quiet_training.stdout.splitlines()
    assert RunRecord.read(RunLayout(Path(line)).record).status == "complete"


def test_plain_output_tells_the_whole_story(call: Call, reviews: Path, settings: list[str], tmp_path: Path) -> None:
    answer = call("train", reviews, *settings, "--output", tmp_path / "my run", "--seed", 3)
    assert answer.code == 0, answer.err
    assert "\x1b" not in answer.out + answer.err
    for words in (
        "before",
        "after",
        "difference",
        "McNemar",
        "true label",
        "trained ",
        "adapter ",
        "head ",
        "tokens/s",
    ):
        assert words in answer.out, words
    for words in ("98 train, 10 validation, 12 test", "test: 12 rows cut", "training: 14 steps", "validation loss"):
        assert words in answer.err, words
    commands = re.findall(r"lorafit (?:predict|evaluate) .*", answer.out)
    assert [shlex.split(command)[2] for command in commands] == [str(tmp_path / "my run")] * 3
    assert "words 1-15" not in answer.out, "slices are shown where a column is named"
    assert RunRecord.read(RunLayout(tmp_path / "my run").record).seed == 3


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT to a child")
def test_ctrl_c_keeps_a_checkpoint_and_prints_the_command_to_go_on(
    reviews: Path, settings: list[str], tmp_path: Path
) -> None:
    output = tmp_path / "my run"
    words = ["train", str(reviews), *settings, "--set", "training.epochs=6", "--output", str(output)]
    child = subprocess.Popen(
        [sys.executable, "-m", "lorafit", *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stderr is not None
    said = ""
    for line in child.stderr:
        said += line
        if "validation loss" in line:
            child.send_signal(signal.SIGINT)
            break
    out, rest = child.communicate()
    said += rest
    assert child.returncode == 130, said
    assert out == ""
    assert "stopping after this step and saving" in said
    assert "Traceback" not in said
    assert RunRecord.read(RunLayout(output).record).status == "interrupted"

    command = said.strip().splitlines()[-1].strip()
    assert shlex.split(command) == ["lorafit", "train", "--resume", str(output)]
    program = f"{shlex.quote(sys.executable)} -m lorafit"
    resumed = subprocess.run(
        ["bash", "-c", f'lorafit() {{ {program} "$@"; }}; {command}'], capture_output=True, text=True, check=False
    )
    assert resumed.returncode == 0, resumed.stderr
    assert "Measured on 12 rows of " in resumed.stdout
    assert "measuring the baseline" not in resumed.stderr, "what was measured is not measured again"
    record = RunRecord.read(RunLayout(output).record)
    assert record.status == "complete"
    assert record.training is not None
    assert record.training.steps == 42 or record.training.stopped_early


def test_run_in_the_working_folder_needs_no_name(
    call: Call, reviews: Path, settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call("train", reviews, *settings, "--set", "training.learning_rate=1e38")  # fails soon, in a folder of its own
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("reviews-distilbert")
    assert os.fspath(run).endswith("-lora")


def test_slices_that_were_named_are_shown_kept_and_measured_again(
    call: Call, reviews: Path, settings: list[str], tmp_path: Path
) -> None:
    header, *rows = reviews.read_text().splitlines()
    path, run = tmp_path / "shops.csv", tmp_path / "run"
    path.write_text("\n".join([f"{header},shop", *(f"{row},shop {n % 2}" for n, row in enumerate(rows))]) + "\n")
    words = ["--set", "training.max_steps=2", "--set", "data.test_fraction=0.4", "--output", run]
    answer = call("train", path, "--slice", "shop", *settings, *words)
    assert answer.code == 0, answer.err
    assert re.search(r"shop shop 1 +\d+ +\d+\.\d % \[.*\] +[+-]\d", answer.out)
    named = {(one.column, one.value) for one in MetricsRecord.read(RunLayout(run).metrics).slices}
    assert named == {("words", "1-15"), ("shop", "shop 0"), ("shop", "shop 1")}
    assert "shop shop 1" in call("evaluate", run).out
    other = call("evaluate", run, reviews)
    assert other.code == 0, "other data need not have the run's columns"
    assert "shop" not in other.out.replace(str(run), "")


@pytest.mark.parametrize("task", ["multi_label", "regression"])
def test_slices_of_other_tasks_are_shown_and_reported(
    call: Call, reviews: Path, settings: list[str], tmp_path: Path, task: str
) -> None:
    header, *rows = reviews.read_text().splitlines()
    numbers = {"neg": 10, "pos": 20}
    path, run = tmp_path / "shops.csv", tmp_path / "run"
    lines = [f"{header},shop"]
    for place, row in enumerate(rows):
        text, _, label = row.rpartition(",")
        lines.append(f"{text},{numbers[label] if task == 'regression' else label},shop {place % 2}")
    path.write_text("\n".join(lines) + "\n")
    words = ["--set", "training.max_steps=2", "--set", "data.test_fraction=0.4", "--output", run]
    answer = call("train", path, "--task", task, "--slice", "shop", *settings, *words)
    assert answer.code == 0, answer.err
    assert re.search(r"shop shop 1 +\d+ +\d+\.\d.* \[.*\] +[+-]\d", answer.out)
    named = {(one.column, one.value) for one in TaskMetricsRecord.read(RunLayout(run).metrics).slices}
    assert named == {("words", "1-15"), ("shop", "shop 0"), ("shop", "shop 1")}
    assert "By column shop" in RunLayout(run).report.read_text(encoding="utf-8")
    assert "told apart by `words`, `shop`" in RunLayout(run).card.read_text(encoding="utf-8")
    assert "shop shop 1" in call("evaluate", run).out
