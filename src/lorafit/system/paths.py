"""Paths as people write them."""

from pathlib import Path

from lorafit.errors import UserInputError


def expand_home(path: str | Path) -> Path:
    """Return a path with `~` replaced by the home folder, which a shell does not do in quotes.

    Args:
        path: The path.

    Returns:
        The path without `~`.

    Raises:
        UserInputError: There is no user of that name.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserInputError(
            f"{path}: there is no user {Path(path).parts[0][1:]} with a home folder. If the name itself begins with ~, "
            f"write ./{path}"
        ) from error
