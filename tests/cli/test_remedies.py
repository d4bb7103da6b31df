"""What an error tells the user to type is typed here: it works, and the error does not come again.

A remedy is flags to add to the same command, a command of lorafit, or a line for the shell. What is wrong with data is
found before the model is looked for, so a model that is not there ends a command that got so far.
"""

import gzip
import json
import re
import shlex
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorafit.cli.options import TrainingOptions
from lorafit.config import load_config, name_flag
from lorafit.data.writing import write_table
from lorafit.errors import ConfigError
from lorafit.inference.job_parts import JobRecord, PartRecord

Call = Callable[..., Any]
FOLDER = Path("my data (new)")
NEXT = "There is no folder './nowhere'"
"""The error that comes next."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder with a folder whose name needs quotes."""
    monkeypatch.chdir(tmp_path)
    FOLDER.mkdir()


def lines(count: int = 24, labels: str = "neg pos", head: str = "text,label", sep: str = ",") -> str:
    """A table with texts that differ and labels in turn."""
    names = labels.split()
    rows = [f"text number {row}{sep}{names[row % len(names)]}" for row in range(count)]
    return "\n".join([head.replace(",", sep), *rows]) + "\n"


def objects(cells: list[object], key: str = "label") -> str:
    return "".join(json.dumps({"text": f"text {row}", key: cells[row % len(cells)]}) + "\n" for row in range(24))


UNCLOSED = 'text\tlabel\n"never closed\tneg\n' + lines(sep="\t", head="")
FRACTIONS = lines(labels=" ".join(f"{row / 23:.3f}" for row in range(23)))


@pytest.mark.parametrize(
    ("name", "content", "given", "remedy"),
    [
        ("gaps.csv", lines() + ",pos\n", "", r"leave them out with (--bad-rows drop)"),
        ("ragged.csv", lines() + "one,pos,too many\n", "", r"leave them out with (--bad-rows drop)"),
        ("gaps.csv", lines() + ",pos\n", "--bad-rows keep", r"of training with (--bad-rows drop)"),
        ("broken.jsonl", objects(["a", "b"]) + "{\n", "", r"leave them out with (--bad-rows drop)"),
        ("rare.csv", lines() + "one,odd\ntwo,rare\nthree,rare\n", "", r"rows out with (--rare-labels drop)"),
        ("rare.csv", lines() + "one,odd\ntwo,rare\nthree,rare\n", "", r"one label with (--rare-labels merge:other)"),
        ("rare.csv", lines() + "one,odd\ntwo,rare\nthree,rare\n", "", r"measures them, with (--rare-labels keep)"),
        ("mixed.jsonl", objects([["a", "b"], ["a"]]), "", r"several labels \((--task multi_label)"),
        ("fractions.csv", FRACTIONS, "", r"regression: (--task regression)"),
        ("marks.csv", lines(labels="0 1"), "--task multi_label", r"the labels, say so with (--accept-labels)"),
        ("stars.csv", lines(head="review,stars"), "--label-column stars", r"'(review)'.* with (--text-column)"),
        ("stars.csv", lines(head="review,stars"), "--text-column review", r"'(stars)'.* with (--label-column)"),
        ("open.tsv", UNCLOSED, "--quoting standard", r"(--quoting none)"),
        ("latin1.csv", lines().replace("text n", "caf\xe9 n").encode("latin1"), "--encoding utf-8", r"(--encoding)"),
        ("enc.csv", lines(), "--encoding utf-99", r"(--encoding) utf-99: .* as in (utf-8)"),
        ("bare.csv", lines().partition("\n")[2], "--label-column 2", r"'(1)', '2'.* with (--text-column)"),
    ],
)  # fmt: skip
def test_flags_for_data_work(call: Call, name: str, content: str | bytes, given: str, remedy: str) -> None:
    file = FOLDER / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    command = ["train", str(file), "--model", "./nowhere", *given.split()]
    answer = call(*command)
    assert answer.code == 2
    assert NEXT not in answer.err
    found = re.search(remedy, answer.err, re.DOTALL)
    assert found, answer.err
    flags = sorted(" ".join(found.groups()).split(), key=lambda word: not word.startswith("--"))
    if flags == ["--encoding"]:  # of which the message cannot know the value
        flags = ["--encoding", "latin1"]
    replaced = {flag for flag in flags if flag.startswith("--") and flag in command}
    for flag in replaced:
        place = command.index(flag)
        del command[place : place + 2]
    answer = call(*command, *flags)
    assert NEXT in answer.err, answer.err


def packed_parquet() -> None:
    columns = {"text": [f"text {row}" for row in range(24)], "label": ["neg", "pos"] * 12}
    write_table(FOLDER / "rows.parquet", columns)
    (FOLDER / "rows.parquet.gz").write_bytes(gzip.compress((FOLDER / "rows.parquet").read_bytes()))
    (FOLDER / "rows.parquet").unlink()


def archive() -> None:
    with zipfile.ZipFile(FOLDER / "both.zip", "w") as file:
        file.writestr("first.csv", lines())
        file.writestr("second.csv", lines())


def several_lists() -> None:
    rows = [json.loads(line) for line in objects(["a", "b"]).splitlines()]
    (FOLDER / "lists.json").write_text(json.dumps({"NAME": rows, "other": rows}))


@pytest.mark.parametrize(
    ("write", "file", "remedy", "then"),
    [
        (archive, "both.zip", r"the file that you mean: (unzip .*)$", "first.csv"),
        (several_lists, "lists.json", r"of its own: (jq .*)$", "rows.jsonl"),
        (packed_parquet, "rows.parquet.gz", r"Unpack it first: (gunzip .*)$", FOLDER / "rows.parquet"),
    ],
    ids=["unzip", "jq", "gunzip"],
)
def test_lines_for_the_shell_work(
    call: Call, write: Callable[[], None], file: str, remedy: str, then: str | Path
) -> None:
    write()
    answer = call("train", FOLDER / file, "--model", "./nowhere")
    found = re.search(remedy, answer.err, re.MULTILINE)
    assert found, answer.err
    child = subprocess.run(["bash", "-c", found[1]], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    answer = call("train", then, "--model", "./nowhere")
    assert NEXT in answer.err, answer.err


def test_names_that_are_nearly_right_are_proposed_as_they_must_be_typed(call: Call) -> None:
    (FOLDER / "reviews (1).csv").write_text(lines())
    for wrong in ("reviws (1).csv", "reviews (1).cvs"):
        answer = call("train", FOLDER / wrong, "--model", "./nowhere")
        found = re.search(r"Did you mean (.*?)\?( |$)", answer.err, re.MULTILINE)
        assert found, answer.err
        assert NEXT in call("train", *shlex.split(found[1]), "--model", "./nowhere").err


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["gaps.csv"], r"rows out with (--bad-rows drop)"),
        (["gaps.csv"], r"prediction, with (--bad-rows keep)"),
        (["review.csv"], r"\['(review)'\]\. Choose one of them with (--text-column)"),
        (["gaps.csv", "--bad-rows", "drop", "--output", "taken.csv"], r"replace it with (--overwrite)"),
        (["gaps.csv", "--bad-rows", "drop", "--output", "half.csv"], r"replace both with (--overwrite)"),
        (["gaps.csv", "--bad-rows", "drop", "--output", "stopped.csv"], r"start over with (--overwrite)"),
        (["odd.jsonl", "--output", "out.parquet"], r"an output file that ends in (\.jsonl)"),
    ],
)
def test_flags_for_predictions_work(call: Call, trained: Path, words: list[str], remedy: str) -> None:
    Path("gaps.csv").write_text("text\nfine\n \ndull\n")
    Path("review.csv").write_text("review\nfine\n")
    Path("odd.jsonl").write_text('{"text": "fine", "id": 1}\n{"text": "dull", "id": "two"}\n')
    for taken in ("taken.csv", "half.csv.left_out.csv"):
        Path(taken).write_text("mine")
    stopped = Path(".stopped.csv.parts")
    JobRecord(settings={}).write(stopped / "job.json")
    PartRecord(first=0, end=1, rows=1, predicted=1, digest="").write(stopped / "000000000000.json")
    command = ["predict", str(trained), "--no-verify", "--file", *words]
    answer = call(*command)
    assert answer.code == 2, answer.err
    found = re.search(remedy, answer.err, re.DOTALL)
    assert found, answer.err
    flags = sorted(" ".join(found.groups()).split(), key=lambda word: not word.startswith("--"))
    if flags == [".jsonl"]:
        command[-1], flags = "out.jsonl", []
    answer = call(*command, *flags)
    assert answer.code == 0, answer.err


def test_commands_for_a_text_that_begins_with_a_dash_work(call: Call, trained: Path) -> None:
    for name in ("predict", "explain"):
        answer = call(name, trained, "-great; film?".replace(" ", ""), "--quiet")
        assert answer.code == 2
        found = re.search(rf"\n  (lorafit {name} .*)$", answer.err.rstrip())
        assert found, answer.err
        assert call(*shlex.split(found[1])[1:]).code == 0


@pytest.mark.parametrize(
    ("labels", "remedy"),
    [("neg pos odd", r"rows out with (--bad-rows drop)")],
)
def test_flags_for_evaluation_work(call: Call, trained: Path, labels: str, remedy: str) -> None:
    (FOLDER / "new.csv").write_text(lines(labels=labels))
    command = ["evaluate", trained, FOLDER / "new.csv", "--json"]
    answer = call(*command)
    found = re.search(remedy, answer.err, re.DOTALL)
    assert found, answer.err
    answer = call(*command, *found[1].split())
    assert answer.code == 0, answer.err


@pytest.mark.parametrize(
    ("words", "remedy", "then"),
    [
        ("--set training.epoch=2", r"did you mean (training\.epochs)", "--set {}=2"),
        ("--set epochs=2", r"did you mean (training\.epochs)", "--set {}=2"),
        ("--set training.epochs", r"Example: (--set training\.epochs=2)", "{}"),
        ("--method lara", r"Did you mean: (lora),", "--method {}"),
        ("--quoting some", r"'(none)', got 'some' \((--quoting)\)", "{1} {0}"),
        ("--bad-rows skip", r"'(drop)' or 'keep', got 'skip' \((--bad-rows)\)", "{1} {0}"),
        ("--task stars", r"(multi_label).* got 'stars' \((--task)\)", "{1} {0} --accept-labels"),
        ("--label-column label --label-column stars", r"(--label-column)", "{0} label"),
        ("--text-column a --text-column b --text-column c", r"(--text-column) was given 3 times: one", "{0} text"),
        ("--budget soon", r"written like (90s)", "--budget {}"),
        ("--output taken", r"for example (--output taken-2)", "{}"),
        ("--output taken --overwrite", r"Choose another (--output)", "{} other"),
        ("--group-column text --time-column text", r"(group_column) or", "--group-column text"),
    ],
)
def test_settings_that_are_proposed_are_taken(call: Call, words: str, remedy: str, then: str) -> None:
    (FOLDER / "reviews.csv").write_text(lines(60))
    Path("taken").mkdir()
    (Path("taken") / "mine.txt").write_text("mine")
    command = ["train", FOLDER / "reviews.csv", "--model", "./nowhere"]
    answer = call(*command, *words.split())
    assert answer.code == 2
    found = re.search(remedy, answer.err, re.DOTALL)
    assert found, answer.err
    answer = call(*command, *then.format(*found.groups()).split())
    assert NEXT in answer.err, answer.err


FOREIGN = "text,label\n" + "".join(f"評論{chr(0x4E00 + row)},{('neg', 'pos')[row % 2]}\n" for row in range(60))


@pytest.mark.parametrize(
    ("content", "given", "remedy", "then"),
    [
        (lines(60), "--set method.r=99", r"at most (\d+)", "--set method.r={}"),
        (lines(60), "--set model.max_length=999", r"at most (\d+) tokens", "--set model.max_length={}"),
        (
            lines(60),
            "--set method.target_modules=[query]",
            r"Candidates: (\w+)",
            "--set method.target_modules=[{}]",
        ),
        (FOREIGN, "", r"add (--force)", "{}"),
    ],
)
def test_settings_for_training_work(
    call: Call, encoder: Path, content: str, given: str, remedy: str, then: str
) -> None:
    (FOLDER / "reviews.csv").write_text(content)
    command = ["train", FOLDER / "reviews.csv", "--model", encoder]
    for setting in (
        "training.max_steps=1",
        "data.validation_fraction=0.1",
        "evaluation.before=false",
        "evaluation.baselines=false",
    ):
        command += ["--set", setting]
    if "max_length" not in given:
        command += ["--set", "model.max_length=32"]
    answer = call(*command, *given.split())
    assert answer.code == 2
    found = re.search(remedy, answer.err, re.DOTALL)
    assert found, answer.err
    answer = call(*command, "--set", "evaluation.report=false", *then.format(*found.groups()).split())
    assert answer.code == 0, answer.err


@pytest.mark.slow
def test_an_unfinished_run_is_resumed_by_the_command_that_is_told(
    call: Call, trained: Path, edit_record: Callable[..., None]
) -> None:
    run = Path(shutil.copytree(trained, FOLDER / "run"))
    edit_record(run / "run.json", status="interrupted")
    told = [call("report", run), call("diff", run, trained)]
    found = [re.search(r"lorafit (train --resume .*)$", answer.err.rstrip()) for answer in told]
    commands = {match[1] for match in found if match}
    assert commands == {f"train --resume {shlex.quote(str(run.resolve()))}"}
    assert call(*shlex.split(commands.pop())).code == 0
    assert call("report", run).code == 0


def test_every_flag_that_a_wrong_setting_names_is_an_option(call: Call) -> None:
    shown = call("train", "--help").out
    for setting in TrainingOptions.setting_names.values():
        assert re.search(rf"{name_flag(setting)}\b", shown), setting
    with pytest.raises(ConfigError, match=r"\(--text-column\)"):
        load_config(flags={"data.text_pair_column": ""})
