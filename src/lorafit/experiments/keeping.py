"""What stops a comparison or a search says what was kept and how to go on."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lorafit.errors import EnvironmentUnfitError, TrainingInterruptedError
from lorafit.system.faults import find_fault, name_faults


@contextmanager
def keeping(root: Path) -> Iterator[None]:
    """Turn a signal, or a fault of the machine, into an error that says how to go on.

    Args:
        root: The folder of the comparison or search.

    Raises:
        TrainingInterruptedError: The block was interrupted.
        EnvironmentUnfitError: The machine lacks something, such as room on the disk.
    """
    command = name_command(root)
    try:
        with name_faults(f"What has finished is kept. Then go on with {command}"):
            yield
    except (KeyboardInterrupt, TrainingInterruptedError) as error:
        raise TrainingInterruptedError(
            f"Interrupted; what has finished is kept. Resume with {command}", run=root
        ) from error


def name_command(root: Path) -> str:
    """Return in words what goes on with a comparison or search."""
    return f"the same command and --output {shlex.quote(str(root))}"


def stops_all(error: Exception) -> bool:
    """Say whether an error ends all runs of an experiment and not the one alone in which it came.

    Args:
        error: What a run raised.

    Returns:
        True for a full disk and the like; False for a lack of memory, which another run may not have, and for errors
        that are no fault of the machine.
    """
    fault = error if isinstance(error, EnvironmentUnfitError) else find_fault(error)
    return type(fault) is EnvironmentUnfitError
