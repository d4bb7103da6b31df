"""How much of anything is taken from outside: every limit in one place, with its reason.

Each can be raised for a process by an environment variable, which the message that names the limit names, too.
"""

import os
from dataclasses import dataclass
from typing import Final

from lorafit.errors import ConfigError, UserInputError


@dataclass(frozen=True)
class Limit:
    """A limit.

    Attributes:
        name: Its name, a word or two with underscores.
        default: Its value where no variable raises it.
        unit: What is counted, in the plural.
        reason: Why it stands there, a sentence without its full stop.
    """

    name: str
    default: int
    unit: str
    reason: str

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"LORAFIT_LIMIT_{self.name.upper()}"

    @property
    def value(self) -> int:
        """What holds now.

        Raises:
            ConfigError: The variable is no whole number above 0.
        """
        text = os.environ.get(self.variable)
        if text is None:
            return self.default
        if not (text.isascii() and text.isdecimal() and len(text) <= 18 and int(text)):
            raise ConfigError(f"{self.variable} must be a whole number above 0 and below 10**18, got {text[:40]!r}.")
        return int(text)

    def allow(self) -> str:
        """Return the half of a sentence that says what is allowed, and how to allow more."""
        return f"allowed are {self.value:,} {self.unit} ({self.variable}=NUMBER allows more)"

    def check(self, found: int, subject: str, error: type[UserInputError]) -> None:
        """Refuse what is beyond the limit.

        Args:
            found: How much there is.
            subject: The half of a sentence that says so: "rows.csv has 200,000 columns".
            error: What is raised.

        Raises:
            UserInputError: `error`, with both halves.
        """
        if found > self.value:
            raise error(f"{subject}; {self.allow()}.")


TEXT: Final = Limit(
    "text",
    10_000_000,
    "characters in a cell",
    "a text of more is a file that went into a cell by mistake, or a bomb; the longest novels have half of that",
)
LINE: Final = Limit(
    "line",
    1 << 26,
    "characters in a line",
    "a line is read at once; a longer one is a file without lines, or a quote that never closes",
)
WORD: Final = Limit(
    "word",
    1 << 22,
    "characters without white space",
    "a tokenizer needs some forty bytes for each of them; a longer word is tokenised in pieces",
)
COLUMNS: Final = Limit(
    "columns", 1 << 17, "columns", "a table of more is one that stands the wrong way round, and each takes memory"
)
PART_CELLS: Final = Limit(
    "part_cells", 1 << 22, "cells in a part of a file", "parts end here, so that rows without a common key stay bounded"
)
FILE: Final = Limit(
    "file",
    1 << 30,
    "bytes in a file that is read at once or unpacked",
    "it stands in memory, and what unpacks to more may have no end",
)
ARCHIVE: Final = Limit("archive", 5 << 30, "bytes in an archive, unpacked", "what unpacks to more may have no end")
RATIO: Final = Limit(
    "ratio", 100, "times its own size for what a packed file of more than 8 MiB unpacks to", "texts pack to a tenth"
)
ENTRIES: Final = Limit("entries", 50_000, "files in an archive", "each takes memory before anything is read")
FOLDER_FILES: Final = Limit(
    "folder_files", 2_000_000, "files in a folder of texts", "each takes memory and a look-up before anything is read"
)
DEPTH: Final = Limit(
    "depth", 100, "levels of lists and objects in each other", "what reads them calls itself at every level"
)
SETTINGS: Final = Limit(
    "settings", 10_000, "settings, aliases of YAML written out", "a configuration of more was made to fill memory"
)
SETTINGS_BYTES: Final = Limit("settings_bytes", 1 << 20, "bytes in a file of settings", "it is read at once")
RECORD_BYTES: Final = Limit(
    "record_bytes", 1 << 28, "bytes in a record", "it is read at once; a run's own have some kilobytes"
)

LAYERS: Final = Limit(
    "layers", 512, "layers", "each takes memory and time before a weight is read; the deepest encoders have 48"
)
MODEL_LABELS: Final = Limit(
    "model_labels", 50_000, "labels of a model", "each has a name and a row of the head, which stand in memory"
)
NEW_NUMBERS: Final = Limit(
    "new_numbers",
    1 << 26,
    "more than twice those of its weights",
    "numbers that a model has beside its weights are drawn anew: a head, a pooler, but never most of an encoder",
)
HEADER: Final = Limit(
    "header", 10_000_000, "bytes in the header of a safetensors file", "it has some 100 bytes for a tensor"
)
ADAPTER_SIZE: Final = Limit(
    "adapter_size",
    1024,
    "or the width of the base",
    "a rank beyond the width of the base adds nothing, and its matrices take memory before the weights are compared",
)
PIECES: Final = Limit(
    "pieces", 1000, "characters of a word that a tokenizer takes apart", "time grows with the square of their number"
)
GROWTH: Final = Limit(
    "growth", 100, "times its length for what the normalizer of a tokenizer makes of a text", "usual is a blank or two"
)
ADAPTER_NAMES: Final = Limit(
    "adapter_names", 5_000, "names in a setting of an adapter", "each is compared with every module of the base"
)


def list_limits() -> list[Limit]:
    """Return all limits in the order in which they stand above."""
    return [value for value in globals().values() if isinstance(value, Limit)]
