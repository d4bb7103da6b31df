"""Whether a file or folder is still what it was when its reading began."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lorafit.errors import DataError
from lorafit.system.files import is_folder


@dataclass(frozen=True)
class Stamp:
    """A moment of a file, or of all files in the folders of a folder.

    Attributes:
        path: The file or folder.
        marks: Name, size, time of the last change and number on the disk of each file; none of one that is not there.
    """

    path: Path
    marks: tuple[tuple[str, int, int, int], ...]

    @classmethod
    def take(cls, path: Path) -> Self:
        """Look at a file, or at all files in the folders of a folder, where texts are."""
        files = map(str, path.glob("*/*")) if is_folder(path) else [str(path)]
        return cls(path, tuple(sorted(filter(None, map(_look, files)))))

    def check(self) -> None:
        """Make sure that it is still the same.

        Raises:
            DataError: It was changed, removed or replaced.
        """
        if Stamp.take(self.path) != self:
            raise describe_change(self.path)


def describe_change(path: Path) -> DataError:
    """Return the error that says that a file was changed while it was read."""
    return DataError(
        f"{path} was changed while it was read: what was checked first is not what was read last. Wait until nothing "
        "writes to it any more, or read a copy of it."
    )


def _look(file: str) -> tuple[str, int, int, int] | None:
    try:
        found = os.stat(file)  # noqa: PTH116 - of many files
    except (OSError, ValueError):
        return None
    return file, found.st_size, found.st_mtime_ns, found.st_ino
