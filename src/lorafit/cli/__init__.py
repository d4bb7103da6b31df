"""The table of commands, and how errors become messages and exit codes."""

import contextlib
import functools
import io
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, Never

import typer

from lorafit import __version__
from lorafit.cli.check import check
from lorafit.cli.compare import compare
from lorafit.cli.demo import demo
from lorafit.cli.diff import diff
from lorafit.cli.doctor import doctor
from lorafit.cli.drift import drift
from lorafit.cli.evaluate import evaluate
from lorafit.cli.explain import explain
from lorafit.cli.export import export
from lorafit.cli.options import take_options
from lorafit.cli.parsing import Command
from lorafit.cli.predict import predict
from lorafit.cli.push import push
from lorafit.cli.report import report
from lorafit.cli.reproduce import reproduce
from lorafit.cli.search import search
from lorafit.cli.serve import serve
from lorafit.cli.train import train
from lorafit.errors import LorafitError, StoppedError
from lorafit.system.extras import without_telemetry
from lorafit.system.faults import find_fault
from lorafit.system.signals import exit_code, listen
from lorafit.system.text import disarm
from lorafit.system.variables import sharing_cores

COMMANDS: dict[str, Callable[..., None]] = {
    command.__name__: command
    for command in (
        demo,
        check,
        train,
        evaluate,
        predict,
        export,
        push,
        serve,
        report,
        explain,
        diff,
        drift,
        reproduce,
        compare,
        search,
        doctor,
    )
}
"""Every command by the name it is called by, in the order of the help text."""

_LONGEST_LINE: Final = 300
"""Characters of a command line that a message repeats."""

app = typer.Typer(
    name="lorafit",
    help="Fine-tune a small text encoder into your own classifier with LoRA, on a CPU, with evidence.",
    no_args_is_help=True,
    context_settings={"default_map": {"help": False}},  # for None typer would import pydantic before the command's help
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lorafit {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (anywhere in the line).")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Take the options that stand before the command."""


def _guarded(command: Callable[..., None], *, again: str, debug: bool) -> Callable[..., None]:
    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except typer.Exit:
            raise
        except BrokenPipeError:
            raise  # `lorafit predict … | head`: typer ends quietly
        except KeyboardInterrupt:
            _fail(f"Interrupted. Start again with {again}", exit_code(), red=False, debug=debug)
        except StoppedError as error:
            _fail(str(error), exit_code(), red=False, debug=debug)
        except LorafitError as error:
            _fail(str(error), error.exit_code, debug=debug)
        except Exception as error:  # noqa: BLE001 - the last place where it can become a message
            if (fault := find_fault(error)) is not None:
                _fail(f"{fault} Then go on with {again}", fault.exit_code, debug=debug)
            text = f"{type(error).__name__}: {error}".splitlines()[0]
            advice = "" if debug else "\nRun it again with --debug to see where."
            _fail(f"lorafit failed unexpectedly: {text}{advice}", LorafitError.exit_code, debug=debug)

    return run


def _fail(message: str, code: int, *, red: bool = True, debug: bool) -> Never:
    message = disarm(message)
    if debug:
        typer.echo(disarm(traceback.format_exc()), err=True, nl=False)
    with contextlib.suppress(OSError):  # a terminal that was closed, or a full disk that takes standard error
        red = red and not os.environ.get("NO_COLOR")
        typer.echo(typer.style(message, fg=typer.colors.RED) if red else message, err=True)
    raise typer.Exit(code)


def _describe_line(words: Sequence[str]) -> str:
    """Return a command line to type again, on a line of its own, or what to type where it is long."""
    line = shlex.join(["lorafit", *words])
    return f"this command:\n  {line}" if line.isprintable() and len(line) <= _LONGEST_LINE else "the same command."


def _tolerate_narrow_encodings() -> None:
    """Escape what a terminal's encoding lacks (✓, say) instead of failing after the work is done."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        arguments: The words after `lorafit`; None takes those of this process.
    """
    _tolerate_narrow_encodings()
    words = list(sys.argv[1:] if arguments is None else arguments)
    with listen():
        try:
            _run(words)
        except KeyboardInterrupt:  # before the command began
            sys.exit(exit_code())


def _run(words: list[str]) -> None:
    options = words[: words.index("--")] if "--" in words else words
    debug = "--debug" in options
    if debug:
        words.remove("--debug")
    again = _describe_line(words)
    app.registered_commands.clear()  # of an earlier call
    for name, command in COMMANDS.items():
        app.command(name, cls=Command)(_guarded(take_options(command), again=again, debug=debug))
    with without_telemetry(), sharing_cores():
        app(args=words, prog_name="lorafit", obj=words)  # for processes that are to do the same
