"""Records: what is written as JSON and read again, checked by pydantic. A file of an unknown schema is refused."""

from pathlib import Path
from typing import ClassVar, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from lorafit.errors import RunError
from lorafit.system.atomic import write_atomic

__all__ = ["SCHEMA_VERSION", "FileRecord", "Record"]

SCHEMA_VERSION: Final = 1


class Record(BaseModel):
    """A part of a record: unknown keys are refused."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), ser_json_inf_nan="strings"
    )


class FileRecord(Record):
    """A record that is a file of its own."""

    schema_version: Literal[1] = 1

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record.

        Args:
            path: The file.

        Returns:
            The record.

        Raises:
            RunError: The file is missing, not JSON, from another version, or altered.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise RunError(f"{path} is missing: {path.parent} is not a complete run folder.") from error
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror}.") from error
        except ValidationError as error:
            raise RunError(f"{path} is damaged or was written by another version of lorafit: {error}") from error

    def write(self, path: Path) -> None:
        """Write the record atomically as indented JSON."""
        write_atomic(path, self.model_dump_json(indent=2) + "\n")
