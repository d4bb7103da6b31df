"""Data sets of the Hugging Face Hub, through the `datasets` library. Code from the Hub is never run."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from lorafit.data.rows import RawRows, RawSplits
from lorafit.data.tables import check_columns
from lorafit.errors import DataError, NetworkUnavailableError
from lorafit.system.extras import require

HUB_SOURCE = re.compile(
    r"hub:(?P<id>(?:[A-Za-z0-9][A-Za-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*)(?::(?P<subset>\w[\w.+-]*))?"
    r"(?:@(?P<revision>[A-Za-z0-9][\w./-]*))?"
)
_NO_COLUMNS: Mapping[str, str] = {}
_SEVERAL = 2
_LISTED = 20
"""How many subsets an error lists."""


def load_hub(
    source: str, *, text_column: str = "text", label_column: str = "label", columns: Mapping[str, str] = _NO_COLUMNS
) -> RawSplits:
    """Load a data set from the Hub, or from the local cache of `datasets`.

    Args:
        source: `hub:owner/name` or `hub:name`, with `:subset` and `@revision` (branch, tag or commit) if wanted.
        text_column: Column that holds the texts.
        label_column: Column that holds the labels; a ClassLabel's names are used.
        columns: Further columns to keep, each with the flag that chooses it.

    Returns:
        Its rows; validation and test where the data set has them.

    Raises:
        DataError: The name is not of that form, there is no such data set, it has no such columns or no train split,
            or several subsets of which none is named.
        NetworkUnavailableError: The Hub cannot be reached and the data set is not in the cache.
        MissingExtraError: `datasets` is not installed.
    """
    match = HUB_SOURCE.fullmatch(source)
    if match is None:
        raise DataError(
            f"'{source}' does not name a data set of the Hub. Allowed: hub:owner/name, with a subset and a revision "
            "hub:owner/name:subset@revision, made of letters, digits and the signs . _ -"
        )
    name, revision = match["id"], match["revision"]
    if Path(name).exists():
        raise DataError(
            f"Here lies a file or folder called '{name}', which hides the data set '{source}' from the datasets "
            "library. Run lorafit in another folder, or rename it."
        )
    _probe(name, revision)
    return load_published(
        name,
        subset=match["subset"],
        revision=revision,
        text_column=text_column,
        label_column=label_column,
        columns=columns,
        origin=source,
    )


def load_published(
    path_or_id: str,
    *,
    origin: str,
    subset: str | None = None,
    revision: str | None = None,
    text_column: str = "text",
    label_column: str = "label",
    columns: Mapping[str, str] = _NO_COLUMNS,
) -> RawSplits:
    """Load the splits train, validation and test of whatever `datasets.load_dataset` opens.

    Args:
        path_or_id: Hub id, or a folder with data files.
        origin: What the data is called, for messages.
        subset: One of its subsets ("configs"); None where it has only one.
        revision: Branch, tag or commit on the Hub.
        text_column: Column that holds the texts.
        label_column: Column that holds the labels; a ClassLabel's names are used.
        columns: Further columns to keep, each with the flag that chooses it; a ClassLabel's names are used.

    Returns:
        The rows. A split whose labels are all hidden (-1) counts as not there.

    Raises:
        DataError: It cannot be loaded, has no such columns or no train split, or no such subset, or several of which
            none is named; the message lists them.
        NetworkUnavailableError: The Hub cannot be reached and the data set is not in the cache.
        MissingExtraError: `datasets` is not installed.
    """
    loaded = _load(path_or_id, subset, revision, origin)
    if "train" not in loaded:
        raise DataError(f"{origin} has no split 'train'. Its splits: {sorted(loaded)}.")
    wanted = {**columns, text_column: "--text-column", label_column: "--label-column"}
    parts: dict[str, RawRows] = {}
    notes: list[str] = []
    for name in ("train", "validation", "test"):
        if name not in loaded:
            continue
        check_columns(loaded[name].column_names, wanted, f"{origin} {name}")
        rows = RawRows(
            f"{origin} {name}",
            loaded[name][text_column][:],
            _read_column(loaded[name], label_column),
            columns={column: _read_column(loaded[name], column) for column in columns},
        )
        if rows.labels and all(label is None for label in rows.labels) and name != "train":
            notes.append(f"{origin}: its split '{name}' has no labels and is not used.")
        else:
            parts[name] = rows
    names = _class_names(loaded["train"], label_column)
    return RawSplits(
        train=parts["train"],
        validation=parts.get("validation"),
        test=parts.get("test"),
        label_names=tuple(names) if names else None,
        notes=tuple(notes),
    )


def _probe(name: str, revision: str | None) -> None:
    """Ask for one small file: without a network `load_dataset` itself gives up only after half a minute."""
    hub = require("huggingface_hub", extra="train", purpose="loading a data set from the Hub")
    errors = hub.errors
    try:
        hub.snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=["README.md"])
    except errors.LocalEntryNotFoundError as error:
        raise _unreachable(name) from error
    except errors.RevisionNotFoundError as error:
        raise DataError(f"The data set '{name}' has no revision '{revision}' on the Hub.") from error
    except errors.RepositoryNotFoundError as error:
        raise DataError(f"There is no data set '{name}' on the Hub, or it is private or gated.") from error
    except Exception as error:  # the errors of the HTTP library beneath, a proxy's refusal say, have no public base
        raise NetworkUnavailableError(
            f"The Hub did not answer for the data set '{name}': {type(error).__name__}: {error}"
        ) from error


def _load(path_or_id: str, subset: str | None, revision: str | None, origin: str) -> dict[str, Any]:
    datasets = require("datasets", extra="train", purpose="loading a data set from the Hub")
    exceptions = datasets.exceptions
    try:
        return dict(datasets.load_dataset(path_or_id, subset, revision=revision))
    except ConnectionError as error:
        raise _unreachable(path_or_id) from error
    except exceptions.DatasetNotFoundError as error:
        raise DataError(f"There is no data set '{path_or_id}' on the Hub, or it is private or gated.") from error
    except (exceptions.DatasetsError, ValueError, RuntimeError, FileNotFoundError) as error:
        _check_subset(datasets, path_or_id, subset, revision, origin)
        reason = " ".join(str(error).split())[:500]
        raise DataError(f"The datasets library cannot load {origin}: {reason}") from error


def _check_subset(datasets: ModuleType, path_or_id: str, subset: str | None, revision: str | None, origin: str) -> None:
    """Say which subsets there are, where one must be named or another one was."""
    names: list[str] = []
    with suppress(Exception):  # what cannot be loaded at all has an error of its own
        names = datasets.get_dataset_config_names(path_or_id, revision=revision)
    if not names or subset in names or (subset is None and len(names) < _SEVERAL):
        return
    plain, _, version = origin.partition("@")
    plain = plain.removesuffix(f":{subset}")
    sources = [f"{plain}:{name}{version and f'@{version}'}" for name in names[:_LISTED]]
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    if len(names) == 1:
        raise DataError(f"{plain} has no subset '{subset}', nor any other: leave it out.")
    told = f"has no subset '{subset}'" if subset else f"has {len(names)} subsets"
    raise DataError(f"{plain} {told}. Name one of them: {', '.join(sources)}{more}.")


def _read_column(split: Any, column: str) -> Sequence[object]:  # noqa: ANN401  datasets has no stubs
    values: Sequence[object] = split[column][:]
    names = _class_names(split, column)
    if names:
        return [_name(value, names) for value in values]
    return values


def _name(value: object, names: Sequence[str]) -> object:
    if isinstance(value, list):
        return [_name(part, names) for part in value]
    return names[value] if isinstance(value, int) and value >= 0 else None


def _class_names(split: Any, column: str) -> list[str]:  # noqa: ANN401  datasets has no stubs
    feature = split.features[column]
    return list(getattr(getattr(feature, "feature", feature), "names", ()))  # of a list's items, where it is a list


def _unreachable(name: str) -> NetworkUnavailableError:
    return NetworkUnavailableError(
        f"The data set '{name}' is not in the local cache and the Hugging Face Hub cannot be reached. Go online once, "
        "or give a file (csv, tsv, jsonl, parquet) or builtin:rotten-tomatoes instead."
    )
