"""Runs on the Hugging Face Hub: how a repository holds one, and a copy of it in lorafit's cache.

The root of the repository is `adapter/` or `model/`, so that plain libraries open it; what else belongs to the run is
in its folder `lorafit`.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from lorafit.errors import EnvironmentUnfitError, LorafitError, NetworkUnavailableError, RunError, UserInputError
from lorafit.models.cache import claim_cache
from lorafit.models.methods import find_method
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import RunRecord
from lorafit.system.atomic import create_directory
from lorafit.system.digests import confine
from lorafit.system.extras import require
from lorafit.system.paths import AnyPath, expand_home
from lorafit.system.text import clean_text

PREFIX: Final = "hub:"

RUN_FOLDER: Final = "lorafit"
"""In a repository: the run's own files."""

_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_OWN: Final = ("config.yaml", "history.jsonl", "metrics.json", "report.html", "run.json")
"""Those files."""

_FILES: Final = ("*.json", "*.safetensors", "README.md", *(f"{RUN_FOLDER}/{name}" for name in _OWN))
"""Patterns of what is downloaded; a `*` crosses folders."""


def locate_run(path: AnyPath) -> Path:
    """Return the folder that a path names, or a copy of the run that a repository of the Hub holds.

    Args:
        path: A folder, or `hub:owner/name`, with `@revision` if it is not to be the newest one.

    Returns:
        The folder, which need not exist; a copy is kept in lorafit's cache, by its commit.

    Raises:
        UserInputError: There is no such repository or revision, or it holds no run of lorafit.
        NetworkUnavailableError: The Hub does not answer, and what it would say is not in its cache.
        MissingExtraError: The Hub's client is not installed.
    """
    text = os.fspath(path)
    if not text.startswith(PREFIX):
        return expand_home(text).resolve()
    name, _, revision = text.removeprefix(PREFIX).partition("@")
    check_repository(name)
    hub = require("huggingface_hub", extra="train", purpose="Opening a run of the Hub")
    with asking_hub(name, revision):
        copy = Path(hub.snapshot_download(name, revision=revision or None, allow_patterns=list(_FILES)))
    folder = claim_cache(f"runs/{name.replace('/', '--')}-{copy.name[:12]}")
    if not RunLayout(folder).record.is_file():
        with create_directory(folder) as staging:
            _arrange(copy, staging, name)
    return folder


def name_model(path: AnyPath) -> str:
    """Return the name of a folder, or of a repository without its owner."""
    text = os.fspath(path)
    if text.startswith(PREFIX):
        return text.partition("@")[0].rpartition("/")[2]
    return expand_home(text).resolve().name


def check_repository(name: str) -> None:
    """Refuse what cannot be the name of a repository; a UserInputError says what can."""
    if not _NAME.fullmatch(name):
        raise UserInputError(f"{clean_text(name, most=100)!r} is no repository of the Hub: write owner/name.")


@contextmanager
def asking_hub(name: str, revision: str = "") -> Iterator[None]:
    """Say what it means when the Hub refuses or does not answer a question about a model; show no bars of its client.

    Args:
        name: The repository.
        revision: The branch, tag or commit that was asked for; empty for the newest.
    """
    errors, bars = (
        require(f"huggingface_hub.{name}", extra="train", purpose="Asking the Hub") for name in ("errors", "utils")
    )
    had_bars = not bars.are_progress_bars_disabled()
    bars.disable_progress_bars()
    try:
        yield
    except errors.LocalTokenNotFoundError:
        raise EnvironmentUnfitError(
            "The Hub knows nobody without a token. Make one at its settings/tokens that may write, and give it:\n"
            "  hf auth login\nor in the environment: HF_TOKEN=…"
        ) from None
    except errors.LocalEntryNotFoundError as error:
        raise NetworkUnavailableError(
            f"The Hugging Face Hub cannot be reached, and {name} is not in its cache. Go online once."
        ) from error
    except errors.HFValidationError as error:
        raise UserInputError(f"{clean_text(name, most=100)} cannot be the name of a repository: {error}") from error
    except errors.RevisionNotFoundError as error:
        raise UserInputError(f"{name} has no revision {clean_text(revision, most=100)!r} on the Hub.") from error
    except errors.RepositoryNotFoundError as error:
        raise UserInputError(
            f"There is no {name} on the Hub, or it is private and the token in use (HF_TOKEN, `hf auth login`) may "
            "not see it."
        ) from error
    except errors.HfHubHTTPError as error:
        raise _explain(error, name) from error
    except LorafitError:
        raise
    except Exception as error:  # the errors of the HTTP library beneath, a proxy's refusal say, have no public base
        raise NetworkUnavailableError(
            f"The Hugging Face Hub cannot be reached about {name}: {type(error).__name__}: {error}"
        ) from error
    finally:
        if had_bars:
            bars.enable_progress_bars()


def _explain(error: Exception, name: str) -> UserInputError | EnvironmentUnfitError:
    """Say what an answer of the Hub means."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    said = clean_text(getattr(error, "server_message", None) or str(error), most=300)
    if status == 401:
        return EnvironmentUnfitError(f"The Hub does not take the token in use (HF_TOKEN, `hf auth login`): {said}")
    if status == 403:
        return UserInputError(
            f"The token in use may not write to {name}: {said} Take a token that may write, or a name of your own."
        )
    return NetworkUnavailableError(f"The Hub could not do what was asked about {name}: {said}")


def _arrange(copy: Path, folder: Path, name: str) -> None:
    """Lay out a run folder from a copy of a repository: what the record names of the model, and the run's own files."""
    home = copy / RUN_FOLDER
    layout = RunLayout(folder)
    if not (home / layout.record.name).is_file():
        raise RunError(
            f"{PREFIX}{name} holds no run that was pushed by `lorafit push`: there is no {RUN_FOLDER}/"
            f"{layout.record.name} in it. To train on that model: --model {name}"
        )
    record = RunRecord.read(home / layout.record.name)
    trained = layout.adapter if find_method(record.method).is_adapter else layout.model
    for source, target, names in ((copy, trained, [*record.files, "README.md"]), (home, folder, _OWN)):
        for one in names:
            place = confine(target, one)
            if (source / one).is_file():
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / one, place)
            elif one in record.files:
                raise RunError(f"{PREFIX}{name} lacks the file {one}, which its record names. Push the run again.")
