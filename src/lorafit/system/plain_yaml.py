"""YAML from outside: plain values, of a bounded number and depth with all aliases written out."""

from typing import Any, Final

import yaml

from lorafit.system import limits
from lorafit.system.text import clean_text

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # of libyaml, which PyYAML's wheels hold, and far faster
_LONGEST_FAULT = 300

_NO_YAML: Final = (yaml.YAMLError, ValueError, OverflowError, IndexError, AttributeError, RecursionError)
"""What PyYAML raises of text that is none, or that is tagged as a number or a date and is neither."""


class UnusableYamlError(ValueError):
    """A text that is no YAML, or more of it than is allowed; the message continues a sentence that names the text."""


def parse_yaml(text: str) -> Any:  # noqa: ANN401 - YAML may hold any type
    """Parse YAML.

    Args:
        text: A text of any origin.

    Returns:
        What it holds: lists and dicts of texts, numbers, truth values, dates and None.

    Raises:
        UnusableYamlError: It is not valid, or holds too many values or levels, or a number of too many digits.
    """
    if len(text) > limits.SETTINGS_BYTES.value:
        raise UnusableYamlError(f"is too long; {limits.SETTINGS_BYTES.allow()}")
    try:
        _check_size(text)
        return yaml.load(text, Loader=_LOADER)  # noqa: S506 - safe, with or without libyaml
    except UnusableYamlError:
        raise
    except _NO_YAML as error:
        raise UnusableYamlError(f"is not valid YAML: {clean_text(str(error), most=_LONGEST_FAULT)}") from None


def _check_size(text: str) -> None:
    """Count the values and levels that a text has once its aliases are written out, without writing them out."""
    most, deepest = limits.SETTINGS.value, limits.DEPTH.value
    sizes: dict[str, int] = {}
    frames: list[tuple[str | None, int]] = [(None, 0)]
    for event in yaml.parse(text, Loader=_LOADER):
        anchor, size = getattr(event, "anchor", None), 0
        if isinstance(event, yaml.CollectionStartEvent):
            frames.append((anchor, 1))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = frames.pop()
        elif isinstance(event, yaml.ScalarEvent):
            size = 1
        elif isinstance(event, yaml.AliasEvent):
            if anchor not in sizes:
                raise UnusableYamlError(f"has an alias of nothing, or of itself: *{clean_text(str(anchor), most=40)}")
            size = sizes[anchor]
        if anchor is not None and size:
            sizes[anchor] = size
        outer, total = frames[-1]
        frames[-1] = (outer, total + size)
        if len(frames) - 1 > deepest:
            raise UnusableYamlError(f"has too many levels; {limits.DEPTH.allow()}")
        if total + size > most:
            raise UnusableYamlError(f"holds too much; {limits.SETTINGS.allow()}")
