"""Text for people: foreign text made safe to show, counts and durations."""

import re
import unicodedata
from reprlib import Repr

Text = str | tuple[str, str]
"""What is classified: a text, or a pair of texts."""

_JOINERS = frozenset("\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}")
"""Not printable by themselves, but part of words in some scripts and of emoji."""

_NUMBER = r"\d+(?:\.\d+)?"
_DURATION = re.compile(rf"(?:({_NUMBER})h)?\s*(?:({_NUMBER})m)?\s*(?:({_NUMBER})s)?", re.IGNORECASE)


def join_text(text: Text) -> str:
    """Return a pair as one text, a line each; a text stays as it is."""
    return text if isinstance(text, str) else "\n".join(text)


def fold_text(text: Text) -> str:
    """Return a text without what may differ in a copy of it: upper and lower case, and white space."""
    return " ".join(join_text(text).casefold().split())


def clean_text(text: str, *, most: int | None = None, strip: bool = True) -> str:
    """Make foreign text safe to show on a page or a terminal. Escaping markup is left to whoever writes it there.

    Args:
        text: Any text.
        most: Length to which it is cut, the last character being an ellipsis; None for all of it.
        strip: Whether white space at both ends goes; a piece of a longer text keeps it.

    Returns:
        One line: runs of white space become one blank, and control characters, changes of writing direction and
        halves of surrogate pairs a replacement character (U+FFFD).
    """
    line = re.sub(r"\s+", " ", text)
    if strip:
        line = line.strip()
    line = disarm(line)
    return line if most is None or len(line) <= most else line[: most - 1].rstrip() + "…"


def disarm(text: str) -> str:
    """Make foreign text safe to show as `clean_text` does, sign by sign, so that its lines and columns stay.

    Args:
        text: Lines for a terminal.

    Returns:
        As many signs: blanks and line ends stay, other white space is a blank, and what steers a terminal or the
        direction of writing a replacement character (U+FFFD).
    """
    return text if text.isprintable() else "".join(map(_disarm_sign, text))


def _disarm_sign(sign: str) -> str:
    if sign.isprintable() or sign in _JOINERS or sign == "\n":
        return sign
    if unicodedata.category(sign) == "Zs":  # a blank of another width
        return sign
    return " " if sign.isspace() else "\N{REPLACEMENT CHARACTER}"


def is_visible(sign: str) -> bool:
    """Tell whether a character shows anything by itself.

    White space, control and format signs, private ones, accents without a letter, and the replacement character do not:
    tokenizers leave nothing of a text that has no other.
    """
    return unicodedata.category(sign)[0] not in "CMZ" and sign != "\N{REPLACEMENT CHARACTER}"


def show_value(value: object) -> str:
    """Return a value as it is written in Python, cut to what a message can hold whatever it is.

    Args:
        value: Anything: a setting, a cell, a list of names.

    Returns:
        One line of a few hundred characters at most.
    """
    return _SHORT.repr(value)


class _Short(Repr):
    """Cuts long texts, lists and nested values before they are written out."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother, self.fillvalue = 3, 80, 200, "…"
        self.maxlist = self.maxtuple = self.maxset = self.maxdict = 20

    def repr(self, x: object) -> str:
        """Return the value written out, cut at last where it is wide and nested."""
        return clean_text(super().repr(x), most=1000)

    def repr_int(self, x: int, level: int) -> str:  # noqa: ARG002 - called so by Repr
        """Return a number, of a very long one its length: Python refuses to write it."""
        return str(x) if x.bit_length() < 200 else f"a number of about {x.bit_length() * 0.30103:,.0f} digits"


_SHORT = _Short()


def format_count(count: int, noun: str) -> str:
    """Return a number with what it counts: 1 row, 2 rows."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def parse_duration(text: str) -> float | None:
    """Turn a text such as 90s, 10m, 1h30m or 1.5h into seconds.

    Args:
        text: Hours, minutes and seconds, each with its letter; any of them may be left out.

    Returns:
        Seconds, above 0; None if the text has another form or is no time at all.
    """
    match = _DURATION.fullmatch(text.strip())
    parts = match.groups() if match else ()
    seconds = sum(float(part or 0) * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    return seconds or None


def format_duration(seconds: float) -> str:
    """Return a duration to two or three digits: 0.4 s, 47 s, 2.5 min, 12 min, 1.6 h."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 0.95 else f"{seconds:.1f} s"
    value, unit = (seconds / 60, "min") if seconds < 90 * 60 else (seconds / 3600, "h")
    return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
