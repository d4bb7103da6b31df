"""Faults of the machine, told from faults of the program: a full disk, a lack of memory, too many open files.

Libraries report the same fault as many things: an OSError, an exception of their own with the system's words in it, an
assertion of a file's position. Here each is brought back to the system's error number, and that to a sentence.
"""

import errno
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from lorafit.errors import EnvironmentUnfitError, LorafitError, OutOfMemoryError
from lorafit.system.text import clean_text

_SENTENCES: Final[Mapping[int, str]] = {
    errno.ENOSPC: "No space is left on the disk{of}. Make room.",
    errno.EDQUOT: "The disk quota of this user is used up{of}. Make room.",
    errno.EFBIG: "A file{of} grows beyond what this process or disk allows. See ulimit -f, or choose another disk.",
    errno.EROFS: "The disk{of} is read-only. {elsewhere}",
    errno.EACCES: "This user may not write or read{at}. {elsewhere}",
    errno.EPERM: "This user may not write or read{at}. {elsewhere}",
    errno.ENOTDIR: "Nothing can be made{at}: a part of that path is a file. {elsewhere}",
    errno.EISDIR: "A file cannot be put in the place of a folder{of}. Move the folder away.",
    errno.ENOENT: "What the system should have{at} is not there. {elsewhere}",
    errno.EIO: "The disk{of} fails to read or write.",
    errno.ESTALE: "The network disk{of} has lost the file.",
    errno.EMFILE: "Too many files are open at once{of}. Allow more with ulimit -n 4096.",
    errno.ENFILE: "Too many files are open on this machine{of}. Close other programs.",
    errno.EAGAIN: "This user can start no more processes or threads. Close other programs, or see ulimit -u.",
    errno.ENOMEM: "The memory is not enough. Close other programs, or give this one more.",
}
_SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE})
"""Faults of the machine that no file can be blamed for, unlike a missing permission."""

_ELSEWHERE: Final = (
    "Choose another place: with --output; LORAFIT_CACHE=FOLDER for lorafit's cache; TMPDIR=FOLDER for temporary files."
)

_WORDS: Final[tuple[tuple[str, int], ...]] = (
    (r"database or disk is full", errno.ENOSPC),
    (r"attempt to write a readonly database", errno.EROFS),
    (r"disk I/O error", errno.EIO),
    (r"\d+ requested and \d+ written|iostream error", errno.ENOSPC),
    (r"inline_container\.cc.*unexpected pos|PytorchStreamWriter failed", errno.ENOSPC),
    (r"could not create a (?:primitive|memory)|DefaultCPUAllocator|bad_alloc|bad allocation", errno.ENOMEM),
    (r"out of memory|failed to allocate|can't allocate|unable to allocate|malloc of size", errno.ENOMEM),
    (r"can't start new thread", errno.EAGAIN),
    (r"No usable temporary directory|Could not determine home directory|/dev/shm", errno.ENOENT),
)
"""What libraries say instead of an error number; the system's own words are looked for, too."""

_OF_VALUES: Final = (IndexError, KeyError, TypeError, ValueError)
"""Their messages hold values, a user's text, say, which may have any words."""

_NUMBER: Final = re.compile(r"(?:os error|errno) (\d+)", re.IGNORECASE)
_MOST_CHARACTERS: Final = 10_000
"""Of a message that are read."""


def find_fault(error: BaseException) -> EnvironmentUnfitError | None:
    """Recognise a fault of the machine in an error or in what it was raised from.

    Args:
        error: Any error that is not one of lorafit's own.

    Returns:
        The same as an error of the machine, in a sentence and with what helps, or None if it is something else.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        number = _find_number(current)
        if number is not None:
            kind = OutOfMemoryError if number == errno.ENOMEM else EnvironmentUnfitError
            return kind(_write_sentence(number, current))
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return None


def raise_shortage(error: Exception) -> None:
    """Raise what the machine lacks, where that, and not the file that was read, is at fault.

    Args:
        error: What reading a file ended with.

    Raises:
        EnvironmentUnfitError: There is no memory, too many files are open, or the disk fails.
    """
    if _find_number(error) in _SHORTAGES and (fault := find_fault(error)) is not None:
        raise fault from error


@contextmanager
def name_faults(remedy: str | Callable[[], str | None] = "") -> Iterator[None]:
    """Turn faults of the machine inside the block into errors of lorafit, which say how to go on.

    Args:
        remedy: What was kept and the command to go on, as sentences, or a function that says so when the fault has
            come; where it says None, the error passes as it is.

    Raises:
        EnvironmentUnfitError: The machine lacks something; an error of lorafit's own is passed on as it is.
    """
    try:
        yield
    except LorafitError:
        raise
    except Exception as error:
        fault = find_fault(error)
        if fault is None or (told := remedy() if callable(remedy) else remedy) is None:
            raise
        raise type(fault)(f"{fault} {told}".rstrip()) from error


def _find_number(error: BaseException) -> int | None:
    """Return the number of a fault of the machine: the error's own, or the one that its words stand for."""
    if isinstance(error, LorafitError | BrokenPipeError):
        return None
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, OSError) and error.errno is not None:
        is_of_machine = error.errno in _SENTENCES and (
            error.errno != errno.ENOENT or _find_words(str(error)) is not None
        )
        return error.errno if is_of_machine else None
    if type(error) in _OF_VALUES:
        return None
    message = str(error)[:_MOST_CHARACTERS]
    match = _NUMBER.search(message)
    if match is not None and int(match[1]) in _SENTENCES:
        return None if int(match[1]) == errno.ENOENT else int(match[1])
    return _find_words(message)


def _find_words(message: str) -> int | None:
    for words, number in _WORDS:
        if re.search(words, message, re.IGNORECASE):
            return number
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENOMEM):
        if os.strerror(number).lower() in message.lower():
            return number
    return None


def _write_sentence(number: int, error: BaseException) -> str:
    name = getattr(error, "filename2", None) or getattr(error, "filename", None)
    place = "" if name is None else clean_text(os.fsdecode(name) if isinstance(name, str | bytes) else str(name))
    if number == errno.ENOENT:
        place = clean_text(str(error), most=200)
    sentence = _SENTENCES[number].format(
        of=f" of {place}" if place else "", at=f" {place}" if place else " a file", elsewhere=_ELSEWHERE
    )
    detail = f" ({clean_text(str(error), most=200)})" if number == errno.ENOMEM and str(error) else ""
    return sentence + detail
