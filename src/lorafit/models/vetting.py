"""Look at a model's files before a library opens them, since they may come from anybody.

A library believes what a folder says: how large a model is, which files lie elsewhere, which code comes with it. Here
the files are held to what lorafit needs: plain ones of the folder itself, with counts within limits. What a library
still finds wrong with them becomes one sentence.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lorafit.errors import ConfigError, LorafitError, RunError, UserInputError
from lorafit.models.quiet import quiet_transformers
from lorafit.system.faults import find_fault
from lorafit.system.files import check_file, read_object
from lorafit.system.limits import GROWTH, LAYERS, MODEL_LABELS, PIECES
from lorafit.system.text import clean_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_ENDINGS: Final = frozenset({".json", ".model", ".safetensors", ".txt"})
"""Endings of the files that libraries read."""

_MOST_REASON: Final = 300
"""Characters of what a library says that are shown."""

_LAYERS: Final = re.compile(r"layer|block|group|expert|depth|stage")
_IMPLEMENTATIONS: Final = (None, "eager", "sdpa")
"""Ways to compute that come with transformers; by any other name it loads code from the Hub."""

_CODE: Final = "it needs code that comes with it, which lorafit never runs"


@contextmanager
def opening(what: str) -> Iterator[None]:
    """Let transformers or PEFT open files as in `reading`, without a word on the terminal."""
    with reading(what), quiet_transformers():
        yield


@contextmanager
def reading(what: str, error_type: type[UserInputError] = ConfigError) -> Iterator[None]:
    """Let a library read files; what it finds wrong with them becomes a sentence.

    Args:
        what: The begin of that sentence, such as `transformers cannot load my-model`.
        error_type: What is raised.

    Raises:
        UserInputError: `error_type`: the library finds something wrong, whatever it raises.
        EnvironmentUnfitError: The machine lacks something.
    """
    try:
        yield
    except LorafitError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        if (fault := find_fault(error)) is not None:
            raise fault from error
        raise error_type(f"{what}: {describe_fault(error)}.") from error


def is_panic(error: BaseException) -> bool:
    """Return whether an error is the end of a library in Rust, which Python does not take for an `Exception`."""
    return type(error).__name__ == "PanicException"


def describe_fault(error: BaseException) -> str:
    """Return what a library says of a fault, in one line and without its advice to trust what it opens."""
    said = str(error)
    if "trust_remote_code" in said or "weights_only" in said:
        return _CODE
    return clean_text(said, most=_MOST_REASON).rstrip(".") or type(error).__name__


def check_place(folder: Path) -> None:
    """Refuse a folder with a link to elsewhere, or with something that is no plain file, where libraries read files.

    Links into the blobs of the Hub's own cache are what that cache is made of.

    Args:
        folder: Of a model or an adapter.

    Raises:
        ConfigError: There is one; the message names it.
    """
    root = folder.resolve()
    for path in sorted(folder.iterdir()):
        if path.suffix not in _ENDINGS or path.is_dir():
            continue
        check_file(path, ConfigError)
        place = path.resolve()
        if not place.is_relative_to(root) and not _is_blob(place):
            raise ConfigError(f"{path} is a link out of its folder, to {place}. Put the file itself there.")


def _is_blob(path: Path) -> bool:
    """Return whether a file is one of the Hub's own cache."""
    return path.parent.name == "blobs" and path.parent.parent.name.startswith("models--")


def read_config(folder: Path) -> dict[str, Any]:
    """Read a model's `config.json`, and refuse one that a library should not be given.

    Args:
        folder: Of the model.

    Returns:
        Its fields.

    Raises:
        ConfigError: It is damaged, has more layers or labels than are allowed, or names code that is loaded from
            elsewhere.
    """
    check_place(folder)
    path = folder / "config.json"
    fields = read_object(path, ConfigError)
    if not isinstance(fields.get("model_type") or "", str):
        raise ConfigError(f"{path} is damaged: model_type is {clean_text(repr(fields['model_type']), most=80)}.")
    for key, value in _list_fields(fields):
        if type(value) is int and _LAYERS.search(key):
            LAYERS.check(value, f"{path}: {key} is {value:,}", ConfigError)
        if key in {"num_labels", "_num_labels"} and isinstance(value, int | float):
            MODEL_LABELS.check(int(value), f"{path}: {key} is {value:,}", ConfigError)
        if key.endswith("_implementation") and value not in _IMPLEMENTATIONS:
            raise ConfigError(f"{path}: {key} is {clean_text(repr(value), most=80)}; lorafit takes eager or sdpa.")
    if fields.get("quantization_config"):
        raise ConfigError(
            f"{path}: its weights are quantized (quantization_config), which cannot be fine-tuned here. Take the model "
            "that it was made from."
        )
    return fields


def check_tokenizer(tokenizer: "Tokenizer", path: Path) -> None:
    """Refuse a tokenizer that takes time or memory without measure, or frames texts as none does.

    Args:
        tokenizer: The tokenizer.
        path: Its file, for messages.

    Raises:
        RunError: It is one.
    """
    longest = getattr(tokenizer.model, "max_input_chars_per_word", 0)
    PIECES.check(longest, f"{path}: max_input_chars_per_word is {longest:,}", RunError)
    if tokenizer.normalizer is not None:
        growth = math.ceil(_measure_growth(json.loads(tokenizer.normalizer.__getstate__())))
        GROWTH.check(growth, f"{path}: its normalizer makes a text up to {growth:,} times as long", RunError)
    body, framed = (tokenizer.encode("a", add_special_tokens=framed).ids for framed in (False, True))
    if not any(framed[start : start + len(body)] == body for start in range(len(framed) + 1)):
        raise RunError(f"{path} is damaged: between its special tokens a text is another one.")


def _measure_growth(step: Mapping[str, Any]) -> float:
    """Return how many times as long a text may become by the replacements of a normalizer."""
    growth = math.prod(_measure_growth(one) for one in step.get("normalizers") or ())
    if step.get("type") == "Replace":
        pattern, content = step["pattern"].get("String"), len(step["content"])
        growth *= max(1, content / len(pattern)) if pattern else 1 + content
    return growth


def _list_fields(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the fields of an object and of those in it; names of labels are none."""
    for key, value in fields.items():
        yield key, value
        if isinstance(value, dict) and key not in {"id2label", "label2id"}:
            yield from _list_fields(value)
