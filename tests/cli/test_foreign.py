"""Foreign text steers no terminal: labels, columns, values, files and folders of any name, in all that is said."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.panel import Panel
from rich.text import Text

from lorafit.cli.render.progress import PlainProgress
from lorafit.cli.render.tables import SafeConsole, open_console
from lorafit.tasks.label_spellings import clean_name

ARMED = re.compile("[\0-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
"""What steers a terminal or turns the direction of writing, and what cannot be seen; a line end does not."""

STEERING = "\x1b]0;evil\x07\x1b[31m\x9b2J\u202e\u200b\r"
MARKUP = '"><img src=x onerror=alert(1)>|`x`[bold]'
EVIL = f"{STEERING}{MARKUP}"
FILE = EVIL.replace("/", "").replace("\x9b", "")
Call = Callable[..., Any]


def assert_harmless(answer: Any) -> None:  # noqa: ANN401 - what `call` gives
    for shown in (answer.out, answer.err):
        assert [line for line in shown.split("\n") if ARMED.search(line)] == []


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows with an evil text, label and value of an evil column, in an evil file."""
    path = tmp_path_factory.mktemp("foreign") / f"{FILE}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", f"kind {EVIL}"])
        for row in range(120):
            word = ("awful", "dull", "lovely", "fine")[row % 4]
            label = ("bad", "good")[row % 4 // 2] + f"{EVIL}\n---\nof two lines"
            writer.writerow([f"{word} {EVIL} film {row}", label, f"{row % 3} {EVIL}\n---"])
    return path


@pytest.fixture(scope="module")
def trained_evil(table: Path, settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    return tmp_path_factory.mktemp("runs") / f"run {FILE}", [str(table), *settings, "--slice", f"kind {EVIL}"]


@pytest.mark.slow
def test_no_command_lets_foreign_text_steer_the_terminal(
    call: Call, table: Path, trained_evil: tuple[Path, list[str]], tmp_path: Path
) -> None:
    run, words = trained_evil
    again, output = run.with_name(f"again {run.name}"), tmp_path / f"{FILE}.csv"
    lines: list[list[object]] = [
        ["train", *words, "--output", run],
        ["train", *words, "--output", again, "--seed", 1],
        ["evaluate", run],
        ["evaluate", run, table, "--slice", f"kind {EVIL}"],
        ["predict", run, f"a lovely {EVIL} film"],
        ["predict", run, "--file", table],
        ["predict", run, "--file", table, "--output", output],
        ["explain", run, f"a lovely {EVIL} film"],
        ["export", run, "--merged", "--output", tmp_path / f"merged {FILE}"],
        ["export", run, "--output", tmp_path / f"export {FILE}"],
        ["diff", run, again],
        ["report", run],
        ["check", table, "--model", words[words.index("--model") + 1]],
        ["reproduce", run],
        ["compare", *words[:-2], "--methods", "lora,bitfit", "--seeds", 1, "--output", tmp_path / f"comparison {FILE}"],
    ]
    for line in lines:
        answer = call(*line)
        assert answer.code == 0, (line[0], answer.err)
        assert_harmless(answer)
    with output.open(newline="", encoding="utf-8") as file:
        assert {row["label"] for row in csv.DictReader(file)} == {
            f"{one}{EVIL}\n---\nof two lines" for one in ("bad", "good")
        }
    answer = call("predict", run, "a lovely film", "--json")
    assert json.loads(answer.out)["label"] == clean_name(f"good{EVIL}\n---\nof two lines")


@pytest.mark.parametrize("debug", [[], ["--debug"]])
@pytest.mark.parametrize(
    "line",
    [
        ["train", EVIL],
        ["train", "TABLE", "--text-column", EVIL],
        ["train", "TABLE", "--label-column", EVIL],
        ["train", "TABLE", "--slice", EVIL],
        ["train", "TABLE", "--model", f"./{EVIL}"],
        ["train", "TABLE", "--method", EVIL],
        ["train", "TABLE", "--seed", EVIL],
        ["train", "TABLE", "--set", f"training.{EVIL}=3"],
        ["train", "TABLE", "--set", f"training.epochs={EVIL}"],
        ["train", "--config", EVIL],
        ["predict", f"./{EVIL}", "x"],
        ["predict", EVIL, f"--{EVIL}"],
        ["evaluate", "a", EVIL, EVIL],
        [EVIL],
    ],
)
def test_no_error_lets_foreign_text_steer_the_terminal(
    call: Call, table: Path, line: list[str], debug: list[str]
) -> None:
    answer = call(*debug, *(str(table) if word == "TABLE" else word for word in line))
    assert answer.code not in {0, 1}, answer.err
    assert_harmless(answer)


def test_a_console_disarms_whatever_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    for one in (EVIL, Text(EVIL), Panel(EVIL)):
        open_console().print(one)
    open_console().print(f"folder  {EVIL}\nnext", soft_wrap=True)
    SafeConsole(stderr=True).print(Text(EVIL))
    PlainProgress().say(EVIL)
    shown = capsys.readouterr()
    assert not ARMED.search(shown.out + shown.err)
    assert shown.out.endswith(f"{MARKUP} next\n")
    assert shown.err.count(MARKUP) == 2


def test_colours_of_its_own_stay(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    SafeConsole().print("fine", style="green")
    assert capsys.readouterr().out == "\x1b[32mfine\x1b[0m\n"
