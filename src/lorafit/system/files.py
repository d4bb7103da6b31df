"""Files from outside: what is no file is refused by name before it is opened, and no more is read than is allowed."""

import difflib
import errno
import json
import os
import shlex
import stat
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any, Final

from lorafit.errors import UserInputError
from lorafit.system.faults import raise_shortage
from lorafit.system.limits import DEPTH, FILE, SETTINGS_BYTES, Limit
from lorafit.system.text import clean_text

_KINDS: Final = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_MISSING: Final = "is not there"
_FAULTS: Final = {
    errno.ENOENT: _MISSING,
    errno.ENOTDIR: _MISSING,
    errno.ELOOP: "is a link that leads back to itself",
    errno.ENAMETOOLONG: "is no path: it is too long",
}
_OF_SYSTEM: Final = ("/proc/", "/sys/")
_MOST_SIBLINGS: Final = 2000
_LONGEST_PATH: Final = 200
_MOST_REASON: Final = 300


def describe_no_file(path: Path) -> str | None:
    """Say why a path is not that of a plain file.

    Args:
        path: The path.

    Returns:
        The rest of a sentence that begins with the path, such as "is a pipe", or None where a plain file stands there.
    """
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - the same for a path that holds NUL
    except ValueError:
        return "is no path: it holds a NUL"
    except OSError as error:
        return _FAULTS.get(error.errno or 0, f"cannot be read: {error.strerror}")
    if not stat.S_ISREG(mode):
        return next((f"is {kind}" for test, kind in _KINDS if test(mode)), "is a device")
    if os.path.realpath(path).startswith(_OF_SYSTEM):
        return "is no file on a disk, but a view of the system"
    return None


def is_there(path: Path) -> bool:
    """Tell whether anything stands at a path; nothing does at one that cannot be."""
    try:
        os.stat(path)  # noqa: PTH116 - the same for a path that holds NUL
    except (OSError, ValueError):
        return False
    return True


def is_folder(path: Path) -> bool:
    """Tell whether a folder stands at a path."""
    return describe_no_file(path) == "is a folder"


def check_file(path: Path, error: type[UserInputError], *, what: str = "a file") -> None:
    """Make sure that a path is that of a plain file, which can be read to its end, and again.

    Args:
        path: The path.
        error: What is raised.
        what: What is needed there, for the message.

    Raises:
        UserInputError: `error`: nothing stands there, or a folder, pipe, socket, device or endless link.
    """
    fault = describe_no_file(path)
    if fault is None:
        return
    shown = show_path(path)
    if fault == _MISSING:
        raise error(f"There is no file {shown}.{suggest_sibling(path)}")
    if fault == "is a pipe":
        raise error(
            f"{shown} is a pipe; {what} is needed, as it is read more than once. Write it to a file first, for "
            f"instance: cat {shlex.quote(shown)} > copy{path.suffix}"
        )
    raise error(f"{shown} {fault}; {what} is needed.")


def read_file(path: Path, error: type[UserInputError], limit: Limit = FILE, *, what: str = "a file") -> bytes:
    """Read a file from outside.

    Args:
        path: The file.
        error: What is raised.
        limit: How many bytes it may have.
        what: What is needed there, for messages.

    Returns:
        Its content.

    Raises:
        UserInputError: `error`: it is no plain file, cannot be read, or has more bytes than are allowed.
    """
    check_file(path, error, what=what)
    try:
        with path.open("rb") as file:
            content = file.read(limit.value + 1)
    except OSError as fault:
        raise_shortage(fault)
        raise error(f"{show_path(path)} cannot be read: {fault.strerror}.") from fault
    limit.check(len(content), f"{show_path(path)} is larger than {what} may be", error)
    return content


def read_json(path: Path, error: type[UserInputError], limit: Limit = SETTINGS_BYTES) -> Any:  # noqa: ANN401 - JSON
    """Read JSON from outside.

    Args:
        path: The file.
        error: What is raised.
        limit: How many bytes it may have.

    Returns:
        What it holds.

    Raises:
        UserInputError: `error`: it is no plain file, too large, no JSON, or has more levels than are allowed.
    """
    content = read_file(path, error, limit)
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as fault:
        raise error(f"{show_path(path)} is damaged: {clean_text(str(fault), most=_MOST_REASON)}.") from fault
    level: list[Any] = [value]
    for _ in range(DEPTH.value):
        level = [below for one in level if isinstance(one, dict | list) for below in _list_below(one)]
    subject = f"{show_path(path)} has lists and objects in each other beyond measure"
    DEPTH.check(DEPTH.value + bool(level), subject, error)
    return value


def read_object(path: Path, error: type[UserInputError], limit: Limit = SETTINGS_BYTES) -> dict[str, Any]:
    """Read a JSON object from outside.

    Args:
        path: The file.
        error: What is raised.
        limit: How many bytes it may have.

    Returns:
        Its fields.

    Raises:
        UserInputError: `error`, as of `read_json`, or it is no object.
    """
    fields = read_json(path, error, limit)
    if not isinstance(fields, dict):
        raise error(f"{show_path(path)} is damaged: it is no JSON object.")
    return fields


def _list_below(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def show_path(path: Path) -> str:
    """Return a path for a message, cut in the middle where it is very long."""
    shown = str(path)
    if len(shown) > _LONGEST_PATH:
        shown = f"{shown[: _LONGEST_PATH // 2]}…{shown[-_LONGEST_PATH // 2 :]}"
    return shown if shown.isprintable() else clean_text(shown)


def suggest_sibling(path: Path) -> str:
    """Return a sentence that asks whether a file of nearly the same name is meant, or nothing."""
    near = find_sibling(path)
    return "" if near is None else f" Did you mean {shlex.quote(show_path(near))}?"


def find_sibling(path: Path) -> Path | None:
    """Return the file beside a path that has nearly the same name; None where there is none."""
    try:
        names = [entry.name for entry in islice(os.scandir(path.parent), _MOST_SIBLINGS)]
    except (OSError, ValueError):
        return None
    near = difflib.get_close_matches(path.name[:_LONGEST_PATH], names, n=1)
    return path.with_name(near[0]) if near else None
