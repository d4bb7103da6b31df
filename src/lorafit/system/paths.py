"""Paths as people write them."""

from os import PathLike
from pathlib import Path

from lorafit.errors import EnvironmentUnfitError, UserInputError

AnyPath = str | PathLike[str]
"""A path, or what stands for one, such as a run."""


def expand_home(path: AnyPath) -> Path:
    """Return a path with `~` replaced by the home folder, which a shell does not do in quotes.

    Args:
        path: The path.

    Returns:
        The path without `~`.

    Raises:
        UserInputError: There is no user of that name.
        EnvironmentUnfitError: This user has no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        if Path(path).parts[0] == "~":
            raise EnvironmentUnfitError(
                "This user has no home folder for lorafit's cache or settings. Name a folder that can be written to: "
                "LORAFIT_CACHE=FOLDER for the cache, or HOME=FOLDER for everything."
            ) from error
        raise UserInputError(
            f"{path}: there is no user {Path(path).parts[0][1:]} with a home folder. If the name itself begins with ~, "
            f"write ./{path}"
        ) from error
