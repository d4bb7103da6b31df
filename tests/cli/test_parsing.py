"""Words that begin with a dash: options where they look like one, else arguments, in their order."""

import re
import shlex
from collections.abc import Callable
from typing import Annotated, Any

import pytest
import typer

from lorafit.cli.parsing import Command

Parse = Callable[..., dict[str, Any]]


@pytest.fixture
def parse() -> Parse:
    """Returns what a command gets from its words."""
    got: dict[str, Any] = {}
    app = typer.Typer(rich_markup_mode=None)

    @app.command(cls=Command)
    def run(
        folder: str,
        texts: Annotated[list[str] | None, typer.Argument()] = None,
        *,
        file: Annotated[str | None, typer.Option("--file", "-f")] = None,
        quiet: Annotated[bool, typer.Option("--quiet", "-q")] = False,
    ) -> None:
        got.update(folder=folder, texts=texts, file=file, quiet=quiet)

    def parse(*words: str) -> dict[str, Any]:
        with pytest.raises(SystemExit):
            app(args=list(words), prog_name="run")
        return got

    return parse


@pytest.mark.parametrize(
    ("words", "texts", "file", "quiet"),
    [
        (["-5 stars, never again"], ["-5 stars, never again"], None, False),
        (["fine", "-5", "- no", "--- really", "-"], ["fine", "-5", "- no", "--- really", "-"], None, False),
        (["-f", "-x", "-quite good film", "-q"], ["-quite good film"], "-x", True),
        (["-qf", "a b.csv", "-oh my"], ["-oh my"], "a b.csv", True),
        (["--file=-5 a.csv", "fine"], ["fine"], "-5 a.csv", False),
        (["fine", "--", "--file", "-q"], ["fine", "--file", "-q"], None, False),
        (["-fa.csv"], None, "a.csv", False),
        (["one\n-two"], ["one\n-two"], None, False),
        (["--two\nlines"], ["--two\nlines"], None, False),
        ([], None, None, False),
    ],
    ids=lambda value: shlex.join(value) if isinstance(value, list) else None,
)
def test_arguments_may_begin_with_a_dash(
    parse: Parse, words: list[str], texts: list[str] | None, file: str | None, quiet: bool
) -> None:
    assert parse("folder", *words) == {"folder": "folder", "texts": texts, "file": file, "quiet": quiet}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--fiel", "a.csv"], r"No such option: --fiel \(Possible options: --file"),
        (["--fiel=a b.csv"], r"No such option: --fiel \(Possible options: --file"),
        (["fine", "--file"], "'--file' requires an argument"),
        (["-f", "a.csv", "--file=b.csv"], "--file was given twice, but it takes one value. Leave one of them out."),
        (["-great"], r"goes behind --:\n  run folder -- -great\n$"),
        (["fine; film", "--bad!", "-q"], r"goes behind --:\n  run folder 'fine; film' -q -- '--bad!'\n$"),
    ],
)
def test_wrong_options_are_refused(
    parse: Parse, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert parse("folder", *words) == {}
    assert re.search(message, capsys.readouterr().err)
