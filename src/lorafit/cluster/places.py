"""Files and folders that all machines of a cluster can see: paths, and the URLs that fsspec knows."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lorafit.errors import UserInputError
from lorafit.system.extras import require
from lorafit.system.text import show_value

PURPOSE = "--engine ray"


@dataclass(frozen=True)
class Place:
    """A file, a folder or a pattern of names.

    Attributes:
        url: As it was given.
        system: fsspec's file system.
        path: Where it is there.
    """

    url: str
    system: Any
    path: str

    @classmethod
    def find(cls, url: str) -> "Place":
        """Find what a path or a URL stands for.

        Args:
            url: Such as `big/*.parquet` or `s3://bucket/big/*.parquet`.

        Returns:
            The place; nothing need be there.

        Raises:
            UserInputError: fsspec does not know the protocol, or lacks its library.
        """
        core = require("fsspec.core", extra="cluster", purpose=PURPOSE)
        try:
            return cls(url, *core.url_to_fs(url))
        except (ImportError, ValueError) as error:
            raise UserInputError(f"{show_value(url)} cannot be opened: {error}") from error

    @property
    def arrow(self) -> Any:  # noqa: ANN401  pyarrow has no stubs
        """The file system as Ray takes it: one of pyarrow."""
        files = require("pyarrow.fs", extra="cluster", purpose=PURPOSE)
        if self.is_local:
            return files.LocalFileSystem()
        return files.PyFileSystem(files.FSSpecHandler(self.system))

    @property
    def is_local(self) -> bool:
        """Whether it is a path of this machine."""
        return "file" in self.system.protocol

    def list_files(self, suffixes: Iterable[str]) -> list[str]:
        """List the files there, or those in the folder that is there.

        Args:
            suffixes: How their names end, in lower case.

        Returns:
            Their paths, sorted.

        Raises:
            UserInputError: There are none, or files of several kinds.
        """
        is_folder, kinds = self.system.isdir(self.path), tuple(suffixes)
        found = sorted(map(str, self.system.find(self.path) if is_folder else self.system.glob(self.path)))
        files = [name for name in found if name.lower().endswith(kinds)]
        if is_folder:  # what begins with _ is not among the rows, as for other readers of such folders
            files = [name for name in files if "/_" not in name.removeprefix(self.path)]
        if not files:
            raise UserInputError(f"{show_value(self.url)}: there is no file that ends in {', '.join(kinds)}.")
        if len({find_suffix(name) for name in files}) > 1:
            raise UserInputError(f"{show_value(self.url)} has files of several kinds. Name those of one: '…/*.parquet'")
        return files

    def identify(self, files: Iterable[str]) -> str:
        """Return a digest of the names, sizes and times of files there."""
        told = [
            (name, info["size"], str(info.get("mtime", info.get("LastModified"))))
            for name in files
            for info in [self.system.info(name)]
        ]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def find_suffix(name: str) -> str:
    """Return the suffix of a file's name, in lower case."""
    return "." + name.lower().rpartition(".")[2]
