"""How the words of a command line become options and arguments: a text may begin with a dash."""

import difflib
import re
import shlex
from itertools import islice
from typing import Any

from typer.core import TyperCommand, TyperOption

_OPTION = re.compile(r"-[A-Za-z]\S*|--[A-Za-z]\S*|--[A-Za-z][\w-]*=.*", re.DOTALL)
"""Everything else that begins with a dash is an argument, such as "-5 stars, never again"."""


class Command(TyperCommand):
    """A command whose arguments may begin with a dash where they do not look like an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer hides the context's class
        """Parse the words after the command, arguments behind `--`, where no word is taken for an option."""
        valued = {
            name for param in self.params if isinstance(param, TyperOption) and not param.is_flag for name in param.opts
        }
        options: list[str] = []
        arguments: list[str] = []
        words = iter(args)
        for word in words:
            if word == "--":
                arguments += words
            elif not _OPTION.fullmatch(word):
                arguments.append(word)
            else:
                self._check_known(ctx, word, args)
                options.append(word)
                if word in valued or (re.fullmatch(r"-[A-Za-z]+", word) and f"-{word[-1]}" in valued):
                    value = list(islice(words, 1))
                    if not value:
                        return super().parse_args(ctx, args)  # which says that the value is missing
                    options += value
        return super().parse_args(ctx, [*options, "--", *arguments] if arguments else options)

    def _check_known(self, ctx: Any, word: str, args: list[str]) -> None:  # noqa: ANN401 - typer hides the context's class
        """Refuse a word that is no option, nor nearly one, of a command that takes texts; it may be a text."""
        known = [name for param in self.get_params(ctx) for name in (*param.opts, *param.secondary_opts)]
        name = word.partition("=")[0] if word.startswith("--") else word[:2]
        if name in known or difflib.get_close_matches(name, known) or all(param.nargs != -1 for param in self.params):
            return
        others = list(args)
        others.remove(word)
        command = f"{ctx.command_path} {shlex.join(others)} {'' if '--' in others else '-- '}{shlex.quote(word)}"
        ctx.fail(f"No such option: {name}. A text that begins with a dash goes behind --:\n  {command}")
