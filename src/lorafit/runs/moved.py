"""Where the caller says that the base of a run lies now, if it has moved."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from lorafit.errors import UserInputError
from lorafit.system.paths import AnyPath, expand_home

_MOVED: Final[ContextVar[tuple[str, ...]]] = ContextVar("moved", default=())


@contextmanager
def look_for_bases(*folders: AnyPath | None) -> Iterator[None]:
    """Inside the block take the base of a run from one of these folders, if its weights have the digest of the base.

    Args:
        *folders: Encoders, or runs; None is none.

    Raises:
        UserInputError: There is no such folder.
    """
    given = [os.fspath(folder) for folder in folders if folder is not None]
    for folder in given:
        if not expand_home(folder).is_dir():
            raise UserInputError(f"There is no folder {folder}, where the base should be.")
    token = _MOVED.set((*given, *_MOVED.get()))
    try:
        yield
    finally:
        _MOVED.reset(token)


def list_moved() -> tuple[str, ...]:
    """Return the folders of the blocks around this call, the innermost first."""
    return _MOVED.get()
