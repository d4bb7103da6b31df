"""Questions to whoever sits at the terminal; in a pipe nothing is asked."""

import sys
from typing import TYPE_CHECKING

import typer

from lorafit.errors import DoubtfulDataError
from lorafit.system.text import disarm

if TYPE_CHECKING:
    from lorafit.config import Config


def accept_doubt(config: "Config", doubt: DoubtfulDataError) -> "Config":
    """Ask whether data that look wrong are to be used all the same.

    Args:
        config: The settings.
        doubt: What looks wrong.

    Returns:
        The settings that accept the data.

    Raises:
        DoubtfulDataError: The answer is no, or nobody can be asked.
    """
    from lorafit.config import override_config
    from lorafit.training.ranks import read_ranks

    if read_ranks().count > 1 or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise doubt
    typer.echo(disarm(str(doubt)), err=True)
    if not typer.confirm("Train on them as they are?", default=False, err=True):
        raise doubt
    return override_config(config, {doubt.setting: True})
