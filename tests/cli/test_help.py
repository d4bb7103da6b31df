"""Help texts: complete, quick, and without torch."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import typer

import lorafit
from lorafit.cli import COMMANDS, app
from lorafit.tasks.registry import TASKS

HELP_SECONDS = 0.3
WIDE = {"COLUMNS": "200"}


@pytest.fixture
def commands(call: Callable[..., Any]) -> dict[str, click.Command]:
    call("--version")  # the commands join the app when it is called
    group = typer.main.get_command(app)
    return group.commands  # type: ignore[attr-defined,no-any-return]


def test_help_lists_every_command_with_its_summary(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    answer = call("--help")
    assert answer.code == 0
    for name, command in COMMANDS.items():
        summary = str(command.__doc__).partition("\n")[0]
        assert any(line.split() == [name, *summary.split()] for line in answer.out.splitlines()), name


def test_commands_of_the_app_are_those_of_the_table(commands: dict[str, click.Command]) -> None:
    work, evidence = (
        ["demo", "check", "train", "evaluate", "predict", "export", "push", "serve"],
        ["report", "explain", "diff", "drift", "reproduce"],
    )
    assert list(commands) == list(COMMANDS) == [*work, *evidence, "compare", "search", "doctor"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_and_argument_has_a_help_text(commands: dict[str, click.Command], name: str) -> None:
    command = commands[name]
    assert command.help
    assert len(command.params) > 1
    assert [param.name for param in command.params if not getattr(param, "help", None)] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_shows_its_options(commands: dict[str, click.Command], name: str, call: Any) -> None:  # noqa: ANN401
    answer = call(name, "--help")
    assert answer.code == 0
    assert answer.out.startswith(f"Usage: lorafit {name} ")
    options = [option for param in commands[name].params for option in param.opts if option.startswith("--")]
    assert [option for option in options if option not in answer.out] == []
    assert answer.err == ""


def test_help_of_no_command_imports_a_heavy_library() -> None:
    code = f"""
import sys
from lorafit.cli import main
for words in {[[], *([name] for name in COMMANDS)]}:
    try:
        main([*words, "--help"])
    except SystemExit as end:
        assert not end.code
    assert "pydantic" not in sys.modules  # which typer takes for the values of options
sys.stdout = sys.stderr
print(*sys.modules)
"""
    child = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    imported = set(child.stderr.split())
    assert {f"lorafit.cli.{name}" for name in COMMANDS} <= imported
    heavy = {"torch", "transformers", "peft", "datasets", "sklearn", "scipy", "pyarrow", "numpy", "jinja2"}
    assert imported & heavy == set()


@pytest.mark.parametrize("name", ["train", "compare", "search"])
def test_tasks_are_those_of_the_registry(call: Callable[..., Any], reviews: Path, name: str) -> None:
    assert ", ".join(TASKS) in " ".join(call(name, "--help").out.split())
    needed = {"train": [], "compare": ["--methods", "lora"], "search": ["--trials", "1"]}[name]
    answer = call(name, reviews, *needed, "--task", "stars")
    assert answer.code == 2
    assert f"data.task: allowed are {', '.join(TASKS)}, got 'stars'" in answer.err


def test_options_that_commands_share_are_described_alike(commands: dict[str, click.Command]) -> None:
    told: dict[str, set[str]] = {}
    for command in commands.values():
        for param in command.params:
            told.setdefault(param.opts[0], set()).add(str(getattr(param, "help", "")))
    alike = ("--text-column", "--label-column", "--label-separator", "--task", "--slice", "--bad-rows", "--set")
    assert {name: len(told[name]) for name in (*alike, "--config", "--model", "--method", "--quiet")} == dict.fromkeys(
        (*alike, "--config", "--model", "--method", "--quiet"), 1
    )


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="measures processor time, which other work does not lengthen")
@pytest.mark.parametrize("words", [["--help"], ["train", "--help"]])
def test_help_answers_at_once(words: list[str]) -> None:
    assert any(_measure(words) < HELP_SECONDS for _ in range(15)), "not even once undisturbed"


def _measure(words: list[str]) -> float:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    child = subprocess.Popen([sys.executable, "-m", "lorafit", *words], stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    return usage.ru_utime + usage.ru_stime


def test_version(call: Callable[..., Any]) -> None:
    answer = call("--version")
    assert (answer.code, answer.out) == (0, f"lorafit {lorafit.__version__}\n")


def test_no_arguments_show_the_help(call: Callable[..., Any]) -> None:
    answer = call()
    assert answer.code in {0, 2}
    assert "Usage: lorafit" in answer.out + answer.err


def test_unknown_command_proposes_the_nearest(call: Callable[..., Any]) -> None:
    answer = call("trian")
    assert answer.code == 2
    assert "trian" in answer.err
    assert "train" in answer.err.replace("trian", "")


def test_unknown_option_is_refused(call: Callable[..., Any]) -> None:
    answer = call("train", "reviews.csv", "--epochs", "2")
    assert answer.code == 2
    assert "--epochs" in answer.err
