"""Records: JSON files with a schema version, validated by pydantic. A file of another version is refused."""

import json
from pathlib import Path
from typing import ClassVar, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from lorafit.errors import RunError
from lorafit.system.atomic import write_atomic

SCHEMA_VERSION: Final = 2
"""Raised whenever the fields of any record change, so that older files get one clear error."""


class Record(BaseModel):
    """A part of a record: unknown keys are refused."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), ser_json_inf_nan="strings"
    )


class FileRecord(Record):
    """A record that is a file of its own."""

    schema_version: Literal[2] = SCHEMA_VERSION

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record.

        Args:
            path: The file.

        Returns:
            The record.

        Raises:
            RunError: The file is missing, unreadable, damaged, or of another schema version.
        """
        try:
            content = path.read_bytes()
        except FileNotFoundError as error:
            raise RunError(f"{path} is missing: {path.parent} is not a complete run folder.") from error
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror}.") from error
        _check_version(path, content)
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise RunError(f"{path} is damaged: {error}") from error

    def write(self, path: Path) -> None:
        """Write the record atomically as indented JSON."""
        write_atomic(path, self.model_dump_json(indent=2) + "\n")


def _check_version(path: Path, content: bytes) -> None:
    try:
        version = json.loads(content)["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged: it is not a JSON object with a schema_version.") from error
    if version != SCHEMA_VERSION:
        raise RunError(
            f"{path} was written by another version of lorafit (schema {version}; this one reads {SCHEMA_VERSION}): "
            "use that version, or create it again with this one."
        )
