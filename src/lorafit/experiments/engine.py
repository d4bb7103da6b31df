"""What runs the parts of a comparison or search elsewhere: an interface to engines of clusters."""

import os
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from lorafit.config import Config
from lorafit.errors import LorafitError
from lorafit.system.progress import Progress
from lorafit.training.prepare import Material, load_material

Part = TypeVar("Part")
Result = TypeVar("Result")

RETRIES = 3
"""How often a part whose process was killed is begun again."""


@dataclass(frozen=True)
class Lost:
    """What became of a part that gave no result.

    Attributes:
        reason: Why, for people.
        was_killed: Whether its process was ended from outside, so that it may be begun again.
    """

    reason: str
    was_killed: bool = False


class Engine(Protocol):
    """Runs parts of an experiment in processes of their own, each with its CPUs."""

    @property
    def options(self) -> Mapping[str, str]:
        """The options by which the command line asks for it, without their dashes."""

    @property
    def workers(self) -> int:
        """How many parts run at once."""

    @property
    def nodes(self) -> int:
        """How many nodes they run on."""

    def check(self, question: Callable[[], str]) -> None:
        """Ask every node whether it can do the work.

        Args:
            question: Is called there; what it returns is wrong there, nothing if all is well.

        Raises:
            UserInputError: Some cannot; it says which, and why.
        """

    def run(
        self,
        work: Callable[[Part, Progress], Result],
        parts: Mapping[str, Part],
        *,
        progress: Progress,
        again: Callable[[str, str], bool],
    ) -> Generator[tuple[str, Result | Lost]]:
        """Run parts; those that are under way when the generator is closed are interrupted.

        Args:
            work: Is pickled and called with each part, in a process that uses as many threads as it has CPUs.
            parts: By name.
            progress: Receives the lines that the parts say.
            again: Is told the name of a part whose process was killed, and why; whether to begin it again.

        Returns:
            A generator of the name and result of each, when it ends.
        """


def identify_material(material: Material) -> dict[str, Any]:
    """Return what is the same wherever the same rows and base model are.

    Args:
        material: From `load_material`.

    Returns:
        Fingerprints of the rows of each split, and the digest of the base model.
    """
    return {
        "rows": {name: split.fingerprint() for name, split in material.splits.by_name.items()},
        "base model": material.encoder.digest(),
    }


def find_obstacle(config: Config, kept: Path, expected: Mapping[str, Any]) -> str:
    """Say what keeps this node from its part of an experiment.

    Args:
        config: The settings.
        kept: A file that the driver has written into the folder of the experiment.
        expected: What `identify_material` gives where the driver runs.

    Returns:
        The obstacle; nothing if there is none.
    """
    try:
        if not kept.is_file():
            return f"it does not see {kept.parent}, where the results go: choose an --output that all nodes share"
        if not os.access(kept.parent, os.W_OK | os.X_OK):
            return f"it may not write to {kept.parent}: let the user that Ray runs as write there"
        found = identify_material(load_material(config))
    except (LorafitError, OSError) as error:
        return str(error)
    other = [name for name, value in expected.items() if found[name] != value]
    return f"not the same there: {', '.join(other)}" if other else ""
