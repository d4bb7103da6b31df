"""lorafit's cache: tables that were at hand, and encoders that are made once in it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from lorafit.config import Config, override_config
from lorafit.data.frames import store_table
from lorafit.errors import EnvironmentUnfitError, UserInputError
from lorafit.system.atomic import create_directory, describe_obstacle
from lorafit.system.digests import Manifest
from lorafit.system.paths import expand_home

_DIGESTS = "digests.json"


def cache_folder() -> Path:
    """Return lorafit's cache: `$LORAFIT_CACHE`, else `$XDG_CACHE_HOME/lorafit`, else `~/.cache/lorafit`."""
    if explicit := os.environ.get("LORAFIT_CACHE"):
        return expand_home(explicit).resolve()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return expand_home(base).resolve() / "lorafit"


def claim_cache(part: str) -> Path:
    """Return a folder of the cache that is about to be written to.

    Args:
        part: Its path in the cache.

    Returns:
        The folder, which need not exist.

    Raises:
        EnvironmentUnfitError: It cannot be made or written to; the message names the variable that moves the cache.
    """
    folder = cache_folder() / part
    if (obstacle := describe_obstacle(folder)) is not None:
        raise EnvironmentUnfitError(
            f"lorafit's cache {cache_folder()} cannot be used: {obstacle}. Name a folder that this user may write to: "
            "LORAFIT_CACHE=FOLDER"
        )
    return folder


def make_once(name: str, fill: Callable[[Path], None]) -> Path:
    """Return the folder of an encoder in the cache; make it the first time, and again when it is damaged.

    Several processes may do so at the same time: the first one's folder stays.

    Args:
        name: Of the folder; it must tell the encoder, and how it was made, from all others.
        fill: Writes the files into an empty folder.

    Returns:
        The folder, its files as they were made.

    Raises:
        EnvironmentUnfitError: The cache cannot be written to.
    """
    folder = cache_folder() / "encoders" / name
    if Manifest.holds(folder / _DIGESTS):
        return folder
    with create_directory(claim_cache(f"encoders/{name}")) as staging:
        fill(staging)
        Manifest.of(staging, leave_out=_DIGESTS).write(staging / _DIGESTS)
        if not Manifest.holds(folder / _DIGESTS):  # another process may have mended it
            shutil.rmtree(folder, ignore_errors=True)
    return folder


def name_tables(
    config: Config | None, *, data: object = None, validation: object = None, test: object = None
) -> Config:
    """Return the settings with tables that are at hand as their sources, kept in the cache.

    Args:
        config: The settings; None takes the defaults.
        data: A table as `store_table` takes it, or a path, instead of `data.source`; None for that.
        validation: The same for `data.validation`.
        test: The same for `data.test`.

    Returns:
        The settings; where no table is given, those that came.

    Raises:
        UserInputError: `config` is something else, such as a table.
    """
    given: object = config  # a caller without types may give anything
    if not isinstance(given, Config | None):
        raise UserInputError(
            f"config is a {type(given).__name__}, not a lorafit.Config. Give data by name, as in data=table or "
            'data="reviews.csv", and settings as lorafit.Config(…).'
        )
    config = config or Config()
    tables = {"data.source": data, "data.validation": validation, "data.test": test}
    sources = {key: name_table(table) for key, table in tables.items() if table is not None}
    return override_config(config, sources) if sources else config


def name_table(table: object) -> str:
    """Return the path of a table as `store_table` takes it, kept in the cache; a name or a path stays as it is."""
    return str(table if isinstance(table, str | Path) else store_table(table, claim_cache("tables")))
