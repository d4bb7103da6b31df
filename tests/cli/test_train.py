"""`lorafit train` as a user sees it: with and without words, on every task, with Ctrl-C."""

import json
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

from lorafit.runs.folder import RunLayout
from lorafit.runs.records import RunRecord
from lorafit.tasks.records import MetricsRecord
from lorafit.tasks.registry import TASKS

Call = Callable[..., Any]


def test_quiet_prints_only_the_run_folder(quiet_training: Any) -> None:  # noqa: ANN401 - a conftest's class
    assert (quiet_training.code, quiet_training.err) == (0, "")
    (line,) = quiet_training.out.splitlines()
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


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT to a child")
def test_ctrl_c_keeps_a_checkpoint_and_prints_the_command_to_go_on(
    call: Call, reviews: Path, settings: list[str], tmp_path: Path
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
    assert "before training" in said
    assert "stopping after this step and saving" in said
    assert "Traceback" not in said
    assert RunRecord.read(RunLayout(output).record).status == "interrupted"

    command = said.strip().splitlines()[-1].strip()
    assert shlex.split(command) == ["lorafit", "train", "--resume", str(output)]
    resumed = call(*shlex.split(command)[1:])
    assert resumed.code == 0, resumed.err
    assert "Measured on 12 rows of " in resumed.out
    assert "before" in resumed.out
    assert "before training" not in resumed.err, "what was measured is not measured again"
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


LABELS: dict[str, Callable[[str, int], object]] = {
    "single_label": lambda label, _: label,
    "multi_label": lambda label, row: [label, *(["odd"] if row % 2 else [])],
    "regression": lambda label, row: {"neg": 10.5, "pos": 20.5}[label] + row % 3,
    "ordinal": lambda label, row: {"neg": 1, "pos": 4}[label] + row % 2,
}
"""The label of a row with one of two, by task."""


@pytest.mark.parametrize(
    "task", [pytest.param(task, marks=pytest.mark.slow if task != "multi_label" else ()) for task in TASKS]
)
def test_every_task_is_trained_measured_again_and_applied_with_a_home_folder_in_quotes(
    call: Call, reviews: Path, settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    _, *rows = reviews.read_text().splitlines()
    with (tmp_path / "shops.jsonl").open("w") as file:
        for place, row in enumerate(rows):
            text, _, label = row.rpartition(",")
            shown = {"text": text.strip('"'), "label": LABELS[task](label, place), "shop": f"shop {place % 2}"}
            file.write(f"{json.dumps(shown)}\n")
    (tmp_path / "config.yaml").write_text("training: {max_steps: 2}\ndata: {test_fraction: 0.4}\n")
    words = ["--config", "~/config.yaml", "--output", "~/run", "--set", "evaluation.baselines=false"]
    answer = call("train", "~/shops.jsonl", "--task", task, "--slice", "shop", *settings, *words)
    assert answer.code == 0, answer.err
    assert "Compared with before: " in answer.out
    assert re.search(r"shop shop 1 +\d+ +\d+\.\d.* \[.*\] +[+-]\d", answer.out)
    layout = RunLayout(tmp_path / "run")
    named = {(one.column, one.value) for one in MetricsRecord.read(layout.metrics).slices}
    assert named == {("words", "1-15"), ("shop", "shop 0"), ("shop", "shop 1")}
    assert "`words`, `shop` (" in layout.card.read_text(encoding="utf-8")
    assert layout.report.is_file()

    again = call("evaluate", "~/run", "--json", "--quiet")
    assert (again.code, again.err) == (0, "")
    measured, recorded = MetricsRecord.model_validate(json.loads(again.out)), MetricsRecord.read(layout.metrics)
    values = [{name: one.value for name, one in record.after.metrics.items()} for record in (measured, recorded)]
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    predicted = call("predict", "~/run", "--file", "~/shops.jsonl", "--output", "~/out.jsonl")
    assert predicted.code == 0, predicted.err
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == len(rows)
    assert call("predict", "~/run", "fine film").out.rstrip().endswith("fine film")
