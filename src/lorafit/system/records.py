"""Records: JSON files with a schema version and a seal, validated by pydantic.

A file of another version is refused, and so is one whose content is not what its seal says. The seal is the SHA-256 of
the other fields: it finds damage and edits by hand, and other line ends or indentation do not break it. It does not
prove who wrote the file.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from lorafit.errors import RunError
from lorafit.system import limits
from lorafit.system.alterations import report_altered
from lorafit.system.atomic import write_atomic
from lorafit.system.files import is_there, read_file
from lorafit.system.text import clean_text

SCHEMA_VERSION: Final = 3
"""Raised whenever the fields of any record change, so that older files get one clear error."""

_LONGEST: Final = 200
"""Characters of what is said of a damaged field, whose name may be anything."""


class Record(BaseModel):
    """A part of a record: unknown keys are refused."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), ser_json_inf_nan="strings"
    )


class FileRecord(Record):
    """A record that is a file of its own."""

    schema_version: Literal[3] = SCHEMA_VERSION

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record.

        Args:
            path: The file.

        Returns:
            The record.

        Raises:
            RunError: The file is missing, unreadable, damaged, altered, or of another schema version.
        """
        if not is_there(path):
            raise RunError(f"{path} is missing: {path.parent} is not a complete run folder.")
        content = read_file(path, RunError, limits.RECORD_BYTES, what="a record")
        fields = _read_fields(path, content)
        if fields.pop("seal", None) != _compute_seal(fields):
            report_altered(f"{path} was altered after it was written: its content is not what its seal says.")
        try:
            return cls.model_validate_json(json.dumps(fields))
        except ValidationError as error:
            raise RunError(f"{path} is damaged: {_describe(error)}.") from error

    def write(self, path: Path) -> None:
        """Write the record atomically as indented JSON, with its seal."""
        write_atomic(path, seal(json.loads(self.model_dump_json())))


def seal(fields: dict[str, Any]) -> str:
    """Return the text of a record's file: its fields, of which none is the seal, as indented JSON with their seal."""
    return json.dumps(fields | {"seal": _compute_seal(fields)}, indent=2, ensure_ascii=False) + "\n"


def _describe(error: ValidationError) -> str:
    """Say in one line what is wrong with the first field that is."""
    first = error.errors(include_url=False)[0]
    return clean_text(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", most=_LONGEST)


def _compute_seal(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _read_fields(path: Path, content: bytes) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = json.loads(content)
        version = fields["schema_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(f"{path} is damaged: it is not a JSON object with a schema_version.") from error
    if version != SCHEMA_VERSION:
        raise RunError(
            f"{path} was written by another version of lorafit (schema {version}; this one reads {SCHEMA_VERSION}): "
            "use that version, or create it again with this one."
        )
    return fields
