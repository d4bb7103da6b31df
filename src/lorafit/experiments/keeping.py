"""What stops a comparison or a search says what was kept and how to go on."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lorafit.errors import EnvironmentUnfitError, TrainingInterruptedError
from lorafit.system.faults import find_fault, name_faults


@contextmanager
def keeping(config: Path, command: str) -> Iterator[None]:
    """Turn a signal, or a fault of the machine, into an error that says how to go on.

    Args:
        config: The settings file of the comparison or search; while there is none, nothing is kept, and errors pass.
        command: The command that goes on, from `write_command`.

    Raises:
        TrainingInterruptedError: The block was interrupted.
        EnvironmentUnfitError: The machine lacks something, such as room on the disk.
    """

    def name_kept() -> str | None:
        return f"What has finished is kept. Then go on with:\n  {command}" if config.is_file() else None

    try:
        with name_faults(name_kept):
            yield
    except (KeyboardInterrupt, TrainingInterruptedError) as error:
        if isinstance(error, KeyboardInterrupt) and not config.is_file():
            raise
        raise TrainingInterruptedError(
            f"Interrupted; what has finished is kept. Resume with:\n  {command}", run=config.parent
        ) from error


def write_command(name: str, config: Path, **options: object) -> str:
    """Return the command line that goes on with a comparison or search.

    Args:
        name: Of the command.
        config: The settings file in the folder.
        **options: By name; those that are None are left out.

    Returns:
        Words that a shell takes.
    """
    given = {"config": config, **options, "output": config.parent}
    words = [word for key, value in given.items() if value is not None for word in (f"--{key}", str(value))]
    return shlex.join(["lorafit", name, *words])


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
