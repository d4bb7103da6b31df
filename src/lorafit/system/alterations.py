"""What was altered after it was written is refused, unless whoever asks accepts it knowingly."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from lorafit.errors import RunError

_IN_PYTHON: Final = "in Python inside `with lorafit.opening(accept_altered=True):`"


@dataclass(frozen=True)
class _Choice:
    """Whether what was altered is accepted, who is told so, and what was told."""

    accepts: bool
    say: Callable[[str], object]
    told: set[str] = field(default_factory=set)


_CHOICE: ContextVar[_Choice | None] = ContextVar("altered", default=None)


@contextmanager
def choose_about_altered(*, accept: bool, say: Callable[[str], object]) -> Iterator[None]:
    """Inside the block refuse what was altered, naming the option that accepts it, or accept it with a warning.

    What a block around this one accepts stays accepted. Threads started inside refuse.

    Args:
        accept: Whether it is accepted.
        say: Told each fault that is accepted, once.
    """
    outer = _CHOICE.get()
    token = _CHOICE.set(outer if outer is not None and outer.accepts else _Choice(accept, say))
    try:
        yield
    finally:
        _CHOICE.reset(token)


def accepts_altered() -> bool:
    """Return whether what was altered is accepted here."""
    choice = _CHOICE.get()
    return choice is not None and choice.accepts


def report_altered(message: str) -> None:
    """Refuse something that was altered, or warn of it where it is accepted.

    Args:
        message: What was altered, as a sentence.

    Raises:
        RunError: It is not accepted.
    """
    choice = _CHOICE.get()
    if choice is None:
        raise RunError(f"{message} If you know why, go on {_IN_PYTHON}.")
    if not choice.accepts:
        raise RunError(f"{message} If you know why, go on with --accept-altered ({_IN_PYTHON}).")
    if message not in choice.told:
        choice.told.add(message)
        choice.say(f"accepted, as was asked for: {message}")
