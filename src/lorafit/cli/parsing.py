"""How the words of a command line become options and arguments.

A text may begin with a dash, and an option that takes one value refuses a second instead of forgetting the first.
"""

import difflib
import re
import shlex
from itertools import islice
from typing import Any

import typer
from typer.core import TyperCommand, TyperOption

from lorafit.system.text import disarm

_UsageError: Any = typer.BadParameter.__base__  # typer has no name for it

_OPTION = re.compile(r"-[A-Za-z]\S*|--[A-Za-z]\S*|--[A-Za-z][\w-]*=.*", re.DOTALL)
"""Everything else that begins with a dash is an argument, such as "-5 stars, never again"."""


class Command(TyperCommand):
    """A command whose arguments may begin with a dash where they do not look like an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer hides the context's class
        """Parse the words after the command, arguments behind `--`, where no word is taken for an option."""
        try:
            return self._parse(ctx, args)
        except _UsageError as error:
            raise _UsageError(disarm(error.format_message()), ctx) from error

    def _parse(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer hides the context's class
        valued = {
            name: param
            for param in self.params
            if isinstance(param, TyperOption) and not param.is_flag
            for name in param.opts
        }
        options: list[str] = []
        arguments: list[str] = []
        given: set[str] = set()
        words = iter(args)
        for word in words:
            if word == "--":
                arguments += words
            elif not _OPTION.fullmatch(word):
                arguments.append(word)
            else:
                self._check_known(ctx, word, args)
                options.append(word)
                name, sign, _ = word.partition("=")
                name = f"-{word[-1]}" if re.fullmatch(r"-[A-Za-z]+", word) else name
                if (param := valued.get(name)) is None:
                    continue
                if param.opts[0] in given and not param.multiple:
                    ctx.fail(f"{name} was given twice, but it takes one value. Leave one of them out.")
                given.add(param.opts[0])
                if not sign:
                    value = list(islice(words, 1))
                    if not value:
                        return super().parse_args(ctx, args)  # which says that the value is missing
                    options += value
        return super().parse_args(ctx, [*options, "--", *arguments] if arguments else options)

    def _check_known(self, ctx: Any, word: str, args: list[str]) -> None:  # noqa: ANN401 - typer hides the context's class
        """Refuse a word that is no option, nor nearly one, of a command that takes texts; it may be a text."""
        known = [name for param in self.get_params(ctx) for name in (*param.opts, *param.secondary_opts)]
        name = word.partition("=")[0] if word.startswith("--") else word[:2]
        if name in known or difflib.get_close_matches(name, known) or not self._takes_texts():
            return
        others = list(args)
        others.remove(word)
        command = f"{ctx.command_path} {shlex.join(others)} {'' if '--' in others else '-- '}{shlex.quote(word)}"
        ctx.fail(f"No such option: {name}. A text that begins with a dash goes behind --:\n  {command}")

    def _takes_texts(self) -> bool:
        return any(param.name == "texts" for param in self.params)
